"""The entries of a finished file's trees, counted again from its own records: each basket of each branch at its place.

uproot opens the file and finds the trees. Reading a tree's description takes it a millisecond for six branches, most
of what a short file costs, and tells nothing about the baskets. So descriptions of the versions that uproot writes are
read here, and the head of every basket that they name is looked at; trees of any other version are left to uproot.

The layout: https://root.cern/doc/master/classTTree.html, classTBranch.html and classTKey.html; the first four bytes of
most objects say how long they are, so that what is of no use here is stepped over.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from orchestrator.errors import DataError
from procs.rootio import opened, trees
from procs.rootrecords import BASKET, COUNT, KEY, LONG, text

_HEAD = struct.Struct(">IH")  # bytes that follow the first four, and version
_TREE = struct.Struct(">qqqqqdiiiiIqqqqqq")  # numbers of a TTree, version 20; the eleventh counts cluster ranges
_CLUSTERS = 10
_ARRAY = struct.Struct(">ii")  # objects of a TObjArray, and the index of the first
_BRANCH = struct.Struct(">iiiiq")  # of a TBranch, version 13: compression, two sizes, baskets, entries
_MORE = struct.Struct(">iIiqqqq")  # offset, room for baskets, split level, entries, first entry, two sizes
_OBJECT = 10  # bytes of a TObject
_LENGTH = 0x3FFFFFFF  # the bits of a length
_NEW_CLASS = 0xFFFFFFFF
_NEAR = 256  # bytes that nearly every basket's key has room in


class _Branch(NamedTuple):
    name: bytes
    entries: int
    sizes: list[int]  # bytes of each basket in the file
    edges: list[int]  # entries before each basket, and in all
    seeks: list[int]


class _Unknown(Exception):
    """A version that is not read here."""


def recount(path: Path) -> dict[str, int]:
    """The number of entries of every tree in a file, and of every basket.

    Raises:
        DataError: it is not a ROOT file, is damaged, or a basket is not where and what its tree says.
        TransientError: the file system failed.
    """
    found: dict[str, int] = {}
    with opened(path) as file, path.open("rb", buffering=0) as stream:
        size, end = os.fstat(stream.fileno()).st_size, int(file.file.fEND)
        if size < end:
            raise DataError(f"{path} is cut: it has {size} bytes and says {end}. Make the file again.")
        for name in trees(file):
            key = file.key(name)
            try:
                if key.is_compressed:
                    raise _Unknown
                data = os.pread(stream.fileno(), key.data_compressed_bytes, key.data_cursor.index)
                entries, branches = _tree(data)
                words = name.rpartition("/")[2].encode("utf-8", "surrogateescape")
                faults = [(branch.name, _fault(stream.fileno(), words, entries, branch)) for branch in branches]
            except _Unknown:
                found[name] = int(file[name].num_entries)
                continue
            except (struct.error, ValueError, IndexError) as error:
                raise DataError(f"{path}: the tree {name!r} cannot be read: {error}. Make the file again.") from error
            for branch, reason in faults:
                if reason:
                    shown = branch.decode("utf-8", "replace")
                    raise DataError(f"{path}: the branch {shown!r} of the tree {name!r} {reason}. Make the file again.")
            found[name] = entries
    return found


def _end(data: bytes, at: int, version: int | None = None) -> int:
    """Where the object at ``at`` ends. Raises _Unknown if it is not of this version."""
    length, found = _HEAD.unpack_from(data, at)
    if version is not None and found != version:
        raise _Unknown
    return at + 4 + int(length & _LENGTH)


def _tree(data: bytes) -> tuple[int, list[_Branch]]:
    """The entries and the branches of a TTree."""
    _end(data, 0, version=20)
    at = _HEAD.size
    for _ in ("name", "line", "fill", "marker"):
        at = _end(data, at)
    numbers = _TREE.unpack_from(data, at)
    if numbers[_CLUSTERS]:
        raise _Unknown
    at = _end(data, at + _TREE.size + 2) + _HEAD.size + _OBJECT + 1  # no cluster ranges; features; an array's name
    count, _first = _ARRAY.unpack_from(data, at)
    return numbers[0], list(_branches(data, at + _ARRAY.size, count))


def _branches(data: bytes, at: int, count: int) -> Iterator[_Branch]:
    for _ in range(count):
        length, tag = struct.unpack_from(">II", data, at)
        after = at + 4 + (length & _LENGTH)
        at += 8
        if tag == _NEW_CLASS:
            at = data.index(b"\0", at) + 1
        _end(data, at, version=13)
        at += _HEAD.size
        name = _text(data, at + _HEAD.size + _OBJECT)
        at = _end(data, _end(data, at))  # the name and title; the colours
        baskets = _BRANCH.unpack_from(data, at)[3]
        at = _end(data, at + _BRANCH.size)
        _offset, room, _level, entries, *_ = _MORE.unpack_from(data, at)
        at += _MORE.size
        for _part in ("branches", "leaves", "baskets in memory"):
            at = _end(data, at)
        columns = []
        for kind in (">i4", ">i8", ">i8"):
            columns.append(np.frombuffer(data, kind, room, at + 1))
            at += 1 + columns[-1].nbytes
        sizes, edges, seeks = columns
        yield _Branch(name, entries, sizes[:baskets].tolist(), edges[: baskets + 1].tolist(), seeks[:baskets].tolist())
        at = after


def _text(data: bytes, at: int) -> bytes:
    """A text as ROOT writes it."""
    length, at = data[at], at + 1
    if length == LONG:
        (length,) = COUNT.unpack_from(data, at)
        at += COUNT.size
    return data[at : at + length]


def _fault(handle: int, tree: bytes, entries: int, branch: _Branch) -> str:
    """What is wrong with a branch's baskets, or nothing."""
    if branch.entries != entries:
        return f"has {branch.entries} entries, its tree has {entries}"
    held = branch.edges[-1] if len(branch.edges) == len(branch.sizes) + 1 and branch.edges[0] == 0 else 0
    if held != entries:
        return f"has baskets for {held} of {entries} entries"
    for index, (size, seek) in enumerate(zip(branch.sizes, branch.seeks, strict=True)):
        where = f"has a basket at byte {seek} that"
        head = os.pread(handle, _NEAR, seek) if seek >= 0 else b""
        if len(head) < KEY.size:
            return f"{where} lies beyond the file's end"
        length, _version, _full, _date, key, _cycle, place, _directory = KEY.unpack_from(head)
        if key > _NEAR:
            head = os.pread(handle, key, seek)
        if length != size or place != seek or len(head) < key or key < KEY.size + BASKET.size:
            return f"{where} is none"
        words = head[KEY.size : key - BASKET.size - 1]
        if words != b"\x07TBasket" + b"".join(text(word) for word in (branch.name, tree)):
            return f"{where} is none of its own"
        held = BASKET.unpack_from(head, key - BASKET.size - 1)[3]
        if held != branch.edges[index + 1] - branch.edges[index]:
            return f"{where} holds {held} entries, not {branch.edges[index + 1] - branch.edges[index]}"
    if branch.sizes and len(os.pread(handle, 1, branch.seeks[-1] + branch.sizes[-1] - 1)) < 1:
        return f"has a basket at byte {branch.seeks[-1]} that is cut"
    return ""
