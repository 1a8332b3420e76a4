"""What was read and is not safe yet: up to where the input need not be read again, and how much memory waits. Pure."""

from __future__ import annotations

from typing import Any


class Ledger:
    """Every item that was read, in order, until it needs nothing more.

    ``position``: everything up to it is in the store. ``held``: bytes of packed spills that are on their way;
    ``waiting``: bytes of their results that wait for the store.
    """

    def __init__(self, position: Any = None) -> None:
        self.position = position
        self.changes = 0  # grows with each change of ``position``
        self.held = self.waiting = 0
        self._positions: dict[int, Any] = {}
        self._bytes: dict[int, int] = {}
        self._results: dict[int, int] = {}
        self._settled: set[int] = set()
        self._next = 0
        self._low = 0

    def add(self, position: Any, size: int = 0) -> int:
        """One more item of ``size`` bytes was read, and the input stands at ``position`` after it. Its order."""
        order = self._next
        self._next += 1
        self._positions[order], self._bytes[order] = position, size
        self.held += size
        return order

    def at(self, order: int | None) -> Any:
        """The position after an item, or else the safe one."""
        return self.position if order is None else self._positions.get(order, self.position)

    def resulted(self, order: int, size: int) -> None:
        """The item's result, of ``size`` bytes, waits for the store."""
        self._results[order] = size
        self.waiting += size

    def settle(self, order: int) -> None:
        """An item needs nothing more."""
        self.held -= self._bytes.pop(order)
        self.waiting -= self._results.pop(order, 0)
        self._settled.add(order)
        while self._low in self._settled:
            self._settled.remove(self._low)
            self.position = self._positions.pop(self._low)
            self._low += 1
            self.changes += 1

    @property
    def open(self) -> int:
        """Items that are not settled, or lie behind one that is not."""
        return self._next - self._low
