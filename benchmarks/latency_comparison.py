"""From the write that closes a file to its first step's start, side by side with the latency of task queues.

    python benchmarks/latency_comparison.py
    python benchmarks/latency_comparison.py --documents 50 --rounds 1 --only orchestrator celery

Idle, one document is closed (one task is sent) at a time, with 20 to 60 ms in between; under load, 300 others a second
come beside it. The clock runs from before the call that writes (sends) to the time that the step itself notes first.

- *orchestrator*: a poller with two workers, the embedded database, every commit flushed; the start is in the document.
- *the naive way*: two loops that ask the view every 10 ms, PUT "in progress" and begin (``naive.py``).
- Celery, dramatiq, huey: as in ``comparison.py``, a worker of two processes.

Each round gives a median, a p95 and a p99; the table has the medians of these over the rounds. With COUCHDB_URL
(COUCHDB_USER, COUCHDB_PASSWORD) the first two use that server.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from functools import partial
from typing import Any

import common
import latency
import naive
from environments import NotHere, drive, redis_version

from orchestrator import chain as chains
from orchestrator import designs
from orchestrator.couch import Credentials, Database, Server, deploy
from orchestrator.documents import seconds_of

OURS = "orchestrator"
NAIVE = "the naive way"
LOAD = 300  # documents a second beside it
PATIENCE = 60.0  # s
OTHERS = {
    "dramatiq + Redis": ("dramatiq", "least", "redis"),
    "huey + SQLite": ("huey", "sqlite", ""),
    "huey + Redis": ("huey", "least", "redis"),
    "Celery + Redis": ("celery", "least", "redis"),
    "Celery + Redis, starts, results, synced": ("celery", "most", "redis, synced"),
}


def ours(server: Server, credentials: Credentials, count: int, loaded: bool) -> list[float]:
    """Waits of one round, with a poller of its own on a database of its own."""
    name = f"bench-{uuid.uuid4().hex}"
    server.create(name)
    database, pause, stop = server.database(name), threading.Event(), threading.Event()
    deploy.push(database, designs.build(chains.loads(latency.CHAIN)))
    with tempfile.TemporaryDirectory() as root:
        poller = subprocess.Popen(
            [sys.executable, "-c", latency.POLLER, server.url, name, latency.CHAIN, root],
            env={**os.environ, **common.login(credentials)},
        )
        loader = threading.Thread(target=latency.load, args=(database, stop))
        try:
            latency.measure(database, [f"warm{n}" for n in range(20)], pause)
            if loaded:
                loader.start()
            return latency.measure(database, [f"d{n}" for n in range(count)], pause)
        finally:
            stop.set()
            if loader.is_alive():
                loader.join()
            poller.terminate()
            poller.wait()
            server.delete(name)


def naively(server: Server, credentials: Credentials, count: int, loaded: bool) -> list[float]:
    """Waits of one round of the naive way: documents that have one step to go."""
    name = f"bench-{uuid.uuid4().hex}"
    server.create(name)
    database, stop = server.database(name), threading.Event()
    naive.prepare(database)

    def ready(id: str) -> dict[str, Any]:
        return {**naive.document(id), "next": naive.STEPS - 1}

    def beside() -> None:
        number = 0
        while not stop.wait(0.1):
            database.bulk([ready(f"load{number + n:07d}") for n in range(LOAD // 10)])
            number += LOAD // 10

    loader = threading.Thread(target=beside)
    try:
        with naive.workers(naive.forever, server, credentials, name):
            [wait(database, ready(f"a{n}")) for n in range(20)]
            if loaded:
                loader.start()
            return [wait(database, ready(f"b{n}")) for n in range(count)]
    finally:
        stop.set()
        if loader.is_alive():
            loader.join()
        server.delete(name)


def wait(database: Database, document: dict[str, Any]) -> float:
    """Write one document and see when its step began (s)."""
    time.sleep(0.04)
    began = time.time()
    database.put(document)
    key = f"proc{naive.STEPS - 1}"
    while time.time() - began < PATIENCE:
        time.sleep(0.01)
        entry = database.get(document["_id"]).get(key, {})
        if entry.get("state") == "done":
            return max(0.0, (seconds_of(entry["started"]) or 0.0) - began)
    return PATIENCE


def other(
    name: str, missing: dict[str, str], failed: dict[str, str], known: dict[str, str], count: int, loaded: bool
) -> list[float] | None:
    """Waits of one round of another system; None where it cannot be had, or has not kept up with the load."""
    system, keeps, broker = OTHERS[name]
    if system in missing:
        return None
    try:
        found = drive(system, "latency", keeps, count, broker=broker, load=LOAD if loaded else 0)
    except NotHere as error:
        missing[system] = str(error)
        print(error, file=sys.stderr)
        return None
    except RuntimeError as error:
        failed[name + (", under load" if loaded else ", idle")] = str(error)
        print(error, file=sys.stderr)
        return None
    known.update({key: item for key, item in found["versions"].items() if key != "python"})
    return list(found["waits"])


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--documents", type=int, default=200, help="of each way, each round")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="beginnings of the ways' names")
    given = parser.parse_args()
    names = [
        name for name in (OURS, NAIVE, *OTHERS)
        if not given.only or any(name.lower().startswith(word.lower()) for word in given.only)
    ]  # fmt: skip
    if not names:
        parser.error(f"--only: there is {', '.join((OURS, NAIVE, *OTHERS))}")
    run = common.Run("latency", __doc__)
    missing: dict[str, str] = {}
    failed: dict[str, str] = {}
    known = {"Redis": redis_version()}
    with common.database_server() as (server, credentials, kind):
        run.result["versions"]["database"] = kind
        ways: dict[str, Any] = {}
        for name in names:
            for loaded in (False, True):
                way = (
                    partial(ours, server, credentials) if name == OURS
                    else partial(naively, server, credentials) if name == NAIVE
                    else partial(other, name, missing, failed, known)
                )  # fmt: skip
                ways[f"{name}|{loaded}"] = partial(way, given.documents, loaded)
        found = common.interleaved(ways, given.rounds, lambda text: run.say(said(text)))
    run.result["versions"] |= known
    rows = []
    for name in names:
        row: list[Any] = [name]
        for loaded in (False, True):
            rounds = [common.quantiles(waits) for waits in found[f"{name}|{loaded}"] if waits]
            for part in ("median", "p95", "p99"):
                row.append(common.spread([one[part] for one in rounds]) if rounds else None)
        rows.append(row)
    run.add(common.table(
        "From closing a file to the start of its step, ms",
        ["", "idle, median", "p95", "p99", f"with {LOAD}/s beside it, median", "p95 ", "p99 "],
        rows, *(f"{system}: not measured. {why.strip().splitlines()[0]}" for system, why in missing.items()),
        *(f"{name}: a round failed: {why.strip().splitlines()[0]}." for name, why in failed.items()),
        f"{given.documents} documents a round. What each keeps meanwhile stands with the throughput: those with Redis "
        "that are not called synced hold the task in memory alone and record nothing; the orchestrator has the "
        "document, the claim and who holds it on the disk before the step begins.",
    ))  # fmt: skip
    run.end(given, draw)


def said(text: str) -> str:
    """A way's name for people."""
    return text.replace("|False", ", idle").replace("|True", ", under load")


def draw(result: dict[str, Any], path: Any) -> None:
    """Medians as bars."""
    rows = result["tables"][0]["rows"]
    cells = {f"{row[0]}{kind}": row[place] for row in rows for kind, place in (("", 1), (", under load", 4))}
    common.bars(path, "From closing a file to the start of its step, median", "ms (log)", cells, OURS, logarithmic=True)


if __name__ == "__main__":
    main()
