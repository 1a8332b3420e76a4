"""The batch jobs' pages, as plain JSON: what each farm has in hand and may have, what is paused, one job's documents.

Logs are read from a farm's spool where this machine sees it. Of a farm across SSH the page opens no connection: it has
no keys, and a page must not hang on a machine elsewhere. It says which command shows the log instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator import control, joblist
from orchestrator.chain import Chain
from orchestrator.control import Control
from orchestrator.errors import NotFound
from orchestrator.joblist import NAME, STATES, Listed
from orchestrator.web import human, paging
from orchestrator.web.pollers import PREFIX, Pollers
from orchestrator.web.roots import Roots
from orchestrator.web.source import DatabaseLike, RowLike, Source

#: Jobs on the page, those that wait longest; the counts are of all.
JOBS = 300
#: On a large database the list of jobs may lag by so much, in seconds.
JOBS_SECONDS = 3.0
#: Changes of what is paused and limited that are shown, the last ones.
HISTORY = 20
#: Documents of a job on a page.
ROWS = 100


def controls(database: DatabaseLike, sites: list[str]) -> dict[str, Control]:
    """What people have paused and limited, by site."""
    found = {}
    for site in sites:
        try:
            found[site] = Control.read(site, database.get(control.name_of(site)))
        except NotFound:
            found[site] = Control(site)
    return found


def overview(source: Source, database: DatabaseLike, chain: Chain | None, pollers: Pollers) -> dict[str, Any]:
    """All that the page of jobs shows."""
    now = source.now()
    rows = source.kept("jobs", JOBS_SECONDS, database, lambda: source.rows(database, "farm/jobs", group=True))
    jobs = joblist.listed(rows)
    daemons = _daemons(database, pollers, now)
    places = {(job.site, job.farm) for job in jobs} | set(daemons)
    if chain is not None:
        places |= {(step.site, step.farm) for site in chain.sites for step in chain.farmed(site) if step.farm}
    sites = sorted({site for site, _ in places} | set(chain.sites if chain is not None else ()))
    said = controls(database, sites)
    names = {} if chain is None else {step.key: step.name for step in chain.steps}
    return {
        "now": human.iso(now),
        "farms": [
            _farm(site, farm, chain, jobs, daemons.get((site, farm)), said[site]) for site, farm in sorted(places)
        ],
        "sites": [] if chain is None else [{"site": site, "steps": _steps(chain, site)} for site in chain.sites],
        "stops": [
            {**stop.to_json(), "site": site, "words": stop.words(site)}
            for site, one in said.items()
            for stop in one.stops
        ],
        "history": [
            {**entry, "site": site} for site, one in said.items() for entry in reversed(one.history[-HISTORY:])
        ],
        "jobs": [{**job.to_json(), "step_name": names.get(job.step, job.step)} for job in jobs[:JOBS]],
        "total": len(jobs),
    }


def _steps(chain: Chain, site: str) -> list[str]:
    """The names of all steps that belong to a site, of lanes and gathers too."""
    return [step.name for one in (chain, *chain.branches().values()) for step in one.steps if step.site == site]


def _daemons(database: DatabaseLike, pollers: Pollers, now: float) -> dict[tuple[str, str], dict[str, Any]]:
    """The farms' daemons by site and farm, with what they say of their farm."""
    said = {str(beat.get("id")): beat for beat in database.local_docs(PREFIX + "farm:", PREFIX + "farm:\ufff0")}
    found = {}
    for beat in pollers.beats(database, now):
        more = said.get(beat["id"])
        if more is not None:
            away = more.get("away")
            found[str(more.get("site")), str(more.get("farm"))] = {
                "host": beat["host"], "pid": beat["pid"], "alive": beat["alive"], "seen": beat["seen"],
                "away": dict(away) if isinstance(away, dict) else None,
            }  # fmt: skip
    return found


def _farm(
    site: str, name: str, chain: Chain | None, jobs: list[Listed], daemon: Mapping[str, Any] | None, said: Control
) -> dict[str, Any]:
    mine = [job for job in jobs if (job.site, job.farm) == (site, name)]
    farm = chain.farms.get(name) if chain is not None else None
    limits = []
    if farm is not None:
        changed = {limit.name: limit for limit in said.limits if limit.farm == name}
        for key, value in said.apply(name, farm.limits).model_dump().items():
            more = changed[key].to_json() if key in changed else {}
            limits.append({"by": "", "at": "", "reason": "", **more, "name": key, "value": value,
                           "in_chain": getattr(farm.limits, key)})  # fmt: skip
    steps = chain.farmed(site, name) if chain is not None else ()
    wanted = {"site", f"farm:{name}", *(f"step:{step.name}" for step in steps)}
    stops = [stop for stop in said.stops if stop.scope.key in wanted]
    return {
        "site": site,
        "farm": name,
        "scheduler": farm.scheduler if farm is not None else "",
        "transport": farm.transport if farm is not None else "",
        "steps": [step.name for step in steps],
        "daemon": daemon,
        "away": daemon["away"] if daemon is not None and daemon["alive"] else None,
        "stops": [stop.words(site) for stop in stops],
        "stopped": any(stop.scope.key == f"farm:{name}" for stop in stops),
        "states": {state: sum(job.states.get(state, 0) for job in mine) for state in STATES},
        "jobs": len(mine),
        "limits": limits,
    }


def job(
    source: Source, database: DatabaseLike, chain: Chain | None, name: str, at: str | None, task: int | None,
    limit: int = ROWS,
) -> dict[str, Any] | None:  # fmt: skip
    """One batch job, also one that has ended: its documents, a page at a time, and the end of what it has written.

    None where no document has had a job of that name.
    """
    if not NAME.match(name):
        return None

    def read(**params: Any) -> list[RowLike]:
        return source.rows(database, "farm/documents", include_docs=True, **params)

    cut = paging.page(read, low=[name], high=[name, {}], at=paging.cursor(at), limit=limit)
    members = joblist.members(cut.rows)
    if not members:
        return None
    first = members[0]
    step = next((one for one in chain.steps if one.key == first.step), None) if chain is not None else None
    current = None
    if step is not None:
        span = {"startkey": [step.site, first.farm, name], "endkey": [step.site, first.farm, name, {}]}
        current = next(iter(joblist.listed(source.rows(database, "farm/jobs", group=True, **span))), None)
    busy = min(members, key=lambda one: (one.state != "running", one.task))
    shown = task or busy.task
    return {
        "name": name,
        "number": first.number,
        "farm": first.farm,
        "step": first.step,
        "step_name": step.name if step is not None else first.step,
        "site": step.site if step is not None else "",
        "job": None if current is None else current.to_json(),
        "documents": [one.to_json() for one in members],
        "tasks": sorted({one.task for one in members}),
        "task": shown,
        **_logs(chain, first.farm, name, shown),
        "next": cut.next,
        "previous": cut.previous,
    }


def _logs(chain: Chain | None, farm: str, name: str, task: int) -> dict[str, Any]:
    """The ends of a task's output where they can be read here; ``elsewhere`` where the farm is across SSH."""
    found = chain.farms.get(farm) if chain is not None else None
    if found is None or found.transport != "local":
        return {"stdout": None, "stderr": None, "elsewhere": found is not None}
    roots = Roots(Path(found.spool) / "logs")
    tails = {which: roots.tail(f"{name}/{kind}-{task}") for which, kind in (("stdout", "out"), ("stderr", "err"))}
    return {**tails, "elsewhere": False}
