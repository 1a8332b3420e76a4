"""Writes on their way to the database: one document's next version, and the bulk of them that travels together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from orchestrator import faults
from orchestrator.chain import Step
from orchestrator.documents import Document, Report


class Bulk(Protocol):
    """What a flight needs of a database: to each document its word, ``rev`` if saved, else ``error`` and ``reason``."""

    def bulk(self, docs: list[Document]) -> list[Any]: ...


@dataclass
class Write:
    """One document's next version, and why: a claim, a report, or a loss; possibly the next claim with it."""

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


def claims(writes: Iterable[Write]) -> Counter[str]:
    """How many of the writes claim a document for which step, by keyword."""
    found: Counter[str] = Counter()
    for write in writes:
        if write.then is not None:
            found[write.then.key] += 1
        elif write.report is None and write.lost is None:
            found[write.step.key] += 1
    return found


@dataclass(eq=False)
class Flight:
    """One bulk write. ``go`` may be called in another thread than the engine's; the engine then looks at the answer."""

    writes: list[Write]
    outcomes: list[Any] = field(default_factory=list)
    error: BaseException | None = None

    def __post_init__(self) -> None:
        self.claims = claims(self.writes)

    @property
    def records(self) -> list[Document]:
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
