"""The events of a DATE file by their headers alone: where each begins, how long it is, which run and spill it is of.

Of an event no more than its first bytes are read, so a file of large events is gone through much faster than it could
be read. What lies inside of an event is checked by whoever decodes it.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import NamedTuple

from orchestrator.errors import FormatError
from orchestrator.online.spill import MOST_SPILLS
from procs.formats import date_layout as layout
from procs.formats.date import check_magic, check_sizes

BLOCK = 64 * 1024  # bytes read at once; small events lie in it side by side
MOST_TYPE = 63  # of an event; larger is no type of DATE's
_HEAD = struct.Struct("<IIIIIIII32xIIII")  # words 0 to 7 and 16 to 19
assert _HEAD.size == layout.HEADER


class Head(NamedTuple):
    """What an event's header says. ``offset``: of its first byte in the file, ``stop``: after its last."""

    offset: int
    size: int
    type: int
    run: int
    spill: int
    ldc: int
    time: float
    stop: int


def head(data: bytes | memoryview, at: int, offset: int, path: str) -> Head:
    """The header at ``at`` in ``data``, which is at ``offset`` in the file. Raises FormatError for one that is none."""
    size, _, length, _, kind, run, spill, _, ldc, _, seconds, microseconds = _HEAD.unpack_from(data, at)
    if data[at + 4 : at + 8] != layout.MAGIC_BYTES:
        check_magic(bytes(data[at + 4 : at + 8]), path, offset + 4)
    if length != layout.HEADER or size % 4 or size < length:
        check_sizes(size, length, path, offset, "event")
    if size > layout.MAX_EVENT:
        raise FormatError(f"an event of {size} bytes is declared: a size gone wrong", path=path, offset=offset)
    if not 0 < kind <= MOST_TYPE:
        raise FormatError(f"there is no event type {kind}", path=path, offset=offset + 16)
    if spill >= MOST_SPILLS and kind in layout.WITH_EQUIPMENT:
        raise FormatError(f"{spill} cannot be a spill's number", path=path, offset=offset + 24)
    return Head(offset, size, kind, run, spill, ldc, seconds + microseconds / 1e6, offset + size)


class EventFile:
    """A DATE file that may still grow. ``close`` it."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise FormatError(f"cannot be opened: {error.strerror}", path=path) from error
        self._base, self._data = 0, memoryview(b"")
        self.inode = os.fstat(self._descriptor).st_ino
        self.size = 0
        self.look()

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)

    def look(self) -> int:
        """How large the file is now."""
        self.size = os.fstat(self._descriptor).st_size
        return self.size

    def replaced(self) -> bool:
        """Whether there is another file of this name now."""
        try:
            return Path(self.path).stat().st_ino != self.inode
        except OSError:
            return False  # it was taken away: what is open can be read on

    def read(self, start: int, stop: int) -> bytes:
        """Some bytes of it."""
        return os.pread(self._descriptor, stop - start, start)

    def event(self, offset: int) -> Head | None:
        """The event at ``offset``; None as long as it is not all there, by the file's size when it was looked at last.

        Raises FormatError for what can be none.
        """
        if self.size - offset < layout.HEADER:
            if self.size - offset >= 8:
                check_magic(self._bytes(offset, 8)[4:8], self.path, offset + 4)
            return None
        at = offset - self._base
        if at < 0 or at + layout.HEADER > len(self._data):
            self._base, at = offset, 0
            self._data = memoryview(os.pread(self._descriptor, min(BLOCK, self.size - offset), offset))
            if len(self._data) < layout.HEADER:
                return None  # it has shrunk meanwhile
        found = head(self._data, at, offset, self.path)
        return found if found.stop <= self.size else None

    def blank(self, offset: int) -> bool:
        """Whether a header's room is there and nothing is written in it: a DAQ that makes room beforehand."""
        return not any(self._bytes(offset, layout.HEADER))

    def forget(self) -> None:
        """What was read before may have changed."""
        self._base, self._data = 0, memoryview(b"")

    def next_event(self, offset: int, run: int | None, assembled: bool) -> Head | None:
        """The first event after ``offset`` that can be one, for a file with damaged bytes in it; None without one.

        A GDC's events hold sub-events with headers like theirs, so ``assembled`` asks for one of a GDC; else it must be
        of the same run, where that is known.
        """
        start = offset + 1
        keep = layout.HEADER + 4  # bytes, so that a header on the edge of a block is seen whole
        while start + layout.HEADER <= self.size:
            data = os.pread(self._descriptor, BLOCK, start)
            place = data.find(layout.MAGIC_BYTES)
            while place >= 0:
                at = place - 4
                if at >= 0 and at + layout.HEADER <= len(data):
                    found = self._candidate(data, at, start + at)
                    if found is not None and (found.ldc == layout.SUPER if assembled else run in (None, found.run)):
                        return found
                place = data.find(layout.MAGIC_BYTES, place + 1)
            if len(data) <= keep:
                return None
            start += len(data) - keep
        return None

    def _candidate(self, data: bytes, at: int, offset: int) -> Head | None:
        try:
            found = head(data, at, offset, self.path)
        except FormatError:
            return None
        return found if found.stop <= self.size else None

    def _bytes(self, offset: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, offset)
