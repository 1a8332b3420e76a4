"""How long the status page takes on a large database: each page, cold and warm.

    python benchmarks/page.py --documents 300000
    python benchmarks/page.py --folder /tmp/large --documents 1000000     # kept, and used again the next time

Fills an embedded database with documents in every state, builds the views, and asks for each page through the
application itself, in one process. *Cold* is the first time after the page's process has started (the database has
been up for a while); *fresh* is with nothing kept by the page from before, over and over; *warm* is as for somebody who
looks on while documents change, twice a second. Times are in milliseconds, p50 and p95.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import platform
import random
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi.testclient import TestClient

from orchestrator import designs
from orchestrator.chain import Chain, loads
from orchestrator.couch import Credentials, Database, Server, deploy
from orchestrator.embedded.testing import EmbeddedServer
from orchestrator.web import create_app

CHAIN = """
name: samba
steps:
  - {name: transfer, run: "procs.transfer:transfer"}
  - {name: convert, run: "procs.convert:convert"}
  - {name: analyse, run: "procs.amplitude:Amplitude"}
  - {name: histogram, run: "procs.histograms:histogram"}
"""
FILES_OF_A_RUN = 100
BATCH = 1000


def iso(seconds: float) -> str:
    """As documents write their times."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def document(number: int, total: int, now: float, choose: random.Random) -> dict[str, Any]:
    """Document ``number`` of ``total``: the oldest are through the chain, the newest on their way."""
    run = f"ma{20 + number // 250_000}{'abcdefgh'[number // 31_250 % 8]}{number // FILES_OF_A_RUN % 1000:03d}"
    file = number % FILES_OF_A_RUN
    at = now - (total - number) * 30.0
    made: dict[str, Any] = {
        "_id": f"{run}_{file:03d}_{number}", "type": "daqdocument", "run_name": run, "file_number": file,
        "file": f"/data/{run}/{run}_{file:03d}", "size": choose.randint(10**6, 10**9),
        "hostname": f"daq{number % 5}", "site": "here", "format": "samba", "checksum": "ab" * 32,
        "registered": iso(at), "updated": iso(at + 90), "status": "good",
        "header": {"Temperature": 17.5, "Detectors": ["heat", "ion"], "Run": run},
    }  # fmt: skip
    lot = choose.random()
    through = 4 if number < total * 0.9 else choose.randint(0, 3)
    if lot < 0.005:
        through = min(through, 2)
    for step, name in enumerate(("transfer", "convert", "analyse", "histogram")[:through]):
        made[f"proc{step}"] = {
            "step": name, "state": "done", "attempt": f"{number:032x}", "number": 1, "host": "node1", "pid": 77,
            "started": iso(at + 20 * step), "finished": iso(at + 20 * step + 15), "seconds": 15 + lot, "exit_code": 0,
            "file": f"/data/out/{run}/{file}_{step}.root", "size": 10**6, "result": {"counts": {"events": 1200}},
        }  # fmt: skip
    if lot < 0.005:
        made["status"] = "failed"
        made[f"proc{through}"] = {
            "step": "?", "state": "failed", "number": 3, "finished": iso(at + 90), "error_class": "data",
            "reason": f"the event at byte {number} ends early",
        }  # fmt: skip
    elif lot < 0.007:
        made |= {"status": "bad", "reason": "the header has no run number"}
    elif through == 0:
        made["status"] = "closed"
    elif through < 4 and lot > 0.995:
        made["status"] = f"proc {through} in progress"
        made[f"proc{through}"] = {
            "step": "?", "state": "in progress", "attempt": f"{number:032x}", "number": 1, "host": "node1",
            "pid": 78, "poller": "node1-1", "started": iso(at + 90), "was": "good",
        }  # fmt: skip
    return made


def fill(database: Database, total: int, chain: Chain) -> None:
    """``total`` documents, and the views over them. Says how far it is."""
    choose, now, began = random.Random(5), time.time(), time.monotonic()
    for start in range(0, total, BATCH):
        database.bulk([document(n, total, now, choose) for n in range(start, min(start + BATCH, total))])
    print(f"{total} documents in {time.monotonic() - began:.0f} s", flush=True)
    began = time.monotonic()
    deploy.push(database, designs.build(chain))
    print(f"their views in {time.monotonic() - began:.0f} s", flush=True)


def pages(database: Database) -> list[str]:
    """Addresses of every kind of page, with a run and a document that are there."""
    found = database.view("pages/files", reduce=False, limit=1, startkey=["ma20d"]).rows
    row = (found or database.view("pages/files", reduce=False, limit=1).rows)[0]  # a small database has no such run
    run, id = quote(row.key[0]), quote(str(row.id))
    return [
        "/", "/runs", "/runs?q=ma20b", f"/runs/{run}", "/files", "/files?status=good", "/files?status=in progress",
        "/files?status=failed", "/files?step=proc1&state=ready", "/files?step=proc0&state=done", "/files?state=ready",
        "/files?state=failed", "/files?daq=daq1", "/files?daq=daq1&status=failed", f"/files?run={run}&status=good",
        f"/files?run={run}&status=failed", "/files?q=ma20c", f"/files?q={id}", "/files?q=nothing",
        f"/documents/{id}", "/failed", "/failed?step=proc1&error_class=data", "/bad", "/chain",
    ]  # fmt: skip


def quantile(times: list[float], part: float) -> float:
    """The time that ``part`` of all are not above."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, math.ceil(part * len(ordered)) - 1)]


def measured(database: Database, chain: Chain, address: str, rounds: int, writes: bool) -> dict[str, float]:
    """One page: cold once, then ``rounds`` times fresh and as many times warm."""
    times: dict[str, list[float]] = {"cold": [], "fresh": [], "warm": []}
    shift = [0.0]  # s, so that half a second passes between two reads without anybody waiting for it
    factory: Any = lambda: database  # noqa: E731 - Database.view names one parameter more than the page asks for
    app = create_app(factory, chain=chain, live=False, clock=lambda: time.time() + shift[0])
    with TestClient(app, base_url="http://localhost", headers={"Accept": "text/html"}) as client:

        def ask(kind: str) -> float:
            if writes:
                database.put({"_id": f"note:{time.time_ns()}", "type": "note"})
            began = time.perf_counter()
            answer = client.get(address)
            times[kind].append((time.perf_counter() - began) * 1000)
            if answer.status_code != 200:
                raise SystemExit(f"{address}: {answer.status_code}: {answer.text[-500:]}")
            return len(answer.content) / 1000

        size = ask("cold")
        for _round in range(rounds):
            app.state.source.forget()
            ask("fresh")
        for _round in range(rounds):
            shift[0] += 0.5
            app.state.source.changed()
            ask("warm")
    return {"cold": times["cold"][0], "kB": size} | {
        f"{kind} p{part}": quantile(times[kind], part / 100) for kind in ("fresh", "warm") for part in (50, 95)
    }


def measure(server: EmbeddedServer, name: str, chain: Chain, rounds: int, writes: bool) -> list[dict[str, Any]]:
    """Each page cold once, then ``rounds`` times; with ``writes`` a document changes before each."""
    couch = Server(server.url, Credentials(*server.credentials), timeout=60)
    database = couch.database(name)
    addresses = pages(database)
    found = []
    for address in addresses:
        found.append({"page": address} | measured(couch.database(name), chain, address, rounds, writes))
    return found


def main() -> None:
    """Fill, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--folder", type=Path, help="the database's folder; filled where it is new, and kept")
    parser.add_argument("--writes", action="store_true", help="a document changes before each page")
    parser.add_argument("--json", action="store_true")
    wanted = parser.parse_args()
    logging.disable(logging.WARNING)
    chain = loads(CHAIN)
    with tempfile.TemporaryDirectory() as temporary, EmbeddedServer(wanted.folder or Path(temporary)) as server:
        couch = Server(server.url, Credentials(*server.credentials), timeout=600)
        name = f"page{wanted.documents}"
        if couch.create(name):
            fill(couch.database(name), wanted.documents, chain)
        found = measure(server, name, chain, wanted.rounds, wanted.writes)
    if wanted.json:
        print(json.dumps(found, indent=2))
        return
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"{wanted.documents} documents; {machine}; ms, p50/p95")
    print(f"{'page':<42}{'cold':>8}{'fresh':>16}{'warm':>16}{'kB':>6}")
    for row in found:
        fresh, warm = (f"{row[k + ' p50']:.0f}/{row[k + ' p95']:.0f}" for k in ("fresh", "warm"))
        print(f"{row['page']:<42}{row['cold']:>8.0f}{fresh:>16}{warm:>16}{row['kB']:>6.0f}")


if __name__ == "__main__":
    main()
