"""What a living poller says of itself in the database, where anybody can see whether it still beats.

The document is ``_local/poller:<id>``: never replicated, no revision kept, so it can be written every few seconds for
years. Who watches compares the *counter* and uses a clock of his own: hosts need not agree on the time. For who looks
once, ``at`` is the time by the daemon's own clock and ``behind`` by how much (s) that is behind the database's.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Protocol

from orchestrator.documents import Claimant, iso

PREFIX = "poller:"


class LocalDocuments(Protocol):
    """What a heartbeat needs of a database."""

    def get_local(self, id: str) -> dict[str, Any] | None: ...

    def put_local(self, id: str, doc: dict[str, Any]) -> Any: ...

    def delete_local(self, id: str) -> None: ...

    def local_docs(self, startkey: str, endkey: str) -> list[dict[str, Any]]: ...


@dataclass
class Heartbeat:
    """The poller's own heartbeat document."""

    database: LocalDocuments
    claimant: Claimant
    steps: list[str]
    started: float
    workers: int
    beat: int = 0

    def write(self, now: float, **facts: Any) -> None:
        """Beat once, with facts for people (what runs, what has been done). Raises what the database raises."""
        self.beat += 1
        document = {
            "id": self.claimant.poller,
            "host": self.claimant.host,
            "pid": self.claimant.pid,
            "site": self.claimant.site,
            "steps": self.steps,
            "workers": self.workers,
            "started": iso(self.started),
            "at": iso(now),
            "behind": clock_of(self.database),
            "beat": self.beat,
            "load": round(os.getloadavg()[0], 2),
            **facts,
        }
        self.database.put_local(PREFIX + self.claimant.poller, document)

    def stop(self) -> None:
        """The poller has ended by itself and has nothing in its hands: it leaves the list."""
        self.database.delete_local(PREFIX + self.claimant.poller)


def clock_of(database: Any) -> float | None:
    """By how much (s) this machine's clock is behind the database's, as far as its last answer told; else None."""
    connection = getattr(database, "connection", None)
    found = getattr(connection, "behind", None)
    return None if found is None else round(float(found), 1)


def beats(database: LocalDocuments) -> dict[str, dict[str, Any]]:
    """The last heartbeat of every poller that ever ran on this database, by poller id."""
    found = database.local_docs(PREFIX, PREFIX + "\uffff")
    return {str(document.get("id")): document for document in found}
