"""A small program at the far end that sums files up: while they arrive, and in the same exchange as their last name.

A small file it takes as a whole: written, flushed, read back and summed up, and given its last name, in one exchange.

It is nothing but Python's standard library, travels there through the connection, and ends with it; nothing is
installed. Where there is no ``python3`` the caller goes on without it (`sums.Summer`, or reading back).

Requests and answers are lines. Names travel in hexadecimal, so none can change a line's shape; no shell ever sees one.
"""

from __future__ import annotations

import secrets
from binascii import hexlify
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from orchestrator.transports.connection import LOST, Connection
from orchestrator.transports.errors import FileRefused, NoShell, TransportUnavailable
from orchestrator.transports.model import Placed, shown
from orchestrator.transports.packets import send_all

#: The account's own shell reads this line, so it has nothing in it that any shell could take otherwise.
COMMAND = "python3 -I -S -u -c 'import sys; exec(eval(sys.stdin.buffer.readline()))'"
_LONGEST_START = 20.0  # s; from slow network file systems Python takes its time
#: Slower than this (bytes/s) no disk is taken to be: a sum may take the file's size by this, and a minute.
SLOWEST = 5_000_000
_LETS_GO = 10.0  # s
_TELL_EVERY = 8_000_000  # bytes between two words about how far a file has come

#: For Python 3.6 and later. A request ends in one line of answer, which begins with the mark.
_PROGRAM = r"""
import hashlib, os, sys
from binascii import unhexlify

block = memoryview(bytearray(1 << 20))

def take(file, total, count):
    while count:
        size = file.readinto(block[:min(count, 1 << 20)] if count > 0 else block)
        if not size:
            return
        total.update(block[:size])
        count -= size if count > 0 else 0

def answer(*words):
    sys.stdout.write(" ".join([mark] + [str(word) for word in words]) + "\n")
    sys.stdout.flush()

def follow(path):
    total, done = hashlib.sha256(), 0
    with open(path, "rb", 0) as file:
        for line in sys.stdin.buffer:
            if line == b"end\n":
                take(file, total, -1)
                return answer("ok", total.hexdigest(), file.tell())
            upto = int(line)
            take(file, total, upto - done)
            done = upto
    sys.exit()

def whole(path, length):
    total = hashlib.sha256()
    with open(path, "rb", 0) as file:
        take(file, total, length)
        return total.hexdigest(), file.tell()

def put(part, data, flush):
    file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        while data:
            data = data[os.write(file, data):]
        if flush:
            os.fsync(file)
    finally:
        os.close(file)

def place(part, target, wanted):
    found, size = whole(part, -1)
    if found != wanted:
        return answer("ok", found, size, "no")
    try:
        os.link(part, target, follow_symlinks=False)
    except FileExistsError:
        return answer("ok", found, size, "taken")
    except OSError:
        return answer("ok", found, size, "unable")
    os.unlink(part)
    answer("ok", found, size, "placed")

answer("ready")
for line in sys.stdin.buffer:
    words = line.split()
    try:
        if words[0] == b"sum":
            answer("ok", *whole(unhexlify(words[1]), int(words[2])))
        elif words[0] == b"follow":
            follow(unhexlify(words[1]))
        else:
            if words[0] == b"put":
                data = sys.stdin.buffer.read(int(words[4]))
                if len(data) < int(words[4]):
                    break
                put(unhexlify(words[1]), data, words[5] == b"flush")
            place(unhexlify(words[1]), unhexlify(words[2]), words[3].decode())
    except OSError as error:
        answer("no", error.errno or 0, error.strerror)
"""


class Helper:
    """The program, running. One thread at a time; what goes wrong half-way ends it."""

    def __init__(self, connection: Connection) -> None:
        """Starts it. Raises NoShell where the account runs no commands, or has no Python."""
        self.connection = connection
        self._mark = f"orchestrator-{secrets.token_hex(8)}"
        self._buffer = b""
        self._path = b""
        self._told = 0
        #: Whether it is at a file that is being written.
        self.following = False
        self._channel = connection.session()
        try:
            with connection.guarded("start Python", _LONGEST_START + 1, "answer of Python"):
                try:
                    self._channel.settimeout(_LONGEST_START)
                    self._channel.exec_command(COMMAND)
                    self._channel.sendall(repr(f"mark = {self._mark!r}\n{_PROGRAM}").encode() + b"\n")
                    self._answer()
                except LOST as error:
                    if not connection.alive:
                        raise
                    raise NoShell(f"{connection.where} runs no Python for this account") from error
        except BaseException:
            self.close()
            raise

    @property
    def usable(self) -> bool:
        return self.connection.alive and not self._channel.closed

    def close(self) -> None:
        self.following = False
        with suppress(Exception):
            self._channel.close()

    def let_go(self) -> None:
        """Ends it, once it has closed the file that it was at: until then the room of a removed file stays taken."""
        with suppress(TransportUnavailable), self._guarded(_LETS_GO):
            self._channel.shutdown_write()
            while self._channel.recv(1 << 14):
                pass
        self.close()

    def sum(self, path: bytes, size: int, length: int | None = None) -> str:
        """``sha256:<hex>`` of a file of ``size`` bytes, or of its first ``length``. Raises FileRefused."""
        words = self._ask(path, size, b"sum %s %d" % (hexlify(path), -1 if length is None else length))
        return f"sha256:{words[0]}"

    def place(self, part: bytes, target: bytes, checksum: str, size: int) -> Placed:
        """Gives a file of ``size`` bytes its last name, if it has the checksum and the name is free.

        Raises FileRefused.
        """
        return _placed(self._ask(part, size, b"place " + _names(part, target, checksum)))

    def put(self, part: bytes, target: bytes, data: bytes, checksum: str, flush: bool) -> Placed:
        """Writes a whole small file as ``part``, then as `place`: what it sums up is read back from the file.

        Raises FileRefused.
        """
        words = b"put %s %d %s" % (_names(part, target, checksum), len(data), b"flush" if flush else b"-")
        return _placed(self._ask(part, len(data), words, data, doing="write"))

    def follow(self, path: bytes) -> None:
        """Begins to sum up a file that is being written; `upto` and `total` go on with it."""
        self._path, self._told = path, 0
        self.following = True
        self._tell(b"follow %s\n" % hexlify(path))

    def upto(self, count: int) -> None:
        """So many bytes of the file are there."""
        if count - self._told >= _TELL_EVERY and self.following and self._channel.send_ready():
            self._told = count
            self._tell(b"%d\n" % count)

    def total(self, size: int) -> str | None:
        """The file is whole, with ``size`` bytes: its checksum. None if it came to none: then it is to be asked for."""
        if not self.following:
            return None
        try:
            words = self._ask(self._path, size, b"end")
        except (FileRefused, TransportUnavailable):
            self.close()
            if not self.connection.alive:
                raise
            return None
        self.following = False
        return f"sha256:{words[0]}"

    def _tell(self, line: bytes) -> None:
        try:
            with self._guarded(60):
                self._channel.sendall(line)
        except TransportUnavailable:
            self.close()
            if not self.connection.alive:
                raise

    # ---- lines

    def _ask(
        self, path: bytes, size: int, request: bytes, data: bytes = b"", *, doing: str = "compute the checksum of"
    ) -> list[str]:
        """The words of an answer. Raises FileRefused."""
        try:
            with self._guarded(60 + size / SLOWEST):
                send_all(self._channel, request + b"\n", memoryview(data))
                words = self._answer()
        except BaseException:  # an answer that comes later must not be taken for that to another request
            self.close()
            raise
        if words[0] == "ok":
            return words[1:]
        where = self.connection.where
        raise FileRefused(
            f"could not {doing} {shown(path)!r} on {where}: {' '.join(words[2:])}",
            errno=int(words[1]), path=shown(path),
        )  # fmt: skip

    @contextmanager
    def _guarded(self, seconds: float) -> Iterator[None]:
        with self.connection.guarded("compute a checksum", seconds, "checksum"):
            self._channel.settimeout(seconds)
            yield

    def _answer(self) -> list[str]:
        """The next line with the mark, from the mark on: what a login script prints may stand before it."""
        mark = self._mark.encode()
        while (at := self._buffer.find(mark)) < 0 or (end := self._buffer.find(b"\n", at)) < 0:
            data = self._channel.recv(1 << 14)
            if not data or len(self._buffer) > 1 << 20:
                raise EOFError
            self._buffer += data
        line, self._buffer = self._buffer[at + len(mark) : end], self._buffer[end + 1 :]
        return line.decode("utf-8", "replace").split()


def _names(part: bytes, target: bytes, checksum: str) -> bytes:
    return b"%s %s %s" % (hexlify(part), hexlify(target), checksum.removeprefix("sha256:").encode())


def _placed(words: list[str]) -> Placed:
    return Placed(f"sha256:{words[0]}", {"placed": True, "taken": False}.get(words[2]))
