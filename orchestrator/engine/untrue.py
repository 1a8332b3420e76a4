"""Records of attempts that were thought lost or called off, and whose result somebody has recorded meanwhile.

An attempt's own document is written before the data document, so that a crash in between loses no record. Where the
data document then turns out to have been changed first, and says that this very attempt is done, what was written of
its end is not true and goes again. The guard lets a site take away the record of a loss and an operator that of an
attempt called off, and no other.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from orchestrator.documents import Document

log = logging.getLogger(__name__)

#: What such records say: nothing more was heard of the attempt, or a person has ended it.
ENDED = ("lost", "called off")


def forget(database: Any, records: Iterable[Document]) -> None:
    """Remove those of the records of which the data document says that their attempt is done.

    Asking again harms nothing. Raises what the database raises.
    """
    thought = {str(record["document"]): record for record in records if record.get("state") in ENDED}
    if not thought:
        return
    now = database.get_many(list(thought))
    names = [_name(database, record) for name, record in thought.items() if _is_done(now.get(name), record)]
    said = {(record.get("attempt"), record.get("state")) for record in thought.values()}
    gone = [
        {"_id": name, "_rev": found["_rev"], "_deleted": True}
        for name, found in (database.get_many(names) if names else {}).items()
        if found is not None and (found.get("attempt"), found.get("state")) in said
    ]
    if gone:
        database.bulk(gone)
        log.warning("done after all, and recorded: %s", ", ".join(one["_id"] for one in gone))


def _is_done(document: Document | None, record: Document) -> bool:
    entry = (document or {}).get(str(record.get("step")))
    return isinstance(entry, dict) and entry.get("state") == "done" and entry.get("attempt") == record.get("attempt")


def _name(database: Any, record: Document) -> str:
    """The record's id as the database has it: a lane's attempts have ids of their own there."""
    branch = getattr(database, "branch", None)
    return str((branch.outward(record, database.data_type) if branch is not None else record)["_id"])
