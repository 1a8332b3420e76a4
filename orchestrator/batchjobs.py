"""Data documents in the hands of a farm, as pure functions: what is written when a batch job is intended, known, begun.

``batchjob``, a list in the document, has one entry for each attempt that was to go to a farm: ``{step, scheduler,
cluster, name, task, attempt, submitted, number, script, stdout, stderr}``. ``submitted`` and ``number`` are null from
the intent until the batch system's answer is recorded; ``name`` is what the job is found by if that answer is lost.

``cancel``, in ``procN`` while a farm has the document, is a person's word that this attempt shall end: ``{by, at,
reason, then}``. It is the intent; the farm's daemon acts on it, and whatever then becomes of the attempt, unless it was
done before, the document is ``failed``, or (``then`` is ``hold``) given back with the hold that came with the word.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from orchestrator import documents
from orchestrator.chain import Step
from orchestrator.documents import Claimant, Document, Report, iso
from orchestrator.errors import IllegalTransition
from orchestrator.transitions import Kind, Status, check

#: Identities of farm daemons begin so. They stay the same across restarts, as the jobs do.
IDENTITY = "farm:"
#: More past jobs than this are not kept in a document; attempts have documents of their own.
KEPT = 20
#: What becomes of a document whose attempt a person has cancelled: it is failed, or given back and waits with a hold.
FAILED, HOLD = "failed", "hold"
#: The class of the "error" of an attempt that a person has ended: no chain tries it again by itself.
BY_PERSON = "person"


def identity(site: str, farm: str) -> str:
    """Who holds a document that is at a farm: the farm's daemon at a site, whichever process that is just now."""
    return f"{IDENTITY}{site}:{farm}"


def prefix(url: str, database: str, holder: str) -> str:
    """How the names of all jobs of one holder begin.

    Jobs of other databases, sites and farms under the same account are none of ours.
    """
    return f"orc-{hashlib.sha256(f'{url} {database} {holder}'.encode()).hexdigest()[:8]}-"


@dataclass(frozen=True)
class Place:
    """A document's place at a farm: the job's name and the task of its array, from 1."""

    scheduler: str
    farm: str
    name: str
    task: int


def degraded(document: Mapping[str, Any], step: Step) -> int:
    """How many times the next job of the step asks for more, since earlier ones ran out of time or memory."""
    retry = documents.retry_of(document, step.key)
    times = documents.count(retry.get("degrade"), 0)
    return times + 1 if retry.get("error_class") == "resources" else times


def queue(document: Document, step: Step, claimant: Claimant, attempt: str, place: Place, now: float) -> Document:
    """The document with a job intended for it: written before anything is said to the batch system.

    Raises IllegalTransition where the document is not waiting.
    """
    claimed = documents.claim(document, step, claimant, attempt, now)
    status = Status(Kind.QUEUED, step.number)
    check(documents.status_of(document), status, str(document.get("_id", "")))
    entry = claimed[step.key]
    del entry["started"]
    entry |= {
        "state": "queued", "host": None, "pid": None, "queued": iso(now), "farm": place.farm, "job": place.name,
        "task": place.task, "degrade": degraded(document, step),
    }  # fmt: skip
    past = document.get("batchjob")
    claimed["batchjob"] = [
        *(past if isinstance(past, list) else [])[-KEPT:],
        {
            "step": step.key, "scheduler": place.scheduler, "cluster": place.farm, "name": place.name,
            "task": place.task, "attempt": attempt, "submitted": None, "number": None,
        },
    ]  # fmt: skip
    return {**claimed, "status": str(status)}


def job_of(document: Mapping[str, Any], attempt: str) -> dict[str, Any]:
    """The ``batchjob`` entry of an attempt; empty where there is none."""
    jobs = document.get("batchjob")
    for job in reversed(jobs if isinstance(jobs, list) else []):
        if isinstance(job, dict) and job.get("attempt") == attempt:
            return job
    return {}


def submitted(document: Document, attempt: str, number: str, paths: Mapping[str, str], now: float) -> Document:
    """The document with the job's number and ``paths`` (script, stdout, stderr) recorded."""
    jobs = [
        {**job, **paths, "number": number, "submitted": iso(now)}
        if isinstance(job, dict) and job.get("attempt") == attempt
        else job
        for job in document.get("batchjob", [])
    ]
    return {**document, "batchjob": jobs, "updated": iso(now)}


def begun(document: Document, step: Step, host: str, started: float, now: float) -> Document:
    """The document as in progress: its job has begun it on ``host``. The same document where that is known already."""
    status = documents.status_of(document)
    if status is None or status.kind is not Kind.QUEUED:
        return document
    after = Status(Kind.IN_PROGRESS, step.number)
    check(status, after, str(document.get("_id", "")))
    entry = {**document[step.key], "state": "in progress", "host": host, "started": iso(started)}
    entry.pop("says", None)
    return {**document, step.key: entry, "status": str(after), "updated": iso(now)}


def says(document: Document, step: Step, words: str, now: float) -> Document:
    """The document with what the batch system says of a job that does not go on: held, or in an unknown state."""
    entry = dict(document[step.key])
    if entry.get("says", "") == words:
        return document
    entry.pop("says", None)
    if words:
        entry["says"] = words[: documents.REASON_LIMIT]
    return {**document, step.key: entry, "updated": iso(now)}


def ran_on(document: Document, step: Step, host: str) -> Document:
    """The document with the node that its attempt ran on."""
    return {**document, step.key: {**document[step.key], "host": host}} if host else document


def cancel(document: Document, by: str, reason: str, then: str, now: float) -> Document:
    """The document with a person's word that the attempt which a farm makes at it shall end.

    Raises IllegalTransition where no farm has the document.
    """
    name = document.get("_id")
    held = documents.holder(document)
    if held is None:
        raise IllegalTransition(f"document {name!r} has status {document.get('status')!r}: no batch job has it")
    key, entry = held
    if not entry.get("farm"):
        raise IllegalTransition(
            f"document {name!r} is in the hands of {entry.get('poller')} at {entry.get('host')}, not of a batch job"
        )
    word = {"by": by, "at": iso(now), "reason": reason[: documents.REASON_LIMIT]}
    changed = {**document, key: {**entry, "cancel": {**word, "then": then}}, "updated": iso(now)}
    return {**changed, "hold": word} if then == HOLD else changed


def cancelled(entry: Any) -> str:
    """Who has cancelled the attempt of a ``procN``, and why, in words; empty where nobody has."""
    asked = entry.get("cancel") if isinstance(entry, dict) else None
    if not isinstance(asked, dict):
        return ""
    return f"cancelled by {asked.get('by') or 'a person'}: {asked.get('reason') or 'no reason was given'}"


def end_cancelled(document: Document, step: Step, report: Report, now: float) -> tuple[Document, Document]:
    """The document after the end of an attempt that a person has cancelled, and the attempt's own document.

    ``report`` is what is known of that end.
    """
    entry = document[step.key]
    reason = cancelled(entry)
    told = replace(report, error_class=BY_PERSON, reason=f"{reason} ({report.reason})" if report.reason else reason)
    failed, record = documents.fail(document, step, told, now)
    record["state"] = "cancelled"
    asked = entry["cancel"]
    if asked.get("then") != HOLD:
        return failed, record
    number = documents.count(entry.get("number"), 1) + 1
    waiting = documents.release(document, step, told.reason, now)
    waiting["retry"] |= {"number": number, "first": number, "losses": 0, "error_class": BY_PERSON}
    return waiting, record


def sentence(key: str, entry: Mapping[str, Any], document: Mapping[str, Any], kind: Kind) -> str:
    """Where a document that is at a farm stands, for people."""
    stands = _stands(key, entry, document, kind)
    asked = entry.get("cancel")
    if not isinstance(asked, dict):
        return stands
    return f"{stands} It is to be ended, {cancelled(entry)} (at {asked.get('at')}): the farm's daemon sees to it."


def _stands(key: str, entry: Mapping[str, Any], document: Mapping[str, Any], kind: Kind) -> str:
    job = job_of(document, str(entry.get("attempt")))
    what = f"{key} ({entry.get('step')})"
    where = f"farm {entry.get('farm')} as task {entry.get('task')} of batch job {entry.get('job')}"
    if not job.get("number"):
        waits = f"{what} is to be done at {where}, intended {entry.get('queued')} and not known to be submitted yet"
        return f"{waits}: {entry['says']}" if entry.get("says") else f"{waits}."
    number = f"number {job['number']}, submitted {job.get('submitted')}"
    if kind is Kind.QUEUED:
        state = f"; the batch system says: {entry['says']}" if entry.get("says") else ""
        return f"{what} waits at {where} ({number}){state}."
    return (
        f"{what} is running at {where} ({number}): attempt {entry.get('number')}, on {entry.get('host')}, "
        f"since {entry.get('started')}."
    )

