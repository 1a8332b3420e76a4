"""What became of a farm job, from three witnesses: the queue, the accounting, and the files that the job itself writes.

The rule is a table, ``ROWS``, and the first row that fits decides. Two principles stand behind it. A witness that is
*unavailable* (it could not be asked) never changes a state. A witness that was asked and knows nothing (*absent*) needs
a grace period, and then the other two, before anything is concluded.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from orchestrator.schedulers.model import Job
from orchestrator.schedulers.states import JobState


class Result(StrEnum):
    """What the job's own files say of one attempt."""

    THERE = "result"  # its result file is there
    RETURNED = "returned"  # the job gave it back undone
    BEGUN = "begun"  # the job's marker says that it works, or worked, at this one
    STARTED = "started"  # the job has started, but not this one
    NONE = "none"  # nothing is there
    UNAVAILABLE = "unavailable"  # the spool could not be read


class Witness(StrEnum):
    """What the queue or the accounting says, in as many words as the table needs."""

    UNAVAILABLE = "unavailable"  # could not be asked, or its answer could not be read whole
    ABSENT = "absent"  # asked, and the job is not there
    NO_HISTORY = "no history"  # the accounting: this farm keeps none, and never will say more
    QUEUED = "queued"
    HELD = "held"
    RUNNING = "running"
    UNKNOWN = "unknown"  # asked, and the answer is a word that is in no table
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out of memory"
    NODE_FAILED = "node failed"


class Verdict(StrEnum):
    """What follows."""

    DONE = "done"  # read the result file and record what it says
    RETURNED = "returned"  # give the document back; the attempt had not begun
    QUEUED = "queued"
    HELD = "held"  # as queued; a person must look, and the document says why
    RUNNING = "running"
    WAIT = "wait"  # nothing can be concluded now
    LOST = "lost"  # give it back; a loss is not the step's fault and no retry is used up
    FAILED = "failed"  # the attempt has failed; the class decides about another


U, ANY = Witness, frozenset(Witness)
ENDED = frozenset({U.DONE, U.FAILED, U.CANCELLED, U.TIMEOUT, U.OUT_OF_MEMORY, U.NODE_FAILED})
GONE = frozenset({U.ABSENT, *ENDED})
ACTIVE = frozenset({U.QUEUED, U.HELD, U.RUNNING})
FILES = frozenset(Result)
NOT_BEGUN = frozenset({Result.STARTED, Result.NONE})
UNDONE = frozenset({Result.BEGUN, Result.STARTED, Result.NONE})


@dataclass(frozen=True)
class Row:
    """One line of the table. ``accounting`` is looked at as it is; ``ending`` is what either says of the job's end.

    ``grace`` names the period (of a farm's settings) that must have passed since the job was first seen gone or ended;
    until then the verdict is *wait*.
    """

    result: frozenset[Result]
    queue: frozenset[Witness]
    accounting: frozenset[Witness]
    verdict: Verdict
    reason: str
    error_class: str | None = None
    ending: Witness | None = None
    grace: str = ""


def _ended(ending: Witness, verdict: Verdict, reason: str, error_class: str | None = None) -> Row:
    return Row(UNDONE, GONE, ANY, verdict, reason, error_class, ending, "result")


ROWS: tuple[Row, ...] = (
    Row(frozenset({Result.THERE}), ANY, ANY, Verdict.DONE, "its result is there, which outranks all others"),
    Row(frozenset({Result.UNAVAILABLE}), ANY, ANY, Verdict.WAIT, "the farm's spool cannot be read now"),
    Row(frozenset({Result.RETURNED}), ANY, ANY, Verdict.RETURNED, "the job gave it back before it was begun"),
    Row(UNDONE, frozenset({U.UNAVAILABLE}), ANY, Verdict.WAIT, "the batch system cannot be asked now"),
    Row(UNDONE, frozenset({U.UNKNOWN}), ANY, Verdict.WAIT, "the batch system says something that is not known"),
    Row(frozenset({Result.BEGUN}), ACTIVE, ANY, Verdict.RUNNING, "the job works on it"),
    Row(NOT_BEGUN, frozenset({U.RUNNING}), ANY, Verdict.QUEUED, "the job runs and has not come to this document"),
    Row(NOT_BEGUN, frozenset({U.HELD}), ANY, Verdict.HELD, "the job is held: a person must release or cancel it"),
    Row(NOT_BEGUN, frozenset({U.QUEUED}), ANY, Verdict.QUEUED, "the job waits in the queue"),
    Row(UNDONE, frozenset({U.ABSENT}), frozenset({U.UNAVAILABLE}), Verdict.WAIT, "the accounting cannot be asked now"),
    Row(
        UNDONE, frozenset({U.ABSENT}), ACTIVE | {U.UNKNOWN}, Verdict.LOST,
        "the queue no longer has its job, the accounting has no end of it, and there is no result",
        grace="unknown",
    ),
    _ended(U.TIMEOUT, Verdict.FAILED, "the batch system ended its job at the time limit", "resources"),
    _ended(U.OUT_OF_MEMORY, Verdict.FAILED, "the batch system ended its job for its memory", "resources"),
    _ended(U.NODE_FAILED, Verdict.LOST, "the node of its job failed"),
    _ended(U.CANCELLED, Verdict.FAILED, "its job was cancelled", "transient"),
    _ended(U.FAILED, Verdict.FAILED, "its job failed without a word about this document", "code"),
    _ended(U.DONE, Verdict.LOST, "its job ended well by the batch system's word, and left no result"),
    Row(
        UNDONE, frozenset({U.ABSENT}), frozenset({U.ABSENT, U.NO_HISTORY}), Verdict.LOST,
        "neither the queue nor the accounting knows its job, and there is no result",
        grace="unknown",
    ),
)  # fmt: skip
"""Rows in the order in which they are asked. Every combination of the three witnesses meets exactly one verdict."""

#: Endings for which a document that its job had not begun is not to blame: it is given back.
_NOT_ITS_FAULT = frozenset({U.TIMEOUT, U.OUT_OF_MEMORY, U.FAILED, U.CANCELLED})


@dataclass(frozen=True)
class Fate:
    """The verdict on one attempt, with the sentence that goes into the records."""

    verdict: Verdict
    reason: str
    error_class: str | None = None


def witness(job: Job | None, *, asked: bool, history: bool = True) -> Witness:
    """What a listing's answer about one job is as a witness.

    ``asked`` is false where the answer did not come or could not be read whole: then an absence says nothing.
    ``history`` is false where a farm has no accounting at all.
    """
    if job is not None:
        return _WORDS[job.state]
    if not history:
        return Witness.NO_HISTORY
    return Witness.ABSENT if asked else Witness.UNAVAILABLE


_WORDS = {
    JobState.QUEUED: U.QUEUED, JobState.HELD: U.HELD, JobState.RUNNING: U.RUNNING, JobState.DONE: U.DONE,
    JobState.FAILED: U.FAILED, JobState.CANCELLED: U.CANCELLED, JobState.TIMEOUT: U.TIMEOUT,
    JobState.OUT_OF_MEMORY: U.OUT_OF_MEMORY, JobState.NODE_FAILED: U.NODE_FAILED, JobState.UNKNOWN: U.UNKNOWN,
}  # fmt: skip


def ending_of(queue: Witness, accounting: Witness) -> Witness | None:
    """How the job ended, by whichever of the two says so; the accounting knows better."""
    if queue not in GONE:
        return None
    if accounting in ENDED:
        return accounting
    return queue if queue in ENDED else None


def row_of(queue: Witness, accounting: Witness, result: Result) -> Row:
    """The first row of the table that fits."""
    ending = ending_of(queue, accounting)
    for row in ROWS:
        if result not in row.result or queue not in row.queue or accounting not in row.accounting:
            continue
        if row.ending in (None, ending):
            return row
    raise AssertionError(f"no row for {queue}, {accounting}, {result}")  # a test goes through all combinations


def fate(
    *, queue: Witness, accounting: Witness, result: Result, since: float | None, now: float, grace: dict[str, float],
    said: str = "",
) -> Fate:  # fmt: skip
    """What became of an attempt.

    Args:
        since: when its job was first seen gone or ended, in the same clock as ``now`` (s); None: only just now.
        grace: the periods by name: ``unknown`` and ``result``, in s.
        said: what the batch system said of the job, for the records.
    """
    row = row_of(queue, accounting, result)
    if row.grace and (since is None or now - since < grace[row.grace]):
        return Fate(Verdict.WAIT, f"{row.reason}; until the grace period is over, a result may still come")
    reason = f"{row.reason} ({said})" if said else row.reason
    if row.verdict is Verdict.FAILED and row.ending in _NOT_ITS_FAULT and result is Result.STARTED:
        return Fate(Verdict.RETURNED, f"the job ended before it came to this document: {reason}")
    return Fate(row.verdict, reason, row.error_class)


def table() -> list[tuple[str, str, str, str, str]]:
    """The rows for the guide: files, queue, accounting, verdict, reason."""

    def words(some: frozenset[Result] | frozenset[Witness], all_: frozenset[Result] | frozenset[Witness]) -> str:
        order = dict.fromkeys(one.value for one in (*Result, *Witness))  # both have "unavailable"
        return "any" if some == all_ else ", ".join(one for one in order if one in some)

    rows = []
    for row in ROWS:
        if row.ending is not None:
            said = f"{row.ending.value} (either of the two)"
            queue, accounting = said, said
        else:
            queue, accounting = words(row.queue, ANY), words(row.accounting, ANY)
        verdict = row.verdict.value + (f" ({row.error_class})" if row.error_class else "")
        verdict += f" after grace `{row.grace}`" if row.grace else ""
        rows.append((words(row.result, FILES), queue, accounting, verdict, row.reason))
    return rows
