"""What the guard costs: bulk writes with it and without it, in the same run, on the same server.

    python benchmarks/guard.py [--documents 10000] [--rounds 3]

Three kinds of write, each in bulks of 500 by an account of a site's poller: new documents, claims, and results. The
databases with and without the guard take turns, so that what else the machine does harms both alike; of each kind the
best round counts. Of the embedded server the processor time is measured too, with that of the process in which the
guard runs: it says the same on a busy machine. Documents are those of a chain of four steps at two sites, 600 to 2,500
bytes.

With COUCHDB_URL (and COUCHDB_USER, COUCHDB_PASSWORD, of a server admin) set it measures that server instead.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import secrets
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

from orchestrator import chain as chains
from orchestrator import designs, documents
from orchestrator.couch import Credentials, Database, Server
from orchestrator.documents import Claimant, Document, Report
from orchestrator.embedded.testing import EmbeddedServer

BULK = 500
CHAIN = chains.loads("""
name: guarded
sites: {here: {}, lyon: {}}
steps:
  - {name: transfer, run: "procs.noop:nothing", site: lyon}
  - {name: convert, run: "procs.noop:nothing", site: lyon}
  - {name: amplitude, run: "procs.noop:nothing"}
  - {name: pictures, run: "procs.noop:nothing"}
""")
WHO = Claimant("poller-1", "host-1", 4711, "here")
ELSEWHERE = Claimant("poller-2", "host-2", 4712, "lyon")


def registered(number: int) -> Document:
    """A document as the registrar makes it, with a header of a usual size."""
    return {
        "_id": f"ma22a{number // 100:03d}_{number % 100:03d}", "type": CHAIN.type, "status": "closed",
        "run_name": f"ma22a{number // 100:03d}", "file_number": number % 100, "file": f"/raw/ma22a/{number}",
        "size": 123_456, "mtime": documents.iso(0), "checksum": f"sha256:{'0' * 64}", "hostname": "daq1",
        "site": "here", "registered": documents.iso(0), "updated": documents.iso(0), "format": "samba",
        "header": {"channels": 12, "frequency": 1e5, "version": "8.31", "date": documents.iso(0), "detectors": "a b c"},
    }  # fmt: skip


def report(document: Document, step: Any) -> Report:
    """What a worker says of an attempt."""
    return Report(
        str(document["_id"]), step.key, str(document[step.key]["attempt"]), 0.0, 1.0, 1.0, 0.9, 10**8,
        command=None, log="/logs/x", result={"file": "/data/x.root", "size": 5, "entries": 200, "channels": [1, 2, 3]},
        software={"orchestrator": "1.0", "step": "1", "git": "0" * 40, "pid": 17},
    )  # fmt: skip


def done_elsewhere(document: Document) -> Document:
    """The document with the steps of the other site done."""
    for step in CHAIN.steps[:2]:
        document = documents.claim(document, step, ELSEWHERE, uuid.uuid4().hex, 0.0)
        document = documents.finish(document, step, report(document, step), 1.0)
    return document


Work = Callable[[], float]  # seconds of processor time that the server has used


def used(server: psutil.Process | None) -> float:
    """Processor time (s) of the server and its children so far; 0 where it is not ours to ask."""
    if server is None:
        return 0.0
    times = [one.cpu_times() for one in (server, *server.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def written(database: Database, found: list[Document], work: Work = lambda: 0.0) -> tuple[float, float]:
    """Write in bulks and take over the new revisions: documents a second, and processor time for each (s).

    Ends the run if one is refused.
    """
    took, before = 0.0, work()
    for start in range(0, len(found), BULK):
        part = found[start : start + BULK]
        began = time.perf_counter()
        saved = database.bulk(part)
        took += time.perf_counter() - began
        for document, one in zip(part, saved, strict=True):
            if getattr(one, "rev", None) is None:
                raise SystemExit(f"refused: {one}")
            document["_rev"] = one.rev
    return len(found) / took, (work() - before) / len(found)


def round_of(database: Database, admin: Database, count: int, work: Work) -> dict[str, tuple[float, float]]:
    """One round of each kind of write. What the other site's steps do in between is written by the admin."""
    rates: dict[str, tuple[float, float]] = {}
    found = [registered(number) for number in range(count)]
    rates["insert"] = written(database, found, work)
    found = [done_elsewhere(document) for document in found]
    for document in found:
        document["forced"] = {"by": "benchmark", "why": "the other site's steps are done", "at": "now"}
    written(admin, found)
    step = CHAIN.steps[2]
    found = [documents.claim(document, step, WHO, uuid.uuid4().hex, 2.0) for document in found]
    rates["claim"] = written(database, found, work)
    found = [documents.finish(document, step, report(document, step), 3.0) for document in found]
    rates["result"] = written(database, found, work)
    return rates


def account(server: Server) -> Credentials:
    """A poller's account on the server."""
    made = Credentials(f"bench-{uuid.uuid4().hex}", secrets.token_urlsafe(12))
    server.create("_users")
    server.database("_users").put({
        "_id": f"org.couchdb.user:{made.username}", "type": "user", "name": made.username, "roles": ["site:here"],
        "password": made.password,
    })  # fmt: skip
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--synchronous", default="full")
    arguments = parser.parse_args()
    outside = os.environ.get("COUCHDB_URL")
    with ExitStack() as stack:
        if outside:
            server = Server(outside, Credentials(os.environ["COUCHDB_USER"], os.environ["COUCHDB_PASSWORD"]))
        else:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            started = stack.enter_context(EmbeddedServer(Path(folder), synchronous=arguments.synchronous))
            server = Server(started.url, Credentials(*started.credentials))
        process = None if outside else psutil.Process(started.pid)
        poller = Server(server.url, account(server))
        best: dict[str, dict[str, tuple[float, float]]] = {"without": {}, "with": {}}
        for _ in range(arguments.rounds):
            for kind in ("without", "with"):
                name = f"bench-{uuid.uuid4().hex}"
                server.create(name)
                stack.callback(server.delete, name)
                admin = server.database(name)
                admin.set_security({"admins": {}, "members": {"names": [], "roles": ["site:here"]}})
                if kind == "with":
                    admin.put(designs.build(CHAIN)["_design/guard"])
                rates = round_of(poller.database(name), admin, arguments.documents, lambda: used(process))
                for key, (rate, each) in rates.items():
                    known = best[kind].get(key, (0.0, 1e9))
                    best[kind][key] = (max(rate, known[0]), min(each, known[1]))
    print(json.dumps({
        "documents": arguments.documents, "rounds": arguments.rounds, "bulk": BULK,
        "database": outside or "embedded", "synchronous": arguments.synchronous,
        "documents a second": {kind: {key: round(one[0]) for key, one in best[kind].items()} for kind in best},
        "with as part of without": {
            key: round(best["with"][key][0] / one[0], 2) for key, one in best["without"].items()
        },
        "processor time a document, microseconds": {
            kind: {key: round(1e6 * one[1]) for key, one in best[kind].items()} for kind in best
        },
        "machine": f"{platform.machine()}, {os.cpu_count()} cores", "python": platform.python_version(),
    }, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()
