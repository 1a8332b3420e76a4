"""What the transports hand out: answers of commands, descriptions of files."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

#: A path at the far end. Names are bytes there; text holds bytes that are no UTF-8 as ``os.fsdecode`` makes it.
RemotePath = str | bytes | os.PathLike[str]

#: Told how many bytes of a file the far end has confirmed so far, from the file's start.
Confirmed = Callable[[int], None]


@dataclass(frozen=True)
class Answer:
    """What a command came to.

    ``exit_code`` is 0 to 255; 128 + n where signal n ended the program; -1 where the far end's own shell was killed and
    no code came. ``stdout`` and ``stderr`` are text in which bytes that are not UTF-8 survive (``os.fsencode`` gives
    them back).
    """

    exit_code: int
    stdout: str = ""
    stderr: str = ""

    @property
    def ok(self) -> bool:
        return self.exit_code == 0

    @property
    def said(self) -> str:
        """What the program said about itself, on one line of at most 500 characters."""
        text = " ".join((self.stderr.strip() or self.stdout.strip()).split())
        return text if len(text) <= 500 else text[:499] + "…"


@dataclass(frozen=True)
class Entry:
    """A file or folder at the far end: name without its folder, size (bytes), mode as of ``stat``, mtime (s, epoch)."""

    name: str
    size: int
    mode: int
    mtime: float

    @property
    def is_folder(self) -> bool:
        return self.mode & 0o170000 == 0o040000

    @property
    def is_file(self) -> bool:
        return self.mode & 0o170000 == 0o100000


@dataclass(frozen=True)
class Space:
    """Room on a disk, in bytes, for this account."""

    free: int
    total: int


@dataclass(frozen=True)
class Sent:
    """What stands at the far end after `Transport.send`.

    Its size; its first bytes if they were read back; its checksum if the far end has summed it up meanwhile.
    """

    size: int
    read_back: bytes | None = None
    checksum: str | None = None


@dataclass(frozen=True)
class Placed:
    """What became of a file that was to get its last name: the checksum it has, and whether it has the name now.

    None: nothing was tried, which is a matter of the file system there.
    """

    checksum: str
    placed: bool | None


def raw(path: RemotePath) -> bytes:
    """The path's bytes. A path with a NUL byte in it is no path: ValueError."""
    data = os.fsencode(path)
    if not data or b"\0" in data:
        raise ValueError(f"{data!r} is no path")
    return data


def shown(path: RemotePath) -> str:
    """The path for people, on one line."""
    text = raw(path).decode("utf-8", "backslashreplace")
    return text if text.isprintable() else repr(text)[1:-1]
