"""The marks of runs and the numbers of spills for inputs whose data say to which run they belong. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.online.spill import MOST_SPILLS, EndOfRun, StartOfRun


@dataclass
class Marks:
    """Where an input stands in its runs. ``last``: the highest number that a spill of the run has."""

    run: str | None = None
    open: bool = False
    last: int = -1

    def begin(self, run: str, time: float | None = None, header: dict[str, Any] | None = None) -> Iterator[Any]:
        """What follows belongs to this run."""
        if self.open and run != self.run:
            yield self._end("next run", time, None)
        if not self.open:
            if run != self.run:
                self.run, self.last = run, -1
            self.open = True
            yield StartOfRun(run, time, header or {})

    def number(self, wanted: Any = None) -> int:
        """The next spill's number: the one that is wanted, where it can be one and was not used; else the next."""
        fits = isinstance(wanted, int) and not isinstance(wanted, bool) and self.last < wanted < MOST_SPILLS
        self.last = wanted if fits else self.last + 1
        return self.last

    def end(self, how: str, time: float | None = None, trailer: dict[str, Any] | None = None) -> Iterator[EndOfRun]:
        """The run has ended, if it was not known already."""
        if self.open:
            yield self._end(how, time, trailer)

    def state(self) -> dict[str, Any]:
        """What a position needs of it."""
        return asdict(self)

    @classmethod
    def restored(cls, state: Any) -> Marks | None:
        """From a position; None where it is none."""
        try:
            run = state["run"]
            return cls(None if run is None else str(run), bool(state["open"]), int(state["last"]))
        except (KeyError, TypeError, ValueError):
            return None

    def _end(self, how: str, time: float | None, trailer: dict[str, Any] | None) -> EndOfRun:
        self.open = False
        return EndOfRun(str(self.run), how, time, None, trailer or {})
