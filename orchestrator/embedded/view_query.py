"""Answers to view queries, read from an index file: rows of a map, and groups of a reduce.

Both walk over regions and their blocks (see ``view_blocks``): what lies wholly inside a group is taken from counts and
states, and only blocks in which groups meet, or which a range cuts, are read row by row. All of one answer comes from
one moment's state.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from orchestrator.embedded import codec
from orchestrator.embedded.collation import prefix
from orchestrator.embedded.view_blocks import Block, Row, blocks, regions, rows
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


class Piece(NamedTuple):
    """A region or a block that a range touches: the part of it from ``low`` to ``high``, and whether that is all."""

    block: Block
    is_region: bool
    low: Place
    high: Place
    whole: bool


class Pieces:
    """The regions and blocks of one map function, for one query."""

    def __init__(self, connection: sqlite3.Connection, number: int) -> None:
        self.connection = connection
        self.number = number
        self.regions = list(regions(connection, number))
        self.total = sum(region.size for region in self.regions)

    def before(self, place: Place) -> int:
        """How many rows lie before a place."""
        index = max(bisect_right(self.regions, place, key=_place) - 1, 0)
        count = sum(region.size for region in self.regions[:index])
        held = list(blocks(self.connection, self.number, self.regions[index].place, place))
        if not held:
            return count
        count += sum(block.size for block in held[:-1])
        query = f"SELECT COUNT(*) FROM rows_{self.number} WHERE (key, id) >= (?, ?) AND (key, id) < (?, ?)"
        return count + int(self.connection.execute(query, (*held[-1].place, *place)).fetchone()[0])

    def inside(self, start: Place, end: Place, descending: bool) -> Iterator[Piece]:
        """The regions that a range touches."""
        return _touched(self.regions, END, True, start, end, descending)

    def below(self, region: Piece, descending: bool) -> Iterator[Piece]:
        """The blocks of a region that its part touches."""
        end = self.end_of(region)
        held = list(blocks(self.connection, self.number, region.block.place, end))
        return _touched(held, end, False, region.low, region.high, descending)

    def end_of(self, region: Piece) -> Place:
        """Where a region ends."""
        index = bisect_right(self.regions, region.block.place, key=_place)
        return self.regions[index].place if index < len(self.regions) else END

    def rows(self, start: Place, end: Place, descending: bool) -> Iterator[Row]:
        return rows(self.connection, self.number, start, end, descending)


def _place(block: Block) -> Place:
    return block.place


def _touched(
    held: list[Block], last: Place, is_region: bool, start: Place, end: Place, descending: bool
) -> Iterator[Piece]:
    """Those of neighbours, the last of which ends at ``last``, that a range touches."""
    if start >= end or not held:
        return
    first = max(bisect_right(held, start, key=_place) - 1, 0)
    indexes = range(first, bisect_right(held, end, key=_place))
    for index in reversed(indexes) if descending else indexes:
        block = held[index]
        after = held[index + 1].place if index + 1 < len(held) else last
        low, high = max(start, block.place), min(end, after)
        if block.size and low < high:
            yield Piece(block, is_region, low, high, low == block.place and high == after)


def read_map(connection: sqlite3.Connection, number: int, params: Params) -> MapAnswer:
    """Return the rows that a query of a map asks for."""
    pieces = Pieces(connection, number)
    limit = pieces.total if params.limit is None else params.limit
    found: list[Row] = []
    skip = params.skip
    offset: int | None = None
    ranges = params.ranges()
    for start, end in reversed(ranges) if params.descending else ranges:
        if offset is None:
            before = pieces.total - pieces.before(end) if params.descending else pieces.before(start)
            offset = min(before + params.skip, pieces.total)
        low, high, skip = _skipped(pieces, start, end, params.descending, skip)
        if low < high and len(found) < limit:
            for row in pieces.rows(low, high, params.descending):
                if skip:
                    skip -= 1
                    continue
                if len(found) >= limit:
                    break
                found.append(row)
    return MapAnswer(pieces.total, offset or 0, found)


def _skipped(pieces: Pieces, start: Place, end: Place, descending: bool, skip: int) -> tuple[Place, Place, int]:
    """Leave out whole regions and blocks of the rows to be skipped: what is left of the range, and of these rows."""
    if not skip:
        return start, end, 0
    for region in pieces.inside(start, end, descending):
        if region.whole and skip >= region.block.size:
            skip -= region.block.size
            start, end = (start, region.low) if descending else (region.high, end)
            continue
        for block in pieces.below(region, descending):
            if not block.whole or skip < block.block.size:
                break
            skip -= block.block.size
            start, end = (start, block.low) if descending else (block.high, end)
        break
    return start, end, skip


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

    def alike(piece: Piece, after: Place) -> bytes | None:
        """What the keys of all its rows begin with, if that is the same; its last one lies before ``after``."""
        own = piece.block.place[0]
        shared = _prefix(own, level) if own else b""
        return shared if level == 0 or (own != b"" and after[0].startswith(shared)) else None

    def parts() -> Iterator[Piece]:
        """Regions and blocks as large as they can be taken whole, and parts of blocks."""
        for region in pieces.inside(start, end, descending):
            if region.whole and alike(region, region.high) is not None:
                yield region
            else:
                yield from pieces.below(region, descending)

    for piece in parts():
        low, high = piece.low, piece.high
        shared = alike(piece, high) if piece.whole else None
        if shared is not None:
            if common is None or shared != common:
                if common is not None:
                    yield finished()
                common, collector = shared, reducer()
                sample = next(pieces.rows(low, high, descending)).k
            collector.block(piece.block, partial(pieces.rows, low, high, descending))
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
