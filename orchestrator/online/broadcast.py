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
``[own topic, stamp, header, body, topic]`` each, and at the end of a part ``[own topic, stamp, next, to]``. To
``\\x00<its id>/about`` the answer is ``[that topic, stamp, JSON]``: how much is kept.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import zmq

from orchestrator.errors import Conflict, SettingsError
from orchestrator.online import sockets
from orchestrator.online.cache import Cache
from orchestrator.online.configuration import Broadcast
from orchestrator.online.keys import keys_for

MESSAGE = 64 * 1024 * 1024  # bytes; a plot is some kB, a large one with two axes a few hundred
QUEUED = 400  # messages that wait for one viewer before it loses some: a refresh of many plots fits in
BEAT = 1.0  # s between two beats: a viewer notices a loss without another message within that
PING = 2000  # ms between two signs of life on a connection
DEAD = 10_000  # ms without one after which a connection is given up, and what waits for it is forgotten
BACK = (100, 1000)  # ms until a lost connection is tried again, at first and at most

OWN, BEATS, ABOUT = b"\x00", b"\x01", b"about"
Secure = Callable[[Any], None]  # gives a socket its keys, before it binds or connects


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
            for socket, address, what in ((self._in, publish, "publish"), (self._out, subscribe, "subscribe")):
                sockets.prepare(address, f"broadcast.{what}")
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
            if wanted == ABOUT:
                said = orjson.dumps(self.cache.about())
                self._out.send_multipart([own + b"/" + ABOUT, self._stamp(self.cache.number), said])
                continue
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

