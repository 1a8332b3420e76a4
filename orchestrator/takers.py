"""Who would do a step: the daemons that say of themselves that they serve it, and whether they live.

A heartbeat carries the time of its daemon's own clock, and by how much the database's clock is ahead of that one. Who
reads it knows the same of his own, so both times are compared by the database's clock: hosts need not agree. Where one
of the two does not know it (the database does not say what time it is), the clocks themselves are compared. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

from orchestrator import batchjobs, documents
from orchestrator.chain import Step
from orchestrator.documents import seconds_of

if TYPE_CHECKING:
    from orchestrator.explain import Facts

#: Clocks that differ by less (s) are not worth a word: the database tells its own to a second.
NOTABLE = 10.0


@dataclass(frozen=True)
class Taker:
    """One daemon that serves a step: ``quiet`` since its last heartbeat (s), ``held`` attempts in its hands.

    ``ahead``: by how much its clock is ahead of ours (s), 0 where that is not known.
    """

    id: str
    host: str
    alive: bool
    quiet: float
    held: int
    backlog: int
    workers: int
    draining: bool
    ahead: float = 0.0

    def words(self) -> str:
        """For people."""
        state = "draining" if self.alive and self.draining else "alive" if self.alive else "silent"
        clock = ""
        if abs(self.ahead) >= NOTABLE:
            clock = f"; its clock is {span(abs(self.ahead))} {'ahead of' if self.ahead > 0 else 'behind'} ours"
        what = f"{self.held} in hand, {self.backlog} waiting{clock}"
        return f"{self.id} on {self.host}: {state} (heard {span(self.quiet)} ago), {what}"


def takers(step: Step, facts: Facts) -> list[Taker]:
    """The daemons that say of themselves that they serve the step, the living first."""
    found = []
    for name, beat in facts.beats.items():
        served = beat.get("steps")
        if beat.get("site") != step.site or not isinstance(served, list) or step.key not in served:
            continue
        if str(beat.get("branch") or "") != facts.branch:
            continue
        if (step.executor == "farm") != name.startswith(batchjobs.IDENTITY):
            continue
        found.append(taker(name, beat, facts))
    return sorted(found, key=lambda one: (not one.alive, one.quiet, one.id))


def taker(name: str, beat: Mapping[str, Any], facts: Facts) -> Taker:
    """One daemon, from its heartbeat."""
    lease = beat.get("lease")
    patience = float(lease) if _figure(lease) and lease > 0 else facts.lease
    quiet = quiet_of(beat, facts)
    held, backlog, workers = (documents.count(beat.get(key), 0) for key in ("held", "backlog", "workers"))
    draining, ahead = beat.get("draining") is True, ahead_of_us(beat, facts)
    return Taker(name, str(beat.get("host")), quiet < patience, quiet, held, backlog, workers, draining, ahead)


def quiet_of(beat: Mapping[str, Any], facts: Facts) -> float:
    """How long ago (s) a daemon was last heard of."""
    return max(0.0, facts.now + ahead_of_us(beat, facts) - (seconds_of(beat.get("at")) or 0.0))


def ahead_of_us(beat: Mapping[str, Any], facts: Facts) -> float:
    """By how much (s) a daemon's clock is ahead of ours; 0 where that is not known."""
    theirs = beat.get("behind")
    if facts.behind is None or not _figure(theirs):
        return 0.0
    return facts.behind - float(theirs)


def span(seconds: float) -> str:
    """A time for people."""
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 3600:.1f} h"


def _figure(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
