"""The batch jobs of documents, as the database knows them: which are at farms now, and what any of them is about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator import batchjobs, documents, jobfiles
from orchestrator.documents import iso
from orchestrator.engine.heartbeat import beats
from orchestrator.transitions import Kind

#: What a document in the hands of a job can be, in the order in which pages show it.
STATES = ("intended", "queued", "held", "running", "cancelling")
#: A job's name: a folder in a farm's spool, so nothing else is ever made a path of.
NAME = jobfiles.NAME


@dataclass
class Listed:
    """One batch job (an array counts as one) that documents wait for.

    ``step`` is its keyword; ``states`` counts documents; ``since`` is when the oldest of what is not running was
    submitted or, before that, intended, else when the oldest began; ``nodes`` are where some of it runs.
    """

    name: str
    number: str
    site: str
    farm: str
    step: str
    states: dict[str, int] = field(default_factory=dict)
    since: str = ""
    nodes: list[str] = field(default_factory=list)

    @property
    def documents(self) -> int:
        """How many documents it has in hand."""
        return sum(self.states.values())

    @property
    def state(self) -> str:
        """The counts in words."""
        return ", ".join(f"{self.states[state]} {state}" for state in STATES if state in self.states)

    def to_json(self) -> dict[str, Any]:
        """For programs and pages."""
        return {**vars(self), "state": self.state, "documents": self.documents}


def listed(rows: Iterable[Any]) -> list[Listed]:
    """Jobs from the rows of the view ``farm/jobs``, grouped by their whole keys; the oldest first."""
    found: dict[tuple[str, str, str], Listed] = {}
    since: dict[tuple[str, str, str], float] = {}
    for row in rows:
        site, farm, name, step, number, state, node = row.key
        place = (str(site or ""), str(farm), str(name))
        job = found.setdefault(place, Listed(place[2], "", place[0], place[1], str(step)))
        job.number = job.number or str(number or "")
        job.states[state] = job.states.get(state, 0) + int(row.value["count"])
        if node and state in ("running", "cancelling") and node not in job.nodes:
            job.nodes.append(str(node))
        oldest = float(row.value["min"])
        since[place] = min(since.get(place, oldest), oldest)
    for known, job in found.items():
        job.since = iso(since[known] / 1000) if since[known] else ""
        job.nodes.sort()
    return sorted(found.values(), key=lambda job: (job.since, job.name))


def jobs(database: Any) -> list[Listed]:
    """All jobs that documents wait for, in one request. Raises DatabaseError."""
    return listed(database.view("farm/jobs", group=True))


def away(heartbeats: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of each farm that cannot be asked, by the word of its daemon: since when, and why."""
    return {
        str(beat.get("farm")): dict(beat["away"])
        for identity, beat in heartbeats.items()
        if identity.startswith(batchjobs.IDENTITY) and isinstance(beat.get("away"), dict)
    }


def away_now(database: Any) -> dict[str, dict[str, Any]]:
    """The same, asked of the database."""
    return away(beats(database))


@dataclass(frozen=True)
class Member:
    """One document of a job: which task of it, which attempt, and what the document says of that."""

    job: str
    document: str
    task: int
    attempt: str
    farm: str
    number: str
    step: str
    state: str
    node: str
    since: str
    cancelled: str

    def to_json(self) -> dict[str, Any]:
        """For programs and pages."""
        return dict(vars(self))


def members(rows: Iterable[Any]) -> list[Member]:
    """The documents of a job from the rows of the view ``farm/documents``, with the documents themselves."""
    return [_member(row) for row in rows if row.doc is not None]


def members_of(database: Any, name: str) -> list[Member]:
    """The documents of the job called ``name``, also of one that has ended. Raises DatabaseError."""
    return members(database.view("farm/documents", startkey=[name], endkey=[name, {}], include_docs=True))


def last_of(document: Mapping[str, Any]) -> Member | None:
    """The last job that a document has had, or None."""
    entries = document.get("batchjob")
    for entry in reversed(entries if isinstance(entries, list) else []):
        if isinstance(entry, dict) and isinstance(entry.get("name"), str):
            return _of(document, entry["name"], entry.get("task"), str(entry.get("attempt")), entry)
    return None


def _member(row: Any) -> Member:
    value = row.value if isinstance(row.value, dict) else {}
    return _of(row.doc, row.key[0], row.key[1], str(row.key[2]), {**value, "cluster": value.get("farm")})


def _of(document: Mapping[str, Any], job: str, task: Any, attempt: str, value: Mapping[str, Any]) -> Member:
    step = str(value.get("step"))
    entry = document.get(step)
    entry = entry if isinstance(entry, dict) and entry.get("attempt") == attempt else {}
    status = documents.status_of(document)
    held = documents.held_by(document, step, attempt)
    if held and entry.get("cancel"):
        state = "cancelling"
    elif held and status is not None and status.kind is Kind.IN_PROGRESS:
        state = "running"
    elif held and not value.get("number"):
        state = "intended"
    elif held:
        state = "held" if entry.get("says") else "queued"
    else:
        state = str(entry.get("state") or "gone on")
    since = entry.get("finished") or entry.get("started") or value.get("submitted") or entry.get("queued") or ""
    return Member(
        job, str(document.get("_id")), documents.count(task, 1), attempt, str(value.get("cluster")),
        str(value.get("number") or ""), step, state, str(entry.get("host") or ""), str(since),
        batchjobs.cancelled(entry) if held else "",
    )  # fmt: skip


def find(known: Iterable[Listed], word: str) -> tuple[Listed, int | None] | None:
    """The job that a person means, by its name or number, and the task of it where one is named (``4711_3``)."""
    for job in known:
        if word in (job.name, job.number):
            return job, None
    for mark in ("_", "."):
        number, _, task = word.rpartition(mark)
        for job in known:
            if number and number == job.number and task.isdecimal():
                return job, int(task)
    return None
