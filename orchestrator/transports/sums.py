"""Checksums computed at the far end: by Python where it is there (`helper`), else by a program in a shell.

Either stays, since a session for each file costs more than the sum. The shell is fed one line a file, each word quoted,
and the file as standard input of the program, so that no name can be taken for an option or change the shape of the
answer.
"""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import paramiko

from orchestrator.transports.command import quoted
from orchestrator.transports.connection import Connection
from orchestrator.transports.errors import FileRefused, NoShell
from orchestrator.transports.helper import SLOWEST, Helper
from orchestrator.transports.model import Placed, shown

#: Programs that print a SHA-256 first on their line, the fastest to start first: GNU, BSD, openssl, perl (macOS).
PROGRAMS = ("sha256sum", "sha256 -q", "openssl dgst -sha256 -r", "shasum -a 256")
#: For large files openssl comes first: it uses the processor's own instructions, which makes it five times as fast as
#: the sha256sum of many systems.
FOR_LARGE = (2, 0, 1, 3)
LARGE = 16_000_000  # bytes; the few milliseconds that openssl takes to start are saved twice from here on
_HEX = re.compile(rb"\\?([0-9a-f]{64})\b")


class Summer:
    """A shell at the far end that computes checksums. One thread at a time."""

    def __init__(self, connection: Connection) -> None:
        """Starts the shell. Raises NoShell if the account has none, or none of the programs is there."""
        self.connection = connection
        self._mark = f"orchestrator-{secrets.token_hex(8)}"
        self._buffer = bytearray()
        self._channel = connection.session()
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        connection, seconds = self.connection, self.connection.access.timeouts.login
        with connection.guarded("start a shell", seconds, "answer of a shell"):
            try:
                self._channel.exec_command("sh")
                self._channel.settimeout(seconds)
                tries = "; ".join(
                    f"command -v {program.split()[0]} >/dev/null && printf ' {n}'" for n, program in enumerate(PROGRAMS)
                )
                self._channel.sendall(f"printf '{self._mark}'; {tries}; echo\n".encode())
                answer = self._until_mark()
            except (EOFError, OSError, paramiko.SSHException) as error:
                if not connection.alive:
                    raise
                raise NoShell(f"{connection.where} runs no commands for this account") from error
        self._have = [int(number) for number in answer.split()]
        if not self._have:
            raise NoShell(f"{connection.where} has no program for SHA-256 ({', '.join(PROGRAMS)})")

    @property
    def usable(self) -> bool:
        return self.connection.alive and not self._channel.closed

    def sum(self, path: bytes, size: int, length: int | None = None) -> str:
        """``sha256:<hex>`` of a file of ``size`` bytes, or of its first ``length``. Raises FileRefused."""
        name = quoted(b"./" + path if path.startswith(b"-") else path)
        order = FOR_LARGE if (size if length is None else length) >= LARGE else range(len(PROGRAMS))
        program = PROGRAMS[next(number for number in order if number in self._have)].encode()
        job = program + b" <" + name if length is None else b"head -c %d <%s | %s" % (length, name, program)
        seconds = 60 + size / SLOWEST
        try:
            with self.connection.guarded("compute a checksum", seconds, "checksum"):
                self._channel.settimeout(seconds)
                self._channel.sendall(b"{ %s; } 2>&1; echo %s $?\n" % (job, self._mark.encode()))
                code = self._until_mark()
        except BaseException:  # an answer that comes later must not be taken for that of the next file
            self.close()
            raise
        found = _HEX.match(self._said.strip())
        if code != b"0" or found is None:
            said = " ".join(self._said.decode("utf-8", "replace").split())[:300]
            raise FileRefused(
                f"the checksum of {shown(path)!r} on {self.connection.where} could not be computed: {said}",
                path=shown(path),
            )
        return f"sha256:{found[1].decode()}"

    def close(self) -> None:
        with suppress(Exception):
            self._channel.close()

    def _until_mark(self) -> bytes:
        """Reads to the line with the mark and gives what follows the mark; what came before is in ``_said``."""
        mark = self._mark.encode()
        while (at := self._buffer.find(mark)) < 0 or (end := self._buffer.find(b"\n", at)) < 0:
            data = self._channel.recv(1 << 14)
            if not data or len(self._buffer) > 1 << 20:
                raise EOFError
            self._buffer += data
        self._said = bytes(self._buffer[:at])
        word = bytes(self._buffer[at + len(mark) : end]).strip()
        del self._buffer[: end + 1]
        return word


class Sums:
    """Whoever sums files up at the other end of a connection. Safe for threads; after a lost connection begins anew."""

    def __init__(self) -> None:
        self._asking, self._following = threading.Lock(), threading.Lock()
        self._asked: Helper | None = None
        self._follower: Helper | None = None
        self._summer: Summer | None = None
        self._no_python: Connection | None = None  # the connection on which it was asked for in vain
        self._no_shell: Connection | None = None

    def python(self, connection: Connection) -> bool:
        """Whether `place` will do its work."""
        with self._asking:
            return self._helper(connection) is not None

    def place(self, connection: Connection, part: bytes, target: bytes, checksum: str, size: int) -> Placed | None:
        """See `Transport.place`; None if there is no Python. Raises FileRefused."""
        with self._asking:
            helper = self._helper(connection)
            return None if helper is None else helper.place(part, target, checksum, size)

    def put(
        self, connection: Connection, part: bytes, target: bytes, data: bytes, checksum: str, flush: bool
    ) -> Placed | None:
        """See `Transport.deliver`; None if there is no Python. Raises FileRefused."""
        with self._asking:
            helper = self._helper(connection)
            return None if helper is None else helper.put(part, target, data, checksum, flush)

    def sum(self, connection: Connection, path: bytes, size: int, length: int | None) -> str | None:
        """The checksum of a file of ``size`` bytes, or of its first ``length``; None if nobody there can compute it.

        Raises FileRefused.
        """
        with self._asking:
            helper = self._helper(connection)
            if helper is not None:
                return helper.sum(path, size, length)
            if self._no_shell is connection:
                return None
            try:
                if not _fits(self._summer, connection):
                    self._summer = Summer(connection)
                assert self._summer is not None
                return self._summer.sum(path, size, length)
            except NoShell:
                self._no_shell = connection
                return None

    @contextmanager
    def following(self, connection: Connection, path: bytes) -> Iterator[Helper | None]:
        """Has a file summed up while it is written; None if nobody can, or whoever can is at another file."""
        if self._no_python is connection or not self._following.acquire(blocking=False):
            yield None
            return
        try:
            if not _fits(self._follower, connection):
                self._follower = self._made(connection)
            if self._follower is not None:
                self._follower.follow(path)
            yield self._follower
        finally:
            if self._follower is not None and self._follower.following:  # it was given up half-way
                self._follower.let_go()
            self._following.release()

    def _helper(self, connection: Connection) -> Helper | None:
        if self._no_python is connection:
            return None
        if not _fits(self._asked, connection):
            self._asked = self._made(connection)
        return self._asked

    def _made(self, connection: Connection) -> Helper | None:
        try:
            return Helper(connection)
        except NoShell:
            self._no_python = connection
            return None


def _fits(one: Helper | Summer | None, connection: Connection) -> bool:
    return one is not None and one.usable and one.connection is connection
