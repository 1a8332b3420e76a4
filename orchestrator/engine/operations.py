"""What people do to documents, as one function each: decided on the document as read, written with its revision."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from orchestrator import documents
from orchestrator.documents import Document
from orchestrator.engine.engine import BULK, Database
from orchestrator.errors import IllegalTransition


@dataclass
class Done:
    """What became of an operation on many documents: ``changed`` ids, and the reason for each that was not."""

    changed: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def retry(
    database: Database,
    ids: Iterable[str],
    *,
    by: str,
    reason: str = "",
    dry_run: bool = False,
    clock: Callable[[], float] = time.time,
) -> Done:
    """Put failed documents back before the step that failed. Raises what the database raises."""
    now = clock()
    return change(database, ids, lambda document: documents.retry(document, by, reason, now), dry_run=dry_run)


def change(
    database: Database, ids: Iterable[str], decide: Callable[[Document], Document], *, dry_run: bool = False
) -> Done:
    """Read documents in bulk, let ``decide`` make each one's next version, write them in bulk.

    A document that somebody changes in between is read and decided on again, at most three times.
    """
    done = Done()
    wanted = list(dict.fromkeys(ids))
    for start in range(0, len(wanted), BULK):
        waiting = wanted[start : start + BULK]
        for _ in range(3):
            waiting = _change_once(database, waiting, decide, done, dry_run)
            if not waiting:
                break
        for name in waiting:
            done.refused[name] = "it changes faster than it can be written: try again"
    return done


def _change_once(
    database: Database, ids: list[str], decide: Callable[[Document], Document], done: Done, dry_run: bool
) -> list[str]:
    """One read and one write; the ids that met a conflict."""
    changed: list[Document] = []
    for name, document in database.get_many(ids).items():
        if document is None:
            done.refused[name] = "there is no such document"
            continue
        try:
            changed.append(decide(document))
        except IllegalTransition as error:
            done.refused[name] = str(error)
    if dry_run:
        done.changed.extend(str(document["_id"]) for document in changed)
        return []
    again = []
    for document, outcome in zip(changed, database.bulk(changed) if changed else [], strict=True):
        name = str(document["_id"])
        if getattr(outcome, "rev", None) is not None:
            done.changed.append(name)
        elif outcome.error == "conflict":
            again.append(name)
        else:
            done.refused[name] = f"{outcome.error}: {outcome.reason}"
    return again
