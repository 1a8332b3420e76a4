"""An SFTP session that keeps many requests under way at once and checks the answer to each of them.

paramiko's own client is not used: its pipelined writes drop the answers (a full disk goes unnoticed until the size is
compared), it cannot speak of names that are no UTF-8, and it copies each block several times.
"""

from __future__ import annotations

import errno
import os
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from math import inf

import paramiko

from orchestrator.transports.connection import LOST, Connection
from orchestrator.transports.errors import FileRefused, TransportError, TransportUnavailable
from orchestrator.transports.model import Entry, Space, shown
from orchestrator.transports.packets import send_all
from orchestrator.transports.wire import (
    ERRNO,
    NO_ATTRIBUTES,
    VERSION,
    Attributes,
    Kind,
    Open,
    Reader,
    Status,
    long,
    mode_attributes,
    packet,
    size_attributes,
    text,
    word,
)

BLOCK = 255 * 1024  # bytes a request: what OpenSSH takes, its limit of 256 KiB less room for the header
SMALL_BLOCK = 32 * 1024  # what every server must take
READS_UNDER_WAY = 16  # of reads, whose answers must find room here
_LONGEST = 1 << 24  # bytes; a longer packet is no SFTP but, say, a login script's greeting


class Sftp:
    """One SFTP session on a connection. One thread at a time."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.where = connection.where
        self._stall = connection.access.timeouts.stall
        self._limit = connection.watch.add(self._stall)
        self._number = 0
        self._answers: dict[int, tuple[Kind, bytes]] = {}  # to requests that nobody has asked about yet
        self._buffer = bytearray()
        self._open: set[bytes] = set()  # handles
        self._last: bytes | None = None  # the handle of the last file that was opened
        self.usable = True
        self.extensions: dict[bytes, bytes] = {}
        self._channel = connection.session()
        try:
            self._begin()
        except BaseException:
            self.close()
            raise
        # OpenSSH takes large blocks, and never replaces a file by a plain rename; of others nobody knows.
        self.strict = "OpenSSH" in connection.server
        self.block = BLOCK if self.strict else SMALL_BLOCK

    def _begin(self) -> None:
        connection = self.connection
        with connection.guarded("begin SFTP", connection.access.timeouts.login, "answer of the SFTP server"):
            try:
                self._channel.invoke_subsystem("sftp")
            except paramiko.SSHException as error:
                if not connection.alive:
                    raise
                raise TransportError(f"{self.where} has no SFTP: ask the site to turn it on") from error
            self._channel.settimeout(self._stall)
            self._write(struct.pack(">IBI", 5, Kind.INIT, VERSION))
            kind, body = self._read_packet()
        if kind != Kind.VERSION:
            raise TransportError(
                f"{self.where} does not answer as an SFTP server: does a login script print something?"
            )
        reader = Reader(body)
        reader.word()
        while reader.left:
            name = reader.text()
            self.extensions[name] = reader.text()

    def close(self) -> None:
        self.usable = False
        self.connection.watch.drop(self._limit)
        with suppress(Exception):
            self._channel.close()

    # ---- files

    def stat(self, path: bytes, follow: bool = True) -> Attributes | None:
        number = self._send(Kind.STAT if follow else Kind.LSTAT, text(path))
        return self._attributes_or_none(number, path)

    def _attributes_or_none(self, number: int, path: bytes) -> Attributes | None:
        kind, body = self.answer(number)
        if kind == Kind.STATUS and Reader(body).word() == Status.NO_SUCH_FILE:
            return None
        return self.expect(Kind.ATTRS, kind, body, path, "look at").attributes()

    def open(self, path: bytes, flags: int, mode: int = 0o644) -> bytes:
        number, request = self.begin_open(path, flags, mode)
        self.dispatch(request)
        return self.opened(number, path)

    def begin_open(self, path: bytes, flags: int, mode: int = 0o644) -> tuple[int, bytes]:
        """A request to open a file, and its number: to be dispatched; `opened` waits for the answer."""
        attributes = mode_attributes(mode) if flags & Open.CREATE else NO_ATTRIBUTES
        return self.request(Kind.OPEN, text(path), word(flags), attributes)

    def opened(self, number: int, path: bytes) -> bytes:
        """The handle that was asked for. Raises FileRefused."""
        self._last = self._handle(number, path, "open")
        return self._last

    def _handle(self, number: int, path: bytes, doing: str) -> bytes:
        kind, body = self.answer(number)
        handle = self.expect(Kind.HANDLE, kind, body, path, doing).text()
        self._open.add(handle)
        return handle

    def likely_handle(self) -> bytes | None:
        """The handle that the next file will have, if that can be foreseen; `Upload` says what for.

        OpenSSH gives the first one that is free. While nothing is open a wrong guess names no file at all, so what is
        asked of it is refused.
        """
        return self._last if self.strict and not self._open else None

    def close_handle(self, handle: bytes) -> None:
        self.closed(handle)
        self.answer(self._send(Kind.CLOSE, text(handle)))

    def closed(self, handle: bytes) -> None:
        """A handle is being closed."""
        self._open.discard(handle)

    def remove(self, path: bytes) -> bool:
        kind, body = self.answer(self._send(Kind.REMOVE, text(path)))
        if Reader(body).word() == Status.NO_SUCH_FILE:
            return False
        self.expect(Kind.STATUS, kind, body, path, "remove")
        return True

    def mkdir(self, path: bytes) -> None:
        """Makes one folder. FileRefused (EEXIST) if something of that name is there."""
        kind, body = self.answer(self._send(Kind.MKDIR, text(path), NO_ATTRIBUTES))
        if Reader(body).word() == Status.FAILURE and self.stat(path) is not None:
            raise FileRefused(f"{shown(path)!r} is there already on {self.where}", errno=errno.EEXIST, path=shown(path))
        self.expect(Kind.STATUS, kind, body, path, "make the folder")

    def rename_new(self, old: bytes, new: bytes) -> bool:
        """Renames, if no file has the new name: False if one has it."""
        if not self.strict and self.stat(new, follow=False) is not None:
            return False
        kind, body = self.answer(self._send(Kind.RENAME, text(old), text(new)))
        if Reader(body).word() == Status.FAILURE and self.stat(new, follow=False) is not None:
            return False
        self.expect(Kind.STATUS, kind, body, old, f"rename to {shown(new)!r}")
        return True

    def rename(self, old: bytes, new: bytes) -> None:
        if b"posix-rename@openssh.com" in self.extensions:
            number = self._send(Kind.EXTENDED, text(b"posix-rename@openssh.com"), text(old), text(new))
        else:
            # Plain RENAME refuses a name that is taken. A server without the extension gets a moment without the file.
            if self.stat(new, follow=False) is not None:
                self.remove(new)
            number = self._send(Kind.RENAME, text(old), text(new))
        self.expect(Kind.STATUS, *self.answer(number), old, f"rename to {shown(new)!r}")

    def list(self, path: bytes) -> list[Entry]:
        handle = self._handle(self._send(Kind.OPENDIR, text(path)), path, "list the folder")
        found: list[Entry] = []
        try:
            while True:
                kind, body = self.answer(self._send(Kind.READDIR, text(handle)))
                if kind == Kind.STATUS and Reader(body).word() == Status.EOF:
                    return found
                found += self.names(kind, body, path)
        finally:
            if self.usable:
                self.close_handle(handle)

    def names(self, kind: Kind, body: bytes, path: bytes) -> Sequence[Entry]:
        """What one answer says of a folder's contents. Raises FileRefused."""
        reader = self.expect(Kind.NAME, kind, body, path, "list the folder")
        found = []
        for _ in range(reader.word()):
            name, _, about = reader.text(), reader.text(), reader.attributes()
            if name not in (b".", b".."):
                found.append(entry(name, about))
        return found

    def real_path(self, path: bytes) -> bytes:
        kind, body = self.answer(self._send(Kind.REALPATH, text(path)))
        reader = self.expect(Kind.NAME, kind, body, path, "look at")
        reader.word()
        return reader.text()

    def space(self, path: bytes) -> Space | None:
        if b"statvfs@openssh.com" not in self.extensions:
            return None
        kind, body = self.answer(self._send(Kind.EXTENDED, text(b"statvfs@openssh.com"), text(path)))
        if kind != Kind.EXTENDED_REPLY:
            return None
        reader = Reader(body)
        _, fragment, blocks, _, available = (reader.long() for _ in range(5))
        return Space(available * fragment, blocks * fragment)

    # ---- whole files

    def cut(self, handle: bytes, path: bytes, size: int) -> None:
        """Cuts an open file to ``size`` bytes."""
        number = self._send(Kind.FSETSTAT, text(handle), size_attributes(size))
        self.expect(Kind.STATUS, *self.answer(number), path, "cut")

    def read_file(self, path: bytes, length: int | None = None) -> Iterator[bytes]:
        """The file's bytes, at most ``length``, with many requests under way."""
        handle = self.open(path, Open.READ)
        try:
            kind, body = self.answer(self._send(Kind.FSTAT, text(handle)))
            size = self.expect(Kind.ATTRS, kind, body, path, "look at").attributes().size
            if size == 0:  # files of /proc say so whatever they hold
                yield from self._read_on(handle, path, 0, length)
                return
            yield from self._read_ahead(handle, path, size if length is None else min(size, length))
        finally:
            if self.usable and self.connection.alive:
                self.close_handle(handle)

    def _read_ahead(self, handle: bytes, path: bytes, end: int) -> Iterator[bytes]:
        asked, under_way = 0, deque[tuple[int, int, int]]()
        try:
            while asked < end or under_way:
                while asked < end and len(under_way) < READS_UNDER_WAY:
                    count = min(self.block, end - asked)
                    under_way.append((self._read(handle, asked, count), asked, count))
                    asked += count
                number, at, count = under_way.popleft()
                data = self._data(number, path)
                if data:
                    yield data
                if len(data) < count:  # a short answer is no end; a file that was cut meanwhile is
                    yield from self._read_on(handle, path, at + len(data), at + count)
                    if not data:
                        return
        finally:
            if self.usable:
                for number, _, _ in under_way:
                    self.answer(number)

    def _read_on(self, handle: bytes, path: bytes, at: int, end: int | None) -> Iterator[bytes]:
        while end is None or at < end:
            data = self._data(self._read(handle, at, self.block if end is None else min(self.block, end - at)), path)
            if not data:
                return
            yield data
            at += len(data)

    def _read(self, handle: bytes, at: int, count: int) -> int:
        return self._send(Kind.READ, text(handle), long(at), word(count))

    def _data(self, number: int, path: bytes) -> bytes:
        kind, body = self.answer(number)
        if kind == Kind.STATUS and Reader(body).word() == Status.EOF:
            return b""
        return self.expect(Kind.DATA, kind, body, path, "read").text()

    # ---- requests and answers

    def expect(self, wanted: Kind, kind: Kind, body: bytes, path: bytes, doing: str) -> Reader:
        """The answer's body, if it is of the wanted kind and no refusal. Raises FileRefused."""
        reader = Reader(body)
        if kind == Kind.STATUS:
            status = reader.word()
            if status == Status.OK and wanted == Kind.STATUS:
                return reader
            raise self._refusal(status, reader.text() if reader.left else b"", path, doing)
        if kind != wanted:
            raise self._garbage(f"packet {kind} instead of {wanted}")
        return reader

    def _refusal(self, status: int, said: bytes, path: bytes, doing: str) -> FileRefused:
        words = said.decode("utf-8", "replace").strip() or f"status {status}"
        code = next((value for key, value in ERRNO.items() if key == status), 0)
        return FileRefused(
            f"could not {doing} {shown(path)!r} on {self.where}: {words}",
            errno=code,
            path=path.decode("utf-8", "replace"),
        )

    def _garbage(self, what: str) -> TransportUnavailable:
        self.close()
        return TransportUnavailable(
            f"{self.where} does not keep to SFTP ({what}); tried again later", perhaps_done=True
        )

    def _send(self, kind: Kind, *fields: bytes | memoryview) -> int:
        number, data = self.request(kind, *fields)
        self.dispatch(data)
        return number

    def request(self, kind: Kind, *fields: bytes | memoryview, more: int = 0) -> tuple[int, bytes]:
        """A request, without its last ``more`` bytes, and its number, for `dispatch`."""
        self._number = (self._number + 1) & 0xFFFFFFFF
        return self._number, packet(kind, self._number, *fields, more=more)

    def dispatch(self, data: bytes, rest: memoryview | None = None) -> None:
        """Sends requests, one or several at once; ``rest`` is the end of the last one."""
        self._expect_within("room for more data")
        try:
            self._write(data, rest)
        except LOST as error:
            raise self._lost(error) from error
        except BaseException:  # half of a request may be on its way
            self.close()
            raise
        finally:
            self._limit.until = inf

    def _write(self, data: bytes, rest: memoryview | None = None) -> None:
        send_all(self._channel, data, rest)

    def answer(self, number: int) -> tuple[Kind, bytes]:
        """The answer to one request; those to others are kept."""
        while number not in self._answers:
            other, kind, body = self.next_answer()
            self._answers[other] = (kind, body)
        return self._answers.pop(number)

    def keep(self, number: int, kind: Kind, body: bytes) -> None:
        """Puts an answer aside until somebody asks for it."""
        self._answers[number] = (kind, body)

    def ready(self) -> bool:
        """Whether there is something to read."""
        return len(self._buffer) > 4 or self._channel.recv_ready()

    def next_answer(self) -> tuple[int, Kind, bytes]:
        """The next answer that comes, to whatever request."""
        self._expect_within("answer")
        try:
            kind, body = self._read_packet()
        except LOST as error:
            raise self._lost(error) from error
        finally:
            self._limit.until = inf
        return int.from_bytes(body[:4], "big"), kind, body[4:]

    def _read_packet(self) -> tuple[Kind, bytes]:
        self._fill(4)
        length = int.from_bytes(self._buffer[:4], "big")
        if not 1 <= length < _LONGEST:
            raise self._garbage("a packet of impossible length")
        self._fill(4 + length)
        kind, body = self._buffer[4], bytes(memoryview(self._buffer)[5 : 4 + length])
        del self._buffer[: 4 + length]
        try:
            return Kind(kind), body
        except ValueError:
            raise self._garbage(f"packet {kind}") from None

    def _fill(self, count: int) -> None:
        while len(self._buffer) < count:
            data = self._channel.recv(max(1 << 16, count - len(self._buffer)))
            if not data:
                raise EOFError
            self._buffer += data

    def _expect_within(self, what: str) -> None:
        if not self.usable:
            raise self.connection.lost("use the SFTP session")
        self._limit.wait_for(what)

    def _lost(self, error: Exception) -> TransportError:
        """The error for what the library raised. The session is given up: what comes next belongs to older requests."""
        self.close()
        if isinstance(error, TransportError):
            return error
        return self.connection.failed(error, "go on with the files", self._limit, perhaps_done=True)


def entry(name: bytes, about: Attributes) -> Entry:
    """A file's description under its name."""
    return Entry(os.fsdecode(name), about.size, about.mode, about.mtime)
