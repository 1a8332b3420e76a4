"""Listens to the broadcast in a thread, and hands what comes to the event loop; begins anew after any fault."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable

from orchestrator.errors import OrchestratorError
from orchestrator.online.broadcast import Secure
from orchestrator.online.subscribing import Message, Subscriber

log = logging.getLogger(__name__)

#: For the first message of a batch, in seconds; an end is noticed within it.
WAIT = 0.25
#: Batches that the event loop has not taken yet. With more, this thread waits, and the broadcast drops what is old.
AHEAD = 4
#: After a fault, in seconds.
PAUSE = 1.0


class Listener:
    """One subscription for all viewers.

    Args:
        address: the broadcast's, for subscribers.
        taken: gets each batch, in the event loop.
        changed: told, in the event loop, when the broadcast comes or goes.
    """

    def __init__(
        self, address: str, taken: Callable[[list[Message]], None], changed: Callable[[], None],
        *, secure: Secure | None = None,
    ) -> None:  # fmt: skip
        self.address = address
        self.connected = False
        self.complete = False  # the whole picture has come since the broadcast is there
        self._taken, self._changed, self._secure = taken, changed, secure
        self._stop = threading.Event()
        self._room = threading.Semaphore(AHEAD)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begin; to be called in the event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="broadcast", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End soon."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with Subscriber(self.address, secure=self._secure) as subscriber:
                    self._listen(subscriber)
            except OrchestratorError as error:
                log.error("the broadcast cannot be followed: %s", error)
            except Exception:
                log.exception("a fault while following the broadcast at %s; it is begun anew", self.address)
            self._is(connected=False)
            self._stop.wait(PAUSE)

    def _listen(self, subscriber: Subscriber) -> None:
        while not self._stop.is_set():
            messages = subscriber.receive(WAIT)
            self._is(connected=subscriber.connected)
            if messages:
                while not self._room.acquire(timeout=WAIT):
                    if self._stop.is_set():
                        return
                self._call(self._hand_over, messages)
            if self.connected and not self.complete and subscriber.complete:
                self._call(self._has_all)  # after what came before it

    def _is(self, *, connected: bool) -> None:
        if connected == self.connected:
            return
        self.connected = connected
        self.complete = False
        log.info("the broadcast at %s %s", self.address, "is there" if connected else "is away")
        self._call(self._changed)

    def _has_all(self) -> None:
        self.complete = self.connected

    def _hand_over(self, messages: list[Message]) -> None:
        self._room.release()
        self._taken(messages)

    def _call(self, what: Callable[..., None], *given: object) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(what, *given)
        except RuntimeError:  # the loop has ended
            self._stop.set()
