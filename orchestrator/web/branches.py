"""Lanes and gathers on the pages: the same views and documents, seen from a branch of the chain.

Every page of documents can show a lane or a gather in the place of the main lane: it is handed a `Seen` database and
that branch's steps, and knows no more of it. Each branch has views of its own, so all of it costs what the main lane's
pages cost, however many documents there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.chain import Chain
from orchestrator.engine.gathered import gather_of, groups_of, standing
from orchestrator.errors import NotFound
from orchestrator.gathering import IDENTITY, groups
from orchestrator.lanes import Branch
from orchestrator.web import human, paging
from orchestrator.web.pollers import PREFIX, Pollers
from orchestrator.web.source import DatabaseLike, RowLike, Source
from orchestrator.web.states import STATES, kind_counts, kind_of, outlines

#: A branch's sums over all documents may lag by so much on a large database, in seconds.
STEPS_SECONDS = 3.5
#: Members of a gather's document that its page names.
MEMBERS = 200
#: Groups of members on a page.
ROWS = 50


class Seen:
    """A database as a branch of the chain sees it, for reading."""

    def __init__(self, database: DatabaseLike, branch: Branch, data_type: str) -> None:
        self._database, self._branch, self._type = database, branch, data_type

    @property
    def name(self) -> str:
        """The database's."""
        return self._database.name

    def info(self) -> dict[str, Any]:
        """The database's."""
        return self._database.info()

    def get(self, id: str, /) -> dict[str, Any]:
        """A document, inward."""
        return self._inward(self._database.get(id))

    def local_docs(self, startkey: str, endkey: str, /) -> list[dict[str, Any]]:
        """As they are: they belong to no branch."""
        return self._database.local_docs(startkey, endkey)

    def view(self, name: str, /, **params: Any) -> Any:
        """The branch's view of that name, with the documents inward."""
        found = self._database.view(self._branch.view(name), **params)
        if self._branch.lane and params.get("include_docs"):
            found.rows[:] = [row._replace(doc=self._inward(row.doc)) if row.doc else row for row in found.rows]
        return found

    def _inward(self, document: dict[str, Any]) -> dict[str, Any]:
        return self._branch.inward(document, self._type) or {}


def seen(database: DatabaseLike, chain: Chain | None, name: str) -> tuple[DatabaseLike, Chain | None]:
    """The database and the chain of a lane or gather; of the empty name, as they are. Raises NotFound for none such."""
    if not name:
        return database, chain
    known = [] if chain is None else [*chain.lanes, *chain.gathers]
    if chain is None or name not in known:
        raise NotFound(f"the chain has no lane or gather {name!r}; there are: {', '.join(known) or 'none'}")
    of = chain.of(name)
    return Seen(database, of.branch, chain.type), of


def lanes_of(chain: Chain | None, document: Mapping[str, Any]) -> list[str]:
    """The side lanes that a document goes through."""
    return list(chain.lanes) if chain is not None and document.get("type") == chain.type else []


# --- the overview ---


def overviews(source: Source, database: DatabaseLike, chain: Chain | None) -> list[dict[str, Any]]:
    """Counts by step and state of every lane and gather."""
    made = []
    for name, one in (chain.branches() if chain is not None else {}).items():
        inner = Seen(database, one.branch, chain.type if chain is not None else "")
        counts: dict[int, dict[str, Any]] = {}
        for row in _sums(source, database, inner, name, "pages/steps", 2):
            number, state = row.key
            counts.setdefault(number, {})[state] = row.value
        statuses = {str(r.key[0]): int(r.value) for r in _sums(source, database, inner, name, "pages/status", 1)}
        made.append(
            {
                "name": name,
                "lane": one.branch.lane,
                "description": one.description,
                "type": one.type,
                "documents": sum(statuses.values()),
                "kinds": kind_counts(statuses),
                "steps": [
                    {
                        "key": outline.key,
                        "name": outline.name,
                        "site": outline.site,
                        "executor": outline.executor,
                        "counts": {s: int(counts.get(outline.number, {}).get(s, {}).get("count", 0)) for s in STATES},
                        "oldest": {s: _since(counts.get(outline.number, {}).get(s)) for s in ("waiting", "ready")},
                    }
                    for outline in outlines(one)
                ],
            }
        )
    return made


def _sums(
    source: Source, database: DatabaseLike, inner: DatabaseLike, name: str, view: str, level: int
) -> list[RowLike]:
    """Sums of a branch's view over all documents."""
    return source.kept(
        (view, name), STEPS_SECONDS, database, lambda: source.rows(inner, view, group_level=level)
    )  # fmt: skip


def _since(stats: Any) -> str | None:
    least = stats.get("min") if isinstance(stats, dict) else None
    return human.iso(least / 1000) if isinstance(least, int | float) and least > 0 else None


# --- gathers ---


def of_run(source: Source, database: DatabaseLike, chain: Chain | None, run: str) -> list[dict[str, Any]]:
    """What gathers make of a run: its document, or how many of its members are ready."""
    made = []
    for name, gather in (chain.gathers if chain is not None else {}).items():
        if gather.step or gather.period:
            continue  # bundles are made of many runs: each file's page names its own
        id = f"{name}:{run}"
        try:
            body: dict[str, Any] | None = database.get(id)
        except NotFound:
            body = None
        group = next(iter(groups_of(lambda view, **p: source.rows(database, view, **p), name, run)), None)
        status = body.get("status") if body else None
        made.append(
            {
                "gather": name, "id": id if body else None, "status": status, "kind": kind_of(status) if body else "",
                "count": group.count if group else 0, "ready": group.ready if group else 0,
                "stale": bool(body and (group is None or not group.whole or body.get("of") != group.stamp)),
            }
        )  # fmt: skip
    return made


def gathered(source: Source, database: DatabaseLike, chain: Chain, document: Mapping[str, Any]) -> dict[str, Any]:
    """What a gather's document is made of, and whether that is still so."""
    name = gather_of(chain, document)
    gather = chain.gathers[name]
    members = document.get("members")
    listed = [one for one in members if isinstance(one, dict)] if isinstance(members, list) else []
    earlier = document.get("earlier")
    said = standing(lambda view, **params: source.rows(database, view, **params), chain, document)
    return {
        "gather": name,
        "after": list(gather.after),
        "period": document.get("period"),
        "step": gather.step,
        "members": [
            {key: one.get(key) for key in ("id", "run_name", "file_number", "file", "size")} for one in listed[:MEMBERS]
        ],
        "count": len(listed),
        "bytes": document.get("bytes"),
        "earlier": [
            {"at": one.get("at"), "status": one.get("status"), "members": one.get("members")}
            for one in (earlier if isinstance(earlier, list) else [])
            if isinstance(one, dict)
        ],
        **{key: value for key, value in said.to_json().items() if key in ("stale", "gone")},
    }


def gather(
    source: Source, database: DatabaseLike, chain: Chain | None, pollers: Pollers, name: str, at: str, limit: int = ROWS
) -> dict[str, Any]:
    """A gather's page: what it gathers, who does, what waits, and the groups of members there are, a page at a time.

    Raises NotFound for a gather that the chain does not have.
    """
    if chain is None or name not in chain.gathers:
        known = ", ".join(chain.gathers) if chain is not None else ""
        raise NotFound(f"the chain has no gather {name!r}; there are: {known or 'none'}")
    wanted = chain.gathers[name]
    position = paging.cursor(at)

    def read(**params: Any) -> list[RowLike]:
        params.pop("startkey_docid", None)
        return source.rows(database, f"gather-{name}/members", group=True, **params)

    cut = paging.page(read, at=position, limit=limit, descending=True)
    found = groups((row.key, row.value) for row in cut.rows)
    made = _made(source, database, name, [one.run for one in found]) if not wanted.step else {}
    daemons, waiting = _daemons(database, pollers, source.now(), name, wanted.site)
    return {
        "name": name,
        "description": wanted.description,
        "type": wanted.type,
        "site": wanted.site,
        "after": list(wanted.after),
        "period": wanted.period,
        "settle": wanted.settle,
        "every": wanted.every,
        "own": wanted.own,
        "largest": wanted.largest,
        "step": wanted.step,
        "leave_out": list(wanted.leave_out),
        "daemons": daemons,
        "waiting": waiting,
        "groups": [
            {
                "period": one.period, "run": one.run, "count": one.count, "ready": one.ready, "size": one.size,
                "id": made.get(one.run, {}).get("id"), "status": made.get(one.run, {}).get("status"),
                "kind": kind_of(made.get(one.run, {}).get("status")),
                "stale": one.run in made and (not one.whole or made[one.run].get("of") != one.stamp),
            }
            for one in found
        ],
        "branch": next(one for one in overviews(source, database, chain) if one["name"] == name),
        "next": cut.next,
        "previous": cut.previous,
    }  # fmt: skip


def _made(source: Source, database: DatabaseLike, name: str, runs: list[Any]) -> dict[Any, dict[str, Any]]:
    """The documents made of these runs, by run."""
    keys = [["", run] for run in runs]
    if not keys:
        return {}
    found = {}
    for row in source.rows(database, f"gather-{name}/made", keys=keys, reduce=False):
        value = row.value if isinstance(row.value, dict) else {}
        found[row.key[1]] = {"id": row.id, "status": value.get("status"), "of": value.get("of")}
    return found


def _daemons(
    database: DatabaseLike, pollers: Pollers, now: float, name: str, site: str
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Who gathers, and what they say waits, and why."""
    head = f"{PREFIX}{IDENTITY}{site}:"
    said = {str(beat.get("id")): beat for beat in database.local_docs(head, head + "\ufff0")}
    daemons, waiting = [], {}
    for beat in pollers.beats(database, now):
        more = said.get(beat["id"])
        if more is None:
            continue
        daemons.append({key: beat[key] for key in ("id", "host", "pid", "alive", "seen")})
        told = more.get("waiting")
        mine = told.get(name) if isinstance(told, dict) else None
        if beat["alive"] and isinstance(mine, dict):
            waiting.update({str(label): str(reason) for label, reason in mine.items()})
    return daemons, [{"label": label, "reason": reason} for label, reason in sorted(waiting.items())]
