"""A window that slides over a file: what a reader has in memory, however large the file is.

Readers parse inside ``data``. Where they need bytes beyond it they raise :class:`NeedMore`; the loop around them calls
:meth:`Window.advance` and parses the same event again. So parsing code is plain code over one ``bytes`` object, and
memory is bounded by one event (or one chunk), never by the file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from orchestrator.errors import FormatError

CHUNK = 4 * 1024 * 1024  # bytes read at once: large enough that an event seldom straddles two chunks


class NeedMore(Exception):
    """The parser needs ``size`` bytes from the position that it was started at (internal to the readers)."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


@dataclass(frozen=True, slots=True)
class Truncation:
    """Where the last complete event ends, and why what follows is not complete."""

    offset: int
    reason: str


class Window:
    """The bytes ``[base, base + len(data))`` of a file, of the ``size`` bytes it had when it was opened.

    Args:
        path: the file.
        chunk: bytes read at once.
    """

    def __init__(self, path: str | os.PathLike[str], chunk: int = CHUNK) -> None:
        self.path = os.fspath(path)
        self.chunk = chunk
        self._file = open(self.path, "rb", buffering=0)  # noqa: SIM115, PTH123 - closed by close()
        self.size = os.fstat(self._file.fileno()).st_size
        self.base = 0
        self.data = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the file back."""
        self._file.close()

    @property
    def end(self) -> int:
        """Offset in the file of the first byte after the window."""
        return self.base + len(self.data)

    @property
    def at_end(self) -> bool:
        """Whether the window reaches the end of the file."""
        return self.end >= self.size

    def advance(self, position: int, need: int = 1) -> int:
        """Let go of what lies before ``position`` (an index into ``data``) and hold at least ``need`` bytes from there,
        or all that the file has. Returns the new index of the same byte: 0.

        Raises:
            FormatError: the file has become shorter since it was opened.
        """
        kept = self.data[position:]
        self.base += position
        parts = [kept]
        have = len(kept)
        wanted = min(max(need, self.chunk), self.size - self.base)
        self._file.seek(self.base + have)
        while have < wanted:
            part = self._file.read(wanted - have)
            if not part:
                raise FormatError(
                    f"the file had {self.size} bytes when it was opened and is shorter now",
                    path=self.path,
                    offset=self.base + have,
                )
            parts.append(part)
            have += len(part)
        self.data = b"".join(parts)
        return 0

    def move(self, offset: int, need: int = 1) -> int:
        """Place the window at a byte of the file, as :meth:`advance` does."""
        inside = offset - self.base
        if 0 <= inside <= len(self.data):
            return self.advance(inside, need)
        self.base, self.data = offset, b""
        return self.advance(0, need)
