"""The engine: each step of each document once, nothing lost, whatever the database does in between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memory import Memory

from orchestrator import documents
from orchestrator.chain import Chain
from orchestrator.documents import Report
from orchestrator.engine.engine import Engine
from orchestrator.engine.flight import TRIES
from orchestrator.engine.remembered import REFUSED_FOR
from orchestrator.errors import Unauthorised, Unavailable
from orchestrator.runner import Task

Make = Callable[..., Engine]


def raw(name: str, **more: Any) -> dict[str, Any]:
    return {"_id": name, "type": "daqdocument", "status": "closed", "file": f"/raw/{name}", **more}


def done(task: Task, **result: Any) -> Report:
    return Report(str(task.document["_id"]), task.step, task.attempt, 1.0, 2.0, 0.001, result=result)


def offer_all(engine: Engine, memory: Memory, now: float = 1000.0) -> None:
    engine.offer([d for d in memory.get_many(list(memory.documents)).values() if d], now)


def with_one_claim(make_engine: Make, memory: Memory) -> tuple[Engine, Task]:
    """An engine that has just claimed the first step of the document ``d``."""
    memory.add(raw("d"))
    engine = make_engine()
    offer_all(engine, memory)
    engine.claim(1000.0, 1.0)
    (task,) = engine.commit(1000.0)
    return engine, task


def test_a_task_comes_only_with_a_claim_that_is_stored(make_engine: Make, memory: Memory) -> None:
    _, task = with_one_claim(make_engine, memory)
    assert documents.held_by(memory.documents["d"], "proc0", task.attempt)
    assert task.document["_rev"] == memory.documents["d"]["_rev"]


def test_the_next_claim_is_written_with_the_result(make_engine: Make, memory: Memory) -> None:
    engine, task = with_one_claim(make_engine, memory)
    writes = memory.writes
    engine.room(1.0)
    engine.reported(done(task), 1001.0)
    (following,) = engine.commit(1001.0)
    assert following.step == "proc1"
    assert memory.writes == writes + 1
    assert memory.documents["d"]["status"] == "proc 1 in progress"
    assert memory.documents["d"]["proc0"]["state"] == "done"


def test_without_room_the_next_step_is_left_to_whoever_has_it(make_engine: Make, memory: Memory) -> None:
    engine, task = with_one_claim(make_engine, memory)
    engine.room(0.0)
    engine.reported(done(task), 1001.0)
    assert engine.commit(1001.0) == []
    assert memory.documents["d"]["status"] == "good"
    engine.claim(1001.0, 1.0)
    assert [t.step for t in engine.commit(1001.0)] == ["proc1"], "the document was carried along, not read again"


def test_two_engines_never_claim_the_same_document(make_engine: Make, memory: Memory) -> None:
    for number in range(40):
        memory.add(raw(f"d{number}"))
    one, two = make_engine("p1"), make_engine("p2")
    for engine in (one, two):
        offer_all(engine, memory)
        engine.claim(1000.0, 1.0)
    first, second = one.commit(1000.0), two.commit(1000.0)
    names = [task.document["_id"] for task in first + second]
    assert len(names) == len(set(names))
    assert two.counts.conflicts == len(first)


def test_a_lost_answer_is_not_a_lost_claim(make_engine: Make, memory: Memory) -> None:
    memory.add(raw("d"))
    engine = make_engine()
    offer_all(engine, memory)
    engine.claim(1000.0, 1.0)
    memory.answers_lost = 1
    with pytest.raises(Unavailable):
        engine.commit(1000.0)
    (task,) = engine.commit(1001.0)
    assert documents.held_by(memory.documents["d"], "proc0", task.attempt)


def test_a_lost_answer_to_a_result_records_it_once(make_engine: Make, memory: Memory) -> None:
    engine, task = with_one_claim(make_engine, memory)
    engine.reported(done(task, events=3), 1001.0)
    memory.answers_lost = 1
    with pytest.raises(Unavailable):
        engine.commit(1001.0)
    assert engine.unrecorded == {task.attempt}
    writes = memory.writes
    engine.commit(1002.0)
    assert engine.unrecorded == set()
    assert memory.writes == writes
    assert engine.counts.done == 1


def test_the_database_away_keeps_every_result(make_engine: Make, memory: Memory) -> None:
    for number in range(5):
        memory.add(raw(f"d{number}"))
    engine = make_engine()
    offer_all(engine, memory)
    engine.claim(1000.0, 9.0)
    tasks = engine.commit(1000.0)
    memory.away = True
    for task in tasks:
        engine.reported(done(task), 1001.0, go_on=False)
    for _ in range(3):
        with pytest.raises(Unavailable):
            engine.commit(1001.0)
    memory.away = False
    engine.commit(1002.0)
    assert all(d["proc0"]["state"] == "done" for d in memory.documents.values())


def test_a_change_by_a_person_meanwhile_is_kept(make_engine: Make, memory: Memory) -> None:
    engine, task = with_one_claim(make_engine, memory)
    memory.add({**memory.documents["d"], "comment": "look at this one"})
    engine.reported(done(task), 1001.0)
    engine.commit(1001.0)
    assert memory.documents["d"]["comment"] == "look at this one"
    assert memory.documents["d"]["proc0"]["state"] == "done"


def test_a_result_for_a_document_that_was_taken_away_is_dropped(make_engine: Make, memory: Memory) -> None:
    engine, task = with_one_claim(make_engine, memory)
    memory.add({**memory.documents["d"], "status": "bad"})
    engine.reported(done(task), 1001.0)
    engine.commit(1001.0)
    assert memory.documents["d"]["status"] == "bad"
    assert engine.counts.dropped == 1
    assert not engine.outbox


def test_a_result_that_the_guard_refuses_becomes_a_failure(make_engine: Make, memory: Memory) -> None:
    engine, task = with_one_claim(make_engine, memory)
    memory.refuse["d"] = "good"
    engine.room(0.0)
    engine.reported(done(task), 1001.0)
    engine.commit(1001.0)
    assert memory.documents["d"]["status"] == "failed"
    assert "refused the result" in memory.documents["d"]["proc0"]["reason"]


def test_a_refused_claim_is_not_asked_for_again_until_the_document_changes(make_engine: Make, memory: Memory) -> None:
    memory.add(raw("d"))
    memory.refuse["d"] = "proc 0 in progress"
    engine = make_engine()
    offer_all(engine, memory)
    engine.claim(1000.0, 1.0)
    assert engine.commit(1000.0) == []
    offer_all(engine, memory)
    engine.claim(1000.0, 1.0)
    assert not engine.outbox
    memory.refuse.clear()
    memory.add({**memory.documents["d"], "comment": "mended"})
    offer_all(engine, memory)
    engine.claim(1001.0, 1.0)
    assert len(engine.commit(1001.0)) == 1


def test_a_failure_leaves_its_own_document(make_engine: Make, memory: Memory) -> None:
    engine, task = with_one_claim(make_engine, memory)
    report = done(task)
    report.error_class, report.reason, report.log_tail = "transient", "disk full", "the end of the log"
    engine.reported(report, 1001.0)
    engine.commit(1001.0)
    record = memory.documents["attempt:d:proc0:1"]
    assert (record["reason"], record["log_tail"], record["document"]) == ("disk full", "the end of the log", "d")
    assert memory.documents["d"]["status"] == "closed"
    engine.claim(1005.0, 1.0)
    assert engine.commit(1005.0) == [], "the wait is not over"
    engine.claim(1012.0, 1.0)
    assert len(engine.commit(1012.0)) == 1


def claimed(engine: Engine, memory: Memory, *names: str) -> list[Task]:
    for name in names:
        memory.add(raw(name))
    offer_all(engine, memory)
    engine.claim(1000.0, 100.0)
    return engine.commit(1000.0)


@pytest.mark.parametrize("written", range(4))
def test_a_claim_that_was_begun_is_not_begun_again_after_an_absence_in_the_middle_of_a_commit(
    make_engine: Make, memory: Memory, written: int
) -> None:
    for name in ("d1", "d2", "d3"):
        memory.add(raw(name))
    engine = make_engine()
    offer_all(engine, memory)
    engine.claim(1000.0, 100.0)
    memory.refuse_requests_over = 1  # each is written by itself, then
    memory.away_after = memory.requests + 1 + written
    tasks = []
    if written < 3:
        with pytest.raises(Unavailable):
            engine.commit(1000.0)
    memory.away_after = 10**9
    tasks += engine.commit(1001.0)
    assert sorted(task.document["_id"] for task in tasks) == ["d1", "d2", "d3"]
    assert engine.counts.claimed == 3


def test_a_refused_result_while_the_database_goes_away_begins_nothing_twice(make_engine: Make, memory: Memory) -> None:
    engine = make_engine()
    (task,) = claimed(engine, memory, "d1")
    memory.add(raw("d2"))
    offer_all(engine, memory)
    engine.claim(1000.0, 1.0)
    memory.refuse["d1"] = "good"
    engine.room(0.0)
    engine.reported(done(task), 1001.0)
    memory.away_after = memory.requests + 1  # the refused document cannot be read again
    with pytest.raises(Unavailable):
        engine.commit(1001.0)
    memory.away_after = 10**9
    assert [task.document["_id"] for task in engine.commit(1002.0)] == ["d2"]
    assert memory.documents["d1"]["status"] == "failed"


def test_a_result_that_met_a_conflict_and_is_then_refused_still_becomes_a_failure(
    make_engine: Make, memory: Memory
) -> None:
    engine = make_engine()
    (task,) = claimed(engine, memory, "d")
    memory.add({**memory.documents["d"], "comment": "a person's"})
    memory.refuse["d"] = "good"
    engine.reported(done(task), 1001.0, go_on=False)
    engine.commit(1001.0)
    assert memory.documents["d"]["status"] == "failed"


def test_a_fault_of_the_database_with_one_document_is_no_refusal(make_engine: Make, memory: Memory) -> None:
    memory.add(raw("d1"))
    memory.add(raw("d2"))
    engine = make_engine()
    offer_all(engine, memory)
    engine.claim(1000.0, 10.0)
    memory.errors["d1"] = "internal_server_error"
    with pytest.raises(Unavailable, match="'d1'"):
        engine.commit(1000.0)
    memory.errors.clear()
    assert sorted(task.document["_id"] for task in engine.commit(1001.0)) == ["d1", "d2"]


def test_a_document_that_the_database_can_never_write_does_not_hold_up_the_others(
    make_engine: Make, memory: Memory
) -> None:
    memory.add(raw("d1"))
    engine = make_engine()
    memory.errors["d1"] = "unknown_error"
    offer_all(engine, memory)
    engine.claim(1000.0, 10.0)
    for _ in range(TRIES):
        with pytest.raises(Unavailable):
            engine.commit(1000.0)
    assert engine.commit(1000.0) == []
    assert not engine.outbox


def test_an_account_that_may_not_write_is_told_so_and_its_documents_are_not_blamed(
    make_engine: Make, memory: Memory
) -> None:
    memory.add(raw("d"))
    memory.errors["d"] = "unauthorized"
    engine = make_engine()
    offer_all(engine, memory)
    engine.claim(1000.0, 1.0)
    with pytest.raises(Unauthorised):
        engine.commit(1000.0)
    memory.errors.clear()
    assert len(engine.commit(1000.0)) == 1


def test_a_refused_claim_is_asked_for_again_after_a_while_for_the_guard_may_be_mended(
    make_engine: Make, memory: Memory
) -> None:
    memory.add(raw("d"))
    memory.refuse["d"] = "proc 0 in progress"
    engine = make_engine()
    offer_all(engine, memory)
    engine.claim(1000.0, 1.0)
    engine.commit(1000.0)
    memory.refuse.clear()
    offer_all(engine, memory, 1000.0 + REFUSED_FOR + 1)
    engine.claim(1000.0 + REFUSED_FOR + 1, 1.0)
    assert len(engine.commit(1000.0 + REFUSED_FOR + 1)) == 1


def test_a_version_with_a_smaller_number_is_believed_from_a_view_but_not_from_the_feed(
    make_engine: Make, memory: Memory
) -> None:
    engine = make_engine()
    (task,) = claimed(engine, memory, "d")
    engine.give_back(task, "stopped", 1001.0)
    engine.commit(1001.0)
    engine.backlog.forget("d")
    older = raw("d", _rev="1-a", comment="the winner since a conflict was resolved")
    engine.offer([older], 1002.0)
    assert not engine.backlog.claimable()
    engine.offer([older], 1002.0, swept=True)
    assert engine.backlog.claimable()


@pytest.mark.parametrize("broken", [{"file": "a\0b"}, {"file_bytes": "!!"}, {"file": "\ud800"}])
def test_a_document_whose_file_cannot_be_a_path_fails_alone(
    make_engine: Make, memory: Memory, broken: dict[str, Any]
) -> None:
    engine = make_engine()
    memory.add(raw("bad", **broken))
    (task,) = claimed(engine, memory, "d")
    assert task.document["_id"] == "d"
    assert memory.documents["bad"]["status"] == "failed"
    assert memory.documents["bad"]["proc0"]["error_class"] == "data"
    assert engine.held.keys() == {task.attempt}


def test_a_lost_claim_that_is_found_twice_before_it_can_be_written_is_taken_back_once(
    make_engine: Make, memory: Memory, chain: Chain
) -> None:
    dead, engine = make_engine("dead"), make_engine("p")
    claimed(dead, memory, "d")
    for _ in range(3):
        engine.take_back(memory.get_many(["d"])["d"] or {}, chain.steps[0], "it is no more", 1001.0)
    assert len(engine.outbox) == 1
    engine.commit(1001.0)
    assert engine.counts.lost == 1
    assert memory.documents["d"]["retry"]["losses"] == 1


@given(seed=st.integers(0, 2**32), pollers=st.integers(1, 3))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_step_once_through_lost_answers_and_absences(chain: Chain, seed: int, pollers: int) -> None:
    random = Random(seed)
    memory = Memory()
    for number in range(15):
        memory.add(raw(f"d{number}"))
    count = iter(range(10**6))
    claimants = [documents.Claimant(f"p{n}", "host", n, "here") for n in range(pollers)]
    engines = [Engine(chain, chain.steps, c, memory, lambda: f"t{next(count)}", Random(seed)) for c in claimants]
    running: list[tuple[Engine, Task]] = []
    effects: Counter[tuple[str, str]] = Counter()
    for turn in range(2000):
        now = 1000.0 + turn
        memory.away = random.random() < 0.1
        memory.answers_lost = int(random.random() < 0.1)
        engine = random.choice(engines)
        try:
            if random.random() < 0.5:
                offer_all(engine, memory, now)
            engine.claim(now, 0.3)
            running += [(engine, task) for task in engine.commit(now)]
        except Unavailable:
            pass
        random.shuffle(running)
        while running and random.random() < 0.6:
            owner, task = running.pop()
            effects[str(task.document["_id"]), task.step] += 1
            owner.room(random.choice([0.0, 1.0]))
            owner.reported(done(task), now)
        if all(documents.complete(chain, d) for d in memory.documents.values()):
            break
    assert effects == {(f"d{n}", step.key): 1 for n in range(15) for step in chain.steps}
