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

from collections.abc import Callable

from orchestrator import documents
from orchestrator.chain import Chain, Step
from orchestrator.documents import Document, iso
from orchestrator.errors import IllegalTransition
from orchestrator.orders import (
    NAMES,
    OPERATIONS,
    OUTPUTS,
    PRIORITY_LIMIT,
    Asked,
    Changed,
    Decide,
    Kindly,
    Order,
)
from orchestrator.redoing import dependents, entries, forget, is_untrue, kind_of, past_id, reset
from orchestrator.transitions import HELD, WORDS, Kind, Status

__all__ = [
    "NAMES", "OPERATIONS", "OUTPUTS", "PRIORITY_LIMIT", "Asked", "Changed", "Decide", "Kindly", "Order", "decider",
    "dependents", "is_untrue", "past_id", "possible", "reset",
]  # fmt: skip


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
    if kind_of(document) is Kind.FAILED:
        return "it has failed already"
    changed, records = _taken_away(document, Status(Kind.FAILED), asked)
    changed["reason"] = asked.reason
    return Changed(changed, records)


def mark_bad(document: Document, asked: Asked) -> Changed | str:
    """Out of processing, whoever works on it."""
    if kind_of(document) is Kind.BAD:
        return _confirmed(document, asked) or f"it is bad already: {document.get('reason')}"
    changed, records = _taken_away(document, Status(Kind.BAD), asked)
    changed["reason"] = asked.reason
    return Changed(changed, records)


def _confirmed(document: Document, asked: Asked) -> Changed | None:
    """A gathered document that a gate has refused, given up by a person: its members are told then."""
    refused = {key: entry for key, entry in entries(document).items() if entry.get("state") == "refused"}
    if not refused or not document.get("gather"):
        return None
    failed = {key: {**entry, "state": "failed"} for key, entry in refused.items()}
    return Changed({**document, **failed, "reason": asked.reason})


def mark_good(document: Document, asked: Asked) -> Changed | str:
    """A bad document back into processing (a step that had failed is tried anew), or a closed one accepted."""
    kind = kind_of(document)
    if kind is Kind.GOOD:
        return "it is good already"
    if kind not in (Kind.BAD, Kind.CLOSED):
        hint = "`retry` sets it going again" if kind is Kind.FAILED else "only bad and closed ones can be marked good"
        raise IllegalTransition(f"document {document.get('_id')!r} has status {document.get('status')!r}: {hint}")
    changed = documents.moved(document, Status(Kind.GOOD), asked.at)
    changed.pop("reason", None)
    gone = [key for key, entry in entries(changed).items() if entry.get("state") != "done"]
    forget(changed, gone)
    return Changed(changed)


def accept(document: Document, step: Step, asked: Asked) -> Changed | str:
    """The output of a step that a gate has refused counts as done, as it is, and the document goes on.

    Who said so and why stands in the entry, beside what the gate had said. Raises IllegalTransition where no gate has
    refused it.
    """
    entry = entries(document).get(step.key, {})
    if entry.get("state") == "done":
        return f"{step.key} ({step.name}) is done already"
    if kind_of(document) is not Kind.BAD or entry.get("state") != "refused":
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


def _taken_away(document: Document, status: Status, asked: Asked) -> tuple[Document, tuple[Document, ...]]:
    """The document with the new status, out of the hands of the step that has it, if one does."""
    records: tuple[Document, ...] = ()
    before = documents.status_of(document)
    changed = documents.moved(document, status, asked.at)
    if before is not None and before.kind in HELD:
        key, _, record = documents.called_off(document, asked.words(), asked.at)
        records = (record,)
        forget(changed, [key])
    return changed, records
