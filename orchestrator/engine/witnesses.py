"""Asking the batch system, and weighing what it says of an attempt against what the job's own files say."""

from __future__ import annotations

import logging
from dataclasses import replace

from orchestrator.engine import verdicts
from orchestrator.engine.absence import Absence
from orchestrator.engine.farmworld import Files, World
from orchestrator.engine.fate import GONE, Fate, Result, Verdict, Witness, fate, witness
from orchestrator.engine.verdicts import AtFarm, Listed
from orchestrator.farms import Grace
from orchestrator.schedulers import Job, SchedulerUnavailable

log = logging.getLogger(__name__)


class Witnesses:
    """Of one farm. Use from one thread."""

    def __init__(self, world: World) -> None:
        self.world = world
        #: Since when the batch system cannot be asked (s since 1970), and why.
        self.away: tuple[float, str] | None = None
        self._gone = Absence()

    def ask(self, now: float) -> Listed:
        """One round's look at the queue: one call."""
        try:
            listing = self.world.queue()
        except SchedulerUnavailable as error:
            self.is_away(str(error), now)
            return Listed(None)
        self.away = None
        if listing.unread:
            log.warning("a part of the queue's answer cannot be read: %s", listing.unread[0])
        return Listed(listing)

    def is_away(self, why: str, now: float) -> None:
        """The batch system could not be asked."""
        if self.away is None:
            log.warning("%s", why)
            self.away = (now, why)

    def history(self, listed: Listed) -> bool:
        """Ask for the history, once a round; whether what it says of an absence counts."""
        if not listed.history_asked:
            listed.history_asked = True
            try:
                listed.history = self.world.history()
                listed.keeps_history = listed.history is not None
            except SchedulerUnavailable as error:
                log.warning("%s", error)
        return not listed.keeps_history or (listed.history is not None and listed.history.complete)

    def number_of(self, job: str, listed: Listed) -> str:
        """The number of a job by its name, from any of the three witnesses."""
        for listing in (listed.queue, listed.history if self.history(listed) else None):
            for known in listing.named(job) if listing else ():
                return known.number
        markers = self.world.look(job).markers.values()
        return next((marker.number for marker in markers if marker.number), "")

    def fate(self, at: AtFarm, files: Files | None, listed: Listed, now: float, grace: Grace) -> tuple[Fate, Witness]:
        """What became of an attempt, and what the queue says of its job. Raises TransportError."""
        result = verdicts.result_of(at, files)
        job = listed.job(listed.queue, at.job, at.task)
        # A job of another name than we ask for (the database's address has changed since) was not asked after.
        ours = at.job.startswith(self.world.query.prefix)
        queue = witness(job, asked=ours and listed.queue is not None and listed.queue.complete)
        past, accounting = None, Witness.UNAVAILABLE
        if queue is Witness.ABSENT and result not in (Result.THERE, Result.RETURNED):
            whole = self.history(listed)
            past = listed.job(listed.history, at.job, at.task)
            accounting = witness(past, asked=whole, history=listed.keeps_history)
        all_asked = result is not Result.UNAVAILABLE and (queue, accounting) != (Witness.ABSENT, Witness.UNAVAILABLE)
        since = self._gone.since(at.attempt, now, gone=all_asked and queue in GONE)
        periods = {"unknown": grace.unknown, "result": grace.result}

        def judged(accounting: Witness, told: Job | None) -> Fate:
            said = verdicts.said(told)
            return fate(
                queue=queue, accounting=accounting, result=result, since=since, now=now, said=said, grace=periods
            )

        told = past or job
        found = judged(accounting, told)
        if told is not None and found.verdict is Verdict.FAILED and found.error_class == "code":
            words = self.world.last_words(at.job, at.task)
            if words is not None:  # why it failed, in the batch system's own words
                told = replace(told, state=words[0], reason=words[1])
                found = judged(witness(told, asked=True), told)
        return found, queue

    def shift(self, by: float) -> None:
        """The clock was set by so many seconds."""
        self._gone.shift(by)
        if self.away is not None:
            self.away = (self.away[0] + by, self.away[1])

    def forget(self, attempt: str) -> None:
        """Its end is recorded."""
        self._gone.forget(attempt)
