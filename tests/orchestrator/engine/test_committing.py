"""Bulks that are on their way while more is decided: nothing is lost, begun twice or overlooked."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from memory import Memory

from orchestrator import committing
from orchestrator.committing import Committer
from orchestrator.documents import Report
from orchestrator.engine.engine import Engine
from orchestrator.engine.flight import BULK
from orchestrator.errors import Unavailable
from orchestrator.runner import Task

Make = Callable[..., Engine]


class Slow(Memory):
    """A database that answers a bulk write when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.lock, self.sizes = threading.Event(), threading.Lock(), list[int]()

    def bulk(self, docs: Any) -> Any:
        assert self.gate.wait(10)
        with self.lock:
            self.sizes.append(len(list(docs)))
            return super().bulk(docs)


@pytest.fixture
def memory() -> Slow:
    return Slow()


def raw(name: str) -> dict[str, Any]:
    return {"_id": name, "type": "daqdocument", "status": "closed", "file": f"/raw/{name}"}


def with_documents(engine: Engine, memory: Slow, *names: str) -> None:
    memory.gate.set()
    for name in names:
        engine.offer([memory.add(raw(name))], 1000.0)
    memory.gate.clear()
    memory.sizes.clear()


def finished(committer: Committer, memory: Slow, now: float = 1000.0) -> list[Task]:
    memory.gate.set()
    return committer.finish(now)


def test_what_is_decided_while_a_bulk_is_written_goes_with_the_next_one(make_engine: Make, memory: Slow) -> None:
    engine = make_engine()
    woken = threading.Semaphore(0)
    committer = Committer(engine, woken.release, few=0)
    with_documents(engine, memory, "a", "b")
    engine.claim(1000.0, 0.1)
    assert committer.commit(1000.0) == [], "it does not wait"
    assert engine.pending() > 0, "what is claimed counts although it is not written yet"
    engine.claim(1000.0, 1.0)
    assert committer.commit(1000.0) == []
    assert not committer.due(), "one document waits for the answer: a second request would cost more than it brings"
    assert {task.document["_id"] for task in finished(committer, memory)} == {"a", "b"}
    assert memory.sizes == [1, 1]
    assert woken.acquire(timeout=5)
    assert not committer.busy()


def test_two_large_bulks_are_written_side_by_side_and_no_more(make_engine: Make, memory: Slow) -> None:
    engine = make_engine()
    committer = Committer(engine, lambda: None, few=0)
    with_documents(engine, memory, *(f"d{n}" for n in range(2 * BULK + committing.WORTH)))
    engine.claim(1000.0, 1e9)
    committer.commit(1000.0)
    assert [len(flight.writes) for flight in engine.outbox.flying] == [BULK, BULK]
    assert len(finished(committer, memory)) == 2 * BULK + committing.WORTH
    assert len(engine.held) == 2 * BULK + committing.WORTH


def test_an_outage_in_the_middle_loses_no_task_that_is_claimed(make_engine: Make, memory: Slow) -> None:
    engine = make_engine()
    committer = Committer(engine, lambda: None, few=0)
    with_documents(engine, memory, "a", "b")
    engine.claim(1000.0, 0.1)
    committer.commit(1000.0)
    engine.claim(1000.0, 1.0)
    memory.away_after = memory.requests + 1
    with pytest.raises(Unavailable):
        finished(committer, memory)
    memory.away_after = 10**9
    assert {task.document["_id"] for task in committer.finish(1001.0)} == {"a", "b"}


def test_a_bulk_whose_answer_is_lost_is_found_written(make_engine: Make, memory: Slow) -> None:
    engine = make_engine()
    committer = Committer(engine, lambda: None, few=0)
    with_documents(engine, memory, "a")
    engine.claim(1000.0, 1.0)
    committer.commit(1000.0)
    memory.answers_lost = 1
    with pytest.raises(Unavailable):
        finished(committer, memory)
    (task,) = committer.finish(1001.0)
    assert engine.held.keys() == {task.attempt}
    assert memory.documents["a"]["proc0"]["attempt"] == task.attempt


def test_a_person_who_takes_a_document_away_while_its_claim_is_written_is_heeded(
    make_engine: Make, memory: Slow
) -> None:
    engine = make_engine()
    committer = Committer(engine, lambda: None, few=0)
    with_documents(engine, memory, "a")
    engine.claim(1000.0, 1.0)
    committer.commit(1000.0)
    claimed = {**memory.documents["a"], "_rev": "2-x", "status": "proc 0 in progress"}
    engine.offer([{**claimed, "_rev": "3-y", "status": "bad", "operation": {"by": "ann", "what": "bad"}}], 1000.0)
    (task,) = finished(committer, memory)
    assert engine.unwanted == {task.attempt: "called off: the document was taken away by ann (bad)"}


def test_what_becomes_ready_while_its_result_is_written_is_not_overlooked(make_engine: Make, memory: Slow) -> None:
    engine = make_engine()
    committer = Committer(engine, lambda: None, few=0)
    with_documents(engine, memory, "a")
    engine.claim(1000.0, 1.0)
    (task,) = finished(committer, memory)
    memory.gate.clear()
    report = Report("a", "proc0", task.attempt, 1.0, 2.0, error_class="data", reason="no good")
    engine.reported(report, 1001.0)
    committer.commit(1001.0)
    engine.offer([{**raw("a"), "_rev": "4-z", "status": "good"}], 1001.0)  # a person tries again at once
    finished(committer, memory, 1001.0)
    assert memory.documents["a"]["status"] == "failed"
    assert engine.backlog.claimable()


def test_who_lets_go_of_all_lets_go_of_what_is_being_claimed_too(make_engine: Make, memory: Slow) -> None:
    engine = make_engine()
    committer = Committer(engine, lambda: None, few=0)
    with_documents(engine, memory, "a", "b", "c")
    engine.claim(1000.0, 0.1)
    (held,) = finished(committer, memory)
    memory.gate.clear()
    engine.claim(1000.0, 0.1)
    committer.commit(1000.0)
    engine.claim(1000.0, 0.3)
    ours = engine.ours()
    assert held.attempt in ours
    assert ours == {held.attempt, *(task.attempt for task in finished(committer, memory))}
    assert len(ours) == 3
    assert all(engine.knows(attempt) for attempt in ours)


def test_a_single_document_is_written_at_once(make_engine: Make, memory: Slow) -> None:
    engine = make_engine()
    committer = Committer(engine, lambda: None)
    with_documents(engine, memory, "a")
    engine.claim(1000.0, 1.0)
    memory.gate.set()
    (task,) = committer.commit(1000.0)
    assert engine.held.keys() == {task.attempt}
