"""The audit on a real site: every kind of damage, done on purpose, is found and named; and none where there is none."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import orchestrator
from orchestrator import batchjobs, designs
from orchestrator import chain as chains
from orchestrator.audit.auditor import Auditor
from orchestrator.audit.findings import KINDS
from orchestrator.couch import deploy
from orchestrator.schedulers.fsched import PROGRAM
from orchestrator.settings import Settings

pytestmark = pytest.mark.system
CODE = Path(orchestrator.__file__).parent.parent
OLD = 1_700_000_000  # s since 1970: long ago, for files that nobody writes any more

CHAIN = """
name: marks
farms:
  centre:
    scheduler: fsched
    spool: {folder}/far
    environment: {{FSCHED_DIR: {folder}/queue}}
steps:
  - {{name: s0, run: "sitesteps:mark", settings: {{step: 0, seconds: 0}}, retries: {{wait: 0 s}}}}
  - {{name: s1, run: "sitesteps:mark", settings: {{step: 1, seconds: 0}}}}
  - {{name: s2, run: "sitesteps:mark", settings: {{step: 2}}, executor: farm, farm: centre, needs: [s1]}}
"""


class Audited:
    """A site whose local steps are done, and the audit of it."""

    def __init__(self, site: Any) -> None:
        self.site, self.folder, self.database = site, site.folder, site.database
        text = CHAIN.format(folder=self.folder)
        (self.folder / "chain.yaml").write_text(text)
        site.chain = chains.loads(text)
        (self.folder / "queue").mkdir()
        (self.folder / "raw").mkdir()
        steps = (self.folder / "sitesteps.py").read_text()
        steps = steps.replace('work.output_path("effects")', 'work.output.parent / "effects"')
        (self.folder / "sitesteps.py").write_text(steps.replace('"checksum"', '"checksum"'))
        with (self.folder / "orchestrator.yaml").open("a") as file:
            file.write("watch: [raw]\nregister: {unknown_format: bad, rescan: 1, quiet: 0}\n")
        deploy.push(site.database, designs.build(site.chain))

    def settings(self, **changes: Any) -> Settings:
        return Settings.load(self.folder, overrides={"lease": 0.5, **changes})

    def audit(self, *, deep: bool = False, grace: float = 0.0, **changes: Any) -> dict[str, set[str]]:
        """Subjects of what is found, by kind."""
        auditor = Auditor(
            self.site.chain, self.database, self.settings(**changes), deep=deep, grace=grace,
            wait=time.sleep, clock=time.time,
        )  # fmt: skip
        found: dict[str, set[str]] = {}
        for finding in auditor.run().findings.kept.values():
            found.setdefault(finding.kind, set()).add(finding.subject)
            assert finding.remedy and finding.text
        return found

    def change(self, name: str, **changes: Any) -> None:
        """As somebody's hand would: keys set, or removed where the value is None."""
        document = self.database.get(name)
        for key, value in changes.items():
            if key.startswith("proc") and isinstance(value, dict) and isinstance(document.get(key), dict):
                value = {**document[key], **value}
            document[key] = value
        self.database.put({key: value for key, value in document.items() if value is not None})

    def poll(self) -> None:
        daemon = self.site.start("poll", "--until-idle")
        assert daemon.wait(60) == 0


@pytest.fixture
def audited(make_site: Callable[..., Any]) -> Iterator[Audited]:
    made = Audited(make_site())
    yield made
    environment = {**os.environ, "FSCHED_DIR": str(made.folder / "queue")}
    subprocess.run([sys.executable, PROGRAM, "stop"], env=environment, check=False)


def old(path: Path, content: bytes = b"x") -> Path:
    """A file that was written long ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (OLD, OLD))
    return path


def test_every_kind_of_damage_is_found_where_it_is_and_nowhere_else(audited: Audited) -> None:
    audited.site.add(30)
    audited.poll()
    assert audited.audit(deep=True) == {}, "nothing is wrong yet"
    out, here = audited.folder / "data" / "out", socket.gethostname()
    names = iter(f"r000_{number:03d}" for number in range(30))
    wanted: dict[str, set[str]] = {"design-differs": {"_design"}}
    audited.database.delete(audited.database.get("_design/guard"))  # or it would not let us

    def damage(kind: str, subject: str) -> None:
        wanted.setdefault(kind, set()).add(subject)

    (name := next(names)) and damage("output-missing", name)
    (out / f"{name}.1").unlink()
    (name := next(names)) and damage("output-differs", name)
    (out / f"{name}.0").write_text("short")
    first, second = next(names), next(names)
    damage("output-shared", first)
    entry = audited.database.get(second)["proc0"]
    audited.change(first, proc0={"file": entry["file"], "size": entry["size"]})
    damage("output-unnamed", str(out / f"{first}.0"))
    (name := next(names)) and damage("status-unknown", name)
    audited.change(name, status="odd")
    (name := next(names)) and damage("step-unknown", name)
    audited.change(name, status="proc 7 in progress", proc7={"state": "in progress", "attempt": "a", "poller": "p"})
    (name := next(names)) and damage("claim-broken", name)
    audited.change(name, status="proc 2 in progress")
    (name := next(names)) and damage("claim-left", name)
    audited.change(name, proc2={"state": "in progress", "attempt": "a", "poller": "p", "number": 1})
    (name := next(names)) and damage("failure-hidden", name)
    audited.change(name, proc2={"state": "failed"})
    (name := next(names)) and damage("failure-unexplained", name)
    audited.change(name, status="failed")
    (name := next(names)) and damage("order-broken", name)
    audited.change(name, proc0=None)
    damage("output-unnamed", str(out / f"{name}.0"))
    (name := next(names)) and damage("poller-gone", name)
    claim = {"step": "s2", "state": "in progress", "attempt": "a1", "poller": "ghost-1-00000000", "number": 1}
    audited.change(name, status="proc 2 in progress", proc2=claim)
    (name := next(names)) and damage("attempt-missing", name)
    audited.change(name, proc1={"number": 3})
    audited.database.put({"_id": f"attempt:{name}:proc1:1", "type": "attempt", "document": name})
    audited.database.put({"_id": "attempt:nobody:proc1:1", "type": "attempt", "document": "nobody"})
    damage("attempt-orphaned", "attempt:nobody:proc1:1")
    first, second = next(names), next(names)
    damage("raw-shared", first)
    audited.change(first, file=audited.database.get(second)["file"])
    (name := next(names)) and damage("raw-missing", name)
    audited.change(name, hostname=here, file=str(audited.folder / "raw" / "gone"))
    (name := next(names)) and damage("raw-differs", name)
    audited.change(name, hostname=here, file=str(old(audited.folder / "raw" / name)), size=77)
    damage("raw-unregistered", str(old(audited.folder / "raw" / "late")))
    damage("output-unfinished", str(old(out / f".{name}.1.0123abcd.part")))
    damage("output-unnamed", str(old(out / "who knows")))
    pollers = audited.folder / "spool" / "pollers"
    damage("spool-left", str(pollers / "dead-1-0"))
    (pollers / "dead-1-0").mkdir()
    (pollers / "dead-1-0.lock").touch()
    report = {"document": "d", "step": "proc2", "attempt": "a2", "started": 1.0, "finished": 2.0}
    old(pollers / "dead-2-0" / "00000001.jsonl", json.dumps(report).encode() + b"\n")
    (pollers / "dead-2-0.lock").touch()
    damage("spool-unrecorded", "dead-2-0")
    (name := next(names)) and damage("poller-gone", name)
    audited.change(name, status="proc 2 in progress", proc2={**claim, "attempt": "a2", "poller": "dead-2-0"})
    (audited.folder / "spool" / "scratch" / "gone-1-00000000").mkdir()
    damage("scratch-left", str(audited.folder / "spool" / "scratch" / "gone-1-00000000"))
    at_a_farm(audited, next(names), damage)
    found = audited.audit()
    assert found == wanted
    elsewhere = {"operation-unfinished", "past-untrue", "attempt-untrue"}  # in test_audit_mend.py
    assert set(KINDS) - set(wanted) == {"not-looked-at", *elsewhere}


def at_a_farm(audited: Audited, name: str, damage: Callable[[str, str], None]) -> None:
    """A document that waits for a job which nobody knows, and a job of ours that no document waits for."""
    settings = audited.settings()
    identity = batchjobs.identity("here", "centre")
    prefix = batchjobs.prefix(settings.url, settings.database, identity)
    claim = {
        "step": "s2", "state": "queued", "attempt": "a3", "poller": identity, "number": 1, "farm": "centre",
        "job": f"{prefix}lost", "task": 1,
    }  # fmt: skip
    job = {"step": "proc2", "name": f"{prefix}lost", "attempt": "a3", "number": "99", "task": 1}
    audited.change(name, status="proc 2 queued", proc2=claim, batchjob=[job])
    damage("farm-daemon-gone", "centre")
    damage("job-unknown", f"{prefix}lost")
    (audited.folder / "far" / "jobs" / f"{prefix}over").mkdir(parents=True)
    damage("job-files-left", f"{audited.folder}/far/jobs/{prefix}over")
    script = audited.folder / "queue" / "script"
    script.write_text("#!/bin/sh\nsleep 60\n")
    script.chmod(0o755)
    words = ["--output", "/dev/null", "--error", "/dev/null", "--directory", "/", "--name", f"{prefix}stray"]
    environment = {**os.environ, "FSCHED_DIR": str(audited.folder / "queue")}
    subprocess.run([sys.executable, PROGRAM, "submit", *words, str(script)], env=environment, check=True)
    damage("job-unwanted", f"{prefix}stray")


def test_a_wrong_byte_is_found_by_reading_and_a_farm_that_is_down_is_said(audited: Audited) -> None:
    audited.site.add(2)
    audited.poll()
    out = audited.folder / "data" / "out" / "r000_000.0"
    audited.change("r000_000", proc0={"checksum": "sha256:" + "0" * 64})
    (audited.folder / "queue" / "down").touch()
    found = audited.audit(deep=True)
    assert found == {"output-differs": {"r000_000"}, "not-looked-at": {"farm centre"}}
    assert out.exists(), "an audit changes nothing"
    assert "output-differs" not in audited.audit(), "without --deep no file is read"


def test_while_everything_works_there_is_no_false_alarm(make_site: Callable[..., Any]) -> None:
    site = make_site(seconds=0.05, steps=3)
    steps = (site.folder / "sitesteps.py").read_text()
    (site.folder / "sitesteps.py").write_text(
        steps.replace('work.output_path("effects")', 'work.output.parent / "effects"')
    )
    site.add(150)
    for _ in range(2):
        site.start("poll")
    environment = {**os.environ, "PYTHONPATH": f"{site.folder}{os.pathsep}{CODE}"}
    looks = 0
    while not site.finished() or looks < 2:
        said = subprocess.run(
            [sys.executable, "-m", "orchestrator.cli", "audit", "--json", "--grace", "1"], cwd=site.folder,
            env=environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        answer = json.loads(said.stdout)
        assert (said.returncode, answer["findings"]) == (0, []), said.stderr
        assert answer["documents"] == 150
        looks += 1
    shutil.rmtree(site.folder / "data" / "out")
    said = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", "audit"], cwd=site.folder, env=environment, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    assert said.returncode == 1
    assert "output-missing (150)" in said.stdout and "and 130 more" in said.stdout
