"""Design functions, run outside the server: map, reduce, filter and validate in child processes.

``DesignFunctions`` is all that the rest of the embedded server sees. Work goes in batches to children (see
``javascript_host``) in three lanes, so that building a view never makes a write wait for its guard. A function that
loops, eats memory, recurses without end or floods its output costs its child: the child is killed and replaced, the
call raises ``FunctionError``, and all others go on. A child that dies for another reason is replaced and the batch is
done again once: design functions have no side effects.

The names of errors are CouchDB's, so that the HTTP layer can send them as they are.
"""

from __future__ import annotations

import hashlib
import json
import logging
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.embedded import codec
from orchestrator.embedded.problems import Problem

log = logging.getLogger(__name__)

TIMEOUT = 5.0  # seconds a function may take for one document, CouchDB's os_process_timeout
MEMORY = 64 * 1024 * 1024  # bytes a design document's functions may use, CouchDB's default
LANES = {"build": 2, "guard": 1, "feed": 2}
"""Children of each lane: views, validation, filters. They start when first needed."""

BATCH_BYTES = 2 * 1024 * 1024  # JSON text sent to a child at once
BATCH_TEXTS = 1000
MAX_STRIKES = 3  # writes of one batch that may pass a guard's limits before the rest is refused with them
GRACE = 1.5  # seconds beyond the limit before the parent kills: the child reports its own time-outs better
STARVED = 60.0  # seconds, at most, that a busy machine may keep a child from working: its own processor time counts
_HOST = Path(__file__).with_name("javascript_host.py")

Json = Any
Row = tuple[Json, Json]


class FunctionError(Problem):
    """A design function cannot be compiled, threw where it must not, or went beyond its limits.

    ``error`` and ``reason`` are what CouchDB sends; ``status`` is the HTTP status that goes with them.
    """

    def __init__(self, error: str, reason: str, status: int = 500) -> None:
        super().__init__(status, error, reason)


class _ChildLost(Exception):
    """The child ended or was killed; ``timed_out`` says that it was we who killed it."""

    def __init__(self, timed_out: bool) -> None:
        super().__init__("timed out" if timed_out else "ended")
        self.timed_out = timed_out


class _Child:
    """One child process and the socket to it. Used by one thread at a time."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            # -P keeps this folder off the child's path: its module names are not meant for the standard library.
            command = [sys.executable, "-P", str(_HOST)]
            self.process = subprocess.Popen(command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL)
        finally:
            theirs.close()
        self.socket = ours
        self.known: set[str] = set()
        # Linux' clock of another process's processor time (man 3 clock_getcpuclockid), which Python has no name for;
        # elsewhere the time by the clock is what there is.
        self._clock = (~self.process.pid << 3) | 2 if sys.platform == "linux" else time.CLOCK_MONOTONIC

    def exchange(self, request: bytes, patience: float) -> tuple[dict[str, Any], list[str]]:
        """Send one request; return the last header and all result lines.

        The child must move within ``patience`` s of its processor time. It gives way to others, so that on a busy
        machine much more may pass by the clock.
        """
        results: list[str] = []
        try:
            self.socket.settimeout(patience + STARVED)
            self.socket.sendall(len(request).to_bytes(4, "big") + request)
            while True:
                frame = self._receive(patience)
                first, _, rest = frame.decode("utf-8", "surrogatepass").partition("\n")
                if rest:
                    results += rest.split("\n")
                header = json.loads(first)
                if header["state"] != "more":
                    return header, results
        except TimeoutError:
            raise _ChildLost(True) from None
        except OSError:
            raise _ChildLost(False) from None

    def _receive(self, patience: float) -> bytes:
        allowed = self._used() + patience
        last = time.monotonic() + patience + STARVED
        self.socket.settimeout(patience)
        head = self._read(4, allowed, last)
        return self._read(int.from_bytes(head, "big"), allowed, last)

    def _read(self, size: int, allowed: float, last: float) -> bytes:
        """Raises TimeoutError when it has used its processor time up to ``allowed``, or ``last`` has come."""
        data = bytearray()
        while len(data) < size:
            try:
                piece = self.socket.recv(min(size - len(data), 1 << 20))
            except TimeoutError:  # by the clock: what has it used of that?
                left = min(allowed - self._used(), last - time.monotonic())
                if left <= 0:
                    raise
                self.socket.settimeout(left)
                continue
            if not piece:
                raise ConnectionError("the child has ended")
            data += piece
        return bytes(data)

    def _used(self) -> float:
        """The processor time (s) that it has used since it was started."""
        try:
            return time.clock_gettime(self._clock)
        except OSError:
            raise ConnectionError("the child has ended") from None

    def end(self) -> None:
        """Kill the process and collect it."""
        self.socket.close()
        self.process.kill()
        self.process.wait()


class DesignFunctions:
    """Runs design functions. One object per server; every method may be called from any thread.

    Args:
        timeout: seconds that one call for one document may take.
        memory: bytes that one design document's functions may use.
    """

    def __init__(self, timeout: float = TIMEOUT, memory: int = MEMORY) -> None:
        self.timeout = timeout
        self.memory = memory
        self._lanes: dict[str, queue.LifoQueue[_Child | None]] = {}
        self._closed = threading.Event()
        for lane, size in LANES.items():
            slots: queue.LifoQueue[_Child | None] = queue.LifoQueue()
            for _ in range(size):
                slots.put(None)
            self._lanes[lane] = slots

    # What the server calls

    def map(self, sources: list[str], docs: list[dict[str, Any]], lib: Json = None) -> list[list[list[Row]]]:
        """Apply map functions to documents.

        Args:
            sources: the texts of the functions.
            docs: documents with ``_id`` and ``_rev``.
            lib: the design document's ``views.lib``, for ``require('views/lib/...')``.

        Returns:
            For each document, for each function, the ``[key, value]`` pairs it emitted; none from one that throws.

        Raises:
            FunctionError: a text is not a function, or a limit was passed.
        """
        return [json.loads(line) for line in self.map_texts(sources, _encoded(docs), lib)]

    def map_texts(self, sources: list[str], texts: list[bytes], lib: Json = None) -> list[str]:
        """Like ``map``, from JSON texts (one line each) to JSON texts."""
        ddoc = {"views": {"lib": lib}} if lib is not None else None
        return self._run("build", "map", {"sources": sources, "ddoc": ddoc}, None, texts)

    def reduce(self, sources: list[str], keys: Json, values: list[Json], rereduce: bool) -> list[Json]:
        """Apply reduce functions once. ``keys`` is a list of ``[key, id]``, or None with ``rereduce``.

        Raises:
            FunctionError: as ``map``; also ``reduce_overflow_error`` if the result does not shrink.
        """
        return self.reduce_many(sources, [(keys, values, rereduce)])[0]

    def reduce_many(self, sources: list[str], calls: list[tuple[Json, list[Json], bool]]) -> list[list[Json]]:
        """Apply reduce functions to several groups in one exchange; see ``reduce``."""
        texts = _encoded(calls)
        lines = self._run("build", "reduce", {"sources": sources, "ddoc": None}, None, texts)
        for text, line in zip(texts, lines, strict=True):
            if len(line) > 200 and len(line) * 2 > len(text):
                preview = f"Current output: '{line[:100]}'... (first 100 of {len(line)} bytes)"
                raise FunctionError("reduce_overflow_error", f"Reduce output must shrink more rapidly: {preview}")
        return [json.loads(line) for line in lines]

    def filter(
        self, source: str, docs: list[dict[str, Any]], req: dict[str, Any], ddoc: dict[str, Any] | None = None
    ) -> list[bool]:
        """Ask a filter function which documents pass. ``ddoc`` is ``this`` in the function and the root of ``require``.

        Raises:
            FunctionError: it threw, cannot be compiled, or passed a limit.
        """
        program = {"sources": [source], "ddoc": ddoc or {}}
        lines = self._run("feed", "filter", program, req, _encoded(docs))
        return [line == "true" for line in lines]

    def view_filter(self, source: str, docs: list[dict[str, Any]], ddoc: dict[str, Any] | None = None) -> list[bool]:
        """Ask a map function, used as a filter, for which documents it emits anything (``filter=_view``)."""
        program = {"sources": [source], "ddoc": ddoc or {}}
        lines = self._run("feed", "view_filter", program, None, _encoded(docs))
        return [line == "true" for line in lines]

    def validate(
        self,
        sources: Sequence[tuple[str, str | dict[str, Any]]],
        triples: Sequence[tuple[Json, Json, Json, Json]],
    ) -> list[dict[str, str] | None]:
        """Ask the guards whether writes may pass.

        Args:
            sources: (design document id, the design document, or only its ``validate_doc_update`` text).
            triples: (new document, old document or None, userCtx, secObj) for each write.

        Returns:
            For each write None, or the first refusal: ``{"forbidden": reason}`` or ``{"unauthorized": reason}``, or
            ``{"error": ..., "reason": ...}`` where a guard threw anything else or passed a limit. Each write has its
            own verdict: one that a guard fails over does not harm the others of the batch.

        Raises:
            FunctionError: a guard cannot be compiled.
        """
        return self.validate_texts(sources, _encoded(triples))

    def validate_texts(
        self, sources: Sequence[tuple[str, str | dict[str, Any]]], texts: list[bytes]
    ) -> list[dict[str, str] | None]:
        """Like ``validate``, for writes that are JSON already: ``[new, old, userCtx, secObj]``, one line each."""
        verdicts: list[dict[str, str] | None] = [None] * len(texts)
        for _name, given in sources:
            ddoc = given if isinstance(given, dict) else {}
            source = ddoc.get("validate_doc_update", "") if isinstance(given, dict) else given
            left = [index for index, verdict in enumerate(verdicts) if verdict is None]
            if not left:
                break
            program = {"sources": [source], "ddoc": ddoc}
            found = self._judge(program, [texts[index] for index in left])
            for index, verdict in zip(left, found, strict=True):
                verdicts[index] = verdict
        return verdicts

    def _judge(self, program: Json, texts: list[bytes]) -> list[dict[str, str] | None]:
        """Run one guard. A batch that ends its child is done again write by write, to find the one at fault."""
        try:
            return [_verdict(line) for line in self._run("guard", "validate", program, None, texts)]
        except FunctionError as error:
            if error.error != "os_process_error" or self._closed.is_set():
                raise
            fault = {"error": error.error, "reason": error.reason}
        if len(texts) == 1:
            return [fault]
        verdicts: list[dict[str, str] | None] = []
        strikes = 0
        for text in texts:
            # where one write after the other passes its limit, the rest must not wait for each in turn
            verdict = self._judge(program, [text])[0] if strikes < MAX_STRIKES else fault
            strikes += verdict is not None and verdict.get("error") == "os_process_error"
            verdicts.append(verdict)
        return verdicts

    def check(self, sources: list[str], lib: Json = None, kind: str = "map") -> None:
        """Compile functions without running them.

        Raises:
            FunctionError: ``compilation_error`` if one is not a function.
        """
        ddoc = {"views": {"lib": lib}} if lib is not None else None
        self._run("build", kind, {"sources": sources, "ddoc": ddoc}, None, [])

    def close(self) -> None:
        """End all idle children; busy ones end with their call. Calls from now on raise ``FunctionError``."""
        self._closed.set()
        for slots in self._lanes.values():
            idle: list[_Child | None] = []
            while True:
                try:
                    idle.append(slots.get_nowait())
                except queue.Empty:
                    break
            for child in idle:
                if child is not None:
                    child.end()
                slots.put(None)  # for those who wait for a child: they find that all is closed

    # How it gets there

    def _run(self, lane: str, kind: str, program: Json, argument: Json, texts: list[bytes]) -> list[str]:
        packed = json.dumps(program)
        key = hashlib.sha256(f"{kind}\n{packed}".encode()).hexdigest()
        results: list[str] = []
        for batch in _batches(texts):
            results += self._batch(lane, kind, key, packed, argument, batch)
        return results

    def _batch(self, lane: str, kind: str, key: str, packed: str, argument: Json, texts: list[bytes]) -> list[str]:
        for last in (False, True):
            child = self._take(lane)
            try:
                header, results = self._ask(child, kind, key, packed, argument, texts)
            except _ChildLost as lost:
                child.end()
                self._lanes[lane].put(None)
                if lost.timed_out:
                    raise FunctionError("os_process_error", "OS process timed out.") from None
                if last or self._closed.is_set():
                    code = child.process.returncode
                    if code == -signal.SIGPROF:  # the child's own last resort against a function that does not end
                        raise FunctionError("os_process_error", "OS process timed out.") from None
                    raise FunctionError("os_process_error", f"the design functions' process ended ({code})") from None
                continue
            except BaseException:
                child.end()
                self._lanes[lane].put(None)
                raise
            if header.get("fatal"):
                child.end()
                self._lanes[lane].put(None)
            else:
                self._give_back(lane, child)
            if header["state"] == "error":
                raise FunctionError(header["error"], header["reason"] or "")
            for line in header.get("log", []):
                log.info("design function: %s", line)
            return results
        raise AssertionError("unreachable")

    def _ask(
        self, child: _Child, kind: str, key: str, packed: str, argument: Json, texts: list[bytes]
    ) -> tuple[dict[str, Any], list[str]]:
        fixed = f'"key": "{key}", "kind": "{kind}", "timeout": {self.timeout}, "memory": {self.memory}'
        for program in ("null", packed) if key in child.known else (packed,):
            head = f'{{{fixed}, "argument": {json.dumps(argument)}, "program": {program}}}'
            header, results = child.exchange(b"\n".join([head.encode(), *texts]), self.timeout + GRACE)
            if header["state"] != "unknown":
                break
        child.known.add(key)
        return header, results

    def _take(self, lane: str) -> _Child:
        child = self._lanes[lane].get()
        if child is not None:
            return child
        try:
            if self._closed.is_set():
                raise FunctionError("os_process_error", "the server is stopping")
            return _Child()
        except (OSError, FunctionError) as error:
            self._lanes[lane].put(None)
            if isinstance(error, FunctionError):
                raise
            raise FunctionError("os_process_error", f"no process for design functions could start: {error}") from error

    def _give_back(self, lane: str, child: _Child) -> None:
        if self._closed.is_set():
            child.end()
            self._lanes[lane].put(None)
        else:
            self._lanes[lane].put(child)


def _encoded(values: Sequence[Json]) -> list[bytes]:
    return [codec.dumps(value) for value in values]


def _batches(texts: list[bytes]) -> list[list[bytes]]:
    """Split texts by number and size. No texts give one empty batch: the functions are compiled all the same."""
    batches: list[list[bytes]] = [[]]
    size = 0
    for text in texts:
        if batches[-1] and (size + len(text) > BATCH_BYTES or len(batches[-1]) >= BATCH_TEXTS):
            batches.append([])
            size = 0
        batches[-1].append(text)
        size += len(text)
    return batches


def _verdict(line: str) -> dict[str, str] | None:
    """Read the host's answer about one write: 1, or what the guard threw, or after a ``!`` what went wrong in it."""
    if line == "1":
        return None
    if line.startswith("!"):
        error, reason = json.loads(line[1:])
        return {"error": error, "reason": reason}
    thrown = json.loads(line)
    word, reason = "unknown_error", thrown
    if isinstance(thrown, dict) and len(thrown) == 1:
        ((word, reason),) = thrown.items()
    text = reason if isinstance(reason, str) else json.dumps(reason)
    return {word: text} if word in ("forbidden", "unauthorized") else {"error": "unknown_error", "reason": text}
