"""The poller: a daemon that follows the run database and has the steps of its site done.

One loop in one thread: hear what the workers say (`orchestrator.foreman`), hear what the feed says
(`orchestrator.feed`), decide, commit in bulk (`orchestrator.committing`), hand out. Before work, and every so often, it
sweeps the work views, for a feed is a doorbell and state decides; and it looks for what dead pollers left. ``kill -9``
at any line is survived by the next.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import socket
import threading
import time
import uuid
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

from orchestrator import control, faults
from orchestrator.chain import Chain
from orchestrator.committing import Committer
from orchestrator.control import Control
from orchestrator.couch import Database
from orchestrator.documents import Claimant, iso
from orchestrator.engine import controls
from orchestrator.engine.costs import DEPTH
from orchestrator.engine.engine import Engine
from orchestrator.engine.heartbeat import Heartbeat
from orchestrator.engine.recovery import Recovery
from orchestrator.engine.sweep import sweep
from orchestrator.errors import ChainError, DatabaseError, NotFound, Refused, Unauthorised, Unavailable
from orchestrator.executors.pool import Pool
from orchestrator.executors.spool import Spool
from orchestrator.feed import Feed
from orchestrator.foreman import Foreman
from orchestrator.renewal import Renewal, boottime
from orchestrator.runner import Places

log = logging.getLogger(__name__)

#: A heartbeat, and a look for lost claims, this many times in a lease: two may fail without harm.
BEATS = 4
#: While something runs the heartbeat comes so often (s): people watch its progress there.
WATCHED = 2.0
#: While the database is away it is asked again after this long (s), doubled each time up to the longest.
FIRST_WAIT, LONGEST_WAIT = 0.2, 15.0
#: While a stop is carried out, the loop looks this often (s) whether it is done.
STOPPING = 0.2


@dataclass
class Terms:
    """How a poller behaves: seconds all, but for ``workers``."""

    workers: int = 2
    lease: float = 60.0
    sweep: float = 60.0
    drain: float = 30.0


class Poller:
    """Everything that one poller process is made of."""

    def __init__(
        self, chain: Chain, database: Database, places: Places, spool_root: Any, site: str = "here",
        terms: Terms | None = None, *, only: list[str] | None = None, documents: list[str] | None = None,
    ) -> None:  # fmt: skip
        """Make the poller of ``site``; with ``only``, for these of its steps; with ``documents``, for these alone.

        Raises ChainError if the site has no steps here, SettingsError if the spool cannot be written.
        """
        self._documents = documents
        self.chain, self.database, self.terms = chain, database, terms or Terms()
        steps = chain.at(site)
        if only:
            chosen = {chain.step(name).key for name in only}
            steps = tuple(step for step in steps if step.key in chosen)
        if not steps:
            raise ChainError(
                f"the chain {chain.name!r} has no step for site {site!r}: its sites are {', '.join(chain.sites)}"
            )
        host = socket.gethostname()
        self.claimant = Claimant(f"{host}-{os.getpid()}-{uuid.uuid4().hex[:8]}", host, os.getpid(), site)
        self.engine = Engine(chain, steps, self.claimant, database, lambda: uuid.uuid4().hex, random.Random())
        self.spool = Spool(spool_root, self.claimant.poller, places.scratch)
        faults.point("poller.locked")
        own = replace(places, scratch=self.spool.scratch or places.scratch)
        self.pool = Pool(
            chain, own, self.spool, self.terms.workers, name=self.claimant.poller,
            cost=self.engine.costs.of, depth=DEPTH,
        )  # fmt: skip
        self.renewal = Renewal(self.claimant.poller, self.terms.lease)
        self.foreman = Foreman(self.engine, self.pool, self.spool, self.renewal)
        self.committer = Committer(self.engine, self.pool.wake)
        self.recovery = Recovery(chain, database, self.engine, self.spool, self.terms.lease)
        self.heartbeat = Heartbeat(
            database, self.claimant, [step.key for step in steps], time.time(), self.terms.workers
        )
        #: What people have paused here.
        self.control = Control(site)
        # The last two tell of documents that a person has taken away from a step that runs here.
        told = {"type": chain.type, "status": {"$in": ["closed", "good", "failed", "bad"]}}
        self.feed = Feed(database, [told], control.name_of(site), lambda _: self.pool.wake())
        self._since = ""
        self._stop = threading.Event()
        self._stopping_since: float | None = None
        self._away_since: float | None = None
        self._next = {"beat": 0.0, "look": 0.0, "sweep": 0.0, "try": 0.0}
        self._beaten = 0.0
        self._wait = FIRST_WAIT

    # --- from outside ---

    def stop(self, *_: Any) -> None:
        """Drain: take no more, let running steps end (for ``drain`` seconds), record, go. From anywhere."""
        self._stop.set()
        self.pool.wake()

    def install_signals(self) -> None:
        """SIGTERM and SIGINT drain; a second one ends at once, as kill -9 would, which is safe too."""

        def answer(number: int, _: FrameType | None) -> None:
            if self._stop.is_set():
                os._exit(128 + number)
            log.info("%s: draining", signal.Signals(number).name)
            self.stop()

        signal.signal(signal.SIGTERM, answer)
        signal.signal(signal.SIGINT, answer)

    def run(self, *, until_idle: bool = False) -> None:
        """Work until stopped, or, with ``until_idle``, until nothing is running or could begin now.

        Raises Unauthorised and NotFound (no database, no couchapp): a daemon cannot mend those. While the database is
        merely away it waits, for ever.
        """
        log.info("poller %s: steps %s", self.claimant.poller, ", ".join(s.name for s in self.engine.steps))
        try:
            while True:
                now, monotonic = time.time(), time.monotonic()
                self.foreman.keep_watch(now)
                if self._stop.is_set() and self._drained(monotonic):
                    break
                self.foreman.hear(self._timeout(now, monotonic), go_on=not self._stop.is_set())
                if self.feed.fault is not None and not self._stop.is_set():
                    raise self.feed.fault
                if time.monotonic() < self._next["try"]:
                    continue
                try:
                    self._round(time.time(), time.monotonic())
                except Unavailable as error:
                    self._is_away(error)
                    continue
                self._is_back()
                if self._documents is None:
                    self.feed.start(self._since)
                if until_idle and self._idle():
                    break
        except (Unauthorised, NotFound):
            # Asking again would lock the account. What runs may end; its reports wait in the spool for the next poller.
            self._let_end()
            self._end(told=False)
            raise
        except BaseException:
            self._end()
            raise
        self._end()

    # --- the loop's parts ---

    def _round(self, now: float, monotonic: float) -> None:
        """Whatever is due, decisions, one commit, new tasks to the workers. Raises Unavailable with nothing lost."""
        if self._away_since is not None:
            self.recovery.away()
        if not self._since:
            # The feed begins where the database stood before the first sweep: between the two nothing is missed.
            self._since = str(self.database.info()["update_seq"])
        self._keep_up(now, monotonic)
        self.engine.backlog.clock(now, monotonic)
        for batch in self.feed.take():
            self.engine.offer(batch, now)
        self.foreman.call_off()
        if not self._stop.is_set():
            self._look_for_work(now, monotonic)
            self.engine.claim(now, self.pool.budget())
        # While the database is away one request at a time asks whether it is back.
        commit = self.committer.commit if self._away_since is None else self.committer.finish
        self.foreman.hand_out(commit(now), now)
        self.recovery.finish()
        self.foreman.clear_spool()

    def _keep_up(self, now: float, monotonic: float) -> None:
        """What is due by time: a heartbeat, more often while people can watch something run; a look for lost claims."""
        if monotonic >= self._next["beat"]:
            self._beat(now)
            self._beaten, self._next["beat"] = monotonic, monotonic + self.terms.lease / BEATS
        elif self.engine.held:
            self._next["beat"] = min(self._next["beat"], self._beaten + WATCHED)
        if monotonic >= self._next["look"]:
            self.recovery.look(now, monotonic)
            self.renewal.watched = self.recovery.watched
            self._next["look"] = monotonic + self.terms.lease / BEATS

    def _look_for_work(self, now: float, monotonic: float) -> None:
        """Heed what people say, and sweep, where either is due or the feed has rung for it."""
        if self._documents is None and (self.feed.steered or monotonic >= self._next["sweep"]):
            self._obey()
        if monotonic >= self._next["sweep"] or self.engine.backlog.short():
            self._sweep(now)
            self._next["sweep"] = monotonic + self.terms.sweep

    def _timeout(self, now: float, monotonic: float) -> float:
        """How long nothing needs to be done (s)."""
        stopping = self._stop.is_set()
        if monotonic < self._next["try"]:
            wait = self._next["try"] - monotonic
            return min(wait, STOPPING) if stopping else wait
        if self.committer.due() or self.foreman.returned or self.feed.waits():
            return 0.0
        if stopping:
            return STOPPING
        due = min(self._next["beat"], self._next["look"], self._next["sweep"]) - monotonic
        retry = self.engine.backlog.next_due()
        if retry is not None:
            due = min(due, retry - now)
        if self.engine.backlog.claimable():
            if self.pool.budget() > self.engine.pending():
                return 0.0
            due = min(due, self.pool.next_birth() or due)
        return max(0.0, due)

    def _obey(self) -> None:
        """Heed what people have paused since, and look at all work again where they have let some go on."""
        self.feed.steered = False
        found = controls.read(self.database, self.claimant.site)
        if found == self.control:
            return
        self.control = found
        allowed = [step for step in self.engine.steps if found.may_start(step.name, step.farm)]
        self.engine.allow(allowed)
        self._next["sweep"] = 0.0
        log.warning("%s", " ".join(found.why_not(step) or f"{step.name} may begin." for step in self.engine.steps))

    def _sweep(self, now: float) -> None:
        """Look at all that is ready, later steps first. Raises NotFound if the couchapp has not been pushed."""
        if self._documents is not None:
            self.engine.backlog.more = False
            named = self.database.get_many(self._documents).values()
            self.engine.offer([document for document in named if document is not None], now, swept=True)
            return
        for found in sweep(self.database, self.engine.open, self.engine.backlog):
            self.engine.offer(found, now, swept=True)

    def _beat(self, now: float) -> None:
        began = boottime()
        try:
            self.heartbeat.write(
                now, lease=self.terms.lease, branch=self.chain.branch.name, running=self.foreman.running(),
                held=len(self.engine.held), backlog=len(self.engine.backlog), counts=vars(self.engine.counts),
                draining=self._stop.is_set(), since=self.feed.since, refused=self.engine.remembered.refusals(now),
            )  # fmt: skip
            self.renewal.renewed(began)
        except Refused as error:
            log.error("the heartbeat was refused: %s", error)
        faults.point("poller.beaten")

    def _is_away(self, error: Unavailable) -> None:
        if self._away_since is None:
            self._away_since = time.time()
            log.warning("the database is away; running steps go on, results wait here: %s", error)
        self._next["try"] = time.monotonic() + self._wait * random.uniform(0.7, 1.3)
        self._wait = min(self._wait * 2, LONGEST_WAIT)

    def _is_back(self) -> None:
        if self._away_since is not None:
            log.warning("the database is back after %.0f s", time.time() - self._away_since)
            self._away_since, self._wait = None, FIRST_WAIT
            self._next["sweep"] = 0.0

    # --- the end ---

    def _idle(self) -> bool:
        return not (
            self.committer.busy() or self.engine.held or self.foreman.returned or self.engine.backlog.claimable()
            or self.engine.backlog.more or self.feed.waits()
        )  # fmt: skip

    def _drained(self, monotonic: float) -> bool:
        """Whether a stop can be carried out now: nothing runs and nothing waits to be written, or time is up."""
        if self._stopping_since is None:
            self._stopping_since = monotonic
        late = monotonic - self._stopping_since > self.terms.drain
        return late or not (self.engine.held or self.committer.busy())

    def _let_end(self) -> None:
        """Let what runs come to its end, for ``drain`` seconds, without the database."""
        self._stop.set()
        end = time.monotonic() + self.terms.drain
        while self.pool.outstanding() and time.monotonic() < end:
            self.foreman.hear(STOPPING, go_on=False)

    def _end(self, *, told: bool = True) -> None:
        """Leave in order: free what was not begun and, if it may be ``told``, say so to the database.

        Whatever fails here is mended by the next poller's start.
        """
        self.feed.close()
        self.foreman.close()
        try:
            if told:
                written = self.committer.finish(time.time())
                self.foreman.give_back(written, f"poller {self.claimant.poller} was stopped", time.time())
                self.engine.commit(time.time())
                self.recovery.finish()
                self.foreman.clear_spool()
                faults.point("poller.given-back")
                self.heartbeat.stop()
                faults.point("poller.left")
        except DatabaseError as error:
            log.warning("the database was not told that this poller has ended: %s", error)
        self.spool.close()
        log.info("poller %s has ended at %s: %s", self.claimant.poller, iso(time.time()), self.engine.counts)
