"""The one thread that writes to a database. It commits what has gathered, from all connections, as one transaction.

A commit costs a flush of the disk; grouping makes it the same for one writer as for a hundred. Callers get their own
result, and only after the commit: what is acknowledged is on the disk.
"""

from __future__ import annotations

import copy
import logging
import queue
import sqlite3
import threading
from asyncio import AbstractEventLoop
from asyncio import Future as LoopFuture
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from orchestrator import faults
from orchestrator.embedded import layout
from orchestrator.embedded.compaction import Pruner
from orchestrator.embedded.documents import Draft
from orchestrator.embedded.problems import Problem, no_database, storage_problem
from orchestrator.embedded.ranks import Moves
from orchestrator.embedded.revisions import text
from orchestrator.embedded.updates import Counters, Group, Outcome, Refusal
from orchestrator.embedded.validation import Validators

# A group holds at most so many documents, so that the first of them need not wait long for the commit.
MAX_GROUP = 4000

log = logging.getLogger(__name__)

Task = Callable[[sqlite3.Connection], Any]


@dataclass(slots=True)
class Job:
    """One request to write: drafts that travel together, or a task that needs the writer's connection."""

    future: Future[Any] | LoopFuture[Any]
    drafts: list[Draft] = field(default_factory=list)
    new_edits: bool = True
    user: dict[str, Any] = field(default_factory=dict)
    task: Task | None = None
    loop: AbstractEventLoop | None = None
    outcomes: list[Outcome] = field(default_factory=list)


class Writer:
    """Owns a database's writing connection.

    Args:
        path: the SQLite file.
        validators: what runs ``validate_doc_update`` over the drafts of a group.
        committed: called on this thread after each commit that moved the sequence, with the new counters, and with
            what it has created and deleted. Only then is the write answered: whoever asks after that must see it.
        ring: called after the answers.
    """

    def __init__(
        self, path: Any, synchronous: str, validators: Validators, committed: Callable[[Counters, Moves], None],
        ring: Callable[[], None],
    ) -> None:  # fmt: skip
        self.connection = layout.connect(path, synchronous=synchronous)
        layout.create(self.connection)
        self.limit = int(self.meta("revs_limit", 1000))
        self.counters = Counters(
            seq=self.connection.execute("SELECT coalesce(max(seq), 0) FROM docs").fetchone()[0],
            documents=int(self.meta("documents", 0)),
            deleted=int(self.meta("deleted", 0)),
            bytes=int(self.meta("bytes", 0)),
            replaced=int(self.meta("replaced", 0)),
        )
        self._path = path
        self._pruner = Pruner()
        self._validators = validators
        self._committed, self._ring = committed, ring
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"writer {path}", daemon=True)
        self._thread.start()

    def meta(self, key: str, default: Any) -> Any:
        """A value of the meta table; for use before the thread starts or on it."""
        row = self.connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return default if row is None else row[0]

    def submit(self, job: Job) -> None:
        """Queue a job; its future is resolved after the commit."""
        if self._closed:
            raise no_database()
        self._jobs.put(job)

    def close(self) -> None:
        """Commit what is queued, then end the thread. Later jobs are answered "Database does not exist"."""
        self._closed = True
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        ending = False
        while not ending:
            jobs = []
            job = self._next()
            size = 0
            while True:
                if job is None:
                    ending = True
                    break
                jobs.append(job)
                size += len(job.drafts) or 1
                if size >= MAX_GROUP:
                    break
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
            if jobs:
                self._commit(jobs)
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is not None:
                _deliver([(job, no_database())])
        self.connection.close()

    def _next(self) -> Job | None:
        """The next job; while there is none, spare time goes into pruning."""
        while self._pruner.is_due(self.counters):
            try:
                return self._jobs.get_nowait()
            except queue.Empty:
                pass
            try:
                self._pruner.step(self.connection, self.counters)
            except sqlite3.Error as error:
                self._roll_back()
                log.warning("pruning %s: %s", self._path, error)
                break
        return self._jobs.get()

    def _commit(self, jobs: list[Job]) -> None:
        writes = [job for job in jobs if job.task is None]
        if writes:
            self._write(writes)
        for job in jobs:
            if job.task is not None:
                self._perform(job)

    def _write(self, jobs: list[Job]) -> None:
        before = copy.copy(self.counters)
        group = Group(self.connection, self.counters, self.limit)
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            self._weigh(group, jobs)
            group.flush()
            if self.counters.seq != before.seq:
                self.connection.executemany(
                    "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)",
                    [
                        ("documents", self.counters.documents),
                        ("deleted", self.counters.deleted),
                        ("bytes", self.counters.bytes),
                        ("replaced", self.counters.replaced),
                    ],
                )
            faults.point("database.committing")
            self.connection.execute("COMMIT")
            faults.point("database.committed")
        except Exception as error:
            self._roll_back()
            self.counters = before
            _deliver([(job, storage_problem(error)) for job in jobs])
            return
        if group.design_changed:
            self._validators.forget()
        moved = self.counters.seq != before.seq
        if moved:
            self._committed(copy.copy(self.counters), group.moves)
        _deliver([(job, job.outcomes) for job in jobs])
        faults.point("database.delivered")
        if moved:
            self._ring()

    def _weigh(self, group: Group, jobs: list[Job]) -> None:
        for job in jobs:
            job.outcomes = []
        sources = self._validators.sources(self.connection)
        group.read_ahead([draft.id for job in jobs for draft in job.drafts if not draft.is_local], bool(sources))
        if not sources:
            for job in jobs:
                for draft in job.drafts:
                    job.outcomes.append(group.put_local(draft) if draft.is_local else group.apply(draft, job.new_edits))
            return
        # A round holds each document once: what a validation is shown must include the writes before it.
        ring: list[tuple[Job, int, Draft]] = []
        seen: set[str] = set()
        for job in jobs:
            job.outcomes = [None] * len(job.drafts)  # type: ignore[list-item]
            for index, draft in enumerate(job.drafts):
                if draft.is_local:
                    job.outcomes[index] = group.put_local(draft)
                    continue
                if draft.id in seen:
                    self._round(group, ring)
                    ring, seen = [], set()
                ring.append((job, index, draft))
                seen.add(draft.id)
        self._round(group, ring)

    def _round(self, group: Group, ring: list[tuple[Job, int, Draft]]) -> None:
        asked: list[tuple[Draft, bytes | None, dict[str, Any]]] = []
        places: list[tuple[Job, int, Draft]] = []
        for job, index, draft in ring:
            if draft.id.startswith("_design/"):
                job.outcomes[index] = group.apply(draft, job.new_edits)
                continue
            if not job.new_edits and group.is_known(draft):
                job.outcomes[index] = group.apply(draft, False)  # nothing is written, so there is nothing to judge
                continue
            try:
                old = group.previous(draft, job.new_edits)
            except Problem:
                job.outcomes[index] = group.apply(draft, job.new_edits)
                continue
            asked.append((draft, old, job.user))
            places.append((job, index, draft))
        for (job, index, draft), verdict in zip(places, self._validators.judge(asked, self.connection), strict=True):
            if verdict is None:
                job.outcomes[index] = group.apply(draft, job.new_edits)
            else:
                rev = text(draft.revision) if draft.revision else None
                job.outcomes[index] = Refusal(draft.id, rev, verdict)

    def _perform(self, job: Job) -> None:
        assert job.task is not None
        try:
            result = job.task(self.connection)
        except Exception as error:
            self._roll_back()
            _deliver([(job, storage_problem(error))])
            return
        _deliver([(job, result)])

    def _roll_back(self) -> None:
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")


def _deliver(results: list[tuple[Job, Any]]) -> None:
    loops: dict[AbstractEventLoop, list[tuple[Any, Any]]] = {}
    for job, result in results:
        if job.loop is not None:
            loops.setdefault(job.loop, []).append((job.future, result))
        else:
            _resolve([(job.future, result)])
    for loop, pairs in loops.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_resolve, pairs)


def _resolve(pairs: list[tuple[Any, Any]]) -> None:
    for future, result in pairs:
        if future.done():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
