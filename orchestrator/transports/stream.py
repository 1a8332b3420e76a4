"""The socket under an SSH connection, with fewer calls of the system for the same bytes.

The SSH library sends each of its packets (at most 32 KiB) by a call of its own and reads each by two. Here what one
thread sends together goes in one call, and what has come is read in one. Order and content are the library's.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

TOGETHER = 120 * 1024  # bytes gathered before they are sent: below what makes the allocator ask the kernel each time
READ = 64 * 1024  # bytes asked for at once


class Stream:
    """A socket, or what looks like one, for `paramiko.Transport`. What is not defined here is the socket's own."""

    def __init__(self, connected: Any) -> None:
        self._socket = connected
        self._lock = threading.Lock()
        self._gathered: list[bytes | memoryview] = []
        self._size = 0
        self._gatherer: int | None = None
        self._read = b""
        self._at = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    @contextmanager
    def together(self) -> Iterator[None]:
        """What this thread sends in the block may be kept until its end.

        Another thread's packet takes the kept ones along, since packets must go in the order in which they were
        encrypted.
        """
        self._gatherer = threading.get_ident()
        try:
            yield
        finally:
            self._gatherer = None
            with self._lock:
                if self._gathered:
                    self._send()

    def send(self, data: bytes | memoryview) -> int:
        """Sends all of ``data``, now or with what follows. Raises OSError."""
        with self._lock:
            self._gathered.append(data)
            self._size += len(data)
            if self._gatherer != threading.get_ident() or self._size >= TOGETHER:
                self._send()
        return len(data)

    def _send(self) -> None:
        kept, self._gathered, self._size = self._gathered, [], 0
        view = memoryview(kept[0] if len(kept) == 1 else b"".join(kept))
        while view:
            try:
                sent = self._socket.send(view)
            except TimeoutError:  # the library's own, by which it looks around; the connection's watch ends this wait
                continue
            if sent == 0:
                raise ConnectionResetError("the other end takes no more")
            view = view[sent:]

    def recv(self, count: int) -> bytes:
        """At most ``count`` bytes, of those that have come already if there are any. Raises OSError."""
        if self._at >= len(self._read):
            self._read, self._at = self._socket.recv(READ), 0
        data: bytes = self._read[self._at : self._at + count]
        self._at += len(data)
        return data

    def take(self, count: int) -> bytes:
        """Exactly ``count`` bytes, if so many were read already, else none."""
        end = self._at + count
        if end > len(self._read):
            return b""
        data, self._at = self._read[self._at : end], end
        return data
