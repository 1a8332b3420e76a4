"""A farm's daemon, its jobs, their workers and the database killed at random under load: counts close, each once."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

import orchestrator
from orchestrator import chain as chains
from orchestrator import designs
from orchestrator.couch import deploy
from orchestrator.schedulers.fsched import PROGRAM

pytestmark = pytest.mark.system
CODE = Path(orchestrator.__file__).parent.parent
SEED = int(os.environ.get("CHAOS_SEED", "20260122"))
LONG = float(os.environ.get("ORCHESTRATOR_LONG", "0"))

CHAIN = """
name: marks
farms:
  centre:
    scheduler: fsched
    spool: {folder}/far
    every: 0.4
    environment: {{FSCHED_DIR: {folder}/queue, FSCHED_SLOTS: "3"}}
    path: ["{code}"]
    grace: {{submission: 3 s, unknown: 2 s, result: 1 s}}
    limits: {{submissions_per_minute: 1000, jobs: 20}}
steps:
  - {{name: s0, run: "sitesteps:mark", settings: {{step: 0, seconds: 0.05}}, executor: farm, farm: centre,
      documents_per_job: 5, retries: {{count: 20, wait: 0.2 s, on: [transient, resources, code]}}}}
  - {{name: s1, run: "sitesteps:mark", settings: {{step: 1}}, retries: {{count: 20, wait: 0.2 s}}}}
"""


def running_jobs(folder: Path) -> list[psutil.Process]:
    """The processes of batch jobs of this site, and their workers."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = " ".join(process.info["cmdline"] or ())
        if str(folder / "far") in words and "orchestrator.job" in words:
            found.append(process)
            with suppress(psutil.Error):
                found += process.children()
    return found


def test_kills_at_a_farm_lose_nothing(make_site: Callable[..., Any]) -> None:
    site = make_site()
    folder, dice, kills = site.folder, random.Random(SEED), Counter[str]()
    (folder / "queue").mkdir()
    text = CHAIN.format(folder=folder, code=CODE)
    (folder / "chain.yaml").write_text(text)
    site.chain = chains.loads(text)
    deploy.push(site.database, designs.build(site.chain))
    total = 600 if LONG else 120
    site.add(total)
    daemons = {"farm": site.start("farm"), "poll": site.start("poll")}
    end = time.monotonic() + (LONG * 60.0 or 15.0)
    try:
        while time.monotonic() < end:
            time.sleep(dice.uniform(0.3, 1.0))
            victim = dice.choice(["farm", "poll", "job", "job", "database"])
            if victim == "database":
                site.server.kill()
                time.sleep(dice.uniform(0.0, 0.5))
                site.server.restart()
            elif victim == "job":
                jobs = running_jobs(folder)
                if not jobs:
                    continue
                with suppress(psutil.Error):
                    dice.choice(jobs).kill()
            else:
                os.kill(daemons[victim].pid, signal.SIGKILL)
            kills[victim] += 1
            for name, daemon in daemons.items():
                if daemon.poll() is not None or name == victim:
                    daemon.wait()
                    daemons[name] = site.start(name)
        site.wait(site.finished, 120 + 120.0 * LONG)
        found = site.everything()
        assert Counter(d["status"] for d in found.values()) == {"good": total}
        effects = site.effects()
        for name, document in found.items():
            for step in site.chain.steps:
                entry = document[step.key]
                assert (name, str(step.number), entry["attempt"]) in effects
                written = (folder / "data" / "out" / f"{name}.{step.number}").read_text()
                ran = [attempt for who, number, attempt in effects if (who, number) == (name, str(step.number))]
                assert written in ran and (written == entry["attempt"] or len(ran) > 1)
        doubled = len(effects) - len({(name, step) for name, step, _ in effects})
        assert doubled <= 2 * sum(kills.values()), f"more was done twice than {kills} can explain"
        site.wait(lambda: not list((folder / "far" / "jobs").iterdir()), 30, "the farm's spool to be cleared")
        assert site.amiss() == []
        assert kills["job"] and kills["farm"] and kills["database"], kills
    finally:
        environment = {**os.environ, "FSCHED_DIR": str(folder / "queue")}
        said = [
            subprocess.run([sys.executable, PROGRAM, word], env=environment, capture_output=True, text=True).stdout
            for word in ("list", "history", "stop")
        ]
    rows = [row for row in map(json.loads, "".join(said[:2]).splitlines()) if "number" in row]
    numbers = {(row["name"], row["number"]) for row in rows}
    assert len(numbers) == len({name for name, _ in numbers}), "a job was submitted twice"
