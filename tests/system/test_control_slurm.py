"""Drain and cancel with a real Slurm: its queue keeps nothing that was taken back, and no attempt failed by it."""

from __future__ import annotations

import json
import os
import shutil
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

pytestmark = pytest.mark.system
CODE = Path(orchestrator.__file__).parent.parent
#: Apart from those of the other tests' Slurms.
PORT = "20817"


@pytest.fixture
def slurm() -> Iterator[str]:
    """The configuration of a real Slurm that is brought up for the test and taken down again."""
    if os.getuid() != 0:
        pytest.skip("Slurm is started by root: run the tests as root, after deploy/batch/install.sh slurm")
    script, environment = CODE / "deploy" / "batch" / "slurm.sh", {**os.environ, "PORT": PORT, "AT_ONCE": "1"}
    folder = Path("/var/tmp/batch-system-of-control")
    up = subprocess.run([script, "up", folder], env=environment, capture_output=True, text=True, timeout=120)
    try:
        if up.returncode != 0 and "install.sh" in up.stderr:
            pytest.skip(up.stderr.strip())
        assert up.returncode == 0, up.stdout + up.stderr
        yield str(folder / "slurm.conf")
    finally:
        subprocess.run([script, "down", folder], env=environment, capture_output=True, timeout=120)
        shutil.rmtree(folder, ignore_errors=True)


def test_drain_and_cancel_through_slurm(make_site: Callable[..., Any], slurm: str) -> None:
    site = make_site()
    text = f"""
name: marks
farms:
  centre: {{scheduler: slurm, spool: {site.folder}/far, every: 1, path: [{CODE}], setup_time: 60 s,
            environment: {json.dumps({"SLURM_CONF": slurm})},
            grace: {{submission: 30 s, unknown: 10 s, result: 5 s}}}}
steps:
  - {{name: s0, run: 'sitesteps:mark', settings: {{step: 0, seconds: 8}}, executor: farm, farm: centre,
     documents_per_job: 2, time_limit: 5 min, memory_limit: 400 MB, retries: {{count: 0}}}}
"""
    (site.folder / "chain.yaml").write_text(text)
    site.chain = chains.loads(text)
    deploy.push(site.database, designs.build(site.chain))
    site.add(16)
    site.start("farm")

    def say(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator.cli", *words], cwd=site.folder, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": f"{site.folder}{os.pathsep}{CODE}"}, timeout=90,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def statuses() -> Counter[str]:
        return Counter(d["status"] for d in site.everything().values())

    def queued() -> list[str]:
        told = subprocess.run(
            ["squeue", "-h", "-r", "-t", "pending,running,completing", "-o", "%j"], capture_output=True, text=True,
            env={**os.environ, "SLURM_CONF": slurm},
        )  # fmt: skip
        return [name for name in told.stdout.split() if name.startswith("orc-")]

    site.wait(lambda: statuses()["proc 0 in progress"] > 0, 60, "a job to run")
    say("drain", "--reason", "power cut", "--wait", "--yes")
    drained = statuses()
    assert set(drained) == {"closed", "good"} and drained["closed"] >= 1, drained
    site.wait(lambda: not queued(), 20, "Slurm to have nothing of ours any more")
    rows = site.database.all_docs(startkey="attempt:", endkey="attempt;")
    assert not list(rows), "there is no retry, and none was needed"

    say("resume")
    site.wait(lambda: statuses()["proc 0 in progress"] > 0, 60, "a job to run again")
    victim = next(d for d in site.everything().values() if d["status"] == "proc 0 in progress")
    listed = json.loads(say("jobs", "--json"))["jobs"]
    assert victim["proc0"]["host"] in {node for job in listed for node in job["nodes"]}
    number = victim["batchjob"][-1]["number"]
    say("cancel", number, "--reason", "wrong disk", "--yes")
    site.wait(site.finished, 120)
    found = site.everything()
    # What was done before the word came counts as done; what waited behind it did not begin any more.
    ended = [d for d in found.values() if d["status"] == "failed"]
    assert ended and set(statuses()) <= {"good", "failed"}
    assert all(d["proc0"]["error_class"] == "person" and "wrong disk" in d["proc0"]["reason"] for d in ended)
    assert all(d["batchjob"][-1]["number"] == number for d in ended)
    site.wait(lambda: not queued(), 20, "Slurm to have nothing of ours any more")

    say("retry", "--all", "--yes", "--reason", "the right disk")
    site.wait(lambda: statuses()["proc 0 in progress"] > 0, 60, "a job to run once more")
    taken = [name for name, d in site.everything().items() if d["status"].startswith("proc 0")]
    say("mark-bad", *taken, "--yes", "--reason", "no beam")
    site.wait(lambda: not queued(), 40, "Slurm to have nothing that nobody waits for")
    found = site.everything()
    assert all(found[name]["status"] in ("bad", "good") for name in taken)
    assert not any("proc0" in found[name] for name in taken if found[name]["status"] == "bad")
