"""The farm's daemon: has the steps that a site sends to one farm done there. One for each farm of a site.

It works beside the pollers and as they do: the feed rings, sweeps of the work views find what it missed, state decides.
Each round asks the batch system once, looks at the jobs' files, records what became of each attempt, and submits what
is ready. ``kill -9`` at any line is survived by the next one, which finds its jobs by their names.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from orchestrator import batchjobs, control, documents
from orchestrator.capture import safe_file_name
from orchestrator.chain import Chain, Step
from orchestrator.clock import Jumps
from orchestrator.couch import Database
from orchestrator.documents import Claimant, Document, iso
from orchestrator.engine import controls
from orchestrator.engine.farm import FarmEngine
from orchestrator.engine.farmworld import World
from orchestrator.engine.heartbeat import PREFIX, Heartbeat, beats
from orchestrator.engine.submission import places
from orchestrator.engine.sweep import PAGE, sweep
from orchestrator.errors import ChainError, Conflict, SettingsError, Unauthorised, Unavailable
from orchestrator.feed import Feed
from orchestrator.renewal import HELD_FOR, boottime
from orchestrator.schedulers import Query, SchedulerError, get
from orchestrator.settings import Settings
from orchestrator.software import Installed
from orchestrator.transports import TransportError, TransportRefused, transport_to

log = logging.getLogger(__name__)

#: After a ring from the feed the next round begins at the earliest so long after the last (s), so that files that come
#: together share an array.
SHORTEST = 1.0
#: Jobs that the heartbeat names, for people.
SHOWN = 200
#: While the database is away it is asked again after this long (s), doubled each time up to the longest.
FIRST_WAIT, LONGEST_WAIT = 0.5, 15.0


class Farmer:
    """Everything that one farm's daemon is made of."""

    def __init__(self, chain: Chain, database: Database, settings: Settings, name: str, environ: Mapping[str, str]):
        """Make the daemon of farm ``name`` for the steps of this site, and take its lock.

        Raises ChainError for a farm that the site does not use, SettingsError for one that cannot be used, Conflict if
        another daemon has it.
        """
        self.chain, self.database, self.settings = chain, database, settings
        if name not in chain.farms or not chain.farmed(settings.site, name):
            used = ", ".join(sorted({step.farm for step in chain.farmed(settings.site) if step.farm}))
            raise ChainError(
                f"site {settings.site!r} sends no step to a farm {name!r}; farms that it uses: {used or 'none'}"
            )
        self.name, self.farm = name, chain.farms[name]
        identity = batchjobs.identity(settings.site, name)
        self._lock = _lock(settings.spool, identity)
        self.claimant = Claimant(identity, socket.gethostname(), os.getpid(), settings.site)
        scheduler = get(
            self.farm.scheduler, programs=self.farm.programs, environment=self.farm.environment,
            settings=self.farm.settings,
        )  # fmt: skip
        self.prefix = batchjobs.prefix(settings.url, settings.database, identity)
        transport, query = transport_to(self.farm.access), Query(self.prefix, self.farm.user)
        world = World(scheduler, transport, self.farm.spool.rstrip("/"), query)
        self._installed: Installed | None = None
        self.engine = FarmEngine(
            chain, self.farm, name, self.claimant, database, world, places(self.farm, None, settings),
            lambda: uuid.uuid4().hex, self._still_ours,
        )  # fmt: skip
        #: Tells this daemon from others of the same farm, which beat in the same document.
        self._mark, self._beaten, self._until = uuid.uuid4().hex, False, 0.0
        self.heartbeat = Heartbeat(database, self.claimant, [s.key for s in self.engine.steps], time.time(), 0)
        self._steering = control.name_of(settings.site)
        self.feed = Feed(database, self._selectors(), self._steering, self._ring)
        self._wake, self._stop = threading.Event(), threading.Event()
        self._since = ""
        self._next = {"beat": 0.0, "sweep": 0.0}
        self._wait = FIRST_WAIT
        self._jumps = Jumps()
        self._hindrance: tuple[float, str] | None = None

    # --- from outside ---

    def stop(self, *_: Any) -> None:
        """Submit no more and go; jobs go on and are found again. From anywhere."""
        self._stop.set()
        self._wake.set()

    def install_signals(self) -> None:
        """SIGTERM and SIGINT stop; a second one ends at once, as kill -9 would, which is safe too."""

        def answer(number: int, _: FrameType | None) -> None:
            if self._stop.is_set():
                os._exit(128 + number)
            # Not set here: a handler that interrupts a wait on the same event can deadlock with it.
            threading.Thread(target=self.stop, daemon=True).start()

        signal.signal(signal.SIGTERM, answer)
        signal.signal(signal.SIGINT, answer)

    def run(self, *, until_idle: bool = False) -> None:
        """Work until stopped, or, with ``until_idle``, until nothing is at the farm or could be sent there.

        Raises Unauthorised, NotFound and TransportRefused: a daemon cannot mend those. While the database or the farm
        is merely away it waits, for ever.
        """
        log.info("farm %s: steps %s", self.name, ", ".join(step.name for step in self.engine.steps))
        self._look_for_another()
        try:
            while not self._stop.is_set():
                began = time.monotonic()
                pause = self.farm.every
                try:
                    self.round(time.time())
                    self._wait = FIRST_WAIT
                    self.feed.start(self._since)
                    if until_idle and self._idle():
                        break
                except Unavailable as error:
                    log.warning("the database is away; jobs go on, their results wait at the farm: %s", error)
                    self.engine.stale = True
                    pause, self._wait = self._wait, min(2 * self._wait, LONGEST_WAIT)
                except TransportRefused:
                    raise  # repeated logins lock accounts
                except (TransportError, SchedulerError) as error:
                    if not error.transient:
                        log.error("%s", error)
                    self._hindered(str(error), time.time())
                    self.engine.stale = True
                self._pause(pause, began)
        finally:
            self._end()

    def round(self, now: float) -> None:
        """Whatever is due: heartbeat, what is at the farm, verdicts, submissions, intents."""
        if not self._since:
            self._since = str(self.database.info()["update_seq"])
        monotonic = time.monotonic()
        if moved := self._jumps.moved(now, monotonic):
            log.warning("the clock was set by %.0f s; periods go on as they were", moved)
            self.engine.clock_set(moved, now)
        if monotonic >= self._next["beat"]:
            self._beat(now)
        self._still_ours()
        self._take_changes(now, monotonic)
        listed = self.engine.watch(now)
        if not self._ready(now):
            return
        self._hindered("", now)
        self.engine.submit(now, listed)
        if not self._stop.is_set():
            self.engine.intend(now, self._new_name)
            self.engine.submit(now, listed)

    # --- what goes in ---

    def _selectors(self) -> list[dict[str, Any]]:
        """What the feed tells of: documents that may be ready, and those that a person has changed."""
        ready = {"type": self.chain.type, "status": {"$in": ["closed", "good"]}}
        taken = {"type": self.chain.type, "status": {"$in": ["failed", "bad"]}, "operation": {"$exists": True}}
        return [ready, taken, *({f"{step.key}.cancel": {"$exists": True}} for step in self.engine.steps)]

    def _ring(self, found: list[Document]) -> None:
        """In the feed's thread: documents have come, or the feed has ended."""
        if self.feed.fault is not None:
            log.error("the feed has ended, sweeps go on: %s", self.feed.fault)
        elif any(self._urgent(document) for document in found):
            self._wake.set()

    def _urgent(self, document: Document) -> bool:
        """Whether a document is worth a round at once."""
        if document["_id"] == self._steering or documents.holder(document) is not None:
            return True
        return documents.ready_step(self.chain, document, self.engine.open) is not None

    def _take_changes(self, now: float, monotonic: float) -> None:
        """What has changed in the database: by the feed, and, where a sweep is due, by looking at everything."""
        again = self.engine.stale
        if again:
            self.engine.load()
        for rung in self.feed.take():
            self.engine.held.note(*rung)
            for document in rung:
                self.engine.backlog.offer(document, now)
        if again or self.feed.steered or monotonic >= self._next["sweep"]:
            self._obey()
        if monotonic >= self._next["sweep"]:
            held = [at.document for at in self.engine.held.values()]
            for start in range(0, len(held), PAGE):  # for changes that the feed has not told of
                found = self.database.get_many(held[start : start + PAGE]).values()
                self.engine.held.note(*(document for document in found if document is not None))
        if monotonic >= self._next["sweep"] or self.engine.backlog.short():
            for page in sweep(self.database, self.engine.open, self.engine.backlog):
                for document in page:
                    self.engine.backlog.offer(document, now)
            self._next["sweep"] = monotonic + self.settings.sweep

    def _obey(self) -> None:
        """Heed what people have paused, drained and limited since, and which attempts they have cancelled."""
        self.feed.steered = False
        found = controls.read(self.database, self.settings.site)
        if found != self.engine.control:
            self.engine.obey(found)
            self._next["sweep"] = 0.0
            for step in self.engine.steps:
                if found.why_not(step):
                    log.warning("%s", found.why_not(step))
            log.info("limits: %s", self.engine.farm.limits)
        mine = [self.settings.site, self.name]
        rows = self.database.view("farm/cancelled", startkey=mine, endkey=mine)
        for document in self.database.get_many([str(row.id) for row in rows]).values():
            if document is not None:
                self.engine.held.note(document)

    def _ready(self, now: float) -> bool:
        """Whether new jobs have a Python to run with: looks, each round, which version is installed."""
        if self.farm.python:
            return True
        remedy = f"run `orchestrator site install {self.name}`"
        try:
            found = self.engine.world.installed()
            why = "" if found or self.farm.transport == "local" else f"nothing is installed there: {remedy}"
        except ValueError as error:
            found, why = None, f"the record of what is installed there cannot be used ({error}): {remedy}"
        if why:
            self._hindered(why, now)
            return False
        if found != self._installed:
            log.info("new jobs use %s", found.name if found else "this machine's own Python")
            self._installed = found
            self.engine.places = places(self.farm, found, self.settings)
        return True

    def _hindered(self, why: str, now: float) -> None:
        """Note, for people, why the farm gets nothing now, and since when; empty: nothing hinders any more."""
        before, why = self._hindrance, why.partition(" (not asked again")[0]  # the rest changes each time
        if before is None and not why:
            return
        since = before[0] if before else now
        self._hindrance = (since, why) if why else None
        if why and (before is None or before[1] != why):
            log.warning("farm %s: %s", self.name, why)
        if self.engine.witnesses.away is None or self.engine.witnesses.away is before:
            self.engine.witnesses.away = self._hindrance

    def _new_name(self, step: Step) -> str:
        return f"{self.prefix}{step.name[:30]}-{uuid.uuid4().hex[:10]}"

    # --- whose the farm is ---

    def _look_for_another(self) -> None:
        """One daemon a farm: in this spool the lock sees to it, from elsewhere a heartbeat that moves."""
        try:
            first = beats(self.database).get(self.claimant.poller)
            if first is None or (first.get("host") == self.claimant.host and not _lives(first.get("pid"))):
                return
            self._stop.wait(self.settings.lease / 2)  # it beats four times in a lease
            second = beats(self.database).get(self.claimant.poller)
        except Unavailable as error:
            log.warning("whether another daemon has farm %s cannot be asked now: %s", self.name, error)
            return
        if second is not None and second.get("beat") != first.get("beat"):
            raise Conflict(
                f"farm {self.name} is in the hands of a daemon on {second.get('host')} (process {second.get('pid')}): "
                "stop that one first"
            )

    def _still_ours(self) -> None:
        """Before something is done that another daemon could be doing: look, unless a beat of late says it is not.

        Raises Conflict where it has the farm, Unavailable where that cannot be seen.
        """
        if boottime() > self._until:
            self._beat(time.time())

    def _beat(self, now: float) -> None:
        """Beat once. Raises Conflict where another daemon has the farm by now, which thought that this one is dead."""
        began = boottime()
        if self._beaten:
            there = self.database.get_local(PREFIX + self.claimant.poller) or {}
            if there.get("daemon") not in (None, self._mark):
                self._beaten = False  # what beats there is not ours to remove
                raise Conflict(
                    f"farm {self.name} was taken over by a daemon on {there.get('host')} (process {there.get('pid')}) "
                    "while this one hung or was cut off: this one ends; stop that one first if it is to have the farm"
                )
        states = dict(list(self.engine.states.items())[:SHOWN])
        away = self.engine.witnesses.away
        self.heartbeat.write(
            now, held=len(self.engine.held), backlog=len(self.engine.backlog), farm=self.name, states=states,
            scheduler=self.farm.scheduler, away={"since": iso(away[0]), "why": away[1]} if away else None,
            limits=self.engine.farm.limits.model_dump(), room=self.engine.room(), lease=self.settings.lease,
            daemon=self._mark,
        )  # fmt: skip
        self._beaten, self._until = True, began + HELD_FOR * self.settings.lease
        self._next["beat"] = time.monotonic() + self.settings.lease / 4

    # --- the loop's ends ---

    def _idle(self) -> bool:
        backlog = self.engine.backlog
        return not (self.engine.held or backlog.claimable() or backlog.more or self.feed.waits())

    def _pause(self, pause: float, began: float) -> None:
        """Wait for the next round, and beat meanwhile; the feed may ring, but not more often than every SHORTEST."""
        self._stop.wait(max(0.0, min(SHORTEST, pause) - (time.monotonic() - began)))
        while not self._stop.is_set() and (left := pause - (time.monotonic() - began)) > 0:
            if self._wake.wait(max(0.0, min(left, self._next["beat"] - time.monotonic()))):
                break
            if time.monotonic() >= self._next["beat"]:
                try:
                    self._beat(time.time())
                except Unavailable:
                    break  # the next round says so
        self._wake.clear()

    def _end(self) -> None:
        self.feed.close()
        try:
            if self._beaten:
                self.heartbeat.stop()
        except (Unavailable, Unauthorised) as error:
            log.warning("the database was not told that this daemon has ended: %s", error)
        self.engine.world.transport.close()
        os.close(self._lock)


def _lives(pid: Any) -> bool:
    """Whether there is such a process on this machine."""
    return isinstance(pid, int) and pid > 0 and Path(f"/proc/{pid}").exists()


def _lock(spool: Path, identity: str) -> int:
    """The lock of a farm's daemon, which the kernel lets go of however the process ends. Raises Conflict."""
    path = spool / f"{safe_file_name(identity)}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SettingsError(f"the spool {spool} cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise Conflict(f"another daemon has {identity} on this machine: stop that one first") from None
    return descriptor
