"""Who listens to the broadcast: has the current picture at once, and asks again for what it lost."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import orjson
import zmq

from orchestrator.online.broadcast import ABOUT, BEAT, BEATS, OWN, QUEUED, Secure, connect
from orchestrator.online.publication import KINDS, parsed

PATIENCE = 3 * BEAT  # s without an answer after which it is asked again, and without a beat until it counts as gone
REMEMBERED = 50_000  # topics whose last number is kept; a year of runs has more
AT_ONCE = 1000  # messages of one ``receive`` at most


@dataclass(frozen=True)
class Message:
    """One message of the broadcast: see ``orchestrator.online.publication``."""

    kind: str
    run: str
    name: str
    header: dict[str, Any]
    body: bytes


class Subscriber:
    """Everything that is published, the newest of each topic first of all. To be used by one thread.

    A topic's messages come in order, each once; of those that were lost on the way to a slow subscriber the last one
    comes. After the broker was started again, messages that came before may come once more.

    Args:
        address: the broker's, for subscribers (``broadcast.subscribe``).
        secure: gives the socket its keys.
    """

    def __init__(self, address: str, *, secure: Secure | None = None, context: Any = None) -> None:
        self._socket = (context or zmq.Context.instance()).socket(zmq.SUB)
        self._socket.setsockopt(zmq.RCVHWM, QUEUED)
        self._own = OWN + uuid.uuid4().hex.encode() + b"/"
        for kind in KINDS:
            self._socket.setsockopt(zmq.SUBSCRIBE, kind.encode() + b"/")
        self._socket.setsockopt(zmq.SUBSCRIBE, BEATS)
        self._socket.setsockopt(zmq.SUBSCRIBE, self._own)
        connect(self._socket, address, secure)
        self._life = b""
        self._have = 0  # every message up to this one is known, or a newer one of its topic
        self._late: set[int] = set()  # numbers beyond it that have come already
        self._known: dict[bytes, int] = {}  # number of the last message of each topic
        self._asked: float | None = time.monotonic()  # when; None: nothing is missing
        self._from, self._until = 0, -1  # what was asked for; -1: everything
        self._heard = -PATIENCE

    def receive(self, timeout: float) -> list[Message]:
        """What has come, after at most ``timeout`` s of waiting for the first; often nothing, at beats."""
        found: list[Message] = []
        wait = int(timeout * 1000)
        while len(found) < AT_ONCE and self._socket.poll(0 if found else wait):
            wait = 0
            parts = self._socket.recv_multipart()
            self._heard = time.monotonic()
            message = self._take(parts)
            if message is not None:
                found.append(message)
        now = time.monotonic()
        if self._asked is not None and self._life and now - self._asked > PATIENCE:
            self._ask(self._from, self._until)
        return found

    @property
    def connected(self) -> bool:
        """Whether the broker was heard of within the last beats."""
        return time.monotonic() - self._heard < PATIENCE

    @property
    def complete(self) -> bool:
        """Whether nothing is known to be missing."""
        return bool(self._life) and self._asked is None

    def fileno(self) -> int:
        """For those who wait for many things: readable when ``receive(0)`` should be called."""
        return int(self._socket.getsockopt(zmq.FD))

    def close(self) -> None:
        """Listen no more."""
        self._socket.close(linger=0)

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self, parts: list[bytes]) -> Message | None:
        life, number = parts[1][:8], int.from_bytes(parts[1][8:], "big")
        if life != self._life:
            self._life, self._have, self._late, self._known = life, 0, set(), {}
            self._asked, self._from, self._until = time.monotonic(), 0, -1  # the connection itself has asked
        if parts[0] == BEATS:
            if number > self._have and self._asked is None:
                self._ask(self._have, number)
            return None
        if parts[0].startswith(OWN):
            if len(parts) == 4:
                self._part_ends(int(parts[2]), int(parts[3]))
                return None
            return self._new(parts[4], number, parts[2], parts[3])
        if number > self._have:
            self._late.add(number)
            self._close_up()
            if self._late and self._asked is None:
                self._ask(self._have, max(self._late))
        return self._new(parts[0], number, parts[2], parts[3])

    def _new(self, topic: bytes, number: int, header: bytes, body: bytes) -> Message | None:
        if number <= self._known.get(topic, 0):
            return None
        self._known[topic] = number
        if len(self._known) > REMEMBERED:
            old = sorted(self._known.values())[REMEMBERED // 2]
            self._known = {one: last for one, last in self._known.items() if last > old}
        kind, run, name = parsed(topic)
        try:
            said = orjson.loads(header)
        except ValueError:
            return None  # of whoever publishes it; the broker keeps it, so raising would never come to an end
        return Message(kind, run, name, said, body) if isinstance(said, dict) else None

    def _part_ends(self, reached: int, until: int) -> None:
        if self._asked is None or reached < self._from:
            return
        if reached < until:
            self._ask(reached, until)
            return
        self._asked = None
        self._have = max(self._have, until)
        self._late = {number for number in self._late if number > self._have}
        self._close_up()
        if self._late:
            self._ask(self._have, max(self._late))

    def _close_up(self) -> None:
        while self._have + 1 in self._late:
            self._have += 1
            self._late.discard(self._have)

    def _ask(self, first: int, until: int) -> None:
        self._asked, self._from, self._until = time.monotonic(), first, until
        wanted = self._own if until < 0 else self._own + b"%d/%d" % (first, until)
        if until < 0:
            self._socket.setsockopt(zmq.UNSUBSCRIBE, wanted)
            self._socket.setsockopt(zmq.SUBSCRIBE, wanted)
        else:
            self._socket.setsockopt(zmq.SUBSCRIBE, wanted)
            self._socket.setsockopt(zmq.UNSUBSCRIBE, wanted)


def about(address: str, *, secure: Secure | None = None, timeout: float = 1.0) -> dict[str, Any] | None:
    """How much the broker at an address keeps (see ``Cache.about``); None where it does not answer in time, in s.

    Raises SettingsError for an address that is none.
    """
    with zmq.Context() as context:
        socket = context.socket(zmq.SUB)
        own = OWN + uuid.uuid4().hex.encode() + b"/" + ABOUT
        try:
            socket.setsockopt(zmq.SUBSCRIBE, own)
            connect(socket, address, secure)
            end = time.monotonic() + timeout
            while (left := end - time.monotonic()) > 0 and socket.poll(int(left * 1000) + 1):
                parts = socket.recv_multipart()
                if parts[0] == own and len(parts) == 3:
                    found = orjson.loads(parts[2])
                    return found if isinstance(found, dict) else None
        finally:
            socket.close(linger=0)
    return None
