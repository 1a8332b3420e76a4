"""The sentences that say why a document is where it is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import chain as chains
from orchestrator import documents, reasons
from orchestrator.documents import Claimant, Report

CHAIN = chains.loads("name: two\nsteps: [{name: a, run: 'x:y'}, {name: b, run: 'x:y'}]")
A, B = CHAIN.steps
ME = Claimant("p1", "daq1", 1, "here")


def raw(**more: Any) -> dict[str, Any]:
    return {"_id": "d", "type": "daqdocument", "status": "closed", **more}


def failed(kind: str) -> dict[str, Any]:
    claimed = documents.claim(raw(), A, ME, "t", 1000.0)
    report = Report("d", "proc0", "t", 1.0, 2.0, error_class=kind, reason="the disk is full")
    return documents.fail(claimed, A, report, 1000.0)[0]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (raw(), "ready for proc0 (a)"),
        (raw(status="open"), "still writing"),
        (raw(status="bad", reason="no header"), "no header"),
        (raw(status="oops"), "'oops' is none that the chain knows"),
        (raw(type="tar"), "of type 'tar'"),
        (documents.claim(raw(), A, ME, "t", 1000.0), "running: attempt 1, on daq1"),
        (failed("data"), "failed at attempt 1 (data): the disk is full. Mend the cause, then: orchestrator retry d"),
        (failed("transient"), "Attempt 2 of proc0 (a) begins in 30 s; the one before ended with: the disk is full."),
        (raw(status="good", proc0={"state": "done"}, proc1={"state": "done"}), "Every step is done."),
        (raw(status="good", proc0={"state": "odd"}), "stands in the document with state 'odd'"),
    ],
)
def test_each_state_has_its_sentence(document: dict[str, Any], words: str) -> None:
    assert words in reasons.why(CHAIN, document, 1000.0)


def test_a_step_that_is_not_ready_names_the_condition() -> None:
    assert reasons.why_not_ready(CHAIN, raw(), A, 0.0) is None
    assert reasons.why_not_ready(CHAIN, raw(), B, 0.0) == "proc1 (b) needs proc0 (a), not done yet."
    done = raw(status="good", proc0={"state": "done"})
    assert reasons.why_not_ready(CHAIN, done, A, 0.0) == "proc0 (a) is done already."


anything = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8), st.lists, max_leaves=4)


@given(st.dictionaries(st.sampled_from(["type", "status", "proc0", "proc1", "retry", "reason", "_id"]), anything))
def test_no_document_is_too_odd_for_a_sentence(document: dict[str, Any]) -> None:
    assert reasons.why(CHAIN, {"type": "daqdocument", **document}, 0.0)
    reasons.why_not_ready(CHAIN, {"type": "daqdocument", **document}, B, 0.0)
