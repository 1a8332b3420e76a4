"""A site with a farm: the fake batch system made of real executables, its real daemon, real jobs, real kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
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


class FarmSite:
    """The site of the poller's tests, with its first step sent to a farm."""

    def __init__(self, site: Any, *, farm: str = "", step: str = "", local: bool = True) -> None:
        self.site, self.folder = site, site.folder
        self.queue = self.folder / "queue"
        self.queue.mkdir()
        self.slots = "3"
        where = {"FSCHED_DIR": str(self.queue), "FSCHED_SLOTS": self.slots}
        text = (
            f"name: marks\nfarms:\n  centre:\n    scheduler: fsched\n    spool: {self.folder}/far\n    every: 0.5\n"
            f"    environment: {json.dumps(where)}\n    path: [{CODE}]\n"
            "    grace: {submission: 5 s, unknown: 3 s, result: 2 s}\n"
            "    limits: {submissions_per_minute: 1000}\n"
            f"{farm}"
            "steps:\n"
            "  - {name: s0, run: 'sitesteps:mark', settings: {step: 0, seconds: 0}, executor: farm, farm: centre,"
            f" retries: {{count: 3, wait: 0.1 s, on: [transient, resources]}}{step}}}\n"
        )
        if local:
            text += "  - {name: s1, run: 'sitesteps:mark', settings: {step: 1}}\n"
        (self.folder / "chain.yaml").write_text(text)
        site.chain = chains.loads(text)
        with (self.folder / "orchestrator.yaml").open("a") as file:
            file.write("sweep: 2\n") if "sweep" not in (self.folder / "orchestrator.yaml").read_text() else None
        deploy.push(site.database, designs.build(site.chain))

    def fsched(self, *words: str) -> str:
        environment = {**os.environ, "FSCHED_DIR": str(self.queue), "FSCHED_SLOTS": self.slots}
        done = subprocess.run([sys.executable, PROGRAM, *words], env=environment, capture_output=True, text=True)
        return done.stdout

    def jobs(self) -> list[dict[str, Any]]:
        """All jobs that the batch system ever had."""
        lines = (self.fsched("list") + self.fsched("history")).splitlines()
        return [row for row in map(json.loads, lines) if "number" in row]

    def submissions(self) -> Counter[str]:
        """How often each job's name was submitted."""
        return Counter(name for name, _ in {(row["name"], row["number"]) for row in self.jobs()})

    def check(self, count: int) -> None:
        found = self.site.everything()
        assert Counter(d["status"] for d in found.values()) == {"good": count}
        for document in found.values():
            for step in self.site.chain.steps:
                assert document[step.key]["state"] == "done"
            job = document["batchjob"][-1]
            assert job["number"] and job["attempt"] == document["proc0"]["attempt"]
            assert Path(job["script"]).is_file() and Path(job["stdout"]).is_file()
            assert document["proc0"]["host"] and document["proc0"]["farm"] == "centre"
        assert set(self.submissions().values()) == {1}, "a job was submitted twice"


@pytest.fixture
def make_farm(make_site: Callable[..., Any]) -> Iterator[Callable[..., FarmSite]]:
    made: list[FarmSite] = []

    def make(**how: Any) -> FarmSite:
        made.append(FarmSite(make_site(), **how))
        return made[-1]

    yield make
    for farm in made:
        farm.fsched("stop")


def test_arrays_and_chunks_beside_a_poller(make_farm: Callable[..., FarmSite]) -> None:
    farm = make_farm(step=", documents_per_job: 25")
    farm.site.add(200)
    farm.site.start("farm")
    farm.site.start("poll")
    farm.site.wait(farm.site.finished, 60)
    farm.check(200)
    effects = Counter((name, step) for name, step, _ in farm.site.effects())
    assert set(effects.values()) == {1} and len(effects) == 400
    assert len(farm.submissions()) <= 3
    farm.site.wait(lambda: not list((farm.folder / "far" / "jobs").iterdir()), 10, "the spool to be cleared")


def test_results_that_go_both_ways_are_one(make_farm: Callable[..., FarmSite]) -> None:
    farm = make_farm(step=", documents_per_job: 10")
    server = farm.site.server
    path = farm.folder / "chain.yaml"
    direct = f"    results: both\n    database: {server.url}/runs\n    credentials: {server.credentials_file}\n"
    path.write_text(path.read_text().replace("    every: 0.5\n", f"    every: 0.5\n{direct}"))
    farm.site.add(100)
    farm.site.start("farm")
    farm.site.start("poll")
    farm.site.wait(farm.site.finished, 60)
    farm.check(100)
    effects = Counter((name, step) for name, step, _ in farm.site.effects())
    assert set(effects.values()) == {1} and len(effects) == 200
    farm.site.wait(lambda: not list((farm.folder / "far" / "jobs").iterdir()), 10, "the spool to be cleared")
    password = server.credentials[1]
    written = [one for one in farm.folder.rglob("*") if one.is_file() and one != Path(server.credentials_file)]
    assert not [one for one in written if password.encode() in one.read_bytes()]
    assert "spool alone" not in "".join(one.read_text() for one in farm.folder.rglob("err-*"))


def test_the_daemon_killed_every_second(make_farm: Callable[..., FarmSite]) -> None:
    farm = make_farm(local=False, step=", documents_per_job: 4")
    farm.site.add(60)
    end = time.monotonic() + 12.0
    while time.monotonic() < end:
        daemon = farm.site.start("farm")
        time.sleep(1.0)
        os.kill(daemon.pid, signal.SIGKILL)
        daemon.wait()
    farm.site.start("farm")
    farm.site.wait(farm.site.finished, 60)
    farm.check(60)
    effects = Counter((name, step) for name, step, _ in farm.site.effects())
    assert set(effects.values()) == {1} and len(effects) == 60


def test_cancelled_jobs_and_a_batch_system_that_is_away(make_farm: Callable[..., FarmSite]) -> None:
    farm = make_farm(local=False, step=", documents_per_job: 2")
    text = (farm.folder / "chain.yaml").read_text().replace("seconds: 0}", "seconds: 0.5}")
    (farm.folder / "chain.yaml").write_text(text)
    farm.site.add(12)
    farm.site.start("farm")
    farm.site.wait(lambda: any(row["state"] == "running" for row in farm.jobs()), 20, "a job to run")
    time.sleep(1.0)
    for row in farm.jobs():
        farm.fsched("cancel", f"{row['number']}.{row['task']}" if row["task"] % 2 else f"{row['number']}.1")
    farm.fsched("down")
    before = Counter(d["status"] for d in farm.site.everything().values())
    time.sleep(2.0)
    away = farm.site.database.local_docs("poller:farm:", "poller:farm:\uffff")[0]["away"]
    assert before["failed"] == 0 and (away is None or "refused" in away["why"])
    farm.fsched("up")
    farm.site.wait(farm.site.finished, 60)
    farm.check(12)


def test_a_node_that_fails_and_a_job_that_is_held(make_farm: Callable[..., FarmSite]) -> None:
    farm = make_farm(local=False)
    text = (farm.folder / "chain.yaml").read_text().replace("seconds: 0}", "seconds: 1}")
    (farm.folder / "chain.yaml").write_text(text)
    farm.site.add(5)
    farm.site.start("farm")
    farm.site.wait(lambda: any(row["state"] == "running" for row in farm.jobs()), 20, "a job to run")
    waiting = [row for row in farm.jobs() if row["state"] == "waiting"]
    for row in waiting:
        farm.fsched("hold", f"{row['number']}.{row['task']}")
    farm.fsched("node-fails")

    def held() -> bool:
        return any("held" in str(d.get("proc0", {}).get("says")) for d in farm.site.everything().values())

    farm.site.wait(held, 20, "the document to say that its job is held")
    for row in waiting:
        farm.fsched("release", f"{row['number']}.{row['task']}")
    farm.site.wait(farm.site.finished, 60)
    farm.check(5)


def test_the_database_killed_and_a_second_daemon_refused(make_farm: Callable[..., FarmSite]) -> None:
    farm = make_farm(local=False, step=", documents_per_job: 3")
    farm.site.add(30)
    farm.site.start("farm")
    farm.site.wait(lambda: bool(farm.jobs()), 20, "a submission")
    second = farm.site.start("farm")
    assert second.wait(20) == 7, "another daemon has the farm"
    for _ in range(2):
        farm.site.server.kill()
        time.sleep(1.5)
        farm.site.server.restart()
        time.sleep(0.7)
    farm.site.wait(farm.site.finished, 60)
    farm.check(30)
    assert set(Counter((name, step) for name, step, _ in farm.site.effects()).values()) == {1}


def test_jobs_are_listed_and_names_harm_nothing(make_farm: Callable[..., FarmSite]) -> None:
    farm = make_farm(local=False, step=", documents_per_job: 2")
    farm.site.add(2)
    odd = "a '\"\n$(touch pwned) `touch pwned` ü"
    farm.site.database.bulk(
        [{"_id": odd, "type": "daqdocument", "status": "closed", "file": f"/raw/{odd}", "run_name": odd}]
    )
    text = (farm.folder / "chain.yaml").read_text().replace("settings: {step: 0", "settings: {step: $(touch pwned)")
    (farm.folder / "chain.yaml").write_text(text.replace("seconds: 0}", "seconds: 1}"))
    (farm.folder / "data" / "out").mkdir()
    farm.site.start("farm")
    farm.site.wait(lambda: any(row["state"] == "running" for row in farm.jobs()), 20, "a job to run")
    environment = {**os.environ, "PYTHONPATH": str(CODE)}
    said = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", "jobs", "--json"], cwd=farm.folder, env=environment,
        capture_output=True, text=True,
    )  # fmt: skip
    listed = json.loads(said.stdout)["jobs"]
    assert listed and listed[0]["farm"] == "centre" and listed[0]["number"] and listed[0]["step"] == "s0"
    assert sum(job["documents"] for job in listed) <= 3
    farm.site.wait(lambda: farm.site.everything()[odd]["status"] in ("good", "failed"), 40, "the odd one")
    assert not list(farm.folder.rglob("pwned"))
    farm.site.wait(farm.site.finished, 60)
    secret = farm.site.server.credentials.password
    texts = [p for p in (farm.folder / "far").rglob("*") if p.is_file()]
    assert texts and not [p for p in texts if secret in p.read_text(errors="replace")]
    assert secret not in json.dumps(farm.site.everything())
