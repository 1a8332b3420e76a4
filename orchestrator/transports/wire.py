"""SFTP version 3 on the wire (draft-ietf-secsh-filexfer-02, and OpenSSH's PROTOCOL file for its extensions): packets.

Pure: numbers and bytes in, bytes and numbers out.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass
from enum import IntEnum

VERSION = 3


class Kind(IntEnum):
    """Kinds of packets."""

    INIT = 1
    VERSION = 2
    OPEN = 3
    CLOSE = 4
    READ = 5
    WRITE = 6
    LSTAT = 7
    FSTAT = 8
    SETSTAT = 9
    FSETSTAT = 10
    OPENDIR = 11
    READDIR = 12
    REMOVE = 13
    MKDIR = 14
    RMDIR = 15
    REALPATH = 16
    STAT = 17
    RENAME = 18
    STATUS = 101
    HANDLE = 102
    DATA = 103
    NAME = 104
    ATTRS = 105
    EXTENDED = 200
    EXTENDED_REPLY = 201


class Status(IntEnum):
    """What a server says about a request."""

    OK = 0
    EOF = 1
    NO_SUCH_FILE = 2
    PERMISSION_DENIED = 3
    FAILURE = 4
    UNSUPPORTED = 8


class Open(IntEnum):
    """Flags of OPEN."""

    READ = 0x01
    WRITE = 0x02
    CREATE = 0x08
    TRUNCATE = 0x10
    EXCLUSIVE = 0x20


#: What a status means in the terms of ``errno``; a mere "failure" says nothing.
ERRNO = {Status.NO_SUCH_FILE: errno.ENOENT, Status.PERMISSION_DENIED: errno.EACCES, Status.UNSUPPORTED: errno.ENOTSUP}


@dataclass(frozen=True)
class Attributes:
    """What a server says about a file; what it does not say is 0."""

    size: int = 0
    mode: int = 0
    mtime: float = 0.0


def word(value: int) -> bytes:
    """An unsigned 32-bit number."""
    return struct.pack(">I", value)


def long(value: int) -> bytes:
    """An unsigned 64-bit number."""
    return struct.pack(">Q", value)


def text(value: bytes) -> bytes:
    """A string with its length before it."""
    return struct.pack(">I", len(value)) + value


def packet(kind: Kind, number: int, *fields: bytes | memoryview, more: int = 0) -> bytes:
    """A whole request, or one without its last ``more`` bytes, which are sent after it."""
    return struct.pack(">IBI", 5 + sum(map(len, fields)) + more, kind, number) + b"".join(fields)


class Reader:
    """Takes a packet's body apart. Raises ValueError where it ends too early."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def _take(self, count: int) -> bytes:
        piece = self._body[self._at : self._at + count]
        if len(piece) != count:
            raise ValueError("a packet ends too early")
        self._at += count
        return piece

    @property
    def left(self) -> int:
        return len(self._body) - self._at

    def word(self) -> int:
        return int.from_bytes(self._take(4), "big")

    def long(self) -> int:
        return int.from_bytes(self._take(8), "big")

    def text(self) -> bytes:
        return self._take(self.word())

    def attributes(self) -> Attributes:
        flags = self.word()
        size = self.long() if flags & 0x1 else 0
        if flags & 0x2:
            self._take(8)  # owner and group
        mode = self.word() if flags & 0x4 else 0
        mtime = 0.0
        if flags & 0x8:
            self.word()
            mtime = float(self.word())
        if flags & 0x80000000:
            for _ in range(self.word()):
                self.text(), self.text()
        return Attributes(size, mode, mtime)


def mode_attributes(mode: int) -> bytes:
    """Attributes that set the mode only."""
    return word(0x4) + word(mode)


def size_attributes(size: int) -> bytes:
    """Attributes that set the size only: a longer file is cut."""
    return word(0x1) + long(size)


NO_ATTRIBUTES = word(0)
