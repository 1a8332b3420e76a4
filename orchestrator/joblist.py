"""Which batch jobs documents wait for, as the database knows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orchestrator import batchjobs, documents
from orchestrator.engine.heartbeat import beats
from orchestrator.transitions import Kind

#: Rows of a view, and documents, that are read in one request.
PAGE = 1000


@dataclass
class Listed:
    """One batch job (an array counts as one): ``since`` is when it was submitted or, before that, intended."""

    name: str
    number: str
    farm: str
    step: str
    state: str
    documents: int
    since: str


def jobs(database: Any) -> tuple[list[Listed], dict[str, dict[str, str]]]:
    """All jobs, oldest first, and of each farm that cannot be asked: since when, and why. Raises DatabaseError."""
    found: dict[str, Listed] = {}
    seen: dict[str, dict[str, int]] = {}
    for view in ("work/inqueue", "work/inprogress"):
        place: dict[str, Any] = {}
        while True:
            rows = list(database.view(view, reduce=False, limit=PAGE, **place))
            ids = [row.id for row in rows if str((row.value or {}).get("poller")).startswith(batchjobs.IDENTITY)]
            for document in database.get_many(ids).values() if ids else ():
                if document is not None:
                    _count(document, found, seen)
            if len(rows) < PAGE:
                break
            place = {"startkey": rows[-1].key, "startkey_docid": rows[-1].id, "skip": 1}
    away: dict[str, dict[str, str]] = {}
    for identity, beat in beats(database).items():
        if not identity.startswith(batchjobs.IDENTITY):
            continue
        if beat.get("away"):
            away[str(beat.get("farm"))] = beat["away"]
    for name, job in found.items():
        job.state = ", ".join(f"{count} {state}" for state, count in sorted(seen[name].items()))
    return sorted(found.values(), key=lambda job: (job.since, job.name)), away


def _count(document: dict[str, Any], found: dict[str, Listed], seen: dict[str, dict[str, int]]) -> None:
    held, status = documents.holder(document), documents.status_of(document)
    if held is None or status is None:
        return
    entry = held[1]
    name = str(entry.get("job"))
    known = batchjobs.job_of(document, str(entry.get("attempt")))
    since = str(known.get("submitted") or entry.get("queued") or "")
    job = found.setdefault(
        name, Listed(name, "", str(entry.get("farm")), str(entry.get("step")), "", 0, since)
    )
    job.number = job.number or str(known.get("number") or "")
    job.since = min(job.since, since)
    job.documents += 1
    if status.kind is Kind.IN_PROGRESS:
        state = "running"
    else:
        state = "queued" if known.get("number") else "intended"
        state = "held" if known.get("number") and entry.get("says") else state
    states = seen.setdefault(name, {})
    states[state] = states.get(state, 0) + 1
