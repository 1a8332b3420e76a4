"""Steps a second of three steps that do nothing, side by side with what people would use instead.

    python benchmarks/comparison.py                                  everything; the first time it installs the others
    python benchmarks/comparison.py --documents 500 --rounds 1 --only orchestrator dramatiq

N documents go through a chain of three steps that do nothing, with two workers. Each way begins with all its work
waiting; what is counted is the time from the first step's start to the last one's record, so that no system pays for
its start (that stands beside it). Slow ones get fewer documents. Each driver proves that every step was done once and
in order.

- *orchestrator*: a poller with two workers on the embedded database, every commit flushed to the disk.
- *the database's own limit*: two bulk writes of 500 a step, nothing else: what is left if all else cost nothing.
- *the naive way*: ask the view, PUT, PUT (``naive.py``), on the same database.
- the others: one driver each in ``others/``, in an environment of its own, tuned as its guide advises for short steps.
  Redis runs with its defaults, or, where it says *synced*, with its log flushed before each answer.

With COUCHDB_URL (COUCHDB_USER, COUCHDB_PASSWORD) the first three use that server instead of the embedded one.
"""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import common
import naive
import throughput
from environments import NotHere, drive, redis_version

from orchestrator import designs
from orchestrator.chain import load
from orchestrator.couch import Credentials, Server, deploy
from orchestrator.documents import seconds_of

YES, NO = "yes", "no"


@dataclass(frozen=True)
class Way:
    """One row of the table, and what that system keeps."""

    name: str
    share: float  # of the documents, so that each way takes seconds and not minutes
    starts: str  # is it recorded that a step has begun?
    results: str  # and what became of it, per step?
    worker: str  # does a step come back whose worker was killed with kill -9?
    broker: str  # is everything there after kill -9 of what holds the queue?
    synced: str  # is it flushed to the disk before it counts?
    system: str = ""  # folder in others/
    keeps: str = ""
    broker_kind: str = ""
    workers: int = 2


OURS = "orchestrator"
WAYS = (
    Way(OURS, 1.0, YES, YES, YES, YES, YES),
    Way("the database's own limit", 1.0, "", "", "", YES, YES),
    Way("the naive way", 0.05, YES, YES, NO, YES, YES),
    Way("dramatiq + Redis", 1.0, NO, NO, "after 60 s", "last snapshot", NO, "dramatiq", "least", "redis"),
    Way("dramatiq + Redis, results, synced", 0.5, NO, "for 10 min", "after 60 s", YES, YES, "dramatiq", "most",
        "redis, synced"),
    Way("huey + SQLite", 0.6, NO, NO, NO, YES, YES, "huey", "sqlite"),
    Way("huey + Redis", 1.0, NO, NO, NO, "last snapshot", NO, "huey", "least", "redis"),
    Way("Celery + Redis", 0.4, NO, NO, NO, "last snapshot", NO, "celery", "least", "redis"),
    Way("Celery + Redis, starts, results, synced", 0.2, YES, "for a day", "at most 1 h later", YES, YES, "celery",
        "most", "redis, synced"),
    Way("Parsl", 0.4, NO, NO, NO, NO, NO, "parsl", "least"),
    Way("Parsl, checkpoints", 0.4, NO, "if it went well", NO, "results alone", NO, "parsl", "most"),
    Way("Luigi", 0.05, NO, "its file is there", "at the next run", "files", NO, "luigi", "least"),
    Way("Luigi, one worker", 0.2, NO, "its file is there", "at the next run", "files", NO, "luigi", "least", workers=1),
    Way("Prefect", 0.04, YES, YES, NO, YES, NO, "prefect", "least"),
    Way("Snakemake", 0.04, YES, "its file is there", "at the next run", "files", NO, "snakemake", "least"),
)  # fmt: skip


def ours(server: Server, credentials: Credentials, count: int) -> dict[str, float]:
    """One round of the orchestrator on a database of its own, which is checked and removed afterwards."""
    chain = load(throughput.CHAIN)
    name = f"bench-{uuid.uuid4().hex}"
    server.create(name)
    try:
        database = server.database(name)
        deploy.push(database, designs.build(chain))
        enqueued = throughput.fill(database, count)
        began = time.time()
        with common.Memory() as memory:
            throughput.through(server.url, name, common.login(credentials), count, chain, 1, 2)
        documents = [row.doc for row in database.all_docs(include_docs=True, startkey="d", endkey="e") if row.doc]
        entries = [doc.get(step.key, {}) for doc in documents for step in chain.steps]
        if len(entries) != count * len(chain.steps) or any(
            entry.get("state") != "done" or entry.get("number") != 1 for entry in entries
        ):
            raise SystemExit("not every step was done once")
        first = min(seconds_of(entry["started"]) or 0.0 for entry in entries)
        last = max(seconds_of(document["updated"]) or 0.0 for document in documents)
        return {
            "steps": len(entries), "seconds": last - first, "start": first - began, "enqueued": enqueued,
            "memory": memory.most,
        }  # fmt: skip
    finally:
        server.delete(name)


def limit(server: Server, count: int) -> dict[str, float]:
    """One round of nothing but bulk writes."""
    name = f"bench-{uuid.uuid4().hex}"
    server.create(name)
    try:
        steps = len(load(throughput.CHAIN).steps)
        rate = throughput.own_limit(server.database(name), count, steps)
        return {"steps": steps * count, "seconds": steps * count / rate}
    finally:
        server.delete(name)


def naively(server: Server, credentials: Credentials, count: int) -> dict[str, float]:
    """One round of the naive way."""
    name = f"bench-{uuid.uuid4().hex}"
    server.create(name)
    try:
        with common.Memory() as memory:
            rate = naive.throughput(server, credentials, name, count)
        return {"steps": naive.STEPS * count, "seconds": naive.STEPS * count / rate, "memory": memory.most}
    finally:
        server.delete(name)


def other(way: Way, count: int) -> dict[str, Any]:
    """One round of another system."""
    found = drive(way.system, "throughput", way.keeps, count, broker=way.broker_kind, workers=way.workers)
    return {**found, "start": found["whole"] - found["seconds"]}


def chosen(words: list[str]) -> list[Way]:
    """The ways whose name begins with one of ``words``; all without words."""
    found = [way for way in WAYS if not words or any(way.name.lower().startswith(word.lower()) for word in words)]
    if not found:
        raise SystemExit(f"--only: there is {', '.join(way.name for way in WAYS)}")
    return found


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--documents", type=int, default=5000)
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="beginnings of the ways' names")
    given = parser.parse_args()
    wanted = chosen(given.only)
    run = common.Run("comparison", __doc__)
    missing: dict[str, str] = {}
    failed: dict[str, list[str]] = {}
    known = {"Redis": redis_version()}
    with common.database_server() as (server, credentials, kind):
        run.result["versions"]["database"] = kind

        def measure(way: Way, count: int) -> dict[str, Any] | None:
            if way.system in missing:
                return None
            found: dict[str, Any]
            try:
                if way.system:
                    found = other(way, count)
                    known.update({key: item for key, item in found["versions"].items() if key != "python"})
                    return found
            except NotHere as error:
                missing[way.system] = str(error)
                print(error, file=sys.stderr)
                return None
            except RuntimeError as error:
                failed.setdefault(way.name, []).append(str(error))
                print(error, file=sys.stderr)
                return None
            if way.name == OURS:
                return ours(server, credentials, count)
            if "limit" in way.name:
                return limit(server, count)
            return naively(server, credentials, count)

        counts = {way.name: max(10, round(given.documents * way.share)) for way in wanted}
        ways: dict[str, Callable[[], Any]] = {way.name: partial(measure, way, counts[way.name]) for way in wanted}
        found = common.interleaved(ways, given.rounds, run.say)
    run.result["versions"] |= known
    rates = {name: [one["steps"] / one["seconds"] for one in rounds if one] for name, rounds in found.items()}
    base = rates.get(OURS)

    def cell(name: str, key: str, each: float = 1.0) -> Any:
        values = [one[key] / each for one in found[name] if one and one.get(key)]
        return common.spread(values) if values else None

    rows = []
    for way in wanted:
        rate = common.spread(rates[way.name]) if rates[way.name] else None
        times = None
        if base and rate and len(base) == len(rates[way.name]) and way.name != OURS:
            times = common.spread([mine / theirs for mine, theirs in zip(base, rates[way.name], strict=True)])
        rows.append([
            way.name, counts[way.name], rate, times, cell(way.name, "start"),
            cell(way.name, "enqueued", counts[way.name] / 1000), cell(way.name, "memory"),
        ])  # fmt: skip
    run.add(common.table(
        "Steps a second, three steps that do nothing, two workers",
        ["", "documents", "steps/s", "ours is faster by", "start, s", "enqueue 1,000, s", "memory of all, MB"],
        rows, *(f"{system}: not measured. {why.strip().splitlines()[0]}" for system, why in missing.items()),
        *(f"{name}: {len(why)} of {given.rounds} rounds failed: {why[0].strip().splitlines()[0]}."
          for name, why in failed.items()),
        "Medians of the rounds, with the lowest and the highest. Factors are taken in each round by itself.",
        "Luigi makes a process for each task, unless it has one worker: then it runs tasks in its own.",
        "Prefect's time ends when its server has recorded the last task, which it does beside their running.",
    ))  # fmt: skip
    run.add(common.table(
        "What each keeps meanwhile",
        ["", "starts recorded", "results recorded", "step comes back after kill -9 of its worker",
         "queue there after kill -9 of what holds it", "synced to disk"],
        [[way.name, *(text or "-" for text in (way.starts, way.results, way.worker, way.broker, way.synced))]
         for way in wanted],
        "As the systems' documentation has it, for the settings used here; only the orchestrator's row is tried by the "
        "tests here.",
    ))  # fmt: skip
    run.end(given, draw)


def draw(result: dict[str, Any], path: Any) -> None:
    """Steps a second as bars."""
    rows = result["tables"][0]["rows"]
    common.bars(path, "Three steps that do nothing, two workers", "steps a second (log)",
                {row[0]: row[2] for row in rows}, OURS, logarithmic=True)  # fmt: skip


if __name__ == "__main__":
    main()
