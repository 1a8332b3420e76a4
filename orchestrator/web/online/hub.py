"""Who looks at what: each viewer gets the newest of the plots it shows, not more often than it asked for.

What is pending for a viewer is a set of names that later plots melt into, so a viewer that reads slowly holds nobody
up, and what it costs is bounded by what it shows. Bytes are made once for all viewers (``events``).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.errors import OrchestratorError
from orchestrator.online.subscribing import Message
from orchestrator.web.online import events
from orchestrator.web.online.board import Board, Shown

log = logging.getLogger(__name__)

#: A sign of life after so much silence, in seconds: a viewer whose connection is dead notices, and a viewer's screen
#: tells ages by the time in it.
HEARTBEAT_SECONDS = 5.0
#: Counts and the list of plots reach a viewer at most once in this time, in seconds; a person reads no faster.
STATUS_SECONDS = 0.5
#: Until a viewer whose stream has broken asks again, in milliseconds: each its own time, so that not all of them come
#: at once when a display is started again.
RETRY = (500, 2500)
#: Viewers at once. Each is a socket; a script that opens them without end must not use them all up.
VIEWERS = 500
#: Plots of one viewer.
SHOWN = 64
#: Bytes handed over at once: what a viewer that has stopped reading keeps in memory, one plot more at most.
PIECE = 256 * 1024


class Full(OrchestratorError):
    """There are as many viewers as there may be."""


@dataclass(eq=False)
class Viewer:
    """One viewer: what it shows, and what it has not been told yet."""

    run: str  # empty: the current one, whichever that is
    plots: frozenset[str]
    period: float
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    pending: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)  # of its plots those that it has; the first picture waits for nothing
    status: bool = True
    told: tuple[str, int] | None = None  # the run and the state of its list that it was told of last
    last_plots: float = float("-inf")
    last_status: float = float("-inf")

    def due(self) -> float:
        """When something is to be sent, by the loop's clock; infinite where nothing is."""
        times = [self.last_plots + self.period if self.pending <= self.seen else 0.0] if self.pending else []
        return min([*times, self.last_status + STATUS_SECONDS] if self.status else times, default=float("inf"))


class Hub:
    """The board and its viewers. All methods belong to the event loop's thread."""

    def __init__(
        self, board: Board, status: Callable[[str], dict[str, Any]], listing: Callable[[str], dict[str, Any]],
        clock: Callable[[], float], plots: Callable[[str], Mapping[str, Shown]],
        chance: Callable[[], float] = random.random,
    ) -> None:  # fmt: skip
        """``status`` and ``listing`` make what viewers of a run are told of it besides plots (see ``room``).

        ``plots`` gives those of a run, also of one that only its snapshot knows. ``chance``: from 0 to 1.
        """
        self.board = board
        self._status, self._listing, self._plots = status, listing, plots
        self._clock, self._chance = clock, chance
        self._viewers: set[Viewer] = set()
        self._by_plot: dict[str, set[Viewer]] = {}
        self._made: dict[tuple[str, str], tuple[Any, bytes, bytes]] = {}
        self._changes = 0
        self._closed = False

    @property
    def viewers(self) -> int:
        """How many look on at the moment."""
        return len(self._viewers)

    def take(self, messages: Iterable[Message]) -> None:
        """What the broadcast brought: into the board, and a word to those who show it."""
        before = self.board.current()
        now = self._clock()
        arrived: dict[str, set[str]] = {}
        for message in messages:
            shown = self.board.take(message, now)
            if shown is not None:
                arrived.setdefault(shown.run, set()).add(shown.name)
        current = self.board.current()
        for run, names in arrived.items():
            wanted = (run, "") if current is not None and run == current.name else (run,)
            for name in names:
                for viewer in self._by_plot.get(name, ()):
                    if viewer.run in wanted:
                        if not viewer.pending or name not in viewer.seen:
                            viewer.wake.set()
                        viewer.pending.add(name)
        if current is not before:
            for viewer in self._viewers:
                if not viewer.run:
                    viewer.pending |= viewer.plots
                    viewer.seen.clear()
                    viewer.wake.set()
        self.changed()

    def changed(self) -> None:
        """Something that everybody is told has changed: counts, runs, the list, the connection."""
        self._changes += 1
        for viewer in self._viewers:
            if not viewer.status:
                viewer.status = True
                viewer.wake.set()

    def close(self) -> None:
        """End all streams."""
        self._closed = True
        for viewer in self._viewers:
            viewer.wake.set()

    async def stream(
        self, run: str, plots: Iterable[str], period: float, *, compressed: bool
    ) -> AsyncGenerator[bytes, None]:
        """The events of one viewer, for ever. Raises Full at once where there are too many.

        Args:
            run: a run's name; empty for the current one, from run to run.
            plots: the names of what is shown.
            period: seconds between two pictures of the same plot, at least.
            compressed: as a gzip stream.
        """
        if len(self._viewers) >= VIEWERS:
            raise Full(f"{VIEWERS} viewers look on already: close a page, or wait a little")
        wanted = frozenset(list(plots)[:SHOWN])
        viewer = Viewer(run, wanted, period, pending=set(wanted))
        self._viewers.add(viewer)
        for name in wanted:
            self._by_plot.setdefault(name, set()).add(viewer)
        loop = asyncio.get_running_loop()
        try:
            hello = b"retry: %d\n\n" % int(RETRY[0] + self._chance() * (RETRY[1] - RETRY[0]))
            yield events.HEAD + events.block(hello) if compressed else hello
            while not self._closed:
                now = loop.time()
                wait = min(viewer.due() - now, HEARTBEAT_SECONDS)
                if wait > 0:
                    viewer.wake.clear()
                    try:
                        await asyncio.wait_for(viewer.wake.wait(), wait)
                    except TimeoutError:
                        if wait == HEARTBEAT_SECONDS:
                            viewer.status = True
                    continue
                for piece in self._pieces(viewer, now, compressed):
                    yield piece
        finally:
            self._viewers.discard(viewer)
            for name in wanted:
                if others := self._by_plot.get(name):
                    others.discard(viewer)
                    if not others:
                        del self._by_plot[name]

    def _pieces(self, viewer: Viewer, now: float, compressed: bool) -> Iterable[bytes]:
        run = self.board.run(viewer.run)
        plots = self._plots(viewer.run)
        listed = (run.name, run.listed) if run is not None else (viewer.run, -1 - len(plots))
        said: list[bytes] = []
        # Before the first plot of another run a viewer is told that it is another one.
        other = viewer.told is None or viewer.told[0] != listed[0]
        if other or (viewer.status and now >= viewer.last_status + STATUS_SECONDS):
            viewer.status, viewer.last_status = False, now
            if listed != viewer.told:
                viewer.told = listed
                said.append(self._once("list", viewer.run, listed, self._listing, compressed))
            beat = int(self._clock() / STATUS_SECONDS)  # a beat's time is in it: made anew with each, for all at once
            said.append(self._once("status", viewer.run, (self._changes, beat), self._status, compressed))
        size = sum(len(piece) for piece in said)
        for name in sorted(self._ready(viewer, now)):
            # Looked up now, not when the turn began: whoever reads slowly gets the newest.
            viewer.pending.discard(name)
            shown = plots.get(name)
            if shown is None:
                continue
            viewer.seen.add(name)
            if viewer.last_plots < 0:
                viewer.last_plots = now
            said.append(_encoded(shown, compressed))
            size += len(said[-1])
            if size >= PIECE:
                yield b"".join(said)
                said, size = [], 0
        if said:
            yield b"".join(said)

    def _ready(self, viewer: Viewer, now: float) -> set[str]:
        """The plots whose turn it is: all that are pending once the period is over, before that only first ones."""
        if now < viewer.last_plots + viewer.period:
            return viewer.pending - viewer.seen
        if viewer.pending & viewer.seen:
            viewer.last_plots = now
        return set(viewer.pending)

    def _once(
        self, kind: str, run: str, version: Any, make: Callable[[str], dict[str, Any]], compressed: bool
    ) -> bytes:
        """An event that all viewers of a run share, made anew when its version changes."""
        found = self._made.get((kind, run))
        if found is None or found[0] != version:
            if len(self._made) > 64:  # names of runs that somebody asked for once
                self._made.clear()
            text = events.said(kind, make(run))
            found = self._made[(kind, run)] = (version, text, events.block(text))
        return found[2] if compressed else found[1]


def _encoded(shown: Shown, compressed: bool) -> bytes:
    if not compressed:
        return events.event("plot", shown.json())
    if shown.block is None:
        shown.block = events.block(events.event("plot", shown.json()))
    return shown.block
