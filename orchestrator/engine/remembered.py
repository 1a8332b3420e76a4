"""What an engine remembers of its writes: the versions that it wrote last, and those that the database would not have.

By the first it knows its own echo in the feed, which may come late and show an older version than it wrote; by the
second it does not ask for a refused claim in a circle.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, TypeVar

from orchestrator.documents import Document
from orchestrator.engine.versions import generation

#: Documents that are remembered of each kind, those of last: the feed is never so far behind.
REMEMBERED = 20_000
#: A refused claim is not asked for again for so long (s), unless the document changes: the guard may be mended.
REFUSED_FOR = 300.0
#: Refused documents that are told of one by one.
TOLD = 20

Kept = TypeVar("Kept")


class Remembered:
    """By the documents' names. Times in s since 1970."""

    def __init__(self) -> None:
        self._written: OrderedDict[str, int] = OrderedDict()
        self._refused: OrderedDict[str, tuple[Any, float, str]] = OrderedDict()

    def written(self, document: Document) -> None:
        """This version is in the database."""
        _keep(self._written, str(document["_id"]), generation(document))

    def is_older(self, document: Document) -> bool:
        """Whether somebody shows a version of before our last write."""
        return generation(document) < self._written.get(str(document["_id"]), 0)

    def is_newer(self, document: Document) -> bool:
        """Whether somebody shows a version that was made since our last write."""
        return generation(document) > self._written.get(str(document["_id"]), 0)

    def refused(self, document: Document, now: float, why: str = "") -> None:
        """The database would not have what was made of this version."""
        _keep(self._refused, str(document["_id"]), (document.get("_rev"), now + REFUSED_FOR, why))

    def refusals(self, now: float) -> dict[str, str]:
        """Why the database has refused what was made of documents of late: the last TOLD of them, by name."""
        told: dict[str, str] = {}
        for name in reversed(self._refused):
            _, until, why = self._refused[name]
            if not until - REFUSED_FOR <= now < until or len(told) == TOLD:
                break
            told[name] = why
        return told

    def is_refused(self, document: Document, now: float) -> bool:
        """Whether what can be made of this version has been refused a short while ago."""
        known = self._refused.get(str(document["_id"]))
        if known is None:
            return False
        rev, until, _ = known
        # A clock that was put back must not make it wait for longer.
        return rev is not None and rev == document.get("_rev") and until - REFUSED_FOR <= now < until


def _keep(kept: OrderedDict[str, Kept], name: str, value: Kept) -> None:
    kept[name] = value
    kept.move_to_end(name)
    while len(kept) > REMEMBERED:
        kept.popitem(last=False)
