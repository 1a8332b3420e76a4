"""Why a document waits for a gather, or for daemons that are not there: parts of `orchestrator.explain`. Pure.

Each answer is a cause, a sentence, and what to do next.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.chain import Gather, Step
from orchestrator.documents import iso, seconds_of
from orchestrator.gathering import IDENTITY, Group
from orchestrator.lanes import Branch
from orchestrator.takers import quiet_of

if TYPE_CHECKING:
    from orchestrator.explain import Facts

#: A daemon's clock and ours may differ by so much (s) when it is told whether a word is later than a heartbeat.
SKEW = 2.0

Answer = tuple[str, str, tuple[str, ...]]


def daemon_of(step: Step, branch: Branch) -> str:
    """The daemon that serves a step, as it signs its last words (`orchestrator.lastwords`)."""
    if step.executor == "farm":
        return f"farm:{step.farm}"
    return "gather" if step.executor == "gather" else f"poll:{branch.name}"


def nobody(step: Step, branch: Branch, facts: Facts, heard: float) -> Answer | None:
    """The deeper reason why those who serve a step are silent, where one is known; ``heard``: when they last were."""
    if facts.writes:
        words = f"The database takes no writes, so nobody can claim anything, or beat: {facts.writes}"
        return "database", words, ("mend the database (its disk, its log); all goes on by itself then",)
    if step.site != facts.site:
        return None
    name = daemon_of(step, branch)
    for said in facts.words:
        at = seconds_of(said.get("at"))
        if said.get("daemon") == name and at is not None and at + SKEW >= heard:
            words = f"The daemon that serves it here has ended by itself at {said.get('at')}: {said.get('reason')}"
            return "daemon-ended", words, ("mend that, then start it again: orchestrator up",)
    return None


def gather(name: str, wanted: Gather, step: Step, facts: Facts, document: Mapping[str, Any]) -> Answer:
    """Why a step that a gather does for many documents has not begun for this one."""
    head = f"{step.key} ({step.name}) is done for many documents at once, by the gather {name}"
    beats = {key: beat for key, beat in facts.beats.items() if _serves(key, beat, name, wanted.site)}
    if not beats and wanted.site != facts.site:
        then = f"ask at site {wanted.site}, and look whether its database gets what is in ours"
        return "other-site", f"{head}, which site {wanted.site!r} runs; it is not seen in this database.", (then,)
    start = f"at site {wanted.site}: orchestrator up, or orchestrator gather"
    if not beats:
        return "no-poller", f"{head}, and nobody who gathers has been heard of.", (start,)
    quiet = min(quiet_of(beat, facts) for beat in beats.values())
    if quiet > max(facts.lease, 2 * wanted.every):
        return "poller-silent", f"{head}; who gathers has been silent for {quiet:.0f} s.", (start,)
    why = _group(wanted, facts.group, facts.now, document)
    for beat in beats.values():
        said = beat.get("waiting")
        told = said.get(name) if isinstance(said, dict) else None
        for label, reason in told.items() if isinstance(told, dict) and not why else ():
            if label in ("", str(document.get("run_name"))) or str(label).startswith(_period(wanted, document) or "?"):
                why = str(reason)
    if why:
        return "gather", f"{head}, and not yet: {why}.", ("wait; the page of the gather shows what it waits for",)
    return "soon", f"{head}, which looks every {wanted.every:.0f} s.", ()


def _serves(identity: str, beat: Mapping[str, Any], name: str, site: str) -> bool:
    gathers = beat.get("gathers")
    return identity.startswith(f"{IDENTITY}{site}:") and isinstance(gathers, list) and name in gathers


def _period(wanted: Gather, document: Mapping[str, Any]) -> str:
    letters = {"": 0, "year": 4, "month": 7, "day": 10}[wanted.period]
    return str(document.get("registered") or "")[:letters]


def period_of(wanted: Gather, document: Mapping[str, Any]) -> str:
    """The period that a member belongs to, as the gather's views have it."""
    return _period(wanted, document)


def _group(wanted: Gather, group: Group | None, now: float, document: Mapping[str, Any]) -> str:
    """What keeps the document's group from being gathered; empty where nothing does."""
    if group is None:
        return ""
    if not group.whole:
        return f"{group.count - group.ready} of the {group.count} documents of run {group.run} are not ready"
    period = _period(wanted, document)
    small = wanted.own is None or group.size < wanted.own
    if period and small and iso(now)[: len(period)] <= period:
        return f"the {wanted.period} {period} is not over"
    return ""


def refusal(beat: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    """Why the database has refused of late what a daemon wrote for this document; empty where it has not."""
    said = beat.get("refused")
    found = said.get(str(document.get("_id"))) if isinstance(said, dict) else None
    return "" if found is None else str(found)


def full(beat: Mapping[str, Any]) -> str:
    """How the farm's limits are reached, in words, from what its daemon says; empty where they are not."""
    room, limits = beat.get("room"), beat.get("limits")
    states = beat.get("states")
    jobs = len(states) if isinstance(states, dict) else 0
    if isinstance(room, int) and not isinstance(room, bool) and room <= 0:
        said = f", {limits}" if isinstance(limits, dict) else ""
        return f"{jobs} jobs are there{said}"
    return ""
