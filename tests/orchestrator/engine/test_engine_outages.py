"""An outage that comes while the engine decides again about a conflict: the result is kept, however often it comes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from memory import Memory

from orchestrator.documents import Report
from orchestrator.engine.engine import Engine
from orchestrator.errors import Unavailable


def test_a_result_survives_an_outage_after_a_conflict_and_another_one_after_that(
    make_engine: Callable[..., Engine], memory: Memory
) -> None:
    memory.add({"_id": "d", "type": "daqdocument", "status": "closed", "file": "/raw/d"})
    engine = make_engine()
    engine.offer([memory.get_many(["d"])["d"] or {}], 1000.0)
    engine.claim(1000.0, 1.0)
    (task,) = engine.commit(1000.0)
    memory.add({**(memory.get_many(["d"])["d"] or {}), "note": "a person's"})
    engine.reported(Report("d", "proc0", task.attempt, 1.0, 2.0), 1001.0, go_on=False)
    memory.away_after = memory.requests + 1  # the write meets the conflict, and the look at it the outage
    with pytest.raises(Unavailable):
        engine.commit(1001.0)
    memory.away_after, memory.away = 10**9, True
    with pytest.raises(Unavailable):
        engine.commit(1002.0)
    memory.away = False
    engine.commit(1003.0)
    found = memory.get_many(["d"])["d"] or {}
    assert (found["status"], found["proc0"]["state"], found["note"]) == ("good", "done", "a person's")
    assert not engine.unrecorded
