"""Taking back what a farm has: attempts that a person has cancelled or whose document somebody has taken away, and
those that wait while a farm is drained.

The intent stands in the database: ``procN.cancel`` in the document, the document itself that has gone on, or the site's
control document. From it, each round:

1. the job's task is told, in a file of the spool, which attempts it shall not begin, and which it shall end;
2. the batch system is told to cancel tasks of which nothing is wanted any more;
3. the job's marker is looked at. An attempt that has not begun is over: its document is given back, or ends as the
   person has said. One that has begun is left alone by a drain; a cancelled one ends within seconds, by the runner's
   hand or the batch system's, and is judged as every other is.

The runner marks an attempt before it looks whether that is withdrawn, and here the file is written before the marker
is looked at: so one of the two sees what the other has done. Killed between any two of these, the next daemon does
them again, which harms nothing. (A job that starts in the very moment in which a drain has it cancelled is ended by the
batch system; its attempt failed in passing, and is made again.)
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from orchestrator import faults
from orchestrator.control import Control
from orchestrator.engine import verdicts
from orchestrator.engine.farmworld import Files, World
from orchestrator.engine.fate import Fate, Result, Verdict
from orchestrator.engine.verdicts import AtFarm, Listed
from orchestrator.schedulers import SchedulerUnavailable
from orchestrator.transports import TransportError

log = logging.getLogger(__name__)

#: A batch system that was told to cancel a job is not told again for so long (s).
PATIENCE = 60.0
#: Jobs and tasks that one cancel command names: some ten thousand letters.
KEYS = 500
#: What the job's files say of an attempt that has not begun.
NOT_BEGUN = (Result.NONE, Result.STARTED)


def unwanted(
    held: Iterable[AtFarm], control: Control, farm: str, files: Mapping[str, Files | None] | None = None
) -> dict[str, str]:
    """Attempts to be taken back, with the reason: cancelled ones, and where a drain is on those that have not begun.

    With ``files`` of their jobs also those that the tasks have been told not to begin: that stands, even if
    the drain has been.
    """
    drained: dict[str, str] = {}
    found: dict[str, str] = {}
    for at in held:
        told = files.get(at.job) if files else None
        if told is not None and at.attempt in told.withdrawn:
            found[at.attempt] = told.withdrawn[at.attempt]
        if at.cancelled:
            found[at.attempt] = at.cancelled
        elif control.stops and not at.begun:
            name = at.step.name
            if name not in drained:
                drained[name] = control.drained(name, farm)
            if drained[name]:
                found[at.attempt] = drained[name]
    return found


@dataclass
class Withdrawal:
    """One farm's. Use from one thread."""

    world: World
    #: Jobs that no document waits for any more, and that may still be in the queue: a person has taken these away.
    orphans: set[str] = field(default_factory=set)
    #: Tasks that the last round has found so.
    _lone: set[str] = field(default_factory=set)
    _told: dict[str, float] = field(default_factory=dict)

    def shift(self, by: float) -> None:
        """The clock was set by so many seconds."""
        self._told = {key: when + by for key, when in self._told.items()}

    def fates(
        self, wanted: Mapping[str, str], held: Mapping[str, AtFarm], files: Mapping[str, Files | None],
        listed: Listed, now: float,
    ) -> dict[str, Fate]:  # fmt: skip
        """Take attempts back, and say which of them are over. ``wanted`` are their reasons, by attempt."""
        jobs: dict[str, list[AtFarm]] = {}
        for at in held.values():
            jobs.setdefault(at.job, []).append(at)
        over: dict[str, Fate] = {}
        keys: dict[str, str] = {}
        waiting: list[str] = []
        for job in {held[attempt].job for attempt in wanted}:
            try:
                over |= self._unsubmitted(jobs[job], wanted)
                here = files.get(job)
                if here is None:
                    continue  # its files cannot be read now
                self._tell(jobs[job], wanted, here)
            except TransportError as error:
                log.warning("%s", error)
                continue
            keys |= dict.fromkeys(self._keys(jobs[job], wanted, here, listed), job)
            waiting.append(job)
        faults.point("farm.told")
        refused = self._cancel(keys, now)
        faults.point("farm.cancelled")
        for job in waiting:
            if job in refused:
                continue
            try:
                here = self.world.look(job)
            except TransportError as error:
                log.warning("%s", error)
                continue
            for at in jobs[job]:
                if at.attempt in wanted and at.number and verdicts.result_of(at, here) in NOT_BEGUN:
                    over[at.attempt] = Fate(Verdict.RETURNED, wanted[at.attempt])
        return over

    def _unsubmitted(self, members: list[AtFarm], wanted: Mapping[str, str]) -> dict[str, Fate]:
        """Those whose job has surely never been submitted are over at once."""
        some = [at for at in members if at.attempt in wanted and not at.number]
        if not some or self.world.submitting(some[0].job) is not None:
            return {}
        return {at.attempt: Fate(Verdict.RETURNED, wanted[at.attempt]) for at in some}

    def _tell(self, members: list[AtFarm], wanted: Mapping[str, str], here: Files) -> None:
        """Leave word for each task that has unwanted attempts, unless it is there already."""
        tasks: dict[int, list[AtFarm]] = {}
        for at in members:
            if at.attempt in wanted and at.number:
                tasks.setdefault(at.task, []).append(at)
        for task, some in tasks.items():
            attempts, end = {at.attempt for at in some}, {at.attempt for at in some if at.cancelled}
            if not attempts <= here.withdrawn.keys() or not end <= here.ending:
                # Those that were named before stay named: who reads it in between must not begin them.
                before = {at.attempt for at in members if at.task == task} & here.withdrawn.keys()
                self.world.withdraw(members[0].job, task, attempts | before, end, wanted[some[0].attempt])

    def _keys(self, members: list[AtFarm], wanted: Mapping[str, str], here: Files, listed: Listed) -> list[str]:
        """What the batch system is to cancel: tasks of which nothing is wanted, and which a drain finds not begun."""
        tasks: dict[int, list[AtFarm]] = {}
        for at in members:
            tasks.setdefault(at.task, []).append(at)
        number = next((at.number for at in members if at.number), "")
        useless = [
            task
            for task, some in tasks.items()
            if all(at.attempt in wanted and at.number for at in some)
            and (task not in here.markers or all(at.cancelled for at in some))
        ]
        key = self.world.scheduler.key
        if not number or not useless:
            return []
        if len(useless) == len(tasks):
            return [] if all(self._ended(members[0].job, task, listed) for task in useless) else [key(number)]
        return [key(number, task) for task in useless if not self._ended(members[0].job, task, listed)]

    @staticmethod
    def _ended(job: str, task: int, listed: Listed) -> bool:
        """Whether the queue itself says that the task has ended."""
        known = listed.job(listed.queue, job, task)
        return known is not None and known.state.final

    def cancel_orphans(self, listed: Listed, held: Iterable[AtFarm], now: float) -> None:
        """Have jobs and tasks cancelled that nobody waits for; those that the queue has no more are forgotten.

        A task is seen so in two rounds first: it may be ending just now.
        """
        if listed.queue is None:
            return
        wanted: dict[str, set[int]] = {}
        for at in held:
            wanted.setdefault(at.job, set()).add(at.task)
        keys: dict[str, str] = {}
        for job in self.orphans:
            living = [known.number for known in listed.queue.named(job) if not known.state.final]
            keys |= dict.fromkeys(map(self.world.scheduler.key, dict.fromkeys(living)), job)
        if listed.queue.complete:
            self.orphans = set(keys.values())
        lone: set[str] = set()
        for job, tasks in wanted.items():
            for known in listed.queue.named(job):
                if known.index is not None and known.index not in tasks and not known.state.final:
                    key = self.world.scheduler.key(known.number, known.index)
                    lone.add(key)
                    if key in self._lone:
                        keys[key] = job
        self._lone = lone
        self._cancel(keys, now)

    def _cancel(self, keys: Mapping[str, str], now: float) -> set[str]:
        """Give the cancel commands; the jobs that could not be cancelled now."""
        self._told = {key: when for key, when in self._told.items() if 0 <= now - when < PATIENCE}
        fresh = [key for key in keys if key not in self._told]
        for start in range(0, len(fresh), KEYS):
            some = fresh[start : start + KEYS]
            try:
                self.world.cancel(some)
            except SchedulerUnavailable as error:
                log.warning("%s", error)
                return {keys[key] for key in fresh[start:]}
            self._told |= dict.fromkeys(some, now)
            log.info("%d jobs or tasks cancelled, the first of them %s", len(some), some[0])
        return set()
