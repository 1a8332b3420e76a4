"""How far everything is: counts by step and state from the database's views, for ``status`` and ``demo``."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.chain import Chain
    from orchestrator.couch import Database

STATES = ("waiting", "ready", "queued", "in progress", "done", "failed", "bad")
PENDING = ("ready", "queued", "in progress")  # what still goes on by itself; waiting follows from these


@dataclass
class Overview:
    """Counts at one moment.

    ``steps``: for each keyword (``proc0``), how many documents are in each state. ``oldest``: for each keyword, since
    when (s since 1970) the longest-waiting ready document is ready. ``statuses``: documents by status.
    """

    steps: dict[str, dict[str, int]] = field(default_factory=dict)
    oldest: dict[str, float] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)

    @property
    def documents(self) -> int:
        """All data documents."""
        return sum(self.statuses.values())

    @property
    def pending(self) -> int:
        """Steps that can run or do, and files that are still being written: 0 means nothing goes on any more."""
        running = sum(counts.get(state, 0) for counts in self.steps.values() for state in PENDING)
        return running + self.statuses.get("open", 0)

    @property
    def done(self) -> int:
        """Steps that are done."""
        return sum(counts.get("done", 0) for counts in self.steps.values())

    @property
    def failed(self) -> int:
        """Documents that ended failed or bad."""
        return self.statuses.get("failed", 0) + self.statuses.get("bad", 0)

    def to_json(self, chain: Chain) -> dict[str, Any]:
        """The same as plain data, steps in the chain's order."""
        now = time.time()
        return {
            "documents": self.documents,
            "statuses": self.statuses,
            "pending": self.pending,
            "steps": [
                {
                    "keyword": step.key,
                    "step": step.name,
                    **{state: self.steps.get(step.key, {}).get(state, 0) for state in STATES},
                    "oldest_seconds": round(now - self.oldest[step.key], 3) if step.key in self.oldest else None,
                }
                for step in chain.steps
            ],
        }


def read(database: Database, chain: Chain) -> Overview:
    """Ask the views. Raises DatabaseError, and NotFound where the couchapp has not been pushed."""
    found = Overview({step.key: {} for step in chain.steps})
    for row in database.view("pages/steps", group_level=2).rows:
        number, state = row.key
        key = f"proc{number}"
        found.steps.setdefault(key, {})[state] = int(row.value["count"])
        if state == "ready":
            found.oldest[key] = float(row.value["min"]) / 1000
    for row in database.view("pages/status", group_level=1).rows:
        found.statuses[row.key[0]] = int(row.value)
    return found
