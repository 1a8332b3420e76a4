"""One reducer and one run: the module's birth, each spill counted once, what is saved of it. No store, no clock."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from orchestrator.errors import DataError
from orchestrator.online import configuration
from orchestrator.online.checkpoint import Checkpoint, Counted, digest
from orchestrator.online.module import FAULTS, Reduce, RunConfiguration, made
from orchestrator.online.packing import unpacked
from orchestrator.online.pipeline import ModuleFailed
from orchestrator.online.plot import Plot
from orchestrator.online.presenting import Contents
from orchestrator.online.store import Outcome, RunRecord

log = logging.getLogger(__name__)

WRONG = 20  # spills that could not be counted, kept with their reasons
TRIES = 3  # births that may fail; a run that has ended waits for no more


class RunReducer:
    """One reducer and one run: what is counted, and what follows from it. Knows no store and no clock of its own.

    After it is made it has to ``begin``, and until it is ``born`` it counts nothing.

    Args:
        entry: the reducer as configured.
        record: the run.
        checkpoint_folder: of the saved states.
        log: the module's.

    Raises:
        SettingsError: the module or its settings cannot be used.
    """

    def __init__(self, entry: configuration.Reducer, record: RunRecord, checkpoint_folder: Path) -> None:
        self.entry = entry
        self.run = record.run
        self._module = made(entry.module, Reduce, entry.settings, logging.getLogger(f"{__name__}.{entry.name}"))
        self._birth = RunConfiguration(record.run, record.header)
        # With the run's beginning: a run of this name whose store is gone is another run.
        belongs = f"{digest(entry.module, self._module.version, entry.settings)} {record.begun}"
        self.checkpoint = Checkpoint(checkpoint_folder, entry.name, record.run, belongs)
        self.counted = Counted(record.run)
        self.new = 0  # spills since the last plots
        self.unsaved = 0  # and since the last saved state
        self.born = False
        self.error = self.trace = ""  # why the last birth failed
        self.tries = 0

    def begin(self) -> bool:
        """The module's birth, and with it what was saved of the run. Returns whether it is born; else see ``error``."""
        self.tries += 1
        try:
            self._module.birth(self._birth)
            self._restore()
        except FAULTS as error:
            failed = ModuleFailed(self.entry.module, error)
            self.error, self.trace = str(failed), failed.trace()
            return False
        self.born, self.error, self.trace = True, "", ""
        return True

    def _restore(self) -> None:
        saved, why = self.checkpoint.load()
        if saved is not None:
            try:
                self._module.merge(saved.state)
            except FAULTS as error:
                saved, why = None, f"{self.checkpoint.path} cannot be used: {error}"
                self._module.birth(self._birth)
        if why:
            log.warning("%s; the spills of run %s are counted anew", why, self.run)
        if saved is not None:
            self.counted = saved

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
        except FAULTS as error:  # the next spill goes on
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
        """Save everything. Raises OSError; DataError where the module's state cannot be had or written down."""
        try:
            state = self._module.state()
        except FAULTS as error:
            raise DataError(f"{self.entry.module} has no state: {type(error).__name__}: {error}") from error
        self.checkpoint.save(replace(self.counted, state=state))
        self.unsaved = 0

    def plots(self) -> list[Plot]:
        """What the module has to show now."""
        return list(self._module.plots())

    @property
    def contents(self) -> Contents:
        """What is in the plots."""
        return Contents(self.run, self.counted.spill, self.counted.shown, self.counted.taken)

    def complete(self, record: RunRecord) -> bool:
        """Whether the run has ended and all its spills are counted, as far as they can be."""
        if record.state == "begun":
            return False
        if not self.born:
            return self.tries >= TRIES
        spills = record.done + record.failed if record.spills is None else record.spills
        return len(self.counted.numbers) >= spills

    def close(self) -> None:
        """The module's death; what it raises is logged."""
        try:
            self._module.death()
        except FAULTS:
            log.exception("the end of %s", self.entry.module)
