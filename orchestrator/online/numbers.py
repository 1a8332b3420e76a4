"""Sets of spills' numbers, as intervals: a run's numbers come nearly in order, so a million of them are a few pairs."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable


class Numbers:
    """A set of whole numbers from 0. Adding in about rising order costs next to nothing."""

    def __init__(self, numbers: Iterable[int] = ()) -> None:
        self._first: list[int] = []
        self._last: list[int] = []
        self._count = 0
        for number in sorted(numbers):
            self.add(number)

    def add(self, number: int) -> bool:
        """Returns whether it was new."""
        place = bisect_right(self._first, number)
        if place and number <= self._last[place - 1]:
            return False
        self._count += 1
        joins_left = place > 0 and self._last[place - 1] == number - 1
        joins_right = place < len(self._first) and self._first[place] == number + 1
        if joins_left and joins_right:
            self._last[place - 1] = self._last[place]
            del self._first[place], self._last[place]
        elif joins_left:
            self._last[place - 1] = number
        elif joins_right:
            self._first[place] = number
        else:
            self._first.insert(place, number)
            self._last.insert(place, number)
        return True

    def __contains__(self, number: int) -> bool:
        place = bisect_right(self._first, number)
        return place > 0 and number <= self._last[place - 1]

    def __len__(self) -> int:
        return self._count

    def intervals(self) -> list[list[int]]:
        """``[[first, last], ...]``, rising, as JSON."""
        return [[first, last] for first, last in zip(self._first, self._last, strict=True)]

    @classmethod
    def of(cls, intervals: Iterable[Iterable[int]]) -> Numbers:
        """The set that :meth:`intervals` has described. Raises ValueError for intervals that are out of order."""
        made = cls()
        for first, last in intervals:
            if last < first or (made._last and first <= made._last[-1] + 1):
                raise ValueError(f"the interval {first}-{last} is out of order")
            made._first.append(int(first))
            made._last.append(int(last))
            made._count += last - first + 1
        return made
