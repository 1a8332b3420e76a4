"""From the write that closes a document to the start of its first step: how long a file waits for a poller with room.

    python benchmarks/latency.py --documents 200

With COUCHDB_URL (and COUCHDB_USER, COUCHDB_PASSWORD) set it measures that server instead of the embedded one. Idle, the
documents are closed one at a time; under load, another writer keeps the workers half busy meanwhile. With ``--backlog``
the memory of the poller and its workers is measured, with so many documents waiting for them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from typing import Any

import common
import psutil

from orchestrator import chain as chains
from orchestrator import designs, documents
from orchestrator.couch import Credentials, Database, Server, deploy

CHAIN = "name: latency\nsteps:\n  - {name: first, run: 'procs.noop:nothing'}\n"
POLLER = (
    "import os, sys, logging; from pathlib import Path; from orchestrator import chain as chains\n"
    "from orchestrator.couch import Server, load_credentials\n"
    "from orchestrator.poller import Poller, Terms; from orchestrator.runner import Places\n"
    "logging.basicConfig(level=logging.WARNING)\n"
    "url, name, chain, root = sys.argv[1:]; root = Path(root)\n"
    "database = Server(url, load_credentials(None, os.environ)).database(name)\n"
    "poller = Poller(chains.loads(chain), database, Places(root/'out', root/'scratch', root/'logs'), root/'spool',"
    " terms=Terms(workers=2, lease=60.0))\n"
    "poller.install_signals(); poller.run()\n"
)


def document(name: str) -> dict[str, Any]:
    return {
        "_id": name, "type": "daqdocument", "run_name": "r", "file_number": 1, "status": "closed", "file": "/raw/x",
        "registered": documents.iso(time.time()),
    }  # fmt: skip


def measure(database: Database, names: list[str], pause: threading.Event) -> list[float]:
    """Close documents one at a time; the seconds from before each write to the start of its step."""
    waits = []
    for name in names:
        pause.wait(random.uniform(0.02, 0.06))
        began = time.time()
        database.put(document(name))
        while True:
            entry = database.get(name).get("proc0", {})
            if entry.get("state") == "done":
                break
            pause.wait(0.01)
        # ``started`` is kept to the millisecond, by the worker's clock, which is this machine's.
        waits.append(max(0.0, (documents.seconds_of(entry["started"]) or 0.0) - began))
    return waits


def load(database: Database, stop: threading.Event) -> None:
    """Some hundreds of documents a second, as long as it lasts."""
    number = 0
    while not stop.wait(0.1):
        database.bulk([document(f"load{number + n:07d}") for n in range(30)])
        number += 30


def table(waits: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(waits, n=100)
    return {f"{name}, ms": round(1000 * cuts[n - 1], 1) for name, n in (("median", 50), ("p95", 95), ("p99", 99))}


def resident(pid: int) -> float:
    """Resident memory of the poller and its workers (MB), what they share counted for each."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return round(sum(member.memory_info().rss for member in family) / 1e6, 1)


def run(server: Server, credentials: Credentials, count: int, backlog: int) -> dict[str, Any]:
    name = f"bench-{uuid.uuid4().hex}"
    server.create(name)
    database, pause = server.database(name), threading.Event()
    deploy.push(database, designs.build(chains.loads(CHAIN)))
    found: dict[str, Any] = {}
    for start in range(0, backlog, 1000):
        database.bulk([document(f"backlog{start + n:07d}") for n in range(1000)])
    if backlog:
        database.view("work/proc0", limit=0, reduce=False, timeout=600.0)
    with tempfile.TemporaryDirectory() as root:
        poller = subprocess.Popen(
            [sys.executable, "-c", POLLER, server.url, name, CHAIN, root],
            env={**os.environ, **common.login(credentials)},
        )
        try:
            if backlog:
                most = 0.0
                while most == 0.0 or database.view("work/proc0", limit=0, reduce=False).total_rows:
                    most = max(most, resident(poller.pid))
                    pause.wait(0.5)
                return {"documents waiting": backlog, "poller and 2 workers, most, MB": max(most, resident(poller.pid))}
            measure(database, [f"warm{n}" for n in range(20)], pause)
            found["idle"] = table(measure(database, [f"idle{n}" for n in range(count)], pause))
            stop = threading.Event()
            loader = threading.Thread(target=load, args=(database, stop))
            loader.start()
            found["with 300 documents a second beside it"] = table(
                measure(database, [f"busy{n}" for n in range(count)], pause)
            )
            stop.set()
            loader.join()
        finally:
            poller.terminate()
            poller.wait()
            server.delete(name)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--documents", type=int, default=200)
    parser.add_argument("--backlog", type=int, default=0, help="measure memory instead, with so many documents waiting")
    parser.add_argument("--synchronous", default="full")
    arguments = parser.parse_args()
    with common.database_server(arguments.synchronous) as (server, credentials, kind):
        found = run(server, credentials, arguments.documents, arguments.backlog)
    print(json.dumps({"database": kind, **found}, indent=1))


if __name__ == "__main__":
    main()
