"""Where a document stands, and the sentence that says why."""

from __future__ import annotations

import page_sample as sample
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.web.states import STATES, Outline, kind_counts, kind_of, outlines, standings, summary

STEPS = outlines(sample.chain())
DOCUMENTS = {d["_id"]: d for d in sample.documents()}


def told(id: str) -> tuple[list[str], str]:
    made = standings(DOCUMENTS[id], STEPS, sample.NOON)
    return [s.state for s in made], summary(DOCUMENTS[id], made, sample.NOON)


@pytest.mark.parametrize(
    ("id", "states", "words"),
    [
        ("ma22a000_000", ["done"] * 4, "Through the whole chain."),
        (
            "ma22b001_000",
            ["ready", "waiting", "waiting", "waiting"],
            "transfer: Ready: the next free poller of site here",
        ),
        ("ma22b001_003", ["done", "ready", "waiting", "waiting"], "convert: Ready"),
        (
            "ma22b001_004",
            ["done", "done", "in progress", "waiting"],
            "analyse: Claimed by node2-4711 on node2, 42 s ago, attempt 2.",
        ),
        ("ma22b001_005", ["done", "queued", "waiting", "waiting"], "convert: A batch job is submitted, 9 s ago."),
        (
            "ma22b001_006",
            ["done", "failed", "waiting", "waiting"],
            "convert: Failed (data): the event at byte 4711 ends early.",
        ),
        ("ma22b001_007", ["bad"] * 4, "Out of processing: the document is bad: the header has no run number."),
        ("ma22b001_008", ["waiting"] * 4, "The DAQ is still writing the file"),
        (
            "ma22b001_009",
            ["done", "ready", "waiting", "waiting"],
            "convert: The last attempt failed (transient): the disk is full. "
            "Attempt 2 not before 2026-01-22 12:01:00 UTC (in 1 min).",
        ),
    ],
)
def test_each_state_has_its_sentence(id: str, states: list[str], words: str) -> None:
    found, sentence = told(id)
    assert found == states
    assert sentence.startswith(words)


def test_waiting_names_what_is_waited_for() -> None:
    made = standings(DOCUMENTS["ma22b001_003"], STEPS, sample.NOON)
    assert made[3].sentence == "Waits for convert and analyse."
    made = standings(DOCUMENTS["ma22b001_006"], STEPS, sample.NOON)
    assert "convert failed" in made[3].sentence


def test_a_document_that_a_person_gave_up_on_fails_at_its_first_undone_step() -> None:
    document = sample.document("r", 0, "failed", 1, reason="a person gave up")
    made = standings(document, STEPS, sample.NOON)
    assert [s.state for s in made] == ["done", "failed", "waiting", "waiting"]
    assert made[1].sentence == "Failed: a person gave up."


def test_without_a_chain_the_steps_are_those_that_the_documents_have() -> None:
    assert outlines(None, [2, 0, 1]) == (
        Outline(0, "proc0", "proc0"),
        Outline(1, "proc1", "proc1", ("proc0",)),
        Outline(2, "proc2", "proc2", ("proc0", "proc1")),
    )


def test_kinds() -> None:
    assert kind_of("proc 12 in progress") == "in progress"
    assert kind_of("proc1 failed") == "failed"  # as older databases write it
    assert kind_of("</script>") == kind_of(None) == kind_of(["good"]) == "other"
    assert kind_counts({"proc 1 queued": 2, "proc 2 queued": 3, "good": 1}) == {"queued": 5, "good": 1}


odd = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda c: st.lists(c, max_size=2), max_leaves=3
)
statuses = st.sampled_from(
    ["open", "closed", "good", "bad", "failed", "proc 1 queued", "proc 2 in progress", "", None, 7]
)
proc = odd | st.fixed_dictionaries(
    {"state": st.sampled_from(["done", "in progress", "failed", "queued", None]) | odd},
    optional={"reason": odd, "started": odd},
)


@settings(max_examples=80, deadline=None)
@given(
    st.fixed_dictionaries(
        {"status": statuses}, optional={"proc0": proc, "proc1": proc, "proc2": proc, "retry": odd, "reason": odd}
    )
)
def test_any_document_has_a_standing_at_every_step_and_a_sentence(document: dict[str, object]) -> None:
    made = standings(document, STEPS, sample.NOON)
    assert len(made) == len(STEPS)
    assert all(s.state in STATES and s.sentence for s in made)
    assert summary(document, made, sample.NOON)
