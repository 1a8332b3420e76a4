"""A DAQ that connects as an input. It gets an acknowledgement for what is stored, and so can forget it.

What was sent and not acknowledged comes again after a broken connection or a restart of either side; what had been
taken already is known by its sequence, and what had been stored by its spill's number: no message is lost, none counts
twice. A spill whose content is damaged is a failed one, with its bytes and the reason, so that the DAQ goes on.
``procs.simulation.socket_daq`` is the other end; the protocol stands in ``daq_protocol``.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import select
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

from orchestrator.errors import Conflict, DataError, SettingsError
from orchestrator.online.module import Input
from orchestrator.online.packing import unpack
from orchestrator.online.spill import MOST_SPILLS, EndOfRun, Item, Spill, StartOfRun
from orchestrator.units import size as bytes_of
from procs.online.inputs import daq_protocol as protocol
from procs.online.inputs.daq_protocol import Frame, Frames

PAUSE = 0.1  # s for which is waited for something to come
LATEST = 1e12  # unix seconds; a time beyond that, or none that is finite, is no time
BLOCK = 1 << 20  # bytes taken from the connection at once
HELLO_SECONDS = 10.0  # s within which one who connects must have said who he is
STRANGERS = 32  # connections of which nobody knows yet whose they are; the oldest go first
STREAMS = 16  # streams whose place is remembered, the ones heard of last


class SocketInput(Input):
    """Listens for one DAQ at a time."""

    version: ClassVar[str] = "1"
    defaults: ClassVar[Mapping[str, Any]] = {
        "address": "tcp://127.0.0.1:5620",
        "key": "",
        "largest": "256 MiB",
    }
    settings_help: ClassVar[Mapping[str, str]] = {
        "address": "where to listen; an address that other machines reach needs a key",
        "key": "file with the secret that a DAQ must know (mode 0600; `orchestrator online key FILE` makes one)",
        "largest": "the largest message that is taken",
    }

    def __init__(
        self, settings: Mapping[str, Any] | None = None, log: Any = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(settings, log)
        self._address = protocol.address_of(self.settings["address"])
        self._secret = protocol.secret_of(self.settings["key"])
        try:
            self._largest = bytes_of(self.settings["largest"])
        except ValueError as error:
            raise SettingsError(f"SocketInput: largest: {error}") from None
        if not self._secret and not protocol.is_loopback(self._address[0]):
            raise SettingsError(
                f"{self.settings['address']} can be reached from other machines and so needs a key: make one with "
                "`orchestrator online key FILE` and name it in the input's setting `key`, or use tcp://127.0.0.1:PORT"
            )
        self._clock = clock
        self._taken: dict[str, int] = {}  # the sequence up to which each stream was yielded, the latest stream last
        self._safe: dict[str, int] = {}
        self._doubted: tuple[str, int] | None = None  # stream and sequence of a spill with a wrong checksum
        self._guest: _Guest | None = None
        self._lock = threading.Lock()  # of _guest, _safe and what is sent
        self.port = 0

    def check(self) -> str:
        """Where it listens. Raises Conflict where the port is taken, SettingsError for no address of this machine."""
        self._listener().close()
        return f"a DAQ may connect to {self.settings['address']}"

    def items(self, position: Any = None) -> Iterator[Item | None]:
        """What the DAQ sends. Never ends by itself. Raises as ``check``."""
        self._restore(position)
        strangers: list[_Guest] = []
        with self._listener() as listener:
            self.port = listener.getsockname()[1]
            try:
                while True:
                    self._wait(listener, strangers)
                    yielded = False
                    for item in self._heard():
                        yielded = True
                        yield item
                    if not yielded:
                        yield None
            finally:
                for one in [*strangers, *([self._guest] if self._guest else [])]:
                    one.close()
                self._guest = None

    @property
    def position(self) -> Any:
        """The sequence up to which each stream was yielded."""
        return {"streams": dict(self._taken)} if self._taken else None

    def safe(self, position: Any) -> None:
        """Tell the DAQ what it may forget. May be called from another thread."""
        streams = position.get("streams") if isinstance(position, dict) else None
        if not isinstance(streams, dict):
            return
        with self._lock:
            self._safe = dict(streams)
            if self._guest is not None:
                self._guest.acknowledge(self._safe.get(self._guest.stream, -1))

    # -- connections

    def _listener(self) -> socket.socket:
        host, port = self._address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(8)
        except OSError as error:
            listener.close()
            said = f"the DAQ's address {self.settings['address']} cannot be opened: {error.strerror}"
            if error.errno == errno.EADDRINUSE:
                raise Conflict(f"{said}; end the program that has it, or choose another port") from error
            raise SettingsError(f"{said}; it must be one of this machine's") from error
        listener.setblocking(False)
        return listener

    def _wait(self, listener: socket.socket, strangers: list[_Guest]) -> None:
        """Wait until something has come, and take it in."""
        guest = self._guest
        sockets = [listener, *(one.socket for one in strangers), *([guest.socket] if guest else [])]
        ready = set(select.select(sockets, [], [], PAUSE)[0])
        now = self._clock()
        if guest is not None and guest.socket in ready and not guest.receive():
            self._leave("it hung up")
        for one in list(strangers):
            if one.socket in ready and not one.receive():
                one.gone = True
            with self._refusing(one):
                frame = one.frames.next()
                if frame is not None:
                    self._welcome(one, frame)
                    strangers.remove(one)
                    continue
                if now - one.since > HELLO_SECONDS:
                    raise DataError("it did not say who it is")
            if one.gone:
                one.close()
                strangers.remove(one)
        if listener in ready:
            while len(strangers) >= STRANGERS:
                strangers.pop(0).close()
            with contextlib.suppress(OSError):
                strangers.append(_Guest(listener.accept()[0], now))
                strangers[-1].send(protocol.CHALLENGE, {"protocol": protocol.PROTOCOL, "nonce": strangers[-1].nonce})
        if guest is not None:
            with self._lock:
                guest.flush()

    @contextlib.contextmanager
    def _refusing(self, one: _Guest) -> Iterator[None]:
        try:
            yield
        except DataError as error:
            self.log.warning("a connection from %s is refused: %s", one.peer, error)
            one.send(protocol.ERROR, {"error": str(error)})
            one.gone = True

    def _welcome(self, one: _Guest, frame: Frame) -> None:
        """Somebody said who he is. Raises DataError where he is not wanted."""
        if frame.kind != protocol.HELLO or frame.head.get("protocol") != protocol.PROTOCOL:
            raise DataError(f"it does not speak the DAQ's protocol, version {protocol.PROTOCOL}")
        if not protocol.right(self._secret, one.nonce, frame.head.get("answer")):
            raise DataError("it does not know the key")
        stream = protocol.checked_stream(frame.head.get("stream"))
        if self._guest is not None:
            if self._guest.stream != stream:
                raise DataError(f"another DAQ is connected: {self._guest.stream} from {self._guest.peer}")
            self._leave("it has connected once more")
        told = frame.head.get("safe")  # by an earlier life of ours, perhaps, that did not write down its last position
        if isinstance(told, int) and not isinstance(told, bool) and told > self._taken.get(stream, told):
            self._taken[stream] = told
        one.stream = stream
        one.frames.largest = self._largest
        with self._lock:
            one.send(protocol.WELCOME, {"taken": self._taken.get(stream), "safe": self._safe.get(stream, -1)})
            self._guest = one
        self.log.info("DAQ %s has connected from %s", stream, one.peer)

    def _leave(self, why: str, refused: bool = False) -> None:
        with self._lock:
            guest, self._guest = self._guest, None
        if guest is not None:
            self.log.log(
                logging.ERROR if refused else logging.INFO, "the connection of DAQ %s ends: %s", guest.stream, why
            )
            if refused:
                guest.send(protocol.ERROR, {"error": why})
            guest.close()

    # -- messages

    def _heard(self) -> Iterator[Item]:
        """What the DAQ has sent: whole messages, each once."""
        guest = self._guest
        while guest is not None and guest is self._guest:
            try:
                frame = guest.frames.next()
                item = None if frame is None else self._item(guest, frame)
            except DataError as error:
                self._leave(str(error), refused=True)
                return
            if frame is None:
                return
            if item is not None:
                yield item

    def _item(self, guest: _Guest, frame: Frame) -> Item | None:
        """The item that a frame holds; None for one that was taken already. Raises DataError."""
        if frame.kind == protocol.ERROR:
            raise DataError(f"it says: {str(frame.head.get('error'))[:300]}")
        if frame.kind not in protocol.MESSAGES:
            raise DataError(f"a message of kind {frame.kind.decode()} was not expected here")
        sequence = frame.head.get("sequence")
        if isinstance(sequence, bool) or not isinstance(sequence, int) or sequence < 0:
            raise DataError("a message has no sequence")
        taken = self._taken.get(guest.stream)
        if taken is not None and sequence <= taken:
            return None
        if taken is not None and sequence != taken + 1:
            raise DataError(f"message {sequence} came after {taken}: what is between them is missing")
        item = self._checked(frame, guest, sequence) or _item(frame, self._clock())
        self._taken.pop(guest.stream, None)
        self._taken[guest.stream] = sequence
        while len(self._taken) > STREAMS:
            del self._taken[next(iter(self._taken))]
        return item

    def _checked(self, frame: Frame, guest: _Guest, sequence: int) -> Item | None:
        """A spill whose bytes are not those of its checksum, as a failed one; None for all that is well.

        Raises DataError the first time: sent once more it may come whole.
        """
        if "crc32" not in frame.head or frame.kind != protocol.SPILL or frame.head["crc32"] == zlib.crc32(frame.body):
            return None
        run, number = _named(frame.head)
        said = f"spill {number} of run {run} arrived with other bytes than were sent"
        if self._doubted != (guest.stream, sequence):
            self._doubted = (guest.stream, sequence)
            raise DataError(said)
        self.log.error("%s, twice: it is kept as failed", said)
        return _damaged(run, number, frame, self._clock(), f"{said}, twice")

    def _restore(self, position: Any) -> None:
        streams = position.get("streams") if isinstance(position, dict) else None
        if isinstance(streams, dict) and all(isinstance(one, int) for one in streams.values()):
            self._taken = {str(name): sequence for name, sequence in streams.items()}
        else:
            self._taken = {}
        self._safe = dict(self._taken)


class _Guest:
    """Somebody who has connected."""

    def __init__(self, connection: socket.socket, now: float) -> None:
        self.socket = connection
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):  # s, s, times
            if hasattr(socket, name):
                self.socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self.peer = ":".join(str(part) for part in connection.getpeername()[:2])
        self.since = now
        self.nonce = protocol.new_nonce()
        self.stream = ""
        self.frames = Frames(protocol.LARGEST_HELLO)
        self.gone = False
        self._unsent = b""
        self._told = -1

    def receive(self) -> bool:
        """Take what has come; False where nothing will any more."""
        try:
            data = self.socket.recv(BLOCK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.frames.feed(data)
        return bool(data)

    def acknowledge(self, sequence: int) -> None:
        """Say what is safe, once."""
        if sequence > self._told:
            self._told = sequence
            self.send(protocol.SAFE, {"safe": sequence})

    def send(self, kind: bytes, head: Mapping[str, Any]) -> None:
        """Send a small message as far as it goes; the rest goes with :meth:`flush`. Waits for nobody."""
        self._unsent += protocol.encoded(kind, head)
        self.flush()

    def flush(self) -> None:
        """Send what could not be sent before."""
        with contextlib.suppress(OSError):  # who has gone is noticed by receiving
            while self._unsent:
                self._unsent = self._unsent[self.socket.send(self._unsent) :]

    def close(self) -> None:
        """Hang up."""
        self.socket.close()


def _item(frame: Frame, now: float) -> Item:
    """Raises DataError for a message without what belongs into it."""
    head = frame.head
    if frame.kind == protocol.SPILL:
        run, number = _named(head)
        if head.get("packed") is not True:
            return Spill(run, number, _when(head), now, {"raw": {"bytes": frame.body}})
        try:
            data = unpack(frame.body)
        except DataError as error:
            return _damaged(run, number, frame, now, f"it cannot be unpacked: {error}")
        if not isinstance(data, dict):
            return _damaged(run, number, frame, now, "it is packed, and not as a dictionary")
        return Spill(run, number, _when(head), now, data)
    run = _run(head)
    if frame.kind == protocol.START:
        return StartOfRun(run, _when(head), _object(head, "header"))
    spills = head.get("spills")
    return EndOfRun(
        run, "trailer", _when(head), spills if isinstance(spills, int) else None, _object(head, "trailer")
    )


def _damaged(run: str, number: int, frame: Frame, now: float, why: str) -> Spill:
    """A spill that has failed before anybody looked at it; its bytes are kept as they came."""
    return Spill(run, number, _when(frame.head), now, {"raw": {"bytes": frame.body}}, {"input": why})


def _run(head: dict[str, Any]) -> str:
    run = head.get("run")
    if not isinstance(run, str) or not run:
        raise DataError("a message names no run")
    return run


def _named(head: dict[str, Any]) -> tuple[str, int]:
    """Run and number of a spill. Raises DataError."""
    run, number = _run(head), head.get("number")
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < MOST_SPILLS:
        raise DataError(f"a spill of run {run} has no number from 0 to {MOST_SPILLS - 1}")
    return run, number


def _when(head: dict[str, Any]) -> float | None:
    when = head.get("time")
    return float(when) if isinstance(when, int | float) and abs(when) < LATEST and not isinstance(when, bool) else None


def _object(head: dict[str, Any], name: str) -> dict[str, Any]:
    found = head.get(name)
    return found if isinstance(found, dict) else {}
