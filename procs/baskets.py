"""Trees filled from arrays as they lie in memory: uproot makes a tree's description, its baskets are written here.

uproot's ``extend`` copies each array four times on its way to the file and writes the tree's description anew after
each piece. Here each value is put into the file's byte order once, in the buffer that is then compressed or written,
and the description is written at the end, when the number of baskets is known. The bytes of a basket are the same.

    with uproot.recreate(path) as out:
        with Trees(out) as trees:
            pulses = trees.add("pulses", {"channel": "int32", "trace": "var * int16"})
            pulses.extend({"channel": channels, "trace": Lists(samples, lengths)})

For that, what uproot keeps about a tree that is being written must be what it was when this was written; where it is
not, the trees go through ``extend`` (:func:`familiar`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from io import BytesIO
from types import TracebackType
from typing import Any, NamedTuple

import awkward as ak
import numpy as np
import uproot
from numpy.typing import NDArray

from orchestrator.errors import DataError
from procs.rootio import branches
from procs.rootrecords import BASKET, COUNT, KEY, text

_KEY_VERSION = 1004  # of a key with seeks of eight bytes
_BASKET_VERSION = 3
_BUFFER = 32_000  # the buffer size that uproot writes; readers ignore it
_TEXT_SIZE = 1000  # what uproot writes for texts, whose entries have no size of their own
_ROOM = 10  # places of baskets that ROOT gives a branch at least
_LARGEST = 2**31 - 1  # bytes of a basket: its sizes have four bytes and a sign

# What uproot keeps about a tree and about each of its branches while it writes them.
_TREE = """
    _directory _name _title _freesegments _counter_name _field_name _basket_capacity _resize_factor
    _has_unsupported_branches _has_divergent_baskets _needs_relocation_before_extend _branch_data _branch_lookup
    _num_entries _num_baskets _metadata_start _metadata _key
"""
_BRANCH = """
    fName branch_type kind counter dtype shape fTitle compression fBasketSize fEntryOffsetLen fOffset fSplitLevel
    fFirstEntry fTotBytes fZipBytes fBasketBytes fBasketEntry fBasketSeek arrays_write_start arrays_write_stop
    metadata_start basket_metadata_start tleaf_reference_number tleaf_maximum_value tleaf_special_struct
"""


class Lists(NamedTuple):
    """A column whose rows are lists: their values one after the other, and the length of each."""

    content: NDArray[Any]
    lengths: NDArray[Any]


Column = NDArray[Any] | Lists | Sequence[str]


@lru_cache(maxsize=1)
def familiar() -> bool:
    """Whether the installed uproot keeps about a tree what :class:`Trees` fills in."""
    kinds = {"number": "int32", "text": "string", "list": "var * int16"}
    try:
        with uproot.recreate(BytesIO()) as out:
            tree = out.mktree("t", branches(kinds), initial_basket_capacity=2)._cascading
            segments = out._cascading.freesegments
            return (
                vars(tree).keys() == set(_TREE.split())
                and all(data.keys() == set(_BRANCH.split()) for data in tree._branch_data)
                and [data["fName"] for data in tree._branch_data] == ["number", "text", "nlist", "list"]
                and callable(tree.write_updates)
                and segments.allocate(8, dry_run=True) > 0
                and out._cascading.key.location > 0
            )
    except (AttributeError, KeyError, TypeError):
        return False


class Trees:
    """The trees of a file that uproot writes. A context manager inside that of the file: its end writes what the trees
    are; the file has no other writer until then.

    Args:
        out: a file of ``uproot.recreate``, by its path.
        fast: False lets uproot write the baskets too.
    """

    def __init__(self, out: Any, fast: bool | None = None) -> None:
        self._out = out
        self._fast = familiar() if fast is None else fast
        self._trees: list[_Tree] = []
        self._handle = -1

    def __enter__(self) -> Trees:
        if self._fast:
            self._out.file.sink.flush()
            self._handle = os.open(self._out.file_path, os.O_WRONLY | os.O_CLOEXEC)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle >= 0:
            os.close(self._handle)
        if kind is None:
            for tree in self._trees:
                tree.describe(self._out)

    def add(self, name: str, columns: Mapping[str, str]) -> _Tree | _Plain:
        """A tree with these branches (name: type, as ``int32``, ``string`` or ``var * int16``)."""
        if not self._fast:
            return _Plain(self._out.mktree(name, branches(columns)))
        root = self._out._cascading
        tree = _Tree(self._handle, name, columns, self._out.compression, root.freesegments, root.key.location)
        self._trees.append(tree)
        return tree


class _Plain:
    """A tree that uproot fills."""

    def __init__(self, tree: Any) -> None:
        self._tree = tree

    def extend(self, columns: Mapping[str, Column]) -> None:
        """Add rows."""
        if not any(map(_rows, columns.values())):
            return  # uproot does not know what a list without texts is
        rows: dict[str, Any] = {}
        for name, column in columns.items():
            if isinstance(column, Lists):
                rows[name] = ak.unflatten(column.content, column.lengths)
            else:
                rows[name] = column if isinstance(column, np.ndarray) else ak.Array(list(column))
        self._tree.extend(rows)


class _Branch:
    """A branch and the baskets that it has."""

    def __init__(self, tree: str, name: str, kind: Any) -> None:
        self.kind = kind  # dtype of the values in the file, None for texts
        # The object's class, name and title, as ROOT writes texts, and the byte at the end of a basket's key.
        self.words = b"".join(_text(word) for word in ("TBasket", name, tree))
        self.key_size = KEY.size + len(self.words) + BASKET.size + 1
        self.bytes: list[int] = []
        self.seeks: list[int] = []
        self.total = 0
        self.offsets = 0  # bytes of the last basket's offsets
        self.largest = 0  # value of a counter, bytes of a text


class _Tree:
    """A tree whose baskets are written here, by one thread at a time."""

    def __init__(
        self, handle: int, name: str, columns: Mapping[str, str], compression: Any, segments: Any, directory: int
    ) -> None:
        self._handle = handle
        self._name = name
        self._columns = columns
        self._compression = compression
        self._segments = segments
        self._directory = directory
        self._branches: dict[str, _Branch] = {}
        for column, kind in columns.items():
            if "*" in kind:
                self._branches[f"n{column}"] = _Branch(name, f"n{column}", np.dtype(">i4"))
            value = None if kind == "string" else np.dtype(kind.rpartition("* ")[2]).newbyteorder(">")
            self._branches[column] = _Branch(name, column, value)
        self._entries = [0]
        self._buffer = np.empty(0, dtype=np.uint8)

    def extend(self, columns: Mapping[str, Column]) -> None:
        """Add rows: one basket to each branch, none for no rows.

        Raises:
            DataError: the columns differ in length, or one is too large for a basket.
            OSError: writing failed.
        """
        sizes = {_rows(column) for column in columns.values()}
        if columns.keys() != self._columns.keys() or len(sizes) != 1:
            raise DataError(f"the tree {self._name!r} was given columns that are not its own, or of several lengths")
        if sizes == {0}:
            return
        now = datetime.now()
        date = (now.year - 1995) << 26 | now.month << 22 | now.day << 17
        date |= now.hour << 12 | now.minute << 6 | now.second
        for name, column in columns.items():
            branch = self._branches[name]
            if isinstance(column, Lists):
                counter = self._branches[f"n{name}"]
                self._numbers(counter, column.lengths, date)
                counter.largest = max(counter.largest, int(column.lengths.max(initial=0)))
                self._lists(branch, column, date)
            elif isinstance(column, np.ndarray):
                self._numbers(branch, column, date)
            else:
                self._texts(branch, column, date)
        self._entries.append(self._entries[-1] + sizes.pop())

    def _room(self, size: int) -> NDArray[np.uint8]:
        """The buffer, with room for so many bytes. Kept: memory that is new costs more than what is done in it."""
        if size > _LARGEST:
            raise DataError(
                f"{size} bytes of the tree {self._name!r} are too many for one basket, which holds {_LARGEST}. Set "
                "chunk_bytes to less."
            )
        if len(self._buffer) < size:
            self._buffer = np.empty(size + size // 8, dtype=np.uint8)
        return self._buffer[:size]

    def _numbers(self, branch: _Branch, values: NDArray[Any], date: int) -> None:
        item = branch.kind.itemsize
        data = self._room(item * len(values))
        np.copyto(data.view(branch.kind), values, casting="unsafe")
        self._write(branch, data, item, len(values), branch.key_size + len(data), date)

    def _lists(self, branch: _Branch, column: Lists, date: int) -> None:
        item = branch.kind.itemsize
        end = item * len(column.content)
        offsets = np.zeros(len(column.lengths) + 1, dtype=np.int64)
        np.cumsum(column.lengths, out=offsets[1:])
        if offsets[-1] != len(column.content):
            raise DataError(
                f"lists of {offsets[-1]} values were to be written to the tree {self._name!r}, but there are "
                f"{len(column.content)}"
            )
        data = self._room(end + COUNT.size + 4 * len(offsets))
        np.copyto(data[:end].view(branch.kind), column.content, casting="unsafe")
        last = self._offsets(branch, data, end, offsets * item)
        self._write(branch, data, len(offsets) + 1, len(offsets) - 1, last, date)

    def _texts(self, branch: _Branch, texts: Sequence[str], date: int) -> None:
        known = {one: _text(one) for one in set(texts)}
        words = [known[one] for one in texts]
        offsets = np.zeros(len(words) + 1, dtype=np.int64)
        np.cumsum([len(word) for word in words], out=offsets[1:])
        content = b"".join(words)
        end = len(content)
        data = self._room(end + COUNT.size + 4 * len(offsets))
        data[:end] = np.frombuffer(content, dtype=np.uint8)
        last = self._offsets(branch, data, end, offsets)
        data[-4:] = 0
        branch.largest = max(branch.largest, max(map(len, known.values()), default=0))
        self._write(branch, data, _TEXT_SIZE, len(words), last, date)

    def _offsets(self, branch: _Branch, data: NDArray[np.uint8], end: int, offsets: NDArray[np.int64]) -> int:
        """Put the offsets, which count from the key's first byte, behind the values; the last of them."""
        data[end : end + COUNT.size].view(">u4")[0] = len(offsets)
        np.add(offsets, branch.key_size, out=data[end + COUNT.size :].view(">i4"), casting="unsafe")
        branch.offsets = 4 * (len(offsets) - 1)
        return branch.key_size + int(offsets[-1])

    def _write(self, branch: _Branch, data: NDArray[np.uint8], item: int, entries: int, last: int, date: int) -> None:
        """Write one basket. ``item`` and ``last`` as the format has them."""
        packed = uproot.compression.compress(data.data, self._compression)
        size = branch.key_size + len(packed)
        if max(size, branch.key_size + len(data)) > _LARGEST:
            raise DataError(f"a basket of the tree {self._name!r} has {size} bytes. Set chunk_bytes to less.")
        place = self._segments.allocate(size)
        head = (
            KEY.pack(size, _KEY_VERSION, len(data), date, branch.key_size, 0, place, self._directory)
            + branch.words
            + BASKET.pack(_BASKET_VERSION, _BUFFER, item, entries, last)
            + b"\0"
        )
        done = os.pwritev(self._handle, (head, packed), place)
        if done < size:  # a signal, or a disk that is nearly full; the next write says which
            rest = memoryview(head + bytes(packed))
            while done < size:
                done += os.pwrite(self._handle, rest[done:], place + done)
        branch.bytes.append(size)
        branch.seeks.append(place)
        branch.total += branch.key_size + len(data)

    def describe(self, out: Any) -> None:
        """Write what the tree is, and where its baskets are."""
        baskets = len(self._entries) - 1
        # One more than there are: an array of places that is full has no room for the last basket's entries.
        room = max(_ROOM, baskets + 1)
        made = out.mktree(self._name, branches(self._columns), initial_basket_capacity=room)._cascading
        if not baskets:
            return
        for data in made._branch_data:
            branch = self._branches[data["fName"]]
            data["fBasketBytes"][:baskets] = branch.bytes
            data["fBasketEntry"][: baskets + 1] = self._entries
            data["fBasketSeek"][:baskets] = branch.seeks
            data["arrays_write_stop"] = baskets
            data["fTotBytes"], data["fZipBytes"] = branch.total, sum(branch.bytes)
            if branch.offsets:
                data["fEntryOffsetLen"] = branch.offsets
            if branch.kind is None:
                data["fLen"] = branch.largest
            elif data["kind"] == "counter":
                data["tleaf_maximum_value"] = branch.largest
        made._num_entries, made._num_baskets = self._entries[-1], baskets
        for total in ("fTotBytes", "fZipBytes"):
            made._metadata[total] = sum(data[total] for data in made._branch_data)
        made.write_updates(out.file.sink)


def _rows(column: Column) -> int:
    return len(column.lengths if isinstance(column, Lists) else column)


def _text(words: str) -> bytes:
    return text(words.encode("utf-8", "surrogateescape"))
