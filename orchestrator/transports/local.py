"""Commands and files of this machine, by the same contract as those of another."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from orchestrator.transports.base import CANNOT_ENTER, CHUNK, OUTPUT_LIMIT, Transport, digest
from orchestrator.transports.errors import FileRefused, TransportError, TransportUnavailable
from orchestrator.transports.model import Answer, Confirmed, Entry, RemotePath, Sent, Space, raw, shown

COMMAND_TIMEOUT = 60.0  # s for a command that is given no time of its own
KILL_AFTER = 2.0  # s between SIGTERM and SIGKILL
NOT_FOUND, NOT_EXECUTABLE = 127, 126  # exit codes, as a shell gives them


class LocalTransport(Transport):
    """See `Transport`. Relative paths begin in ``home``."""

    where = "this machine"

    def __init__(self, home: Path | None = None) -> None:
        self._home = os.fsencode(Path.home() if home is None else home)

    def run(
        self,
        argv: Sequence[str | bytes],
        stdin: bytes = b"",
        timeout: float | None = None,
        *,
        directory: RemotePath | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Answer:
        if not argv:
            raise ValueError("a command has at least one word")
        place = self._home if directory is None else self._path(directory)
        if not Path(os.fsdecode(place)).is_dir():
            return Answer(CANNOT_ENTER, "", f"cannot enter {shown(place)}: there is no such folder")
        seconds = COMMAND_TIMEOUT if timeout is None else timeout
        try:
            process = subprocess.Popen(
                list(argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=place,
                env={**os.environ, **(environment or {})}, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            code = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
            return Answer(code, "", f"{argv[0]!s}: {error.strerror}")
        try:
            stdout, stderr = process.communicate(stdin, timeout=seconds)
        except subprocess.TimeoutExpired:
            _end(process)
            raise TransportUnavailable(
                f"{str(argv[0])!r} on {self.where} did not end within {seconds:g} s and was killed", perhaps_done=True
            ) from None
        except BaseException:
            _end(process)
            raise
        if len(stdout) + len(stderr) > OUTPUT_LIMIT:
            raise TransportError(f"{str(argv[0])!r} on {self.where} printed more than {OUTPUT_LIMIT} bytes")
        code = process.returncode if process.returncode >= 0 else 128 - process.returncode
        return Answer(code, *(text.decode("utf-8", "surrogateescape") for text in (stdout, stderr)))

    def stat(self, path: RemotePath) -> Entry | None:
        with self._said(path, "look at"):
            try:
                found = os.stat(self._path(path))  # noqa: PTH116 - names are bytes
            except (FileNotFoundError, NotADirectoryError):
                return None
            name = os.path.basename(raw(path))  # noqa: PTH119
            return Entry(os.fsdecode(name), found.st_size, found.st_mode, found.st_mtime)

    def list(self, path: RemotePath) -> list[Entry]:
        entries = []
        with self._said(path, "list"), os.scandir(self._path(path)) as folder:
            for one in folder:
                with suppress(FileNotFoundError):
                    about = one.stat(follow_symlinks=False)
                    entries.append(Entry(os.fsdecode(one.name), about.st_size, about.st_mode, about.st_mtime))
        return entries

    def mkdir(self, path: RemotePath) -> None:
        with self._said(path, "make the folder"):
            os.makedirs(self._path(path), exist_ok=True)  # noqa: PTH103

    def rename(self, old: RemotePath, new: RemotePath) -> None:
        with self._said(old, f"rename to {shown(new)!r}"):
            os.replace(self._path(old), self._path(new))  # noqa: PTH105

    def rename_new(self, old: RemotePath, new: RemotePath) -> bool:
        with self._said(old, f"rename to {shown(new)!r}"):
            try:
                os.link(self._path(old), self._path(new), follow_symlinks=False)
            except FileExistsError:
                return False
            os.unlink(self._path(old))  # noqa: PTH108
            return True

    def remove(self, path: RemotePath) -> bool:
        with self._said(path, "remove"):
            try:
                os.unlink(self._path(path))  # noqa: PTH108
            except FileNotFoundError:
                return False
            return True

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
        with self._said(path, "write"):
            number = os.open(self._path(path), os.O_RDWR | os.O_CREAT | (0 if offset else os.O_TRUNC), mode)
        done = offset
        with os.fdopen(number, "r+b", buffering=0) as stream:
            with self._said(path, "write"):
                stream.truncate(offset)
                stream.seek(offset)
            for chunk in chunks:
                view = memoryview(chunk)
                with self._said(path, "write"):
                    while view:
                        view = view[stream.write(view) :]
                done += len(chunk)
                if confirmed is not None:
                    confirmed(done)
            with self._said(path, "write"):
                if flush:
                    os.fsync(number)
                data = os.pread(number, read_back, 0) if read_back else None
                return Sent(os.fstat(number).st_size, data)

    def receive(self, path: RemotePath, *, length: int | None = None) -> Iterator[bytes]:
        with self._said(path, "read"):
            stream = open(self._path(path), "rb", buffering=0)  # noqa: SIM115, PTH123 - a generator's own
        with stream:
            left = -1 if length is None else length
            while left:
                with self._said(path, "read"):
                    data = stream.read(CHUNK if left < 0 else min(CHUNK, left))
                if not data:
                    return
                yield data
                left -= len(data) if left > 0 else 0

    def checksum(self, path: RemotePath, length: int | None = None) -> str:
        return digest(self.receive(path, length=length))

    def absolute(self, path: RemotePath) -> str:
        return os.path.normpath(os.fsdecode(self._path(path)))

    def space(self, path: RemotePath) -> Space | None:
        try:
            usage = shutil.disk_usage(self._path(path))
        except OSError:
            return None
        return Space(usage.free, usage.total)

    def close(self) -> None:
        """Nothing is open."""

    def _path(self, path: RemotePath) -> bytes:
        return os.path.join(self._home, raw(path))  # noqa: PTH118 - names are bytes

    @contextmanager
    def _said(self, path: RemotePath, doing: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise FileRefused(
                f"could not {doing} {shown(path)!r} on {self.where}: {error.strerror}",
                errno=error.errno or 0, path=shown(path),
            ) from error  # fmt: skip


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a command and what it started: its process group."""
    for number, wait in ((signal.SIGTERM, KILL_AFTER), (signal.SIGKILL, None)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=wait)
            return
