"""The overview: how many documents stand where, how long the oldest has waited, who works, what was done lately."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.chain import Chain
from orchestrator.web import deployed, human
from orchestrator.web.branches import overviews
from orchestrator.web.jobs import controls
from orchestrator.web.lists import count_held
from orchestrator.web.pollers import Pollers, running
from orchestrator.web.source import DatabaseLike, Source
from orchestrator.web.states import STATES, kind_counts, kind_of, outlines

#: The span of the small curves of throughput, in hours.
HOURS = 24
#: On a large database, sums over all documents may lag by so much, in seconds. The spans differ, so that no one read
#: pays for all of them.
STATUS_SECONDS = 2.0
HELD_SECONDS = 4.0
STEPS_SECONDS = 3.0
HOUR_SECONDS = 5.0
DAQ_SECONDS = 11.0
PAST_SECONDS = 61.0
#: Recent changes shown.
RECENT = 12


def overview(
    source: Source, database: DatabaseLike, chain: Chain | None, pollers: Pollers, title: str
) -> dict[str, Any]:
    """All that the overview shows, as plain JSON. Raises Setup where there is nothing to read yet."""
    now = source.now()
    counts: dict[int, dict[str, dict[str, Any]]] = {}
    by_step = source.kept("steps", STEPS_SECONDS, database, lambda: source.rows(database, "pages/steps", group=True))
    for row in by_step:
        number, state = row.key
        counts.setdefault(number, {})[state] = row.value
    steps = []
    for outline in outlines(chain, counts):
        by_state = counts.get(outline.number, {})
        hours = throughput(source, database, outline.number, now)
        seconds = sum(h["seconds"] for h in hours)
        done = sum(h["done"] for h in hours)
        steps.append(
            {
                "number": outline.number,
                "name": outline.name,
                "key": outline.key,
                "site": outline.site,
                "executor": outline.executor,
                "counts": {s: int(by_state.get(s, {}).get("count", 0)) for s in STATES},
                "total": sum(int(v.get("count", 0)) for v in by_state.values()),
                "oldest": {s: _oldest(by_state.get(s)) for s in ("waiting", "ready", "queued", "in progress")},
                "hours": hours,
                "this_hour": hours[-1]["done"],
                "last_day": done,
                "mean_seconds": seconds / done if done else None,
            }
        )
    names = {s["key"]: s["name"] for s in steps}
    beats = pollers.beats(database, now)
    by_status = source.kept(
        "statuses", STATUS_SECONDS, database, lambda: source.rows(database, "pages/status", group_level=1)
    )
    statuses = {str(r.key[0]): int(r.value) for r in by_status}
    stops = stopped(database, chain)
    return {
        "title": title,
        "now": human.iso(now),
        "chain": None if chain is None else chain.name,
        "database": database.name,
        "documents": sum(statuses.values()),
        "statuses": statuses,
        "kinds": kind_counts(statuses),
        "steps": steps,
        "daq": source.kept("daq", DAQ_SECONDS, database, lambda: daq(source, database)),
        "recent": recent(source, database),
        "running": running(source, database, beats, names),
        "pollers": [
            {k: v for k, v in beat.items() if k != "running"} | {"steps": [names.get(s, s) for s in beat["steps"]]}
            for beat in beats
        ],
        "warnings": [*deployed.warnings(database, chain), *(f"{one['words']}." for one in stops)],
        "stops": stops,
        "held": source.kept("held", HELD_SECONDS, database, lambda: count_held(source, database)),
        "branches": overviews(source, database, chain),
    }


def stopped(database: DatabaseLike, chain: Chain | None) -> list[dict[str, str]]:
    """What people have paused or drained; ``words`` says so."""
    said = controls(database, list(chain.sites) if chain is not None else [])
    return [
        {**stop.to_json(), "site": site, "words": stop.words(site)} for site, one in said.items() for stop in one.stops
    ]


def _oldest(stats: dict[str, Any] | None) -> str | None:
    """The time that the oldest document of a state has been in it since; the view's values are milliseconds."""
    if not stats or not stats.get("count") or not isinstance(stats.get("min"), int | float) or stats["min"] <= 0:
        return None
    return human.iso(stats["min"] / 1000)


def throughput(source: Source, database: DatabaseLike, number: int, now: float) -> list[dict[str, Any]]:
    """Documents done and seconds spent by one step in each of the last HOURS hours, the oldest first."""
    this_hour = datetime.fromtimestamp(now, UTC).replace(minute=0, second=0, microsecond=0)
    hours = [this_hour - timedelta(hours=back) for back in range(HOURS - 1, -1, -1)]
    first = hours[0]

    def read(since: datetime) -> dict[tuple[Any, ...], Any]:
        start = [number, since.year, since.month, since.day, since.hour]
        rows = source.rows(database, "pages/throughput", group=True, startkey=start, endkey=[number, {}])
        return {tuple(row.key[1:]): row.value for row in rows}

    # What was done in the hours that are over changes only where a step is done again.
    found = source.kept(("hours", number), PAST_SECONDS, database, lambda: read(first))
    found = found | source.kept(("hour", number), HOUR_SECONDS + number % 3, database, lambda: read(this_hour))
    made = []
    for hour in hours:
        stats = found.get((hour.year, hour.month, hour.day, hour.hour), {})
        done = int(stats.get("count", 0))
        made.append({"hour": hour.strftime("%Y-%m-%dT%H:00Z"), "done": done, "seconds": float(stats.get("sum", 0))})
    return made


def daq(source: Source, database: DatabaseLike) -> list[dict[str, Any]]:
    """Counts by the host that wrote the files and by the kind of status."""
    hosts: dict[Any, dict[str, int]] = {}
    for row in source.rows(database, "pages/daq", group=True):
        host, status = row.key
        hosts.setdefault(host if isinstance(host, str) else None, {})[str(status)] = int(row.value)
    return [
        {"hostname": host, "kinds": kind_counts(statuses), "total": sum(statuses.values())}
        for host, statuses in sorted(hosts.items(), key=lambda item: item[0] or "")
    ]


def recent(source: Source, database: DatabaseLike) -> list[dict[str, Any]]:
    """The documents that changed last, the newest first."""
    rows = source.rows(database, "pages/recent", descending=True, limit=RECENT)
    made = []
    for row in rows:
        status = row.value.get("status") if isinstance(row.value, dict) else row.value
        made.append({"id": row.id, "updated": row.key[0], "status": status, "kind": kind_of(status)})
    return made
