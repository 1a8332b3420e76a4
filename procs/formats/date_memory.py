"""DATE events that are in memory already: a spill out of a file, or as a DAQ has sent it."""

from __future__ import annotations

from pathlib import Path
from typing import Self, cast

import numpy as np

from orchestrator.errors import FormatError
from procs.formats import date_layout as layout
from procs.formats.date import DateFile, check_magic, check_sizes
from procs.formats.window import Window


class DateMemory(DateFile):
    """The events of some bytes, read as those of a file are.

    Args:
        data: whole events, one after the other.
        origin: what errors call it: the file that they come from, or where the DAQ is.
        base: offset of the first byte in that file, for errors and the columns ``offset``.
        strict: as for :func:`procs.formats.date.open`.

    Raises:
        FormatError: they do not begin with an event.
    """

    def __init__(self, data: bytes, origin: str = "", base: int = 0, *, strict: bool = True) -> None:
        self._data = data
        self._base = base
        if len(data) < layout.HEADER:
            raise FormatError(f"{len(data)} bytes are no event: a header has {layout.HEADER}", path=origin, offset=base)
        check_magic(data[4:8], origin, base + 4)
        first = np.frombuffer(data, "<u4", layout.HEADER // 4)
        check_sizes(int(first[0]), int(first[layout.HEAD_SIZE]), origin, base, "event")
        super().__init__(Path(origin), base + len(data), first, strict)

    def _window(self) -> Window:
        return cast(Window, _Memory(self._data, str(self.path), self._base))


class _Memory:
    """What :class:`Window` offers, of bytes that are all there."""

    def __init__(self, data: bytes, path: str, start: int) -> None:
        self._all, self._start = data, start
        self.path, self.base, self.size, self.data, self.at_end = path, start, start + len(data), data, True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """There is nothing to give back."""

    def move(self, offset: int, need: int = 1) -> int:
        """Let the window begin at this offset of the file; 0 means the first byte that is there."""
        self.base = max(offset, self._start)
        self.data = self._all[self.base - self._start :]
        return 0

    def advance(self, position: int, need: int = 1) -> int:
        """Let go of what lies before ``position``."""
        return self.move(self.base + position)
