"""Plots on their way to viewers, in memory: nothing here touches a disk or the run database.

Reducers and the transform send to one broker (``Publisher``), any number of web servers listen to it (``Subscriber``).
The broker keeps the last message of each topic for the last few runs, so whoever joins, or joins again, has the current
picture at once. A viewer that is slow loses messages and nobody waits for it; what it lost it asks for, and gets the
newest of each topic, once. A broker that was started again is filled by those who publish, without being asked.

On the wire. A publisher is an XPUB socket that connects to the broker's SUB socket and sends ``[topic, header, body]``;
the broker's subscription, which comes anew with every connection, tells it to send all it has. The broker's XPUB socket
sends ``[topic, stamp, header, body]``; the stamp is eight bytes that name this life of the broker and eight bytes, big
endian, of a number that grows by one with each message, so a gap is seen. ``[\\x01, stamp]`` each second says what the
last number was. A subscriber has a topic of its own, ``\\x00<its id>/``. Subscribing to it asks for everything, to
``\\x00<its id>/<from>/<to>`` for what came after number <from> and not after <to>. Answers come to its own topic:
``[own topic, stamp, header, body, topic]`` each, and at the end of a part ``[own topic, stamp, next, to]``.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq

from orchestrator.errors import Conflict, SettingsError
from orchestrator.online.configuration import Broadcast
from orchestrator.online.keys import keys_for
from orchestrator.online.publication import KINDS, parsed

RUNS = 4  # last runs whose plots are kept: the present one, and some to compare it with
TOPICS = 5000  # of one run; a reducer that makes more plots than that is out of order
MEMORY = 512 * 1024 * 1024  # bytes of all that is kept; the oldest run goes when there is more, the newest never
MESSAGE = 64 * 1024 * 1024  # bytes; a plot is some kB, a large one with two axes a few hundred
QUEUED = 400  # messages that wait for one viewer before it loses some: a refresh of many plots fits in
PART = 64  # messages of one part of an answer, less than QUEUED so that a part is not lost
PART_BYTES = 8 * 1024 * 1024  # and its size
BEAT = 1.0  # s between two beats: a viewer notices a loss without another message within that
PING = 2000  # ms between two signs of life on a connection
DEAD = 10_000  # ms without one after which a connection is given up, and what waits for it is forgotten
BACK = (100, 1000)  # ms until a lost connection is tried again, at first and at most

OWN, BEATS = b"\x00", b"\x01"
Secure = Callable[[Any], None]  # gives a socket its keys, before it binds or connects


@dataclass
class Kept:
    """The last message of one topic, and its number."""

    number: int
    topic: bytes
    header: bytes
    body: bytes


class Cache:
    """The last message of each topic, of the runs that were heard of last. Pure.

    Args:
        runs: how many runs are kept; the one that was not heard of for longest goes first.
        topics: how many topics of one run are kept.
        memory: bytes above which the oldest runs go; the newest one stays.
    """

    def __init__(self, runs: int = RUNS, topics: int = TOPICS, memory: int = MEMORY) -> None:
        self.number = 0
        self.size = 0
        self._runs = runs
        self._topics = topics
        self._memory = memory
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()  # the newest last
        self._by_run: OrderedDict[str, set[bytes]] = OrderedDict()

    def take(self, topic: bytes, header: bytes, body: bytes) -> int:
        """Keep a message; its number. Raises ValueError for a topic that is none."""
        kind, run, _ = parsed(topic)
        if kind not in KINDS or not run:
            raise ValueError(f"{topic[:80]!r} is no topic")
        self.number += 1
        members = self._by_run.setdefault(run, set())
        self._by_run.move_to_end(run)
        if topic not in members and len(members) >= self._topics:
            return self.number  # it goes to those who listen, and is not kept
        members.add(topic)
        self._forget(topic)
        self._kept[topic] = Kept(self.number, topic, header, body)
        self.size += len(header) + len(body)
        while len(self._by_run) > self._runs or (self.size > self._memory and len(self._by_run) > 1):
            _, old = self._by_run.popitem(last=False)
            for one in old:
                self._forget(one)
        return self.number

    def _forget(self, topic: bytes) -> None:
        known = self._kept.pop(topic, None)
        if known is not None:
            self.size -= len(known.header) + len(known.body)

    def since(self, number: int, until: int, most: int = PART, size: int = PART_BYTES) -> tuple[list[Kept], int]:
        """Messages with numbers above ``number`` and not above ``until``, in order, at most so many and so large.

        The second value is the number up to which these are all; ``until`` where nothing is left.
        """
        found: list[Kept] = []
        total = 0
        for one in self._kept.values():
            if one.number <= number:
                continue
            if one.number > until:
                break
            if found and (len(found) >= most or total + len(one.body) > size):
                return found, found[-1].number
            found.append(one)
            total += len(one.body)
        return found, until

    def __len__(self) -> int:
        return len(self._kept)


class Broker:
    """Between those who publish and those who listen. ``run`` does all the work, in one thread.

    Raises, when made: Conflict where an address is taken, SettingsError for one that is none.
    """

    def __init__(
        self, publish: str, subscribe: str, *, secure: Secure | None = None, context: Any = None
    ) -> None:
        self.cache = Cache()
        self.life = os.urandom(8)
        context = context or zmq.Context.instance()
        self._in, self._out = context.socket(zmq.SUB), context.socket(zmq.XPUB)
        self._in.setsockopt(zmq.SUBSCRIBE, b"")
        self._in.setsockopt(zmq.RCVHWM, QUEUED)
        self._out.setsockopt(zmq.XPUB_VERBOSE, 1)
        self._out.setsockopt(zmq.SNDHWM, QUEUED)
        try:
            for socket, address in ((self._in, publish), (self._out, subscribe)):
                _common(socket, secure)
                _bind(socket, address)
        except BaseException:
            self.close()
            raise

    @property
    def addresses(self) -> tuple[str, str]:
        """Where it listens in fact, for publishers and for subscribers."""
        return self._in.last_endpoint.decode(), self._out.last_endpoint.decode()

    def run(self, stop: threading.Event) -> None:
        """Carry messages until ``stop`` is set (looked at every 200 ms)."""
        poller = zmq.Poller()
        poller.register(self._in, zmq.POLLIN)
        poller.register(self._out, zmq.POLLIN)
        beat = 0.0
        try:
            while not stop.is_set():
                ready = dict(poller.poll(200))
                if self._out in ready:
                    self._answer()
                if self._in in ready:
                    self._carry()
                if time.monotonic() >= beat:
                    beat = time.monotonic() + BEAT
                    self._out.send_multipart([BEATS, self._stamp(self.cache.number)])
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the addresses; what waits for viewers is forgotten."""
        for socket in (self._in, self._out):
            socket.close(linger=0)

    def _stamp(self, number: int) -> bytes:
        return self.life + number.to_bytes(8, "big")

    def _carry(self) -> None:
        for _ in range(QUEUED):  # then a look at what viewers ask
            try:
                parts = self._in.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            if len(parts) != 3:
                continue
            try:
                number = self.cache.take(*parts)
            except ValueError:
                continue
            self._out.send_multipart([parts[0], self._stamp(number), parts[1], parts[2]])

    def _answer(self) -> None:
        while True:
            try:
                asked = self._out.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            if asked[:2] != b"\x01" + OWN:
                continue
            own, _, wanted = asked[1:].partition(b"/")
            first, until = 0, self.cache.number
            if wanted:
                try:
                    first, until = (int(part) for part in wanted.split(b"/"))
                except ValueError:
                    continue
            found, reached = self.cache.since(first, until)
            for one in found:
                self._out.send_multipart([own + b"/", self._stamp(one.number), one.header, one.body, one.topic])
            self._out.send_multipart([own + b"/", self._stamp(self.cache.number), b"%d" % reached, b"%d" % until])


def serve(addresses: Broadcast, key: Path | None, stop: threading.Event, said: Callable[[str], Any]) -> None:
    """The daemon: a broker at the configured addresses until ``stop`` is set; ``said`` is told when it is ready.

    Raises Conflict for an address that is taken, SettingsError for one that needs a key and has none.
    """
    keys = keys_for(key, addresses.publish, addresses.subscribe)
    context = zmq.Context()
    try:
        with keys.door(context) if keys else contextlib.nullcontext():
            broker = Broker(
                addresses.publish, addresses.subscribe, secure=keys.listening if keys else None, context=context
            )
            here, there = broker.addresses
            said(f"the broadcast takes plots at {here} and gives them at {there}")
            broker.run(stop)
    finally:
        context.term()


def _common(socket: Any, secure: Secure | None) -> None:
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, MESSAGE)
    socket.setsockopt(zmq.HEARTBEAT_IVL, PING)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, DEAD)
    socket.setsockopt(zmq.RECONNECT_IVL, BACK[0])
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, BACK[1])
    if secure is not None:
        secure(socket)


def _bind(socket: Any, address: str) -> None:
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        if error.errno == zmq.EADDRINUSE:
            raise Conflict(
                f"the broadcast's address {address} is taken by another program: end that one, or set another "
                "address under `broadcast` in online.yaml"
            ) from None
        raise SettingsError(f"the broadcast cannot listen at {address!r}: {error}") from None


def connect(socket: Any, address: str, secure: Secure | None) -> None:
    """Connect with all that the broadcast's sockets share. Raises SettingsError for an address that is none."""
    _common(socket, secure)
    try:
        socket.connect(address)
    except zmq.ZMQError as error:
        raise SettingsError(f"the broadcast's address {address!r} is none: {error}") from None

