"""What the database has of documents whose write came too late, where another site may have changed them too.

A reader sees one version of a document, the winner of all. Where replication has brought another site's version, ours
may be the one that is not seen: an attempt's result belongs to the version that the attempt holds, until the versions
are one again (``orchestrator.conflicts``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from orchestrator import documents
from orchestrator.documents import Document


def current(database: Any, writes: Iterable[Any]) -> dict[str, Document | None]:
    """The documents of some writes as they are now; of one in conflict the version that its write is about, if any.

    One request for all, and one more for each document in conflict, which are few.

    Args:
        database: ``orchestrator.couch.Database``; its ``leaves`` is only asked where there is a conflict.
        writes: ``orchestrator.engine.flight.Write``.
    """
    wanted = {str(write.document["_id"]): write for write in writes}
    found: dict[str, Document | None] = database.get_many(list(wanted))
    for name, write in wanted.items():
        document = found.get(name)
        if document is not None and "_conflicts" in document and not _is_about(document, write):
            found[name] = next((one for one in database.leaves(name) if _is_about(one, write)), document)
    return found


def of_poller(database: Any, document: Document, poller: str) -> Document:
    """Of a document in conflict the version that a poller holds, if it holds one; else the document as it is.

    A claim whose attempt has ended by another version holds nothing: then it is that other one.
    """
    if "_conflicts" not in document:
        return document
    leaves = database.leaves(str(document["_id"]))
    over: Document | None = None
    for leaf in sorted(leaves, key=lambda one: one.get("_rev") != document.get("_rev")):
        held = documents.holder(leaf)
        if held is None or str(held[1].get("poller")) != poller:
            continue
        ended = next((one for one in leaves if has_ended(one, held[0], held[1].get("attempt"))), None)
        if ended is None:
            return leaf
        over = over or ended
    return over or document


def has_ended(document: Document, key: str, attempt: Any) -> bool:
    """Whether a version of a document knows of an attempt's end."""
    entry = document.get(key)
    if isinstance(entry, dict) and entry.get("attempt") == attempt:
        return entry.get("state") in ("done", "failed", "refused")
    return attempt is not None and documents.retry_of(document, key).get("last") == attempt


def _is_about(found: Document, write: Any) -> bool:
    """Whether a version is held by the write's attempt, or is what the write has made."""
    return documents.held_by(found, write.step.key, write.attempt) or is_stored(found, write)


def is_stored(current: Document, write: Any) -> bool:
    """Whether the database's version is the one that ``write`` wanted, stored though the answer was lost."""
    if write.report is None and write.lost is None:
        return documents.held_by(current, write.step.key, write.attempt)
    if write.then is not None:
        return documents.held_by(current, write.then.key, write.then_attempt)
    entry = current.get(write.step.key)
    if isinstance(entry, dict) and entry.get("attempt") == write.attempt:
        # A person may have failed it meanwhile: that is not what a report of success wanted.
        wanted = ("done",) if write.report is not None and write.report.ok else ("failed", "refused")
        return entry.get("state") in wanted
    return documents.retry_of(current, write.step.key).get("last") == write.attempt


def generation(document: Document) -> int:
    """The number of a document's version: the feed may show an older one than we have."""
    number = str(document.get("_rev") or "").partition("-")[0]
    return int(number) if number.isdecimal() else 0
