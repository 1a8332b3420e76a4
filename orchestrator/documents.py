"""Data documents, and every change that the orchestrator makes to one, as pure functions.

Each function takes a document as it was read and returns the document to write; nothing here reads a clock, draws a
random number or talks to a database. Times are seconds since 1970 coming in and ISO 8601 in UTC in the document. A
document that comes out carries the ``_rev`` that came in, so that a decision can only be saved on what it was made on.

``retry``, at the top of a document, says what is known of an attempt that did not succeed and will be followed by
another: ``{step, number, first, losses, not_before, reason, error_class}``. ``number`` is that of the next attempt,
``first`` the one from which the retry policy counts (a person's retry begins a new series), ``losses`` how often in a
row the poller or the batch job that held the document was lost. Where several steps that need not wait for each other
are to be tried again, the others' stand in it under ``others``, by their keywords.

``hold``, ``{by, reason, at}``, is a person's word that no step may be claimed until it is gone. ``numbers``, ``{step:
number}``, says with which number a step that was reset goes on, so that no attempt's document is ever written twice.
What people do stands in ``orchestrator.people``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from orchestrator import logins
from orchestrator.chain import Chain, Step
from orchestrator.errors import IllegalTransition
from orchestrator.filenames import path_text
from orchestrator.reports import Report
from orchestrator.step import FILE_KEYS
from orchestrator.transitions import HELD, WAITING, Kind, Status, check, parse

Document = dict[str, Any]

#: A document whose poller or job was lost this often in a row is suspected of killing its host and ends failed.
LOSSES_LIMIT = 20
#: A count in a document that is larger was not written by the orchestrator.
COUNT_LIMIT = 10**6
#: Characters of a reason that are kept in a data document; the attempt's document keeps all of it.
REASON_LIMIT = 2000

#: What a claim writes into ``procN`` that stays there when the attempt has ended; the second row, for batch jobs.
CLAIM_KEYS = ("step", "attempt", "number", "first", "host", "site", "poller")
FARM_KEYS = ("farm", "job", "task", "queued", "degrade")

_STEP_KEY = re.compile(r"proc(\d+)\Z")


def iso(time: float) -> str:
    """Seconds since 1970 as ``2026-01-22T11:00:00.123Z``."""
    second, microseconds = divmod(round(time * 1e6), 1_000_000)
    return f"{_second(second)}.{microseconds // 1000:03d}Z"


@lru_cache(maxsize=64)  # most times that are written are of the last few seconds
def _second(time: int) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds").removesuffix("+00:00")


def seconds_of(text: Any) -> float | None:
    """An ISO time (with or without fraction; without a zone it is UTC) as seconds since 1970, or None if it is none."""
    if not isinstance(text, str):
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


@dataclass(frozen=True)
class Claimant:
    """Who claims: one poller process at one site."""

    poller: str
    host: str
    pid: int
    site: str


# --- reading a document -----------------------------------------------------------------------------------------------


def status_of(document: Mapping[str, Any]) -> Status | None:
    """The document's status taken apart, or None if it is none of ours."""
    return parse(document.get("status"))


def is_done(document: Mapping[str, Any], step: Step) -> bool:
    """Whether the step's keyword stands in the document with state done."""
    entry = document.get(step.key)
    return isinstance(entry, dict) and entry.get("state") == "done"


def ready(chain: Chain, document: Mapping[str, Any], step: Step) -> bool:
    """Whether the step could be claimed now, were it not for a retry's wait: the same rule as the view ``procN``."""
    if document.get("type") != chain.type or step.key in document or document.get("hold") is not None:
        return False
    if "_conflicts" in document:
        return False  # another version may say more: it waits until the two are one (orchestrator.conflicts)
    status = status_of(document)
    if status is None or status.kind not in WAITING:
        return False
    return all(is_done(document, need) for need in chain.needs(step))


def ready_step(chain: Chain, document: Mapping[str, Any], steps: Iterable[Step] | None = None) -> Step | None:
    """The first of ``steps`` (default: the chain's) that is ready, or None."""
    for step in chain.steps if steps is None else steps:
        if ready(chain, document, step):
            return step
    return None


def not_before(document: Mapping[str, Any], step: Step) -> float:
    """When the step may be tried again, in seconds since 1970; 0 if at once."""
    return seconds_of(retry_of(document, step.key).get("not_before")) or 0.0


def longest_wait(document: Mapping[str, Any], step: Step) -> float:
    """How long the step's next attempt may have to wait, by its policy (s), whatever a clock says."""
    series = retry_of(document, step.key)
    used = max(0, count(series.get("number"), 1) - 1 - count(series.get("first"), 1))
    return min(step.retries.wait * 2.0 ** min(used, 60), step.retries.longest)


def retries(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What is known of attempts that will be followed by others, by the step's keyword; the latest first."""
    top = document.get("retry")
    if not isinstance(top, dict):
        return {}
    others = top.get("others")
    found = {str(top.get("step")): {key: value for key, value in top.items() if key != "others"}}
    if isinstance(others, dict):
        found |= {key: value for key, value in others.items() if isinstance(value, dict) and key not in found}
    return found


def retry_of(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    """What is known of the step's last attempt, which will be followed by another; empty if none is to follow."""
    return retries(document).get(key, {})


def with_retries(ahead: Mapping[str, Mapping[str, Any]]) -> Document | None:
    """The value of ``retry`` that says so much, the first of them at the top; None for nothing."""
    if not ahead:
        return None
    first, *others = ahead
    return {**ahead[first], **({"others": {key: dict(ahead[key]) for key in others}} if others else {})}


def holder(document: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """The keyword and entry of the step that holds the document (queued or in progress), or None."""
    status = status_of(document)
    if status is None or status.kind not in HELD:
        return None
    entry = document.get(f"proc{status.step}")
    return (f"proc{status.step}", entry if isinstance(entry, dict) else {})


def complete(chain: Chain, document: Mapping[str, Any]) -> bool:
    """Whether nothing more will happen to the document by itself: every step done, or failed, or bad."""
    status = status_of(document)
    if status is None or status.kind in (Kind.FAILED, Kind.BAD):
        return True
    return status.kind in WAITING and all(is_done(document, step) for step in chain.steps)


def input_file(chain: Chain, document: Mapping[str, Any], step: Step) -> str | None:
    """The file that the step reads: that of the nearest earlier step it needs that left one, else the raw file."""
    for need in reversed(chain.needs(step)):
        entry = document.get(need.key)
        if isinstance(entry, dict) and isinstance(entry.get("file"), str):
            return str(entry["file"])
    return path_text(document) if isinstance(document.get("file"), str) and document["file"] else None


def next_number(document: Mapping[str, Any], key: str) -> int:
    """The number of a step's next attempt where no retry names it: 1, or that which a reset has left behind."""
    numbers = document.get("numbers")
    return count(numbers.get(key), 1) if isinstance(numbers, dict) else 1


def attempt_id(document: str, step: str, number: int) -> str:
    """The deterministic ``_id`` of the document that records an attempt: writing it again harms nothing."""
    return f"attempt:{document}:{step}:{number}"


# --- changing a document ----------------------------------------------------------------------------------------------


def moved(document: Document, status: Status, now: float) -> Document:
    """A copy of the document with the new status. Raises IllegalTransition where the table does not have it."""
    check(status_of(document), status, str(document.get("_id", "")))
    return {**document, "status": str(status), "updated": iso(now)}


def claim(document: Document, step: Step, claimant: Claimant, attempt: str, now: float) -> Document:
    """The document as taken by ``claimant`` for one attempt of the step."""
    changed = moved(document, Status(Kind.IN_PROGRESS, step.number), now)
    series = _take_retry(changed, step.key)
    number = count(series.get("number"), next_number(document, step.key))
    was = document["status"]
    changed[step.key] = {
        "step": step.name,
        "state": "in progress",
        "attempt": attempt,
        "number": number,
        "first": count(series.get("first"), number),
        "losses": count(series.get("losses"), 0),
        "host": claimant.host,
        "pid": claimant.pid,
        "poller": claimant.poller,
        "site": claimant.site,
        "started": iso(now),
        "was": was if was in WAITING else Kind.GOOD.value,
    }
    return changed


def held_by(document: Mapping[str, Any], step: str, attempt: str) -> bool:
    """Whether the document is still in the hands of that attempt, so that its report may be written."""
    held = holder(document)
    return held is not None and held[0] == step and held[1].get("attempt") == attempt


def finish(document: Document, step: Step, report: Report, now: float) -> Document:
    """The document with the step done, as the report says."""
    changed = moved(document, Status(Kind.GOOD), now)
    entry = _entry(document[step.key], report, "done")
    result = dict(report.result)
    for key in FILE_KEYS:
        if key in result:
            entry[key] = result.pop(key)
    entry["result"] = result
    changed[step.key] = entry
    return changed


def fail(document: Document, step: Step, report: Report, now: float) -> tuple[Document, Document]:
    """The document after an attempt that failed, and the attempt's own document.

    The step's retry policy decides between another attempt after a wait and ``failed``; an output that a gate has
    refused makes the document ``bad``, at once or after these attempts, as the gate says.
    """
    entry = document[step.key]
    number, first = count(entry.get("number"), 1), count(entry.get("first"), 1)
    used = number - first
    policy = step.retries
    again = (report.error_class in policy.on or report.then == "retry") and used < policy.count
    record = _attempt_document(document, step, entry, report)
    if report.gate:
        record |= {"state": "refused", "gate": report.gate}
    if report.gate and not again:
        changed = moved(document, Status(Kind.BAD), now)
        files = {key: report.result[key] for key in FILE_KEYS if key in report.result}
        refused = {**_entry(entry, report, "refused"), **files, "gate": report.gate, "result": report.result}
        changed[step.key] = {**refused, **_why(report.reason, report.error_class)}
        changed["reason"] = f"the gate {report.gate!r} of {step.key} ({step.name}) refuses the output: {report.reason}"
        changed["reason"] = logins.without(changed["reason"])[:REASON_LIMIT]
        return changed, record
    if not again:
        changed = moved(document, Status(Kind.FAILED), now)
        changed[step.key] = {**_entry(entry, report, "failed"), **_why(report.reason, report.error_class)}
        return changed, record
    wait = min(policy.wait * 2**used, policy.longest)
    series = {"number": number + 1, "first": first, "not_before": iso(now + wait)}
    return _given_back(document, step, entry, series, report.reason, report.error_class, now), record


def lose(document: Document, step: Step, reason: str, now: float) -> tuple[Document, Document]:
    """The document taken back from a poller or batch job that is no more, and the document of the attempt lost with it.

    A loss does not count as one of the step's retries: the poller or the job died, not the step. After LOSSES_LIMIT of
    them in a row the document is suspected of being the cause and ends failed.
    """
    found = document.get(step.key)
    entry = found if isinstance(found, dict) else {}  # a person's hand, perhaps: it is freed all the same
    number, first, losses = count(entry.get("number"), 1), count(entry.get("first"), 1), count(entry.get("losses"), 0)
    started = seconds_of(entry.get("started")) or now
    report = Report(
        document=str(document["_id"]), step=step.key, attempt=str(entry.get("attempt")), started=started, finished=now,
        seconds=round(max(0.0, now - started), 3), exit_code=None, error_class="transient", reason=reason,
    )  # fmt: skip
    record = _attempt_document(document, step, entry, report)
    record["state"] = "lost"
    if losses + 1 >= LOSSES_LIMIT:
        who = "batch job" if entry.get("farm") else "poller that held it"
        reason = f"the {who} was lost {losses + 1} times in a row: it may be what kills them ({reason})"
        changed = moved(document, Status(Kind.FAILED), now)
        changed[step.key] = {**_entry(entry, report, "failed"), **_why(reason, "resources")}
        return changed, record
    series = {"number": number + 1, "first": first + 1, "losses": losses + 1, "not_before": iso(now)}
    return _given_back(document, step, entry, series, reason, "transient", now), record


def called_off(document: Document, reason: str, now: float) -> tuple[str, dict[str, Any], Document]:
    """Of a document that a step holds: the step's keyword, its entry, and the document of the attempt that ends here.

    The attempt may still be running. It will find the document gone on, and what it says then is dropped.
    """
    held = holder(document)
    assert held is not None
    key, entry = held
    started = seconds_of(entry.get("started") or entry.get("queued")) or now
    report = Report(
        document=str(document["_id"]), step=key, attempt=str(entry.get("attempt")), started=started, finished=now,
        seconds=round(max(0.0, now - started), 3), exit_code=None, error_class="person", reason=reason,
    )  # fmt: skip
    step = Step.model_construct(name=str(entry.get("step")), number=int(key.removeprefix("proc")))
    record = _attempt_document(document, step, entry, report)
    record["state"] = "called off"
    return key, {**_entry(entry, report, "failed"), **_why(reason, "person")}, record


def release(document: Document, step: Step, reason: str, now: float) -> Document:
    """The document given back before the attempt began: the attempt's number is used again, nothing is counted."""
    entry = document[step.key]
    series = {
        "number": count(entry.get("number"), 1),
        "first": count(entry.get("first"), 1),
        "losses": count(entry.get("losses"), 0),
        "not_before": iso(now),
    }
    return _given_back(document, step, entry, series, reason, None, now)


def retry(document: Document, by: str, reason: str, now: float) -> Document:
    """A failed document put back before the step that failed, in a new series of attempts, with who asked and why.

    Raises IllegalTransition where the document is not failed.
    """
    status = status_of(document)
    if status is None or status.kind is not Kind.FAILED:
        raise IllegalTransition(
            f"document {document.get('_id')!r} has status {document.get('status')!r}: only one that is 'failed' can be "
            "tried again"
        )
    failed = {
        key: entry
        for key, entry in document.items()
        if _STEP_KEY.match(key) and isinstance(entry, dict) and entry.get("state") == "failed"
    }
    first_step = not any(
        isinstance(entry, dict) and entry.get("state") == "done"
        for key, entry in document.items()
        if _STEP_KEY.match(key)
    )
    changed = moved(document, Status(Kind.CLOSED if first_step else Kind.GOOD), now)
    for key in failed:
        del changed[key]
    if len(failed) > 1:
        known = changed.get("numbers")
        numbers = {key: count(failed[key].get("number"), 1) + 1 for key in failed}
        changed["numbers"] = {**(known if isinstance(known, dict) else {}), **numbers}
    if failed:
        key = min(failed, key=lambda k: int(k[4:]))
        number = count(failed[key].get("number"), 1) + 1
        again = {
            "step": key, "number": number, "first": number, "not_before": iso(now), "by": by, "at": iso(now),
            "reason": reason, "error_class": None, "last": failed[key].get("attempt"),
        }  # fmt: skip
        _take_retry(changed, key)
        changed["retry"] = with_retries({key: again, **retries(changed)})
    return changed


def _given_back(
    document: Document,
    step: Step,
    entry: Mapping[str, Any],
    series: dict[str, Any],
    reason: str,
    error_class: str | None,
    now: float,
) -> Document:
    was = parse(entry.get("was"))
    first_step = was is not None and was.kind is Kind.CLOSED
    changed = moved(document, Status(Kind.CLOSED if first_step else Kind.GOOD), now)
    changed.pop(step.key, None)
    if entry.get("degrade"):
        series = {**series, "degrade": entry["degrade"]}
    again = {"step": step.key, **series, **_why(reason, error_class), "last": entry.get("attempt")}
    _take_retry(changed, step.key)
    changed["retry"] = with_retries({step.key: again, **retries(changed)})
    return changed


def _take_retry(changed: Document, key: str) -> dict[str, Any]:
    """Take what is known of a step's last attempt out of the document: the next one begins, or that is said anew."""
    ahead = retries(changed)
    taken = ahead.pop(key, {})
    changed.pop("retry", None)
    if ahead:
        changed["retry"] = with_retries(ahead)
    return taken


def _entry(entry: Mapping[str, Any], report: Report, state: str) -> dict[str, Any]:
    """``procN`` after an attempt: what the claim wrote that is still of use, and what the report says."""
    kept = {key: entry[key] for key in (*CLAIM_KEYS, *FARM_KEYS) if key in entry}
    return {
        **kept,
        "state": state,
        "pid": report.software.get("pid", entry.get("pid")),
        "started": iso(report.started),
        "finished": iso(report.finished),
        "seconds": report.seconds,
        "cpu_seconds": report.cpu_seconds,
        "max_rss": report.max_rss,
        "command": logins.without_in(report.command),
        "exit_code": report.exit_code,
        "log": report.log,
        "software": {key: value for key, value in report.software.items() if key != "pid"},
    }


def _why(reason: str, error_class: str | None) -> dict[str, Any]:
    return {"reason": logins.without(reason)[:REASON_LIMIT], "error_class": error_class}


def _attempt_document(document: Document, step: Step, entry: Mapping[str, Any], report: Report) -> Document:
    number = count(entry.get("number"), 1)
    return {
        "_id": attempt_id(str(document["_id"]), step.key, number),
        "type": "attempt",
        "document": document["_id"],
        "run_name": document.get("run_name"),
        "file_number": document.get("file_number"),
        **_entry(entry, report, "failed"),
        "step": step.key,
        "name": step.name,
        "number": number,
        "reason": logins.without(report.reason),
        "error_class": report.error_class,
        "log_tail": logins.without(report.log_tail),
        "result": report.result,
    }


def count(value: Any, default: int) -> int:
    """A count from a document, which may have become a float in other people's hands."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < COUNT_LIMIT:
        return default
    return int(value)
