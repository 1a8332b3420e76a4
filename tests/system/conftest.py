"""A whole site for tests: a folder, a real database, real daemons in processes of their own, real kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import orchestrator
from orchestrator import chain as chains
from orchestrator import designs, documents
from orchestrator.audit.auditor import Auditor
from orchestrator.couch import Credentials, Database, Server, deploy
from orchestrator.embedded.testing import EmbeddedServer
from orchestrator.settings import Settings

CODE = Path(orchestrator.__file__).parent.parent
STEPS = '''
"""Steps that leave a trace of every time they run: a line in ``effects`` and an output that carries the attempt."""
import os, time
from procs.outputs import atomic_output

def mark(document, work):
    delay = work.settings.get("seconds", 0)
    if delay:
        time.sleep(delay)
    name = document["_id"] + "." + str(work.settings["step"])
    path = work.output_path("out", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_output(path, work.attempt) as temporary:
        temporary.write_text(work.attempt)
    line = f"{document['_id']} {work.settings['step']} {work.attempt}\\n".encode()
    descriptor = os.open(work.output_path("effects"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, line)
    os.close(descriptor)
    return {"file": str(path), "size": path.stat().st_size}
'''


class Site:
    """A site's folder and what runs in it."""

    def __init__(
        self, folder: Path, server: EmbeddedServer, *, seconds: float = 0.0, steps: int = 3, more: str = "",
        database: str = "runs",
    ) -> None:  # fmt: skip
        """``more`` is said of each step in the chain file, after a comma."""
        self.folder, self.server = folder, server
        self.daemons: list[subprocess.Popen[bytes]] = []
        folder.mkdir()
        (folder / "sitesteps.py").write_text(STEPS)
        block = "  - {{name: s{n}, run: 'sitesteps:mark', settings: {{step: {n}, seconds: {seconds}}}{more}}}\n"
        text = "name: marks\nsteps:\n" + "".join(block.format(n=n, seconds=seconds, more=more) for n in range(steps))
        (folder / "chain.yaml").write_text(text)
        (folder / "data").mkdir()
        self.chain = chains.loads(text)
        (folder / "orchestrator.yaml").write_text(
            f"url: {server.url}\ncredentials: {server.credentials_file}\ndatabase: {database}\n"
            "workers: 2\nlease: 6\nsweep: 5\ndrain: 5\n"
        )
        couch = Server(server.url, Credentials(*server.credentials), timeout=20.0)
        couch.create(database)
        self.database: Database = couch.database(database)
        deploy.push(self.database, designs.build(self.chain))

    def add(self, count: int) -> None:
        """Register ``count`` documents of files that nobody reads."""
        made = [
            {
                "_id": f"r{n // 100:03d}_{n % 100:03d}", "type": "daqdocument", "run_name": f"r{n // 100:03d}",
                "file_number": n % 100, "status": "closed", "file": f"/raw/{n}", "hostname": "daq1",
                "registered": documents.iso(time.time()),
            }
            for n in range(count)
        ]  # fmt: skip
        for start in range(0, count, 500):
            self.database.bulk(made[start : start + 500])

    def add_more(self, turn: int, count: int) -> None:
        """Register further documents, of another run for each ``turn``."""
        self.database.bulk(
            [
                {
                    "_id": f"t{turn}_{n:03d}", "type": "daqdocument", "run_name": f"t{turn}", "file_number": n,
                    "status": "closed", "file": f"/raw/{turn}/{n}",
                }
                for n in range(count)
            ]
        )  # fmt: skip

    def start(self, *words: str, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """``orchestrator <words>`` in this site's folder, in the background; output in ``log-<n>``."""
        # This code, also where another copy of it is installed.
        environment = {**os.environ, "PYTHONPATH": f"{self.folder}{os.pathsep}{CODE}", **(environment or {})}
        with (self.folder / f"log-{len(self.daemons)}").open("wb") as log:
            daemon = subprocess.Popen(
                [sys.executable, "-m", "orchestrator.cli", *words], cwd=self.folder, env=environment,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self.daemons.append(daemon)
        return daemon

    def everything(self) -> dict[str, dict[str, Any]]:
        """All data documents as the database has them."""
        rows = self.database.all_docs(include_docs=True)
        return {row.id: row.doc for row in rows if row.doc and row.doc.get("type") == "daqdocument"}

    def wait(self, done: Callable[[], bool], seconds: float, what: str = "the documents to be finished") -> None:
        """Wait for something, at most so long; says what the daemons said if it does not come."""
        end = time.monotonic() + seconds
        while not done():
            if time.monotonic() > end:
                logs = "\n".join(p.read_text(errors="replace")[-3000:] for p in sorted(self.folder.glob("log-*")))
                raise AssertionError(f"waited {seconds:g} s for {what}\n{logs}")
            time.sleep(0.2)

    def finished(self) -> bool:
        """Whether every document is through: by the view, so that the test costs the server little."""
        try:
            rows = self.database.view("pages/status", group_level=1)
        except Exception:
            return False
        counts = {row.key[0]: row.value for row in rows}
        if set(counts) - {"good", "failed", "bad"}:
            return False
        # One look at all states: what was ready a moment ago may be in progress by now.
        undone = ("ready", "waiting", "queued", "in progress")
        rows = self.database.view("pages/steps", group_level=2)
        return bool(counts) and not any(row.value["count"] for row in rows if row.key[1] in undone)

    def effects(self) -> list[tuple[str, str, str]]:
        """Every run of a step: document, step, attempt."""
        path = self.folder / "data" / "effects"
        lines = path.read_text().splitlines() if path.exists() else []
        return [tuple(line.split()) for line in lines]  # type: ignore[misc]

    def amiss(self) -> list[dict[str, Any]]:
        """What an audit finds, but for the tests' own book of effects among the outputs."""
        auditor = Auditor(
            self.chain, self.database, Settings.load(self.folder), deep=True, grace=3.0, wait=time.sleep,
            clock=time.time,
        )  # fmt: skip
        book = str(self.folder / "data" / "effects")
        return [one for one in auditor.run().to_json()["findings"] if one["subject"] != book]

    def stop(self) -> None:
        for daemon in self.daemons:
            if daemon.poll() is None:
                os.killpg(daemon.pid, signal.SIGKILL)
            daemon.wait()


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Makes a site with a database of its own; everything ends with the test."""
    sites: list[Site] = []

    def make(**how: Any) -> Site:
        server = EmbeddedServer(tmp_path / "database")
        server.start()
        site = Site(tmp_path / "site", server, **how)
        sites.append(site)
        return site

    yield make
    for site in sites:
        site.stop()
        site.server.stop()
