"""The time-out on everything: whoever waits for another machine is freed when the time is up.

The SSH library waits for ever in several places (a full socket, a stalled jump host). A watch ends such a wait from
outside, by ending the connection.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_TICK = 0.2  # s between two looks at the deadlines, and so their precision


class Limit:
    """A deadline: set while somebody waits, and cleared when he no longer does. Both cost next to nothing."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self.seconds = seconds
        self.what = ""
        self.until = math.inf
        self._clock = clock

    def wait_for(self, what: str) -> None:
        """From now on ``what`` is waited for."""
        self.what = what
        self.until = self._clock() + self.seconds

    def clear(self) -> None:
        """It has come."""
        self.until = math.inf


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

    def add(self, seconds: float) -> Limit:
        """A new deadline, not set yet. `drop` it when it is no longer needed."""
        limit = Limit(seconds, self._clock)
        with self._lock:
            if self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(target=self._look, name="transport watch", daemon=True)
                self._thread.start()
            self._limits.add(limit)
            self._wake.set()
        return limit

    def drop(self, limit: Limit) -> None:
        """The deadline is no longer needed."""
        with self._lock:
            self._limits.discard(limit)
            if not self._limits:
                self._wake.clear()

    @contextmanager
    def limit(self, seconds: float, what: str) -> Iterator[Limit]:
        """Ends the connection if the block takes more than ``seconds``."""
        limit = self.add(seconds)
        limit.wait_for(what)
        try:
            yield limit
        finally:
            self.drop(limit)

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
