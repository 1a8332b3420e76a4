"""Fault points: nothing unless asked for, once where a note is kept, and a word for what cannot be meant."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator import faults
from orchestrator.errors import SettingsError

POINT = next(iter(faults.POINTS))
PROGRAM = f"""
import os
from orchestrator import faults
faults.arm(os.environ)
for _ in range(3):
    faults.point({POINT!r})
    print("alive", flush=True)
"""


def lives(fault: str, note: Path | None = None) -> tuple[int, int]:
    """How often a process came past the point, and how it ended."""
    environment = {faults.VARIABLE: fault, **({faults.NOTE: str(note)} if note else {})}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)
    return done.stdout.count("alive"), done.returncode


def test_a_process_dies_where_and_when_it_is_asked_to() -> None:
    assert lives("") == (3, 0)
    assert lives(POINT) == (0, -signal.SIGKILL)
    assert lives(f"{POINT}:3") == (2, -signal.SIGKILL)
    assert lives(f"{POINT}:4") == (3, 0)


def test_with_a_note_it_happens_once(tmp_path: Path) -> None:
    assert lives(POINT, tmp_path / "note") == (0, -signal.SIGKILL)
    assert lives(POINT, tmp_path / "note") == (3, 0)


def test_a_full_disk_is_an_error_like_any_other() -> None:
    assert lives(f"{POINT}:2:full") == (1, 1)


@pytest.mark.parametrize("text", ["nowhere", f"{POINT}:x", f"{POINT}:0", f"{POINT}:1:sleep"])
def test_what_cannot_be_meant_is_said(text: str) -> None:
    with pytest.raises(SettingsError, match=faults.VARIABLE):
        faults.parse({faults.VARIABLE: text})
