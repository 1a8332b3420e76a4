"""Baskets written here are those that uproot writes: the same values, the same bookkeeping, whatever the columns."""

from __future__ import annotations

import errno
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import DataError
from orchestrator.step import Work
from procs import baskets
from procs.baskets import Column, Lists, Trees, familiar
from procs.convert import convert
from procs.recount import recount
from procs.rootio import compression, counts
from procs.simulate import simulate

FOLDER = tempfile.TemporaryDirectory(prefix="baskets-")  # for the examples of hypothesis
KINDS = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64")
Batch = dict[str, Column]


def test_the_installed_uproot_keeps_what_is_filled_in_here() -> None:
    assert familiar(), "uproot keeps other things about a tree now: procs.baskets has to learn them"


@st.composite
def trees(draw: st.DrawFn) -> tuple[dict[str, str], list[Batch]]:
    """A tree's columns, and some batches of rows."""
    kinds = st.sampled_from(["string", *KINDS, *(f"var * {kind}" for kind in KINDS if kind != "bool")])
    columns = {f"c{index}": kind for index, kind in enumerate(draw(st.lists(kinds, min_size=1, max_size=4)))}
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    batches = []
    for rows in draw(st.lists(st.integers(0, 40) | st.just(2000), max_size=3)):
        batch: Batch = {}
        for name, kind in columns.items():
            if kind == "string":
                words = draw(st.lists(st.text(max_size=8) | st.just("long" * 100), min_size=1, max_size=3))
                batch[name] = [words[index] for index in rng.integers(0, len(words), rows)]
            elif "*" in kind:
                lengths = rng.integers(0, 5, rows)
                batch[name] = Lists(values(rng, kind.split()[-1], int(lengths.sum())), lengths.astype(np.int32))
            else:
                batch[name] = values(rng, kind, rows)
        batches.append(batch)
    return columns, batches


def values(rng: np.random.Generator, kind: str, count: int) -> np.ndarray:
    """Numbers of this kind, half of them alike so that they can be compressed."""
    dtype = np.dtype(kind)
    raw = rng.integers(0, 256, (count, dtype.itemsize), dtype=np.uint8)
    raw[: count // 2] = 1
    return raw[:, 0] > 127 if kind == "bool" else np.nan_to_num(raw.reshape(-1).view(dtype))


def rows(batch: Batch) -> int:
    column = next(iter(batch.values()))
    return len(column.lengths if isinstance(column, Lists) else column)


def written(path: Path, fast: bool, squeeze: str, columns: dict[str, str], batches: list[Batch]) -> dict[str, Any]:
    """All that is in a file of one tree that was written in one of the two ways."""
    with uproot.recreate(path, compression=compression(squeeze)) as out:
        out["before"] = "a text"
        with Trees(out, fast) as made:
            tree = made.add("t", columns)
            made.add("empty", columns)
            for batch in batches:
                tree.extend(batch)
        out["after"] = "another text"
    found: dict[str, Any] = {}
    assert recount(path) == counts(path) == {"empty": 0, "t": sum(map(rows, batches))}
    with uproot.open(path) as file:
        assert file.keys(cycle=False) == ["before", "t", "empty", "after"]
        assert (file["before"], file["after"]) == ("a text", "another text")
        for name in ("t", "empty"):
            tree = file[name]
            found[name] = [tree.num_entries, *map(tree.member, ("fTotBytes", "fZipBytes"))]
            for branch in tree.branches:
                leaf = branch.member("fLeaves")[0]
                found[name, branch.name] = [
                    ak.to_list(branch.array()), branch.entry_offsets, str(branch.interpretation),
                    *map(branch.member, ("fEntries", "fTotBytes", "fZipBytes", "fEntryOffsetLen", "fWriteBasket")),
                    leaf.member("fLen"), leaf.member("fMaximum") if leaf.has_member("fMaximum") else None,
                    [{key: branch.basket(index).member(key) for key in ("fNevBufSize", "fNevBuf", "fLast", "fKeylen")}
                     for index in range(branch.num_baskets)],
                ]  # fmt: skip
    return found


@settings(max_examples=40, deadline=None)
@given(trees(), st.sampled_from(["none", "zstd-1", "lz4-1", "zlib-1"]))
def test_any_rows_are_written_as_uproot_writes_them(tree: tuple[dict[str, str], list[Batch]], squeeze: str) -> None:
    path = Path(FOLDER.name) / "x.root"
    assert written(path, True, squeeze, *tree) == written(path, False, squeeze, *tree)


def test_values_of_other_types_orders_and_strides_arrive_too(tmp_path: Path) -> None:
    table = np.arange(12, dtype=">i2").reshape(4, 3)
    with uproot.recreate(tmp_path / "x.root") as out, Trees(out) as made:
        made.add("t", {"a": "int16", "b": "float64", "c": "int32", "d": "var * int16"}).extend({
            "a": table[:, 1], "b": table[:, 2], "c": np.broadcast_to(np.int64(7), 4),
            "d": Lists(table.ravel()[::2], np.array([2, 0, 1, 3])),
        })  # fmt: skip
    with uproot.open(tmp_path / "x.root") as file:
        found = {name: ak.to_list(array) for name, array in file["t"].arrays(library="ak", how=dict).items()}
    assert found["a"] == [1, 4, 7, 10] and found["b"] == [2, 5, 8, 11] and found["c"] == [7] * 4
    assert found["d"] == [[0, 2], [], [4], [6, 8, 10]]


def test_columns_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    one = np.zeros(1, dtype=np.int32)
    with uproot.recreate(tmp_path / "x.root") as out, Trees(out) as made:
        tree = made.add("t", {"a": "int32", "b": "var * int16"})
        with pytest.raises(DataError, match="tree 't' was given columns that are not its own"):
            tree.extend({"a": one})
        with pytest.raises(DataError, match="of several lengths"):
            tree.extend({"a": one, "b": Lists(one, np.array([1, 0]))})
        with pytest.raises(DataError, match="lists of 2 values were to be written to the tree 't', but there are 1"):
            tree.extend({"a": one, "b": Lists(one, np.array([2]))})
        with pytest.raises(DataError, match=r"are too many for one basket.*Set chunk_bytes to less"):
            tree.extend({"a": np.broadcast_to(np.int32(0), 2**29), "b": Lists(one, np.zeros(2**29, dtype=np.int8))})


def test_a_basket_that_is_written_in_part_only_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.root"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(OSError) as met, uproot.recreate(path, compression=None) as out, Trees(out) as made:
        tree = made.add("t", {"a": "int64"})
        resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, hard))
        try:
            for _ in range(4):
                tree.extend({"a": np.zeros(100_000, dtype=np.int64)})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert met.value.errno == errno.EFBIG


def test_an_uproot_that_is_not_known_makes_the_same_file(
    tmp_path: Path, work: Callable[..., Work], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = simulate(tmp_path / "daq", runs=1, partitions=1, events=20, points=64, broken=0, date_runs=1, date_spills=2)
    for written in files:
        document = {"_id": written.path.name, "run_name": written.run_name, "file": str(written.path)}
        found = []
        for known in (True, False):
            monkeypatch.setattr(baskets, "familiar", lambda known=known: known)
            result = convert(document, work(written.path, chunk_bytes=5_000))
            with uproot.open(result["file"]) as file:
                contents = {
                    (name, branch.name): (branch.entry_offsets, ak.to_list(branch.array()))
                    for name in file.keys(filter_classname="TTree", cycle=False)
                    for branch in file[name].branches
                }
            found.append((result["counts"], result["entries"], contents))
        assert repr(found[0]) == repr(found[1])  # a NaN is no other NaN
