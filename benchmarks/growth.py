"""How it goes on as the database grows: 10^3 to 10^6 documents, all figures at each size.

    python benchmarks/growth.py                                     up to 100,000 documents
    python benchmarks/growth.py --largest 1000000 --folder /var/tmp/growth      kept, and used again the next time

One embedded server (commits flushed) holds a database of each size, whose documents are through the chain of four steps
of ``page.py``, about 1.5 kB each. The rounds take turns among the sizes. At each size:

- *throughput*: so many new documents (--documents) through all steps, which do nothing, two workers: steps a second
  from the first step's start to the last record.
- *latency*: from the write that closes a file to its first step's start, one at a time, idle.
- *start*: from starting a poller's process to the start of a step that waits; *resume*: the same after ``kill -9`` of a
  poller. Python's own start is part of both.
- *status page*: the slowest p95 of the first page, a list of files and a run's page, each asked for again and again
  while documents change.
- *status page, busy*: p95 of the same pages while the poller takes so many new documents through all steps.
- *memory*: the poller and its two workers, the most during all this (PSS).

With COUCHDB_URL (COUCHDB_USER, COUCHDB_PASSWORD) set it measures that server; its databases are removed afterwards.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import common
import latency
import page
from fastapi.testclient import TestClient

from orchestrator import designs
from orchestrator.chain import Chain, loads
from orchestrator.couch import Credentials, Database, Server, deploy
from orchestrator.documents import iso, seconds_of
from orchestrator.errors import Unavailable
from orchestrator.web import create_app

CHAIN = page.CHAIN
HTML = {"Accept": "text/html"}
STEPS = 4
#: The same chain with steps that do nothing: its design documents are the same but for the names of what runs.
IDLE_CHAIN = "name: samba\nsteps:\n" + "".join(
    f"  - {{name: {name}, run: 'procs.noop:nothing'}}\n" for name in ("transfer", "convert", "analyse", "histogram")
)
PAGES = 3
PATIENCE = 120.0  # s
LOOK = 100  # documents read at once to see whether they are through
PAUSE = 0.1  # s between two pages while steps run
FAULTS = 100  # times that a view's build may be broken off
FILLED = "benchmark-filled"  # local document of a database that has all its documents


@dataclass
class Size:
    """One database and what was measured at it, round by round."""

    count: int
    name: str
    filled: float | None = None  # s
    views: float | None = None  # s
    found: dict[str, list[float]] = field(default_factory=dict)

    def note(self, key: str, amount: float) -> None:
        self.found.setdefault(key, []).append(amount)


def fill(database: Database, total: int) -> float:
    """Documents that are through, in bulk (s)."""
    choose, now, began = random.Random(5), time.time(), time.monotonic()
    for start in range(0, total, page.BATCH):
        part = [page.document(n, 10 * total + 10, now, choose) for n in range(start, min(start + page.BATCH, total))]
        database.bulk(part)
    return time.monotonic() - began


def fresh(prefix: str, number: int) -> dict[str, Any]:
    """A document as the registrar makes it, closed just now."""
    return {
        "_id": f"{prefix}_{number:06d}", "type": "daqdocument", "run_name": prefix, "file_number": number,
        "status": "closed", "file": f"/data/{prefix}/{number:06d}", "size": 10**6, "hostname": "daq1", "site": "here",
        "format": "samba", "registered": iso(time.time()), "updated": iso(time.time()),
    }  # fmt: skip


@contextlib.contextmanager
def poller(server: Server, credentials: Credentials, name: str, root: str) -> Iterator[subprocess.Popen[bytes]]:
    """A poller's process, killed afterwards where it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-c", latency.POLLER, server.url, name, IDLE_CHAIN, root],
        env={**os.environ, **common.login(credentials)},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def entry(database: Database, id: str, key: str = "proc0") -> dict[str, Any]:
    """The step's entry of a document as soon as it is done."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = database.get(id)
        if found.get(key, {}).get("state") == "done":
            return {**found[key], "updated": found["updated"]}
        time.sleep(0.01)
    raise SystemExit(f"{id}: {key} was not done in {PATIENCE:.0f} s")


def through(database: Database, prefix: str, count: int) -> float:
    """Steps a second of ``count`` new documents through all steps, with a poller that runs already."""
    for start in range(0, count, 1000):
        database.bulk([fresh(prefix, n) for n in range(start, min(start + 1000, count))])
    deadline = time.monotonic() + PATIENCE + count / 10
    left = [f"{prefix}_{n:06d}" for n in range(count)]
    documents: list[dict[str, Any]] = []
    while left:  # a few at a time: who waits should cost the database little
        found = [row.doc or {} for row in database.all_docs(include_docs=True, keys=left[:LOOK]).rows]
        if all(document.get(f"proc{STEPS - 1}", {}).get("state") == "done" for document in found):
            documents, left = documents + found, left[LOOK:]
            continue
        if time.monotonic() > deadline:
            raise SystemExit(f"{prefix}: not through in {PATIENCE:.0f} s")
        time.sleep(0.2)
    first = min(seconds_of(document["proc0"]["started"]) or 0.0 for document in documents)
    last = max(seconds_of(document["updated"]) or 0.0 for document in documents)
    return STEPS * count / (last - first)


def measure(server: Server, credentials: Credentials, size: Size, documents: int, waits: int, chain: Chain) -> None:
    """One round at one size."""
    database = server.database(size.name)
    prefix = f"z{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory() as root:
        database.put(fresh(prefix, 900_000))
        began = time.time()
        with poller(server, credentials, size.name, root) as process:
            started = entry(database, f"{prefix}_900000")["started"]
            size.note("start", (seconds_of(started) or 0.0) - began)
            with common.Memory(process.pid) as memory:
                size.note("throughput", through(database, prefix, documents))
                names = [f"{prefix}w{n}" for n in range(waits)]
                found = latency.measure(database, names, threading.Event())
            for key, amount in common.quantiles(found).items():
                size.note(key, amount)
            runner = threading.Thread(target=through, args=(server.database(size.name), f"{prefix}b", documents))
            runner.start()
            size.note("busy page", looked_at(database, chain, runner))
            runner.join()
            size.note("memory", max(memory.most, common.pss([process.pid])))
            process.send_signal(signal.SIGKILL)
            process.wait()
        database.put(fresh(prefix, 900_001))
        began = time.time()
        with poller(server, credentials, size.name, root):
            started = entry(database, f"{prefix}_900001")["started"]
            size.note("resume", (seconds_of(started) or 0.0) - began)
    clear(database, prefix)


def addresses(database: Database) -> list[str]:
    """The pages that are measured."""
    return [address for address in page.pages(database) if address in ("/", "/files") or "/runs/" in address][:PAGES]


def looked_at(database: Database, chain: Chain, runner: threading.Thread) -> float:
    """p95 (ms) of pages that are asked for in turn while steps run."""
    source: Any = lambda: database  # noqa: E731
    times: list[float] = []
    with TestClient(create_app(source, chain=chain, live=False), base_url="http://localhost", headers=HTML) as client:
        wanted = addresses(database)
        for address in wanted:
            client.get(address)
        while runner.is_alive() or not times:
            for address in wanted:
                began = time.perf_counter()
                answer = client.get(address)
                times.append(1000 * (time.perf_counter() - began))
                if answer.status_code != 200:
                    raise SystemExit(f"{address}: {answer.status_code}")
            time.sleep(PAUSE)
    return page.quantile(times, 0.95)


def clear(database: Database, prefix: str) -> None:
    """Delete what a round has brought, so that the next one finds the same number of documents."""
    rows = database.all_docs(include_docs=True, startkey=prefix, endkey=f"{prefix}z").rows
    gone = [{"_id": row.doc["_id"], "_rev": row.doc["_rev"], "_deleted": True} for row in rows if row.doc]
    for start in range(0, len(gone), page.BATCH):
        database.bulk(gone[start : start + page.BATCH])


def pages(database: Database, chain: Chain, size: Size, rounds: int) -> None:
    """p95 of some pages at one size, a document changing before each."""
    worst = 0.0
    for address in addresses(database):
        worst = max(worst, page.measured(database, chain, address, rounds, True)["warm p95"])
    clear(database, "note:")  # what it has written
    size.note("page", worst)


def made(server: Server, chain: Chain, count: int, say: Any) -> Size:
    """A database of ``count`` documents with its views, made where it is not there yet."""
    size = Size(count, f"growth{count}")
    database, built = server.database(size.name), designs.build(chain)
    if server.create(size.name) or database.get_local(FILLED) is None:
        server.delete(size.name)  # one that an interrupted run has left would be smaller than its name says
        server.create(size.name)
        size.filled = fill(database, count)
        database.put_local(FILLED, {"documents": count})
    began = time.monotonic()
    deploy.push(database, built)
    for name, design in built.items():
        if views := list(design.get("views", {})):
            indexed(database, f"{name.removeprefix('_design/')}/{views[0]}")
    if size.filled is not None:
        size.views = time.monotonic() - began
        say(f"{count} documents: filled in {size.filled:.0f} s, the views built in {size.views:.0f} s")
    return size


def indexed(database: Database, view: str) -> None:
    """Have a view's index brought up to date.

    A build that the server breaks off (on a busy machine a part of it may take too long) goes on where it was.
    """
    for fault in range(FAULTS + 1):
        try:
            database.view(view, limit=0, reduce=False, timeout=3600.0)
            return
        except Unavailable:
            if fault == FAULTS:
                raise
            time.sleep(1.0)


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--largest", type=int, default=100_000, help="1,000 and each power of ten up to this")
    parser.add_argument("--documents", type=int, default=2000, help="new documents for the throughput, each round")
    parser.add_argument("--waits", type=int, default=100, help="documents for the latency, each round")
    parser.add_argument("--folder", type=Path, help="the embedded server's folder; filled where it is new, and kept")
    given = parser.parse_args()
    counts = [10**power for power in range(3, 8) if 10**power <= given.largest] or [given.largest]
    run = common.Run("growth", __doc__)
    chain = loads(CHAIN)
    outside = bool(os.environ.get("COUCHDB_URL"))
    with common.database_server(folder=given.folder) as (server, credentials, kind):
        run.result["versions"]["database"] = kind
        sizes = [made(server, loads(IDLE_CHAIN), count, run.say) for count in counts]
        try:
            for turn in range(given.rounds):
                for size in sizes[turn % len(sizes) :] + sizes[: turn % len(sizes)]:
                    run.say(f"round {turn + 1} of {given.rounds}: {size.count} documents")
                    measure(server, credentials, size, given.documents, given.waits, chain)
                    pages(server.database(size.name), chain, size, 20)
        finally:
            for size in sizes if outside else []:
                server.delete(size.name)
    rows = []
    for size in sizes:
        cells = [common.spread(size.found[key]) for key in COLUMNS]
        rows.append([size.count, *cells, size.filled, size.views])
    run.add(common.table(
        "With so many documents in the database", ["documents", *COLUMNS.values(), "filled, s", "views built, s"], rows,
        f"{given.documents} new documents a round for the throughput, {given.waits} for the latency. The last two "
        "columns are empty where the database was kept from an earlier run.",
    ))  # fmt: skip
    base = next((size for size in sizes if size.count == 10_000), None)
    if base is not None and sizes[-1] is not base:
        compared = []
        for key, name in COLUMNS.items():
            pairs = zip(sizes[-1].found[key], base.found[key], strict=True)
            compared.append([name, common.spread([large / small for large, small in pairs])])
        run.add(common.table(f"{sizes[-1].count:,} documents against 10,000", ["", "ratio"], compared,
                             "Each ratio is taken within a round."))  # fmt: skip
    run.end(given, draw)


#: What is noted, and its column.
COLUMNS = {
    "throughput": "steps/s", "median": "latency, median, ms", "p95": "p95, ms", "start": "poller start, s",
    "resume": "resume, s", "page": "status page, p95, ms", "memory": "poller and workers, MB",
    "busy page": "status page, busy, p95, ms",
}  # fmt: skip


def draw(result: dict[str, Any], path: Path) -> None:
    """Each quantity over the size, as a ratio to the smallest size."""
    shown = result["tables"][0]
    drawn, axes = common.figure()
    counts = [row[0] for row in shown["rows"]]
    for place, name in enumerate(shown["columns"][1 : 1 + len(COLUMNS)], start=1):
        first = common.value(shown["rows"][0][place])
        axes.plot(counts, [common.value(row[place]) / first for row in shown["rows"]], marker="o", label=name)
    axes.set_xscale("log")
    axes.set_xlabel("documents in the database")
    axes.set_ylabel("relative to the smallest")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=7, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("As the database grows", fontsize=10, loc="left")
    common.save(drawn, path)


if __name__ == "__main__":
    main()
