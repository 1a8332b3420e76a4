"""What an engine has decided and, for all that is known, is not in the database: waiting, or on its way.

A document is in one bulk at a time: what it is to become next is decided when that is written. What the feed shows of
it meanwhile is kept until then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from orchestrator.documents import Document
from orchestrator.engine.flight import BULK, Flight, Write, claims


class Outbox:
    """Writes that wait, in order, and the bulks of them that are being written. Its length is that of those waiting."""

    def __init__(self) -> None:
        self.waiting: list[Write] = []
        self.flying: list[Flight] = []
        self._aloft: set[str] = set()
        self._shown: dict[str, Document] = {}

    def __len__(self) -> int:
        return len(self.waiting)

    def put(self, write: Write) -> None:
        """It goes with the next bulk that has room."""
        self.waiting.append(write)

    def unwritten(self) -> Iterator[Write]:
        """Every write that may not be in the database yet."""
        for flight in self.flying:
            yield from flight.writes
        yield from self.waiting

    def claims(self) -> Counter[str]:
        """How many of them claim a document for which step, by keyword."""
        return sum((flight.claims for flight in self.flying), claims(self.waiting))

    def depart(self) -> Flight:
        """A bulk of what waits, to ``go`` and to be ``landed`` after that."""
        flight = Flight(self.waiting[:BULK])
        del self.waiting[:BULK]
        self.flying.append(flight)
        self._aloft.update(flight.names)
        return flight

    def landed(self, flight: Flight) -> None:
        """The database has answered."""
        self.flying.remove(flight)
        self._aloft.difference_update(flight.names)

    def put_back(self, flight: Flight) -> None:
        """What is not settled of a flight waits again, before all others."""
        self.waiting[:0] = [write for write in flight.writes if not write.settled]

    def sees(self, document: Document) -> bool:
        """Keep what the feed shows of a document that is being written; whether it is."""
        if not self._aloft or document["_id"] not in self._aloft:
            return False
        self._shown[str(document["_id"])] = document
        return True

    def shown(self, flight: Flight) -> list[Document]:
        """What was kept of a flight's documents, given out once."""
        if not self._shown:
            return []
        return [shown for name in flight.names if (shown := self._shown.pop(name, None)) is not None]
