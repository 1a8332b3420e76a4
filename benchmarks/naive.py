"""The naive way to run steps from CouchDB, as a baseline: ask the view, PUT "in progress", run, PUT "done".

What one writes on the first afternoon: a loop for each worker, one request after the other, no bulk, no feed. It has
the same states and much less metadata than the real thing, and no recovery at all. Not meant for use.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from typing import Any

from orchestrator.couch import Credentials, Database, Server
from orchestrator.documents import iso, seconds_of
from orchestrator.errors import Conflict
from procs.noop import nothing

STEPS = 3
PAUSE = 0.01  # s between two looks where there was nothing
MAP = f"function (doc) {{ if (doc.status === 'good' && doc.next < {STEPS}) {{ emit(doc.next, null); }} }}"


def prepare(database: Database) -> None:
    """Install the view."""
    database.put({"_id": "_design/naive", "views": {"ready": {"map": MAP}}})


def document(name: str) -> dict[str, Any]:
    """A document that is ready for its first step."""
    return {"_id": name, "type": "daqdocument", "status": "good", "next": 0, "file": f"/raw/{name}"}


def one(database: Database, turn: int) -> bool:
    """Do one step of one document, the first for an even ``turn``, the last for an odd one; whether there was one."""
    rows = database.view("naive/ready", limit=1, descending=bool(turn % 2), include_docs=True).rows
    if not rows or rows[0].doc is None:
        return False
    doc = rows[0].doc
    number = doc["next"]
    with contextlib.suppress(Conflict):  # the other worker has it
        doc |= {"status": f"proc {number} in progress", f"proc{number}": {"started": iso(time.time())}}
        doc["_rev"] = database.put(doc)
        nothing(doc, _Work())
        doc |= {"status": "good", "next": number + 1}
        doc[f"proc{number}"] |= {"state": "done", "finished": iso(time.time())}
        database.put(doc)
    return True


class _Work:
    """The settings that the step that does nothing looks at."""

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}


def until_done(url: str, credentials: Credentials, name: str, turn: int) -> None:
    """One worker, until nothing is ready any more."""
    database = Server(url, credentials, timeout=600.0).database(name)
    while one(database, turn):
        pass


def forever(url: str, credentials: Credentials, name: str, turn: int) -> None:
    """One worker, for as long as its process lives."""
    database = Server(url, credentials, timeout=600.0).database(name)
    while True:
        if not one(database, turn):
            time.sleep(PAUSE)


@contextlib.contextmanager
def workers(work: Any, server: Server, credentials: Credentials, name: str, count: int = 2) -> Any:
    """``count`` processes of ``work``; those that still run at the end are ended."""
    context = multiprocessing.get_context("spawn")
    running = [context.Process(target=work, args=(server.url, credentials, name, turn)) for turn in range(count)]
    for process in running:
        process.start()
    try:
        yield running
    finally:
        for process in running:
            process.terminate()
            process.join()


def throughput(server: Server, credentials: Credentials, name: str, count: int) -> float:
    """Steps a second of two workers, from the first step's start to the last one's end, each done once."""
    database = server.database(name)
    prepare(database)
    database.bulk([document(f"d{number:07d}") for number in range(count)])
    database.view("naive/ready", limit=1)
    with workers(until_done, server, credentials, name) as running:
        for process in running:
            process.join()
            if process.exitcode:
                raise SystemExit("a worker of the naive way failed")
    found = [row.doc for row in database.all_docs(include_docs=True, startkey="d", endkey="e")]
    entries = [doc[f"proc{step}"] for doc in found if doc for step in range(STEPS)]
    if len(entries) != STEPS * count or any(entry.get("state") != "done" for entry in entries):
        raise SystemExit("the naive way has not done all steps")
    first = min(seconds_of(entry["started"]) or 0.0 for entry in entries)
    last = max(seconds_of(entry["finished"]) or 0.0 for entry in entries)
    return STEPS * count / (last - first)

