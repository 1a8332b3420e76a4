"""What a farm's daemon decides: which jobs to intend, to submit and to find again, and what became of each attempt.

The order is intent, act, record. A document is first written as ``proc X queued`` with its job's name; then come the
job's files, a note that the submit command is about to be given, the command, and the job's number in the document.
After a crash between any two of these the note tells whether there can be a job: without it there is none; with it the
job is looked for by its name, and only when the queue, the history and the spool have known nothing of it for the grace
period is it submitted again. Should the first one appear even later, its tasks and those of the second share their
markers, so that each task is done by one of them.

No thread and no clock; the database and the farm come in.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from orchestrator import batchjobs, documents, faults
from orchestrator.chain import Chain, Step
from orchestrator.control import Control
from orchestrator.documents import Claimant, Document
from orchestrator.engine import submission, verdicts, versions
from orchestrator.engine.absence import Absence
from orchestrator.engine.backlog import Backlog
from orchestrator.engine.edits import Change, Decide, edit
from orchestrator.engine.farmworld import Files, World
from orchestrator.engine.fate import Fate, Verdict
from orchestrator.engine.submission import Pace, Places
from orchestrator.engine.verdicts import AtFarm, Listed
from orchestrator.engine.withdrawal import Withdrawal, unwanted
from orchestrator.engine.witnesses import Witnesses
from orchestrator.errors import NotFound, OrchestratorError
from orchestrator.farms import Farm
from orchestrator.schedulers import SchedulerUnavailable, SubmissionRejected, UnfitJob
from orchestrator.transports import TransportError

log = logging.getLogger(__name__)

#: A refused submission that may be accepted later is tried again after this (s), doubled each time up to the longest.
FIRST_WAIT, LONGEST_WAIT = 30.0, 600.0
#: Rows of a view that are read in one request.
PAGE = 2000


@dataclass
class FarmEngine:
    """Decides and records for the steps that one site sends to one farm. Use from one thread."""

    chain: Chain
    farm: Farm
    name: str
    claimant: Claimant
    database: Any
    world: World
    places: Places
    new_attempt: Callable[[], str]
    #: Raises where another daemon has the farm by now: asked before what two must not do at once.
    still_ours: Callable[[], None] = lambda: None
    held: dict[str, AtFarm] = field(default_factory=dict)
    #: What the last round saw, by job name and state, for people.
    states: dict[str, dict[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.steps = self.chain.farmed(self.claimant.site, self.name)
        self.backlog = Backlog(self.chain, self.steps)
        self.pace = Pace(self.farm.limits.submissions_per_minute)
        self.control = Control(self.claimant.site)
        #: Those of the steps that may begin: people can pause some.
        self.open = self.steps
        self.withdrawal = Withdrawal(self.world)
        self._as_in_chain = self.farm.limits
        self.stale = True
        self.witnesses = Witnesses(self.world)
        self._never_there = Absence()
        self._not_before: dict[str, tuple[float, float]] = {}
        self._refused: dict[str, str] = {}
        #: Attempts whose end cannot or need not be written: they are let go of all the same.
        self._dropped: set[str] = set()

    # --- what people say ---

    def obey(self, control: Control) -> None:
        """Heed what people have paused, drained and limited. What is let go on is found by a sweep."""
        self.control = control
        self.open = tuple(step for step in self.steps if control.may_start(step.name, self.name))
        self.backlog.serve(self.open)
        limits = control.apply(self.name, self._as_in_chain)
        self.farm = self.farm.model_copy(update={"limits": limits})
        self.pace.per_minute = limits.submissions_per_minute

    def clock_set(self, by: float, now: float) -> None:
        """The wall clock was set by so many seconds and says ``now``: periods go on as they were."""
        for kept in (self.witnesses, self._never_there, self.withdrawal, self.pace):
            kept.shift(by)
        self._not_before = {job: (until + by, wait) for job, (until, wait) in self._not_before.items()}
        self.backlog.clock_set(now)

    def note(self, *changed: Document) -> None:
        """Take in that documents were changed: a person may have cancelled the farm's attempt, or taken one away."""
        ours = {at.document: at for at in self.held.values()}
        for document in changed:
            known, at = ours.get(str(document["_id"])), self._at(document)
            if at is not None and at.attempt in self.held:
                self.held[at.attempt] = at
            elif known is not None and (why := verdicts.taken_away(document, known)):
                log.info("%s is %s: its job is not wanted any more", known.document, why)
                known.cancelled = why

    @property
    def away(self) -> tuple[float, str] | None:
        """Since when the batch system cannot be asked (s since 1970), and why."""
        return self.witnesses.away

    @away.setter
    def away(self, value: tuple[float, str] | None) -> None:
        self.witnesses.away = value

    # --- what is at the farm ---

    def load(self) -> None:
        """Read from the database what the farm has, and clear the spool of what nobody waits for."""
        found: dict[str, AtFarm] = {}
        for view in ("work/inqueue", "work/inprogress"):
            place: dict[str, Any] = {}
            while True:
                rows = list(self.database.view(view, reduce=False, limit=PAGE, **place))
                ids = [row.id for row in rows if (row.value or {}).get("poller") == self.claimant.poller]
                for document in self.database.get_many(ids).values() if ids else ():
                    at = self._held(document) if document is not None else None
                    if at is not None:
                        found[at.attempt] = at
                if len(rows) < PAGE:
                    break
                place = {"startkey": rows[-1].key, "startkey_docid": rows[-1].id, "skip": 1}
        for at in self._behind():
            found.setdefault(at.attempt, at)
        self.held = found
        wanted = {at.job for at in found.values()}
        left = [job for job in self.world.jobs() if job not in wanted]
        self.still_ours()  # else these may be another daemon's
        self.withdrawal.orphans |= set(left)
        self.world.remove(*left)
        self.stale = False

    def _behind(self) -> Iterator[AtFarm]:
        """What the farm has of documents whose seen version is another site's."""
        try:
            rows = list(self.database.view("conflicts/open", reduce=False))
        except NotFound:  # a couchapp of before: there are no such documents known
            return
        for document in self.database.get_many([str(row.id) for row in rows]).values() if rows else ():
            at = self._held(document) if document is not None else None
            if at is not None:
                yield at

    def _held(self, document: Document) -> AtFarm | None:
        """The attempt of ours that holds a document, or the version of it that is ours."""
        return self._at(versions.of_poller(self.database, document, self.claimant.poller))

    def _at(self, document: Document) -> AtFarm | None:
        return verdicts.at_farm(self.chain, document, self.claimant.poller)

    # --- intent ---

    def room(self) -> int:
        """How many more jobs may be at the farm now."""
        jobs: dict[tuple[str, int], bool] = {}
        for at in self.held.values():
            jobs[at.job, at.task] = jobs.get((at.job, at.task), False) or at.begun
        limits = self.farm.limits
        return max(0, min(limits.jobs - len(jobs), limits.queued - sum(not begun for begun in jobs.values())))

    def intend(self, now: float, new_name: Callable[[Step], str]) -> None:
        """Write the intent of as many jobs as limits allow. Raises what the database raises."""
        most = self.pace.left(now) - len(self._pending())
        room = self.room()
        if most <= 0 or room <= 0 or not self.open:
            return
        taken = self.backlog.take(now, float(room), lambda step: 1.0 / step.documents_per_job)
        intents = submission.plan(taken, self.farm, new_name, most)
        planned = {str(document["_id"]) for one in intents for chunk in one.chunks for document in chunk}
        for document, _ in taken:
            if str(document["_id"]) not in planned:
                self.backlog.offer(document, now)
        decisions: dict[str, Decide] = {}
        for intent in intents:
            for task, chunk in enumerate(intent.chunks, 1):
                place = batchjobs.Place(self.farm.scheduler, self.name, intent.name, task)
                for document in chunk:
                    decisions[str(document["_id"])] = self._queue(intent.step, place, now)
        self.stale = True  # until all is written: what is not known to be written is read again
        if decisions:
            faults.point("farm.intending")
        for document in edit(self.database, decisions).values():
            at = self._at(document)
            if at is not None:
                self.held[at.attempt] = at
        self.stale = False
        if decisions:
            faults.point("farm.intended")

    def _queue(self, step: Step, place: batchjobs.Place, now: float) -> Decide:
        def decide(document: Document) -> Change | None:
            if not documents.ready(self.chain, document, step) or documents.not_before(document, step) > now:
                return None
            return Change(batchjobs.queue(document, step, self.claimant, self.new_attempt(), place, now))

        return decide

    # --- submission ---

    def _pending(self) -> dict[str, list[AtFarm]]:
        """Intended jobs whose number is not known, with what they are to do."""
        found: dict[str, list[AtFarm]] = {}
        for at in self.held.values():
            if not at.number:
                found.setdefault(at.job, []).append(at)
        return found

    def submit(self, now: float, listed: Listed | None = None) -> None:
        """Submit what is intended, once it is certain that it has not been. Raises Unavailable, TransportError."""
        for job, members in self._pending().items():
            if now < self._not_before.get(job, (0.0, 0.0))[0]:
                continue
            given = self.world.submitting(job)
            if given is not None:
                if listed is None:
                    listed = self.witnesses.ask(now)
                number = self.witnesses.number_of(job, listed)
                if number:
                    log.warning("job %s was submitted before, as number %s: found by its name", job, number)
                    self._record_number(job, members, number, now)
                    continue
                asked = job.startswith(self.world.query.prefix) and listed.queue is not None and listed.queue.complete
                certain = asked and self.witnesses.history(listed)
                # not since it was given: a batch system that hung may have the command before it, and take it yet
                since = self._never_there.since(job, now, gone=certain)
                if since is None or now - since < self.farm.grace.submission:
                    continue
                if unwanted(members, self.control, self.name).keys() == {at.attempt for at in members}:
                    self.world.unmark_submitting(job)  # it is taken back, as one that never was submitted
                    continue
                log.warning("job %s was to be submitted, and nothing knows of it: submitting it again", job)
            if all(at.cancelled for at in members) or not self.control.may_start(members[0].step.name, self.name):
                continue
            if self.pace.left(now) <= 0:
                return
            self._give(job, members, now)

    def _give(self, job: str, members: list[AtFarm], now: float) -> None:
        """Write the job's files and give the submit command."""
        step, degrade = members[0].step, members[0].degrade
        fresh = self.database.get_many([at.document for at in members])
        tasks: dict[int, list[tuple[Document, str]]] = {}
        for at in members:
            document = fresh.get(at.document)
            if document is not None and documents.held_by(document, at.step.key, at.attempt):
                tasks.setdefault(at.task, []).append((document, at.attempt))
            else:
                self.held.pop(at.attempt, None)  # a person has taken it out of our hands
        members = [at for at in members if at.attempt in self.held]
        self._never_there.forget(job)
        if not tasks:
            return
        try:
            spec = submission.spec(job, step, degrade, max(tasks), self.farm, self.places)
            self.world.scheduler.submit(spec)  # whether it can be told at all
            chunks = [
                submission.chunk(self.chain, step, degrade, job, task, tasks.get(task, []), self.places)
                for task in range(1, spec.tasks + 1)
            ]
            self.world.prepare(spec, chunks)
            faults.point("farm.prepared")
            self.world.mark_submitting(job, now)
            faults.point("farm.noted")
            self.pace.made(now)
            self.still_ours()
            submitted = self.world.submit(spec, self.farm.grace.submission)
            faults.point("farm.submitted")
        except SubmissionRejected as error:
            self.world.unmark_submitting(job)
            if not error.transient:
                self._fail_all(members, str(error), now)
                return
            wait = min(max(FIRST_WAIT, 2 * self._not_before.get(job, (0.0, 0.0))[1]), LONGEST_WAIT)
            self._not_before[job] = (now + wait, wait)
            log.warning("%s", error)
            self._edit({at.document: verdicts.says(at, str(error), now) for at in members})
        except UnfitJob as error:
            self._fail_all(members, str(error), now)
        except SchedulerUnavailable as error:
            if not error.perhaps_done:
                self.world.unmark_submitting(job)
            # Not in this round: what it knows of the queue is older than the command.
            self._not_before[job] = (now + self.farm.every, 0.0)
            self.witnesses.is_away(str(error), now)
        else:
            if submitted.note:
                log.warning("job %s: the batch system said: %s", job, submitted.note)
            self._not_before.pop(job, None)
            self._record_number(job, members, submitted.number, now)

    def _record_number(self, job: str, members: list[AtFarm], number: str, now: float) -> None:
        tasks = max(at.task for at in members)
        spec_paths = submission.spec(job, members[0].step, 0, tasks, self.farm, self.places).paths()
        for at in members:
            at.number = number
        decisions: dict[str, Decide] = {}
        for at in members:
            paths = {key: spec_paths[key].replace("{index}", str(at.task)) for key in ("script", "stdout", "stderr")}
            decisions[at.document] = verdicts.numbered(at, number, paths, now)
        self._edit(decisions)
        faults.point("farm.numbered")
        log.info("job %s is number %s, with %d documents", job, number, len(members))

    def _fail_all(self, members: list[AtFarm], reason: str, now: float) -> None:
        fates = {at.attempt: Fate(Verdict.FAILED, reason, "code") for at in members}
        self._record(fates, now)

    # --- watching ---

    def watch(self, now: float) -> Listed | None:
        """Look at all witnesses and record what follows. Raises Unavailable; nothing is lost by that."""
        again, self.world.unremoved = self.world.unremoved, set()
        self.world.remove(*again)
        if not self.held and not self.withdrawal.orphans:
            self.states = {}
            return None
        listed = self.witnesses.ask(now)
        self.withdrawal.cancel_orphans(listed, self.held.values(), now)
        jobs = {at.job for at in self.held.values()}
        files: dict[str, Files | None] = dict.fromkeys(jobs)
        try:
            files = self.world.look_at(jobs)
        except TransportError as error:
            log.warning("%s", error)
        fates: dict[str, Fate] = {}
        self.states = {}
        for attempt, at in self.held.items():
            if at.number:
                fates[attempt], said = self.witnesses.fate(at, files[at.job], listed, now, self.farm.grace)
                counts = self.states.setdefault(at.job, {})
                counts[said.value] = counts.get(said.value, 0) + 1
        taken = unwanted(self.held.values(), self.control, self.name, files)
        if taken:
            fates |= self.withdrawal.fates(taken, self.held, files, listed, now)
        self._record(fates, now, files)
        return listed

    # --- recording ---

    def _record(self, fates: dict[str, Fate], now: float, files: dict[str, Files | None] | None = None) -> None:
        """Write what the verdicts say; then the spool's files of what is written go."""
        decisions: dict[str, Decide] = {}
        over: dict[str, Verdict] = {}
        for attempt, found in fates.items():
            at = self.held[attempt]
            decide: Decide | None = None
            if found.verdict is Verdict.DONE:
                decide = self._done(at, now)
            elif found.verdict is Verdict.RETURNED:
                why = ((files or {}).get(at.job) or Files()).returned.get(attempt, found.reason)
                decide = verdicts.released(at, why, now, self._dropped)
            elif found.verdict is Verdict.LOST:
                decide = verdicts.lost(at, found, now, self._dropped)
            elif found.verdict is Verdict.FAILED:
                decide = verdicts.failed(at, found, now, self._dropped)
            elif found.verdict is Verdict.RUNNING and not at.begun:
                marker = ((files or {}).get(at.job) or Files()).markers.get(at.task)
                if marker is not None:
                    decide = verdicts.begun(at, marker.host, marker.attempt_started or marker.started, now)
            elif found.verdict is Verdict.HELD and not at.says:
                decide = verdicts.says(at, found.reason, now)
            elif found.verdict is Verdict.QUEUED and at.says:
                decide = verdicts.says(at, "", now)
            if decide is not None:
                decisions[at.document] = decide
            if found.verdict in (Verdict.DONE, Verdict.RETURNED, Verdict.LOST, Verdict.FAILED):
                over[attempt] = found.verdict
        if over:
            faults.point("farm.recording")
        saved = self._edit(decisions)
        if over:
            faults.point("farm.recorded")
        self._let_go(over, saved, now)

    def _edit(self, decisions: dict[str, Decide]) -> dict[str, Document]:
        def held(document: Document) -> Document:
            return versions.of_poller(self.database, document, self.claimant.poller)

        saved = edit(self.database, decisions, self._is_refused, pick=held) if decisions else {}
        for document in saved.values():
            at = self._at(document)
            if at is not None and at.attempt in self.held:
                self.held[at.attempt] = at
        return saved

    def _is_refused(self, name: str, why: str) -> None:
        for at in self.held.values():
            if at.document == name:
                if at.attempt in self._refused:
                    log.error("document %s is not written any more: %s", name, why)
                    self._dropped.add(at.attempt)
                self._refused[at.attempt] = why

    def _let_go(self, over: dict[str, Verdict], saved: dict[str, Document], now: float) -> None:
        gone: list[tuple[str, str]] = []
        given_up: set[tuple[str, int]] = set()
        for attempt, verdict in over.items():
            at = self.held[attempt]
            if at.document not in saved and attempt not in self._dropped:
                continue  # not written this time: the next round decides again
            del self.held[attempt]
            self._dropped.discard(attempt)
            self.witnesses.forget(attempt)
            self._refused.pop(attempt, None)
            if verdict is not Verdict.DONE:
                given_up.add((at.job, at.task))
            if at.document in saved:
                self.backlog.offer(saved[at.document], now)
            gone.append((at.job, attempt))
        self.world.forget(gone)
        # what goes on although its node or its job counts as gone is to end: others have its documents now
        self.world.give_up(given_up - {(at.job, at.task) for at in self.held.values()})
        jobs = {job for job, _ in gone} - {at.job for at in self.held.values()}
        if jobs:
            faults.point("farm.forgotten")
            self.world.remove(*jobs)
            faults.point("farm.removed")

    def _done(self, at: AtFarm, now: float) -> Decide | None:
        refused = self._refused.get(at.attempt)
        try:
            report, host = self.world.result(at.job, at.attempt)
            if (report.attempt, report.document) != (at.attempt, at.document):
                raise ValueError("it speaks of another attempt")
            if report.error_class == "transient" and report.exit_code is None:
                report = verdicts.why_told(report, self.world.last_words(at.job, at.task))
        except ValueError as error:
            refused, host = f"the result file cannot be used: {error}", ""
        except OrchestratorError as error:
            log.warning("%s", error)
            return None
        if refused:
            bad = Fate(Verdict.FAILED, f"the result was refused: {refused}", "code")
            return verdicts.failed(at, bad, now, self._dropped)
        return verdicts.reported(at, report, host, now, self._dropped)
