"""Who sends plots to the broadcast: never waits for it, and sends all again to a broker that is new."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import OrderedDict
from types import TracebackType
from typing import Any

import orjson
import zmq

from orchestrator.online.broadcast import QUEUED, Secure, connect
from orchestrator.online.cache import RUNS
from orchestrator.online.publication import Header, encoded, parsed, topic

FULL = 5  # ms until a full queue is tried again
LOOK = 200  # ms until it looks again whether it is to end
CLOSING = 1.0  # s for the last messages when it is closed

Message = tuple[bytes, bytes]  # header and body


class Publisher:
    """Sends the last message of each topic; what comes faster than the broker takes it is replaced by what is newer.

    ``publish`` only notes the message; a thread of the publisher's own sends it. It keeps the last message of each
    topic of the last few runs for a broker that is started again.

    Args:
        address: the broker's, for publishers (``broadcast.publish``).
        secure: gives the socket its keys.
        runs: so many runs are kept.
    """

    def __init__(self, address: str, *, secure: Secure | None = None, context: Any = None, runs: int = RUNS) -> None:
        self._socket = (context or zmq.Context.instance()).socket(zmq.XPUB)
        self._socket.setsockopt(zmq.XPUB_NODROP, 1)
        # A lost connection's queue goes with it, and every new one's subscription is shown, though it is the same.
        self._socket.setsockopt(zmq.IMMEDIATE, 1)
        self._socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        self._socket.setsockopt(zmq.SNDHWM, QUEUED)
        connect(self._socket, address, secure)
        self._runs = runs
        self._last: OrderedDict[str, dict[bytes, Message]] = OrderedDict()
        self._waiting: OrderedDict[bytes, Message] = OrderedDict()
        self._lock = threading.Lock()
        self._heard = False  # by the broker
        self._closing = False
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._thread = threading.Thread(target=self._work, name="publisher", daemon=True)
        self._thread.start()

    def publish(self, kind: str, run: str, name: str, header: Header | dict[str, Any], body: bytes = b"") -> None:
        """Send one message; ``kind`` is ``plot``, ``counts`` or ``run``. Returns at once."""
        self.send(topic(kind, run, name), encoded(header), body)

    def send(self, to: bytes, header: bytes, body: bytes = b"") -> None:
        """The same with everything encoded."""
        run = parsed(to)[1]
        with self._lock:
            self._last.setdefault(run, {})[to] = (header, body)
            self._last.move_to_end(run)
            while len(self._last) > self._runs:
                self._last.popitem(last=False)
            self._waiting[to] = (header, body)
            self._waiting.move_to_end(to)
        self._wake()

    def last(self, kind: str, run: str, name: str = "") -> dict[str, Any] | None:
        """The header that was published last on a topic."""
        with self._lock:
            found = self._last.get(run, {}).get(topic(kind, run, name))
        return None if found is None else dict(orjson.loads(found[0]))

    @property
    def connected(self) -> bool:
        """Whether a broker listens just now."""
        return self._heard

    def close(self) -> None:
        """Send what waits, for a moment, and end."""
        self._closing = True
        self._wake()
        self._thread.join(CLOSING + 1.0)
        self._wake_in.close()
        self._wake_out.close()

    def __enter__(self) -> Publisher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it is awake
            self._wake_in.send(b"!")

    def _work(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._wake_out, zmq.POLLIN)
        deadline = None
        while True:
            with self._lock:
                waits = bool(self._waiting)
            ready = dict(poller.poll(FULL if waits and self._heard else LOOK))
            if self._wake_out.fileno() in ready:
                with contextlib.suppress(OSError):
                    self._wake_out.recv(65536)
            if self._socket in ready:
                self._listen()
            if self._heard:
                self._send()
            if self._closing:
                now = time.monotonic()
                deadline = deadline or now + CLOSING
                with self._lock:
                    waits = bool(self._waiting)
                if not waits or now > deadline:
                    self._socket.close(linger=int(CLOSING * 1000))
                    return

    def _listen(self) -> None:
        """A subscription is the broker that has come; its end, the broker that has gone."""
        while True:
            try:
                said = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._heard = said[:1] == b"\x01"
            if self._heard:
                with self._lock:
                    again = {to: message for held in self._last.values() for to, message in held.items()}
                    self._waiting = OrderedDict({**again, **self._waiting})

    def _send(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    return
                to, (header, body) = self._waiting.popitem(last=False)
            try:
                self._socket.send_multipart([to, header, body], zmq.NOBLOCK)
            except zmq.Again:
                with self._lock:
                    if to not in self._waiting:
                        self._waiting[to] = (header, body)
                        self._waiting.move_to_end(to, last=False)
                return
