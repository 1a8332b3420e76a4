"""Answers to view queries, read from an index file: rows of a map, and groups of a reduce.

Both walk over blocks (see ``view_file``): what lies wholly inside a group is taken from the block's count and states,
and only blocks in which groups meet, or which a range cuts, are read row by row. All of one answer comes from one
moment's state.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from orchestrator.embedded import codec
from orchestrator.embedded.collation import prefix
from orchestrator.embedded.view_file import Block, Row, blocks, rows
from orchestrator.embedded.view_params import LAST_KEY, Params, Place
from orchestrator.embedded.view_reduce import State, add_value, finish, merge

Json = Any

REDUCE_AT_ONCE = 100  # rows given to a JavaScript reduce at a time, about what a node of CouchDB's tree holds
END: Place = (LAST_KEY, "")


class MapAnswer(NamedTuple):
    """Rows of a map: how many there are in the view, how many lie before the first of these, and these."""

    total: int
    offset: int
    rows: list[Row]


class Group(NamedTuple):
    """One row of a reduce: the group's key and its value."""

    key: Json
    value: Json


class Pieces:
    """The blocks of one map function, for one query."""

    def __init__(self, connection: sqlite3.Connection, number: int) -> None:
        self.connection = connection
        self.number = number
        self.blocks = list(blocks(connection, number))
        self.places = [block.place for block in self.blocks]
        self.total = sum(block.size for block in self.blocks)

    def end_of(self, index: int) -> Place:
        """Where a block ends."""
        return self.places[index + 1] if index + 1 < len(self.places) else END

    def holding(self, place: Place) -> int:
        """The number of the block that a place lies in."""
        return max(bisect_right(self.places, place) - 1, 0)

    def before(self, place: Place) -> int:
        """How many rows lie before a place."""
        index = self.holding(place)
        count = sum(block.size for block in self.blocks[:index])
        start = self.places[index]
        if start < place:
            query = f"SELECT COUNT(*) FROM rows_{self.number} WHERE (key, id) >= (?, ?) AND (key, id) < (?, ?)"
            count += self.connection.execute(query, (*start, *place)).fetchone()[0]
        return count

    def inside(self, start: Place, end: Place, descending: bool) -> Iterator[tuple[Block, Place, Place]]:
        """The blocks that a range touches, each with the part of it that lies in the range."""
        if start >= end:
            return
        first, last = self.holding(start), self.holding(end)
        indexes = range(first, last + 1)
        for index in reversed(indexes) if descending else indexes:
            block = self.blocks[index]
            low, high = max(start, block.place), min(end, self.end_of(index))
            if block.size and low < high:
                yield block, low, high

    def rows(self, start: Place, end: Place, descending: bool) -> Iterator[Row]:
        return rows(self.connection, self.number, start, end, descending)


def read_map(connection: sqlite3.Connection, number: int, params: Params) -> MapAnswer:
    """Return the rows that a query of a map asks for."""
    pieces = Pieces(connection, number)
    limit = pieces.total if params.limit is None else params.limit
    skip = params.skip
    found: list[Row] = []
    offset: int | None = None
    ranges = params.ranges()
    for start, end in reversed(ranges) if params.descending else ranges:
        if offset is None:
            before = pieces.total - pieces.before(end) if params.descending else pieces.before(start)
            offset = min(before + params.skip, pieces.total)
        for block, low, high in pieces.inside(start, end, params.descending):
            if len(found) >= limit:
                break
            whole = low == block.place and (high >= END or high in pieces.places)
            if whole and skip >= block.size:
                skip -= block.size
                continue
            for row in pieces.rows(low, high, params.descending):
                if skip:
                    skip -= 1
                    continue
                if len(found) >= limit:
                    break
                found.append(row)
    return MapAnswer(pieces.total, offset or 0, found)


class Reducer:
    """Collects the rows and blocks of one group. This one is ``_count``."""

    def __init__(self) -> None:
        self.count = 0

    def row(self, row: Row) -> None:
        """Take in one row."""
        self.count += 1

    def block(self, block: Block, load: Callable[[], Iterator[Row]]) -> None:
        """Take in a whole block; ``load`` reads its rows if the block's states do not say enough."""
        self.count += block.size

    def result(self) -> Json:
        """What the group reduces to."""
        return self.count


class StateReducer(Reducer):
    """``_sum`` and ``_stats``: adds up states, at place ``index`` of each block's."""

    def __init__(self, kind: str, index: int) -> None:
        super().__init__()
        self.kind = kind
        self.index = index
        self.state: State = None

    def row(self, row: Row) -> None:
        self.state = add_value(self.kind, self.state, codec.loads(row.v))

    def block(self, block: Block, load: Callable[[], Iterator[Row]]) -> None:
        self.state = merge(self.kind, self.state, block.states[self.index])

    def result(self) -> Json:
        return finish(self.kind, self.state)


class DistinctReducer(Reducer):
    """``_approx_count_distinct``, exactly: rows come in key order, so that a new key differs from the last."""

    def __init__(self) -> None:
        super().__init__()
        self.last: bytes | None = None

    def row(self, row: Row) -> None:
        if row.key != self.last:
            self.last = row.key
            self.count += 1

    def block(self, block: Block, load: Callable[[], Iterator[Row]]) -> None:
        for row in load():
            self.row(row)


class ScriptReducer(Reducer):
    """A JavaScript reduce: pieces of some rows each, and then reductions of reductions.

    Args:
        call: runs the function on (keys or None, values, rereduce).
    """

    def __init__(self, call: Callable[[Json, list[Json], bool], Json]) -> None:
        super().__init__()
        self.call = call
        self.keys: list[Json] = []
        self.values: list[Json] = []
        self.reduced: list[Json] = []

    def row(self, row: Row) -> None:
        self.keys.append([codec.loads(row.k), row.id])
        self.values.append(codec.loads(row.v))
        if len(self.values) >= REDUCE_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        if self.values:
            self.reduced.append(self.call(self.keys, self.values, False))
            self.keys, self.values = [], []
        if len(self.reduced) >= REDUCE_AT_ONCE:
            self.reduced = [self.call(None, self.reduced, True)]

    def block(self, block: Block, load: Callable[[], Iterator[Row]]) -> None:
        for row in load():
            self.row(row)

    def result(self) -> Json:
        self._flush()
        return self.reduced[0] if len(self.reduced) == 1 else self.call(None, self.reduced, True)


def read_reduce(
    connection: sqlite3.Connection, number: int, params: Params, reducer: Callable[[], Reducer]
) -> list[Group]:
    """Return the groups that a query of a reduce asks for.

    Args:
        reducer: makes the collector of one group.
    """
    pieces = Pieces(connection, number)
    level = params.group_level
    wanted = None if params.limit is None else params.skip + params.limit
    groups: list[Group] = []
    if params.limit == 0:
        return groups
    for start, end in params.ranges():
        for group in _groups(pieces, start, end, params.descending, level, reducer):
            groups.append(group)
            if len(groups) == wanted:
                return groups[params.skip :]
    return groups[params.skip :]


def _groups(
    pieces: Pieces, start: Place, end: Place, descending: bool, level: int | None, reducer: Callable[[], Reducer]
) -> Iterator[Group]:
    """The groups of a range, one after the other; nothing is read beyond the one that is asked for."""
    common: bytes | None = None  # what the keys of the group under way begin with
    sample = "null"  # JSON of one of its keys
    collector = reducer()

    def finished() -> Group:
        return Group(_shortened(codec.loads(sample), level), collector.result())

    for block, low, high in pieces.inside(start, end, descending):
        own = block.place[0]
        after = pieces.end_of(pieces.holding(block.place))
        shared = _prefix(own, level) if own else b""
        # all rows of a block lie between its own place and the next one's
        alike = level == 0 or (own != b"" and after[0].startswith(shared))
        if alike and low == block.place and high == after:
            if common is None or shared != common:
                if common is not None:
                    yield finished()
                common, collector = shared, reducer()
                sample = next(pieces.rows(low, high, descending)).k
            collector.block(block, partial(pieces.rows, low, high, descending))
            continue
        for row in pieces.rows(low, high, descending):
            if common is None or not row.key.startswith(common):
                if common is not None:
                    yield finished()
                common, sample, collector = _prefix(row.key, level), row.k, reducer()
            collector.row(row)
    if common is not None:
        yield finished()


def _prefix(key: bytes, level: int | None) -> bytes:
    return key if level is None else prefix(key, level)


def _shortened(key: Json, level: int | None) -> Json:
    if level is None:
        return key
    if level == 0:
        return None
    return key[:level] if isinstance(key, list) else key
