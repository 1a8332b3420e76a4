"""The memory of one process as a store for others on the same machine: a socket in the site's folder.

Each message is its length (eight bytes, little-endian) and a packed value (``orchestrator.online.packing``): a call
with its arguments, an answer, or an error by its class and sentence. A call on a connection of its own that follows is
answered by arrivals until one of the two hangs up. Only the site's own account may connect: the socket's mode is 0600.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from orchestrator import errors
from orchestrator.errors import Conflict, DatabaseError, DataError, OrchestratorError, Unavailable
from orchestrator.online.packing import pack, packed, unpack, unpacked
from orchestrator.online.spill import Spill
from orchestrator.online.store import Arrivals, Outcome, RunRecord, Stores
from orchestrator.online.stores.names import checked_run, text

TIMEOUT = 30.0  # s; an answer from memory takes milliseconds
RETRY = 0.2  # s between two attempts to reach a process that is not there
LARGEST = 1 << 31  # bytes of one message; more is none of ours
_HEAD = 8  # bytes of a message's length


def send(connection: socket.socket, value: Any) -> None:
    """One message. Raises OSError."""
    content = pack(value)
    connection.sendall(len(content).to_bytes(_HEAD, "little") + content)


def receive(connection: socket.socket) -> Any:
    """One message; None where the other side has hung up between two. Raises OSError or DataError."""
    head = _exactly(connection, _HEAD)
    if not head:
        return None
    size = int.from_bytes(head, "little")
    if size > LARGEST:
        raise DataError(f"a message of {size} bytes is announced: that is none of a store")
    return unpack(_exactly(connection, size))


def _exactly(connection: socket.socket, size: int) -> bytes:
    content = bytearray(size)
    view, got = memoryview(content), 0
    while got < size:
        more = connection.recv_into(view[got:])
        if not more:
            if got == 0 and size == _HEAD:
                return b""
            raise ConnectionError("the connection broke off in a message")
        got += more
    return bytes(content)


@contextlib.contextmanager
def _address(path: Path) -> Iterator[str]:
    """The socket's path, short however deep its folder lies: a socket's address holds 107 bytes only."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def must_be_free(path: Path) -> None:
    """Raises Conflict where somebody serves at ``path``."""
    with contextlib.suppress(OSError), _address(path) as address:
        with socket.socket(socket.AF_UNIX) as trial:
            trial.connect(address)
        raise Conflict(f"{path} is in use: another transform of this site runs")


class StoreServer:
    """Lets other processes use this one's stores, from threads of its own, until ``close``."""

    def __init__(self, stores: Stores, path: Path) -> None:
        self._stores = stores
        self._closed = threading.Event()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        must_be_free(path)
        path.unlink(missing_ok=True)  # of one that was killed
        with _address(path) as address:
            self._listener.bind(address)
        path.chmod(0o600)
        self._listener.listen(64)
        threading.Thread(target=self._accept, name="store-server", daemon=True).start()

    def __enter__(self) -> StoreServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up on everybody."""
        self._closed.set()
        with self._lock:
            ends = [self._listener, *self._open]
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), name="store", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, contextlib.suppress(OSError, DataError):
                while not self._closed.is_set() and (asked := receive(connection)) is not None:
                    try:
                        for answer in self._answers(asked):
                            send(connection, {"ok": answer})
                    except OrchestratorError as error:
                        send(connection, {"error": type(error).__name__, "message": str(error)})
        finally:
            with self._lock:
                self._open.discard(connection)

    def _answers(self, asked: Any) -> Iterator[Any]:
        call, run = asked.get("call"), asked.get("run")
        if call == "runs":
            yield [asdict(one) for one in self._stores.runs()]
            return
        store = self._stores.of(str(run))
        if call == "record":
            record = store.record()
            yield None if record is None else asdict(record)
        elif call == "save":
            store.save(RunRecord(**asked["record"]))
            yield None
        elif call == "put":
            yield store.put([Outcome(**one) for one in asked["outcomes"]])
        elif call == "numbers":
            numbers = store.numbers()
            yield [list(numbers), list(numbers.values())]
        elif call == "spill":
            spill = store.spill(int(asked["number"]))
            yield None if spill is None else packed(spill)
        elif call == "drop":
            store.drop()
            yield None
        elif call == "follow":
            for arrivals in store.follow(asked["mark"], wait=lambda _: self._closed.is_set(), most=asked["most"]):
                changed = None if arrivals.record is None else asdict(arrivals.record)
                yield [arrivals.mark, [_outcome(one) for one in arrivals.outcomes], changed]
        else:
            raise DatabaseError(f"a store has no call {str(call)[:40]!r}: the two processes differ in version")


def _outcome(outcome: Outcome) -> dict[str, Any]:
    found = {name: getattr(outcome, name) for name in Outcome.__slots__}
    return {name: text(value) if isinstance(value, str) else value for name, value in found.items()}


class ServedStores:
    """The stores of the process that serves them at ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def of(self, run: str) -> ServedStore:
        """The store of a run, whether there or not."""
        return ServedStore(self.path, run)

    def runs(self) -> list[RunRecord]:
        """Every run that has a store, the newest last."""
        with _connected(self.path) as connection:
            return [RunRecord(**one) for one in _ask(connection, self.path, call="runs")]


class ServedStore:
    """One run's spills in another process's memory."""

    def __init__(self, path: Path, run: str) -> None:
        self.run = checked_run(run)
        self._path = path
        self._kept: socket.socket | None = None
        self._lock = threading.Lock()

    def record(self) -> RunRecord | None:
        """What is known of the run; None before the first ``save``."""
        found = self._call("record")
        return None if found is None else RunRecord(**found)

    def save(self, record: RunRecord) -> None:
        """Write what is known of the run."""
        self._call("save", record=asdict(record))

    def put(self, outcomes: Iterable[Outcome]) -> int:
        """Keep outcomes. Returns how many were new."""
        return int(self._call("put", outcomes=[_outcome(one) for one in outcomes]))

    def numbers(self) -> dict[int, bool]:
        """The numbers of all spills that are in, with whether they failed."""
        return dict(zip(*self._call("numbers"), strict=True))

    def follow(self, mark: str | None, *, wait: Callable[[float], bool], most: int = 500) -> Iterator[Arrivals]:
        """Outcomes from ``mark`` on, then new ones as they come. Where nobody serves, it waits until somebody does."""
        while True:
            try:
                with _connected(self._path) as connection:
                    send(connection, {"call": "follow", "run": self.run, "mark": mark, "most": most})
                    while True:
                        found = _answer(connection, self._path)
                        record = None if found[2] is None else RunRecord(**found[2])
                        mark = str(found[0])
                        yield Arrivals(mark, tuple(Outcome(**one) for one in found[1]), record)
                        if wait(0.0):
                            return
            except (Unavailable, OSError):
                yield Arrivals(mark or "0")
                if wait(RETRY):
                    return

    def spill(self, number: int) -> Spill | None:
        """One spill, unpacked; None where it is not in or failed without data."""
        found = self._call("spill", number=number)
        return None if found is None else unpacked(found)

    def drop(self) -> None:
        """Remove all of it."""
        self._call("drop")

    def _call(self, call: str, **arguments: Any) -> Any:
        with self._lock:
            if self._kept is not None:
                try:
                    return _ask(self._kept, self._path, call=call, run=self.run, **arguments)
                except (Unavailable, OSError):
                    self._kept.close()  # of a process that is gone; every call may be made twice
            self._kept = _connect(self._path)
            try:
                return _ask(self._kept, self._path, call=call, run=self.run, **arguments)
            except (Unavailable, OSError) as error:
                self._kept.close()
                self._kept = None
                raise _away(self._path, error) from error


def _connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(TIMEOUT)
    try:
        with _address(path) as address:
            connection.connect(address)
    except OSError as error:
        connection.close()
        raise _away(path, error) from error
    return connection


@contextlib.contextmanager
def _connected(path: Path) -> Iterator[socket.socket]:
    with _connect(path) as connection:
        yield connection


def _ask(connection: socket.socket, path: Path, **call: Any) -> Any:
    send(connection, call)
    return _answer(connection, path)


def _answer(connection: socket.socket, path: Path) -> Any:
    answer = receive(connection)
    if answer is None:
        raise Unavailable(f"{path}: the transform hung up")
    if "error" in answer:
        kind = getattr(errors, str(answer["error"]), DatabaseError)
        known = isinstance(kind, type) and issubclass(kind, OrchestratorError)
        raise (kind if known else DatabaseError)(str(answer["message"]))
    return answer["ok"]


def _away(path: Path, error: BaseException) -> Unavailable:
    if isinstance(error, Unavailable):
        return error
    return Unavailable(f"{path}: the transform that keeps the spills cannot be reached ({error}). Is it running?")
