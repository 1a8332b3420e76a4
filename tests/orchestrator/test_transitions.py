"""The table of transitions: what it allows, what it refuses, and that statuses survive being written and read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import IllegalTransition
from orchestrator.transitions import HELD, TRANSITIONS, Kind, Status, allowed, check, parse

PLAIN = [Kind.OPEN, Kind.CLOSED, Kind.GOOD, Kind.BAD, Kind.FAILED]
statuses = st.one_of(st.sampled_from(PLAIN).map(Status), st.builds(Status, st.sampled_from(HELD), st.integers(0, 1000)))


@given(statuses)
def test_a_status_written_and_read_is_the_same(status: Status) -> None:
    assert parse(str(status)) == status


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("proc1 in progress", Status(Kind.IN_PROGRESS, 1)),
        ("proc1 failed", Status(Kind.FAILED)),
        ("proc 12 queued", Status(Kind.QUEUED, 12)),
    ],
)
def test_older_databases_are_read(written: str, read: Status) -> None:
    assert parse(written) == read


@given(st.one_of(st.none(), st.integers(), st.text(), st.just("proc 1"), st.just("good\n"), st.just("new")))
def test_what_is_no_status_is_none(text: object) -> None:
    if text not in [kind.value for kind in PLAIN]:
        assert parse(text) is None


def test_a_claim_only_from_a_waiting_document() -> None:
    claim = Status(Kind.IN_PROGRESS, 2)
    assert allowed(Status(Kind.GOOD), claim) is not None
    assert allowed(Status(Kind.CLOSED), claim) is not None
    for kind in (Kind.OPEN, Kind.BAD, Kind.FAILED):
        assert allowed(Status(kind), claim) is None


def test_going_on_leads_only_to_later_steps_and_taking_over_only_to_the_same() -> None:
    at_two = Status(Kind.IN_PROGRESS, 2)
    assert allowed(at_two, Status(Kind.IN_PROGRESS, 3)) is not None
    assert allowed(at_two, Status(Kind.IN_PROGRESS, 2)) is not None
    assert allowed(at_two, Status(Kind.IN_PROGRESS, 1)) is None
    assert allowed(Status(Kind.QUEUED, 2), Status(Kind.IN_PROGRESS, 2)) is not None
    assert allowed(Status(Kind.QUEUED, 2), Status(Kind.QUEUED, 1)) is None


def test_a_refusal_says_what_is_possible() -> None:
    with pytest.raises(IllegalTransition, match=r"'d1'.*'failed' to 'proc 1 queued'.*bad, closed, good"):
        check(Status(Kind.FAILED), Status(Kind.QUEUED, 1), "d1")


def test_every_state_can_be_reached_and_only_bad_failed_and_good_are_ends() -> None:
    reached = {Kind.NEW}
    for _ in Kind:
        reached |= {t.after for t in TRANSITIONS if reached & set(t.before)}
    assert reached == set(Kind)
    for kind in Kind:
        assert any(kind in t.before for t in TRANSITIONS), f"no way out of {kind}"
