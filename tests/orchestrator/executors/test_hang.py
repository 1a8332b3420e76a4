"""Hang detection: an attempt in which nothing moves is ended; one that writes, logs or reports goes on."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from orchestrator import chain as chains
from orchestrator.documents import Report
from orchestrator.executors.pool import Pool
from orchestrator.executors.spool import Spool
from orchestrator.runner import Places, Task

STEPS = """
import subprocess, sys, time

def run(document, work):
    end = time.monotonic() + 4.0
    how = document["how"]
    if how == "child":
        program = "import time\\nfor n in range(20): open('grows', 'a').write('x'); time.sleep(0.2)"
        subprocess.run([sys.executable, "-c", program], cwd=work.directory, check=True)
    number = 0
    while time.monotonic() < end:
        time.sleep(0.2)
        number += 1
        if how == "output":
            with open(work.output / "grows", "a") as file:
                file.write("x")
        elif how == "log":
            print("still here", flush=True)
        elif how == "progress":
            work.progress(number / 20)
        elif how == "same":
            work.progress(0.5, "the same again")
    return {}
"""


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pool:
    (tmp_path / "hangsteps.py").write_text(STEPS)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    (tmp_path / "out").mkdir()
    chain = chains.loads("name: c\nsteps: [{name: a, run: 'hangsteps:run', hang_limit: 1.5 s}]")
    places = Places(tmp_path / "out", tmp_path / "scratch", tmp_path / "logs")
    return Pool(chain, places, Spool(tmp_path / "spool", "p"), 6, name="p", cost=lambda _: 10.0, depth=10.0)


def test_what_hangs_is_ended_and_what_moves_goes_on(pool: Pool) -> None:
    ways = ["nothing", "same", "output", "log", "progress", "child"]
    pool.submit([Task({"_id": how, "how": how}, "proc0", how, None) for how in ways])
    reports: dict[str, Report] = {}
    end = time.monotonic() + 60
    while len(reports) < len(ways) and time.monotonic() < end:
        reports |= {event.document: event for event in pool.events(0.5) if isinstance(event, Report)}
    pool.close()
    ended = {how for how, report in reports.items() if not report.ok}
    assert ended == {"nothing"}
    for how in ended:
        assert reports[how].error_class == "transient"
        assert "in which nothing moved (since 2" in reports[how].reason and "its limit is 1.5 s" in reports[how].reason
