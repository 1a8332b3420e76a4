"""How many documents come before an id, without counting them one by one: the offset of a listing.

Kept in memory, made when first asked for: spans of ids with how many documents each holds. A commit alters the spans of
what it has created and deleted; a question adds spans up and counts in one only.
"""

from __future__ import annotations

import sqlite3
import threading
from bisect import bisect_right
from collections.abc import Callable
from contextlib import AbstractContextManager

FEW = 20_000  # documents that are counted as fast without spans
SPAN = 4_000  # documents of a span when it is made; with four times as many all are made anew

_INSIDE = "SELECT count(*) FROM docs INDEXED BY by_id WHERE deleted = 0 AND id >= ? AND id < ?"
_NEXT = "SELECT id FROM docs INDEXED BY by_id WHERE deleted = 0 AND id >= ? ORDER BY id LIMIT 1 OFFSET ?"
_REST = "SELECT count(*) FROM docs INDEXED BY by_id WHERE deleted = 0 AND id >= ?"

Moves = list[tuple[str, int]]
"""What a commit has created (1) and deleted (-1), by id."""


class Ranks:
    """The spans of one database.

    Args:
        reading: gives a connection for reading.
    """

    def __init__(self, reading: Callable[[], AbstractContextManager[sqlite3.Connection]]) -> None:
        self._reading = reading
        self._lock = threading.Lock()
        self._making = threading.Lock()
        self._starts: list[str] = []  # empty: not made
        self._counts: list[int] = []
        self._made = 0  # the sequence that the spans were made at
        self._missed: list[tuple[int, Moves]] | None = None  # what is committed while the spans are being made

    def moved(self, seq: int, moves: Moves) -> None:
        """Take in a commit; called in the order of the commits.

        Args:
            seq: the database's sequence after it.
        """
        with self._lock:
            if self._missed is not None:
                self._missed.append((seq, moves))
            elif self._starts and seq > self._made:
                self._count(moves)

    def before(self, connection: sqlite3.Connection, identifier: str) -> int:
        """How many documents have a lower id."""
        with self._making:
            if not self._starts:
                self._make()
            with self._lock:
                index = bisect_right(self._starts, identifier) - 1
                start, found = self._starts[index], sum(self._counts[:index])
                if self._counts[index] > 4 * SPAN:
                    self._starts = []
        return found + int(connection.execute(_INSIDE, (start, identifier)).fetchone()[0])

    def _make(self) -> None:
        with self._lock:
            self._missed = []
        starts, counts, seq = [""], list[int](), 0
        try:
            with self._reading() as connection:
                connection.execute("BEGIN")
                seq = connection.execute("SELECT coalesce(max(seq), 0) FROM docs").fetchone()[0]
                while (found := connection.execute(_NEXT, (starts[-1], SPAN)).fetchone()) is not None:
                    starts.append(found[0])
                    counts.append(SPAN)
                counts.append(connection.execute(_REST, (starts[-1],)).fetchone()[0])
        finally:
            with self._lock:
                missed, self._missed = self._missed, None
                if len(counts) == len(starts):
                    self._starts, self._counts, self._made = starts, counts, seq
                    for later, moves in missed:
                        if later > seq:
                            self._count(moves)

    def _count(self, moves: Moves) -> None:
        for identifier, by in moves:
            self._counts[bisect_right(self._starts, identifier) - 1] += by
