"""Taking steps back, so that they are done again: those that depend on them too, in every lane. Pure.

What is reset is never lost: the entries stand, whole, in a document ``past:<operation>:<document>``, which is written
before the data document.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from orchestrator import documents
from orchestrator.chain import Chain, Step
from orchestrator.documents import Document, count, iso
from orchestrator.errors import IllegalTransition
from orchestrator.lanes import MAIN
from orchestrator.orders import Asked, Changed
from orchestrator.transitions import Kind, Status

_STEP_KEY = re.compile(r"proc(\d+)\Z")


def reset(chain: Chain, document: Document, step: Step, asked: Asked, *, hold: bool = False) -> Changed | str:
    """Back to before ``step``: its entry, those of steps that depend on it, and of later steps that the chain has no
    more, leave the document and stand in its past. Steps of other lanes that depend on it go with them.

    A step that needs none of them keeps its result, and if it runs just now it goes on. Raises IllegalTransition for a
    document that is open or bad.
    """
    kind = kind_of(document)
    if kind in (Kind.OPEN, Kind.BAD):
        hint = "mark it good first" if kind is Kind.BAD else "the file is still being written"
        raise IllegalTransition(f"document {document.get('_id')!r} is {kind.value}: {hint}")
    redone = dependents(chain, step)
    known = {one.key for one in chain.steps}
    keys = {one.key for one in redone[chain.branch.name]}
    keys |= {k for k in entries(document) if k not in known and int(k[4:]) > step.number}
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
    gone = {key: entry for key, entry in entries(document).items() if key in keys}
    records: tuple[Document, ...] = ()
    held = documents.holder(document)
    if held is not None and held[0] in gone:
        records = (documents.called_off(document, asked.words(), asked.at)[2],)
    changed = dict(document)
    forget(changed, gone)
    ahead = documents.retries(changed)
    for key in keys & ahead.keys():
        _goes_on(changed, key, count(ahead.pop(key).get("number"), 1))
    if ahead != documents.retries(changed):
        changed.pop("retry")
        if ahead:
            changed["retry"] = documents.with_retries(ahead)
    if not gone:
        return changed, gone, records
    left = entries(changed)
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
    if kind_of(seen) in (None, Kind.OPEN, Kind.BAD):
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
    taken = past.get("entries")
    if document is None or not isinstance(taken, dict):
        return False
    # By what stands there: in a past of a lane the keys are those that the lane knows.
    there = [entry for entry in document.values() if isinstance(entry, dict)]
    return any(entry in there for entry in taken.values() if entry is not None)


def past_id(operation: str, document: str) -> str:
    """The ``_id`` of the document that keeps what an operation took out of a data document."""
    return f"past:{operation}:{document}"


def forget(changed: Document, keys: Iterable[str]) -> None:
    """Take steps' entries out; the numbers of their attempts go on where they were."""
    for key in keys:
        entry = changed.pop(key, None)
        _goes_on(changed, key, count(entry.get("number"), 1) + 1 if isinstance(entry, dict) else 2)


def _goes_on(changed: Document, key: str, number: int) -> None:
    """The next attempt of a step has at least this number."""
    numbers = changed.get("numbers")
    known = numbers if isinstance(numbers, dict) else {}
    changed["numbers"] = {**known, key: max(number, documents.next_number(changed, key))}


def entries(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What stands in the document of each step; what is no table counts as an empty one."""
    return {
        key: entry if isinstance(entry, dict) else {} for key, entry in document.items() if _STEP_KEY.match(key)
    }


def kind_of(document: Mapping[str, Any]) -> Kind | None:
    """The kind of the document's status, or None if it is none of ours."""
    status = documents.status_of(document)
    return None if status is None else status.kind
