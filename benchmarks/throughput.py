"""Steps a second: N documents through a chain of three steps that do nothing, everything recorded.

    python benchmarks/throughput.py --documents 10000

With COUCHDB_URL (and COUCHDB_USER, COUCHDB_PASSWORD) set it measures that server instead of the embedded one. The
baseline of the same run is the database's own limit: two bulk writes a step of documents as large.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import common

from orchestrator import designs
from orchestrator.chain import Chain, load
from orchestrator.couch import Database, deploy

CHAIN = Path(__file__).parent.parent / "procs" / "chains" / "noop.yaml"


def document(number: int) -> dict[str, Any]:
    """A document as small as one freshly registered (about 200 bytes)."""
    return {
        "_id": f"d{number:07d}", "type": "daqdocument", "run_name": f"run{number // 100:05d}",
        "file_number": number % 100,
        "status": "closed", "file": f"/raw/d{number:07d}", "hostname": "daq1", "registered": "2026-01-01T00:00:00.000Z",
    }  # fmt: skip


def fill(database: Database, count: int) -> float:
    """Insert ``count`` documents in bulk; the time it took (s)."""
    began = time.monotonic()
    for start in range(0, count, 1000):
        database.bulk([document(n) for n in range(start, min(start + 1000, count))])
    return time.monotonic() - began


def own_limit(database: Database, count: int, steps: int) -> float:
    """Steps a second if nothing but two bulk updates of 500 a step were done, documents and revisions carried along."""
    found = [{**document(n), "status": "good"} for n in range(count)]
    began = time.monotonic()
    for _ in range(2 * steps + 1):
        for start in range(0, count, 500):
            part = found[start : start + 500]
            for doc, saved in zip(part, database.bulk(part), strict=True):
                doc["_rev"] = saved.rev  # type: ignore[union-attr]
    return steps * count / (time.monotonic() - began)


def through(
    url: str, name: str, environment: dict[str, str], count: int, chain: Chain, pollers: int, workers: int
) -> tuple[float, float]:
    """Steps a second from the pollers' start to the last document's end; processor time of theirs a step (ms)."""
    code = (
        "import sys, logging; from pathlib import Path; from orchestrator.chain import load\n"
        "from orchestrator.couch import Server, load_credentials; import os\n"
        "from orchestrator.poller import Poller, Terms; from orchestrator.runner import Places\n"
        "logging.basicConfig(level=logging.WARNING)\n"
        "url, name, chain, root, workers = sys.argv[1:]; root = Path(root)\n"
        "database = Server(url, load_credentials(None, os.environ)).database(name)\n"
        "poller = Poller(load(chain), database, Places(root/'out', root/'scratch', root/'logs'), root/'spool',"
        " terms=Terms(workers=int(workers), lease=10.0))\n"
        "poller.run(until_idle=True)\n"
    )
    with tempfile.TemporaryDirectory() as root:
        began, used = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        running = [
            subprocess.Popen(
                [sys.executable, "-c", code, url, name, str(CHAIN), root, str(workers)],
                env={**os.environ, **environment},
            )
            for _ in range(pollers)
        ]
        for process in running:
            if process.wait() != 0:
                raise SystemExit("a poller failed")
        took, now = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        processor = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
        return len(chain.steps) * count / took, 1000 * processor / (len(chain.steps) * count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--pollers", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--synchronous", default="full")
    arguments = parser.parse_args()
    chain = load(CHAIN)
    with common.database_server(arguments.synchronous) as (server, credentials, kind):
        names = [f"bench-{uuid.uuid4().hex}" for _ in range(2)]
        try:
            for name in names:
                server.create(name)
            deploy.push(server.database(names[0]), designs.build(chain))
            inserted = fill(server.database(names[0]), arguments.documents)
            rate, processor = through(
                server.url, names[0], common.login(credentials), arguments.documents, chain, arguments.pollers,
                arguments.workers,
            )  # fmt: skip
            rows = server.database(names[0]).view("pages/steps", group_level=2)
            fill(server.database(names[1]), 0)
            limit = own_limit(server.database(names[1]), arguments.documents, len(chain.steps))
        finally:
            for name in names:
                server.delete(name)
    print(json.dumps({
        "documents": arguments.documents, "pollers": arguments.pollers, "workers": arguments.workers,
        "database": kind,
        "inserted a second, with the guard": round(arguments.documents / inserted),
        "steps a second": round(rate), "processor time a step, pollers and workers, ms": round(processor, 3),
        "the database's own limit, without the guard": round(limit),
        "states": {f"{row.key[0]} {row.key[1]}": row.value["count"] for row in rows},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores", "python": platform.python_version(),
    }, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()
