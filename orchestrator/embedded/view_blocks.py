"""The rows of one map function in key order, and what runs of them add up to.

Three tables for map function N::

    rows_N     (key, id, pos) -> k, v      key: ``collation.sort_key``; pos: for equal keys of a document; k, v: JSON
    blocks_N   (key, id) -> count, states  one row for each run of up to SPLIT neighbouring rows, from that place on
    regions_N  (key, id) -> count, states  the same for each run of up to SPLIT neighbouring blocks

They are what makes reduces, offsets and totals cheap, and as cheap in a large database as in a small one: a query adds
up whole regions, whole blocks in the two regions at its ends, and reads rows only in the two blocks there (and where
groups meet). A million rows are some ten thousand blocks in some hundred regions.

Each change alters the counts and states of its block and its region; a state that cannot take a value back (a minimum,
a sum of fractions) is made anew from what is below it, so that it is always what a reduction of exactly these rows
gives. What grows is split, what is empty vanishes. Each region begins where its first block begins, and the first of
all at the lowest place; these are there even when they are empty. Nothing of this is kept in memory.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from orchestrator.embedded import codec
from orchestrator.embedded.view_reduce import State, add_value, merge, reduce_values, remove_value

SPLIT = 128  # rows of a block, and blocks of a region, at which it is cut into pieces of half that

Place = tuple[bytes, str]
FIRST: Place = (b"", "")
"""Where the first block and the first region begin."""


class Row(NamedTuple):
    """One row of a map function: its place, and key and value as JSON text."""

    key: bytes
    id: str
    k: str
    v: str


class Block(NamedTuple):
    """One run of ``size`` rows, from ``place`` up to the next one's; ``text`` is the JSON of its states."""

    place: Place
    size: int
    text: str

    @property
    def states(self) -> list[State]:
        """What the rows reduce to, one state for each reduce that the map function has."""
        found: list[State] = json.loads(self.text)
        return found


class Delta:
    """Changes to the rows of one map function, collected over a batch."""

    def __init__(self) -> None:
        self.removed: list[tuple[bytes, str, int, str | None]] = []  # value as JSON, None if it is not known
        self.added: list[tuple[bytes, str, int, str, str]] = []


def schema(number: int) -> str:
    """The statements that make the tables of a map function."""
    sums = "count INTEGER NOT NULL, states TEXT NOT NULL, PRIMARY KEY (key, id)) WITHOUT ROWID"
    return f"""
    CREATE TABLE rows_{number} (key BLOB NOT NULL, id TEXT NOT NULL, pos INTEGER NOT NULL, k TEXT NOT NULL,
        v TEXT NOT NULL, PRIMARY KEY (key, id, pos)) WITHOUT ROWID;
    CREATE TABLE blocks_{number} (key BLOB NOT NULL, id TEXT NOT NULL, {sums};
    CREATE TABLE regions_{number} (key BLOB NOT NULL, id TEXT NOT NULL, {sums};
    INSERT INTO blocks_{number} VALUES (x'', '', 0, '[]');
    INSERT INTO regions_{number} VALUES (x'', '', 0, '[]');
    """


# Reading


def regions(connection: sqlite3.Connection, number: int) -> Iterator[Block]:
    """The regions of a map function in key order."""
    return _sums(connection, f"regions_{number}", FIRST, None)


def blocks(
    connection: sqlite3.Connection, number: int, start: Place = FIRST, end: Place | None = None
) -> Iterator[Block]:
    """The blocks of a map function that begin from ``start`` up to but not including ``end``, in key order."""
    return _sums(connection, f"blocks_{number}", start, end)


def _sums(connection: sqlite3.Connection, table: str, start: Place, end: Place | None) -> Iterator[Block]:
    where, arguments = _between(start, end)
    query = f"SELECT key, id, count, states FROM {table} WHERE {where} ORDER BY key, id"
    for key, identifier, count, states in connection.execute(query, arguments):
        yield Block((key, identifier), count, states)


def rows(
    connection: sqlite3.Connection, number: int, start: Place, end: Place | None, descending: bool = False
) -> Iterator[Row]:
    """The rows of a map function from ``start`` up to but not including ``end``."""
    where, arguments = _between(start, end)
    order = "key DESC, id DESC, pos DESC" if descending else "key, id, pos"
    query = f"SELECT key, id, k, v FROM rows_{number} WHERE {where} ORDER BY {order}"
    for values in connection.execute(query, arguments):
        yield Row(*values)


def _between(start: Place, end: Place | None) -> tuple[str, list[Any]]:
    if end is None:
        return "(key, id) >= (?, ?)", [*start]
    return "(key, id) >= (?, ?) AND (key, id) < (?, ?)", [*start, *end]


# Writing


class _Run:
    """A block or a region that a batch touches."""

    def __init__(self, place: Place, end: Place | None, count: int, states: list[State]) -> None:
        self.place = place
        self.end = end
        self.count = count
        self.states = states
        self.stale = False  # the states are to be made anew
        self.grown = False  # a region: blocks have come

    def add(self, kinds: tuple[str, ...], value: Any) -> None:
        self.count += 1
        if kinds and not self.stale:
            states = self.states or [None] * len(kinds)
            self.states = [add_value(kind, state, value) for kind, state in zip(kinds, states, strict=True)]

    def remove(self, kinds: tuple[str, ...], value: Any) -> None:
        self.count -= 1
        for index, kind in enumerate(kinds):
            if not self.stale:
                self.states[index], known = remove_value(kind, self.states[index], value)
                self.stale = not known


class _Level:
    """The blocks, or the regions, of one map function that a batch touches."""

    def __init__(self, connection: sqlite3.Connection, table: str) -> None:
        self.connection = connection
        self.table = table
        self.touched: dict[Place, _Run] = {}
        self._last: _Run | None = None

    def at(self, place: Place) -> _Run:
        """The one that a place lies in. Places come mostly in order, many in the same."""
        last = self._last
        if last is not None and last.place <= place and (last.end is None or place < last.end):
            return last
        key, identifier, count, states = self.connection.execute(
            f"SELECT key, id, count, states FROM {self.table} WHERE (key, id) <= (?, ?) "
            "ORDER BY key DESC, id DESC LIMIT 1", place,
        ).fetchone()  # fmt: skip
        found = self.touched.get((key, identifier))
        if found is None:
            after = f"SELECT key, id FROM {self.table} WHERE (key, id) > (?, ?) ORDER BY key, id LIMIT 1"
            end = self.connection.execute(after, (key, identifier)).fetchone()
            found = self.touched[key, identifier] = _Run((key, identifier), end, count, json.loads(states))
        self._last = found
        return found

    def keep(self, runs: Iterable[_Run]) -> None:
        self.connection.executemany(
            f"INSERT OR REPLACE INTO {self.table} VALUES (?, ?, ?, ?)",
            [(*run.place, run.count, json.dumps(run.states)) for run in runs],
        )

    def drop(self, places: Iterable[Place]) -> None:
        self.connection.executemany(f"DELETE FROM {self.table} WHERE key = ? AND id = ?", places)


def write(connection: sqlite3.Connection, number: int, kinds: tuple[str, ...], delta: Delta) -> None:
    """Change rows of one map function, and all that they add up to.

    Args:
        kinds: the builtin reduces whose states are kept.
    """
    low, high = _Level(connection, f"blocks_{number}"), _Level(connection, f"regions_{number}")
    delta.removed.sort(key=lambda entry: entry[:3])
    delta.added.sort(key=lambda entry: entry[:3])
    for key, identifier, _pos, text in delta.removed:
        value = None if text is None or not kinds else json.loads(text)
        low.at((key, identifier)).remove(kinds, value)
        high.at((key, identifier)).remove(kinds, value)
    for key, identifier, _pos, _k, v in delta.added:
        value = codec.loads(v) if kinds else None
        low.at((key, identifier)).add(kinds, value)
        high.at((key, identifier)).add(kinds, value)
    delete = f"DELETE FROM rows_{number} WHERE key = ? AND id = ? AND pos = ?"
    connection.executemany(delete, [entry[:3] for entry in delta.removed])
    connection.executemany(f"INSERT INTO rows_{number} VALUES (?, ?, ?, ?, ?)", delta.added)
    _settle_blocks(connection, number, kinds, low, high)
    _settle_regions(connection, number, kinds, low, high)


def _settle_blocks(
    connection: sqlite3.Connection, number: int, kinds: tuple[str, ...], low: _Level, high: _Level
) -> None:
    kept: list[_Run] = []
    gone: list[Place] = []
    for run in low.touched.values():
        region = high.at(run.place)
        if run.count == 0:
            run.states = []
            if run.place != region.place:
                gone.append(run.place)
                continue
        elif run.count > SPLIT:
            for index, piece in enumerate(_cut_rows(list(rows(connection, number, run.place, run.end)))):
                place = (piece[0].key, piece[0].id) if index else run.place
                kept.append(_Run(place, None, len(piece), _reduced(kinds, piece)))
            region.grown = True
            continue
        elif run.stale:
            run.states = _reduced(kinds, rows(connection, number, run.place, run.end))
        kept.append(run)
    low.drop(gone)
    low.keep(kept)


def _cut_rows(held: list[Row]) -> list[list[Row]]:
    """Pieces of half the limit; the rows of one document under one key stay together."""
    pieces: list[list[Row]] = [[]]
    for row in held:
        last = pieces[-1]
        if len(last) >= SPLIT // 2 and (row.key, row.id) != (last[-1].key, last[-1].id):
            pieces.append([])
        pieces[-1].append(row)
    return pieces


def _reduced(kinds: tuple[str, ...], held: Iterable[Row]) -> list[State]:
    values = [codec.loads(row.v) for row in held] if kinds else []
    return [reduce_values(kind, values) for kind in kinds]


def _settle_regions(
    connection: sqlite3.Connection, number: int, kinds: tuple[str, ...], low: _Level, high: _Level
) -> None:
    kept: list[_Run] = []
    gone: list[Place] = []
    for run in high.touched.values():
        if run.count == 0:
            run.states = []
            if run.place != FIRST:
                gone.append(run.place)
                low.drop(block.place for block in list(blocks(connection, number, run.place, run.end)))
                continue
        elif run.grown or run.stale:
            held = list(blocks(connection, number, run.place, run.end))
            size = SPLIT // 2 if len(held) > SPLIT else len(held)
            for start in range(0, len(held), size):
                piece = held[start : start + size]
                kept.append(_Run(
                    piece[0].place, None, sum(block.size for block in piece), merged(kinds, piece)
                ))  # fmt: skip
            continue
        kept.append(run)
    high.drop(gone)
    high.keep(kept)


def merged(kinds: tuple[str, ...], held: list[Block]) -> list[State]:
    """The states of a region with these blocks."""
    found: list[State] = [None] * len(kinds)
    for block in held:
        if block.size:
            found = [merge(kind, one, other) for kind, one, other in zip(kinds, found, block.states, strict=True)]
    return found
