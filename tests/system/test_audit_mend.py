"""What an audit mends: each kind of damage done on purpose, found, mended, recorded, and gone; all else left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from orchestrator import batchjobs, documents, faults
from orchestrator.audit.mend import MENDS
from orchestrator.documents import iso
from orchestrator.schedulers.fsched import PROGRAM

from .test_audit import CODE, Audited, old

pytestmark = pytest.mark.system
LONG = bool(os.environ.get("ORCHESTRATOR_LONG"))


class Mending(Audited):
    """A site that is damaged and mended."""

    def __init__(self, site: Any) -> None:
        super().__init__(site)
        self.out = self.folder / "data" / "out"

    def cli(self, *words: str, fault: str = "") -> tuple[int, dict[str, Any]]:
        """``orchestrator audit --json`` with more words."""
        environment = {**os.environ, "PYTHONPATH": f"{self.folder}{os.pathsep}{CODE}"}
        if fault:
            environment[faults.VARIABLE] = fault
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator.cli", "audit", "--json", "--grace", "0", "--set", "lease=0.5", *words],
            cwd=self.folder, env=environment, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return done.returncode, json.loads(done.stdout) if done.returncode in (0, 1) else {"said": done.stderr}

    # --- damage, one method a kind; each takes a document that is fine, and is free to spoil it ---

    def claim_broken(self, name: str) -> None:
        (self.out / f"{name}.1").unlink()
        self.change(name, status="proc 1 in progress", proc1=None)

    def claim_left(self, name: str) -> None:
        claim = {"step": "s2", "state": "in progress", "attempt": "a", "poller": "p", "number": 1}
        self.change(name, proc2=claim)

    def failure_hidden(self, name: str) -> None:
        self.change(name, proc1={"state": "failed"})
        self.database.put({"_id": f"attempt:{name}:proc1:1", "type": "attempt", "document": name})

    def poller_gone(self, name: str) -> None:
        (self.out / f"{name}.1").unlink()
        claim = {"step": "s1", "state": "in progress", "attempt": "a" + name, "poller": "dead-9-00000000", "number": 1}
        document = self.database.get(name)
        del document["proc1"]
        self.database.put({**document, "status": "proc 1 in progress", "proc1": claim})
        (self.pollers / "dead-9-00000000").mkdir(parents=True, exist_ok=True)
        (self.pollers / "dead-9-00000000.lock").touch()

    def spool_unrecorded(self, name: str) -> None:
        self.poller_gone(name)
        report = documents.Report(name, "proc1", "a" + name, 1.0, 2.0, result={"n": 1})
        with (self.pollers / "dead-9-00000000" / "00000001.jsonl").open("a") as file:
            file.write(json.dumps(report.to_json()) + "\n")

    def spool_left(self, name: str) -> None:
        (self.pollers / f"dead-{name}").mkdir()
        (self.pollers / f"dead-{name}.lock").touch()

    def scratch_left(self, name: str) -> None:
        place = self.folder / "spool" / "scratch" / f"{name}-1-00000000"
        place.mkdir(parents=True)
        (place / "file").touch()

    def output_unfinished(self, name: str) -> None:
        old(self.out / f".{name}.1.0123abcd.part")

    def job_files_left(self, name: str) -> None:
        settings = self.settings()
        prefix = batchjobs.prefix(settings.url, settings.database, batchjobs.identity("here", "centre"))
        (self.folder / "far" / "jobs" / f"{prefix}{name}").mkdir(parents=True)

    def operation_unfinished(self, name: str) -> None:
        self.database.put({
            "_id": f"operation:{name}", "type": "operation", "what": "hold", "by": "joe", "state": "begun",
            "site": "here", "at": iso(time.time() - 7200),
        })  # fmt: skip

    def past_untrue(self, name: str) -> None:
        entry = self.database.get(name)["proc1"]
        self.database.put({
            "_id": f"past:operation:x:{name}", "type": "past", "document": name, "entries": {"proc1": entry},
            "at": iso(time.time() - 7200), "outputs": {"state": "pending"},
        })  # fmt: skip

    def attempt_untrue(self, name: str) -> None:
        attempt = self.database.get(name)["proc1"]["attempt"]
        self.database.put({
            "_id": f"attempt:{name}:proc1:1", "type": "attempt", "document": name, "attempt": attempt, "state": "lost",
        })  # fmt: skip

    @property
    def pollers(self) -> Path:
        return self.folder / "spool" / "pollers"

    def damage(self, kind: str, name: str) -> None:
        getattr(self, kind.replace("-", "_"))(name)


@pytest.fixture
def mending(make_site: Callable[..., Any]) -> Iterator[Mending]:
    made = Mending(make_site())
    made.site.add(40)
    made.poll()
    (made.folder / "far").mkdir()
    made.database.delete(made.database.get("_design/guard"))  # or it would not let us do the damage
    yield made
    subprocess.run([sys.executable, PROGRAM, "stop"], env={**os.environ, "FSCHED_DIR": str(made.folder / "queue")})


#: The guard is not there: that is found too, and is not for an audit to mend.
GUARD = {"design-differs": {"_design"}}


def test_every_kind_that_can_be_mended_is_and_nothing_else_is_touched(mending: Mending) -> None:
    names = iter(f"r000_{number:03d}" for number in range(40))
    for kind in MENDS:
        mending.damage(kind, next(names))
    for_a_person = next(names)
    (mending.out / f"{for_a_person}.1").unlink()
    code, before = mending.cli("--mend")
    kinds = {one["kind"] for one in before["findings"]}
    assert code == 1 and kinds == {*MENDS, "output-missing", "design-differs"}
    assert {one["kind"] for one in before["mended"]["would"]} == set(MENDS)
    assert before["mended"]["done"] == [], "without a word of somebody it is a dry run"
    assert {one["kind"] for one in mending.cli()[1]["findings"]} == kinds

    code, after = mending.cli("--mend", "--yes")
    assert code == 1
    assert {one["kind"]: one["subject"] for one in after["findings"]} == {
        "output-missing": for_a_person, "design-differs": "_design",
    }  # fmt: skip
    assert after["mended"]["left"] == []
    assert {one["kind"] for one in after["mended"]["done"]} == set(MENDS)
    record = mending.database.get(after["mended"]["operation"])
    assert (record["what"], record["state"], record["counts"]["refused"]) == ("mend", "done", 0)
    assert len(record["mended"]) == record["selected"]
    mending.poll()  # what was given back is done again
    assert mending.audit() == {**GUARD, "output-missing": {for_a_person}}
    document = mending.database.get("r000_004")  # spool-unrecorded
    assert document["proc1"]["result"] == {"n": 1}, "a report that waited is recorded, not made again"


@pytest.mark.parametrize("seed", range(20 if LONG else 1))
def test_whatever_is_damaged_together_is_found_mended_and_gone(mending: Mending, seed: int) -> None:
    dice = Random(seed)
    names = [f"r000_{number:03d}" for number in range(40)]
    dice.shuffle(names)
    wanted = dice.choices(list(MENDS), k=dice.randrange(5, 20))
    for kind, name in zip(wanted, names, strict=False):
        mending.damage(kind, name)
    found = mending.audit()
    assert set(wanted) <= set(found), "found"
    _, after = mending.cli("--mend", "--yes")
    assert [one for one in after["findings"] if one["kind"] != "design-differs"] == [], "gone"
    mending.poll()
    assert mending.audit() == GUARD


@pytest.mark.parametrize("fault", [name for name in faults.POINTS if name.startswith("mend.")])
def test_a_mending_that_was_killed_is_done_by_the_next(mending: Mending, fault: str) -> None:
    for number, kind in enumerate(("claim-left", "spool-unrecorded", "output-unfinished")):
        mending.damage(kind, f"r000_{number:03d}")
    assert mending.cli("--mend", "--yes", fault=fault)[0] == -signal.SIGKILL
    _, after = mending.cli("--mend", "--yes")
    assert [one["kind"] for one in after["findings"]] == ["design-differs"]
    mending.poll()
    assert mending.audit() == GUARD
