"""The DAQ's end of the socket: sends runs and spills, and keeps each message until it is stored at the other end.

    with Sender("tcp://127.0.0.1:5620") as daq:
        daq.start("6008", header={"beam": "mu+"})
        daq.spill("6008", 0, raw_bytes, time.time())
        daq.end("6008", spills=1)
        daq.finish()

Needs the standard library and ``procs.online.inputs.daq_protocol`` only, so a DAQ can take the two along.
"""

from __future__ import annotations

import logging
import select
import socket
import time
import uuid
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.errors import DataError, Unavailable
from procs.online.inputs import daq_protocol as protocol

log = logging.getLogger(__name__)

RETRY = 0.5  # s between two attempts to connect
ANSWER = 5.0  # s within which the other end must answer and say its words at the beginning
KEEP = 256 << 20  # bytes of messages that wait for their acknowledgement; more hold up whoever sends
TICK = 0.05  # s for which is waited for something to happen


class Sender:
    """One stream of messages. Not for several threads at once.

    Args:
        address: ``tcp://HOST:PORT`` of the live system's input.
        stream: a name that stands for exactly these messages; a fresh one by default. Who is started again and sends
            the same messages under the same sequences (from a file, say) gives the same name and ``first``.
        key: file with the secret.
        first: the sequence of the first message.
        keep: bytes that may wait for their acknowledgement before sending is held up.
    """

    def __init__(
        self,
        address: str,
        *,
        stream: str = "",
        key: str | Path | None = None,
        first: int = 0,
        keep: int = KEEP,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address = protocol.address_of(address)
        self._secret = protocol.secret_of(key)
        self.stream = protocol.checked_stream(stream or f"{socket.gethostname()[:40]}-{uuid.uuid4().hex[:12]}")
        self.safe = first - 1  # the sequence up to which all is stored
        self._next = first
        self._keep = keep
        self._clock = clock
        self._kept: deque[tuple[int, bytes]] = deque()
        self._bytes = 0
        self._unsent = 0  # place in _kept of the first that has not been given to the connection
        self._out = memoryview(b"")  # the rest of what is being sent
        self._taken = -1  # the sequence up to which the other end had all when it was connected to
        self._socket: socket.socket | None = None
        self._frames = protocol.Frames(protocol.LARGEST_HEAD)
        self._tried = -RETRY
        self.connections = 0
        self.refusal = ""  # what the other end said when it hung up last

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def waiting(self) -> int:
        """Messages that are not known to be stored."""
        return len(self._kept)

    @property
    def connected(self) -> bool:
        """Whether somebody listens at the moment."""
        return self._socket is not None

    def connect(self, seconds: float = 10.0) -> None:
        """Wait until somebody listens. Raises Unavailable, with what was said, where nobody does for so long."""
        until = self._clock() + seconds
        while self._socket is None:
            self.work(TICK)
            if self._socket is None and self._clock() > until:
                raise Unavailable(f"nobody takes what is to be sent: {self.refusal}")

    def start(self, run: str, at: float | None = None, header: Mapping[str, Any] | None = None) -> int:
        """A run begins. Returns the message's sequence."""
        return self._add(protocol.START, {"run": run, "time": at, "header": dict(header or {})})

    def spill(self, run: str, number: int, data: bytes, at: float | None = None, *, packed: bool = False) -> int:
        """A spill: its raw bytes, or (``packed``) its data as ``orchestrator.online.packing`` packs them."""
        head: dict[str, Any] = {"run": run, "number": number, "time": at, "crc32": zlib.crc32(data)}
        return self._add(protocol.SPILL, {**head, "packed": True} if packed else head, data)

    def end(
        self, run: str, at: float | None = None, spills: int | None = None, trailer: Mapping[str, Any] | None = None
    ) -> int:
        """A run has ended."""
        return self._add(protocol.END, {"run": run, "time": at, "spills": spills, "trailer": dict(trailer or {})})

    def finish(self, seconds: float = 60.0) -> None:
        """Wait until all is stored. Raises Unavailable where that takes longer."""
        until = self._clock() + seconds
        while self._kept:
            self.work(TICK)
            if self._clock() > until:
                said = f" ({self.refusal})" if self.refusal else ""
                raise Unavailable(f"{self.waiting} messages of {self.stream} were not acknowledged{said}")

    def flush(self, seconds: float = 1.0) -> None:
        """Hand over to the connection what it takes within a time; before a pause, say."""
        until = self._clock() + seconds
        while (self._out or self._unsent < len(self._kept)) and self._clock() < until:
            self.work(TICK)
            if self._socket is None:
                return

    def work(self, wait: float = 0.0) -> None:
        """Send and listen; call it now and then while there is nothing to send. ``wait``: s at most."""
        if self._socket is None and not self._connect(wait):
            return
        assert self._socket is not None
        try:
            self._listen(wait)
            self._send()
        except (OSError, DataError) as error:
            self._lost(str(error))

    def close(self) -> None:
        """Hang up; what was not acknowledged is forgotten."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    # -- inside

    def _add(self, kind: bytes, head: dict[str, Any], body: bytes = b"") -> int:
        sequence = self._next
        if sequence <= self.safe:  # a DAQ that was started again: this one is stored
            self._next += 1
            return sequence
        frame = protocol.encoded(kind, {"sequence": sequence, **head}, body)
        self._next += 1
        self._kept.append((sequence, frame))
        self._bytes += len(frame)
        if sequence <= self._taken and self._unsent == len(self._kept) - 1:
            self._unsent += 1  # it is there, and not yet stored
        self.work()
        while self._bytes > self._keep:
            self.work(TICK)
        return sequence

    def _connect(self, wait: float) -> bool:
        now = self._clock()
        if now - self._tried < RETRY:
            time.sleep(min(wait, RETRY))
            return False
        self._tried = now
        host, port = self._address
        try:
            connection = socket.create_connection((host or "127.0.0.1", port), timeout=ANSWER)
        except OSError as error:
            self.refusal = f"{host}:{port} does not answer: {error.strerror or error}"
            return False
        self._socket = connection
        self._frames = protocol.Frames(protocol.LARGEST_HEAD)
        try:
            challenge = self._await(protocol.CHALLENGE)
            answer = protocol.answer(self._secret, str(challenge.head.get("nonce")))
            hello = {"protocol": protocol.PROTOCOL, "stream": self.stream, "answer": answer, "safe": self.safe}
            connection.sendall(protocol.encoded(protocol.HELLO, hello))
            welcome = self._await(protocol.WELCOME)
        except (OSError, DataError) as error:
            self._lost(str(error))
            return False
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connections += 1
        self.refusal = ""
        self._forget(welcome.head.get("safe"))
        taken = welcome.head.get("taken")
        self._taken = taken if isinstance(taken, int) else -1
        self._unsent = sum(1 for sequence, _ in self._kept if sequence <= self._taken)
        self._out = memoryview(b"")
        return True

    def _await(self, kind: bytes) -> protocol.Frame:
        """The next frame, which must be of this kind. Raises OSError or DataError."""
        assert self._socket is not None
        while (frame := self._frames.next()) is None:
            data = self._socket.recv(65536)
            if not data:
                raise DataError("the other end hung up")
            self._frames.feed(data)
        if frame.kind != kind:
            raise DataError(str(frame.head.get("error", "the other end does not speak the DAQ's protocol")))
        return frame

    def _listen(self, wait: float) -> None:
        assert self._socket is not None
        writing = [self._socket] if self._out or self._unsent < len(self._kept) else []
        readable, _, _ = select.select([self._socket], writing, [], wait)
        if not readable:
            return
        data = self._socket.recv(65536)
        if not data:
            raise DataError("the other end hung up")
        self._frames.feed(data)
        for frame in self._frames:
            if frame.kind == protocol.SAFE:
                self._forget(frame.head.get("safe"))
            elif frame.kind == protocol.ERROR:
                raise DataError(str(frame.head.get("error")))

    def _send(self) -> None:
        assert self._socket is not None
        while self._out or self._unsent < len(self._kept):
            if not self._out:
                self._out = memoryview(self._kept[self._unsent][1])
                self._unsent += 1
            try:
                self._out = self._out[self._socket.send(self._out) :]
            except BlockingIOError:
                return

    def _forget(self, safe: Any) -> None:
        if not isinstance(safe, int):
            return
        while self._kept and self._kept[0][0] <= safe:
            self._bytes -= len(self._kept.popleft()[1])
            self._unsent = max(0, self._unsent - 1)
        self.safe = max(self.safe, safe)

    def _lost(self, why: str) -> None:
        log.warning("the live system is not there: %s; %d messages wait", why, self.waiting)
        self.refusal = why
        self.close()
