"""One attempt at a farm: what its job's files and the batch system say of it, and how each verdict is written.

The functions that end in a `Decide` make decisions on the document as it is when they are written; an attempt that no
longer holds its document has nothing to say any more, and is put into ``dropped``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from orchestrator import batchjobs, documents, jobfiles
from orchestrator.chain import Chain, Step
from orchestrator.documents import Document, Report
from orchestrator.engine import versions
from orchestrator.engine.edits import Change, Decide
from orchestrator.engine.farmworld import Files
from orchestrator.engine.fate import Fate, Result
from orchestrator.schedulers import Job, JobState, Listing
from orchestrator.transitions import Kind

log = logging.getLogger(__name__)


@dataclass
class AtFarm:
    """One attempt that the farm has or is to get."""

    document: str
    step: Step
    attempt: str
    job: str
    task: int
    degrade: int = 0
    number: str = ""
    begun: bool = False
    says: str = ""
    #: Who has cancelled it, and why; empty: nobody.
    cancelled: str = ""
    #: The number of the document's version in which it was seen so.
    generation: int = 0


@dataclass
class Listed:
    """One round's answers of the batch system, by name and task, so that two jobs of one name count as one."""

    queue: Listing | None
    history: Listing | None = None
    history_asked: bool = False
    keeps_history: bool = True

    def job(self, listing: Listing | None, name: str, task: int) -> Job | None:
        """The job that speaks for a task: of two of the same name the one that still lives."""
        found = [job for job in listing.named(name) if job.index in (task, None)] if listing else []
        return max(found, key=lambda job: (not job.state.final, job.index is not None), default=None)

def at_farm(chain: Chain, document: Document, identity: str) -> AtFarm | None:
    """The attempt that holds a document, if it is one of the farm daemon ``identity``."""
    held = documents.holder(document)
    if held is None or held[1].get("poller") != identity:
        return None
    key, entry = held
    step = next((step for step in chain.steps if step.key == key), None)
    if step is None:  # the chain has lost this step since; its jobs may still end
        step = Step.model_construct(name=str(entry.get("step")), number=int(key.removeprefix("proc")))
    attempt = str(entry.get("attempt"))
    if not jobfiles.NAME.match(str(entry.get("job"))) or not jobfiles.ATTEMPT.match(attempt):
        log.warning("document %s names a batch job or an attempt that is none: it is left alone", document["_id"])
        return None
    job = batchjobs.job_of(document, attempt)
    status = documents.status_of(document)
    return AtFarm(
        str(document["_id"]), step, attempt, str(entry.get("job")), documents.count(entry.get("task"), 1),
        documents.count(entry.get("degrade"), 0), str(job.get("number") or ""),
        status is not None and status.kind is Kind.IN_PROGRESS, str(entry.get("says") or ""),
        batchjobs.cancelled(entry), versions.generation(document),
    )  # fmt: skip


def result_of(at: AtFarm, files: Files | None) -> Result:
    """What the job's own files say of an attempt."""
    if files is None:
        return Result.UNAVAILABLE
    if at.attempt in files.results:
        return Result.THERE
    if at.attempt in files.returned:
        return Result.RETURNED
    marker = files.markers.get(at.task)
    if marker is None:
        return Result.NONE
    return Result.BEGUN if marker.attempt == at.attempt else Result.STARTED


def said(job: Job | None) -> str:
    """What the batch system said of a job, in one line."""
    if job is None:
        return ""
    words = [f"number {job.number}", job.raw_state]
    if job.reason and job.reason != job.raw_state:
        words.append(job.reason)
    if job.exit_code is not None and job.state is JobState.FAILED:
        words.append(f"exit code {job.exit_code}")
    if job.signal is not None:
        words.append(f"signal {job.signal}")
    if job.node:
        words.append(f"on {job.node}")
    return ", ".join(words)


def why_told(report: Report, words: tuple[JobState, str] | None) -> Report:
    """The report of an attempt whose job was told to end, with what the batch system wrote about why, if it did.

    Slurm sends the same signal to a job that is cancelled and to one whose time is up.
    """
    if words is None or words[0] not in (JobState.TIMEOUT, JobState.OUT_OF_MEMORY):
        return report
    return replace(report, error_class="resources", reason=f"{report.reason}: {words[1]}")


# --- decisions about documents ---


def _held(at: AtFarm, make: Callable[[Document], Change]) -> Decide:
    """A decision that concerns the document while the attempt holds it."""

    def decide(document: Document) -> Change | None:
        return make(document) if documents.held_by(document, at.step.key, at.attempt) else None

    return decide


def numbered(at: AtFarm, number: str, paths: dict[str, str], now: float) -> Decide:
    """The job's number is known."""

    def make(document: Document) -> Change:
        return Change(batchjobs.submitted(batchjobs.says(document, at.step, "", now), at.attempt, number, paths, now))

    return _held(at, make)


def begun(at: AtFarm, host: str, started: float, now: float) -> Decide:
    """The job has come to the document."""
    return _held(at, lambda document: Change(batchjobs.begun(document, at.step, host, started, now)))


def says(at: AtFarm, words: str, now: float) -> Decide:
    """The batch system says why the job does not go on, or no longer."""
    return _held(at, lambda document: Change(batchjobs.says(document, at.step, words, now)))


def _end(at: AtFarm, dropped: set[str], report: Report, make: Callable[[Document], Change], now: float) -> Decide:
    """A decision that ends the attempt: as ``make`` says, or, if a person has cancelled it meanwhile, as they wish.

    ``report`` is what is known of the end. What was done all the same counts as done.
    """

    def decide(document: Document) -> Change | None:
        if not documents.held_by(document, at.step.key, at.attempt):
            if not _recorded(document, at):
                log.warning(
                    "the end of %s of %s (attempt %s) is not recorded: the document has gone on",
                    at.step.key, at.document, at.attempt,
                )  # fmt: skip
            dropped.add(at.attempt)
            return None
        if not report.ok and batchjobs.cancelled(document[at.step.key]):
            return Change(*batchjobs.end_cancelled(document, at.step, _timed(document, at, report, now), now))
        return make(document)

    return decide


def taken_away(document: Document, at: AtFarm) -> str:
    """Who has taken a document out of the farm's hands, in words; empty where nobody has, as far as can be seen."""
    if "_conflicts" in document or documents.held_by(document, at.step.key, at.attempt) or _recorded(document, at):
        return ""
    if versions.generation(document) <= at.generation:
        return ""  # the feed shows an older version, of before the attempt was intended
    mark = document.get("operation")
    mark = mark if isinstance(mark, dict) else {}
    why = f": {mark['reason']}" if mark.get("reason") else ""
    return f"taken away by {mark.get('by') or 'somebody'} ({mark.get('what') or 'it has gone on'}{why})"


def _recorded(document: Document, at: AtFarm) -> bool:
    """Whether the attempt's end stands in the document: its job may have written it straight into the database."""
    entry, retry = document.get(at.step.key), documents.retry_of(document, at.step.key)
    ended = isinstance(entry, dict) and entry.get("attempt") == at.attempt
    return ended or retry.get("last") == at.attempt


def _told(at: AtFarm, error_class: str | None, reason: str, now: float) -> Report:
    """What is known of an attempt that has left no report."""
    key = at.step.key
    return Report(at.document, key, at.attempt, now, now, exit_code=None, error_class=error_class, reason=reason)


def _timed(document: Document, at: AtFarm, report: Report, now: float) -> Report:
    """The report with when the attempt began, which its document knows."""
    if report.finished > report.started:
        return report
    entry = document[at.step.key]
    started = documents.seconds_of(entry.get("started") or entry.get("queued")) or now
    return replace(report, started=started, seconds=round(max(0.0, now - started), 3))


def released(at: AtFarm, why: str, now: float, dropped: set[str]) -> Decide:
    """The attempt had not begun."""
    report = _told(at, "transient", "it had not begun", now)
    return _end(at, dropped, report, lambda document: Change(documents.release(document, at.step, why, now)), now)


def lost(at: AtFarm, found: Fate, now: float, dropped: set[str]) -> Decide:
    """The attempt is lost, by no fault of its step."""
    report = _told(at, "transient", found.reason, now)
    return _end(
        at, dropped, report, lambda document: Change(*documents.lose(document, at.step, found.reason, now)), now
    )


def failed(at: AtFarm, found: Fate, now: float, dropped: set[str]) -> Decide:
    """The attempt has failed, by the batch system's word."""
    report = _told(at, found.error_class or "code", found.reason, now)

    def make(document: Document) -> Change:
        return Change(*documents.fail(document, at.step, _timed(document, at, report, now), now))

    return _end(at, dropped, report, make, now)


def reported(at: AtFarm, report: Report, host: str, now: float, dropped: set[str]) -> Decide:
    """The attempt has ended, by its own word."""

    def make(document: Document) -> Change:
        placed = batchjobs.ran_on(document, at.step, host)
        if report.ok:
            return Change(documents.finish(placed, at.step, report, now))
        return Change(*documents.fail(placed, at.step, report, now))

    return _end(at, dropped, report, make, now)
