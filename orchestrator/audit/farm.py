"""The farms of a site, for the audit: their jobs and their spool, beside the documents that wait for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator import batchjobs, documents
from orchestrator.audit.findings import Finding
from orchestrator.engine.farmworld import World
from orchestrator.errors import OrchestratorError
from orchestrator.schedulers import Query, get
from orchestrator.transports import transport_to

if TYPE_CHECKING:
    from orchestrator.chain import Chain
    from orchestrator.settings import Settings


@dataclass
class Awaited:
    """A batch job that documents wait for: its number, where that is known, and the attempts."""

    number: str = ""
    attempts: dict[str, str] = field(default_factory=dict)


def awaited(held: Iterable[Mapping[str, Any]], identity: str) -> dict[str, Awaited]:
    """The jobs, by name, that documents in the hands of the farm daemon ``identity`` wait for."""
    jobs: dict[str, Awaited] = {}
    for document in held:
        found = documents.holder(document)
        if found is None or found[1].get("poller") != identity:
            continue
        attempt = str(found[1].get("attempt"))
        job = jobs.setdefault(str(found[1].get("job")), Awaited())
        job.attempts[attempt] = str(document.get("_id"))
        job.number = job.number or str(batchjobs.job_of(document, attempt).get("number") or "")
    return jobs


def look(
    chain: Chain, settings: Settings, name: str, held: Iterable[Mapping[str, Any]], alive: bool | None
) -> Iterator[Finding]:
    """What is wrong between one farm and the documents. ``alive``: whether its daemon lives."""
    farm, identity = chain.farms[name], batchjobs.identity(settings.site, name)
    jobs = awaited(held, identity)
    if jobs and alive is False:
        count = sum(len(job.attempts) for job in jobs.values())
        yield Finding("farm-daemon-gone", name, f"{count} documents wait for {len(jobs)} jobs")
    try:
        scheduler = get(
            farm.scheduler, programs=farm.programs, environment=farm.environment, settings=farm.settings
        )
        prefix = batchjobs.prefix(settings.url, settings.database, identity)
        with transport_to(farm.access) as transport:
            world = World(scheduler, transport, farm.spool.rstrip("/"), Query(prefix, farm.user))
            yield from _compare(world, jobs, alive)
    except OrchestratorError as error:
        yield Finding("not-looked-at", f"farm {name}", str(error))


def _compare(world: World, jobs: Mapping[str, Awaited], alive: bool | None) -> Iterator[Finding]:
    for name in world.jobs():
        if name not in jobs:
            yield Finding("job-files-left", f"{world.spool}/jobs/{name}", "no document waits for this job")
    listing = world.queue()
    for number, name in {(job.number, job.name) for job in listing.jobs if not job.state.final}:
        if name not in jobs:
            yield Finding("job-unwanted", name, f"number {number}")
    if alive or not listing.complete:
        return  # the daemon asks three witnesses and gives them time; until it has decided nothing is wrong
    history = world.history()
    for name, job in jobs.items():
        known = listing.named(name) or (history.named(name) if history else ())
        if not known and not world.look(name).results:
            first = next(iter(job.attempts.values()))
            yield Finding("job-unknown", name, f"{len(job.attempts)} documents wait for it, as {first}", first)
