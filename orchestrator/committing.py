"""A poller's bulk writes, on their way while the next are decided.

A bulk write takes the database longer than the poller needs to decide what stands in it, and the poller would stand
still meanwhile. So threads of their own wait for the database, and the loop takes the answers in when they are there.
Two bulks may be on their way, of different documents always: while the first is being weighed the second is being read.
"""

from __future__ import annotations

import gc
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable

from orchestrator.engine.engine import Engine
from orchestrator.engine.flight import BULK, Flight
from orchestrator.runner import Task

#: Bulks that are written at the same time: one more would only wait for the database's one writer.
TOGETHER = 2
#: The second of them is worth its request from so many documents on; fewer wait and go with what comes meanwhile.
WORTH = BULK // 4
#: So few documents, with nothing on its way, are written by the loop itself: two threads would hand over to each other
#: twice, which costs a file that is closed while all is idle more than it brings.
FEW = 8
#: The interpreter goes from thread to thread this often (s): by default an answer would wait 5 ms for the loop.
SWITCH_INTERVAL = 0.0005
#: Documents hold no cycles: those are looked for after so many objects, some bulks' worth, instead of each 700.
GARBAGE = 20_000


class Committer:
    """Writes what an engine decides. Use from the engine's thread; ``wake`` is called from others, after an answer."""

    def __init__(self, engine: Engine, wake: Callable[[], None], few: int = FEW) -> None:
        self._engine, self._outbox, self._wake, self._few = engine, engine.outbox, wake, few
        self._leaving: queue.SimpleQueue[Flight] = queue.SimpleQueue()
        self._landed: deque[Flight] = deque()
        self._change = threading.Condition()
        self._threads: list[threading.Thread] = []
        sys.setswitchinterval(min(SWITCH_INTERVAL, sys.getswitchinterval()))
        gc.set_threshold(max(GARBAGE, gc.get_threshold()[0]), *gc.get_threshold()[1:])

    def due(self) -> bool:
        """Whether something can be done at once: an answer taken in, or a bulk sent off."""
        return bool(self._landed) or self._may_leave()

    def busy(self) -> bool:
        """Whether anything is decided and not written, as far as is known."""
        return bool(self._outbox.flying or self._outbox)

    def commit(self, now: float) -> list[Task]:
        """Send off what waits, take in what has been answered; the tasks whose claims are now in the database.

        Raises Unavailable or Unauthorised with all that was not written waiting in the engine.
        """
        if not self._outbox.flying and len(self._outbox) <= self._few:
            return self._engine.commit(now)
        while self._may_leave():
            self._leave()
        self._land(now)
        return self._engine.tasks()

    def finish(self, now: float) -> list[Task]:
        """The same, and wait until everything is written."""
        with self._change:
            self._change.wait_for(lambda: len(self._landed) == len(self._outbox.flying))
        self._land(now)
        return self._engine.commit(now)

    def _may_leave(self) -> bool:
        aloft = len(self._outbox.flying) - len(self._landed)
        return aloft < TOGETHER and len(self._outbox) >= (WORTH if aloft else 1)

    def _leave(self) -> None:
        flight = self._outbox.depart()
        if len(self._threads) < min(len(self._outbox.flying), TOGETHER):
            number = len(self._threads)
            self._threads.append(threading.Thread(target=self._write, name=f"writer-{number}", daemon=True))
            self._threads[-1].start()
        self._leaving.put(flight)

    def _write(self) -> None:
        """A thread: one bulk after the other, for ever."""
        while True:
            flight = self._leaving.get().go(self._engine.database)
            with self._change:
                self._landed.append(flight)
                self._change.notify()
            self._wake()

    def _land(self, now: float) -> None:
        """Take in every answer that is here; then raise the first fault among them."""
        fault: Exception | None = None
        while self._landed:
            try:
                self._engine.land(self._landed.popleft(), now)
            except Exception as error:
                fault = fault or error
        if fault is not None:
            raise fault
