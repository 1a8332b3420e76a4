"""The attempts that a farm has or is to get: read from the database, and kept as their documents show them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from orchestrator.chain import Chain
from orchestrator.documents import Document
from orchestrator.engine import verdicts, versions
from orchestrator.engine.pages import pages
from orchestrator.engine.verdicts import AtFarm
from orchestrator.errors import NotFound

log = logging.getLogger(__name__)

#: Rows of a view that are read in one request.
PAGE = 2000


class Holdings(dict[str, AtFarm]):
    """By the attempts' ids. Use from one thread."""

    def __init__(self, chain: Chain, database: Any, identity: str) -> None:
        """Those of the farm's daemon ``identity``; none before ``load``."""
        self._chain, self._database, self._identity = chain, database, identity

    def load(self) -> None:
        """Read them all anew. Raises what the database raises, with nothing changed."""
        found: dict[str, AtFarm] = {}
        for ids in self._claimed():
            for document in self._database.get_many(ids).values() if ids else ():
                found |= self._by_attempt(document)
        for attempt, at in self._behind().items():
            found.setdefault(attempt, at)
        self.clear()
        self.update(found)

    def _claimed(self) -> Iterator[list[str]]:
        """The ids of documents whose seen version says that the farm has them, a page at a time."""
        for view in ("work/inqueue", "work/inprogress"):
            for rows in pages(self._database, view, PAGE):
                yield [row.id for row in rows if (row.value or {}).get("poller") == self._identity]

    def _behind(self) -> dict[str, AtFarm]:
        """What the farm has of documents whose seen version is another site's."""
        try:
            rows = list(self._database.view("conflicts/open", reduce=False))
        except NotFound:  # a couchapp of before: there are no such documents known
            return {}
        found: dict[str, AtFarm] = {}
        for document in self._database.get_many([str(row.id) for row in rows]).values() if rows else ():
            found |= self._by_attempt(document)
        return found

    def _by_attempt(self, document: Document | None) -> dict[str, AtFarm]:
        """The attempt of ours that holds a document, or the version of it that is ours; nothing where none does."""
        at = self._at(self.version(document)) if document is not None else None
        return {at.attempt: at} if at is not None else {}

    def _at(self, document: Document) -> AtFarm | None:
        return verdicts.at_farm(self._chain, document, self._identity)

    def version(self, document: Document) -> Document:
        """Of a document in conflict the version that is ours; else the document."""
        return versions.of_poller(self._database, document, self._identity)

    # --- as documents change ---

    def take(self, documents: Iterable[Document]) -> None:
        """These have been intended for the farm."""
        for document in documents:
            at = self._at(document)
            if at is not None:
                self[at.attempt] = at

    def refresh(self, documents: Iterable[Document]) -> None:
        """These have been written: who is here still is as they say."""
        for document in documents:
            at = self._at(document)
            if at is not None and at.attempt in self:
                self[at.attempt] = at

    def note(self, *changed: Document) -> None:
        """Take in that documents were changed: a person may have cancelled the farm's attempt, or taken one away."""
        ours = {at.document: at for at in self.values()}
        for document in changed:
            known, at = ours.get(str(document["_id"])), self._at(document)
            if at is not None and at.attempt in self:
                self[at.attempt] = at
            elif known is not None and (why := verdicts.taken_away(document, known)):
                log.info("%s is %s: its job is not wanted any more", known.document, why)
                known.cancelled = why

    # --- as jobs ---

    def jobs(self) -> set[str]:
        """The names of the jobs that they belong to."""
        return {at.job for at in self.values()}

    def tasks(self) -> dict[tuple[str, int], bool]:
        """The tasks of jobs that they belong to, and whether anything of these has begun."""
        found: dict[tuple[str, int], bool] = {}
        for at in self.values():
            found[at.job, at.task] = found.get((at.job, at.task), False) or at.begun
        return found

    def pending(self) -> dict[str, list[AtFarm]]:
        """Intended jobs whose number is not known, with what they are to do."""
        found: dict[str, list[AtFarm]] = {}
        for at in self.values():
            if not at.number:
                found.setdefault(at.job, []).append(at)
        return found
