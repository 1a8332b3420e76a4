"""A run while the transform works on it: its state, its counts that close, and how it ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from orchestrator.online.numbers import Numbers
from orchestrator.online.spill import EndOfRun


@dataclass
class Run:
    """A run that is being worked on. ``serial``: which one of this process, so that a run begun anew is another."""

    name: str
    serial: int
    state: str = "opening"
    header: dict[str, Any] = field(default_factory=dict)
    known: Numbers = field(default_factory=Numbers)
    read: int = 0
    done: int = 0
    failed: int = 0
    again: int = 0  # spills that came a second time and were left alone
    keeping: dict[int, tuple[int, bool]] = field(default_factory=dict)  # number: order, whether it failed
    first: int | None = None  # the order of the item that opened it, if that was a start of run
    end: EndOfRun | None = None
    last: int | None = None  # the order of the item that ended it
    begun: str = ""  # as in its record, once that is known: with its name it tells the run from an older one
    opened: int = 0

    @property
    def pending(self) -> int:
        """Read, and neither done nor failed in the store."""
        return self.read - self.done - self.failed

    @property
    def counts(self) -> dict[str, int]:
        """The counts that close: read = done + failed + pending."""
        return {"read": self.read, "done": self.done, "failed": self.failed, "pending": self.pending}
