"""What people have paused, drained or limited at a site, changeable while everything runs: the *control document*.

Each site has one in the run database, ``control:<site>``::

    { "_id": "control:lyon", "type": "control", "site": "lyon", "updated": "...",
      "stops":   { "step:convert": {"mode": "pause", "by": "...", "at": "...", "reason": "..."},
                   "farm:centre": {...}, "site": {...} },
      "limits":  { "centre": { "queued": {"value": 10, "by": "...", "at": "...", "reason": "..."} } },
      "history": [ {"at", "by", "reason", "what"}, ... ]          the last HISTORY changes, the newest at the end
    }

**pause**: nothing new begins. No poller claims a document for what is paused, and nothing more is submitted to a farm.
What runs goes on and is recorded; what waits at a farm stays there, keeps its place in the queue, and begins when its
turn comes.

**drain**: as pause, and what waits at a farm without having begun is taken back: it is cancelled there, and its
document waits again as if it had not been sent; no retry is used up. What has begun ends as usual. When nothing is
left, the farm can be taken down. For steps that run in a poller's own workers, draining and pausing are the same.

Both last until a person says *resume*. They are of a step, of a farm, or of all of the site; what several of them stop
begins when the last of them is lifted. A step run by hand (``orchestrator run``) asks none of them: a person has.

**limits** of a farm that are set here override those of the chain file until they are reset. Fewer than are there
already cancels nothing: no more are sent until there is room.

Pure: data in, data out. Every function returns the document to write, and the very one it was given where nothing
changes. Whatever stands in a control document that is no such entry is passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from orchestrator.chain import Step
from orchestrator.documents import REASON_LIMIT, Document, iso
from orchestrator.errors import SettingsError
from orchestrator.farms import Limits

TYPE = "control"
PREFIX = "control:"
PAUSE, DRAIN = "pause", "drain"
#: Changes that a control document remembers: those of some weeks, in a few kB.
HISTORY = 100
#: A limit beyond this is none, and may not be a number at all: JSON's 1e400 is infinite.
LARGEST = 10**9


def name_of(site: str) -> str:
    """The ``_id`` of a site's control document."""
    return PREFIX + site


@dataclass(frozen=True)
class Scope:
    """What a stop is of: a step or a farm, by its name in the chain, or all of the site (``kind`` is ``site``)."""

    kind: str = "site"
    name: str = ""

    @property
    def key(self) -> str:
        """Its name in the control document."""
        return f"{self.kind}:{self.name}" if self.name else self.kind

    def words(self, site: str) -> str:
        """For people."""
        return f"{self.kind} {self.name}" if self.name else f"site {site}"


def scope_of(key: str) -> Scope | None:
    """The scope that is written as ``key``, or None."""
    kind, _, name = key.partition(":")
    if key == "site" or (kind in ("step", "farm") and name):
        return Scope(kind, name)
    return None


@dataclass(frozen=True)
class Stop:
    """One thing that somebody has stopped."""

    scope: Scope
    mode: str
    by: str
    at: str
    reason: str

    def words(self, site: str, what: str = "") -> str:
        """``convert is paused since ... by ...: reason``; ``what`` names it otherwise than its scope does."""
        subject = what or self.scope.words(site)
        return f"{subject} is {'drained' if self.mode == DRAIN else 'paused'} {_who(self.by, self.at, self.reason)}"

    def to_json(self) -> dict[str, str]:
        return {"scope": self.scope.key, "mode": self.mode, "by": self.by, "at": self.at, "reason": self.reason}


@dataclass(frozen=True)
class Limit:
    """One limit of a farm that somebody has changed."""

    farm: str
    name: str
    value: float
    by: str
    at: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class Control:
    """A site's control document, read once and asked often."""

    site: str = ""
    stops: tuple[Stop, ...] = ()
    limits: tuple[Limit, ...] = ()
    history: tuple[dict[str, Any], ...] = field(default=(), compare=False)

    @classmethod
    def read(cls, site: str, document: Mapping[str, Any] | None) -> Control:
        """What the document says; nothing is stopped where there is none."""
        found = document or {}
        stops = []
        for key, entry in _items(found.get("stops")):
            scope = scope_of(key)
            if scope is not None:
                mode = DRAIN if entry.get("mode") == DRAIN else PAUSE
                stops.append(Stop(scope, mode, *_signature(entry)))
        limits = [
            Limit(farm, name, entry["value"], *_signature(entry))
            for farm, entries in _items(found.get("limits"))
            for name, entry in _items(entries)
            if name in Limits.model_fields and _fits(name, entry.get("value"))
        ]
        history = found.get("history")
        said = [entry for entry in history if isinstance(entry, dict)] if isinstance(history, list) else []
        return cls(site, tuple(stops), tuple(limits), tuple(said))

    def stops_of(self, step: str, farm: str | None) -> tuple[Stop, ...]:
        """What stands in the way of a step, by its name and that of the farm it is sent to; drains first."""
        wanted = {"site", f"step:{step}", *([f"farm:{farm}"] if farm else [])}
        found = [stop for stop in self.stops if stop.scope.key in wanted]
        return tuple(sorted(found, key=lambda stop: stop.mode != DRAIN))

    def may_start(self, step: str, farm: str | None = None) -> bool:
        """Whether a step may begin."""
        return not self.stops_of(step, farm)

    def drained(self, step: str, farm: str | None) -> str:
        """Why what waits at a farm is taken back, in words; empty where it is not."""
        found = [stop for stop in self.stops_of(step, farm) if stop.mode == DRAIN]
        return found[0].words(self.site) if found else ""

    def why_not(self, step: Step) -> str:
        """Why a step may not begin, as a sentence; empty where it may."""
        found = self.stops_of(step.name, step.farm)
        if not found:
            return ""
        stop = found[0]
        what = f"{step.key} ({step.name})"
        if stop.scope.kind == "step":
            return stop.words(self.site, what) + "."
        return f"{what} does not begin: {stop.words(self.site)}."

    def apply(self, farm: str, limits: Limits) -> Limits:
        """The limits of a farm that hold now, from those of the chain."""
        changed = {limit.name: limit.value for limit in self.limits if limit.farm == farm}
        return Limits.model_validate({**limits.model_dump(), **changed}) if changed else limits

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "site": self.site,
            "stops": [stop.to_json() for stop in self.stops],
            "limits": [limit.to_json() for limit in self.limits],
            "history": list(self.history),
        }


# --- changing a control document --------------------------------------------------------------------------------------


def stop(document: Document, scope: Scope, mode: str, by: str, reason: str, now: float) -> Document:
    """The document with something paused or drained. Paused by one and drained by another is drained; who asked last
    is named."""
    entry = {"mode": mode, **_sign(by, reason, now)}
    stops = _dict(document.get("stops"))
    return _changed({**document, "stops": {**stops, scope.key: entry}}, f"{mode} {scope.key}", entry)


def resume(document: Document, scope: Scope | None, by: str, reason: str, now: float) -> Document:
    """The document with something, or everything (None), let go on."""
    stops = _dict(document.get("stops"))
    gone = list(stops) if scope is None else [scope.key] if scope.key in stops else []
    if not gone:
        return document
    left = {key: entry for key, entry in stops.items() if key not in gone}
    return _changed({**document, "stops": left}, f"resume {', '.join(sorted(gone))}", _sign(by, reason, now))


def limit(
    document: Document, farm: str, values: Mapping[str, float | None], by: str, reason: str, now: float
) -> Document:
    """The document with limits of a farm changed; None takes back a change. Raises SettingsError for what is none."""
    limits = _dict(document.get("limits"))
    before = _dict(limits.get(farm))
    after = dict(before)
    for name, value in values.items():
        if name not in Limits.model_fields:
            raise SettingsError(f"a farm has no limit {name!r}: its limits are {', '.join(Limits.model_fields)}")
        if value is None:
            after.pop(name, None)
        elif not _fits(name, value):
            raise SettingsError(f"{name}: {value:g} is not possible: {_range(name)}; to send nothing, pause the farm")
        else:
            after[name] = {"value": value, **_sign(by, reason, now)}
    if after == before:
        return document
    changed = {**limits, farm: after}
    if not after:
        del changed[farm]
    said = ", ".join(f"{name}={'as in the chain' if value is None else f'{value:g}'}" for name, value in values.items())
    return _changed({**document, "limits": changed}, f"limits of farm:{farm}: {said}", _sign(by, reason, now))


def empty(site: str) -> Document:
    """The control document of a site that has none yet."""
    return {"_id": name_of(site), "type": TYPE, "site": site, "stops": {}, "limits": {}, "history": []}


def _changed(document: Document, what: str, signature: Mapping[str, Any]) -> Document:
    history = document.get("history")
    entry = {"at": signature["at"], "by": signature["by"], "reason": signature["reason"], "what": what}
    kept = [*(history if isinstance(history, list) else []), entry][-HISTORY:]
    return {**document, "history": kept, "updated": signature["at"]}


def _sign(by: str, reason: str, now: float) -> dict[str, str]:
    return {"by": by, "at": iso(now), "reason": reason[:REASON_LIMIT]}


def _signature(entry: Mapping[str, Any]) -> tuple[str, str, str]:
    return str(entry.get("by") or ""), str(entry.get("at") or ""), str(entry.get("reason") or "")


def _who(by: str, at: str, reason: str) -> str:
    return f"since {at or 'nobody knows when'} by {by or 'nobody knows whom'}: {reason or 'no reason was given'}"


def _dict(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, dict) else {}


def _items(value: Any) -> list[tuple[str, dict[str, Any]]]:
    return [(key, entry) for key, entry in _dict(value).items() if isinstance(entry, dict)]


def _fits(name: str, value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < LARGEST:
        return False
    try:
        Limits.model_validate({name: value})
    except ValidationError:
        return False
    return True


def _range(name: str) -> str:
    whole = Limits.model_fields[name].annotation is int
    rules = {type(rule).__name__.lower(): rule for rule in Limits.model_fields[name].metadata}
    least = f"at least {rules['ge'].ge}" if "ge" in rules else "more than 0"
    most = f" and at most {rules['le'].le}" if "le" in rules else ""
    return f"it must be {'a whole number, ' if whole else ''}{least}{most}"
