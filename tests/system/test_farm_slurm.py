"""The farm's daemon with a real Slurm: arrays, and jobs that are cancelled by hand."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
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

pytestmark = pytest.mark.system
CODE = Path(orchestrator.__file__).parent.parent
#: Apart from those of the schedulers' own tests.
PORT = "19117"


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[str]:
    """The configuration of a real Slurm that is brought up for the test and taken down again."""
    if os.getuid() != 0:
        pytest.skip("Slurm is started by root: run the tests as root, after deploy/batch/install.sh slurm")
    script, environment = CODE / "deploy" / "batch" / "slurm.sh", {**os.environ, "PORT": PORT, "AT_ONCE": "1"}
    folder = Path("/var/tmp/batch-systems-of-the-farm")
    up = subprocess.run([script, "up", folder], env=environment, capture_output=True, text=True, timeout=120)
    try:
        if up.returncode != 0 and "install.sh" in up.stderr:
            pytest.skip(up.stderr.strip())
        assert up.returncode == 0, up.stdout + up.stderr
        yield str(folder / "slurm.conf")
    finally:
        subprocess.run([script, "down", folder], env=environment, capture_output=True, timeout=120)
        shutil.rmtree(folder, ignore_errors=True)


def test_documents_through_slurm(make_site: Callable[..., Any], slurm: str) -> None:
    site = make_site()
    chain = f"""
name: marks
farms:
  centre: {{scheduler: slurm, spool: {site.folder}/far, every: 1, path: [{CODE}], setup_time: 60 s,
            environment: {json.dumps({"SLURM_CONF": slurm})},
            grace: {{submission: 30 s, unknown: 10 s, result: 5 s}}}}
steps:
  - {{name: s0, run: 'sitesteps:mark', settings: {{step: 0, seconds: 0.5}}, executor: farm, farm: centre,
     documents_per_job: 3, time_limit: 5 min, memory_limit: 400 MB,
     retries: {{count: 3, wait: 0.1 s, on: [transient, resources]}}}}
"""
    (site.folder / "chain.yaml").write_text(chain)
    site.chain = chains.loads(chain)
    deploy.push(site.database, designs.build(site.chain))
    site.add(30)
    site.start("farm")
    client = {**os.environ, "SLURM_CONF": slurm}

    def running() -> list[str]:
        listed = subprocess.run(
            ["squeue", "-h", "-r", "-t", "running", "-o", "%i %j"], env=client, capture_output=True, text=True
        ).stdout.splitlines()
        return [line.split()[0] for line in listed if "orc-" in line and "s0" in line]

    site.wait(lambda: bool(running()), 60, "a job to run")
    began = Counter(d["status"] for d in site.everything().values())
    assert began["proc 0 queued"] + began["proc 0 in progress"] > 0
    victims = running()[:2]
    subprocess.run(["scancel", *victims], env=client, check=False)
    time.sleep(0.5)
    site.wait(site.finished, 120)
    found = site.everything()
    assert Counter(d["status"] for d in found.values()) == {"good": 30}
    for document in found.values():
        job = document["batchjob"][-1]
        assert job["number"].isdecimal() and job["scheduler"] == "slurm"
        assert Path(job["stdout"]).is_file() and Path(job["script"]).is_file()
    effects = Counter((name, step) for name, step, _ in site.effects())
    assert len(effects) == 30
    retried = [d for d in found.values() if d["proc0"]["number"] > 1]
    records = [row.doc for row in site.database.all_docs(include_docs=True) if row.doc.get("type") == "attempt"]
    assert len(records) == len(retried), "every attempt is accounted for"
    assert all(record["error_class"] == "transient" for record in records)
