"""What to make of a document that two sites have changed at the same time: one version, by rule, the same everywhere.

Replication keeps every version: a conflict loses nothing, but a reader sees only one of them. As each step belongs to
exactly one site, two sites change different parts of a document, and mostly the versions can be put together:

- each ``procN`` comes from the version in which its step has come furthest (done, failed, in progress, queued); a
  ``retry`` that follows an attempt outranks that attempt; nothing that is done is ever lost;
- ``bad`` wins over everything else, a failed step over one that waits, a step that holds the document over one that
  waits: so the status is always one that a version has;
- ``batchjob`` is the union; ``updated`` the latest; what only one version has is kept, ``hold`` included.

Each lane of the document is judged so, by its own keys (``archive_status``, ``archive_proc0``, ...): two sites at work
in two lanes get one document with both. While two steps of one lane hold the document at once the conflict waits: each
goes on, on its own version. What no rule decides is for a person. Until a conflict is settled no step of the document
is begun.

The merged version, its revision and the deletions of the others are worked out from the versions alone, without a clock
or a random number. So two sites that settle the same conflict write the very same revisions, and replication finds
nothing new in them. Pure data in, data out.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator import documents
from orchestrator.chain import Chain
from orchestrator.transitions import HELD, Kind, Status, parse

Document = dict[str, Any]

_STEP = re.compile(r"proc[0-9]{1,6}\Z")
#: How far an entry of a step has come, by its state.
_STATES = {"queued": 1, "in progress": 2, "failed": 3, "refused": 3, "done": 4}
#: How far a document has come that no step holds.
_WAITING = {Kind.OPEN: 0, Kind.CLOSED: 1, Kind.GOOD: 2}
#: What each lane has for itself, besides its steps, and a rule of its own tells how it is put together.
_OWN = ("status", "retry", "batchjob", "numbers", "reason", "forced")
#: Records of what people did: the later one counts.
_DATED = ("operation", "hold", "forced")

#: The types of documents that are put together by rule, each with its side lanes.
Types = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Version:
    """One leaf of a document: what stands in it, and its history, newest first (``2-abc``, ``1-def``)."""

    body: Document = field(hash=False)
    history: tuple[str, ...]

    @property
    def rev(self) -> str:
        """The leaf's revision."""
        return self.history[0]


@dataclass(frozen=True)
class Merge:
    """The versions put together: what to write with ``new_edits=false``."""

    body: Document
    base: Version
    writes: tuple[Document, ...]


@dataclass(frozen=True)
class Wait:
    """Not yet: the versions will come closer by themselves."""

    reason: str


@dataclass(frozen=True)
class Person:
    """No rule decides: somebody must choose a version."""

    reason: str


Decision = Merge | Wait | Person


class _Undecided(Exception):
    def __init__(self, decision: Wait | Person) -> None:
        self.decision = decision


def version_of(document: Mapping[str, Any]) -> Version:
    """A leaf as ``_bulk_get?revs=true`` gives it. Raises KeyError without ``_revisions``."""
    start, ids = document["_revisions"]["start"], document["_revisions"]["ids"]
    body = {key: value for key, value in document.items() if not key.startswith("_") or key == "_attachments"}
    return Version(body, tuple(f"{start - number}-{name}" for number, name in enumerate(ids)))


def types_of(chain: Chain) -> dict[str, tuple[str, ...]]:
    """The types of a chain's documents with their lanes: its data documents, and those of its gathers."""
    gathered = {gather.type: () for gather in chain.gathers.values()}
    return {**gathered, chain.type: tuple(sorted(chain.lanes))}


def decide(identifier: str, versions: Iterable[Version], types: Types) -> Decision:
    """What to do with a conflict.

    Args:
        identifier: the document's id.
        versions: all leaves that are not deleted; at least two.
        types: of `types_of`; documents of other types are only merged where they say the same.
    """
    ordered = sorted(versions, key=lambda version: _rank(version.rev), reverse=True)
    try:
        if len({_canonical(version.body) for version in ordered}) == 1:
            merged, base = ordered[0].body, ordered[0]
        elif (type_ := str(ordered[0].body.get("type"))) not in types or any(
            version.body.get("type") != type_ for version in ordered
        ):
            raise _Undecided(Person("the versions differ, and no rule is known for documents of this type"))
        else:
            merged = _merged([version.body for version in ordered], types[type_])
            base = next(version for version in ordered if version.body.get("status") == merged["status"])
    except _Undecided as undecided:
        return undecided.decision
    return Merge(merged, base, tuple(_writes(identifier, merged, base, ordered)))


def merge(bodies: Sequence[Document], lanes: Sequence[str] = ()) -> Document | Wait | Person:
    """The bodies of documents with these side lanes put together; the order they come in does not matter."""
    try:
        return _merged(sorted(bodies, key=_canonical), lanes)
    except _Undecided as undecided:
        return undecided.decision


# --- putting bodies together ------------------------------------------------------------------------------------------


def _merged(bodies: Sequence[Document], lanes: Sequence[str]) -> Document:
    heads = ["", *(f"{lane}_" for lane in sorted(lanes))]
    owned = {name for body in bodies for name in body if any(_own(name, head) for head in heads)}
    found: Document = {}
    for name in sorted({name for body in bodies for name in body} - owned - {"updated"}):
        values = _distinct(body[name] for body in bodies if name in body and not _released(name, body[name], bodies))
        if values:
            found[name] = _field(name, values, bodies)
    updated = [str(body["updated"]) for body in bodies if body.get("updated")]
    if updated:
        found["updated"] = max(updated)
    for head in heads:
        parts = [_part(body, head) for body in bodies]
        merged = _lane(parts, head)
        if not any(f"{head}status" in body for body in bodies):
            del merged["status"]  # nobody has begun there
        found |= {head + name: value for name, value in merged.items()}
    return found


def _released(name: str, value: Any, bodies: Sequence[Document]) -> bool:
    """Whether a version tells of a hold that a person has lifted that very hold."""
    if name != "hold":
        return False
    said = [body["operation"] for body in bodies if name not in body and isinstance(body.get("operation"), dict)]
    return any(
        one.get("what") == "release" and isinstance(one.get("was"), dict) and one["was"].get("hold") == value
        for one in said
    )


def _signed(body: Mapping[str, Any]) -> str:
    """Who did something to a version last, when and why, in words."""
    mark = body.get("operation")
    if not isinstance(mark, dict) or not mark.get("by"):
        return ""
    why = f": {mark['reason']}" if mark.get("reason") else ""
    return f"{mark['by']} ({mark.get('what')} at {mark.get('at')}{why})"


def _own(name: str, head: str) -> bool:
    """Whether a key is one that the lane with this head has for itself."""
    tail = name.removeprefix(head)
    return name.startswith(head) and (tail in _OWN or _STEP.match(tail) is not None)


def _part(body: Mapping[str, Any], head: str) -> Document:
    """What one lane has of a document, under plain names; before its first step it is closed, as `lanes` has it."""
    part = {name.removeprefix(head): value for name, value in body.items() if _own(name, head)}
    if head:
        part.setdefault("status", "open" if body.get("status") == "open" else "closed")
    return {**part, "updated": body.get("updated"), "operation": body.get("operation")}


def _lane(bodies: Sequence[Document], head: str) -> Document:
    """One lane of all versions put together; ``head`` stands before its keys in the document."""
    found: Document = {}
    steps = sorted({name for body in bodies for name in body if _STEP.match(name)}, key=lambda name: int(name[4:]))
    retries = _distinct(retry for body in bodies for retry in documents.retries(body).values())
    for name in steps:
        entry = _step(name, head, [body[name] for body in bodies if name in body], retries, bodies)
        if entry is not None:
            found[name] = entry
    jobs = _distinct(job for body in bodies if isinstance(body.get("batchjob"), list) for job in body["batchjob"])
    if jobs:
        found["batchjob"] = sorted(jobs, key=lambda job: (_text(job, "submitted"), _canonical(job)))
    if any("numbers" in body for body in bodies):
        found["numbers"] = _numbers(bodies, head)
    if any("forced" in body for body in bodies):
        found["forced"] = _field(
            "forced", _distinct(body["forced"] for body in bodies if "forced" in body), bodies, head
        )
    status = found["status"] = _status(bodies, found)
    if status == Kind.BAD.value:
        # Whoever is at work on it finds that it has gone on, as where a person marks it bad at one site.
        found = {name: value for name, value in found.items() if not (_STEP.match(name) and _holds(value))}
    # Two that gave it up have each said why: the later word of those that say what it has become.
    said = [body for body in bodies if "reason" in body]
    told = [body for body in said if body["status"] == status] or said
    if told:
        found["reason"] = max(told, key=lambda body: (str(body["updated"]), _canonical(body["reason"])))["reason"]
    retry = _retry(retries, found)
    if retry is not None:
        found["retry"] = retry
    return found


def _numbers(bodies: Sequence[Document], head: str) -> Document:
    """The numbers with which steps go on: attempts are only ever counted on."""
    found: Document = {}
    for body in bodies:
        numbers = body.get("numbers", {})
        if not isinstance(numbers, dict):
            raise _Undecided(Person(f"{head}numbers is no object in one version"))
        for name, number in numbers.items():
            found[name] = max(found.get(name, 0), _number(number))
    return found


def _step(name: str, head: str, entries: list[Any], retries: list[Any], bodies: Sequence[Document]) -> Any:
    """The entry of one step, or None where an attempt is over and another is to follow."""
    if not all(isinstance(entry, dict) for entry in entries):
        raise _Undecided(Person(f"{head}{name} is no object in one version"))
    distinct = sorted(_distinct(entries), key=_progress)
    last = distinct[-1]
    if len(distinct) > 1 and _progress(distinct[-2]) == _progress(last):
        raise _Undecided(Person(f"{head}{name}: two attempts have come equally far, with different results"))
    if last.get("state") == "done":
        number = _number(last.get("number"))
        if any(_number(entry.get("number")) > number for entry in distinct):
            raise _Undecided(Person(f"{head}{name} is done in one version, and was begun anew in another"))
        # Whoever takes a step back leaves the number with which it goes on.
        lacking = [body.get("numbers") for body in bodies if name not in body]
        if any(_number(numbers.get(name)) > number for numbers in lacking if isinstance(numbers, dict)):
            who = next((by for body in bodies if name not in body and (by := _signed(body))), "a person")
            raise _Undecided(Person(f"{head}{name} is done in one version, and {who} has taken it back in another"))
        return last
    for retry in retries:
        later = _number(retry.get("number")) > _number(last.get("number"))
        if retry.get("step") == name and (later or retry.get("last") == last.get("attempt")):
            return None
    return last


def _progress(entry: Mapping[str, Any]) -> tuple[int, int, int, str]:
    """How far an entry has come: what is done stays done, else the later attempt counts, else the further one.

    An attempt that was given back before it began leaves its number to the next: the time tells the two apart, which is
    of one clock, the owner's.
    """
    state = _STATES.get(str(entry.get("state")), 0)
    return (int(state == 4), _number(entry.get("number")), state, "" if state == 4 else _text(entry, "started"))


def _field(name: str, values: list[Any], bodies: Sequence[Document], head: str = "") -> Any:
    if len(values) == 1:
        return values[0]
    if name in _DATED and all(isinstance(value, dict) and isinstance(value.get("at"), str) for value in values):
        return max(values, key=lambda value: (value["at"], _canonical(value)))
    if name == "priority":  # a person's: the last who did something to the document has seen it
        there = [body for body in bodies if name in body]
        return max(there, key=lambda body: (_text(body.get("operation"), "at"), _canonical(body[name])))[name]
    raise _Undecided(Person(f"the versions have different values of {head + name!r}"))


def _status(bodies: Sequence[Document], found: Document) -> str:
    parsed: dict[str, Status] = {}
    for body in bodies:
        status = parse(body.get("status"))
        if status is None:
            raise _Undecided(Person(f"a version has the status {body.get('status')!r}, which is none of ours"))
        parsed[str(body["status"])] = status

    def first(kind: Kind) -> str | None:
        return min((text for text, status in parsed.items() if status.kind is kind), default=None)

    if (bad := first(Kind.BAD)) is not None:
        return bad
    held = sorted(
        text for text, status in parsed.items() if status.kind in HELD and _holds(found.get(f"proc{status.step}"))
    )
    if len({parsed[text].step for text in held}) > 1:
        raise _Undecided(Wait(f"two steps hold the document at once: {', '.join(held)}"))
    if held:
        return max(held, key=lambda text: (parsed[text].kind is Kind.IN_PROGRESS, text))
    failed = first(Kind.FAILED)
    broken = [name for name, entry in found.items() if _STEP.match(name) and entry.get("state") == "failed"]
    retried = any(retry.get("by") for body in bodies for retry in documents.retries(body).values())
    if failed is not None and (broken or not retried):
        return failed
    waiting = [text for text, status in parsed.items() if status.kind in _WAITING]
    if not waiting:
        raise _Undecided(Wait("what the versions' statuses say is over; the next change decides"))
    return max(waiting, key=lambda text: (_WAITING[parsed[text].kind], text))


def _holds(entry: Any) -> bool:
    return isinstance(entry, dict) and entry.get("state") in ("queued", "in progress")


def _retry(retries: list[Any], found: Document) -> Any:
    """The retries that still lie ahead, if there are any: of each step the latest."""
    ahead: Document = {}
    for retry in sorted(
        retries, key=lambda retry: (_number(retry.get("number")), _text(retry, "not_before"), _canonical(retry))
    ):
        key = str(retry.get("step"))
        if not isinstance(found.get(key), dict):
            ahead[key] = retry
    return documents.with_retries({key: ahead[key] for key in sorted(ahead)})


# --- revisions --------------------------------------------------------------------------------------------------------


def _writes(identifier: str, merged: Document, base: Version, versions: Sequence[Version]) -> list[Document]:
    """The merged version on top of its base, and a deletion on top of each other leaf."""
    leaves = sorted(version.rev for version in versions)
    writes = []
    if _canonical(merged) != _canonical(base.body):
        body = json.loads(_canonical(merged))
        writes.append(_child(identifier, body, base, _canonical([merged, leaves])))
    for version in versions:
        if version is not base:
            writes.append(_child(identifier, {"_deleted": True}, version, _canonical([version.rev, leaves])))
    return writes


def _child(identifier: str, body: Document, parent: Version, name: str) -> Document:
    generation, _, _ = parent.rev.partition("-")
    digest = hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()
    ids = [digest, *(rev.partition("-")[2] for rev in parent.history)]
    start = int(generation) + 1
    return {"_id": identifier, "_rev": f"{start}-{digest}", "_revisions": {"start": start, "ids": ids}, **body}


def _rank(rev: str) -> tuple[int, str]:
    generation, _, digest = rev.partition("-")
    return int(generation), digest


# --- small things -----------------------------------------------------------------------------------------------------


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _distinct(values: Iterable[Any]) -> list[Any]:
    found: dict[str, Any] = {}
    for value in values:
        found.setdefault(_canonical(value), value)
    return [found[key] for key in sorted(found)]


def _number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _text(value: Any, key: str) -> str:
    return str(value.get(key, "")) if isinstance(value, dict) else ""
