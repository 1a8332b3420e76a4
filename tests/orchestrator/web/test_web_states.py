"""Where a document stands, and the sentences that say why: those of ``orchestrator.reasons``, and no others."""

from __future__ import annotations

import page_sample as sample
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import reasons
from orchestrator.web.detail import why, why_step
from orchestrator.web.states import STATES, Outline, kind_counts, kind_of, outlines, standings

STEPS = outlines(sample.chain())
DOCUMENTS = {d["_id"]: d for d in sample.documents()}


@pytest.mark.parametrize(
    ("id", "states"),
    [
        ("ma22a000_000", ["done"] * 4),
        ("ma22b001_000", ["ready", "waiting", "waiting", "waiting"]),
        ("ma22b001_003", ["done", "ready", "waiting", "waiting"]),
        ("ma22b001_004", ["done", "done", "in progress", "waiting"]),
        ("ma22b001_005", ["done", "queued", "waiting", "waiting"]),
        ("ma22b001_006", ["done", "failed", "waiting", "waiting"]),
        ("ma22b001_007", ["bad"] * 4),
        ("ma22b001_008", ["waiting"] * 4),
        ("ma22b001_009", ["done", "ready", "waiting", "waiting"]),
    ],
)
def test_each_step_has_its_state_and_each_sentence_is_that_of_reasons(id: str, states: list[str]) -> None:
    document = DOCUMENTS[id]
    made = standings(document, STEPS)
    assert [s.state for s in made] == states
    assert why(sample.chain(), document, sample.NOON) == reasons.why(sample.chain(), document, sample.NOON)
    current = next((s for s in made if s.state in ("ready", "queued", "in progress", "failed", "bad")), None)
    if current is not None:
        said = why_step(sample.chain(), document, current, sample.NOON)
        assert said == reasons.why(sample.chain(), document, sample.NOON)


def test_waiting_names_what_is_waited_for() -> None:
    document = DOCUMENTS["ma22b001_003"]
    said = why_step(sample.chain(), document, standings(document, STEPS)[3], sample.NOON)
    assert said == "proc3 (histogram) needs proc1 (convert), proc2 (analyse), not done yet."


def test_a_document_that_a_person_gave_up_on_fails_at_its_first_undone_step() -> None:
    document = sample.document("r", 0, "failed", 1, reason="a person gave up")
    made = standings(document, STEPS)
    assert [s.state for s in made] == ["done", "failed", "waiting", "waiting"]
    assert why_step(sample.chain(), document, made[1], sample.NOON) == "It is marked as failed: a person gave up."


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
    made = standings(document, STEPS)
    assert len(made) == len(STEPS)
    assert all(s.state in STATES for s in made)
    for chain in (sample.chain(), None):
        assert why(chain, document, sample.NOON)
        assert all(why_step(chain, document, s, sample.NOON) or chain is None for s in made)
