"""Writing decisions about documents in bulk, each made on the document as it is now.

For the farm, whose decisions come seconds apart and hold for whatever version of the document is there when they are
written: the documents are read, decided on and written with the revision that was read; who changes one in between
makes us read and decide again. Nothing is kept in memory, so a write whose answer is lost is simply decided again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from orchestrator.documents import Document
from orchestrator.engine import untrue
from orchestrator.engine.flight import BULK, FINAL, Database
from orchestrator.errors import IllegalTransition, Unauthorised, Unavailable

log = logging.getLogger(__name__)

#: So often a document is read and decided on again that somebody else keeps changing.
TRIES = 5


@dataclass(frozen=True)
class Change:
    """A document's next version, with the document of the attempt that ended, if one did."""

    document: Document
    record: Document | None = None


Decide = Callable[[Document], Change | None]


def edit(
    database: Database,
    decisions: dict[str, Decide],
    refused: Callable[[str, str], None] | None = None,
    *,
    pick: Callable[[Document], Document] = lambda document: document,
) -> dict[str, Document]:
    """Decide on documents and write them; those that were written, by id, as they are now.

    ``decisions`` makes each document's next version, or says None where nothing is to be done (any more). ``refused``
    is told of documents that the database will not have, with its reason. ``pick`` chooses among the versions of a
    document in conflict, given the one that is seen.

    Raises:
        Unavailable, Unauthorised: some may have been written, some not; deciding again later harms nothing.
    """
    saved: dict[str, Document] = {}
    waiting = list(decisions)
    late: dict[str, Document] = {}
    for _ in range(TRIES):
        again: list[str] = []
        for start in range(0, len(waiting), BULK):
            again += _once(database, waiting[start : start + BULK], decisions, saved, refused, pick, late)
        waiting = again
        if not waiting:
            break
    untrue.forget(database, [record for name, record in late.items() if name not in saved])
    for name in waiting:
        log.warning("document %s changes faster than it can be written; it is decided on again later", name)
    return saved


def _once(
    database: Database,
    ids: Iterable[str],
    decisions: dict[str, Decide],
    saved: dict[str, Document],
    refused: Callable[[str, str], None] | None,
    pick: Callable[[Document], Document],
    late: dict[str, Document],
) -> list[str]:
    """One read and one write; the ids that met a conflict, of which ``late`` gets the records."""
    changes: list[Change] = []
    for name, document in database.get_many(list(ids)).items():
        if document is None:
            log.warning("document %s has been deleted while it was at a farm", name)
            if refused is not None:
                refused(name, "it has been deleted")
            continue
        try:
            document = pick(document)
            change = decisions[name](document)
        except IllegalTransition as error:
            log.warning("%s", error)
            continue
        if change is not None and change.document is not document:
            changes.append(change)
    if not changes:
        return []
    # The attempts' own documents go first: their ids are deterministic, so writing one again harms nothing.
    records = [change.record for change in changes if change.record is not None]
    outcomes: list[Any] = database.bulk([*records, *(change.document for change in changes)])
    again: list[str] = []
    for change, outcome in zip(changes, outcomes[len(records) :], strict=True):
        name = str(change.document["_id"])
        rev = getattr(outcome, "rev", None)
        if rev is not None:
            saved[name] = {**change.document, "_rev": rev}
        elif outcome.error == "conflict":
            again.append(name)
            if change.record is not None:
                late[name] = change.record
        elif outcome.error == "unauthorized":
            raise Unauthorised(f"the database does not let this account write {name!r}: {outcome.reason}")
        elif outcome.error in FINAL:
            log.error("the database refused document %s: %s: %s", name, outcome.error, outcome.reason)
            if refused is not None:
                refused(name, f"{outcome.error}: {outcome.reason}")
        else:
            raise Unavailable(f"the database could not write {name!r} ({outcome.error}: {outcome.reason})")
    return again
