"""The input in a thread of its own: reads ahead a little, packs what it reads, is held back when nobody takes it."""

from __future__ import annotations

import hashlib
import logging
import math
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy

from orchestrator.errors import OrchestratorError, SettingsError
from orchestrator.online.module import Input
from orchestrator.online.packing import packed
from orchestrator.online.spill import EndOfRun, Item, Spill, StartOfRun
from orchestrator.online.stores.names import checked_run, text

log = logging.getLogger(__name__)

AHEAD = 256  # items read ahead of who takes them
AHEAD_BYTES = 64 * 2**20  # and bytes of them, packed
LOOK = 0.1  # s between two looks at whether to stop, or what has become safe
DEEPEST = 20  # levels of a run's header that are kept
PAUSE = 0.01  # s after an input has said that it has nothing: one that does not wait itself must not spin


@dataclass(slots=True)
class Read:
    """An item as it was read; ``payload``: a spill, packed; ``position``: of the input after it."""

    item: Item
    payload: bytes
    position: Any


class Reader:
    """Reads one input from a position on.

    Args:
        input_: what is read.
        position: where to begin; None for its own beginning.
        wake: called from the thread when there is something to take.
        clock: s, monotonic.
        now: unix seconds, for when a spill was taken in.
    """

    def __init__(
        self,
        input_: Input,
        position: Any,
        wake: Callable[[], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._input, self._position = input_, position
        self._wake, self._clock, self._now = wake, clock, now
        self._taken: deque[Read] = deque()
        self._bytes = 0
        self._gone = threading.Condition()  # something was taken, became safe, or it is to stop
        self._safe: list[Any] = []
        self._stop = False
        self._last = ""  # the run's name that was checked last
        self._waits: float | None = None  # since when the input has had nothing
        self.over = False  # it has ended
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="input", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def take(self, most: int) -> list[Read]:
        """Up to ``most`` items, in order, without waiting."""
        found: list[Read] = []
        while self._taken and len(found) < most:
            found.append(self._taken.popleft())
        if found:
            with self._gone:
                self._bytes -= sum(len(one.payload) for one in found)
                self._gone.notify()
        return found

    @property
    def empty(self) -> bool:
        """Whether nothing is there to take."""
        return not self._taken

    def silence(self) -> float:
        """For how long the input has had nothing, s; 0 while it has, or is held back."""
        since = self._waits
        return 0.0 if since is None or self._taken else self._clock() - since

    def safe(self, position: Any) -> None:
        """Everything up to there is stored; the input is told by its own thread."""
        with self._gone:
            self._safe = [position]
            self._gone.notify()

    def stop(self, patience: float = 2.0) -> None:
        """Read no more. An input that hangs is left behind."""
        with self._gone:
            self._stop = True
            self._gone.notify()
        if self._thread.is_alive():
            self._thread.join(patience)

    def _work(self) -> None:
        try:
            self._read()
        except BaseException as error:
            if not isinstance(error, OrchestratorError):
                log.exception("the input")  # its author wants to know where
            self.error = error
        self._tell_safe()
        self.over = True
        self._waits = None
        self._wake()

    def _read(self) -> None:
        items = iter(self._input.items(self._position))
        self._waits = self._clock()
        for item in items:
            if self._ends():
                return
            if item is None:
                self._pause(PAUSE)
                continue
            self._waits = None
            item = _plain_mark(self._named(item))
            payload = self._packed(item) if isinstance(item, Spill) else b""
            was_empty = not self._taken
            self._taken.append(Read(item, payload, self._input.position))
            with self._gone:
                self._bytes += len(payload)
            if was_empty:
                self._wake()
            while not self._ends() and (len(self._taken) >= AHEAD or self._bytes >= AHEAD_BYTES):
                self._pause(LOOK)
            if self._safe:
                self._tell_safe()
            self._waits = self._clock()

    def _named(self, item: Item) -> Item:
        """A run's name comes from outside and will name a database and a folder: one that cannot gets another."""
        if item.run == self._last:
            return item
        try:
            checked_run(item.run)
        except SettingsError as error:
            tail = hashlib.sha256(str(item.run).encode("utf-8", "surrogatepass")).hexdigest()[:8]
            name = "run-" + re.sub(r"[^A-Za-z0-9_.+-]", "-", str(item.run))[:40] + "-" + tail
            log.warning("%s; this one is called %s", error, name)
            return replace(item, run=name)
        self._last = item.run
        return item

    def _ends(self) -> bool:
        return self._stop

    def _packed(self, spill: Spill) -> bytes:
        if spill.taken is None:
            spill.taken = self._now()
        try:
            return packed(spill)
        except Exception as error:  # a spill that cannot travel is kept as failed, with the reason
            bare = Spill(spill.run, spill.number, spill.time, spill.taken)
            bare.errors = {"input": f"{type(error).__name__}: {error}"}
            return packed(bare)
        finally:
            spill.data = {}  # its bytes are in the packed form; kept twice they would be twice the memory

    def _pause(self, seconds: float) -> None:
        with self._gone:
            if not (self._safe or self._stop):
                self._gone.wait(seconds)
        self._tell_safe()

    def _tell_safe(self) -> None:
        with self._gone:
            positions, self._safe = self._safe, []
        for position in positions:
            self._input.safe(position)


def _plain_mark(item: Item) -> Item:
    """A run's header and trailer come from outside, and go into documents, messages and pages: as JSON for all."""
    if isinstance(item, StartOfRun) and item.header:
        return replace(item, header=_plain(dict(item.header)))
    if isinstance(item, EndOfRun) and item.trailer:
        return replace(item, trailer=_plain(dict(item.trailer)))
    return item


def _plain(value: Any, depth: int = 0) -> Any:
    """``value`` without what some JSON has not: NaN, large integers and half characters become text."""
    if isinstance(value, numpy.generic):
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict | list | tuple):
        if depth >= DEEPEST:
            return "nested too deep"
        if isinstance(value, dict):
            return {text(str(key)): _plain(one, depth + 1) for key, one in value.items()}
        return [_plain(one, depth + 1) for one in value]
    return text(str(value))
