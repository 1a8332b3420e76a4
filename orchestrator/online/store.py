"""Where a run's spills are kept between workers and reducers: what every store can do.

A store belongs to one run and is dropped whole once the run's snapshot is safe. Spills have deterministic ids, so a
spill that is put twice is there once, and the first one stays. ``orchestrator.online.stores`` has one in memory and one
in the database; one suite of tests runs against both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from orchestrator.online.spill import Spill

#: States of a run, in order.
STATES = ("begun", "ended", "final")


@dataclass(slots=True)
class Outcome:
    """What became of one spill: ``packed`` (see ``orchestrator.online.packing``) or, failed, ``error`` with its trace.

    ``shown`` False: a map module has left it out of the plots. A failed one keeps what it was made of in ``packed``
    where that is known.
    """

    number: int
    packed: bytes | None = None
    error: str = ""
    module: str = ""
    shown: bool = True
    worker: str = ""
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether it failed."""
        return bool(self.error)


@dataclass
class RunRecord:
    """What is known of a run. ``state``: ``begun``, ``ended`` (all its spills are in) or ``final`` (snapshot safe)."""

    run: str
    state: str = "begun"
    begun: str = ""
    ended: str = ""
    snapshot: str = ""  # when it was safe: from here on the run's spills may be removed
    quality: str = "none"  # of its worst plot, once it is final (one of plot.QUALITIES)
    verdicts: dict[str, str] = field(default_factory=dict)  # and of each plot that was compared, by its name
    how: str = ""  # it ended: by trailer, next run, time-out, end of input
    spills: int | None = None  # in all; known at its end
    done: int = 0
    failed: int = 0
    header: dict[str, Any] = field(default_factory=dict)
    configuration: dict[str, Any] = field(default_factory=dict)  # module list, versions, hash
    position: Any = None  # of the input: everything up to it is stored
    opened: int = 1  # how often it has begun: a spill that comes after its end begins it once more


def kept_final(record: RunRecord, known: RunRecord | None) -> RunRecord:
    """``record`` as it may be written over ``known``: a run that is final stays so unless it begins once more, and one
    that has begun once more is not made final by who has seen its earlier life only."""
    if known is not None and record.state == "final" and record.opened < known.opened:
        return known
    if known is None or known.state != "final" or record.state == "final" or record.opened > known.opened:
        return record
    return replace(
        record, state="final", snapshot=known.snapshot, quality=known.quality, verdicts=known.verdicts
    )


@dataclass(frozen=True)
class Arrivals:
    """Some spills that have come, in the order of their coming, and the mark after which to go on."""

    mark: str
    outcomes: tuple[Outcome, ...] = ()
    record: RunRecord | None = None  # where it has changed


class Store(Protocol):
    """The spills of one run. Every method raises DatabaseError (Unavailable where trying again helps)."""

    run: str

    def record(self) -> RunRecord | None:
        """What is known of the run; None before ``begin``."""

    def save(self, record: RunRecord) -> None:
        """Write what is known of the run; making the store first where it is not there. A final run stays final."""

    def put(self, outcomes: Iterable[Outcome]) -> int:
        """Keep outcomes, durably, in few round trips. Returns how many were new; for others the first one stays."""

    def numbers(self) -> dict[int, bool]:
        """The numbers of all spills that are in, with whether they failed."""

    def follow(
        self, mark: str | None, *, wait: Callable[[float], bool], most: int = 500
    ) -> Iterator[Arrivals]:
        """Outcomes from ``mark`` on (None: from the first), with their packed data, then new ones as they come.

        Each comes at least once, at most ``most`` at a time; with nothing new an empty Arrivals comes now and then. It
        ends when ``wait(seconds)``, called for each pause, says True. An outage is waited for. Order is the store's:
        a record that says ``ended`` may come before the last spills, so count what has come against its counts.
        """

    def spill(self, number: int) -> Spill | None:
        """One spill, unpacked; None where it is not in or failed without data."""

    def drop(self) -> None:
        """Remove all of it."""


class Stores(Protocol):
    """All runs' stores of one site."""

    def of(self, run: str) -> Store:
        """The store of a run, whether there or not."""

    def runs(self) -> list[RunRecord]:
        """Every run that has a store, the newest last."""
