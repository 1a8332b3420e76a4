"""A reducer at work: follows the store of one run after the other, counts each spill once, publishes, and finishes.

Everything it knows of a run is in one saved file (``checkpoint``), so it may be killed at any line. A run is finished
in an order of which each part may be done again: all its spills are counted and saved, the last plots are published,
the snapshot is written and its metadata last, then the run is final once every reducer has come so far, and then the
saved state goes. Only after that the next run begins, with empty histograms.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator import faults
from orchestrator.errors import DatabaseError, DataError, NotFound, Unauthorised
from orchestrator.online import configuration, snapshot
from orchestrator.online.images import Gallery
from orchestrator.online.module import FAULTS
from orchestrator.online.plot import Plot
from orchestrator.online.presenting import Presenter, Shown, iso
from orchestrator.online.publication import encoded, topic
from orchestrator.online.reducer_status import Said, Teller
from orchestrator.online.references import Compared
from orchestrator.online.run_reducer import RunReducer
from orchestrator.online.store import Arrivals, RunRecord, Stores
from orchestrator.version import VERSION

log = logging.getLogger(__name__)

LOOK = 0.1  # s between two looks at the transform's file, which names the run
SWEEP = 2.0  # s between two looks into the store for a new run, whatever the file says
SAVE = 5.0  # s between two saved states; what is counted again after a kill
PAUSE = 2.0  # s until a store that is away is tried again
BIRTHS = (1.0, 30.0)  # s until a birth that has failed is tried again: at first, and at most
REMIND = 60.0  # s between two lines in the log about spills that do not come
AT_ONCE = 200  # spills taken from the store at once
REASONS = 100  # for which plots were left out that are told; more are variants of one


@dataclass(frozen=True)
class Places:
    """Folders of a site's online system."""

    states: Path
    runs: Path
    status: Path

    @classmethod
    def of(cls, folder: Path) -> Places:
        """Those in the site's folder."""
        return cls(folder / "online" / "state", snapshot.runs_folder(folder), folder / "online")


class Reducing:
    """The daemon.

    Args:
        entry: the reducer as configured.
        online: the whole configuration, for the tag and the other reducers' names.
        stores: of the runs.
        publisher: ``send(topic, header, body)`` as of ``publishing.Publisher``.
        places: folders for states and snapshots.
        compare: how a plot stands against its reference.
        gallery: makes pictures while a run goes on.
        now: s, monotonic.
        clock: unix seconds.
        bell: names the present run, at little cost: another name, and the store is looked into at once.
    """

    def __init__(
        self,
        entry: configuration.Reducer,
        online: configuration.Online,
        stores: Stores,
        publisher: Any,
        places: Places,
        *,
        compare: Callable[[Plot], Compared | None],
        gallery: Gallery,
        now: Callable[[], float],
        clock: Callable[[], float],
        bell: Callable[[], str] = str,
    ) -> None:
        self._entry = entry
        self._names = [one.name for one in online.reduce]
        self._stores = stores
        self._publisher = publisher
        self._places = places
        self._gallery = gallery
        self._now = now
        self._clock = clock
        self._presenter = Presenter(entry.name, online.tag, compare, clock)
        self._work: RunReducer | None = None
        self._record: RunRecord | None = None
        self._bell = bell
        self._told: set[str] = set()
        self._rung: str | None = None
        self._looked = 0.0
        self._published = self._saved = self._reminded = 0.0
        self._teller = Teller(places.status, now)
        self._left_out: list[str] = []
        self._next_birth, self._birth_wait = 0.0, BIRTHS[0]

    def run(self, stop: threading.Event) -> None:
        """Reduce run after run until ``stop`` is set. What was counted is saved at the end.

        Raises Unauthorised where the database refuses the login, which is not tried again: that locks the account.
        """
        self._draw_what_is_missing()
        try:
            while not stop.is_set():
                try:
                    if self._work is None and not (self._time_to_look() and self._begin()):
                        stop.wait(LOOK)
                        continue
                    self._follow(stop)
                    self._rung = None  # there may be another run already
                except NotFound:
                    log.warning("the spills of run %s are gone before they were all counted", self._run_name())
                    self._leave()
                except Unauthorised:
                    raise
                except (DatabaseError, OSError) as error:
                    log.warning("run %s: %s; tried again", self._run_name(), error)
                    self._rung = None
                    stop.wait(PAUSE)
        finally:
            if self._work is not None and self._work.unsaved:
                try:
                    self._work.save()
                except (DataError, OSError) as error:
                    log.error("what was counted last of run %s cannot be saved (%s): it is counted again at the next "
                              "start", self._run_name(), error)  # fmt: skip
            self._gallery.close()

    def _draw_what_is_missing(self) -> None:
        try:
            for run, undrawn in snapshot.undrawn(self._places.runs, self._entry.name):
                self._gallery.last(undrawn, functools.partial(snapshot.draw, self._places.runs, run))
        except Exception as error:  # of files that somebody has changed: no reason not to count spills
            log.warning("pictures of earlier runs are not looked after: %s: %s", type(error).__name__, error)

    def step(self) -> bool:
        """One run as far as it goes without waiting; for tests and for replaying. Whether there was one."""
        if self._work is None and not self._begin():
            return False
        self._follow(_Once())
        return True

    def _time_to_look(self) -> bool:
        rung, now = self._bell(), self._now()
        if rung == self._rung and now - self._looked < SWEEP:
            return False
        self._rung, self._looked = rung, now
        return True

    def _begin(self) -> bool:
        """Take up the oldest run that is not finished here."""
        for record in self._stores.runs():
            if record.state == "final":
                continue
            runs, name = self._places.runs, self._entry.name
            if snapshot.finished(runs, record.run, name, record.opened, record.begun) is not None:
                self._conclude(record)  # a kill may have come in between
                continue
            self._work = RunReducer(self._entry, record, self._places.states)
            self._record = record
            self._birth_wait = BIRTHS[0]
            self._give_birth(self._work)
            return True
        return False

    def _give_birth(self, work: RunReducer) -> bool:
        """Have the module prepare for the run. A student's class may raise anything: then it is tried again later."""
        before = work.error
        born = work.begin()
        now = self._now()
        if born:
            self._published = self._saved = self._reminded = now
            counted = len(work.counted.numbers)
            log.info("run %s %s", work.run, f"goes on after {counted} spills" if counted else "begins")
            self._publish(final=False)
            return True
        if work.error != before:
            log.error("run %s cannot begin here; it is tried again: %s", work.run, work.trace)
        self._next_birth = now + self._birth_wait
        self._birth_wait = min(BIRTHS[1], 2 * self._birth_wait)
        self._say()
        return False

    def _born(self, work: RunReducer, stop: Any) -> bool:
        """Whether the module is ready for the run. A run that has ended waits for so many tries and for no more."""
        if work.born:
            return True
        if self._now() < self._next_birth:
            stop.wait(LOOK)
            return False
        if self._give_birth(work):
            return True
        self._record = self._stores.of(work.run).record() or self._record
        if self._record is not None and work.complete(self._record):
            log.error("run %s has ended without this reducer: %s", work.run, work.error)
            self._finish()
        return False

    def _follow(self, stop: Any) -> None:
        assert self._work is not None and self._record is not None
        work = self._work
        if not self._born(work, stop):
            return
        store = self._stores.of(work.run)
        if work.complete(self._record) and work.counted.mark is not None:
            self._finish()
            return
        for arrivals in store.follow(work.counted.mark, wait=stop.wait, most=AT_ONCE):
            self._take(arrivals)
            if work.complete(self._record):
                self._finish()
                return

    def _take(self, arrivals: Arrivals) -> None:
        assert self._work is not None
        work, refresh = self._work, self._entry.refresh
        if arrivals.record is not None:
            self._record = arrivals.record
        if work.take(arrivals.outcomes, arrivals.mark):
            faults.point("reducer.counted")
        now = self._now()
        enough = refresh.spills and work.new >= refresh.spills
        if work.new and (enough or now - self._published >= refresh.seconds):
            self._gallery.offer(self._publish(final=False))
            faults.point("reducer.published")
        if work.unsaved and now - self._saved >= SAVE:
            self._saved = now
            self._save()
            faults.point("reducer.saved")
        self._say()
        if self._record is not None and self._record.state != "begun" and now - self._reminded > REMIND:
            self._reminded = now
            counted = len(work.counted.numbers)
            log.warning("run %s has ended; %d spills are counted, more are to come", work.run, counted)

    def _publish(self, *, final: bool) -> Sequence[Shown]:
        assert self._work is not None
        work = self._work
        self._left_out = []
        try:
            shown = self._presenter.present(work.plots(), work.contents, final=final, fault=self._leave_out)
        except FAULTS as error:  # a student's class again: its spills are counted all the same
            self._leave_out(f"all of {work.entry.module}: {type(error).__name__}: {error}")
            shown = []
        for one in shown:
            self._publisher.send(topic("plot", work.run, one.header.name), encoded(one.header), one.body)
        work.new = 0
        self._published = self._now()
        return shown

    def _leave_out(self, fault: DataError | str) -> None:
        """Plots are left out. There is a next try at every refresh."""
        if len(self._left_out) < REASONS:
            self._left_out.append(str(fault)[:500])
        self._once(f"plots are left out: {fault}")

    def _save(self) -> None:
        """Save what is counted. A module whose state cannot be had is counted anew after the next start, and told."""
        assert self._work is not None
        try:
            self._work.save()
        except DataError as error:
            self._once(f"what is counted cannot be saved, and is counted again after a restart: {error}")

    def _once(self, words: str) -> None:
        """Into the log, each sentence once."""
        if words not in self._told and len(self._told) < REASONS:
            self._told.add(words)
            log.error("%s", words)

    def _say(self, state: str = "counting") -> None:
        """How it is, for who looks on."""
        if self._work is None or self._record is None:
            return
        work, counted = self._work, self._work.counted
        self._teller.say(
            Said(
                self._entry.name, "cannot begin" if state == "counting" and not work.born else state, work.run,
                self._record.begun, self._record.opened, len(counted.numbers), counted.shown, counted.failed,
                work.error, work.tries, dict(counted.wrong), list(self._left_out),
            )
        )  # fmt: skip

    def _finish(self) -> None:
        assert self._work is not None and self._record is not None
        work = self._work
        shown: Sequence[Shown] = []
        if work.born:
            self._save()
            faults.point("reducer.complete")
            shown = self._publish(final=True)
        about = {
            "version": VERSION, "module": work.entry.module, "settings": work.entry.settings,
            "counted": len(work.counted.numbers), "shown": work.counted.shown, "failed": work.counted.failed,
            "hidden": work.counted.hidden, "wrong": work.counted.wrong, "opened": self._record.opened,
            "begun": self._record.begun, "error": work.error, "trace": work.trace,
        }  # fmt: skip
        snapshot.write(self._places.runs, work.run, work.entry.name, shown, about)
        faults.point("reducer.finished")
        self._conclude(self._record)
        work.checkpoint.forget()
        self._gallery.last(shown, functools.partial(snapshot.draw, self._places.runs, work.run))
        log.info("run %s is finished: %d spills are in its plots", work.run, work.counted.shown)
        self._say("finished")
        self._leave()

    def _conclude(self, record: RunRecord) -> None:
        """Make the run final, if every reducer has finished with it."""
        store = self._stores.of(record.run)
        latest = store.record()
        if latest is None or latest.state == "final":
            return
        when = iso(self._clock()) or ""
        whole = snapshot.unite(self._places.runs, record.run, self._names, asdict(latest) | {"snapshot": when})
        if whole is None:
            return
        faults.point("reducer.united")
        final = replace(latest, state="final", snapshot=when, quality=whole["quality"], verdicts=whole["verdicts"])
        store.save(final)
        said = {"state": "final", "quality": whole["quality"], "verdicts": whole["verdicts"], "time": when}
        failed = whole["reducers_failed"]
        if failed:
            said["trouble"] = "; ".join(f"the reducer {name} has failed: {why}" for name, why in failed.items())
        said |= {"begun": latest.begun, "ended": latest.ended, "how": latest.how, "spills": latest.spills}
        self._publisher.send(topic("run", record.run), encoded(said))

    def _leave(self) -> None:
        if self._work is not None:
            self._work.close()
        self._work = self._record = None

    def _run_name(self) -> str:
        return self._work.run if self._work is not None else "-"


class _Once:
    """Ends at the first pause."""

    def wait(self, seconds: float) -> bool:
        return True
