"""The contract that each way to a site's machine fulfils."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, MutableSequence, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

from orchestrator.transports.errors import FileRefused, TransportError
from orchestrator.transports.model import Answer, Confirmed, Entry, Placed, RemotePath, Sent, Space

CHUNK = 1 << 20  # bytes handed on at once when whole files are sent
READ_LIMIT = 64 << 20  # bytes that `read` takes into memory: result files and logs, never raw data
CANNOT_ENTER = 111  # exit code of `run`: the directory cannot be entered
OUTPUT_LIMIT = 32 << 20  # bytes of a command's output; a listing of a million jobs stays below


class Transport(ABC):
    """Commands and files of one account on one machine.

    Safe for threads: one transport serves a whole process. Nothing is connected before the first use.

    **Errors.** Every method may raise `TransportUnavailable` (not reached, no answer in time, cut: nothing may be
    concluded; the next call connects again, after a pause that grows) and `TransportRefused` (host key, login). Those
    that touch a file raise `FileRefused` with an ``errno``. No method waits without a time-out.

    **Names** are bytes. ``str`` paths are encoded as `os.fsencode` does, so that names which are no UTF-8 survive; no
    name is ever read by a shell unquoted. Relative paths begin in the account's home.

    **Atomic** are `write` and `rename` (over an existing file too): a reader sees the old file or the new one. `send`
    writes in place: give it a name that nobody reads, then `rename`.
    """

    #: Which machine and account this is, for sentences: ``user@host`` or ``this machine``.
    where: str

    # ---- commands

    @abstractmethod
    def run(
        self,
        argv: Sequence[str | bytes],
        stdin: bytes = b"",
        timeout: float | None = None,
        *,
        directory: RemotePath | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Answer:
        """Runs one program, given as a list of arguments, and gives its answer, whatever its exit code.

        Args:
            timeout: seconds; None: the access's ``timeouts.command``. The program and what it started are then
                killed, with SIGTERM first.
            directory: where it runs; the account's home by default. If it cannot be entered, the exit code is 111.
            environment: variables added to the account's own. Never a secret: they show in the far end's ``ps``.

        Raises:
            TransportUnavailable: with ``perhaps_done`` the program was started and may have had its effect.
            NoShell: the account runs no commands.
            TransportError: it printed more than `OUTPUT_LIMIT` bytes.
        """

    # ---- files: what each transport does its own way

    @abstractmethod
    def stat(self, path: RemotePath) -> Entry | None:
        """The file or folder, links followed; None if there is none."""

    @abstractmethod
    def list(self, path: RemotePath) -> list[Entry]:
        """What a folder holds, links not followed, without ``.`` and ``..``, in no particular order."""

    @abstractmethod
    def mkdir(self, path: RemotePath) -> None:
        """Makes a folder and those above it. One that is there already is fine."""

    @abstractmethod
    def rename(self, old: RemotePath, new: RemotePath) -> None:
        """Gives a file another name on the same disk, atomically, in place of a file that had it."""

    @abstractmethod
    def rename_new(self, old: RemotePath, new: RemotePath) -> bool:
        """As `rename`, but False, with nothing done, if a file has the new name. Atomic where the far end can."""

    @abstractmethod
    def remove(self, path: RemotePath) -> bool:
        """Removes a file. False if there was none."""

    @abstractmethod
    def send(
        self,
        path: RemotePath,
        chunks: Iterable[bytes | memoryview],
        *,
        offset: int = 0,
        flush: bool = True,
        confirmed: Confirmed | None = None,
        read_back: int = 0,
        follow: bool = False,
        mode: int = 0o644,
    ) -> Sent:
        """Writes ``chunks`` into a file, in place, without waiting for each to be confirmed, and checks every answer.

        Args:
            offset: 0 begins a new file; else the file must have at least so many bytes and is cut there.
            flush: wait until the far end has it on its disk, where it can.
            confirmed: called now and then with the number of bytes confirmed.
            read_back: read so many bytes of the file's beginning in the same breath (for small files).
            follow: have it summed up there while it comes, where that can be done (for large files).

        Raises:
            FileRefused: full disk, quota, permission. The file is left as it is.
        """

    @abstractmethod
    def receive(self, path: RemotePath, *, length: int | None = None) -> Iterator[bytes]:
        """The file's bytes from the beginning, in chunks; at most ``length``."""

    @abstractmethod
    def checksum(self, path: RemotePath, length: int | None = None) -> str:
        """``sha256:<hex>`` of the file or its first ``length`` bytes, computed there, or by reading it where it
        cannot be."""

    @abstractmethod
    def absolute(self, path: RemotePath) -> str:
        """The path from the root: a relative one begins in the account's home."""

    @abstractmethod
    def space(self, path: RemotePath) -> Space | None:
        """The room on the disk of a folder; None if that cannot be asked."""

    @abstractmethod
    def close(self) -> None:
        """Ends the connection. The next use would make a new one."""

    # ---- files: the same for all, unless the far end can do it in fewer exchanges

    def places_at_once(self) -> bool:
        """Whether `place` costs no more than one exchange: then nothing need be read back before it."""
        return False

    def place(self, part: RemotePath, target: RemotePath, checksum: str, size: int) -> Placed:
        """Gives a file of ``size`` bytes its last name, as `rename_new`, if it has that checksum."""
        found = self.checksum(part)
        return Placed(found, self.rename_new(part, target) if found == checksum else None)

    def deliver(
        self, part: RemotePath, target: RemotePath, data: bytes, checksum: str, *, flush: bool = True
    ) -> Placed | None:
        """Writes a whole small file as ``part`` and places it, in one exchange; None where that cannot be done.

        As `send` and `place`, in that order: flushed and read back before it gets its last name. Raises FileRefused;
        ``part`` may be there then.
        """
        return None

    def exists(self, path: RemotePath) -> bool:
        return self.stat(path) is not None

    def size(self, path: RemotePath) -> int:
        """The file's size in bytes. Raises FileRefused (ENOENT) if there is none."""
        found = self.stat(path)
        if found is None:
            raise missing(path, self.where)
        return found.size

    def read(self, path: RemotePath, limit: int = READ_LIMIT) -> bytes:
        """The whole file. Raises FileRefused (EFBIG) if it has more than ``limit`` bytes."""
        data = bytearray()
        for chunk in self.receive(path, length=limit + 1):
            data += chunk
        if len(data) > limit:
            raise FileRefused(
                f"{os.fsdecode(path)!r} on {self.where} has more than {limit} bytes: too long to read",
                errno=errno.EFBIG, path=os.fsdecode(path),
            )  # fmt: skip
        return bytes(data)

    def read_many(self, paths: Sequence[RemotePath], limit: int = READ_LIMIT) -> Sequence[bytes | FileRefused]:
        """Whole files, or for each why it was not given, in few exchanges with the far end."""
        found: MutableSequence[bytes | FileRefused] = []
        for path in paths:
            try:
                found.append(self.read(path, limit))
            except FileRefused as error:
                found.append(error)
        return found

    def list_many(self, paths: Sequence[RemotePath]) -> Sequence[Sequence[Entry] | FileRefused]:
        """What folders hold, as `list`, or for each why it was not told, in few exchanges with the far end."""
        found: MutableSequence[Sequence[Entry] | FileRefused] = []
        for path in paths:
            try:
                found.append(self.list(path))
            except FileRefused as error:
                found.append(error)
        return found

    def remove_many(self, paths: Sequence[RemotePath]) -> None:
        """Removes files, as `remove`, in few exchanges. All are tried, then the first refusal is raised."""
        refused: FileRefused | None = None
        for path in paths:
            try:
                self.remove(path)
            except FileRefused as error:
                refused = refused or error
        if refused is not None:
            raise refused

    def write(self, path: RemotePath, data: bytes, mode: int = 0o644) -> None:
        """Writes a whole small file atomically."""
        self._replace(path, (data[start : start + CHUNK] for start in range(0, len(data), CHUNK)), len(data), mode)

    def put(self, local: Path, path: RemotePath, mode: int = 0o644) -> None:
        """Copies a local file to the far end, atomically and with its size checked; ``checksum`` proves the bytes."""
        with local.open("rb") as stream:
            self._replace(path, iter(lambda: stream.read(CHUNK), b""), os.fstat(stream.fileno()).st_size, mode)

    def get(self, path: RemotePath, local: Path) -> None:
        """Copies a file from the far end, atomically, flushed, with its size checked."""
        part = local.with_name(f".{local.name[:180]}.{secrets.token_hex(8)}.part")
        size = self.size(path)
        try:
            with part.open("xb") as stream:
                for chunk in self.receive(path):
                    stream.write(chunk)
                stream.flush()
                os.fsync(stream.fileno())
            got = part.stat().st_size
            if got != size:
                raise FileRefused(
                    f"{os.fsdecode(path)!r} on {self.where} gave {got} bytes instead of {size}: has it changed?",
                    path=os.fsdecode(path),
                )
            part.replace(local)
        finally:
            part.unlink(missing_ok=True)

    def _replace(self, path: RemotePath, chunks: Iterable[bytes], size: int, mode: int) -> None:
        target = PurePosixPath(os.fsdecode(path))
        part = target.with_name(f".{os.fsdecode(os.fsencode(target.name)[:180])}.{secrets.token_hex(8)}.part")
        try:
            sent = self.send(part, chunks, mode=mode)
            if sent.size != size:
                raise FileRefused(
                    f"{str(target)!r} on {self.where} got {sent.size} bytes instead of {size}: is its disk full?",
                    path=str(target),
                )
            self.rename(part, target)
        except BaseException:
            with suppress(TransportError):
                self.remove(part)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def missing(path: RemotePath, where: str) -> FileRefused:
    """The error for a file that is not there."""
    text = os.fsdecode(path)
    return FileRefused(f"there is no file {text!r} on {where}", errno=errno.ENOENT, path=text)


def digest(chunks: Iterable[bytes]) -> str:
    """``sha256:<hex>`` of what comes."""
    total = hashlib.sha256()
    for chunk in chunks:
        total.update(chunk)
    return f"sha256:{total.hexdigest()}"
