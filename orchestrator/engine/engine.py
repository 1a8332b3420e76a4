"""The heart of a poller: from ready documents to claims, from reports to records, in bulk writes.

The engine owns no thread, no clock and no process. A poller offers it documents, hands it reports and asks it to
``commit``; what comes back are tasks that are safely claimed. Or it lets bulks of writes ``depart``, has them written
elsewhere while more is decided here, and lets them ``land``. Every write carries the revision that its decision was
made on; on a conflict the document is read again and the decision made again. While the database is away nothing is
lost: writes wait here (and reports also in the spool) until they are written.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

from orchestrator import documents, faults
from orchestrator.chain import Chain, Step
from orchestrator.documents import Claimant, Document, Report
from orchestrator.engine import versions
from orchestrator.engine.backlog import Backlog
from orchestrator.engine.flight import Bulk, Flight, Write, claims
from orchestrator.errors import DatabaseError, DataError, Unauthorised, Unavailable
from orchestrator.runner import Task

log = logging.getLogger(__name__)

#: Documents in one bulk write: CouchDB's rate no longer grows beyond some hundreds, and the request stays small.
BULK = 500
#: Revisions remembered of what was written last, to know our own echo in the feed.
REMEMBERED = 20_000
#: Worker time (s) that is claimed ahead for each worker: enough that it never waits for the next commit, and no more,
#: for what is claimed here cannot be done by another poller.
DEPTH = 0.25
#: Tasks that one worker has before it at most, however short they are.
MOST = 250
#: What a database says to one document of a bulk write that it will not have, however often it is asked.
FINAL = frozenset({"forbidden", "doc_validation", "bad_request", "document_too_large", "attachment_too_large"})
#: So often a document is written again that the database cannot write for another reason (a fault of its own).
TRIES = 5
#: A refused claim is not asked for again for so long (s), unless the document changes: the guard may be mended.
REFUSED_FOR = 300.0
#: The cost (s) of a step that has not reported yet: it may be a long one, so each worker gets one to begin with.
FIRST_COST = DEPTH


class Database(Bulk, Protocol):
    """What the engine needs of a database (orchestrator.couch.Database has it)."""

    def get_many(self, ids: list[str]) -> dict[str, Document | None]: ...


@dataclass
class Counts:
    """What an engine has done since it was made."""

    claimed: int = 0
    done: int = 0
    failed: int = 0
    retried: int = 0
    lost: int = 0
    conflicts: int = 0
    dropped: int = 0


@dataclass
class Engine:
    """Decides and records for the steps of one site. Use from one thread; only a flight may ``go`` in another."""

    chain: Chain
    steps: tuple[Step, ...]
    claimant: Claimant
    database: Database
    new_attempt: Callable[[], str]
    random: Random
    depth: float = DEPTH
    held: dict[str, Write] = field(default_factory=dict)
    outbox: list[Write] = field(default_factory=list)
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
        self._costs: dict[str, float] = {}
        #: Bulks that are being written, what is in them, and what the feed has shown of that meanwhile.
        self.flying: list[Flight] = []
        self._aloft: set[str] = set()
        self._shown: dict[str, Document] = {}
        self._busy: set[str] = set()
        self._written: OrderedDict[str, int] = OrderedDict()
        self._refused: OrderedDict[str, tuple[Any, float]] = OrderedDict()
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
            name = str(document["_id"])
            if name in self._aloft:
                self._shown[name] = document
                continue
            if name in self._busy:
                self._see_taken(name, document)
                continue
            if not swept and _generation(document) < self._written.get(name, 0):
                continue
            rev, until = self._refused.get(name, (None, 0.0))
            if rev is not None and rev == document.get("_rev") and until - REFUSED_FOR <= now < until:
                continue
            self.backlog.offer(document, now)

    def _see_taken(self, name: str, document: Document) -> None:
        """A document in our hands as somebody shows it: if a person has taken it away, its attempt is not wanted."""
        if _generation(document) <= self._written.get(name, 0) or "_conflicts" in document:
            return  # our own echo, or older; or another site's version, beside which ours stands
        for attempt, held in self.held.items():
            if held.document["_id"] == name and not documents.held_by(document, held.step.key, attempt):
                mark = document.get("operation")
                by = f" by {mark.get('by')} ({mark.get('what')})" if isinstance(mark, dict) else ""
                self.unwanted[attempt] = f"called off: the document was taken away{by}"

    def knows(self, attempt: str) -> bool:
        """Whether the attempt is in our hands: held, or in a write that is under way."""
        return attempt in self.held or any(attempt in (write.attempt, write.then_attempt) for write in self.unwritten())

    def unwritten(self) -> Iterator[Write]:
        """What is decided and, for all that is known here, not in the database."""
        for flight in self.flying:
            yield from flight.writes
        yield from self.outbox

    def ours(self) -> set[str]:
        """The attempts that this poller has claimed or is about to claim."""
        return {*self.held, *(write.then_attempt or write.attempt for write in self.unwritten())}

    def cost(self, step: Step) -> float:
        """How long an attempt of the step is expected to hold a worker (s), between ``depth`` / MOST and ``depth``."""
        return self.cost_of(step.key)

    def cost_of(self, key: str) -> float:
        """The same, by the step's keyword."""
        return max(self.depth / MOST, min(self._costs.get(key, FIRST_COST), self.depth))

    def reported(self, report: Report, now: float, *, go_on: bool = True) -> None:
        """An attempt has ended: its record joins the next commit, with the next step's claim where there is room."""
        held = self.held.pop(report.attempt, None)
        if held is None:
            log.warning("a report of attempt %s of %s is not ours and is passed over", report.attempt, report.document)
            return
        self._learn(report)
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
        self.outbox.append(Write(changed, step, str(record.get("attempt")), record=record, lost=reason))

    def lost(self, attempt: str, reason: str, now: float) -> None:
        """An attempt was ended since its claim could not be renewed: the document is freed, if it is still ours."""
        if (held := self.held.pop(attempt, None)) is not None:
            changed, record = documents.lose(held.document, held.step, reason, now)
            self.outbox.append(Write(changed, held.step, attempt, record=record, lost=reason))

    def give_back(self, task: Task, reason: str, now: float) -> None:
        """A claimed task will not be begun here (shutdown): the document is released as if it had not been claimed."""
        held = self.held.pop(task.attempt, None)
        if held is not None:
            changed = documents.release(held.document, held.step, reason, now)
            self.outbox.append(Write(changed, held.step, task.attempt, lost=reason))

    def claim(self, now: float, budget: float) -> None:
        """Put claims for as much work as ``budget`` (s of worker time) allows into the next commit."""
        shuffle = self.random if self._contended > now else None
        for found, step in self.backlog.take(now, budget - self.pending(), self.cost, shuffle=shuffle):
            attempt = self.new_attempt()
            changed = documents.claim(found, step, self.claimant, attempt, now)
            self._busy.add(str(found["_id"]))
            self.outbox.append(Write(changed, step, attempt))

    def room(self, budget: float) -> None:
        """Say how much worker time (s) is free, before reports are handed in: a next step is claimed only into room."""
        self._budget = budget - self.pending()

    def pending(self) -> float:
        """Worker time (s) that claims which are not written yet will ask for."""
        counts = sum((flight.claims for flight in self.flying), claims(self.outbox))
        return sum(number * self.cost_of(key) for key, number in counts.items())

    # --- writes out ---

    def commit(self, now: float) -> list[Task]:
        """Write everything that waits, in bulk; the tasks whose claims are now in the database.

        Raises Unavailable or Unauthorised with all that was not written still waiting.
        """
        while self.outbox:
            self.land(self.depart().go(self.database), now)
        return self.tasks()

    def depart(self) -> Flight:
        """A bulk of what waits, to ``go`` and then to ``land`` here; meanwhile more may be decided, of other documents.

        A document that is in it is in no other: what it is to become next is decided when this is written.
        """
        flight = Flight(self.outbox[:BULK])
        del self.outbox[:BULK]
        self.flying.append(flight)
        self._aloft.update(str(write.document["_id"]) for write in flight.writes)
        return flight

    def land(self, flight: Flight, now: float) -> None:
        """Take in what the database has answered; claims that are written become ``tasks``.

        Raises Unavailable or Unauthorised with all that was not written waiting again.
        """
        self.flying.remove(flight)
        names = [str(write.document["_id"]) for write in flight.writes]
        self._aloft.difference_update(names)
        conflicts: list[Write] = []
        try:
            conflicts = self._answered(flight, now)
            for write in conflicts:
                write.settled = True
        finally:
            # Only what is not settled waits: a claim that is written and begun must not be begun once more.
            self.outbox[:0] = [write for write in flight.writes if not write.settled]
        if conflicts:
            self._decide_again(conflicts, now)
        if self._shown:
            self.offer([shown for name in names if (shown := self._shown.pop(name, None)) is not None], now)

    def tasks(self) -> list[Task]:
        """The tasks whose claims have been written since this was last asked."""
        tasks, self._tasks = self._tasks, []
        return tasks

    def _answered(self, flight: Flight, now: float) -> list[Write]:
        """Take in a bulk's outcomes; the writes that met a conflict."""
        writes, records, outcomes = flight.writes, flight.records, flight.outcomes
        if flight.error is not None:
            if isinstance(flight.error, Unavailable | Unauthorised) or not isinstance(flight.error, DatabaseError):
                raise flight.error
            if len(writes) == 1:
                self._refuse(writes[0], str(flight.error), now)
                writes[0].settled = True
                return []
            return [again for write in writes for again in self._answered(Flight([write]).go(self.database), now)]
        for record, outcome in zip(records, outcomes, strict=False):
            if getattr(outcome, "error", "conflict") != "conflict":  # a conflict: it has been written already
                log.error("the record %s was refused: %s", record["_id"], outcome.reason)
        conflicts, failing = [], []
        for write, outcome in zip(writes, outcomes[len(records) :], strict=True):
            rev = getattr(outcome, "rev", None)
            if rev is not None:
                write.settled = True
                self._saved(write, {**write.document, "_rev": rev}, now)
            elif outcome.error == "conflict":
                conflicts.append(write)
            elif outcome.error == "unauthorized":
                raise Unauthorised(f"the database does not let this account write {outcome.id!r}: {outcome.reason}")
            elif outcome.error in FINAL or write.tries >= TRIES:
                self._refuse(write, f"{outcome.error}: {outcome.reason}", now)
                write.settled = True
            else:
                write.tries += 1
                failing.append(outcome)
        if failing:
            # The conflicts among the others stay in the outbox with these and will be conflicts again.
            raise Unavailable(
                f"the database could not write {len(failing)} documents, the first of them {failing[0].id!r} "
                f"({failing[0].error}: {failing[0].reason})"
            )
        return conflicts

    def _saved(self, write: Write, saved: Document, now: float) -> None:
        name = str(saved["_id"])
        self._remember(name, saved)
        if write.lost is not None:
            self.counts.lost += 1
            faults.point("engine.freed")
        elif write.report is None:
            self._begin(saved, write.step, write.attempt, now)
            return
        else:
            self.unrecorded.discard(write.attempt)
            self._count(write)
            faults.point("engine.recorded")
            if write.then is not None:
                faults.point("engine.went-on")
                self._begin(saved, write.then, write.then_attempt, now)
                return
        self._free(name)
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

    def _count(self, write: Write) -> None:
        if write.report is not None and write.report.ok:
            self.counts.done += 1
        elif write.document.get("status") in ("failed", "bad"):
            self.counts.failed += 1
        else:
            self.counts.retried += 1

    def _remember(self, name: str, saved: Document) -> None:
        self._written[name] = _generation(saved)
        self._written.move_to_end(name)
        while len(self._written) > REMEMBERED:
            self._written.popitem(last=False)

    def _record(self, write: Write, now: float, *, go_on: bool) -> None:
        """Put the document that a report makes into the outbox."""
        report = write.report
        assert report is not None
        self._busy.add(str(write.document["_id"]))
        if not report.ok:
            changed, record = documents.fail(write.document, write.step, report, now)
            self.outbox.append(Write(changed, write.step, write.attempt, report, record, refused=write.refused))
            return
        changed = documents.finish(write.document, write.step, report, now)
        result = Write(changed, write.step, write.attempt, report, refused=write.refused)
        following = documents.ready_step(self.chain, changed, self.open) if go_on else None
        if following is not None and following.number > write.step.number and self._budget >= self.cost(following):
            self._budget -= self.cost(following)
            result.then, result.then_attempt = following, self.new_attempt()
            result.document = documents.claim(changed, following, self.claimant, result.then_attempt, now)
        self.outbox.append(result)

    # --- when the database says no ---

    def _decide_again(self, writes: list[Write], now: float) -> None:
        """Somebody changed these first, or a write of ours was stored and its answer got lost: look, then decide."""
        self.counts.conflicts += len(writes)
        # Raises Unavailable: then the writes go back to wait with the others.
        try:
            fresh = versions.current(self.database, writes)
        except DatabaseError:
            for write in writes:
                write.settled = False
            self.outbox.extend(writes)
            raise
        for write in writes:
            name = str(write.document["_id"])
            current = fresh.get(name)
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
                    self._contended = now + 10.0  # others claim too: for a while draw at random instead of in order
                self._free(name)
                self.backlog.offer(current, now)

    def _drop(self, write: Write, why: str) -> None:
        name = str(write.document["_id"])
        self._free(name)
        self.unrecorded.discard(write.attempt)
        if write.report is not None:
            self.counts.dropped += 1
            log.warning("the result of %s of %s (attempt %s) is dropped: %s", write.step.key, name, write.attempt, why)

    def _refuse(self, write: Write, why: str, now: float) -> None:
        """The database will not have this version of the document."""
        name = str(write.document["_id"])
        if write.report is not None and write.report.ok and not write.refused:
            log.error("the database refused the result of %s of %s: %s", write.step.key, name, why)
            held = self._held_version(write)
            if held is not None:
                write.report.error_class, write.report.result = "code", {}
                write.report.reason = f"the database refused the result: {why}"
                self._record(Write(held, write.step, write.attempt, write.report, refused=True), now, go_on=False)
                return
        log.error("the database refused %s of document %s: %s", write.step.key, name, why)
        self._refused[name] = (write.document.get("_rev"), now + REFUSED_FOR)
        self._refused.move_to_end(name)
        while len(self._refused) > REMEMBERED:
            self._refused.popitem(last=False)
        self._drop(write, why)

    def _held_version(self, write: Write) -> Document | None:
        """The document as the database has it, if the write's attempt still holds it."""
        current = self.database.get_many([str(write.document["_id"])]).get(str(write.document["_id"]))
        if current is not None and documents.held_by(current, write.step.key, write.attempt):
            return current
        return None

    def _learn(self, report: Report) -> None:
        """Let the expected cost follow what the step takes: quickly, for a new kind of file can change it at once."""
        known = self._costs.get(report.step)
        self._costs[report.step] = report.seconds if known is None else 0.8 * known + 0.2 * report.seconds


def _generation(document: Document) -> int:
    """The number before the dash of a revision."""
    rev = document.get("_rev")
    head = rev.partition("-")[0] if isinstance(rev, str) else ""
    return int(head) if head.isdigit() else 0
