"""The index under the views: it must be at every moment what a rebuild from scratch would give."""

from __future__ import annotations

import itertools
import json
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.embedded import codec, view_blocks, view_file
from orchestrator.embedded.collation import prefix, sort_key
from orchestrator.embedded.problems import Problem
from orchestrator.embedded.view_blocks import blocks, regions, rows
from orchestrator.embedded.view_index import Definition, ViewIndex
from orchestrator.embedded.view_params import Params
from orchestrator.embedded.view_query import DistinctReducer, Reducer, StateReducer, read_map, read_reduce
from orchestrator.embedded.view_reduce import finish, reduce_values

DDOC: dict[str, Any] = {
    "_id": "_design/x",
    "views": {
        "a": {"map": "first", "reduce": "_sum"},
        "b": {"map": "first", "reduce": "_stats"},
        "c": {"map": "first", "reduce": "_count"},
        "d": {"map": "second"},
    },
}


class Change:
    """A row of the changes, as a database gives it."""

    def __init__(self, seq: int, identifier: str, doc: dict[str, Any] | None) -> None:
        self.seq = seq
        self.id = identifier
        self.deleted = doc is None
        self.doc = doc
        self.leaves = 1

    def render(self, extra: list[tuple[str, bytes]] | None = None) -> bytes:
        return codec.dumps({"_id": self.id, **(self.doc or {})})

    def revision_tree(self) -> Any:
        raise AssertionError("a document without conflicts is not asked for its tree")


class FakeDatabase:
    """A database in memory; documents say themselves what each map emits for them."""

    def __init__(self, folder: Path) -> None:
        self.name = "d"
        self.folder = folder
        self.token = "t"
        self.changes: dict[str, Change] = {}
        self.seq = 0

    def put(self, identifier: str, doc: dict[str, Any] | None) -> None:
        self.seq += 1
        self.changes[identifier] = Change(self.seq, identifier, doc)

    def update_seq(self) -> int:
        return self.seq

    def changes_rows(self, since: int, limit: int, *, bodies: bool) -> list[Change]:
        found = sorted((change for change in self.changes.values() if change.seq > since), key=lambda c: c.seq)
        return found[:limit]

    def emitted(self, which: str) -> list[tuple[bytes, str, Any, Any]]:
        """All rows of one map in order, by brute force."""
        found = [
            (sort_key(key), change.id, key, value)
            for change in self.changes.values()
            if change.doc is not None and not change.id.startswith("_design/")
            for key, value in change.doc.get(which, [])
        ]
        return sorted(found, key=lambda row: row[:2])


def mapper(texts: list[str]) -> Any:
    """What the two maps emit: the lists under their names."""
    docs = [json.loads(text) for text in texts]
    return [[doc.get("first", []), doc.get("second", [])] for doc in docs]


def make(db: FakeDatabase) -> ViewIndex:
    return ViewIndex(db, Definition(DDOC), mapper)


@pytest.fixture
def db(tmp_path: Path) -> FakeDatabase:
    return FakeDatabase(tmp_path)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_blocks, "SPLIT", 6)


def content(index: ViewIndex, number: int = 0) -> list[tuple[bytes, str, Any, Any]]:
    with index.file.reading() as connection:
        return [
            (row.key, row.id, json.loads(row.k), json.loads(row.v))
            for row in rows(connection, number, (b"", ""), None)
        ]


def check_blocks(index: ViewIndex) -> None:
    """Every block holds as many rows as it says, and what they reduce to."""
    for number, kinds in enumerate(index.definition.kinds):
        with index.file.reading() as connection:
            found = list(blocks(connection, number))
            assert found[0].place == (b"", "")
            for block, following in zip(found, [*found[1:], None], strict=True):
                inside = list(rows(connection, number, block.place, following.place if following else None))
                assert block.size == len(inside)
                if inside and kinds:
                    values = [json.loads(row.v) for row in inside]
                    assert block.states == [reduce_values(kind, values) for kind in kinds]
            places = {block.place for block in found}
            above = list(regions(connection, number))
            assert above[0].place == (b"", "")
            for region, following in zip(above, [*above[1:], None], strict=True):
                held = list(blocks(connection, number, region.place, following.place if following else None))
                assert region.place in places
                assert len(held) <= view_blocks.SPLIT
                assert region.size == sum(block.size for block in held)
                if region.size:
                    assert region.states == view_blocks.merged(kinds, held)


keys = st.one_of(st.none(), st.integers(0, 3), st.sampled_from(["a", "B", "é", "\x00"])) | st.lists(
    st.integers(0, 2), max_size=3
)
whole = st.integers(-(10**18), 10**18) | st.integers(0, 5)
pairs = st.lists(st.tuples(keys, whole), max_size=4)
documents = st.none() | st.fixed_dictionaries({"first": pairs, "second": pairs})
writes = st.lists(st.tuples(st.sampled_from([f"d{number}" for number in range(12)]), documents), max_size=25)


@settings(max_examples=40, deadline=None)
@given(st.lists(writes, min_size=1, max_size=5))
def test_after_any_updates_it_is_what_a_rebuild_gives(rounds: list[list[tuple[str, Any]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        db = FakeDatabase(Path(folder))
        index = make(db)
        for batch in rounds:
            for identifier, doc in batch:
                db.put(identifier, doc)
            assert index.update() == db.seq
            check_blocks(index)
        for number, which in enumerate(("first", "second")):
            expected = [(row[0], row[1], row[3]) for row in db.emitted(which)]
            assert [(row[0], row[1], row[3]) for row in content(index, number)] == expected
        index.close()


ranges = st.fixed_dictionaries(
    {},
    optional={
        "startkey": keys, "endkey": keys, "descending": st.booleans(), "inclusive_end": st.booleans(),
        "limit": st.integers(0, 5), "skip": st.integers(0, 8), "startkey_docid": st.sampled_from(["d3", "d7"]),
        "endkey_docid": st.sampled_from(["d3", "d7"]),
    },
)  # fmt: skip


def select(db: FakeDatabase, params: Params) -> list[tuple[bytes, str, Any, Any]]:
    """The rows of a range by brute force, in the order asked."""
    found = db.emitted("first")
    given = vars(params)
    if params.descending:
        found.reverse()
    kept = []
    for row in found:
        sign = -1 if params.descending else 1
        if "startkey" in given and not isinstance(params.startkey, type(Params().startkey)):
            start = (sort_key(params.startkey), params.startkey_docid)
            order = (row[0] > start[0]) - (row[0] < start[0])
            if order * sign < 0:
                continue
            if order == 0 and start[1] is not None and (row[1] < start[1] if sign > 0 else row[1] > start[1]):
                continue
        if not isinstance(params.endkey, type(Params().endkey)):
            end = (sort_key(params.endkey), params.endkey_docid)
            order = (row[0] > end[0]) - (row[0] < end[0])
            if order * sign > 0 or (order == 0 and end[1] is None and not params.inclusive_end):
                continue
            if order == 0 and end[1] is not None:
                beyond = row[1] > end[1] if sign > 0 else row[1] < end[1]
                if beyond or (row[1] == end[1] and not params.inclusive_end):
                    continue
        kept.append(row)
    return kept


def upside_down(params: Params) -> bool:
    try:
        params.ranges()
    except Problem:
        return True
    return False


data = st.lists(st.tuples(st.sampled_from([f"d{number}" for number in range(10)]), documents), min_size=5, max_size=30)


@settings(max_examples=150, deadline=None)
@given(data, ranges)
def test_any_range_of_a_map_is_what_brute_force_gives(
    written: list[tuple[str, Any]], given_range: dict[str, Any]
) -> None:
    params = Params(**given_range)
    if upside_down(params):
        return
    with tempfile.TemporaryDirectory() as folder:
        db = FakeDatabase(Path(folder))
        index = make(db)
        for identifier, doc in written:
            db.put(identifier, doc)
        index.update()
        with index.file.reading() as connection:
            answer = read_map(connection, 0, params)
        index.close()
    expected = select(db, params)
    stop = None if params.limit is None else params.skip + params.limit
    found = [(row.key, row.id) for row in answer.rows]
    # equal keys of one document come in either order when read downwards
    assert found == [row[:2] for row in expected[params.skip : stop]]
    assert answer.total == len(db.emitted("first"))


def test_every_range_over_many_blocks(db: FakeDatabase) -> None:
    index = make(db)
    for number in range(60):
        db.put(f"d{number:02d}", {"first": [(number // 3, number)]})
    index.update()
    choices = itertools.product(
        ({}, {"startkey": 4}, {"startkey": 7, "startkey_docid": "d22"}),
        ({}, {"endkey": 7}, {"endkey": 12, "endkey_docid": "d37"}, {"endkey": 4}),
        (False, True), (False, True), (0, 1, 5, 11, 100), (None, 0, 2, 9),
    )  # fmt: skip
    with index.file.reading() as connection:
        for start, end, descending, inclusive, skip, limit in choices:
            params = Params(
                **start, **end, descending=descending, inclusive_end=inclusive, skip=skip, limit=limit
            )
            if upside_down(params):
                continue
            expected = select(db, params)
            stop = None if limit is None else skip + limit
            answer = read_map(connection, 0, params)
            assert [row.id for row in answer.rows] == [row[1] for row in expected[skip:stop]], params
            assert answer.total == 60
            if answer.rows:
                ordered = sorted(db.emitted("first"), key=lambda row: row[:2], reverse=descending)
                assert answer.offset == [row[1] for row in ordered].index(answer.rows[0].id), params
            sums = read_reduce(connection, 0, Params(**{**vars(params), "skip": 0, "limit": None}), REDUCERS["_sum"])
            assert [group.value for group in sums] == ([sum(row[3] for row in expected)] if expected else []), params


REDUCERS: dict[str, Callable[[], Reducer]] = {
    "_sum": lambda: StateReducer("_sum", 1),
    "_stats": lambda: StateReducer("_stats", 0),
    "_count": Reducer,
    "_approx_count_distinct": DistinctReducer,
}


@settings(max_examples=150, deadline=None)
@given(data, ranges, st.sampled_from(sorted(REDUCERS)), st.sampled_from([0, 1, 2, None]))
def test_any_reduce_is_what_brute_force_gives(
    written: list[tuple[str, Any]], given_range: dict[str, Any], kind: str, level: int | None
) -> None:
    params = Params(**given_range, level=level, group=level is None or None)
    if upside_down(params):
        return
    with tempfile.TemporaryDirectory() as folder:
        db = FakeDatabase(Path(folder))
        index = make(db)
        half = len(written) // 2
        for part in (written[:half], written[half:]):
            for identifier, doc in part:
                db.put(identifier, doc)
            index.update()
        with index.file.reading() as connection:
            found = read_reduce(connection, 0, params, REDUCERS[kind])
        index.close()
    groups: dict[bytes, list[tuple[bytes, str, Any, Any]]] = {}
    for row in select(db, params):
        groups.setdefault(row[0] if level is None else prefix(row[0], level), []).append(row)
    expected = []
    for members in groups.values():
        values = [row[3] for row in members]
        if kind == "_count":
            expected.append(len(members))
        elif kind == "_approx_count_distinct":
            expected.append(len({row[0] for row in members}))
        else:
            expected.append(finish(kind, reduce_values(kind, values)))
    stop = None if params.limit is None else params.skip + params.limit
    assert [group.value for group in found] == expected[params.skip : stop]


def test_definition_puts_kinds_in_order() -> None:
    assert Definition(DDOC).kinds == [("_stats", "_sum"), ()]


def test_minimum_is_found_again_when_it_goes(db: FakeDatabase) -> None:
    index = make(db)
    for number in range(20):
        db.put(f"d{number:02d}", {"first": [(0, number), (0, 1000 - number)]})
    index.update()
    for number in range(10):
        db.put(f"d{number:02d}", None)
    index.update()
    with index.file.reading() as connection:
        found = read_reduce(connection, 0, Params(), REDUCERS["_stats"])[0].value
    assert (found["min"], found["max"], found["count"]) == (10, 990, 20)


def test_sums_of_fractions_forget_what_is_gone(db: FakeDatabase) -> None:
    index = make(db)
    db.put("a", {"first": [(0, 1e300)]})
    db.put("b", {"first": [(0, 0.25)]})
    index.update()
    db.put("a", None)
    index.update()
    with index.file.reading() as connection:
        assert read_reduce(connection, 0, Params(), REDUCERS["_sum"])[0].value == 0.25


def test_values_that_cannot_be_summed_show_an_error_until_they_go(db: FakeDatabase) -> None:
    index = make(db)
    db.put("a", {"first": [(0, "text")]})
    db.put("b", {"first": [(0, 5)]})
    index.update()
    with index.file.reading() as connection:
        assert read_reduce(connection, 0, Params(), REDUCERS["_sum"])[0].value["error"] == "builtin_reduce_error"
        with pytest.raises(Problem, match="_stats function requires"):
            read_reduce(connection, 0, Params(), REDUCERS["_stats"])
    db.put("a", None)
    index.update()
    with index.file.reading() as connection:
        assert read_reduce(connection, 0, Params(), REDUCERS["_sum"])[0].value == 5


def test_a_large_range_reads_few_rows(db: FakeDatabase) -> None:
    class Counting(Reducer):
        read = 0

        def row(self, row: Any) -> None:
            Counting.read += 1
            super().row(row)

    index = make(db)
    for number in range(2000):
        db.put(f"d{number:04d}", {"first": [([number // 500, number], 1)]})
    index.update()
    with index.file.reading() as connection:
        assert read_reduce(connection, 0, Params(), Counting)[0].value == 2000
        assert [group.value for group in read_reduce(connection, 0, Params(level=1), Counting)] == [500] * 4
        part = read_reduce(connection, 0, Params(startkey=[0, 10], endkey=[3, 1990]), Counting)
    assert part[0].value == 1981
    assert Counting.read < 15 * view_blocks.SPLIT


def test_unchanged_rows_are_left_alone(db: FakeDatabase) -> None:
    index = make(db)
    db.put("a", {"first": [(1, 1)], "second": [(1, 1)], "n": 1})
    index.update()
    before = index.file._writer.total_changes
    db.put("a", {"first": [(1, 1)], "second": [(1, 1)], "n": 2})
    index.update()
    # what the document emitted, as remembered, and the sequence; no row and no block
    assert index.file._writer.total_changes - before == 2


# Crashes and files that are not what they should be


def test_a_failure_in_the_middle_changes_nothing(db: FakeDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    index = make(db)
    for number in range(30):
        db.put(f"d{number:02d}", {"first": [(number, number)], "second": [(number, 0)]})
    index.update()
    before = content(index), content(index, 1)
    write = view_blocks.write

    def fail(connection: Any, number: int, kinds: Any, delta: Any) -> None:
        write(connection, number, kinds, delta)
        if number == 1:
            raise sqlite3.OperationalError("disk full")

    for number in range(0, 30, 2):
        db.put(f"d{number:02d}", {"first": [(-number, number)], "second": []})
    monkeypatch.setattr(view_file, "write", fail)
    with pytest.raises(Problem, match=r"cannot be written \(disk full\)"):
        index.update()
    assert (content(index), content(index, 1)) == before
    assert index.file.seq == 30
    monkeypatch.setattr(view_file, "write", write)
    index.update()
    check_blocks(index)
    assert [row[:2] for row in content(index)] == [row[:2] for row in db.emitted("first")]


def test_what_is_written_is_there_after_reopening(db: FakeDatabase) -> None:
    index = make(db)
    db.put("a", {"first": [(1, 1)]})
    index.update()
    again = make(db)  # as after a kill: nothing was closed
    assert again.file.seq == 1
    assert content(again) == content(index)
    index.close()
    again.close()


def test_another_incarnation_of_the_database_begins_anew(db: FakeDatabase) -> None:
    index = make(db)
    db.put("a", {"first": [(1, 1)]})
    index.update()
    index.close()
    db.token = "other"
    assert make(db).file.seq == 0


def test_an_index_ahead_of_its_database_begins_anew(db: FakeDatabase) -> None:
    index = make(db)
    for name in "ab":
        db.put(name, {"first": [(1, 1)]})
    index.update()
    index.close()
    db.changes.pop("b")
    db.seq = 1
    index = make(db)
    index.update()
    assert [row[1] for row in content(index)] == ["a"]


@pytest.mark.parametrize("garbage", [b"", b"not a database at all" * 100])
def test_a_file_that_is_no_index_is_made_anew(db: FakeDatabase, garbage: bytes) -> None:
    path = ViewIndex.path_of(db, Definition(DDOC))
    path.write_bytes(garbage)
    db.put("a", {"first": [(1, 1)]})
    index = make(db)
    index.update()
    assert len(content(index)) == 1


def test_design_documents_are_indexed_only_if_asked(db: FakeDatabase) -> None:
    db.put("_design/y", {"first": [(1, 1)]})
    index = make(db)
    assert index.update() == 1
    assert content(index) == []
    wanted = Definition({**DDOC, "options": {"include_design": True}})
    index = ViewIndex(db, wanted, mapper)
    index.update()
    assert len(content(index)) == 1


def test_equal_keys_of_one_document_are_all_kept(db: FakeDatabase) -> None:
    index = make(db)
    db.put("a", {"first": [(1, 1), (1, 1), (1, 2)] * 10})
    index.update()
    assert sorted(row[3] for row in content(index)) == [1] * 20 + [2] * 10
    db.put("a", {"first": [(1, 2), (1, 1)]})
    index.update()
    assert [row[3] for row in content(index)] == [2, 1]
    check_blocks(index)


# Definitions


def test_the_signature_is_of_what_the_views_do() -> None:
    same = Definition({**DDOC, "_id": "_design/staging", "_rev": "5-x", "filters": {"f": "function () {}"}})
    assert same.signature == Definition(DDOC).signature
    renamed = {"views": {"other": DDOC["views"]["a"], "b": DDOC["views"]["b"], "d": DDOC["views"]["d"]}}
    assert Definition(renamed).signature == Definition(DDOC).signature
    for other in (
        {**DDOC, "options": {"include_design": True}},
        {**DDOC, "views": {**DDOC["views"], "lib": {"a": "exports.a = 1"}}},
        {**DDOC, "views": {**DDOC["views"], "e": {"map": "third"}}},
        {**DDOC, "views": {**DDOC["views"], "e": {"map": "second", "reduce": "_sum"}}},
        {**DDOC, "language": "query"},
    ):
        assert Definition(other).signature != Definition(DDOC).signature


@pytest.mark.parametrize(
    "ddoc",
    [
        {"language": "erlang"}, {"views": [1]}, {"views": {"v": {"map": "m", "reduce": "_top_5"}}},
        {"options": {"local_seq": True}}, {"options": {"collation": "raw"}},
    ],
)  # fmt: skip
def test_what_is_not_supported_says_so(ddoc: dict[str, Any]) -> None:
    with pytest.raises(Problem) as caught:
        Definition(ddoc)
    assert caught.value.status in (400, 501)
    assert caught.value.reason
