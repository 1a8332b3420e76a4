"""The files of a batch job in a farm's spool: their names and forms, the same for who submits and for who runs.

    jobs/<job>/chunk-<task>.json      what the task is to do: documents, attempts, the step; gone: do nothing
    jobs/<job>/started-<task>.json    who has begun the task (made once, exclusively) and on which attempt it works
    jobs/<job>/returned-<task>.json   attempts that it hands back undone, and why
    jobs/<job>/withdrawn-<task>.json  attempts that it shall not begin, and those it shall end (by who submits)
    jobs/<job>/<attempt>.result       what became of one attempt
    jobs/<job>/submitting             the submit command was, or is about to be, given; when
    logs/<job>/script, out-<task>, err-<task>     for people; they stay

All but the last two rows are JSON and appear whole or not at all.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any

from orchestrator.reports import Report

FORMAT = 1
"""Of the chunk file; a runner of another version refuses it instead of guessing."""

#: What a job and an attempt are called in the spool. A document can say anything; a path is made of these alone.
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,99}\Z")
ATTEMPT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")

RESULT = ".result"
CHUNKS = "chunk-*.json"
"""The chunk files of all tasks of a job, as a shell's pattern."""
SUBMITTING = "submitting"


def folder(spool: str, job: str) -> str:
    """The folder of a job's own files. Raises ValueError for what is no job's name."""
    _must_be_a_name(job)
    return f"{spool}/jobs/{job}"


def logs(spool: str, job: str) -> str:
    """The folder of what people read afterwards. Raises ValueError for what is no job's name."""
    _must_be_a_name(job)
    return f"{spool}/logs/{job}"


def _must_be_a_name(job: str) -> None:
    if not NAME.match(job):
        raise ValueError(f"{job!r} is no batch job's name")


def chunk_name(task: int) -> str:
    """The file that says what a task is to do."""
    return f"chunk-{task}.json"


def started_name(task: int) -> str:
    """The marker of a task that has begun, which tells how far it is."""
    return f"started-{task}.json"


def returned_name(task: int) -> str:
    """The file with the attempts that a task hands back."""
    return f"returned-{task}.json"


def withdrawn_name(task: int) -> str:
    """The file with the attempts that a task shall not begin, or shall end."""
    return f"withdrawn-{task}.json"


def result_name(attempt: str) -> str:
    """The file with an attempt's report."""
    return f"{attempt}{RESULT}"


@dataclass
class Chunk:
    """What one task of a job does. ``chain`` is the chain as data, with the limits that hold in this job.

    ``tasks`` are `runner.Task` as JSON; ``fingerprint`` is that of the chain as its people wrote it. ``direct`` says,
    where results also go straight to the database, its address and the file with the login (`direct.direct`).
    """

    job: str
    task: int
    folder: str
    step: str
    chain: dict[str, Any]
    fingerprint: str
    output: str
    scratch: str
    logs: str
    path: list[str]
    tasks: list[dict[str, Any]]
    direct: dict[str, str] | None = None
    format: int = FORMAT

    def to_json(self) -> dict[str, Any]:
        """The chunk file's content; what a chunk does not have is left out, so that older runners know all of it."""
        data = asdict(self)
        if self.direct is None:
            del data["direct"]
        return data

    @classmethod
    def from_json(cls, data: Any) -> Chunk:
        """Raises ValueError for what is no chunk of this version."""
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            found = data.get("format") if isinstance(data, dict) else type(data).__name__
            raise ValueError(f"it has format {found!r}, this runner reads format {FORMAT}")
        try:
            return cls(**data)
        except TypeError as error:
            raise ValueError(f"it is not whole: {error}") from error


@dataclass
class Marker:
    """A task's marker: the batch system's number, the node, the process, since when (s), the attempt in work.

    ``position``: so many of the chunk's documents come before it, and are dealt with.
    """

    number: str
    host: str
    pid: int
    started: float
    attempt: str | None = None
    attempt_started: float = 0.0
    position: int = 0

    @classmethod
    def from_json(cls, data: Any) -> Marker:
        """Raises ValueError for what is no marker."""
        try:
            known = cls.__dataclass_fields__
            return cls(**{key: value for key, value in data.items() if key in known})
        except (TypeError, AttributeError) as error:
            raise ValueError(f"it is no marker: {error}") from error


@dataclass
class Returned:
    """Attempts that a task hands back undone, and why."""

    attempts: list[str] = field(default_factory=list)
    reason: str = ""

    @classmethod
    def from_json(cls, data: Any) -> Returned:
        """Raises ValueError for what is none."""
        if not isinstance(data, dict) or not isinstance(data.get("attempts"), list):
            raise ValueError("it names no attempts")
        return cls([str(attempt) for attempt in data["attempts"]], str(data.get("reason", "")))


@dataclass
class Withdrawn:
    """Attempts that a task shall not begin, those of them that it shall end even if it has begun them, and why."""

    attempts: list[str] = field(default_factory=list)
    end: list[str] = field(default_factory=list)
    reason: str = ""

    @classmethod
    def from_json(cls, data: Any) -> Withdrawn:
        """Raises ValueError for what is none."""
        if not isinstance(data, dict) or not all(isinstance(data.get(key), list) for key in ("attempts", "end")):
            raise ValueError("it names no attempts")
        return cls([str(one) for one in data["attempts"]], [str(one) for one in data["end"]], str(data.get("reason")))


def result_to_json(report: Report, host: str, number: str) -> dict[str, Any]:
    """A result file's content."""
    return {"report": report.to_json(), "host": host, "number": number}


def result_from_json(data: Any) -> tuple[Report, str]:
    """The report and the node of a result file. Raises ValueError for what is none."""
    try:
        return Report.from_json(data["report"]), str(data.get("host") or "")
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"it is no result: {error}") from error
