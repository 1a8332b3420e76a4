"""Noticing that the wall clock was set: by hand, by a time server that steps it, or while the machine slept.

Periods are measured with clocks that nobody sets. What must be compared with times in documents, or has been noted in
s since 1970, is moved along when the wall clock has jumped.
"""

from __future__ import annotations

from dataclasses import dataclass

#: A difference of less (s) is no jump: time servers slew a clock by half a millisecond a second.
JUMP = 2.0


@dataclass
class Jumps:
    """Compares the wall clock with a steady one from look to look."""

    _offset: float | None = None

    def moved(self, now: float, steady: float) -> float:
        """By how many seconds the wall clock was set since the last look; 0 if it was not.

        Args:
            now: s since 1970.
            steady: s of a clock that goes on at the same rate and is never set.
        """
        offset = now - steady
        before, moved = self._offset, 0.0
        if before is None or abs(offset - before) >= JUMP:
            moved = 0.0 if before is None else offset - before
        self._offset = offset
        return moved
