"""What the farm's daemon does with the files of its jobs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator import jobfiles
from orchestrator.engine.farmworld import World
from orchestrator.schedulers import get
from orchestrator.schedulers.model import Query
from orchestrator.transports import LocalTransport

#: Says what is there before each thing that is removed.
RM = """#!/bin/sh
ls "$JOBS"/* | tr '\\n' ' ' >> "$JOBS.told"
echo >> "$JOBS.told"
exec /bin/rm "$@"
"""


def test_a_job_s_chunks_go_before_the_marks_that_say_how_far_it_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch system may start a task once more at any moment: without its chunk it does nothing."""
    spool = tmp_path / "a spool"
    for job in ("orc-1", "orc-2"):
        folder = spool / "jobs" / job
        folder.mkdir(parents=True)
        for task in (1, 12):
            (folder / jobfiles.chunk_name(task)).write_text("{}")
            (folder / jobfiles.started_name(task)).write_text("{}")
    (spool / "jobs" / "orc-2" / jobfiles.chunk_name(1)).rename(spool / "jobs" / "orc-2" / "x.result")
    own = tmp_path / "bin" / "rm"
    own.parent.mkdir()
    own.write_text(RM)
    own.chmod(0o755)
    monkeypatch.setenv("PATH", f"{own.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("JOBS", str(spool / "jobs"))
    world = World(get("fsched"), LocalTransport(), str(spool), Query("orc-"))
    world.remove("orc-1", "orc-2", "orc-3")
    assert world.jobs() == [] and not world.unremoved
    seen = (spool / "jobs.told").read_text().splitlines()
    assert "chunk-1.json" in seen[0] and "chunk-" not in seen[-1] and "started-12.json" in seen[-1], seen
