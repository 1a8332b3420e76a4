"""Writes on their way to the database: one document's next version, and the bulk of them that travels together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from orchestrator import faults
from orchestrator.chain import Step
from orchestrator.documents import Document, Report

#: Documents in one bulk write: CouchDB's rate no longer grows beyond some hundreds, and the request stays small.
BULK = 500
#: What a database says to one document of a bulk write that it will not have, however often it is asked.
FINAL = frozenset({"forbidden", "doc_validation", "bad_request", "document_too_large", "attachment_too_large"})
#: So often a document is written again that the database cannot write for another reason (a fault of its own).
TRIES = 5


class Bulk(Protocol):
    """What a flight needs of a database: to each document its word, ``rev`` if saved, else ``error`` and ``reason``."""

    def bulk(self, docs: list[Document]) -> list[Any]: ...


class Database(Bulk, Protocol):
    """What deciding and writing need of a database (orchestrator.couch.Database has it)."""

    def get_many(self, ids: list[str]) -> dict[str, Document | None]: ...


@dataclass
class Write:
    """One document's next version, and why: a claim, a report, or a loss; possibly the next claim with it.

    ``record`` is the document of the attempt that has ended, ``then`` the step that is claimed along with its report,
    ``lost`` why the claim ends without one. ``refused``: this version stands for one that the database would not have.
    ``settled``: it is written, or never will be.
    """

    document: Document
    step: Step
    attempt: str
    report: Report | None = None
    record: Document | None = None
    then: Step | None = None
    then_attempt: str = ""
    lost: str | None = None
    tries: int = 0
    refused: bool = False
    settled: bool = False

    @property
    def name(self) -> str:
        """The document's id."""
        return str(self.document["_id"])


def claims(writes: Iterable[Write]) -> Counter[str]:
    """How many of the writes claim a document for which step, by keyword."""
    found: Counter[str] = Counter()
    for write in writes:
        if write.then is not None:
            found[write.then.key] += 1
        elif write.report is None and write.lost is None:
            found[write.step.key] += 1
    return found


@dataclass
class Answers:
    """A database's word on each write of a bulk.

    Attributes:
        saved: with the new revision.
        refused: with the reason: the database will not have them.
        failing: what it said of those that it cannot write now, and that are to be written again.
        forbidden: what it said of the first one that this account may not write at all.
    """

    saved: list[tuple[Write, str]] = field(default_factory=list)
    conflicts: list[Write] = field(default_factory=list)
    refused: list[tuple[Write, str]] = field(default_factory=list)
    failing: list[Any] = field(default_factory=list)
    forbidden: Any = None


@dataclass(eq=False)
class Flight:
    """One bulk write. ``go`` may be called in another thread than the engine's; the engine then looks at the answer."""

    writes: list[Write]
    outcomes: list[Any] = field(default_factory=list)
    error: BaseException | None = None

    def __post_init__(self) -> None:
        self.claims = claims(self.writes)
        #: The documents that are written.
        self.names = [write.name for write in self.writes]

    @property
    def records(self) -> list[Document]:
        """The attempts' own documents that go with it."""
        return [write.record for write in self.writes if write.record is not None]

    def go(self, database: Bulk) -> Flight:
        """Write, and keep the database's answer or what was raised. Raises nothing."""
        try:
            faults.point("engine.writing")
            # An attempt's own document goes first: its id is deterministic, so writing it again harms nothing, and a
            # crash in between leaves a document that is still held and a record that will be written again.
            self.outcomes = database.bulk([*self.records, *(write.document for write in self.writes)])
            faults.point("engine.written")
        except BaseException as error:
            self.error = error
        return self

    def lost_records(self) -> list[tuple[str, str]]:
        """The attempts' own documents that the database would not have, with the reason."""
        records = self.records
        pairs = zip(records, self.outcomes, strict=False)
        # A conflict is none: that one has been written already.
        return [(r["_id"], o.reason) for r, o in pairs if getattr(o, "error", "conflict") != "conflict"]

    def answers(self) -> Answers:
        """What the database said of each write; to be asked once, for it counts how often one was tried."""
        found = Answers()
        for write, outcome in zip(self.writes, self.outcomes[len(self.records) :], strict=True):
            rev = getattr(outcome, "rev", None)
            if rev is not None:
                found.saved.append((write, rev))
            elif outcome.error == "conflict":
                found.conflicts.append(write)
            elif outcome.error == "unauthorized":
                found.forbidden = found.forbidden or outcome
            elif outcome.error in FINAL or write.tries >= TRIES:
                found.refused.append((write, f"{outcome.error}: {outcome.reason}"))
            else:
                write.tries += 1
                found.failing.append(outcome)
        return found
