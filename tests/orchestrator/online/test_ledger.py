"""What was read and is not safe yet: the position waits for the slowest, and bytes are given back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.online.ledger import Ledger


def test_a_position_is_safe_when_all_before_it_is() -> None:
    ledger = Ledger("begin")
    orders = [ledger.add(word) for word in ("a", "b", "c")]
    ledger.settle(orders[1])
    assert (ledger.position, ledger.open) == ("begin", 3)
    ledger.settle(orders[0])
    assert (ledger.position, ledger.open) == ("b", 1)
    ledger.settle(orders[2])
    assert (ledger.position, ledger.open, ledger.changes) == ("c", 0, 3)


@given(st.permutations(range(8)), st.lists(st.integers(0, 1000), min_size=8, max_size=8))
def test_whatever_the_order_all_bytes_are_given_back(order: list[int], sizes: list[int]) -> None:
    ledger = Ledger()
    for number, size in enumerate(sizes):
        assert ledger.add(number, size) == number
    assert ledger.held == sum(sizes)
    for number in order:
        ledger.resulted(number, 7)
        ledger.settle(number)
    assert (ledger.held, ledger.waiting, ledger.open, ledger.position) == (0, 0, 0, 7)
