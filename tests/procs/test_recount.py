"""A finished file is counted from its own records: every basket, at its place, or a sentence says which is not."""

from __future__ import annotations

import struct
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot

from orchestrator.errors import DataError
from procs.baskets import Trees
from procs.recount import recount
from procs.rootio import counts

ROWS = 100


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A tree of two branches with three baskets each."""
    path = tmp_path / "x.root"
    with uproot.recreate(path, compression=None) as out, Trees(out) as trees:
        tree = trees.add("t", {"a": "int32", "b": "int64"})
        for start in range(0, 3 * ROWS, ROWS):
            tree.extend({"a": np.arange(start, start + ROWS), "b": np.zeros(ROWS)})
    assert recount(path) == {"t": 3 * ROWS}
    return path


def seeks(path: Path, branch: str) -> list[int]:
    with uproot.open(path) as file:
        return [int(seek) for seek in file["t"][branch].member("fBasketSeek")[:3]]


def change(path: Path, place: int, data: bytes) -> None:
    with path.open("r+b") as stream:
        stream.seek(place)
        stream.write(data)


def test_trees_of_many_baskets_and_moved_descriptions_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "x.root"
    with uproot.recreate(path) as out:
        trees = [out.mktree(name, {"n" * 260: "int16", "x": "var * float32"}) for name in ("one", "two" * 100)]
        for number in range(25):  # uproot moves a tree's description when it has more baskets than it had room for
            for tree in trees:
                tree.extend({"n" * 260: np.ones(number + 1), "x": ak.Array([[0.5, 1.5]] * (number + 1))})
    assert recount(path) == counts(path) == {"one": 325, "two" * 100: 325}


def test_trees_that_root_has_written_are_counted_too(shared_data: Path) -> None:
    files = sorted(shared_data.glob("*.root"))
    assert files
    for path in files:
        assert recount(path) == counts(path), path


def test_a_basket_that_is_another_is_found(made: Path) -> None:
    a, b = seeks(made, "a"), seeks(made, "b")
    change(made, a[1], made.read_bytes()[b[1] : b[1] + 60])  # the head of the other branch's
    with pytest.raises(DataError, match=f"branch 'a' of the tree 't' has a basket at byte {a[1]} that is none"):
        recount(made)


def test_a_basket_that_was_never_written_is_found(made: Path) -> None:
    place = seeks(made, "b")[2]
    change(made, place, bytes(60))  # a hole in the file, as a disk that lost a write leaves it
    with pytest.raises(DataError, match=f"branch 'b' of the tree 't' has a basket at byte {place} that is none"):
        recount(made)


def test_a_basket_of_another_branch_is_found(made: Path) -> None:
    place = seeks(made, "a")[0]
    change(made, place + 34 + len(b"\x07TBasket\x01"), b"b")  # the name in its head
    with pytest.raises(DataError, match=f"branch 'a' of the tree 't' has a basket at byte {place} that is none of its"):
        recount(made)


def test_a_basket_with_other_entries_is_found(made: Path) -> None:
    place = seeks(made, "b")[0]
    key_size = struct.unpack_from(">h", made.read_bytes(), place + 14)[0]
    change(made, place + key_size - 9, struct.pack(">i", ROWS - 1))
    with pytest.raises(DataError, match=f"holds {ROWS - 1} entries, not {ROWS}. Make the file again"):
        recount(made)


def test_a_branch_with_fewer_entries_than_its_tree_is_found(made: Path) -> None:
    content = made.read_bytes()
    numbers = struct.pack(">q", 3 * ROWS)
    place = content.rindex(numbers)  # the last of the description: the entries up to the last basket of b
    for wanted in ("has baskets for 299 of 300 entries", "has 299 entries, its tree has 300"):
        changed = bytearray(content)
        changed[place : place + 8] = struct.pack(">q", 3 * ROWS - 1)
        made.write_bytes(changed)
        with pytest.raises(DataError, match=f"branch 'b' of the tree 't' {wanted}"):
            recount(made)
        place = content.rindex(numbers, 0, place)


def test_a_cut_or_damaged_file_ends_in_a_sentence(made: Path) -> None:
    content = made.read_bytes()
    for end in (0, 50, 300, len(content) // 2, len(content) - 20):
        made.write_bytes(content[:end])
        with pytest.raises(DataError, match=r"x\.root"):
            recount(made)


def test_any_byte_of_a_description_changed_is_an_error_or_the_same_count(made: Path) -> None:
    content = made.read_bytes()
    with uproot.open(made) as file:
        key = file.key("t")
        start, size = key.data_cursor.index, key.data_compressed_bytes
    for place in range(start, start + size, 3):
        changed = bytearray(content)
        changed[place] ^= 0xFF
        made.write_bytes(changed)
        try:
            assert recount(made).keys() == {"t"}
        except DataError:
            continue
