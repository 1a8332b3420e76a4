"""The file that is sent: read ahead in a thread, summed up while it is read, and watched for changes."""

from __future__ import annotations

import hashlib
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from orchestrator.errors import TransientError
from procs.outputs import storage, storage_fault

CHUNK = 510 * 1024  # bytes read at once: two requests of 255 KiB
AHEAD = 6  # chunks read before they are sent
SMALL = CHUNK  # a file of this size is not worth a thread


class Source:
    """An open file and what it was when it was opened."""

    def __init__(self, path: Path, stream: FileIO) -> None:
        self.path = path
        self._stream = stream
        self._before = os.fstat(stream.fileno())
        self.size = self._before.st_size
        self._sum = hashlib.sha256()

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> Iterator[Source]:
        """Opens a file. Raises as `procs.outputs.storage` does."""
        with storage(path, "reading"):
            stream = path.open("rb", buffering=0)
        with stream:
            yield cls(path, stream)

    @property
    def checksum(self) -> str:
        """``sha256:<hex>`` of what was read so far."""
        return f"sha256:{self._sum.hexdigest()}"

    def skip(self, count: int) -> None:
        """Reads the first ``count`` bytes only to sum them up; `chunks` goes on from there."""
        self._sum = hashlib.sha256()
        self._seek(0)
        buffer = memoryview(bytearray(min(CHUNK, count)))
        while count > 0:
            count -= self._read(buffer[:count])

    def rewind(self) -> None:
        """Begins anew."""
        self._sum = hashlib.sha256()
        self._seek(0)

    def chunks(self, start: int) -> Iterator[memoryview]:
        """The bytes from ``start``, where the file stands, to the end. Each chunk holds until the next is asked for.

        Raises:
            TransientError: the file grew or shrank meanwhile, or cannot be read.
        """
        left = self.size - start
        if left <= SMALL:
            yield from self._in_turn(left)
            return
        ahead: queue.Queue[memoryview | BaseException | None] = queue.Queue(AHEAD)
        stopped = threading.Event()

        def hand_on(item: memoryview | BaseException | None) -> None:
            while not stopped.is_set():
                try:
                    ahead.put(item, timeout=0.2)
                    return
                except queue.Full:
                    continue

        def work() -> None:
            try:
                for chunk in self._in_turn(left):
                    hand_on(chunk)
                    if stopped.is_set():
                        return
                hand_on(None)
            except BaseException as error:
                hand_on(error)

        thread = threading.Thread(target=work, name="sftp source", daemon=True)
        thread.start()
        try:
            while (item := ahead.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stopped.set()
            thread.join()

    def unchanged(self) -> None:
        """Raises TransientError if the file is not what it was when it was opened."""
        with storage(self.path, "reading"):
            for now in (os.fstat(self._stream.fileno()), self.path.stat()):
                if _identity(now) != _identity(self._before):
                    raise TransientError(
                        f"{self.path} changed while it was sent ({self.size} -> {now.st_size} bytes): "
                        "tried again once it is quiet."
                    )

    def _in_turn(self, left: int) -> Iterator[memoryview]:
        # The same few buffers in turn, since fresh ones cost more than the reading: as many as can wait, one that is
        # being sent, and one that is being filled.
        buffers = [memoryview(bytearray(min(CHUNK, left))) for _ in range(AHEAD + 2 if left > CHUNK else 1)]
        number = 0
        while left > 0:
            chunk = buffers[number % len(buffers)][:left]
            count = self._read(chunk)
            left -= count
            number += 1
            yield chunk[:count]

    def _seek(self, place: int) -> None:
        self._stream.seek(place)

    def _read(self, into: memoryview) -> int:
        """Fills a buffer, or a part of it; how many bytes."""
        try:
            count: int = self._stream.readinto(into)
        except OSError as error:
            raise storage_fault(error, self.path, "reading") from error
        if not count:
            raise TransientError(f"{self.path} became shorter while it was sent: tried again once it is quiet.")
        self._sum.update(into[:count])
        return count


def _identity(found: os.stat_result) -> tuple[int, int, int, int]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def paced(
    chunks: Iterator[memoryview],
    rate: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[float], object] | None = None,
) -> Iterator[memoryview]:
    """The same bytes, no faster than ``rate`` bytes/s; 0 is no limit."""
    if rate <= 0:
        yield from chunks
        return
    pause = wait or threading.Event().wait
    piece = max(1024, min(255 * 1024, int(rate / 4)))  # at least four times a second, for an even flow
    began, sent = clock(), 0
    for chunk in chunks:
        for start in range(0, len(chunk), piece):
            part = chunk[start : start + piece]
            yield part
            sent += len(part)
            early = began + sent / rate - clock()
            if early > 0:
                pause(early)
            elif early < -1.0:  # a slow hour is not made up for by a fast one
                began -= early + 1.0
