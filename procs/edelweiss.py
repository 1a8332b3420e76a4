"""Documents of a run database as Edelweiss kept it (2010 to 2013), read into the words of today. Pure.

Source of the forms: the scripts of KData (``KDataPy/scripts/dataprocess``) and the couchapp ``proc`` beside them. A
document there has its file's header as keys of its own (``Bolo.reglages``, ``Hote``, ``Date`` as a dictionary),
``status`` as ``proc1 in progress`` or ``proc1 failed``, ``procN`` as whatever the step returned, times as dictionaries,
as text without a zone, or as seconds, and jobs in ``batchJob``. Further types: ``daqmetadatadocuments`` for files
beside the data, ``hpsstarfiledocument`` for a tar on tape with its members.

Nothing is taken away: what is new is added beside the old keys, so that old views answer as before.
``orchestrator import`` keeps the old value of each key that changes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import Any

DATA = "daqdocument"
META = "daqmetadatadocuments"
TAR = "hpsstarfiledocument"
#: What a document without a type gets, such as the one in which the DAQ's files were counted.
UNTYPED = "note"

#: Keys of a data document that do not come from its file's header.
BOOKKEEPING = frozenset(
    (
        "_id", "_rev", "_attachments", "author", "content", "type", "date_uploaded", "file", "run_name", "file_number",
        "status", "hostipaddress", "hostname", "size_in_bytes", "file_size", "file_lastmodified", "batchJob", "hpss",
        "hpss_status", "irods", "Detecteurs", "Voies", "exception",
    )
)  # fmt: skip

_PROC = re.compile(r"proc(\d{1,4})\Z")
_STATUS = re.compile(r"proc ?(\d{1,4}) (queued|in progress|failed)\Z")
_LANE = re.compile(r"(hpss|irods) in progress\Z|being tar-gzipped\Z")
_QSUB = re.compile(r"Your job(?:-array)? \d")
_SECONDS = re.compile(r"\s*\d{9,10}(\.\d+)?\s*\Z")  # since 1970, from 1973 on
_PBS = re.compile(r"\d+\.[a-z][\w.-]*\s*\Z")

_CLOCK = ("hour", "minute", "second", "microsecond")

#: Errors under which the old steps noted that they had not worked.
_ERRORS = ("scpErrs", "exception", "exc", "errs", "error")


def translate(document: Mapping[str, Any], steps: Mapping[int, str]) -> tuple[dict[str, Any], list[str]]:
    """One document in today's words, and what is to be said about it, in sentences without its name.

    Args:
        document: as the old database has it.
        steps: names of the chain's steps by their number, for ``procN.step``.
    """
    kind = document.get("type")
    new, notes = dict(document), []
    if not isinstance(kind, str) or not kind:
        new["type"] = UNTYPED
        notes.append(f"had no type: it is of type {UNTYPED!r} now")
    elif kind == DATA:
        _data(new, notes, steps)
    elif kind in (META, TAR):
        _beside(new)
    else:
        notes.append(f"is of type {kind!r}, which is kept as it is")
    return new, notes


def _data(new: dict[str, Any], notes: list[str], steps: Mapping[int, str]) -> None:
    if isinstance(new.get("run_name"), int | float) and not isinstance(new["run_name"], bool):
        new["run_name"] = _digits(new["run_name"])
        notes.append("had a number as run_name")
    for key in ("file_number", "size_in_bytes", "file_size"):
        if isinstance(new.get(key), float) and new[key].is_integer():
            new[key] = int(new[key])
    size = new.get("size_in_bytes", new.get("file_size"))
    if isinstance(size, int) and not isinstance(size, bool):
        new.setdefault("size", size)
    _stamp(new, "registered", new.get("date_uploaded"))
    header = {
        key: value
        for key, value in new.items()
        if key not in BOOKKEEPING and not _PROC.match(key) and key not in ("size", "registered", "header")
        and not isinstance(value, list)
    }  # fmt: skip
    if header:
        new.setdefault("header", header)
    for key in sorted(key for key in new if _PROC.match(key)):
        number = int(key.removeprefix("proc"))
        new[key] = _entry(new[key], steps.get(number, ""), notes, key)
    _jobs(new)
    _status(new, notes, steps)


def _beside(new: dict[str, Any]) -> None:
    """A file beside the data, or a tar: times and sizes as today's documents have them."""
    _stamp(new, "registered", _first(new, "date_uploaded", "date_unixtime", "date"))
    if isinstance(new.get("file_size"), int | float) and not isinstance(new["file_size"], bool):
        new.setdefault("size", int(new["file_size"]))
    run = new.get("run_name")
    if isinstance(run, str) and "/" in run:  # the whole path up to the first '_' was taken for the run
        new["run_name"] = PurePosixPath(run).name


def _entry(entry: Any, step: str, notes: list[str], key: str) -> dict[str, Any]:
    """``procN`` with state, time, file and size beside what the old step returned."""
    if not isinstance(entry, dict):
        notes.append(f"had no object as {key}")
        entry = {"result": {"value": entry}}
    new = dict(entry)
    new.setdefault("step", step or str(entry.get("processname") or key))
    new["state"] = "failed" if _fault(entry) else "done"
    new.setdefault("attempt", "imported")
    new.setdefault("number", 1)
    _stamp(new, "finished", _first(entry, "date_unixtime", "date"))
    if isinstance(entry.get("file_size"), int | float) and not isinstance(entry["file_size"], bool):
        new.setdefault("size", int(entry["file_size"]))
    if new["state"] == "failed":
        new.setdefault("reason", _fault(entry))
        new.setdefault("error_class", "code")
    return new


def _fault(entry: Mapping[str, Any]) -> str:
    """What an old step noted as its error; empty where it worked."""
    for key in _ERRORS:
        value = entry.get(key)
        if value:
            return value if isinstance(value, str) else "; ".join(str(part) for part in _parts(value))
    return ""


def _parts(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return [f"{key}: {part}" for key, part in value.items()]
    return value if isinstance(value, list) else [value]


def _jobs(new: dict[str, Any]) -> None:
    """``batchJob`` as ``batchjob``, whose last entries say where a step was done."""
    old = new.get("batchJob")
    if not isinstance(old, list):
        return
    jobs = []
    for job in old:
        if not isinstance(job, Mapping):
            continue
        message = str(job.get("message") or "")
        scheduler = "gridengine" if _QSUB.search(message) else "pbs" if _PBS.search(message) else None
        jobs.append(
            {
                "step": job.get("type"), "scheduler": scheduler, "cluster": None, "name": None, "task": 1,
                "attempt": "imported", "submitted": when(job.get("date")), "number": _number(job.get("number")),
            }
        )  # fmt: skip
    new.setdefault("batchjob", jobs)


def _status(new: dict[str, Any], notes: list[str], steps: Mapping[int, str]) -> None:
    """The status in a form that holds here: nothing of the old system runs any more."""
    status = new.get("status")
    began = any(_PROC.match(key) for key in new)
    if status in ("open", "closed", "good", "bad", "failed"):
        if status == "bad":
            new.setdefault("reason", _reason(new) or "it was bad before the import")
        if status == "failed":
            new.setdefault("reason", _reason(new) or "it had failed before the import")
        return
    match = _STATUS.match(status) if isinstance(status, str) else None
    if match is None:
        if isinstance(status, str) and _LANE.match(status):
            new["status"] = "good" if began else "closed"
            new.setdefault("hpss_status", status)
            notes.append(f"was {status!r}: that is a lane of its own, hpss_status")
            return
        new["status"] = "bad"
        new.setdefault("reason", f"the imported status {str(status)[:60]!r} is not known")
        notes.append(f"had the status {str(status)[:60]!r}, which is not known")
        return
    number, what = int(match[1]), match[2]
    key = f"proc{number}"
    if what == "failed":
        found = new.get(key)
        entry: dict[str, Any] = found if isinstance(found, dict) else {}
        new[key] = {
            **_entry(entry, steps.get(number, ""), notes, key), "state": "failed",
            "reason": _fault(entry) or "it had failed before the import", "error_class": "code",
        }  # fmt: skip
        new["status"] = "failed"
        return
    # The old attempt can no longer end. What stands of this step and of later ones is from before it.
    for name in [name for name in new if _PROC.match(name) and int(name.removeprefix("proc")) >= number]:
        del new[name]
    began = any(_PROC.match(name) for name in new)
    new["status"] = "good" if began else "closed"
    notes.append(f"was {what!r}: the step is to be done again")


def _reason(new: Mapping[str, Any]) -> str:
    for key in sorted((key for key in new if _PROC.match(key)), key=lambda key: int(key.removeprefix("proc"))):
        if isinstance(new[key], dict) and new[key].get("state") == "failed":
            return f"{key}: {new[key].get('reason')}"
    return str(new.get("exception") or "")


def _first(source: Mapping[str, Any], *keys: str) -> Any:
    return next((source[key] for key in keys if source.get(key)), None)


def _stamp(new: dict[str, Any], key: str, value: Any) -> None:
    time = when(value)
    if time is not None:
        new.setdefault(key, time)


def _digits(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else str(value)


def _number(value: Any) -> str | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _digits(value)
    return value if isinstance(value, str) else None


def when(value: Any) -> str | None:
    """A time in any of the old forms as ISO 8601 in UTC; None where it is none.

    Forms: seconds since 1970, as a number or as text; a dictionary of year, month, day, hour, minute, second,
    microsecond and perhaps timezone (hours east of UTC); ``2012-05-01 12:00:00.123456``, which was UTC but in
    ``batchJob``.
    """
    moment: datetime
    try:
        if isinstance(value, bool):
            return None
        if isinstance(value, int | float):
            if not math.isfinite(value) or value <= 0:
                return None
            moment = datetime.fromtimestamp(value, UTC)
        elif isinstance(value, Mapping):
            day = datetime(int(value["year"]), int(value["month"]), int(value["day"]), tzinfo=UTC)
            hour, minute, second, micro = (int(value.get(name) or 0) for name in _CLOCK)
            zone = timedelta(hours=float(value.get("timezone") or 0))
            moment = day.replace(hour=hour, minute=minute, second=second, microsecond=micro) - zone
        elif isinstance(value, str) and _SECONDS.match(value):
            moment = datetime.fromtimestamp(float(value), UTC)
        elif isinstance(value, str):
            moment = datetime.fromisoformat(value.strip())
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        else:
            return None
        return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, KeyError, TypeError, OverflowError, OSError):
        return None
