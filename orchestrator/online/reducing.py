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
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from orchestrator import faults
from orchestrator.errors import DatabaseError, DataError, NotFound, SettingsError
from orchestrator.online import configuration, snapshot
from orchestrator.online.checkpoint import Checkpoint, Counted, digest
from orchestrator.online.images import Gallery
from orchestrator.online.module import Reduce, RunConfiguration, find
from orchestrator.online.packing import unpacked
from orchestrator.online.plot import Plot
from orchestrator.online.presenting import Contents, Presenter, Shown, iso
from orchestrator.online.publication import encoded, topic
from orchestrator.online.references import Compared
from orchestrator.online.store import Arrivals, Outcome, RunRecord, Stores
from orchestrator.version import VERSION

log = logging.getLogger(__name__)

LOOK = 0.1  # s between two looks at the transform's file, which names the run
SWEEP = 2.0  # s between two looks into the store for a new run, whatever the file says
SAVE = 5.0  # s between two saved states; what is counted again after a kill
PAUSE = 2.0  # s until a store that is away is tried again
REMIND = 60.0  # s between two lines in the log about spills that do not come
AT_ONCE = 200  # spills taken from the store at once
REASONS = 100  # for which plots were left out that are told; more are variants of one
WRONG = 20  # spills that could not be counted, kept with their reasons


@dataclass(frozen=True)
class Places:
    """Folders of a site's online system."""

    states: Path
    runs: Path

    @classmethod
    def of(cls, folder: Path) -> Places:
        """Those in the site's folder."""
        return cls(folder / "online" / "state", snapshot.runs_folder(folder))


def check_names(online: configuration.Online) -> None:
    """Refuse two reducers whose plots would have the same names. Raises SettingsError."""
    owners: dict[str, str] = {}
    for entry in online.reduce:
        module = cast(type[Reduce], find(entry.module, Reduce))(entry.settings)
        module.birth(RunConfiguration("check"))
        for name in module.names():
            other = owners.setdefault(name, entry.name)
            if other != entry.name:
                raise SettingsError(
                    f"the reducers {other} and {entry.name} both have plots called {name!r}: give one of them the "
                    "setting `prefix`, or leave it out"
                )
        module.death()


class RunReducer:
    """One reducer and one run: what is counted, and what follows from it. Knows no store and no clock of its own.

    Args:
        entry: the reducer as configured.
        record: the run.
        checkpoint_folder: of the saved states.
        log: the module's.

    Raises:
        SettingsError: the module or its settings cannot be used.
    """

    def __init__(self, entry: configuration.Reducer, record: RunRecord, checkpoint_folder: Path) -> None:
        kind = cast(type[Reduce], find(entry.module, Reduce))
        self.entry = entry
        self.run = record.run
        self._module = kind(entry.settings, logging.getLogger(f"{__name__}.{entry.name}"))
        self._birth = RunConfiguration(record.run, record.header)
        # With the run's beginning: a run of this name whose store is gone is another run.
        belongs = f"{digest(entry.module, kind.version, entry.settings)} {record.begun}"
        self.checkpoint = Checkpoint(checkpoint_folder, entry.name, record.run, belongs)
        self.counted = Counted(record.run)
        self.new = 0  # spills since the last plots
        self.unsaved = 0  # and since the last saved state
        self._module.birth(self._birth)

    def restore(self) -> bool:
        """Take up what was saved. Returns whether there was something."""
        saved, why = self.checkpoint.load()
        if saved is not None:
            try:
                self._module.merge(saved.state)
            except Exception as error:
                saved, why = None, f"{self.checkpoint.path} cannot be used: {error}"
                self._module.birth(self._birth)
        if why:
            log.warning("%s; the spills of run %s are counted anew", why, self.run)
        if saved is None:
            return False
        self.counted = saved
        return True

    def take(self, outcomes: Iterable[Outcome], mark: str) -> int:
        """Count those that are not counted yet. Returns how many there were."""
        taken = 0
        for outcome in outcomes:
            if self.counted.numbers.add(outcome.number):
                self._count(outcome)
                taken += 1
        self.counted.mark = mark
        self.new += taken
        self.unsaved += taken
        return taken

    def _count(self, outcome: Outcome) -> None:
        counted = self.counted
        if outcome.failed or outcome.packed is None:
            counted.failed += 1
            return
        if not outcome.shown:
            counted.hidden += 1
            return
        try:
            spill = unpacked(outcome.packed)
            self._module.process(spill)
        except Exception as error:  # a student's class may raise anything; the next spill goes on
            if len(counted.wrong) < WRONG:
                counted.wrong[str(outcome.number)] = f"{type(error).__name__}: {error}"[:500]
                log.error("spill %d of run %s: %s", outcome.number, self.run, "".join(traceback.format_exc(limit=-3)))
            counted.failed += 1
            return
        counted.shown += 1
        counted.spill = outcome.number if counted.spill is None else max(counted.spill, outcome.number)
        if spill.taken is not None:
            counted.taken = spill.taken if counted.taken is None else max(counted.taken, spill.taken)

    def save(self) -> None:
        """Save everything. Raises OSError."""
        self.checkpoint.save(replace(self.counted, state=self._module.state()))
        self.unsaved = 0

    def plots(self) -> list[Plot]:
        """What the module has to show now."""
        return list(self._module.plots())

    @property
    def contents(self) -> Contents:
        """What is in the plots."""
        return Contents(self.run, self.counted.spill, self.counted.shown, self.counted.taken)

    def complete(self, record: RunRecord) -> bool:
        """Whether the run has ended and all its spills are counted."""
        if record.state == "begun":
            return False
        spills = record.done + record.failed if record.spills is None else record.spills
        return len(self.counted.numbers) >= spills

    def close(self) -> None:
        """The module's death; what it raises is logged."""
        try:
            self._module.death()
        except Exception:
            log.exception("the end of %s", self.entry.module)


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

    def run(self, stop: threading.Event) -> None:
        """Reduce run after run until ``stop`` is set. What was counted is saved at the end."""
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
                except (DatabaseError, OSError) as error:
                    log.warning("run %s: %s; tried again", self._run_name(), error)
                    self._rung = None
                    stop.wait(PAUSE)
        finally:
            if self._work is not None and self._work.unsaved:
                try:
                    self._work.save()
                except OSError as error:
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
            known = self._work.restore()
            self._record = record
            self._published = self._saved = self._reminded = self._now()
            words = f"goes on after {len(self._work.counted.numbers)} spills" if known else "begins"
            log.info("run %s %s", record.run, words)
            self._publish(final=False)
            return True
        return False

    def _follow(self, stop: Any) -> None:
        assert self._work is not None and self._record is not None
        work = self._work
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
            work.save()
            self._saved = now
            faults.point("reducer.saved")
        if self._record is not None and self._record.state != "begun" and now - self._reminded > REMIND:
            self._reminded = now
            counted = len(work.counted.numbers)
            log.warning("run %s has ended; %d spills are counted, more are to come", work.run, counted)

    def _publish(self, *, final: bool) -> Sequence[Shown]:
        assert self._work is not None
        work = self._work
        try:
            shown = self._presenter.present(work.plots(), work.contents, final=final, fault=self._once)
        except Exception as error:  # a student's class again: its spills are counted all the same
            self._once(f"all of {work.entry.module}: {type(error).__name__}: {error}")
            shown = []
        for one in shown:
            self._publisher.send(topic("plot", work.run, one.header.name), encoded(one.header), one.body)
        work.new = 0
        self._published = self._now()
        return shown

    def _once(self, fault: DataError | str) -> None:
        """Tell of plots that are left out, each reason once: there is a next try at every refresh."""
        if str(fault) not in self._told and len(self._told) < REASONS:
            self._told.add(str(fault))
            log.error("plots are left out: %s", fault)

    def _finish(self) -> None:
        assert self._work is not None and self._record is not None
        work = self._work
        work.save()
        faults.point("reducer.complete")
        shown = self._publish(final=True)
        about = {
            "version": VERSION, "module": work.entry.module, "settings": work.entry.settings,
            "counted": len(work.counted.numbers), "shown": work.counted.shown, "failed": work.counted.failed,
            "hidden": work.counted.hidden, "wrong": work.counted.wrong, "opened": self._record.opened,
            "begun": self._record.begun,
        }  # fmt: skip
        snapshot.write(self._places.runs, work.run, work.entry.name, shown, about)
        faults.point("reducer.finished")
        self._conclude(self._record)
        work.checkpoint.forget()
        self._gallery.last(shown, functools.partial(snapshot.draw, self._places.runs, work.run))
        log.info("run %s is finished: %d spills are in its plots", work.run, work.counted.shown)
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
