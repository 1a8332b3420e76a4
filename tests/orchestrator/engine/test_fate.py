"""The truth table of a farm job's fate: every row, every combination, and what no combination may do."""

from itertools import product
from typing import Any

import pytest

from orchestrator.engine import fate as fates
from orchestrator.engine.fate import ENDED, ROWS, Result, Verdict, Witness, fate, row_of, witness
from orchestrator.schedulers import Job, JobState

GRACE = {"unknown": 120.0, "result": 60.0}
ALL = list(product(Witness, Witness, Result))


def ask(queue: Witness, accounting: Witness, result: Result, *, waited: float | None = 1000.0) -> fates.Fate:
    since = None if waited is None else 5000.0 - waited
    return fate(queue=queue, accounting=accounting, result=result, since=since, now=5000.0, grace=GRACE, said="it said")


W, R = Witness, Result
CASES: list[tuple[Witness, Witness, Result, Verdict, str | None]] = [
    (W.UNAVAILABLE, W.UNAVAILABLE, R.THERE, Verdict.DONE, None),
    (W.DONE, W.DONE, R.UNAVAILABLE, Verdict.WAIT, None),
    (W.RUNNING, W.ABSENT, R.RETURNED, Verdict.RETURNED, None),
    (W.UNAVAILABLE, W.FAILED, R.NONE, Verdict.WAIT, None),
    (W.UNKNOWN, W.ABSENT, R.NONE, Verdict.WAIT, None),
    (W.RUNNING, W.ABSENT, R.BEGUN, Verdict.RUNNING, None),
    (W.RUNNING, W.ABSENT, R.STARTED, Verdict.QUEUED, None),
    (W.HELD, W.ABSENT, R.NONE, Verdict.HELD, None),
    (W.QUEUED, W.ABSENT, R.NONE, Verdict.QUEUED, None),
    (W.ABSENT, W.UNAVAILABLE, R.NONE, Verdict.WAIT, None),
    (W.ABSENT, W.RUNNING, R.BEGUN, Verdict.LOST, None),
    (W.ABSENT, W.TIMEOUT, R.BEGUN, Verdict.FAILED, "resources"),
    (W.OUT_OF_MEMORY, W.ABSENT, R.BEGUN, Verdict.FAILED, "resources"),
    (W.ABSENT, W.NODE_FAILED, R.BEGUN, Verdict.LOST, None),
    (W.CANCELLED, W.UNAVAILABLE, R.NONE, Verdict.FAILED, "transient"),
    (W.ABSENT, W.FAILED, R.NONE, Verdict.FAILED, "code"),
    (W.DONE, W.DONE, R.NONE, Verdict.LOST, None),
    (W.ABSENT, W.NO_HISTORY, R.NONE, Verdict.LOST, None),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(str(word) for word in case))
def test_each_row(case: tuple[Witness, Witness, Result, Verdict, str | None]) -> None:
    queue, accounting, result, verdict, kind = case
    found = ask(queue, accounting, result)
    assert (found.verdict, found.error_class) == (verdict, kind)


def test_each_row_has_a_case() -> None:
    assert [row_of(*case[:3]) for case in CASES] == list(ROWS)


@pytest.mark.parametrize("result", list(Result))
def test_every_combination_has_a_verdict(result: Result) -> None:
    for queue, accounting in product(Witness, Witness):
        if queue is not Witness.NO_HISTORY:  # a queue is always kept
            assert ask(queue, accounting, result).reason


FINAL = {Verdict.LOST, Verdict.FAILED}


def test_unavailable_concludes_nothing() -> None:
    for queue, accounting, result in ALL:
        found = ask(queue, accounting, result) if queue is not Witness.NO_HISTORY else None
        if found is None or result in (Result.THERE, Result.RETURNED):
            continue
        if queue is Witness.UNAVAILABLE or result is Result.UNAVAILABLE:
            assert found.verdict is Verdict.WAIT
        if accounting is Witness.UNAVAILABLE and queue not in ENDED:
            assert found.verdict not in FINAL


def test_no_end_is_concluded_without_a_grace_period() -> None:
    for queue, accounting, result in ALL:
        if queue is Witness.NO_HISTORY:
            continue
        for waited in (None, 0.0, 59.0):
            assert ask(queue, accounting, result, waited=waited).verdict not in FINAL


def test_absence_needs_the_longer_grace() -> None:
    assert ask(W.ABSENT, W.ABSENT, R.NONE, waited=119).verdict is Verdict.WAIT
    assert ask(W.ABSENT, W.ABSENT, R.NONE, waited=121).verdict is Verdict.LOST


def test_a_document_that_its_job_never_came_to_is_not_blamed() -> None:
    assert ask(W.TIMEOUT, W.ABSENT, R.STARTED).verdict is Verdict.RETURNED
    assert ask(W.CANCELLED, W.ABSENT, R.STARTED).verdict is Verdict.RETURNED, "a batch system that kills at once"
    assert ask(W.TIMEOUT, W.ABSENT, R.BEGUN).verdict is Verdict.FAILED


def test_what_the_batch_system_said_is_in_the_reason() -> None:
    assert "(it said)" in ask(W.CANCELLED, W.ABSENT, R.NONE).reason


def test_witnesses() -> None:
    def job(state: JobState) -> Job:
        return Job("1", None, "n", state, state.value)

    for state in JobState:
        assert witness(job(state), asked=False) is not Witness.UNAVAILABLE
    assert witness(None, asked=False) is Witness.UNAVAILABLE
    assert witness(None, asked=True) is Witness.ABSENT
    assert witness(None, asked=True, history=False) is Witness.NO_HISTORY


def test_the_guides_table_has_every_row() -> None:
    table: list[Any] = fates.table()
    assert len(table) == len(ROWS)
    assert all(len(row) == 5 and all(row) for row in table)
