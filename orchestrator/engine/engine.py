"""The heart of a poller: from ready documents to claims, from reports to records, in bulk writes.

The engine owns no thread, no clock and no process. A poller offers it documents, hands it reports and asks it to
``commit``; what comes back are tasks that are safely claimed. Or it lets bulks of the ``outbox`` depart, has them
written elsewhere while more is decided here, and lets them ``land``. Every write carries the revision that its decision
was made on; on a conflict the document is read again and the decision made again. While the database is away nothing is
lost: writes wait in the outbox (and reports also in the spool) until they are written.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random

from orchestrator import documents, faults
from orchestrator.chain import Chain, Step
from orchestrator.documents import Claimant, Document, Report
from orchestrator.engine import untrue, versions
from orchestrator.engine.backlog import Backlog
from orchestrator.engine.costs import Costs
from orchestrator.engine.counts import Counts
from orchestrator.engine.flight import Database, Flight, Write
from orchestrator.engine.outbox import Outbox
from orchestrator.engine.remembered import Remembered
from orchestrator.errors import DatabaseError, DataError, Unauthorised, Unavailable
from orchestrator.runner import Task

log = logging.getLogger(__name__)

#: For so long (s) after another poller was faster, documents are drawn at random instead of in order.
CONTENDED = 10.0


@dataclass
class Engine:
    """Decides and records for the steps of one site. Use from one thread; only a flight may ``go`` in another."""

    chain: Chain
    steps: tuple[Step, ...]
    claimant: Claimant
    database: Database
    new_attempt: Callable[[], str]
    random: Random
    held: dict[str, Write] = field(default_factory=dict)
    outbox: Outbox = field(default_factory=Outbox)
    costs: Costs = field(default_factory=Costs)
    counts: Counts = field(default_factory=Counts)

    def __post_init__(self) -> None:
        self.backlog = Backlog(self.chain, self.steps)
        #: Those of the steps that may begin: people can pause some.
        self.open = self.steps
        self.unrecorded: set[str] = set()
        #: Attempts that run here and have lost their document, and why: to be ended, for nobody wants their result.
        self.unwanted: dict[str, str] = {}
        #: Documents taken from other pollers, until that is written.
        self.taking: set[str] = set()
        #: Documents in our hands: held, or in a write that is not in the database yet.
        self._busy: set[str] = set()
        self.remembered = Remembered()
        self._contended = 0.0
        self._budget = 0.0
        # Claimed tasks wait here, not in a variable of commit: it may be interrupted by the database going away.
        self._tasks: list[Task] = []

    # --- documents in ---

    def allow(self, steps: Iterable[Step]) -> None:
        """From now on begin these of the steps alone. What is claimed or runs is not touched."""
        self.open = tuple(steps)
        self.backlog.serve(self.open)

    def offer(self, found: Iterable[Document], now: float, *, swept: bool = False) -> None:
        """Documents as the feed or, ``swept``, a view shows them. What we hold or have since written is passed over.

        A view is read after our last write, so what it shows is believed even if it looks older than what we wrote: a
        person who resolves a conflict may bring back a version with a smaller number.
        """
        for document in found:
            if self.outbox.sees(document):
                continue
            if document["_id"] in self._busy:
                self._see_taken(document)
            elif (swept or not self.remembered.is_older(document)) and not self.remembered.is_refused(document, now):
                self.backlog.offer(document, now)

    def _see_taken(self, document: Document) -> None:
        """A document in our hands as somebody shows it: if a person has taken it away, its attempt is not wanted."""
        if "_conflicts" in document or not self.remembered.is_newer(document):
            return  # another site's version, beside which ours stands; or our own echo
        for attempt, held in self.held.items():
            if held.name == document["_id"] and not documents.held_by(document, held.step.key, attempt):
                mark = document.get("operation")
                by = f" by {mark.get('by')} ({mark.get('what')})" if isinstance(mark, dict) else ""
                self.unwanted[attempt] = f"called off: the document was taken away{by}"

    def knows(self, attempt: str) -> bool:
        """Whether the attempt is in our hands: held, or in a write that is under way."""
        return attempt in self.held or any(
            attempt in (write.attempt, write.then_attempt) for write in self.outbox.unwritten()
        )

    def ours(self) -> set[str]:
        """The attempts that this poller has claimed or is about to claim."""
        return {*self.held, *(write.then_attempt or write.attempt for write in self.outbox.unwritten())}

    def reported(self, report: Report, now: float, *, go_on: bool = True) -> None:
        """An attempt has ended: its record joins the next commit, with the next step's claim where there is room."""
        held = self.held.pop(report.attempt, None)
        if held is None:
            log.warning("a report of attempt %s of %s is not ours and is passed over", report.attempt, report.document)
            return
        self.costs.learn(report)
        self.unrecorded.add(report.attempt)
        self._record(Write(held.document, held.step, report.attempt, report=report), now, go_on=go_on)

    def adopted(self, found: Document, report: Report, now: float) -> None:
        """Record what a dead poller's worker had reported and nobody had written down."""
        if found["_id"] in self.taking:
            return
        self.taking.add(str(found["_id"]))
        step = self.chain.step(report.step)
        self._record(Write(found, step, report.attempt, report=report), now, go_on=False)

    def take_back(self, found: Document, step: Step, reason: str, now: float) -> None:
        """Free a document whose poller is no more; at most once, however often it is found before that is written."""
        if found["_id"] in self.taking:
            return
        changed, record = documents.lose(found, step, reason, now)
        self._busy.add(str(found["_id"]))
        self.taking.add(str(found["_id"]))
        self.outbox.put(Write(changed, step, str(record.get("attempt")), record=record, lost=reason))

    def lost(self, attempt: str, reason: str, now: float) -> None:
        """An attempt was ended since its claim could not be renewed: the document is freed, if it is still ours."""
        if (held := self.held.pop(attempt, None)) is not None:
            changed, record = documents.lose(held.document, held.step, reason, now)
            self.outbox.put(Write(changed, held.step, attempt, record=record, lost=reason))

    def give_back(self, task: Task, reason: str, now: float) -> None:
        """A claimed task will not be begun here (shutdown): the document is released as if it had not been claimed."""
        held = self.held.pop(task.attempt, None)
        if held is not None:
            changed = documents.release(held.document, held.step, reason, now)
            self.outbox.put(Write(changed, held.step, task.attempt, lost=reason))

    def claim(self, now: float, budget: float) -> None:
        """Put claims for as much work as ``budget`` (s of worker time) allows into the next commit."""
        shuffle = self.random if self._contended > now else None
        room = budget - self.pending()
        for found, step in self.backlog.take(now, room, lambda step: self.costs.of(step.key), shuffle=shuffle):
            attempt = self.new_attempt()
            changed = documents.claim(found, step, self.claimant, attempt, now)
            self._busy.add(str(found["_id"]))
            self.outbox.put(Write(changed, step, attempt))

    def room(self, budget: float) -> None:
        """Say how much worker time (s) is free, before reports are handed in: a next step is claimed only into room."""
        self._budget = budget - self.pending()

    def pending(self) -> float:
        """Worker time (s) that claims which are not written yet will ask for."""
        return self.costs.total(self.outbox.claims())

    # --- writes out ---

    def commit(self, now: float) -> list[Task]:
        """Write everything that waits, in bulk; the tasks whose claims are now in the database.

        Raises Unavailable or Unauthorised with all that was not written still waiting.
        """
        while self.outbox:
            self.land(self.outbox.depart().go(self.database), now)
        return self.tasks()

    def land(self, flight: Flight, now: float) -> None:
        """Take in what the database has answered to a bulk of the outbox; claims that are written become ``tasks``.

        Raises Unavailable or Unauthorised with all that was not written waiting again.
        """
        self.outbox.landed(flight)
        conflicts: list[Write] = []
        try:
            conflicts = self._answered(flight, now)
            for write in conflicts:
                write.settled = True
        finally:
            # Only what is not settled waits: a claim that is written and begun must not be begun once more.
            self.outbox.put_back(flight)
        if conflicts:
            self._decide_again(conflicts, now)
        self.offer(self.outbox.shown(flight), now)

    def tasks(self) -> list[Task]:
        """The tasks whose claims have been written since this was last asked."""
        tasks, self._tasks = self._tasks, []
        return tasks

    def _answered(self, flight: Flight, now: float) -> list[Write]:
        """Take in a bulk's answers; the writes that met a conflict."""
        if flight.error is not None:
            return self._answered_singly(flight, flight.error, now)
        for name, why in flight.lost_records():
            log.error("the record %s was refused: %s", name, why)
        answers = flight.answers()
        for write, rev in answers.saved:
            write.settled = True
            self._saved(write, {**write.document, "_rev": rev}, now)
        for write, why in answers.refused:
            self._refuse(write, why, now)
            write.settled = True
        # Where one of these is raised, conflicts among the others wait with them and will be conflicts again.
        if (no := answers.forbidden) is not None:
            raise Unauthorised(f"the database does not let this account write {no.id!r}: {no.reason}")
        if answers.failing:
            first = answers.failing[0]
            raise Unavailable(
                f"the database could not write {len(answers.failing)} documents, the first of them {first.id!r} "
                f"({first.error}: {first.reason})"
            )
        return answers.conflicts

    def _answered_singly(self, flight: Flight, error: BaseException, now: float) -> list[Write]:
        """The database would not have the bulk as a whole: which of its documents is it?"""
        if isinstance(error, Unavailable | Unauthorised) or not isinstance(error, DatabaseError):
            raise error
        if len(flight.writes) > 1:
            return [again for one in flight.writes for again in self._answered(Flight([one]).go(self.database), now)]
        self._refuse(flight.writes[0], str(error), now)
        flight.writes[0].settled = True
        return []

    def _saved(self, write: Write, saved: Document, now: float) -> None:
        self.remembered.written(saved)
        if write.lost is not None:
            self.counts.lost += 1
            faults.point("engine.freed")
        elif write.report is None:
            self._begin(saved, write.step, write.attempt, now)
            return
        else:
            self.unrecorded.discard(write.attempt)
            self.counts.ended(write)
            faults.point("engine.recorded")
            if write.then is not None:
                faults.point("engine.went-on")
                self._begin(saved, write.then, write.then_attempt, now)
                return
        self._free(write.name)
        self.backlog.offer(saved, now)

    def _free(self, name: str) -> None:
        """The document is in our hands no more."""
        self._busy.discard(name)
        self.taking.discard(name)

    def _begin(self, saved: Document, step: Step, attempt: str, now: float) -> None:
        self.counts.claimed += 1
        self.held[attempt] = Write(saved, step, attempt)
        faults.point("engine.claimed")
        try:
            self._tasks.append(Task(saved, step.key, attempt, documents.input_file(self.chain, saved, step)))
        except DataError as error:
            failed = Report(str(saved["_id"]), step.key, attempt, now, now, error_class=error.kind, reason=str(error))
            self.reported(failed, now, go_on=False)

    def _record(self, write: Write, now: float, *, go_on: bool) -> None:
        """Put the document that a report makes into the outbox."""
        report = write.report
        assert report is not None
        self._busy.add(write.name)
        if not report.ok:
            changed, record = documents.fail(write.document, write.step, report, now)
            self.outbox.put(Write(changed, write.step, write.attempt, report, record, refused=write.refused))
            return
        changed = documents.finish(write.document, write.step, report, now)
        result = Write(changed, write.step, write.attempt, report, refused=write.refused)
        if go_on:
            self._claim_next(result, now)
        self.outbox.put(result)

    def _claim_next(self, result: Write, now: float) -> None:
        """Add the claim of the next step to a result, if there is room for it here."""
        following = documents.ready_step(self.chain, result.document, self.open)
        if following is None or following.number <= result.step.number:
            return
        cost = self.costs.of(following.key)
        if self._budget >= cost:
            self._budget -= cost
            result.then, result.then_attempt = following, self.new_attempt()
            result.document = documents.claim(result.document, following, self.claimant, result.then_attempt, now)

    # --- when the database says no ---

    def _decide_again(self, writes: list[Write], now: float) -> None:
        """Somebody changed these first, or a write of ours was stored and its answer got lost: look, then decide."""
        self.counts.conflicts += len(writes)
        try:
            fresh = versions.current(self.database, writes)
            untrue.forget(self.database, [write.record for write in writes if write.record is not None])
        except DatabaseError:
            for write in writes:
                write.settled = False
                self.outbox.put(write)
            raise
        for write in writes:
            current = fresh.get(write.name)
            if current is not None and versions.is_stored(current, write):
                self._saved(write, current, now)
            elif current is None:
                self._drop(write, "the document has been deleted")
            elif write.report is not None and documents.held_by(current, write.step.key, write.attempt):
                held = Write(current, write.step, write.attempt, write.report, refused=write.refused)
                self._record(held, now, go_on=False)
            elif write.report is not None:
                self._drop(write, f"the document is no longer held by this attempt (status {current.get('status')!r})")
            else:
                if write.lost is None:
                    self._contended = now + CONTENDED
                self._free(write.name)
                self.backlog.offer(current, now)

    def _drop(self, write: Write, why: str) -> None:
        self._free(write.name)
        self.unrecorded.discard(write.attempt)
        if write.report is not None:
            self.counts.dropped += 1
            log.warning(
                "the result of %s of %s (attempt %s) is dropped: %s", write.step.key, write.name, write.attempt, why
            )

    def _refuse(self, write: Write, why: str, now: float) -> None:
        """The database will not have this version of the document."""
        if write.report is not None and write.report.ok and not write.refused:
            log.error("the database refused the result of %s of %s: %s", write.step.key, write.name, why)
            held = self._held_version(write)
            if held is not None:
                write.report.error_class, write.report.result = "code", {}
                write.report.reason = f"the database refused the result: {why}"
                self._record(Write(held, write.step, write.attempt, write.report, refused=True), now, go_on=False)
                return
        log.error("the database refused %s of document %s: %s", write.step.key, write.name, why)
        self.remembered.refused(write.document, now, why)
        self._drop(write, why)

    def _held_version(self, write: Write) -> Document | None:
        """The document as the database has it, if the write's attempt still holds it."""
        current = self.database.get_many([write.name]).get(write.name)
        if current is not None and documents.held_by(current, write.step.key, write.attempt):
            return current
        return None
