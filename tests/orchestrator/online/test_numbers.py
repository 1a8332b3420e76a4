"""Sets of numbers as intervals."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.online.numbers import Numbers


@given(st.lists(st.integers(0, 40)))
def test_it_is_a_set(numbers: list[int]) -> None:
    made, known = Numbers(), set[int]()
    for number in numbers:
        assert made.add(number) == (number not in known)
        known.add(number)
        assert len(made) == len(known)
    assert [number in made for number in range(-1, 42)] == [number in known for number in range(-1, 42)]
    intervals = made.intervals()
    assert all(a[1] + 1 < b[0] for a, b in itertools.pairwise(intervals))
    again = Numbers.of(intervals)
    assert again.intervals() == intervals and len(again) == len(known)


@pytest.mark.parametrize("bad", [[[3, 1]], [[0, 4], [2, 6]], [[0, 4], [5, 6]]])
def test_intervals_out_of_order_are_refused(bad: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="out of order"):
        Numbers.of(bad)
