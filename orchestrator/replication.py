"""How this site's database is joined to others: the setting ``replicate`` read, and the replications it asks for.

    replicate:
      centre:                                 # a name for the other database
        url: https://couch.centre.example     # its server
        credentials: centre.json              # file with the login there, mode 0600
        database: runs                        # default: as here
        direction: both                       # or push (from here), pull (to here)
        types: [daqdocument, attempt]         # documents of these types only; default: all

Design documents never travel: each site pushes those of its own chain. A filter by type is a selector, which CouchDB
evaluates without JavaScript; deletions pass it always, since a deleted document has no type left.

The replications are asked for over ``POST /_replicate``, with the logins in the request: the server keeps those in its
memory alone. A document of ``_replicator`` would hold them for ever. The price is that a server that starts anew has
forgotten them: ``orchestrator replicate watch`` asks again. Pure data in, data out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from orchestrator.errors import SettingsError

CHECKPOINT = 5000  # ms between two checkpoints of a replication: what a restart may have to compare again
STALLED = 300.0  # s without progress although documents wait, after which a replication that runs is begun anew
CRASHED = 10.0  # s that a crashed replication is left to the server's own retries while the other end answers

PUSH, PULL = "push", "pull"


class Remote(BaseModel):
    """One other database."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    database: str = ""
    credentials: Path | None = None
    direction: Literal["both", "push", "pull"] = "both"
    types: tuple[str, ...] = Field(default=())

    @field_validator("url")
    @classmethod
    def _plain(cls, value: str) -> str:
        from orchestrator.couch.client import checked_url  # the rules for a URL stand in one place

        try:
            return checked_url(value)
        except SettingsError as error:
            raise ValueError(str(error)) from None

    @property
    def directions(self) -> tuple[str, ...]:
        """``push``, ``pull`` or both."""
        return (PUSH, PULL) if self.direction == "both" else (self.direction,)


def remotes(value: Mapping[str, Any], folder: Path) -> dict[str, Remote]:
    """The setting ``replicate``, read; paths are taken from the site's folder.

    Raises:
        SettingsError: naming each value that cannot be used.
    """
    found: dict[str, Remote] = {}
    faults = []
    for name, entry in value.items():
        try:
            remote = Remote.model_validate(entry)
        except ValidationError as error:
            for item in error.errors():
                place = " / ".join(str(part) for part in ("replicate", name, *item["loc"]))
                words = item["msg"].removeprefix("Value error, ")
                # The input is not repeated: somebody may have written a password where none belongs.
                faults.append(f"{place}: {words[:1].lower()}{words[1:]}")
            continue
        if remote.credentials is not None:
            remote = remote.model_copy(update={"credentials": folder / remote.credentials.expanduser()})
        found[str(name)] = remote
    if faults:
        raise SettingsError("; ".join(faults))
    return found


@dataclass(frozen=True)
class End:
    """A database as one end: its URL, and the login there."""

    url: str
    login: tuple[str, str] | None = field(default=None, repr=False)

    def as_json(self) -> dict[str, Any]:
        """As ``_replicate`` takes it. Holds the password: for the request alone, never for a log or a document."""
        if self.login is None:
            return {"url": self.url}
        return {"url": self.url, "auth": {"basic": {"username": self.login[0], "password": self.login[1]}}}


@dataclass(frozen=True)
class Link:
    """One direction to or from one other database."""

    remote: str
    direction: str
    source: End
    target: End
    types: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For people: ``push to centre``, ``pull from centre``."""
        return f"{self.direction} {'to' if self.direction == PUSH else 'from'} {self.remote}"

    def request(self) -> dict[str, Any]:
        """The body of ``POST /_replicate``."""
        return {
            "source": self.source.as_json(),
            "target": self.target.as_json(),
            "continuous": True,
            "selector": selector(self.types),
            "checkpoint_interval": CHECKPOINT,
        }

    def is_job(self, job: Mapping[str, Any]) -> bool:
        """Whether a row of ``_scheduler/jobs`` is this link."""
        ends = (("source", self.source), ("target", self.target))
        return all(str(job.get(key, "")).rstrip("/") == end.url for key, end in ends)


def selector(types: Iterable[str]) -> dict[str, Any]:
    """Which documents travel: none of the design, and of the types that are named, if any are."""
    plain: dict[str, Any] = {"_id": {"$regex": "^[^_]"}}
    names = sorted(set(types))
    if not names:
        return plain
    return {"$and": [plain, {"$or": [{"type": {"$in": names}}, {"_deleted": True}]}]}


def links(
    here: End, database: str, found: Mapping[str, Remote], logins: Mapping[str, tuple[str, str] | None]
) -> list[Link]:
    """The links that a site's settings ask for.

    Args:
        here: this site's database.
        database: its name, which the others have too unless they say otherwise.
        logins: the login at each of the others.
    """
    made = []
    for name, remote in found.items():
        there = End(f"{remote.url}/{quote(remote.database or database, safe='')}", logins.get(name))
        for direction in remote.directions:
            source, target = (here, there) if direction == PUSH else (there, here)
            made.append(Link(name, direction, source, target, remote.types))
    return made


# --- how they are doing -----------------------------------------------------------------------------------------------


@dataclass
class State:
    """One link as it was found: what ``replicate status`` shows.

    Attributes:
        state: ``running``, ``crashing``, ``stopped`` (nothing replicates), ``paused`` (a person stopped it), or
            ``unknown`` (the server here cannot be asked).
        behind: changes that have not gone over; None where the source cannot be asked.
        since: when the last checkpoint was made, as text, where something is behind.
        refused: documents that the target has refused in this run.
        reason: why it does not run.
    """

    link: Link
    state: str
    job: str = ""
    behind: int | None = None
    since: str = ""
    written: int = 0
    refused: int = 0
    reason: str = ""
    reachable: bool = True

    def as_json(self) -> dict[str, Any]:
        """For programs, and for the page. Holds no login."""
        return {
            "remote": self.link.remote, "direction": self.link.direction,
            "source": self.link.source.url, "target": self.link.target.url, "types": list(self.link.types),
            "state": self.state, "job": self.job, "behind": self.behind, "since": self.since or None,
            "written": self.written, "refused": self.refused, "reason": self.reason, "reachable": self.reachable,
        }  # fmt: skip


START, RESTART, STOP, LEAVE = "start", "restart", "stop", "leave"


@dataclass
class Memory:
    """What the watcher remembers of one link between its rounds; times are monotonic seconds."""

    progress: Any = None
    moved: float = 0.0
    crashed: float | None = None


def repair(state: State, memory: Memory, progress: Any, now: float) -> str:
    """What to do about a link: one that is gone is started, one that crashed or stands still is begun anew.

    Args:
        progress: anything that changes whenever the replication does something.
        now: monotonic seconds.
    """
    if state.state == "paused":
        return STOP if state.job else LEAVE
    if state.state == "stopped":
        memory.crashed, memory.moved = None, now
        return START
    if state.state == "crashing":
        if not state.reachable:
            memory.crashed = None  # the other end is away: it is not the replication's fault
            return LEAVE
        if memory.crashed is None:
            memory.crashed = now
        if now - memory.crashed < CRASHED:
            return LEAVE
        memory.crashed = None
        return RESTART
    memory.crashed = None
    if progress != memory.progress or not state.behind or state.state != "running":
        memory.progress, memory.moved = progress, now
        return LEAVE
    if now - memory.moved < STALLED:
        return LEAVE
    memory.moved = now
    return RESTART
