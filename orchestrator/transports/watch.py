"""The time-out on everything: whoever waits for another machine is freed when the time is up.

The SSH library waits for ever in several places (a full socket, a stalled jump host). A watch ends such a wait from
outside, by ending the connection.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_TICK = 0.2  # s between two looks at the deadlines, and so their precision


class Limit:
    """One operation's deadline; ``touch`` sets it off anew after each sign of life."""

    def __init__(self, seconds: float, what: str, clock: Callable[[], float]) -> None:
        self.seconds = seconds
        self.what = what
        self._clock = clock
        self.until = clock() + seconds

    def touch(self) -> None:
        self.until = self._clock() + self.seconds


class Watch:
    """Ends one connection when one of its operations takes too long."""

    def __init__(self, end: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        """``end`` is called once, from another thread, with a sentence's end: what had not come after how long."""
        self._end = end
        self._clock = clock
        self._lock = threading.Lock()
        self._limits: set[Limit] = set()
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def limit(self, seconds: float, what: str) -> Iterator[Limit]:
        """Ends the connection if the block takes more than ``seconds``, from the start or the last ``touch``."""
        limit = Limit(seconds, what, self._clock)
        with self._lock:
            if self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(target=self._look, name="transport watch", daemon=True)
                self._thread.start()
            self._limits.add(limit)
            self._wake.set()
        try:
            yield limit
        finally:
            with self._lock:
                self._limits.discard(limit)
                if not self._limits:
                    self._wake.clear()

    def close(self) -> None:
        self._closed.set()
        self._wake.set()

    def _look(self) -> None:
        while self._wake.wait() and not self._closed.wait(_TICK):
            with self._lock:
                late = [limit for limit in self._limits if self._clock() > limit.until]
            if late:
                self._end(f"no {late[0].what} within {late[0].seconds:g} s")
                return
