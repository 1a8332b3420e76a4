"""Steps that need not wait for each other may both have to be tried again: neither's count is lost to the other."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchestrator import chain as chains
from orchestrator import conflicts, documents
from orchestrator.audit.document import attempts_expected, step_entries
from orchestrator.documents import Claimant, Report
from orchestrator.engine.versions import is_stored

CHAIN = chains.loads("""
name: sides
steps:
  - {name: a, run: "x:y", retries: {count: 3, wait: 10 s, on: [transient]}}
  - {name: b, run: "x:y", needs: [a], retries: {count: 3, wait: 10 s, on: [transient]}}
  - {name: c, run: "x:y", needs: [a], retries: {count: 3, wait: 10 s, on: [transient]}}
""")
A, B, C = CHAIN.steps
ME = Claimant("p1", "host", 1, "here")


def report(step: chains.Step, attempt: str, error: str | None = None) -> Report:
    return Report("d", step.key, attempt, 100.0, 101.0, 1.0, error_class=error, reason="why" if error else "")


def after_a() -> dict[str, Any]:
    raw = {"_id": "d", "type": "daqdocument", "status": "closed", "file": "/raw/d"}
    return documents.finish(documents.claim(raw, A, ME, "a1", 1.0), A, report(A, "a1"), 2.0)


def failed(document: dict[str, Any], step: chains.Step, attempt: str, now: float) -> tuple[Any, Any]:
    claimed = documents.claim(document, step, ME, attempt, now)
    return documents.fail(claimed, step, report(step, attempt, "transient"), now)


def test_a_step_that_runs_meanwhile_leaves_anothers_retry_alone() -> None:
    waiting, _ = failed(after_a(), B, "b1", 1000.0)
    at_work = documents.claim(waiting, C, ME, "c1", 1001.0)
    assert documents.retry_of(at_work, "proc1")["number"] == 2
    done = documents.finish(at_work, C, report(C, "c1"), 1002.0)
    assert documents.not_before(done, B) == 1010.0, "it still waits its time"
    again = documents.claim(done, B, ME, "b2", 1011.0)
    assert (again["proc1"]["number"], again["proc1"]["first"]) == (2, 1)
    assert "retry" not in again


def test_two_that_are_to_be_tried_again_keep_both_their_counts() -> None:
    first, _ = failed(after_a(), B, "b1", 1000.0)
    both, _ = failed(first, C, "c1", 1001.0)
    assert {key: one["number"] for key, one in documents.retries(both).items()} == {"proc2": 2, "proc1": 2}
    assert (documents.not_before(both, B), documents.not_before(both, C)) == (1010.0, 1011.0)
    assert attempts_expected(both, step_entries(both)) == ["attempt:d:proc2:1", "attempt:d:proc1:1"]

    class Write:
        step, attempt, report, lost, then = B, "b1", object(), None, None

    assert is_stored(both, Write()), "what was written of the first is found again"
    again = documents.claim(both, C, ME, "c2", 1020.0)
    assert again["proc2"]["number"] == 2
    assert documents.retry_of(again, "proc1")["number"] == 2


def test_two_sites_versions_with_a_retry_each_become_one_with_both() -> None:
    bodies = [failed(after_a(), step, "x1", 1000.0 + step.number)[0] for step in (B, C)]
    found = conflicts.merge(bodies)
    assert isinstance(found, dict), found
    assert {key: one["number"] for key, one in documents.retries(found).items()} == {"proc1": 2, "proc2": 2}
    assert conflicts.merge(list(reversed(bodies))) == found
    lone = conflicts.merge([bodies[0], documents.finish(
        documents.claim(after_a(), C, ME, "c1", 1000.0), C, report(C, "c1"), 1001.0
    )])  # fmt: skip
    assert isinstance(lone, dict)
    assert documents.retry_of(lone, "proc1")["number"] == 2


ENDS = st.sampled_from(["done", "transient", "lost", "release"])


@given(st.lists(st.tuples(st.integers(1, 2), ENDS), max_size=40))
def test_however_two_steps_take_turns_no_attempt_has_a_number_twice_and_each_step_ends(
    turns: list[tuple[int, str]],
) -> None:
    document, records, real = after_a(), [], Counter[str]()
    for turn, (number, end) in enumerate(turns):
        step, attempt, now = CHAIN.steps[number], f"t{turn}", 2000.0 + turn
        if not documents.ready(CHAIN, document, step):
            continue
        claimed = documents.claim(document, step, ME, attempt, now)
        if end == "done":
            document = documents.finish(claimed, step, report(step, attempt), now)
        elif end == "release":
            document = documents.release(claimed, step, "no room", now)
        elif end == "lost":
            document, record = documents.lose(claimed, step, "gone", now)
            records.append(record["_id"])
        else:
            real[step.key] += 1
            document, record = documents.fail(claimed, step, report(step, attempt, end), now)
            records.append(record["_id"])
        assert sorted(attempts_expected(document, step_entries(document))) == sorted(records)
    assert len(set(records)) == len(records)
    assert max(real.values(), default=0) <= 4, "the first and three more"
