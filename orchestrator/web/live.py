"""Live pages: one follower of the database's changes for all viewers, and server-sent events to each of them.

A change is only a doorbell: a viewer is told *that* documents changed, and reads the page again. What is pending for a
viewer is therefore a small set that later changes melt into, and a viewer that reads slowly costs nobody anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import threading
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from starlette.concurrency import run_in_threadpool

from orchestrator.errors import NotFound, OrchestratorError, Unauthorised, Unavailable
from orchestrator.web import human
from orchestrator.web.source import Health, Source

log = logging.getLogger(__name__)

#: Between two events to one viewer at least, in seconds: an eye follows two changes a second, not two hundred.
PAUSE_SECONDS = 0.5
#: A line of comment after so much silence, in seconds: shorter than the 60 s after which proxies end idle connections.
HEARTBEAT_SECONDS = 15.0
#: The database is asked whether it answers so often while somebody looks, in seconds.
WATCH_SECONDS = 3.0
#: Ids named in one event; with more changes than that a viewer is told "many".
IDS = 100
#: Viewers at once. Each is a socket; a script that opens them without end must not use them all up.
VIEWERS = 500
#: After the database was away, in seconds.
RETRY_SECONDS = 2.0


class Follow(Protocol):
    """Where changes come from."""

    def __call__(self, stop: threading.Event, /) -> Iterator[Sequence[str]]:
        """The ids of changed documents, batch by batch, until the event is set. Raises as the database does."""

    def close(self) -> None:
        """End the iteration soon; called from another thread."""


@dataclass(eq=False)
class Viewer:
    """What one viewer has not been told yet."""

    wake: asyncio.Event = field(default_factory=asyncio.Event)
    ids: set[str] = field(default_factory=set)
    many: bool = False
    changed: bool = False
    health: Health | None = None

    def add(self, ids: Iterable[str], many: bool) -> None:
        """Remember that these documents changed."""
        self.ids |= set(ids)
        self.changed = True
        self.many = self.many or many or len(self.ids) > IDS
        if self.many:
            self.ids.clear()
        self.wake.set()


class Full(OrchestratorError):
    """There are as many viewers as there may be."""


class Hub:
    """Rings at every viewer when documents change or the database comes and goes."""

    def __init__(self, source: Source, follow: Follow | None) -> None:
        self._source = source
        self._follow = follow
        self._viewers: set[Viewer] = set()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watching: asyncio.Task[None] | None = None
        self._ids: set[str] = set()
        self._many = False
        self._timer: asyncio.TimerHandle | None = None
        self._pushed = 0.0

    @property
    def viewers(self) -> int:
        """How many look on at the moment."""
        return len(self._viewers)

    def start(self) -> None:
        """Begin to follow; to be called in the event loop that the viewers live in."""
        self._loop = asyncio.get_running_loop()
        self._watching = self._loop.create_task(self._watch())
        if self._follow is not None:
            self._thread = threading.Thread(target=self._run, name="changes for the pages", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End all streams, and the follower."""
        self._stop.set()
        if self._follow is not None:
            self._follow.close()
        if self._watching is not None:
            self._watching.cancel()
        for viewer in self._viewers:
            viewer.wake.set()

    def _run(self) -> None:
        """Follow for ever, in a thread of its own."""
        follow = self._follow
        assert follow is not None
        refused = False
        while not self._stop.is_set():
            if refused and not self._source.health.reachable:  # one who asks with a wrong password is enough
                self._stop.wait(RETRY_SECONDS)
                continue
            refused = False
            try:
                for ids in follow(self._stop):
                    if ids:  # a quiet round ends without any
                        self._ring(ids, False)
                    if self._stop.is_set():
                        return
            except Unauthorised as error:
                refused = True
                self._source.away(error)
                log.warning("the pages are not live: %s", error)
            except NotFound:
                pass  # not made yet: the pages say so; look again soon
            except Unavailable as error:
                self._source.away(error)
            except OrchestratorError as error:
                log.warning("the pages are not live for a moment: %s", error)
            self._ring((), True)
            self._stop.wait(RETRY_SECONDS)

    def _ring(self, ids: Sequence[str], many: bool) -> None:
        """From the follower's thread into the event loop."""
        if self._loop is not None and not self._loop.is_closed():
            try:
                self._loop.call_soon_threadsafe(self.changed, ids, many)
            except RuntimeError:  # closed between the question and the call: nobody looks any more
                self._stop.set()

    def changed(self, ids: Sequence[str], many: bool = False) -> None:
        """Documents changed: tell the viewers now, or together with what else changes within the pause."""
        loop = asyncio.get_running_loop()
        self._ids |= set(ids)
        self._many = self._many or many or len(self._ids) > IDS
        if self._timer is None:
            due = self._pushed + PAUSE_SECONDS
            self._timer = loop.call_at(max(due, loop.time()), self._push)

    def _push(self) -> None:
        ids, many = self._ids, self._many
        if self._timer is not None:
            self._timer.cancel()
        self._ids, self._many, self._timer = set(), False, None
        self._pushed = asyncio.get_running_loop().time()
        self._source.changed()
        for viewer in self._viewers:
            viewer.add(ids, many)

    async def _watch(self) -> None:
        """Ask now and then whether the database answers, and tell the viewers when that changes."""
        told = self._source.health
        while not self._stop.is_set():
            await asyncio.sleep(WATCH_SECONDS)
            if self._viewers:
                await run_in_threadpool(self._ping)
            health = self._source.health
            if health != told:
                told = health
                for viewer in self._viewers:
                    viewer.health = health
                    viewer.wake.set()

    def _ping(self) -> None:
        with contextlib.suppress(OrchestratorError):  # the source notes what it sees, and that is what is asked
            self._source.cached("ping", lambda database: database.info())

    async def stream(self, heartbeat: float = HEARTBEAT_SECONDS) -> AsyncGenerator[str, None]:
        """The events of one viewer, for ever. Raises Full at once where there are too many viewers."""
        if len(self._viewers) >= VIEWERS:
            raise Full(f"{VIEWERS} viewers look on already: close a page, or wait a little")
        viewer = Viewer()
        self._viewers.add(viewer)
        try:
            wait = RETRY_SECONDS * (0.5 + random.random())  # not all viewers in one moment, after a restart
            yield f"retry: {int(wait * 1000)}\n" + event("database", _health(self._source.health))
            while not self._stop.is_set():
                try:
                    await asyncio.wait_for(viewer.wake.wait(), heartbeat)
                except TimeoutError:
                    yield ": still here\n\n"
                    continue
                viewer.wake.clear()
                if viewer.health is not None:
                    health, viewer.health = viewer.health, None
                    yield event("database", _health(health))
                if viewer.changed:
                    data = {"ids": sorted(viewer.ids), "many": viewer.many}
                    viewer.ids, viewer.many, viewer.changed = set(), False, False
                    yield event("change", data)
        finally:
            self._viewers.discard(viewer)


def _health(health: Health) -> dict[str, object]:
    return {"reachable": health.reachable, "since": human.iso(health.since), "sentence": health.sentence}


def event(name: str, data: object) -> str:
    """One server-sent event: its data as one line of ASCII JSON, so that no document's text can end it."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"
