"""Conflicts found and settled: the view of documents with several versions, and the writes that make one of them.

What is decided is in ``orchestrator.conflicts``. The writes are revisions made elsewhere (``new_edits=false``), so the
account needs the role ``replicator``, or to be an admin's. Nothing is overwritten by them: whoever changes a version at
the same moment only makes another conflict, which the next round settles.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from orchestrator import conflicts, faults
from orchestrator.chain import Chain
from orchestrator.conflicts import Merge, Version, Wait
from orchestrator.couch import Database, Refusal
from orchestrator.engine.pages import pages
from orchestrator.errors import NotFound

VIEW = "conflicts/open"
PAGE = 300  # conflicts read and written at a time

MERGED, WAITS, PERSON, REFUSED = "merged", "waits", "person", "refused"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What became of one conflict: ``merged``, ``waits``, for a ``person``, or ``refused`` by the database.

    ``versions`` are (revision, status), the one that readers see first.
    """

    document: str
    type: str
    kind: str
    reason: str
    versions: tuple[tuple[str, str], ...]

    def as_json(self) -> dict[str, Any]:
        """For programs, and for the page."""
        return {
            "document": self.document, "type": self.type, "kind": self.kind, "reason": self.reason,
            "versions": [{"rev": rev, "status": status} for rev, status in self.versions],
        }  # fmt: skip


Known = dict[str, tuple[list[str], Outcome]]


def settle(database: Database, chain: Chain, *, write: bool = True, known: Known | None = None) -> list[Outcome]:
    """Look at every conflict and, with ``write``, settle those that a rule decides.

    Args:
        chain: it says which types of documents have which lanes.
        known: what an earlier round has left undecided, by document; kept up to date here. Such a document is read
            again only when a version of it has changed.

    Raises:
        NotFound: the couchapp has not been pushed.
        DatabaseError: the database is away, or refuses the account.
    """
    types = conflicts.types_of(chain)
    outcomes: list[Outcome] = []
    before = known if known is not None else {}
    undecided: Known = {}
    for rows in pages(database, VIEW, PAGE):
        asked = {str(row.id): list(row.value) for row in rows}
        for name, revs in list(asked.items()):
            if name in before and before[name][0] == revs:
                undecided[name] = before[name]
                del asked[name]
        found = versions(database, asked) if asked else {}
        writes: list[dict[str, Any]] = []
        merged: dict[str, Outcome] = {}
        for name, leaves in found.items():
            if len(leaves) < 2:
                continue  # settled between the two questions
            decision = conflicts.decide(name, leaves, types)
            shown = tuple((leaf.rev, str(leaf.body.get("status", ""))) for leaf in leaves)
            kind = str(leaves[0].body.get("type", ""))
            if isinstance(decision, Merge):
                merged[name] = Outcome(name, kind, MERGED, "put together by rule", shown)
                writes += decision.writes
            else:
                what = WAITS if isinstance(decision, Wait) else PERSON
                undecided[name] = (asked[name], Outcome(name, kind, what, decision.reason, shown))
        refused: dict[str, str] = {}
        if write and writes:
            faults.point("settle.decided")
            refused = bring(database, writes)
            faults.point("settle.written")
        for name, outcome in merged.items():
            if name in refused:
                outcome = Outcome(name, outcome.type, REFUSED, refused[name], outcome.versions)
                log.warning("document %s: its merged version is refused: %s", name, refused[name])
            outcomes.append(outcome)
    if known is not None:
        known.clear()
        known.update(undecided)
    return [*(outcome for _, outcome in undecided.values()), *outcomes]


def count(database: Database) -> int:
    """How many documents have several versions. Raises NotFound if the couchapp has not been pushed."""
    return int(next((row.value for row in database.view(VIEW, reduce=True)), 0))


def versions(database: Database, asked: dict[str, list[str]]) -> dict[str, list[Version]]:
    """The leaves of documents with their histories, as they are asked for; those that are gone are left out."""
    listed = [{"id": name, "rev": rev} for name, revs in asked.items() for rev in revs]
    answer = database.connection.json(
        "POST", (database.name, "_bulk_get"), params={"revs": "true"}, body={"docs": listed},
        subject=database.subject, safe=True,
    )  # fmt: skip
    found: dict[str, list[Version]] = {name: [] for name in asked}
    for result in answer["results"]:
        for one in result["docs"]:
            document = one.get("ok")
            if document is not None and not document.get("_deleted"):
                found[document["_id"]].append(conflicts.version_of(document))
    return found


def bring(database: Database, documents: list[dict[str, Any]]) -> dict[str, str]:
    """Store revisions as they are; what was refused: id to reason."""
    answer = database.connection.json(
        "POST", (database.name, "_bulk_docs"), body={"docs": documents, "new_edits": False},
        subject=database.subject, safe=True,
    )  # fmt: skip
    return {str(row.get("id")): str(row.get("reason", "")) for row in answer if "error" in row}


def take(database: Database, document: str, rev: str, by: str, now: str, why: str) -> list[str]:
    """Keep one version of a document and delete the others; what was deleted.

    The deletions say who chose, when and why: the versions' contents can be read under their revisions until the
    database is compacted.

    Raises:
        NotFound: there is no such document, or no such version of it.
        Conflict: a version has changed meanwhile.
    """
    found = database.get(document, conflicts=True)
    revs = [str(found["_rev"]), *found.get("_conflicts", [])]
    if rev not in revs:
        raise NotFound(f"document {document!r} has no version {rev}: it has {', '.join(revs)}")
    others = [one for one in revs if one != rev]
    chosen = {"by": by, "at": now, "why": why, "took": rev}
    results = database.bulk([{"_id": document, "_rev": one, "_deleted": True, "resolved": chosen} for one in others])
    for result in results:
        if isinstance(result, Refusal):
            raise database.refusal_error(result)
    return others
