"""Commands and files of an account on another machine, through one SSH connection that all threads share."""

from __future__ import annotations

import errno
import os
import posixpath
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from itertools import chain, islice

from orchestrator.transports import bulk, command
from orchestrator.transports.access import SiteAccess
from orchestrator.transports.base import READ_LIMIT, Transport, digest, missing
from orchestrator.transports.connection import Connection
from orchestrator.transports.errors import (
    FileRefused,
    TransportError,
    TransportRefused,
    TransportUnavailable,
)
from orchestrator.transports.helper import Helper
from orchestrator.transports.model import Answer, Confirmed, Entry, Placed, RemotePath, Sent, Space, raw
from orchestrator.transports.sftp import Sftp, entry
from orchestrator.transports.sums import Sums
from orchestrator.transports.upload import Upload, at_once
from orchestrator.transports.wire import Open

FIRST_PAUSE = 1.0  # s after a connection that could not be made, before the next is tried; doubled each time
LONGEST_PAUSE = 60.0  # s
REFUSED_PAUSE = 60.0  # s after a refused login: accounts are locked after a few


class SshTransport(Transport):
    """See `Transport`. Connects when first used, and again, after a growing pause, once the connection is lost."""

    def __init__(
        self,
        access: SiteAccess,
        *,
        environ: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
        connect: Callable[[SiteAccess, Mapping[str, str]], Connection] = Connection.open,
    ) -> None:
        """``environ`` is where ``password_from: env:`` looks; clock, jitter (0 to 1) and connect are for tests."""
        self.access = access = access.resolved()
        self.where = access.where
        self._environ = os.environ if environ is None else environ
        self._clock, self._jitter, self._connect = clock, jitter, connect
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(access.sessions)
        self._current: Connection | None = None
        self._failures = 0
        self._not_before = 0.0
        self._last: TransportError | None = None
        self._idle: list[Sftp] = []
        self._busy = 0
        self._sums = Sums()

    def __repr__(self) -> str:
        return f"<SshTransport {self.where}>"

    def close(self) -> None:
        with self._lock:
            current, self._current, self._sums = self._current, None, Sums()
            self._idle.clear()
        if current is not None:
            current.close()

    # ---- commands

    def run(
        self,
        argv: Sequence[str | bytes],
        stdin: bytes = b"",
        timeout: float | None = None,
        *,
        directory: RemotePath | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Answer:
        with self._slot():
            self._make_room()
            place = b"" if directory is None else raw(directory)
            seconds = self.access.timeouts.command if timeout is None else timeout
            return command.run(self._connection(), argv, stdin, seconds, place, environment)

    # ---- files

    def stat(self, path: RemotePath) -> Entry | None:
        name = raw(path)
        with self._sftp() as sftp:
            about = sftp.stat(name)
        return None if about is None else entry(posixpath.basename(name), about)

    def list(self, path: RemotePath) -> list[Entry]:
        with self._sftp() as sftp:
            return sftp.list(raw(path))

    def mkdir(self, path: RemotePath) -> None:
        name = posixpath.normpath(raw(path))
        with self._sftp() as sftp:
            absent: list[bytes] = []
            while name not in (b"", b"/", b".") and (found := sftp.stat(name)) is None:
                absent.append(name)
                name = posixpath.dirname(name)
            if name not in (b"", b"/", b".") and found is not None and found.mode & 0o170000 != 0o040000:
                raise FileRefused(f"{os.fsdecode(name)!r} on {self.where} is no folder", path=os.fsdecode(name))
            for folder in reversed(absent):
                _make(sftp, folder)

    def rename(self, old: RemotePath, new: RemotePath) -> None:
        with self._sftp() as sftp:
            sftp.rename(raw(old), raw(new))

    def rename_new(self, old: RemotePath, new: RemotePath) -> bool:
        with self._sftp() as sftp:
            return sftp.rename_new(raw(old), raw(new))

    def remove(self, path: RemotePath) -> bool:
        with self._sftp() as sftp:
            return sftp.remove(raw(path))

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
        name = raw(path)
        with self._sftp() as sftp, ExitStack() as stack:
            flags = Open.WRITE | Open.CREATE | (Open.READ if read_back else 0) | (0 if offset else Open.TRUNCATE)
            opening, begun = sftp.begin_open(name, flags, mode), iter(chunks)
            likely = None if offset or follow else sftp.likely_handle()
            if likely is None:
                sftp.dispatch(opening[1])  # the beginning is read while the far end opens the file
            try:
                first = list(islice(begun, 1))
                if likely is not None:
                    first = [*map(bytes, first), *islice(begun, 1)]  # a copy, since the next one may take its place
            except BaseException:
                if likely is None:
                    with suppress(FileRefused):
                        sftp.close_handle(sftp.opened(opening[0], name))
                raise
            if likely is not None and len(first) < 2 and sum(map(len, first)) <= sftp.block:
                found = at_once(
                    sftp, name, opening, likely, b"".join(first), flush=flush, read_back=read_back, confirmed=confirmed
                )
                if isinstance(found, Sent):
                    return found
                handle = found
            else:
                if likely is not None:
                    sftp.dispatch(opening[1])
                handle = sftp.opened(opening[0], name)
            follower = stack.enter_context(self._sums.following(sftp.connection, name)) if follow else None
            upload = Upload(sftp, handle, name, offset, _both(follower, confirmed))
            try:
                if offset:
                    sftp.cut(handle, name, offset)
                for chunk in chain(first, begun):
                    if not upload.write(chunk):
                        break
            except TransportUnavailable:
                raise
            except BaseException:
                upload.give_up()
                raise
            sent = upload.finish(flush, read_back)
            return sent if follower is None else replace(sent, checksum=follower.total(sent.size))

    def places_at_once(self) -> bool:
        return self._sums.python(self._connection())

    def place(self, part: RemotePath, target: RemotePath, checksum: str, size: int) -> Placed:
        placed = self._sums.place(self._connection(), raw(part), raw(target), checksum, size)
        if placed is None:
            return super().place(part, target, checksum, size)
        return self._renamed(placed, part, target, checksum)

    def deliver(
        self, part: RemotePath, target: RemotePath, data: bytes, checksum: str, *, flush: bool = True
    ) -> Placed | None:
        placed = self._sums.put(self._connection(), raw(part), raw(target), data, checksum, flush)
        return None if placed is None else self._renamed(placed, part, target, checksum)

    def _renamed(self, placed: Placed, part: RemotePath, target: RemotePath, checksum: str) -> Placed:
        """What could not be given its last name there, on a file system without links, is given it from here."""
        if placed.placed is None and placed.checksum == checksum:
            return replace(placed, placed=self.rename_new(part, target))
        return placed

    def receive(self, path: RemotePath, *, length: int | None = None) -> Iterator[bytes]:
        with self._sftp() as sftp:
            yield from sftp.read_file(raw(path), length)

    def checksum(self, path: RemotePath, length: int | None = None) -> str:
        found = self.stat(path)
        if found is None:
            raise missing(path, self.where)
        total = self._sums.sum(self._connection(), raw(path), found.size, length)
        return total or digest(self.receive(path, length=length))

    def read_many(self, paths: Sequence[RemotePath], limit: int = READ_LIMIT) -> Sequence[bytes | FileRefused]:
        with self._sftp() as sftp:
            return bulk.read_files(sftp, [raw(path) for path in paths], limit)

    def list_many(self, paths: Sequence[RemotePath]) -> Sequence[Sequence[Entry] | FileRefused]:
        with self._sftp() as sftp:
            return bulk.list_folders(sftp, [raw(path) for path in paths])

    def remove_many(self, paths: Sequence[RemotePath]) -> None:
        if not paths:
            return
        with self._sftp() as sftp:
            bulk.remove_files(sftp, [raw(path) for path in paths])

    def absolute(self, path: RemotePath) -> str:
        with self._sftp() as sftp:
            home = sftp.real_path(b".")
        return os.fsdecode(posixpath.normpath(posixpath.join(home, raw(path))))

    def space(self, path: RemotePath) -> Space | None:
        with self._sftp() as sftp:
            return sftp.space(raw(path))

    # ---- the connection

    @contextmanager
    def _slot(self) -> Iterator[None]:
        """One of the sessions that the server allows at once."""
        seconds = self.access.timeouts.command + self.access.timeouts.login
        if not self._slots.acquire(timeout=seconds):
            raise TransportUnavailable(
                f"all {self.access.sessions} sessions to {self.where} were in use for {seconds:g} s: tried again later"
            )
        with self._lock:
            self._busy += 1
        try:
            yield
        finally:
            with self._lock:
                self._busy -= 1
            self._slots.release()

    def _make_room(self) -> None:
        """Closes a session that nobody uses where the server would refuse one more."""
        with self._lock:
            if self._idle and self._busy + len(self._idle) > self.access.sessions:
                self._idle.pop().close()

    @contextmanager
    def _sftp(self) -> Iterator[Sftp]:
        """A session for files, kept for the next who needs one."""
        with self._slot():
            connection = self._connection()
            with self._lock:
                self._idle = [one for one in self._idle if one.usable and one.connection is connection]
                session = self._idle.pop() if self._idle else None
            if session is None:
                session = Sftp(connection)
            try:
                yield session
            finally:
                if session.usable:
                    with self._lock:
                        self._idle.append(session)

    def _connection(self) -> Connection:
        """The connection, made anew where it is lost. Never waits for a pause to pass: the caller has better to do."""
        with self._lock:
            if self._current is not None and self._current.alive:
                return self._current
            left = self._not_before - self._clock()
            if left > 0 and self._last is not None:
                raise self._again(self._last, left)
            if self._current is not None:
                self._current.close()
                self._current = None
            self._idle.clear()
            try:
                self._current = self._connect(self.access, self._environ)
            except TransportUnavailable as error:
                pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self._failures, 10))
                self._postpone(error, pause * (0.5 + self._jitter()))
                raise
            except TransportRefused as error:
                self._postpone(error, REFUSED_PAUSE)
                raise
            self._failures, self._last = 0, None
            return self._current

    def _postpone(self, error: TransportError, pause: float) -> None:
        self._failures += 1
        self._not_before = self._clock() + pause
        self._last = error

    def _again(self, last: TransportError, left: float) -> TransportError:
        """The last attempt's error once more, without an attempt."""
        text = f"{last} (not asked again for another {left:.0f} s)"
        return TransportUnavailable(text) if isinstance(last, TransportUnavailable) else type(last)(text)


def _make(sftp: Sftp, folder: bytes) -> None:
    """Makes one folder, or finds that another has made it in the same moment."""
    try:
        sftp.mkdir(folder)
    except FileRefused as error:
        if error.errno != errno.EEXIST:
            raise


def _both(follower: Helper | None, confirmed: Confirmed | None) -> Confirmed | None:
    """Tells both how far a file has come."""
    if follower is None:
        return confirmed

    def tell(done: int) -> None:
        follower.upto(done)
        if confirmed is not None:
            confirmed(done)

    return tell
