"""What people do to documents, as pure functions: each takes a document and gives its next version, or says why not.

==========  =======================================================================================================
retry       a failed document goes back before the step that failed, in a new series of attempts
hold        no step takes it until it is released; its status stays, and an attempt that runs goes on
release     the hold is gone
fail        the step that has it is taken away from it, and counts as failed with the person's reason
abandon     a person gives up on it, wherever it is: ``failed``, at no step
mark-bad    out of processing, whoever works on it
mark-good   a bad document back into processing, or a closed one accepted
accept      what a gate has refused of a step's output counts as done, as it is
reset       a step and all that depends on it are to be done again; what they had written down stands in ``past``
reprocess   the same for all documents that have the step done, or did it with some version of it
priority    which is taken first: higher is sooner, 0 is what every document begins with
==========  =======================================================================================================

A person always wins: who has the document finds it gone on when he reports, and what he says is dropped; the attempt
gets its document (state ``called off``) here. What is reset is never lost: the entries stand, whole, in a document
``past:<operation>:<document>``, which is written before the data document. Each changed document carries
``operation: {id, what, by, at, reason, was}``, the last one done to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from orchestrator import documents
from orchestrator.chain import Chain, Step
from orchestrator.documents import REASON_LIMIT, Document, count, iso
from orchestrator.errors import IllegalTransition, SettingsError
from orchestrator.lanes import MAIN
from orchestrator.transitions import HELD, WORDS, Kind, Status

#: What can become of the output files of steps that are reset.
OUTPUTS = ("kept", "moved", "removed")
#: No priority is larger, so that it stays a whole number wherever it is read.
PRIORITY_LIMIT = 1_000_000

_STEP_KEY = re.compile(r"proc(\d+)\Z")


@dataclass(frozen=True)
class Kindly:
    """One operation for command line, web and documentation: ``said`` completes "the document ..."."""

    name: str
    help: str
    said: str
    needs_reason: bool = False
    needs_step: bool = False


OPERATIONS: tuple[Kindly, ...] = (
    Kindly("retry", "Set failed documents going again, from the step that failed.", "will be tried again"),
    Kindly("hold", "Keep documents from being taken by any step; what runs goes on.", "is on hold", True),
    Kindly("release", "Let documents that are on hold go on.", "is released"),
    Kindly("fail", "Take documents away from the step that has them: it failed.", "has failed", True),
    Kindly("abandon", "Give up on documents, wherever they are.", "is given up", True),
    Kindly("mark-bad", "Take documents out of processing.", "is bad", True),
    Kindly("mark-good", "Put bad documents back, or accept closed ones.", "is good"),
    Kindly("accept", "Take an output that a gate has refused as it is.", "has its output accepted", True, True),
    Kindly("reset", "Have a step, and all that depends on it, done again.", "is reset", False, True),
    Kindly("reprocess", "Redo a step by its version, by query or by runs.", "will be done again", False, True),
    Kindly("priority", "Say which documents are taken first.", "has its priority"),
)
NAMES = tuple(one.name for one in OPERATIONS)


@dataclass(frozen=True)
class Order:
    """What a person asks for. ``step`` is a keyword; ``outputs`` one of OUTPUTS; ``value`` a priority.

    Raises SettingsError where something is missing or cannot be.
    """

    what: str
    by: str
    reason: str = ""
    step: str = ""
    outputs: str = "kept"
    value: int = 0

    def __post_init__(self) -> None:
        if self.what not in NAMES:
            raise SettingsError(f"there is no operation {self.what!r}; there are: {', '.join(NAMES)}")
        kind = OPERATIONS[NAMES.index(self.what)]
        if kind.needs_reason and not self.reason.strip():
            raise SettingsError(f"{self.what} needs a reason: others will want to know why")
        if kind.needs_step and not self.step:
            raise SettingsError(f"{self.what} needs a step")
        if self.outputs not in OUTPUTS:
            raise SettingsError(f"outputs can be {', '.join(OUTPUTS)}, not {self.outputs!r}")
        if isinstance(self.value, bool) or not isinstance(self.value, int) or abs(self.value) > PRIORITY_LIMIT:
            raise SettingsError(f"a priority is a whole number from -{PRIORITY_LIMIT} to {PRIORITY_LIMIT}")


@dataclass(frozen=True)
class Asked:
    """An order that is being carried out: the operation's id, and when (s since 1970)."""

    id: str
    order: Order
    at: float

    @property
    def reason(self) -> str:
        """The reason as documents keep it."""
        return self.order.reason[:REASON_LIMIT]

    def words(self) -> str:
        """Who did what and why, as the reason of an attempt that is called off."""
        why = f": {self.reason}" if self.reason else ""
        return f"called off by {self.order.by} ({self.order.what}{why})"

    def mark(self, document: Document, before: Mapping[str, Any]) -> Document:
        """The document with ``operation``: who did this, and what it was before."""
        was = {key: before[key] for key in ("status", "reason", "hold", "priority") if before.get(key) is not None}
        operation = {
            "id": self.id, "what": self.order.what, "by": self.order.by, "at": iso(self.at), "reason": self.reason,
            "was": was,
        }  # fmt: skip
        return {**document, "operation": operation, "updated": iso(self.at)}


@dataclass(frozen=True)
class Changed:
    """A document's next version, and the documents (attempts, past) that must be written before it."""

    document: Document
    records: tuple[Document, ...] = ()


#: A decision on a document as it is read: its next version, or in words why there is nothing to do.
#: Raises IllegalTransition where it cannot be done.
Decide = Callable[[Document], Changed | str]


def decider(chain: Chain, asked: Asked, *, hold: bool = False) -> Decide:
    """The decision that carries an order out. ``hold``: what is reset stays on hold until its outputs are dealt with.

    Raises ChainError for a step that the chain does not have.
    """
    simple: dict[str, Callable[[Document, Asked], Changed | str]] = {
        "retry": retry, "hold": put_on_hold, "release": release, "fail": fail, "abandon": abandon,
        "mark-bad": mark_bad, "mark-good": mark_good, "priority": priority,
    }  # fmt: skip
    step = chain.step(asked.order.step) if asked.order.step else None

    def decide(document: Document) -> Changed | str:
        if document.get("type") != chain.type:
            raise IllegalTransition(
                f"document {document.get('_id')!r} is of type {document.get('type')!r}, not {chain.type!r}: "
                "these operations are for data documents"
            )
        made: Changed | str
        if step is None:
            made = simple[asked.order.what](document, asked)
        elif asked.order.what == "accept":
            made = accept(document, step, asked)
        else:
            made = reset(chain, document, step, asked, hold=hold)
        return made if isinstance(made, str) else Changed(asked.mark(made.document, document), made.records)

    return decide


def possible(chain: Chain, document: Document) -> tuple[str, ...]:
    """The operations that would change this document as it is now: those for which a page has buttons."""
    found = []
    for kind in OPERATIONS:
        if kind.name == "reprocess":
            continue  # of one document it is a reset
        value = 2 if document.get("priority") == 1 else 1
        for step in chain.steps if kind.needs_step else (None,):
            order = Order(kind.name, "-", "-", step.key if step else "", value=value)
            try:
                made = decider(chain, Asked("operation:-", order, 0.0))(document)
            except IllegalTransition:
                continue
            if isinstance(made, Changed):
                found.append(kind.name)
                break
    return tuple(found)


def retry(document: Document, asked: Asked) -> Changed | str:
    """Put a failed document back before the step that failed. Raises IllegalTransition where it has not failed."""
    changed = documents.retry(document, asked.order.by, asked.reason, asked.at)
    changed.pop("reason", None)  # a person's, who had given up; ``operation.was`` keeps it
    return Changed(changed)


def put_on_hold(document: Document, asked: Asked) -> Changed | str:
    """Keep every step from claiming it. Its status stays; the attempt that runs, if one does, goes on and is recorded.

    ``hold`` is what `documents.ready` and the work views look at.
    """
    hold = document.get("hold")
    if hold is not None:
        known = hold if isinstance(hold, dict) else {}
        return f"it is on hold already, by {known.get('by')}: {known.get('reason')}"
    return Changed({**document, "hold": {"by": asked.order.by, "reason": asked.reason, "at": iso(asked.at)}})


def release(document: Document, asked: Asked) -> Changed | str:
    """Let it go on. Raises IllegalTransition while an operation has its old outputs in hand."""
    hold = document.get("hold")
    if hold is None:
        return "it is not on hold"
    if isinstance(hold, dict) and hold.get("operation"):
        raise IllegalTransition(
            f"document {document.get('_id')!r}: its old outputs are in the hands of {hold['operation']}; if that was "
            f"interrupted: orchestrator operations --finish {hold['operation']}"
        )
    changed = dict(document)
    del changed["hold"]
    return Changed(changed)


def fail(document: Document, asked: Asked) -> Changed | str:
    """The step that has it failed, by a person's word. Raises IllegalTransition where no step has it."""
    held = documents.holder(document)
    if held is None:
        raise IllegalTransition(
            f"document {document.get('_id')!r} has status {document.get('status')!r}: no step has it that could fail; "
            "`abandon` gives up on a document that waits"
        )
    key, entry, record = documents.called_off(document, asked.words(), asked.at)
    changed = documents.moved(document, Status(Kind.FAILED), asked.at)
    changed[key] = {**entry, "reason": asked.reason}
    return Changed(changed, (record,))


def abandon(document: Document, asked: Asked) -> Changed | str:
    """A person gives up on it: failed, at no step. `retry` takes it up again."""
    if _kind(document) is Kind.FAILED:
        return "it has failed already"
    changed, records = _taken_away(document, Status(Kind.FAILED), asked)
    changed["reason"] = asked.reason
    return Changed(changed, records)


def mark_bad(document: Document, asked: Asked) -> Changed | str:
    """Out of processing, whoever works on it."""
    if _kind(document) is Kind.BAD:
        return f"it is bad already: {document.get('reason')}"
    changed, records = _taken_away(document, Status(Kind.BAD), asked)
    changed["reason"] = asked.reason
    return Changed(changed, records)


def mark_good(document: Document, asked: Asked) -> Changed | str:
    """A bad document back into processing (a step that had failed is tried anew), or a closed one accepted."""
    kind = _kind(document)
    if kind is Kind.GOOD:
        return "it is good already"
    if kind not in (Kind.BAD, Kind.CLOSED):
        hint = "`retry` sets it going again" if kind is Kind.FAILED else "only bad and closed ones can be marked good"
        raise IllegalTransition(f"document {document.get('_id')!r} has status {document.get('status')!r}: {hint}")
    changed = documents.moved(document, Status(Kind.GOOD), asked.at)
    changed.pop("reason", None)
    gone = [key for key, entry in _entries(changed).items() if entry.get("state") != "done"]
    _forget(changed, gone)
    return Changed(changed)


def accept(document: Document, step: Step, asked: Asked) -> Changed | str:
    """The output of a step that a gate has refused counts as done, as it is, and the document goes on.

    Who said so and why stands in the entry, beside what the gate had said. Raises IllegalTransition where no gate has
    refused it.
    """
    entry = _entries(document).get(step.key, {})
    if entry.get("state") == "done":
        return f"{step.key} ({step.name}) is done already"
    if _kind(document) is not Kind.BAD or entry.get("state") != "refused":
        raise IllegalTransition(
            f"document {document.get('_id')!r}: no gate has refused the output of {step.key} ({step.name}), so there "
            "is nothing to accept"
        )
    changed = documents.moved(document, Status(Kind.GOOD), asked.at)
    changed.pop("reason", None)
    word = {"by": asked.order.by, "at": iso(asked.at), "reason": asked.reason}
    changed[step.key] = {**entry, "state": "done", WORDS["refused>done"]: word}
    return Changed(changed)


def priority(document: Document, asked: Asked) -> Changed | str:
    """Which is taken first: higher is sooner."""
    if document.get("priority", 0) == asked.order.value and not isinstance(document.get("priority"), bool):
        return f"its priority is {asked.order.value} already"
    changed = {**document, "priority": asked.order.value}
    if asked.order.value == 0:
        del changed["priority"]
    return Changed(changed)


def reset(chain: Chain, document: Document, step: Step, asked: Asked, *, hold: bool = False) -> Changed | str:
    """Back to before ``step``: its entry, those of steps that depend on it, and of later steps that the chain has no
    more, leave the document and stand in its past. Steps of other lanes that depend on it go with them.

    A step that needs none of them keeps its result, and if it runs just now it goes on. Raises IllegalTransition for a
    document that is open or bad.
    """
    kind = _kind(document)
    if kind in (Kind.OPEN, Kind.BAD):
        hint = "mark it good first" if kind is Kind.BAD else "the file is still being written"
        raise IllegalTransition(f"document {document.get('_id')!r} is {kind.value}: {hint}")
    redone = dependents(chain, step)
    known = {one.key for one in chain.steps}
    keys = {one.key for one in redone[chain.branch.name]}
    keys |= {k for k in _entries(document) if k not in known and int(k[4:]) > step.number}
    changed, gone, records = _taken_out(document, keys, asked)
    for lane, steps in redone.items():
        if lane != chain.branch.name:
            changed, more, further = _taken_out_of(lane, chain, changed, {one.key for one in steps}, asked)
            gone, records = {**gone, **more}, (*records, *further)
    if not gone:
        return f"nothing of {step.key} ({step.name}) or what depends on it is there"
    past: Document = {
        "_id": past_id(asked.id, str(document["_id"])), "type": "past", "document": document["_id"],
        "run_name": document.get("run_name"), "file_number": document.get("file_number"), "at": iso(asked.at),
        "operation": {"id": asked.id, "what": asked.order.what, "by": asked.order.by, "reason": asked.reason},
        "status": document.get("status"), "entries": gone, "branch": chain.branch.name or None,
        **{key: document[key] for key in ("retry", "reason", "hold") if document.get(key) is not None},
        "outputs": {"wanted": asked.order.outputs, "state": "pending" if hold else "kept"},
    }  # fmt: skip
    if hold:
        why = f"the outputs of {', '.join(sorted(gone))} are being {asked.order.outputs}"
        changed["hold"] = {"by": asked.order.by, "reason": why, "at": iso(asked.at), "operation": asked.id}
    return Changed(changed, (*records, past))


def _taken_out(
    document: Document, keys: AbstractSet[str], asked: Asked
) -> tuple[Document, dict[str, Any], tuple[Document, ...]]:
    """The document without the entries of these steps; the entries; and the record of the attempt called off by it."""
    gone = {key: entry for key, entry in _entries(document).items() if key in keys}
    records: tuple[Document, ...] = ()
    held = documents.holder(document)
    if held is not None and held[0] in gone:
        records = (documents.called_off(document, asked.words(), asked.at)[2],)
    changed = dict(document)
    _forget(changed, gone)
    ahead = documents.retries(changed)
    for key in keys & ahead.keys():
        _goes_on(changed, key, count(ahead.pop(key).get("number"), 1))
    if ahead != documents.retries(changed):
        changed.pop("retry")
        if ahead:
            changed["retry"] = documents.with_retries(ahead)
    if not gone:
        return changed, gone, records
    left = _entries(changed)
    if not (held is not None and held[0] in left) and not any(e.get("state") == "failed" for e in left.values()):
        done = any(entry.get("state") == "done" for entry in left.values())
        after = Status(Kind.GOOD if done else Kind.CLOSED)
        if documents.status_of(changed) != after:
            changed = documents.moved(changed, after, asked.at)
        changed.pop("reason", None)
    return changed, gone, records


def _taken_out_of(
    lane: str, chain: Chain, document: Document, keys: AbstractSet[str], asked: Asked
) -> tuple[Document, dict[str, Any], tuple[Document, ...]]:
    """The same in another lane, of the document as ``chain`` sees it. One that is bad or open there stays as it is."""
    whole, own, other = chain.whole, chain.branch, chain.whole.of(lane).branch
    seen = other.inward(own.outward(document, whole.type), whole.type) or {}
    if _kind(seen) in (None, Kind.OPEN, Kind.BAD):
        return document, {}, ()
    changed, gone, records = _taken_out(seen, keys, asked)
    if not gone:
        return document, {}, ()
    back = own.inward(other.outward(changed, whole.type), whole.type) or {}
    named = {f"{lane or MAIN}_{key}": entry for key, entry in gone.items()}
    return back, named, tuple({"lane": lane, **other.outward(record, whole.type)} for record in records)


def dependents(chain: Chain, step: Step) -> dict[str, tuple[Step, ...]]:
    """The step and all that need it, directly or through others, by lane, each in its lane's order."""
    own = chain.branch.name
    whole = chain.whole
    lanes = {own: chain} if own and not chain.branch.lane else {"": whole, **{n: whole.of(n) for n in whole.lanes}}
    found = {step.name}
    while True:
        more = {
            one.name
            for lane in lanes.values()
            for one in lane.steps
            if one.name not in found and any(need.name in found for need in lane.needs(one))
        }
        if not more:
            break
        found |= more
    by_lane = {name: tuple(one for one in lane.steps if one.name in found) for name, lane in lanes.items()}
    return {name: steps for name, steps in by_lane.items() if steps}


def is_untrue(past: Document, document: Document | None) -> bool:
    """Whether the document has still what a ``past`` says was taken out of it: the operation broke off in between."""
    entries = past.get("entries")
    if document is None or not isinstance(entries, dict):
        return False
    return any(entry is not None and document.get(key) == entry for key, entry in entries.items())


def past_id(operation: str, document: str) -> str:
    """The ``_id`` of the document that keeps what an operation took out of a data document."""
    return f"past:{operation}:{document}"


def _taken_away(document: Document, status: Status, asked: Asked) -> tuple[Document, tuple[Document, ...]]:
    """The document with the new status, out of the hands of the step that has it, if one does."""
    records: tuple[Document, ...] = ()
    before = documents.status_of(document)
    changed = documents.moved(document, status, asked.at)
    if before is not None and before.kind in HELD:
        key, _, record = documents.called_off(document, asked.words(), asked.at)
        records = (record,)
        _forget(changed, [key])
    return changed, records


def _forget(changed: Document, keys: Any) -> None:
    """Take steps' entries out; the numbers of their attempts go on where they were."""
    for key in keys:
        entry = changed.pop(key, None)
        _goes_on(changed, key, count(entry.get("number"), 1) + 1 if isinstance(entry, dict) else 2)


def _goes_on(changed: Document, key: str, number: int) -> None:
    """The next attempt of a step has at least this number."""
    numbers = changed.get("numbers")
    known = numbers if isinstance(numbers, dict) else {}
    changed["numbers"] = {**known, key: max(number, documents.next_number(changed, key))}


def _entries(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What stands in the document of each step; what is no table counts as an empty one."""
    return {
        key: entry if isinstance(entry, dict) else {} for key, entry in document.items() if _STEP_KEY.match(key)
    }


def _kind(document: Mapping[str, Any]) -> Kind | None:
    status = documents.status_of(document)
    return None if status is None else status.kind
