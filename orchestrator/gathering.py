"""Which documents belong together, when they are ready, and the document that is made of them. Pure.

A gather works in one of two ways. *Counted*: one document for each run, ``<gather>:<run>``, made when every member is
ready and nothing has moved for a while; when members come or change later it goes back to before its first step, with
what it was kept in ``earlier``. *Claimed* (the gather names a ``step`` of a lane): members are taken first, each by one
document alone, whose id says which they are; when that document is through its chain the members' step is done.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator import documents
from orchestrator.chain import Chain, Gather, Step
from orchestrator.documents import Claimant, Document, Report, iso
from orchestrator.transitions import HELD, Kind, Status, check

IDENTITY = "gather:"
#: Members of one document: some 250 bytes each, and a document stays well below CouchDB's 8 MB.
MOST = 10_000
#: Earlier states of a document that was gathered again.
EARLIER = 5

_STEP_KEY = re.compile(r"proc\d+\Z")


@dataclass(frozen=True)
class Group:
    """One run's members within a period, as the view sums them. ``moved``: the sum of their times, a fingerprint."""

    period: str
    run: Any
    count: int
    ready: int
    size: float
    moved: float

    @property
    def whole(self) -> bool:
        """Whether every member is ready, and there is one."""
        return 0 < self.count == self.ready

    @property
    def stamp(self) -> list[float]:
        """What changes when members come, go or are made again."""
        return [self.count, self.size, round(self.moved, 3)]


@dataclass(frozen=True)
class Plan:
    """Members that are to become one document: its label for people, and the keys of their groups."""

    label: str
    period: str
    run: Any
    groups: tuple[tuple[str, Any], ...]
    stamp: tuple[float, ...] = ()


def groups(rows: Iterable[tuple[list[Any], list[float]]]) -> list[Group]:
    """The view's summed rows."""
    return [Group(str(key[0]), key[1], int(v[0]), int(v[1]), float(v[2]), float(v[3])) for key, v in rows]


def plans_counted(found: Iterable[Group], made: Mapping[Any, Any], gather: str) -> list[Plan]:
    """Runs that are ready and not gathered as they are. ``made``: by run, what its document is ``of``."""
    return [
        Plan(f"{gather}:{one.run}", "", one.run, ((one.period, one.run),), tuple(one.stamp))
        for one in found
        if one.whole and made.get(one.run) != one.stamp
    ]


def plans_claimed(found: Iterable[Group], gather: Gather, now: float) -> list[Plan]:
    """Which groups become one document each.

    A run of ``own`` or more as soon as it is ready; the other runs of a period, bundled up to ``largest``, when it is
    over and all of them are ready. Without a period, each run that is ready.
    """
    every = list(found)
    by_run: dict[Any, list[Group]] = {}
    for one in every:
        by_run.setdefault(one.run, []).append(one)
    plans, alone = [], set()
    for run, parts in by_run.items():
        large = gather.own is not None and sum(part.size for part in parts) >= gather.own
        if large or not gather.period:
            alone.add(run)
            if all(part.whole for part in parts):
                plans.append(Plan(str(run), "", run, tuple((part.period, run) for part in parts)))
    by_period: dict[str, list[Group]] = {}
    for one in every:
        if one.run not in alone:
            by_period.setdefault(one.period, []).append(one)
    for period, parts in sorted(by_period.items()):
        if _over(period, now) and all(part.whole for part in parts):
            plans += [
                Plan(f"{period}" + (f".{number}" if number else ""), period, None, bundle)
                for number, bundle in enumerate(_bundles(parts, gather.largest))
            ]
    return plans


def _over(period: str, now: float) -> bool:
    return bool(period) and iso(now)[: len(period)] > period


def _bundles(parts: list[Group], largest: float | None) -> list[tuple[tuple[str, Any], ...]]:
    """Runs in order, as many together as ``largest`` (bytes) and MOST allow; a run is never divided."""
    bundles: list[tuple[tuple[str, Any], ...]] = []
    taken: list[tuple[str, Any]] = []
    size, count = 0.0, 0
    for part in parts:
        if taken and ((largest is not None and size + part.size > largest) or count + part.count > MOST):
            bundles.append(tuple(taken))
            taken, size, count = [], 0.0, 0
        taken.append((part.period, part.run))
        size, count = size + part.size, count + part.count
    return [*bundles, tuple(taken)] if taken else bundles


def attempt_number(document: Mapping[str, Any], step: Step) -> int:
    """The number that the next attempt of a step has, as `documents.claim` gives it."""
    series = documents.retry_of(document, step.key)
    return documents.count(series.get("number"), documents.next_number(document, step.key))


def moving(members: Iterable[Document], after: str, settle: float, now: float) -> bool:
    """Whether a member has come, or its step ``after`` (a keyword) was done, within the last ``settle`` seconds.

    A time that lies ahead by more than that was written by a clock that is wrong, and is not waited for.
    """
    latest = 0.0
    for one in members:
        entry = one.get(after)
        for time in (one.get("registered"), entry.get("finished") if isinstance(entry, dict) else None):
            at = documents.seconds_of(time) or 0.0
            latest = max(latest, at if at < now + settle else 0.0)
    return latest > now - settle


def member(document: Mapping[str, Any], after: str) -> dict[str, Any]:
    """What a gathered document knows of a member: the file that the step with keyword ``after`` left."""
    entry = document.get(after)
    entry = entry if isinstance(entry, dict) else {}
    found = {
        "id": document.get("_id"), "run_name": document.get("run_name"), "file_number": document.get("file_number"),
        "file": entry.get("file") or document.get("file"), "size": entry.get("size", document.get("size")),
        "checksum": entry.get("checksum"), "attempt": entry.get("attempt"),
    }  # fmt: skip
    return {key: value for key, value in found.items() if value is not None}


def identity(gather: str, plan: Plan, members: Iterable[tuple[str, int]]) -> str:
    """The id of the document that is made of exactly these members, each an id and the number of its attempt.

    Whoever makes it, it is the same; members that are gathered anew, after a reset or a retry, make another one.
    """
    lines = sorted(f"{name} {number}" for name, number in members)
    digest = hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()[:10]
    return f"{gather}:{plan.label}:{digest}"


def new(
    name: str, gather: Gather, identity: str, plan: Plan, members: list[dict[str, Any]], now: float
) -> Document:
    """The document of these members, ready for its first step."""
    made = {
        "_id": identity, "type": gather.type, "gather": name, "site": gather.site, "status": "closed",
        "members": members, "bytes": sum(int(one.get("size") or 0) for one in members),
        "registered": iso(now), "updated": iso(now), "of": list(plan.stamp),
    }  # fmt: skip
    if plan.run is not None:
        made["run_name"] = plan.run
    if plan.period:
        made["period"] = plan.period
    return made


def again(
    old: Document, plan: Plan, members: list[dict[str, Any]], now: float
) -> Document | None:
    """The document of a run whose members have come or changed: back to before its first step.

    None where it cannot be now: a step has it, or a person has marked it bad. Where the members are the same after
    all, only the fingerprint is renewed.
    """
    status = documents.status_of(old)
    if status is None or status.kind in HELD or status.kind is Kind.BAD:
        return None
    if old.get("members") == members:
        return {**old, "of": list(plan.stamp), "updated": iso(now)}
    steps = {key: value for key, value in old.items() if _STEP_KEY.match(key)}
    kept = {key: value for key, value in old.items() if key not in (*steps, "retry", "reason")}
    if status.kind is not Kind.CLOSED:
        check(status, Status(Kind.CLOSED), str(old.get("_id")))
    past = old.get("earlier")
    if steps:
        # Attempts are counted on, so that no attempt's document is ever written twice.
        numbers = dict(kept["numbers"]) if isinstance(kept.get("numbers"), dict) else {}
        for key, entry in steps.items():
            if isinstance(entry, dict):
                numbers[key] = documents.count(entry.get("number"), 1) + 1
        kept["numbers"] = numbers
        kept["earlier"] = [
            *(past if isinstance(past, list) else [])[-(EARLIER - 1) :],
            {"at": iso(now), "status": old.get("status"), "members": len(old.get("members") or ()), **steps},
        ]
    return {
        **kept, "status": "closed", "members": members, "of": list(plan.stamp), "updated": iso(now),
        "bytes": sum(int(one.get("size") or 0) for one in members),
    }  # fmt: skip


def refused(document: Mapping[str, Any]) -> bool:
    """Whether a gate refuses what a step of a gathered document has left, and nobody has decided on it yet."""
    return document.get("status") == "bad" and any(
        isinstance(entry, dict) and entry.get("state") == "refused"
        for key, entry in document.items()
        if _STEP_KEY.match(key)
    )


# --- members that are claimed ---


def take(document: Document, step: Step, claimant: Claimant, gathered: str, now: float) -> Document:
    """A member as taken for the document ``gathered``. Raises IllegalTransition where it is not waiting."""
    claimed = documents.claim(document, step, claimant, gathered, now)
    status = Status(Kind.QUEUED, step.number)
    check(documents.status_of(document), status, str(document.get("_id", "")))
    entry = claimed[step.key]
    del entry["started"]
    entry |= {"state": "queued", "host": None, "pid": None, "queued": iso(now), "gathered": gathered}
    return {**claimed, "status": str(status)}


def done(member_: Document, step: Step, gathered: Document, last: str, now: float) -> Document:
    """A member whose document is through its chain; ``last`` is the keyword of that chain's last step."""
    entry = gathered.get(last)
    entry = entry if isinstance(entry, dict) else {}
    result = {key: entry[key] for key in ("file", "size", "checksum") if key in entry}
    result["gathered"] = gathered["_id"]
    queued = documents.seconds_of(member_[step.key].get("queued")) or now
    report = Report(
        str(member_["_id"]), step.key, str(gathered["_id"]), queued, now, exit_code=None, result=result,
        software=entry.get("software") or {},
    )  # fmt: skip
    return documents.finish(member_, step, report, now)


def claim_step(chain: Chain, gather: Gather) -> tuple[str, Step] | None:
    """The lane and the step that the gather does for its members; None for a gather that claims none."""
    for name, lane in chain.lanes.items():
        for step in lane.steps:
            if gather.step and step.name == gather.step:
                return name, step
    return None
