"""The guide to batch systems: its code runs, and its tables name every state and every system."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator import schedulers
from orchestrator.schedulers import JobState, htcondor, pbs, slurm

GUIDE = (Path(__file__).parents[3] / "docs" / "schedulers.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


def test_its_python_runs() -> None:
    for block in blocks("python"):
        exec(compile(block, "docs/schedulers.md", "exec"), {})


def test_its_fsched_runs_a_job(tmp_path: Path) -> None:
    (block,) = [block for block in blocks("sh") if "FSCHED_DIR" in block]
    farm = tmp_path / "farm"
    folder = str(Path(sys.executable).parent)
    environment = {"PATH": f"{folder}:/usr/local/bin:/usr/bin:/bin", "HOME": str(tmp_path)}
    ended = subprocess.run(
        ["sh", "-euc", block.replace("/tmp/farm", str(farm))],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ended.returncode == 0, ended.stderr
    assert "job 1" in ended.stdout
    deadline = time.monotonic() + 20
    while not ((farm / "out").exists() and (farm / "out").read_text() == "hello\n"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_every_state_has_its_row() -> None:
    for state in JobState:
        assert f"| {state} |" in GUIDE


@pytest.mark.parametrize("word", list(slurm.STATES))
def test_every_state_of_slurm_is_in_the_table(word: str) -> None:
    assert re.search(rf"\b{word}\b", GUIDE)


def test_codes_of_the_others_are_in_the_guide() -> None:
    assert all(str(code) in GUIDE for code in htcondor.HOLDS)
    assert all(f"| {letter}," in GUIDE or f", {letter}" in GUIDE or f"| {letter} " in GUIDE for letter in pbs.STATES)


def test_every_system_and_every_setting_is_in_the_guide() -> None:
    for name, scheduler in schedulers.SCHEDULERS.items():
        assert name in GUIDE.lower().replace(" ", "")
        if name != "fsched":
            assert all(f"`{setting}`" in GUIDE or f"{setting}:" in GUIDE for setting in scheduler.settings_known)
