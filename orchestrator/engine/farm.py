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
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from orchestrator import batchjobs, documents, faults
from orchestrator.chain import Chain, Step
from orchestrator.control import Control
from orchestrator.documents import Claimant, Document
from orchestrator.engine import submission, verdicts
from orchestrator.engine.absence import Absence
from orchestrator.engine.backlog import Backlog
from orchestrator.engine.edits import Change, Decide, edit
from orchestrator.engine.farmworld import Files, World
from orchestrator.engine.fate import Fate, Verdict
from orchestrator.engine.holdings import Holdings
from orchestrator.engine.recording import Recorder
from orchestrator.engine.submission import Pace, Places
from orchestrator.engine.verdicts import AtFarm, Listed
from orchestrator.engine.withdrawal import Withdrawal, unwanted
from orchestrator.engine.witnesses import Witnesses
from orchestrator.farms import Farm
from orchestrator.schedulers import SchedulerUnavailable, SubmissionRejected, UnfitJob
from orchestrator.transports import TransportError

log = logging.getLogger(__name__)

#: A refused submission that may be accepted later is tried again after this (s), doubled each time up to the longest.
FIRST_WAIT, LONGEST_WAIT = 30.0, 600.0


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
    #: What the last round saw, by job name and state, for people.
    states: dict[str, dict[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.steps = self.chain.farmed(self.claimant.site, self.name)
        self.held = Holdings(self.chain, self.database, self.claimant.poller)
        self.backlog = Backlog(self.chain, self.steps)
        self.pace = Pace(self.farm.limits.submissions_per_minute)
        self.control = Control(self.claimant.site)
        #: Those of the steps that may begin: people can pause some.
        self.open = self.steps
        self.withdrawal = Withdrawal(self.world)
        self._as_in_chain = self.farm.limits
        self.witnesses = Witnesses(self.world)
        self._recorder = Recorder(self.held, self.database, self.world, self.witnesses, self.backlog)
        #: Whether what is at the farm has to be read from the database again.
        self.stale = True
        self._never_there = Absence()
        #: When a job may be submitted again (s since 1970), and how long it was made to wait (s).
        self._not_before: dict[str, tuple[float, float]] = {}

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

    # --- what is at the farm ---

    def load(self) -> None:
        """Read from the database what the farm has, and clear the spool of what nobody waits for."""
        self.held.load()
        wanted = self.held.jobs()
        left = [job for job in self.world.jobs() if job not in wanted]
        self.still_ours()  # else these may be another daemon's
        self.withdrawal.orphans |= set(left)
        self.world.remove(*left)
        self.stale = False

    # --- intent ---

    def room(self) -> int:
        """How many more jobs may be at the farm now."""
        tasks, limits = self.held.tasks(), self.farm.limits
        return max(0, min(limits.jobs - len(tasks), limits.queued - sum(not begun for begun in tasks.values())))

    def intend(self, now: float, new_name: Callable[[Step], str]) -> None:
        """Write the intent of as many jobs as limits allow. Raises what the database raises."""
        most = self.pace.left(now) - len(self.held.pending())
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
        self.held.take(edit(self.database, decisions).values())
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

    def submit(self, now: float, listed: Listed | None = None) -> None:
        """Submit what is intended, once it is certain that it has not been. Raises Unavailable, TransportError."""
        for job, members in self.held.pending().items():
            if now < self._not_before.get(job, (0.0, 0.0))[0]:
                continue
            if self.world.submitting(job) is not None:
                if listed is None:
                    listed = self.witnesses.ask(now)
                if not self._is_missing(job, members, listed, now):
                    continue
                log.warning("job %s was to be submitted, and nothing knows of it: submitting it again", job)
            if all(at.cancelled for at in members) or not self.control.may_start(members[0].step.name, self.name):
                continue
            if self.pace.left(now) <= 0:
                return
            self._give(job, members, now)

    def _is_missing(self, job: str, members: list[AtFarm], listed: Listed, now: float) -> bool:
        """Whether a job for which the command may have been given surely is not there, and is still wanted.

        One that is there gets its number.
        """
        number = self.witnesses.number_of(job, listed)
        if number:
            log.warning("job %s was submitted before, as number %s: found by its name", job, number)
            self._record_number(job, members, number, now)
            return False
        asked = job.startswith(self.world.query.prefix) and listed.queue is not None and listed.queue.complete
        certain = asked and self.witnesses.history(listed)
        # not since it was given: a batch system that hung may have the command before it, and take it yet
        since = self._never_there.since(job, now, gone=certain)
        if since is None or now - since < self.farm.grace.submission:
            return False
        if unwanted(members, self.control, self.name).keys() == {at.attempt for at in members}:
            self.world.unmark_submitting(job)  # it is taken back, as one that never was submitted
            return False
        return True

    def _in_our_hands(self, members: list[AtFarm]) -> dict[int, list[tuple[Document, str]]]:
        """The documents that attempts hold still, with these, by task. What a person has taken away is let go of."""
        fresh = self.database.get_many([at.document for at in members])
        tasks: dict[int, list[tuple[Document, str]]] = {}
        for at in members:
            document = fresh.get(at.document)
            if document is not None and documents.held_by(document, at.step.key, at.attempt):
                tasks.setdefault(at.task, []).append((document, at.attempt))
            else:
                self.held.pop(at.attempt, None)
        return tasks

    def _give(self, job: str, members: list[AtFarm], now: float) -> None:
        """Write the job's files and give the submit command."""
        step, degrade = members[0].step, members[0].degrade
        tasks = self._in_our_hands(members)
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
            self._rejected(job, members, error, now)
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

    def _rejected(self, job: str, members: list[AtFarm], error: SubmissionRejected, now: float) -> None:
        """The batch system will not have the job: never, or not now."""
        self.world.unmark_submitting(job)
        if not error.transient:
            self._fail_all(members, str(error), now)
            return
        wait = min(max(FIRST_WAIT, 2 * self._not_before.get(job, (0.0, 0.0))[1]), LONGEST_WAIT)
        self._not_before[job] = (now + wait, wait)
        log.warning("%s", error)
        self._recorder.write({at.document: verdicts.says(at, str(error), now) for at in members})

    def _record_number(self, job: str, members: list[AtFarm], number: str, now: float) -> None:
        """The batch system has the job, under this number."""
        tasks = max(at.task for at in members)
        templates = submission.spec(job, members[0].step, 0, tasks, self.farm, self.places).paths()
        decisions: dict[str, Decide] = {}
        for at in members:
            at.number = number
            paths = {key: templates[key].replace("{index}", str(at.task)) for key in ("script", "stdout", "stderr")}
            decisions[at.document] = verdicts.numbered(at, number, paths, now)
        self._recorder.write(decisions)
        faults.point("farm.numbered")
        log.info("job %s is number %s, with %d documents", job, number, len(members))

    def _fail_all(self, members: list[AtFarm], reason: str, now: float) -> None:
        fates = {at.attempt: Fate(Verdict.FAILED, reason, "code") for at in members}
        self._recorder.record(fates, now)

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
        jobs = self.held.jobs()
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
        self._recorder.record(fates, now, files)
        return listed
