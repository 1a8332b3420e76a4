"""Every change to a data document: legal, complete, and never on top of somebody else's."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import chain as chains
from orchestrator import documents
from orchestrator.documents import LOSSES_LIMIT, Claimant, Report
from orchestrator.errors import IllegalTransition
from orchestrator.transitions import parse

CHAIN = chains.loads("""
name: three
steps:
  - {name: a, run: "x:y", retries: {count: 2, wait: 10 s, on: [transient]}}
  - {name: b, run: "x:y", retries: {count: 0}}
  - {name: c, run: "x:y"}
""")
A, B, C = CHAIN.steps
ME = Claimant("p1", "host", 1, "here")


def raw(**more: Any) -> dict[str, Any]:
    return {"_id": "d", "_rev": "1-a", "type": "daqdocument", "status": "closed", "file": "/raw/d", **more}


def report(step: chains.Step, attempt: str, error: str | None = None, **result: Any) -> Report:
    return Report(
        "d", step.key, attempt, 100.0, 101.0, 1.0, error_class=error, reason="why" if error else "", result=result
    )


def test_a_claim_says_who_and_when_and_keeps_the_revision() -> None:
    claimed = documents.claim(raw(), A, ME, "t1", 1000.0)
    assert claimed["status"] == "proc 0 in progress"
    assert claimed["_rev"] == "1-a"
    entry = claimed["proc0"]
    assert (entry["poller"], entry["host"], entry["attempt"], entry["number"]) == ("p1", "host", "t1", 1)
    assert documents.held_by(claimed, "proc0", "t1")
    assert not documents.held_by(claimed, "proc0", "t2")


def test_a_result_lifts_the_file_and_keeps_the_rest() -> None:
    claimed = documents.claim(raw(), A, ME, "t1", 1000.0)
    done = documents.finish(claimed, A, report(A, "t1", file="/out/d", size=3, checksum="sha256:x", events=7), 1001.0)
    assert done["status"] == "good"
    assert (done["proc0"]["state"], done["proc0"]["file"], done["proc0"]["size"]) == ("done", "/out/d", 3)
    assert done["proc0"]["result"] == {"events": 7}
    assert documents.ready_step(CHAIN, done) is B
    assert documents.input_file(CHAIN, done, B) == "/out/d"


def test_a_transient_failure_waits_twice_as_long_each_time_and_then_fails() -> None:
    document, waits = raw(), []
    for number in (1, 2, 3):
        claimed = documents.claim(document, A, ME, f"t{number}", 1000.0)
        assert claimed["proc0"]["number"] == number
        document, record = documents.fail(claimed, A, report(A, f"t{number}", "transient"), 1000.0)
        assert record["_id"] == f"attempt:d:proc0:{number}"
        if "retry" in document:
            waits.append(documents.not_before(document, A) - 1000.0)
            assert document["status"] == "closed"
    assert waits == [10.0, 20.0]
    assert document["status"] == "failed"
    assert document["proc0"]["reason"] == "why"
    assert documents.complete(CHAIN, document)


def test_a_permanent_failure_is_not_tried_again() -> None:
    claimed = documents.claim(raw(), A, ME, "t", 1000.0)
    failed, _ = documents.fail(claimed, A, report(A, "t", "data"), 1000.0)
    assert failed["status"] == "failed"
    assert failed["proc0"]["error_class"] == "data"


def test_a_persons_retry_begins_a_new_series_and_keeps_the_numbers() -> None:
    claimed = documents.claim(raw(), A, ME, "t", 1000.0)
    failed, _ = documents.fail(claimed, A, report(A, "t", "data"), 1000.0)
    again = documents.retry(failed, "ann", "disk mended", 2000.0)
    assert again["status"] == "closed"
    assert "proc0" not in again
    assert again["retry"]["by"] == "ann"
    claimed = documents.claim(again, A, ME, "t2", 2001.0)
    assert (claimed["proc0"]["number"], claimed["proc0"]["first"]) == (2, 2)
    waiting, record = documents.fail(claimed, A, report(A, "t2", "transient"), 2002.0)
    assert waiting["status"] == "closed"
    assert record["number"] == 2


def test_only_a_failed_document_can_be_retried() -> None:
    with pytest.raises(IllegalTransition, match="only one that is 'failed'"):
        documents.retry(raw(), "ann", "", 1.0)


def test_a_lost_poller_costs_the_step_none_of_its_retries_but_not_for_ever() -> None:
    document = raw()
    for _ in range(LOSSES_LIMIT - 1):
        document = documents.claim(document, A, ME, "t", 1000.0)
        document, record = documents.lose(document, A, "killed", 1000.0)
        assert document["status"] == "closed"
        assert record["state"] == "lost"
    claimed = documents.claim(document, A, ME, "t", 1000.0)
    assert claimed["proc0"]["number"] - claimed["proc0"]["first"] == 0
    document, _ = documents.lose(claimed, A, "killed", 1000.0)
    assert document["status"] == "failed"


def test_a_release_leaves_no_trace_in_the_count() -> None:
    claimed = documents.claim(raw(), A, ME, "t", 1000.0)
    free = documents.release(claimed, A, "stopped", 1001.0)
    assert free["status"] == "closed"
    assert documents.claim(free, A, ME, "t2", 1002.0)["proc0"]["number"] == 1


@given(st.lists(st.sampled_from(["ok", "transient", "data", "lose", "release", "retry"]), max_size=40))
@settings(max_examples=200)
def test_whatever_happens_the_document_stays_legal_and_loses_nothing(happenings: list[str]) -> None:
    document: dict[str, Any] = raw(header={"x": 1}, stranger="kept")
    now, seen = 1000.0, set()
    for number, what in enumerate(happenings):
        now += 100.0
        step = documents.ready_step(CHAIN, document)
        before = document
        if what == "retry":
            if document["status"] == "failed":
                document = documents.retry(document, "ann", "", now)
            continue
        if step is None:
            assert documents.complete(CHAIN, document)
            continue
        claimed = documents.claim(document, step, ME, f"t{number}", now)
        if what == "ok":
            document = documents.finish(claimed, step, report(step, f"t{number}", file=f"/o/{number}"), now)
        elif what == "release":
            document = documents.release(claimed, step, "stop", now)
        else:
            document, record = (
                documents.lose(claimed, step, "gone", now)
                if what == "lose"
                else documents.fail(claimed, step, report(step, f"t{number}", what), now)
            )
            assert record["_id"] not in seen, "an attempt's number was used twice"
            seen.add(record["_id"])
        assert parse(document["status"]) is not None
        assert documents.holder(document) is None
        assert document["header"] == {"x": 1}
        assert document["stranger"] == "kept"
        assert all(document[s.key] == before[s.key] for s in CHAIN.steps if documents.is_done(before, s))
        json.dumps(document, allow_nan=False)


@given(st.floats(0, 4e9))
def test_times_come_back_to_the_millisecond(time: float) -> None:
    back = documents.seconds_of(documents.iso(time))
    assert back is not None
    assert abs(back - time) < 0.001


@given(st.one_of(st.none(), st.integers(), st.text(max_size=20)))
def test_what_is_no_time_is_none_or_a_time(text: object) -> None:
    assert documents.seconds_of(text) is None or isinstance(documents.seconds_of(text), float)


@given(st.dictionaries(st.text(max_size=5), st.recursive(st.none() | st.booleans() | st.text(), st.lists)))
def test_a_report_travels_as_json(result: dict[str, Any]) -> None:
    sent = Report("d", "proc1", "t", 1.0, 2.0, result=result, log_tail="é\n")
    assert Report.from_json(json.loads(json.dumps(sent.to_json()))) == sent


@pytest.mark.parametrize("entry", [None, {}, {"poller": None}, {"number": 1e308, "first": "x", "started": 5}])
def test_a_claim_that_a_person_wrote_by_hand_is_taken_back_all_the_same(entry: Any) -> None:
    document = raw(status="proc 0 in progress")
    if entry is not None:
        document["proc0"] = entry
    freed, record = documents.lose(document, A, "nobody has it", 1000.0)
    assert freed["status"] == "good"
    assert "proc0" not in freed
    assert record["_id"] == "attempt:d:proc0:1"


@pytest.mark.parametrize("status", ["proc " + "9" * 5000 + " in progress", "proc ١ in progress", "proc -1 queued"])
def test_a_status_with_a_number_that_no_step_has_is_none_of_ours(status: str) -> None:
    assert parse(status) is None


HOSTILE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["done", "failed"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["state", "attempt", "number", "first", "losses", "was", "started", "not_before", "step", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=6,
)


@given(
    st.dictionaries(
        st.sampled_from(["proc0", "proc1", "proc2", "proc9", "procX", "retry", "priority", "file_number", "header"]),
        HOSTILE,
    ),
    st.sampled_from(["closed", "good", "failed", "proc 0 in progress", "proc 1 queued", "proc 9 in progress", "odd"]),
)
@settings(max_examples=300, deadline=None)
def test_whatever_stands_in_a_document_no_decision_about_it_breaks(fields: dict[str, Any], status: str) -> None:
    document = raw(status=status, **fields)
    documents.complete(CHAIN, document)
    step = documents.ready_step(CHAIN, document)
    if step is not None:
        documents.not_before(document, step)
        claimed = documents.claim(document, step, ME, "t", 1000.0)
        assert documents.held_by(claimed, step.key, "t")
        documents.finish(claimed, step, report(step, "t"), 1001.0)
        documents.release(claimed, step, "stopped", 1001.0)
        failed, record = documents.fail(claimed, step, report(step, "t", "transient"), 1001.0)
        json.dumps([failed, record])
    held = documents.holder(document)
    if held is not None and held[0] in ("proc0", "proc1"):
        documents.lose(document, CHAIN.step(held[0]), "lost", 1001.0)
    if status == "failed":
        documents.retry(document, "ann", "why", 1001.0)
