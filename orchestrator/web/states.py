"""Where a document stands in its chain, step by step: pure, from the document alone. Why is said by ``reasons``.

The seven states are those of the view ``pages/steps``: waiting, ready, queued, in progress, done, failed, bad.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator import transitions
from orchestrator.chain import Chain
from orchestrator.transitions import Kind, Status

#: In the order in which a document goes through them; the pages' columns.
STATES = ("waiting", "ready", "queued", "in progress", "done", "failed", "bad")

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Outline:
    """As much of a step as the pages need, whether it is known from the chain or only from the documents."""

    number: int
    name: str
    key: str
    needs: tuple[str, ...] = ()
    site: str = ""
    executor: str = ""


def outlines(chain: Chain | None, numbers: Iterable[int] = ()) -> tuple[Outline, ...]:
    """The chain's steps; without a chain, one for each of the step numbers that the database knows."""
    if chain is None:
        known = sorted({n for n in numbers if isinstance(n, int) and 0 <= n < 1000})
        keys = [f"proc{n}" for n in known]
        return tuple(Outline(n, key, key, tuple(keys[:i])) for i, (n, key) in enumerate(zip(known, keys, strict=True)))
    return tuple(
        Outline(s.number, s.name, s.key, tuple(n.key for n in chain.needs(s)), s.site, s.executor) for s in chain.steps
    )


def kind_of(status: Any) -> str:
    """The kind of a status (``in progress`` of ``proc 2 in progress``), or ``other`` for one that is none of ours."""
    parsed = transitions.parse(status)
    return "other" if parsed is None else parsed.kind.value


def kind_counts(statuses: Mapping[str, int]) -> dict[str, int]:
    """Counts by status made into counts by kind."""
    counts: dict[str, int] = {}
    for status, count in statuses.items():
        counts[kind_of(status)] = counts.get(kind_of(status), 0) + count
    return counts


def proc(document: Document, key: str) -> dict[str, Any]:
    """What a document says about one step; empty where it says nothing that can be read."""
    value = document.get(key)
    return value if isinstance(value, dict) else {}


@dataclass(frozen=True)
class Standing:
    """One step of one document: its state, and what the document says about the step."""

    outline: Outline
    state: str
    proc: dict[str, Any] = field(default_factory=dict)


def standings(document: Document, steps: Iterable[Outline]) -> list[Standing]:
    """The standing of each step, in the chain's order: the same rules as the view ``pages/steps``."""
    steps = tuple(steps)
    status = transitions.parse(document.get("status"))
    kind = status.kind.value if status else "other"
    blamed = _blamed(document, steps) if kind == Kind.FAILED else None
    return [
        Standing(step, _state(document, step, status, kind, step is blamed), proc(document, step.key)) for step in steps
    ]


def _state(document: Document, step: Outline, status: Status | None, kind: str, blamed: bool) -> str:
    if proc(document, step.key).get("state") == "done":
        return "done"
    if kind == Kind.BAD:
        return "bad"
    if blamed:
        return "failed"
    if status is not None and status.step == step.number and kind in (Kind.QUEUED, Kind.IN_PROGRESS):
        return kind
    needed = all(proc(document, need).get("state") == "done" for need in step.needs)
    free = step.key not in document and document.get("hold") is None
    return "ready" if needed and free and kind in transitions.WAITING else "waiting"


def _blamed(document: Document, steps: tuple[Outline, ...]) -> Outline | None:
    """The step that a failed document is failed at; the first undone one where a person gave up on it."""
    for wanted in (lambda s: s == "failed", lambda s: s != "done"):
        for step in steps:
            if wanted(proc(document, step.key).get("state")):
                return step
    return None
