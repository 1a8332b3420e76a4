"""People pause, drain, limit and cancel while real daemons and a real batch queue run, and look at jobs' logs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import orchestrator
from orchestrator import chain as chains
from orchestrator import designs
from orchestrator.couch import deploy
from orchestrator.schedulers.fsched import PROGRAM

pytestmark = pytest.mark.system
CODE = Path(orchestrator.__file__).parent.parent


class Desk:
    """A site with a farm, and a person at a terminal."""

    def __init__(self, site: Any, seconds: float) -> None:
        self.site, self.folder = site, site.folder
        self.where = {"FSCHED_DIR": str(self.folder / "queue"), "FSCHED_SLOTS": "3"}
        (self.folder / "queue").mkdir()
        text = f"""
name: marks
farms:
  centre: {{scheduler: fsched, spool: {self.folder}/far, every: 0.5, path: [{CODE}],
            environment: {json.dumps(self.where)}, limits: {{submissions_per_minute: 1000}},
            grace: {{submission: 5 s, unknown: 3 s, result: 2 s}}}}
steps:
  - {{name: s0, run: 'sitesteps:mark', settings: {{step: 0, seconds: {seconds}}}, executor: farm, farm: centre,
     documents_per_job: 2, retries: {{count: 1, wait: 0.1 s}}}}
  - {{name: s1, run: 'sitesteps:mark', settings: {{step: 1}}}}
"""
        (self.folder / "chain.yaml").write_text(text)
        with (self.folder / "orchestrator.yaml").open("a") as file:
            file.write("ask_above: 1000\n")
        site.chain = chains.loads(text)
        deploy.push(site.database, designs.build(site.chain))

    def say(self, *words: str, code: int = 0) -> str:
        """``orchestrator <words>``, to its end: its standard output."""
        environment = {**os.environ, "PYTHONPATH": f"{self.folder}{os.pathsep}{CODE}"}
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator.cli", *words], cwd=self.folder, env=environment, capture_output=True,
            text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == code, (words, done.stdout, done.stderr)
        return done.stdout

    def queue(self, *words: str) -> list[dict[str, Any]]:
        said = subprocess.run(
            [sys.executable, PROGRAM, *words], env={**os.environ, **self.where}, capture_output=True, text=True
        ).stdout
        return [row for row in map(json.loads, said.splitlines()) if "number" in row]

    def statuses(self) -> Counter[str]:
        return Counter(d["status"] for d in self.site.everything().values())

    def running(self) -> list[str]:
        return [name for name, d in self.site.everything().items() if d["status"] == "proc 0 in progress"]

    def attempts(self) -> list[dict[str, Any]]:
        rows = self.site.database.all_docs(startkey="attempt:", endkey="attempt;", include_docs=True)
        return [row.doc for row in rows if row.doc]


@pytest.fixture
def make_desk(make_site: Callable[..., Any]) -> Iterator[Callable[..., Desk]]:
    made: list[Desk] = []

    def make(seconds: float = 1.0) -> Desk:
        made.append(Desk(make_site(), seconds))
        return made[-1]

    yield make
    for desk in made:
        subprocess.run([sys.executable, PROGRAM, "stop"], env={**os.environ, **desk.where}, capture_output=True)


def test_drain_limit_and_pause_while_everything_runs(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk()
    desk.site.add(30)
    desk.site.start("farm")
    desk.site.start("poll")
    desk.site.wait(lambda: len(desk.running()) >= 2, 30, "jobs to run")
    listed = json.loads(desk.say("jobs", "--documents", "--json"))["jobs"]
    assert listed[0]["step"] == "s0" and listed[0]["nodes"] and listed[0]["states"]["queued"] >= 1
    assert sum(len(job["members"]) for job in listed) >= sum(job["documents"] for job in listed)

    said = desk.say("drain", "--farm", "centre", "--reason", "power cut", "--wait")
    assert "farm centre is drained" in said and "nothing is left" in said
    now = desk.statuses()
    assert now["closed"] >= 1 and set(now) <= {"closed", "good", "proc 1 in progress"}
    assert not desk.queue("list"), "nothing waits or runs in the batch system"
    assert not desk.attempts(), "nobody's attempt failed by that"
    waiting = [name for name, d in desk.site.everything().items() if d["status"] == "closed"]
    shown = desk.say("show", waiting[0])
    assert "proc0 (s0) does not begin: farm centre is drained" in shown and "power cut" in shown

    desk.say("limits", "--farm", "centre", "jobs=1", "--reason", "be gentle")
    table = desk.say("limits")
    assert "be gentle" in table
    desk.say("pause", "--step", "s1", "--reason", "look first")
    desk.say("resume", "--farm", "centre")
    desk.say("resume", "--farm", "centre", code=1)
    desk.site.wait(lambda: bool(desk.running()), 20, "a job to run again")
    assert len(desk.queue("list")) == 1, "one job at once"
    desk.say("limits", "--farm", "centre", "--reset")
    desk.site.wait(lambda: desk.statuses() == {"good": 30}, 60, "the first step of all")
    found = desk.site.everything()
    assert not [name for name in waiting if "proc1" in found[name]], "the second step has begun for none of them"
    desk.say("resume", "--step", "s1")
    desk.site.wait(desk.site.finished, 20)
    effects = Counter((name, step) for name, step, _ in desk.site.effects())
    assert set(effects.values()) == {1} and len(effects) == 60


def test_cancel_with_the_daemon_killed_in_between_and_the_jobs_log(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(seconds=120.0)
    desk.site.add(3)
    daemon = desk.site.start("farm")
    desk.site.wait(lambda: len(desk.running()) == 2, 30, "both jobs to run")
    victim, other = sorted(desk.running())
    log = desk.say("job", "log", victim, "--stderr")
    assert "Traceback" not in log
    following = subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cli", "job", "log", victim, "--follow"], cwd=desk.folder,
        env={**os.environ, "PYTHONPATH": f"{desk.folder}{os.pathsep}{CODE}"}, stdout=subprocess.PIPE,
    )  # fmt: skip
    os.kill(daemon.pid, signal.SIGKILL)
    daemon.wait()
    would = json.loads(desk.say("cancel", victim, "--dry-run", "--json"))
    assert would["cancelled"] == [victim] and "cancel" not in desk.site.everything()[victim]["proc0"]
    desk.say("cancel", victim, "--reason", "wrong calibration")
    assert "cancelled by" in desk.say("show", victim), "the intent is to be seen while nobody has acted on it"
    desk.site.start("farm")
    desk.site.wait(lambda: desk.site.everything()[victim]["status"] == "failed", 90, "the attempt to end")
    assert following.wait(60) == 0, "the log is not followed beyond the attempt's end"
    found = desk.site.everything()
    assert "wrong calibration" in found[victim]["proc0"]["reason"]
    assert found[victim]["proc0"]["error_class"] == "person"
    assert found[other]["status"] == "proc 0 in progress", "the other job is not touched"
    # The third document shared its job with one of the two; it was neither cancelled nor failed.
    assert Counter(d["status"] for d in found.values())["failed"] == 1
    (record,) = desk.attempts()
    assert record["state"] == "cancelled" and record["document"] == victim

    number = found[other]["batchjob"][-1]["number"]
    job = json.loads(desk.say("cancel", number, "--hold", "--reason", "later", "--json"))
    assert other in job["cancelled"]
    desk.site.wait(lambda: not any(status.startswith("proc") for status in desk.statuses()), 90, "the job to end")
    assert desk.site.everything()[other]["hold"]["reason"] == "later"
    assert desk.site.everything()[other]["status"] == "closed"
    assert not desk.queue("list")
    members = json.loads(desk.say("jobs", found[other]["batchjob"][-1]["name"], "--json"))["ended"]
    assert {m["document"] for some in members.values() for m in some} >= {other}


def test_a_document_that_is_taken_away_has_its_job_cancelled_also_while_the_daemon_was_down(
    make_desk: Callable[..., Desk],
) -> None:
    desk = make_desk(seconds=300.0)
    desk.site.add(8)  # four tasks of two documents each, and room for three at once
    daemon = desk.site.start("farm")
    desk.site.wait(lambda: len(desk.running()) == 3 and len(desk.queue("list")) == 4, 30, "three to run, one to wait")
    tasks: dict[Any, list[str]] = {}
    for name, document in desk.site.everything().items():
        tasks.setdefault((document["proc0"]["job"], document["proc0"]["task"]), []).append(name)
    running = desk.running()
    (queued,) = [names for names in tasks.values() if not set(names) & set(running)]
    desk.say("mark-bad", *queued, "--reason", "no beam")
    desk.site.wait(lambda: len(desk.queue("list")) == 3, 30, "the job that waited to be gone from the queue")

    # Of a task with two documents only the one is ended that was taken away, and the other is begun.
    both = next(names for names in tasks.values() if running[0] in names)
    first, partner = sorted(both, key=lambda name: name not in running)
    desk.say("abandon", first, "--reason", "the crystal cracked")
    desk.site.wait(lambda: partner in desk.running(), 40, "the other document of the task to be begun")

    # Both documents of a task, while nobody was there to see it: its job is in the queue, and nobody waits for it.
    whole = next(names for names in tasks.values() if running[1] in names)
    os.killpg(daemon.pid, signal.SIGKILL)
    daemon.wait()
    desk.say("reset", *whole, "--to", "s0", "--reason", "new settings")
    desk.say("hold", *whole, "--reason", "new settings")
    assert len(desk.queue("list")) == 3
    desk.site.start("farm")
    desk.site.wait(lambda: len(desk.queue("list")) == 2, 40, "the job of nobody to be cancelled")
    desk.site.wait(lambda: partner in desk.running() and running[2] in desk.running(), 20, "the others to go on")

    found = desk.site.everything()
    assert {found[name]["status"] for name in queued} == {"bad"} and found[first]["status"] == "failed"
    assert {found[name]["status"] for name in whole} == {"closed"}
    assert not any("proc0" in found[name] for name in (*queued, first, *whole))
    assert {one["state"] for one in desk.attempts()} == {"called off"}
    assert desk.site.effects() == [], "nothing that was taken away has been done all the same"
