"""What a chain says of the farms that its steps can be sent to. Pure: no farm is asked here."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field

from orchestrator.access import SiteAccess
from orchestrator.units import Bytes, Model, Seconds

#: Batch systems, as ``orchestrator.schedulers`` knows them; a test compares.
SCHEDULERS = ("slurm", "gridengine", "htcondor", "pbs", "fsched")


class Degrade(Model):
    """What the next job of a document asks for, after one that ran out of time or memory."""

    time: float = Field(1.0, ge=1, le=100, description="its time limit times this, once more each time")
    memory: float = Field(1.0, ge=1, le=100, description="its memory limit times this, once more each time")
    queue: str = Field("", max_length=100, description="another queue or partition; empty: the same")


class Limits(Model):
    """How much may be at a farm at once. Each job of an array counts."""

    queued: int = Field(1000, ge=1, description="no further submission while so many of our jobs wait there")
    jobs: int = Field(2000, ge=1, description="our jobs there at once, waiting or running")
    array: int = Field(1000, ge=1, le=100_000, description="jobs in one array, which is one call of the scheduler")
    submissions_per_minute: float = Field(30.0, gt=0, description="calls of the scheduler that submit, in a minute")


class Grace(Model):
    """How long a witness of a job's fate may be late."""

    submission: Seconds = Field(
        90.0, description="so late may a submission without an answer appear in the queue; its command ends sooner"
    )
    unknown: Seconds = Field(
        120.0, description="a job that neither the queue nor the history knows counts as lost after this"
    )
    result: Seconds = Field(
        60.0, description="a result file of a job that has ended may come late, over a shared file system"
    )


class Farm(Model):
    """A batch system, and the way to it."""

    scheduler: str = Field(description="the batch system: " + ", ".join(SCHEDULERS[:-1]) + "; fsched for trying out")
    transport: Literal["local", "ssh"] = Field(
        "local", description="local: its commands run on this machine; ssh: on another one, see access"
    )
    access: SiteAccess | None = Field(None, description="with transport ssh: the machine and the account, see below")
    spool: str = Field(description="folder at the farm, seen by its nodes: chunk files, results, the jobs' output")
    output: str = Field("", description="folder at the farm where steps put their files; empty: the site's data folder")
    python: tuple[str, ...] = Field(
        (), description="the Python there that has the orchestrator and the steps, as a list of words; empty: what "
        "`orchestrator site install` has put there, and without that, with transport local, this one",
    )  # fmt: skip
    path: tuple[str, ...] = Field((), description="further folders there in which steps are looked for")
    programs: str = Field("", description="folder of the scheduler's programs, where they are not on the PATH")
    environment: dict[str, str] = Field(
        default_factory=dict, description="variables that the scheduler's programs need, such as SLURM_CONF; no secrets"
    )
    settings: dict[str, str] = Field(default_factory=dict, description="settings of the scheduler's own kind")
    options: tuple[str, ...] = Field((), description="further words for the submit command, as they are")
    user: str = Field("", description="the account there, where the scheduler shows it by another name")
    results: Literal["spool", "both"] = Field(
        "spool", description="how results come back: by the spool alone, or both by it and straight from the nodes to "
        "the run database, where these can reach it",
    )  # fmt: skip
    database: str = Field(
        "", description="with results: both, the run database as the nodes reach it, such as "
        "https://couch.centre.example:6984/runs; no login in it",
    )  # fmt: skip
    credentials: str = Field(
        "", description="with results: both, a file at the farm (mode 0600) with the nodes' login; empty: "
        "ORCHESTRATOR_COUCH_USER and ORCHESTRATOR_COUCH_PASSWORD of the job's environment, if they are set",
    )  # fmt: skip
    every: Seconds = Field(10.0, gt=0, description="how often the farm is asked and sent new jobs")
    setup_time: Seconds = Field(
        120.0, description="added to a job's time limit, for its start and for telling what it has done"
    )
    setup_memory: Bytes = Field(
        300_000_000, description="added to a job's memory limit, for the runner beside the step"
    )
    limits: Limits = Field(default_factory=Limits, description="how much may be there at once")
    grace: Grace = Field(default_factory=Grace, description="how long a witness of a job's fate may be late")


def farm_faults(farm: Farm) -> list[str]:
    """Checks across a farm's fields, each of which ends in a sentence."""
    faults = []
    if farm.scheduler not in SCHEDULERS:
        faults.append(f"scheduler: no batch system {farm.scheduler!r} (known: {', '.join(SCHEDULERS)})")
    faults += _direct_faults(farm)
    for name in ("spool", "output", "credentials"):
        value = getattr(farm, name)
        if value and (not value.startswith("/") or not value.isprintable()):
            faults.append(f"{name}: {value!r} must be an absolute path at the farm, without line breaks")
    if farm.transport == "ssh":
        if farm.access is None:
            faults.append("access: with transport ssh, say which machine: access: {host: ..., user: ...}")
        if not farm.output:
            faults.append("output: with transport ssh, say where steps put their files there")
    elif farm.access is not None:
        faults.append("access: this is for transport ssh only")
    return faults


def _direct_faults(farm: Farm) -> list[str]:
    """Of the way straight to the database. No address is repeated: it may hold a password."""
    if farm.results == "spool":
        return ["database, credentials: these are for results: both only"] if farm.database or farm.credentials else []
    parts = urlsplit(farm.database)
    if "@" in parts.netloc:
        return ["database: it holds a user or a password: put them into the file of 'credentials', mode 0600, there"]
    if parts.scheme not in ("http", "https") or not parts.netloc or not parts.path.strip("/") or parts.query:
        return ["database: with results: both, write the run database as the nodes reach it: http://host:5984/runs"]
    return []


__all__ = ["SCHEDULERS", "Degrade", "Farm", "Grace", "Limits", "farm_faults"]
