"""Numbers and times as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.web import human


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (99_950, "100 kB"),
        (999_499, "999 kB"),
        (1_500_000, "1.5 MB"),
        (2.5e12, "2.5 TB"),
        (3e15, "3.0 PB"),
        (None, ""),
        ("many", "many"),
        (True, "True"),
        (float("inf"), "inf"),
    ],
)
def test_size(value: object, words: str) -> None:
    assert human.size(value) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0 ms"),
        (0.84, "840 ms"),
        (0.9996, "1.0 s"),
        (2.5, "2.5 s"),
        (59.96, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (7260, "2 h 1 min"),
        (187_200, "2 d 4 h"),
        (-5, "-5.0 s"),
        (None, ""),
        ("x", "x"),
    ],
)
def test_duration(value: object, words: str) -> None:
    assert human.duration(value) == words


def test_number_groups_digits() -> None:
    assert human.number(1234567) == "1\u202f234\u202f567"
    assert human.number(2.0) == "2"
    assert human.number(0.125) == "0.125"


def test_times_are_utc_whatever_zone_they_are_written_in() -> None:
    assert human.clock("2026-01-22T12:00:00+01:00") == "2026-01-22 11:00:00 UTC"
    assert human.clock("2026-01-22T11:00:00.123Z") == "2026-01-22 11:00:00 UTC"
    assert human.clock("yesterday") == "yesterday"
    assert human.iso(human.parse_time("2026-01-22T11:00:00.123Z")) == "2026-01-22T11:00:00.123Z"


@pytest.mark.parametrize(
    ("away", "words"), [(0.4, "just now"), (12, "12 s ago"), (3600, "1 h ago"), (-90, "in 1 min"), (200_000, "2 d ago")]
)
def test_ages(away: float, words: str) -> None:
    assert human.ago(human.iso(1_000_000.0), 1_000_000.0 + away) == words


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.booleans(), st.lists(st.integers())))
def test_nothing_that_a_document_holds_makes_them_raise(value: object) -> None:
    for words in (
        human.size(value),
        human.duration(value),
        human.number(value),
        human.clock(value),
        human.ago(value, 0.0),
    ):
        assert isinstance(words, str)
