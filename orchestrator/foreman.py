"""Between a poller's engine and its workers: tasks go out, what becomes of them comes back, and spool files go.

No attempt begins or goes on whose claim is not surely ours: where no heartbeat was written for too long, all are let go
of (`orchestrator.renewal`).
"""

from __future__ import annotations

import time
from typing import Any

from orchestrator import faults
from orchestrator.engine.engine import Engine
from orchestrator.executors.events import LOST, BatchDone, Event, Progressed, Returned
from orchestrator.executors.pool import Pool
from orchestrator.executors.spool import Spool
from orchestrator.renewal import Renewal
from orchestrator.reports import Report
from orchestrator.runner import Task

#: Attempts that the heartbeat shows with their progress, for people.
SHOWN = 50


class Foreman:
    """Of one pool of workers. Use from the engine's thread."""

    def __init__(self, engine: Engine, pool: Pool, spool: Spool, renewal: Renewal) -> None:
        self._engine, self._pool, self._spool, self._renewal = engine, pool, spool, renewal
        #: Tasks that came back from a worker that died, and that go to another.
        self.returned: list[Task] = []
        self._batches: list[BatchDone] = []
        self._progress: dict[str, Progressed] = {}
        pool.killed_because = lambda: renewal.why if renewal.expired() else ""

    # --- to the workers ---

    def hand_out(self, tasks: list[Task], now: float) -> None:
        """Give the workers claimed tasks, behind those that came back from one that died."""
        tasks = self._still_ours(tasks, now)
        if tasks or self.returned:
            again, self.returned = self.returned, []
            self._pool.submit([*again, *tasks])
            faults.point("poller.handed-over")

    def call_off(self) -> None:
        """End the attempts whose documents somebody has taken away."""
        while self._engine.unwanted:
            self._pool.call_off(*self._engine.unwanted.popitem())

    def keep_watch(self, now: float) -> None:
        """Let go of everything if others may think that this poller is dead; else let the guard know the workers."""
        if self._renewal.expired():
            self._renewal.let_go(self._engine.ours())
            self._pool.end_all(self._renewal.why)
            self.returned = self._still_ours(self.returned, now)
        self._renewal.tell(self._pool.processes())

    def _still_ours(self, tasks: list[Task], now: float) -> list[Task]:
        """Those tasks that may begin; those that were let go of are given back, if they are ours to give."""
        for task in tasks:
            if task.attempt in self._renewal.void:
                self._engine.give_back(task, self._renewal.why, now)
        return [task for task in tasks if task.attempt not in self._renewal.void]

    # --- from the workers ---

    def hear(self, timeout: float, *, go_on: bool) -> None:
        """Take in what the workers have to say, waiting up to ``timeout`` (s) for it.

        With ``go_on`` a document whose step is done is claimed for the next one, where there is room.
        """
        events = self._pool.events(timeout)
        if events:
            self._engine.room(self._pool.budget())
            self._take_in(events, go_on=go_on)
            faults.point("poller.heard")

    def _take_in(self, events: list[Event], *, go_on: bool) -> None:
        now = time.time()
        for event in events:
            if isinstance(event, Report):
                self._progress.pop(event.attempt, None)
                if event.error_class == LOST:
                    self._engine.lost(event.attempt, event.reason, now)
                else:
                    self._engine.reported(event, now, go_on=go_on)
            elif isinstance(event, Progressed):
                self._progress[event.attempt] = event
            elif isinstance(event, Returned) and event.unborn:
                for task in event.tasks:
                    self._engine.give_back(task, event.unborn, now)
            elif isinstance(event, Returned):
                self.returned.extend(self._still_ours(event.tasks, now))
            elif isinstance(event, BatchDone):
                self._batches.append(event)

    def clear_spool(self) -> None:
        """Files of batches whose reports are all recorded go."""
        kept = []
        for batch in self._batches:
            if batch.attempts & self._engine.unrecorded:
                kept.append(batch)
            else:
                self._spool.done(batch.name)
                faults.point("poller.cleared")
        self._batches = kept

    def running(self) -> list[dict[str, Any]]:
        """What is at work, for the heartbeat."""
        shown = []
        for attempt, held in list(self._engine.held.items())[:SHOWN]:
            far = self._progress.get(attempt)
            shown.append({
                "document": held.name, "step": held.step.key, "attempt": attempt,
                "fraction": far.fraction if far else None, "text": far.text if far else "",
            })  # fmt: skip
        return shown

    # --- the end ---

    def close(self) -> None:
        """End the workers. Their last reports are taken in, and what they had not finished is in ``returned``."""
        self._take_in(self._pool.close(), go_on=False)
        self._renewal.close()

    def give_back(self, tasks: list[Task], reason: str, now: float) -> None:
        """Free these tasks' documents, and those of what came back."""
        for task in [*self.returned, *tasks]:
            self._engine.give_back(task, reason, now)
