"""One command at the far end: both outputs read without deadlock, and killed there when its time is up.

Closing a channel leaves the program running. So a small ``sh`` at the far end says its process number before the
program starts, and a time-out kills its process group through a second channel.
"""

from __future__ import annotations

import re
import secrets
import select
import shlex
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import paramiko

from orchestrator.transports.base import CANNOT_ENTER, OUTPUT_LIMIT
from orchestrator.transports.connection import Connection
from orchestrator.transports.errors import NoShell, TransportError, TransportUnavailable
from orchestrator.transports.model import Answer

_TAIL = 1.0  # s that output may still come after the program's end, from what it left running
_PIECE = 1 << 15

# $1 is the mark, $2 the directory (or empty); the program and its arguments follow. The exit code is written out, since
# some shells would otherwise put the program in their own place, and its death by a signal would leave no code.
_WRAPPER = (
    'printf "%s %s\\n" "$1" "$$" >&2; '
    f'if [ -n "$2" ]; then cd -- "$2" || exit {CANNOT_ENTER}; fi; '
    'shift 2; "$@"; exit "$?"'
)
# Written without `--`, which dash does not take here. The process group is of sshd's own making, so that it holds the
# program, what it started, and nothing else.
_KILL = (
    'g=$(ps -o pgid= -p "$1" 2>/dev/null | tr -d " "); g=${g:-$1}; kill -TERM "-$g" "$1" 2>/dev/null; '
    'n=0; while kill -0 "-$g" 2>/dev/null && [ "$n" -lt 20 ]; do sleep 0.1; n=$((n+1)); done; '
    'kill -KILL "-$g" 2>/dev/null; exit 0'
)


@dataclass
class _Output:
    """What has come so far."""

    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    sent: int = 0

    def __len__(self) -> int:
        return len(self.stdout) + len(self.stderr)


def line(argv: Sequence[str | bytes], mark: str, directory: bytes, environment: Mapping[str, str]) -> bytes:
    """The one string that SSH takes: every word quoted, names of any bytes included."""
    words = [*(f"{name}={value}" for name, value in environment.items())]
    program: list[str | bytes] = ["env", *words, *argv] if words else list(argv)
    return b" ".join(quoted(word) for word in ("sh", "-c", _WRAPPER, "sh", mark, directory, *program))


def quoted(word: str | bytes) -> bytes:
    """A word that any POSIX shell reads as this word."""
    text = word if isinstance(word, str) else word.decode("utf-8", "surrogateescape")
    if "\0" in text:
        raise ValueError("an argument cannot hold a NUL byte")
    return shlex.quote(text).encode("utf-8", "surrogateescape")


def run(
    connection: Connection,
    argv: Sequence[str | bytes],
    stdin: bytes,
    timeout: float,
    directory: bytes = b"",
    environment: Mapping[str, str] | None = None,
) -> Answer:
    """Runs a command; see `Transport.run` for arguments and errors."""
    if not argv:
        raise ValueError("a command has at least one word")
    mark = f"orchestrator-{secrets.token_hex(8)}"
    channel = connection.session()
    output = _Output()
    shown = repr(str(argv[0]))
    try:
        with connection.guarded(f"run {shown}", timeout + 30, "end of a command", perhaps_done=True):
            _start(connection, channel, line(argv, mark, directory, environment or {}))
            ended = _talk(channel, output, stdin, time.monotonic() + timeout)
            status = channel.recv_exit_status() if ended else -1
    finally:
        with suppress(Exception):
            channel.close()
    process = _process(output, mark)
    where = connection.where
    if len(output) > OUTPUT_LIMIT:
        _kill(connection, process)
        raise TransportError(f"{shown} on {where} printed more than {OUTPUT_LIMIT} bytes and was ended")
    if not ended:
        killed = _kill(connection, process)
        raise TransportUnavailable(
            f"{shown} on {where} did not end within {timeout:g} s and was {'killed' if killed else 'left running'}",
            perhaps_done=True,
        )
    if status == -1 and not _still_there(connection):
        raise connection.lost(f"hear the end of {shown}", perhaps_done=True)
    if process is None and status != -1:
        said = Answer(status, _text(output.stdout), _text(output.stderr)).said
        raise NoShell(f"{where} runs no commands for this account{': ' + said if said.isprintable() and said else ''}")
    return Answer(status, _text(output.stdout), _text(output.stderr))


def _start(connection: Connection, channel: paramiko.Channel, command: bytes) -> None:
    try:
        channel.exec_command(command)
    except paramiko.SSHException as error:
        if not connection.alive:
            raise
        raise NoShell(f"{connection.where} runs no commands for this account") from error


def _talk(channel: paramiko.Channel, output: _Output, stdin: bytes, until: float) -> bool:
    """Moves bytes both ways until the program has ended. False if the time was up, or the output too long, first."""
    channel.setblocking(0)
    ready = channel.fileno()
    tail = None
    if not stdin:
        channel.shutdown_write()
    while True:
        while channel.recv_ready():
            output.stdout += channel.recv(_PIECE)
            tail = None
        while channel.recv_stderr_ready():
            output.stderr += channel.recv_stderr(_PIECE)
            tail = None
        while output.sent < len(stdin) and channel.send_ready() and not channel.closed:
            output.sent += channel.send(stdin[output.sent : output.sent + _PIECE])
            if output.sent == len(stdin):
                channel.shutdown_write()
        now = time.monotonic()
        if channel.exit_status_ready() and not channel.recv_ready() and not channel.recv_stderr_ready():
            tail = tail or now + _TAIL
            if channel.eof_received or channel.closed or now > tail:
                return True
        if now > until or len(output) > OUTPUT_LIMIT:
            return False
        wait = min(until, tail or until) - now
        if channel.eof_received:
            channel.status_event.wait(min(max(wait, 0.0), 0.05))
        else:
            # A full window tells nobody when it opens again: look every 10 ms while input is left.
            select.select([ready], [], [], max(0.0, 0.01 if output.sent < len(stdin) else min(wait, 0.5)))


def _process(output: _Output, mark: str) -> int | None:
    """The process number that the wrapper said, taken out of what the program itself printed."""
    found = re.search(rb"%s ([0-9]+)\n" % mark.encode(), output.stderr)
    if found is None:
        return None
    number = int(found[1])
    del output.stderr[found.start() : found.end()]
    return number


def _still_there(connection: Connection) -> bool:
    """Whether the connection has survived the end of a command that came without an exit code.

    A program killed by a signal and a connection that is cut look alike at first; the second shows within moments.
    """
    connection.transport.join(0.3)
    return connection.alive


def _kill(connection: Connection, process: int | None) -> bool:
    """Kills a command's process group at the far end. Whether that could be asked for."""
    if process is None or not connection.alive:
        return False
    try:
        channel = connection.session()
        try:
            with connection.guarded("kill a command", 10.0, "end of a kill", perhaps_done=True):
                channel.exec_command(b" ".join(quoted(word) for word in ("sh", "-c", _KILL, "sh", str(process))))
                return channel.recv_exit_status() == 0
        finally:
            channel.close()
    except (TransportError, OSError, paramiko.SSHException):
        return False


def _text(data: bytes | bytearray) -> str:
    return data.decode("utf-8", "surrogateescape")
