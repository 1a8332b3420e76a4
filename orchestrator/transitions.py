"""The states of a data document and the one table of how it may move between them.

From this table come the orchestrator's own checks, the guard in the database (``validate_doc_update``), the state
diagram and the reference in the documentation. A status names its step where it has one: ``proc 2 in progress``; the
table speaks of the *kind* of a status, which leaves the number out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

from orchestrator.errors import IllegalTransition


class Kind(StrEnum):
    """The kinds of status. The first word is what the database holds, but for the step's number."""

    NEW = "new"  # no document yet: only where a transition starts, never in a document
    OPEN = "open"  # the DAQ is still writing the file
    CLOSED = "closed"  # the DAQ has closed it
    GOOD = "good"  # ready for the next step, or through the whole chain
    BAD = "bad"  # out of processing: by a person or by a quality gate
    QUEUED = "queued"  # a batch job has been or is being submitted
    IN_PROGRESS = "in progress"
    FAILED = "failed"  # a step gave up; a person must look


#: Kinds from which a step may be claimed.
WAITING = (Kind.CLOSED, Kind.GOOD)
#: Kinds in which a step holds the document.
HELD = (Kind.QUEUED, Kind.IN_PROGRESS)


@dataclass(frozen=True)
class Status:
    """A status taken apart: its kind, and the step's number where it has one."""

    kind: Kind
    step: int | None = None

    def __str__(self) -> str:
        return self.kind.value if self.step is None else f"proc {self.step} {self.kind.value}"


_STEP = re.compile(r"proc ?([0-9]{1,6}) (queued|in progress|failed)\Z")


def parse(text: Any) -> Status | None:
    """The status written as ``text``, or None where it is none of ours.

    Older databases write ``proc1 in progress`` and ``proc1 failed``; both are read (the latter as ``failed``).
    """
    return _parse(text) if isinstance(text, str) else None


@lru_cache(maxsize=1024)  # a database holds few different ones, each in many documents
def _parse(text: str) -> Status | None:
    match = _STEP.match(text)
    if match:
        kind = Kind(match[2])
        return Status(kind) if kind is Kind.FAILED else Status(kind, int(match[1]))
    if text in (Kind.OPEN, Kind.CLOSED, Kind.GOOD, Kind.BAD, Kind.FAILED):
        return Status(Kind(text))
    return None


@dataclass(frozen=True)
class Transition:
    """One allowed change of status.

    ``step`` says how the step's number moves where both ends have one: ``same``, ``later`` (only to a later step), or
    ``any``. ``by`` is who does it: registrar, poller or person.
    """

    name: str
    before: tuple[Kind, ...]
    after: Kind
    by: str
    meaning: str
    step: str = "any"


TRANSITIONS: tuple[Transition, ...] = (
    Transition(
        "register open", (Kind.NEW,), Kind.OPEN, "registrar", "a file has been seen that is still being written"
    ),
    Transition("register", (Kind.NEW,), Kind.CLOSED, "registrar", "a closed file has been found"),
    Transition("register good", (Kind.NEW,), Kind.GOOD, "registrar", "a closed file that needs no further word"),
    Transition("register bad", (Kind.NEW,), Kind.BAD, "registrar", "a file whose header cannot be read"),
    Transition("close", (Kind.OPEN,), Kind.CLOSED, "registrar", "the DAQ has closed the file"),
    Transition("close good", (Kind.OPEN,), Kind.GOOD, "registrar", "the same, where closed files need no further word"),
    Transition("accept", (Kind.CLOSED,), Kind.GOOD, "person", "the file is fit for processing"),
    Transition("claim", WAITING, Kind.IN_PROGRESS, "poller", "a poller takes the document for a step"),
    Transition("queue", WAITING, Kind.QUEUED, "poller", "a poller intends to submit a batch job for a step"),
    Transition("start", (Kind.QUEUED,), Kind.IN_PROGRESS, "poller", "the batch job runs", "same"),
    Transition("finish", HELD, Kind.GOOD, "poller", "the step is done"),
    Transition("go on", HELD, Kind.IN_PROGRESS, "poller", "done, and the next step claimed in the same write", "later"),
    Transition("go on to the farm", HELD, Kind.QUEUED, "poller", "done, and the next step's job intended", "later"),
    Transition(
        "take over", (Kind.IN_PROGRESS,), Kind.IN_PROGRESS, "poller", "a lost claim passes to a living poller", "same"
    ),
    Transition("release", HELD, Kind.GOOD, "poller", "given back undone, to be tried again"),
    Transition("release the first step", HELD, Kind.CLOSED, "poller", "the same, where no step is done yet"),
    Transition("fail", HELD, Kind.FAILED, "poller", "the step gave up, with its reason"),
    Transition("refuse", HELD, Kind.BAD, "poller", "a quality gate or a person refuses the document"),
    Transition("retry", (Kind.FAILED,), Kind.GOOD, "person", "a failed step shall be tried again"),
    Transition("retry the first step", (Kind.FAILED,), Kind.CLOSED, "person", "the same, where no step is done yet"),
    Transition("mark bad", (Kind.OPEN, Kind.CLOSED, Kind.GOOD, Kind.FAILED), Kind.BAD, "person", "out of processing"),
    Transition("mark good", (Kind.BAD,), Kind.GOOD, "person", "back into processing"),
    Transition(
        "accept the output", (Kind.BAD,), Kind.GOOD, "person", "what a gate has refused counts as done, by their word"
    ),
    Transition("mark closed", (Kind.BAD, Kind.GOOD), Kind.CLOSED, "person", "back to before the first step"),
    Transition("abandon", (Kind.OPEN, Kind.CLOSED, Kind.GOOD), Kind.FAILED, "person", "a person gives up on it"),
    Transition("take away as failed", HELD, Kind.FAILED, "person", "failed or given up on by a person, at any step"),
    Transition("take away as bad", HELD, Kind.BAD, "person", "marked bad by a person, whoever works on it"),
    Transition("reset", HELD, Kind.GOOD, "person", "back to before a step, whoever works on it"),
    Transition("reset to the first step", HELD, Kind.CLOSED, "person", "the same, where no step is left done"),
)


#: What a person's word makes of a step's entry, ``before>after``, and under which key of the entry the word stands:
#: ``{by, at, reason}``. Nothing else that a step has said can be changed by a person.
WORDS = {"refused>done": "accepted"}


@lru_cache(maxsize=1024)
def allowed(before: Status | None, after: Status) -> Transition | None:
    """The transition from ``before`` (None: no document yet) to ``after``, or None where the table has none.

    A document whose status stays as it is makes no transition; ask ``unchanged`` first where that matters.
    """
    kind = Kind.NEW if before is None else before.kind
    for transition in TRANSITIONS:
        if kind not in transition.before or transition.after is not after.kind:
            continue
        if before is None or before.step is None or after.step is None:
            return transition
        if transition.step == "same" and after.step != before.step:
            continue
        if transition.step == "later" and after.step <= before.step:
            continue
        return transition
    return None


def check(before: Status | None, after: Status, document: str = "") -> Transition:
    """The transition, or IllegalTransition with a sentence that says what is possible from here."""
    found = allowed(before, after)
    if found is None:
        kind = Kind.NEW if before is None else before.kind
        possible = sorted({str(t.after) for t in TRANSITIONS if kind in t.before})
        name = f"document {document!r}: " if document else ""
        raise IllegalTransition(
            f"{name}the status cannot go from {str(before) if before else 'new'!r} to {str(after)!r}; "
            f"from here it can go to: {', '.join(possible)}"
        )
    return found
