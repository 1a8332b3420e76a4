"""Where a document stands in its chain, step by step, and why it is not further: pure, from the document alone.

The seven states are those of the view ``pages/steps``: waiting, ready, queued, in progress, done, failed, bad.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator import transitions
from orchestrator.chain import Chain
from orchestrator.transitions import Kind
from orchestrator.web import human

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
    """One step of one document: its state, and a sentence that says why."""

    outline: Outline
    state: str
    sentence: str
    proc: dict[str, Any] = field(default_factory=dict)


def standings(document: Document, steps: Iterable[Outline], now: float) -> list[Standing]:
    """The standing of each step, in the chain's order. ``now`` is in seconds since 1970."""
    steps = tuple(steps)
    names = {s.key: s.name for s in steps}
    status = transitions.parse(document.get("status"))
    kind = status.kind.value if status else "other"
    blamed = _blamed(document, steps) if kind == Kind.FAILED else None
    made: list[Standing] = []
    for step in steps:
        said = proc(document, step.key)
        holds = status is not None and status.step == step.number
        missing = [names.get(n, n) for n in step.needs if proc(document, n).get("state") != "done"]
        if said.get("state") == "done":
            taken = human.duration(said.get("seconds"))
            made.append(Standing(step, "done", f"Done{f' in {taken}' if taken else ''}.", said))
        elif kind == Kind.BAD:
            made.append(
                Standing(step, "bad", f"Will not run: the document is bad{_because(document.get('reason'))}", said)
            )
        elif step is blamed:
            words = f"Failed{_class(said.get('error_class'))}{_because(said.get('reason') or document.get('reason'))}"
            made.append(Standing(step, "failed", words, said))
        elif holds and kind == Kind.QUEUED:
            made.append(Standing(step, "queued", f"A batch job is submitted{_since(said.get('started'), now)}.", said))
        elif holds and kind == Kind.IN_PROGRESS:
            made.append(Standing(step, "in progress", _claimed(said, now), said))
        elif missing or kind not in transitions.WAITING or step.key in document:
            made.append(Standing(step, "waiting", _waits(document, kind, missing, blamed), said))
        else:
            made.append(Standing(step, "ready", _ready(document, step, now), said))
    return made


def _blamed(document: Document, steps: tuple[Outline, ...]) -> Outline | None:
    """The step that a failed document is failed at; the first undone one where a person gave up on it."""
    for wanted in (lambda s: s == "failed", lambda s: s != "done"):
        for step in steps:
            if wanted(proc(document, step.key).get("state")):
                return step
    return None


def _because(reason: Any) -> str:
    return f": {_clean(reason)}" if reason else "; no reason was given."


def _clean(reason: Any) -> str:
    text = str(reason).strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _class(error_class: Any) -> str:
    return f" ({error_class})" if isinstance(error_class, str) and error_class else ""


def _since(started: Any, now: float) -> str:
    words = human.ago(started, now)
    return f", {words}" if words else ""


def _claimed(said: Mapping[str, Any], now: float) -> str:
    who = said.get("poller") or "a poller"
    where = f" on {said['host']}" if said.get("host") else ""
    attempt = said.get("number")
    nth = f", attempt {attempt}" if isinstance(attempt, int) and attempt > 1 else ""
    return f"Claimed by {who}{where}{_since(said.get('started'), now)}{nth}."


def _waits(document: Document, kind: str, missing: list[str], blamed: Outline | None) -> str:
    if kind == Kind.OPEN:
        return "Waits until the DAQ has closed the file."
    if kind == Kind.FAILED:
        return f"Waits: {blamed.name if blamed else 'a step'} failed, and the document is not tried again by itself."
    if missing:
        return f"Waits for {_listed(missing)}."
    if kind in (Kind.IN_PROGRESS, Kind.QUEUED):
        return "Waits: another step holds the document."
    if kind == "other":
        return f"Waits: {document.get('status')!r} is no status that a step can start from."
    return "Waits: the document holds an unfinished record of this step, though no poller holds the document."


def _ready(document: Document, step: Outline, now: float) -> str:
    retry = document.get("retry")
    if not isinstance(retry, dict) or retry.get("step") != step.key:
        site = f" of site {step.site}" if step.site else ""
        return f"Ready: the next free poller{site} takes it."
    before = f"The last attempt failed{_class(retry.get('error_class'))}{_because(retry.get('reason'))}"
    when = human.parse_time(retry.get("not_before"))
    attempt = f"Attempt {retry['number']}" if isinstance(retry.get("number"), int) else "The next attempt"
    if when is None or when <= now:
        return f"{before} {attempt} can begin now."
    return f"{before} {attempt} not before {human.clock(retry['not_before'])} ({human.ago(retry['not_before'], now)})."


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def summary(document: Document, made: list[Standing], now: float) -> str:
    """One sentence: why this document is where it is, and what happens next."""
    kind = kind_of(document.get("status"))
    if kind == Kind.BAD:
        return f"Out of processing: the document is bad{_because(document.get('reason'))}"
    if kind == Kind.OPEN:
        return "The DAQ is still writing the file; processing begins when it is closed."
    for state in ("failed", "in progress", "queued", "ready"):
        for standing in made:
            if standing.state == state:
                return f"{standing.outline.name}: {standing.sentence}"
    if made and all(s.state == "done" for s in made):
        return "Through the whole chain."
    for standing in made:
        if standing.state == "waiting":
            return f"{standing.outline.name}: {standing.sentence}"
    return f"Its status is {document.get('status')!r}."
