"""How fast an audit goes through many documents, and how much memory it needs.

    python benchmarks/audit.py [--documents 200000]

Makes a database on an embedded server, with documents whose three steps are done and name outputs of a site that is not
this one, so that no file is asked for; then audits it. Prints documents per second and the auditor's memory.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

from orchestrator import chain as chains
from orchestrator import designs
from orchestrator.audit.auditor import Auditor
from orchestrator.couch import Credentials, Server, deploy
from orchestrator.embedded.testing import EmbeddedServer
from orchestrator.settings import Settings

CHAIN = "name: c\nsites: {far: {}}\nsteps:\n" + "".join(
    f"  - {{name: s{n}, run: 'x:y', site: far}}\n" for n in range(3)
)


def document(number: int) -> dict[str, object]:
    """A document that is through."""
    name = f"r{number // 1000:05d}_{number % 1000:03d}"
    made: dict[str, object] = {
        "_id": name, "type": "daqdocument", "run_name": name[:6], "file_number": number % 1000, "status": "good",
        "file": f"/raw/{name}", "hostname": "daq", "size": 1,
    }  # fmt: skip
    for step in range(3):
        made[f"proc{step}"] = {
            "step": f"s{step}", "state": "done", "attempt": f"{number:032x}", "number": 1, "host": "h", "pid": 1,
            "started": "2026-01-22T11:00:00.123Z", "finished": "2026-01-22T11:00:01.123Z", "seconds": 1.0,
            "file": f"/far/{step}/{name}", "size": 1, "checksum": "sha256:" + "0" * 64, "exit_code": 0,
            "software": {"orchestrator": "1.0", "step": "1", "chain": "abc", "git": None}, "result": {"entries": 1},
        }  # fmt: skip
    return made


def main() -> None:
    """Print one line of figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=200_000)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, EmbeddedServer(Path(folder) / "database") as server:
        (Path(folder) / "orchestrator.yaml").write_text(f"url: {server.url}\n")
        couch = Server(server.url, Credentials(*server.credentials), timeout=600.0)
        couch.create("runs")
        database, chain = couch.database("runs"), chains.loads(CHAIN)
        for start in range(0, words.documents, 1000):
            database.bulk([document(number) for number in range(start, min(start + 1000, words.documents))])
        deploy.push(database, designs.build(chain))
        settings = Settings.load(folder)
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
        auditor = Auditor(chain, database, settings, grace=0.0, wait=time.sleep, clock=time.time)
        result = auditor.run()
        took = time.monotonic() - began
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000
        print(
            f"{result.documents} documents in {took:.1f} s: {result.documents / took:.0f}/s, "
            f"{len(result.findings)} findings, memory grew by {grown:.0f} MB"
        )


if __name__ == "__main__":
    main()
