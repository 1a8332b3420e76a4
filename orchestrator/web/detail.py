"""A document's page and a run's page, as plain JSON: each step in full, what was tried, logs, plots, the header."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from orchestrator import reasons
from orchestrator.chain import Chain
from orchestrator.control import Control
from orchestrator.engine.gathered import gather_of
from orchestrator.facts import explained
from orchestrator.people import possible
from orchestrator.web import branches, human, lists
from orchestrator.web.jobs import controls
from orchestrator.web.pollers import Pollers
from orchestrator.web.roots import Roots
from orchestrator.web.source import DatabaseLike, Source
from orchestrator.web.states import Outline, Standing, kind_counts, kind_of, outlines, standings

#: Attempts shown, the last ones: a step that was tried more often than that has said what it has to say.
ATTEMPTS = 50
#: Resets of a document that are shown, the last ones.
PASTS = 20
#: Pictures listed for one step.
PLOTS = 200
#: Files of a run whose pictures are shown on the run's page, the last ones; more would be a page of megabytes.
PLOT_FILES = 4

#: What an attempt's document is asked for.
_ATTEMPT = (
    *("number", "state", "error_class", "reason", "host", "pid", "started", "finished", "seconds"),
    *("cpu_seconds", "max_rss", "exit_code", "attempt", "log", "log_tail"),
)
#: Parts of a step's record that have a place of their own on the page.
_SHOWN = ("result", "software", "log")


@dataclass(frozen=True)
class Picture:
    """A picture that a step says it left. ``scope`` is ``run`` for one that is of the whole run, not of the file."""

    path: str
    title: str
    scope: str = ""


def pictures(proc: Mapping[str, Any]) -> list[Picture]:
    """The pictures that a step left: every PNG named under a key of its result that speaks of plots.

    A step may write one path, a list of them, a list of ``{"file", "title", "scope"}``, or a table of titles and paths.
    """
    result = proc.get("result")
    if not isinstance(result, Mapping):
        return []
    found: list[Picture] = []
    for key in ("plots", "plot", "pictures", "images", "png"):
        found += _pictures(result.get(key), "", "")
    return found[:PLOTS]


def _pictures(value: Any, title: str, scope: str) -> Iterator[Picture]:
    if isinstance(value, str):
        if value.lower().endswith(".png"):
            yield Picture(value, title or PurePosixPath(value).stem, scope)
    elif isinstance(value, list):
        for entry in value[:PLOTS]:
            yield from _pictures(entry, title, scope)
    elif isinstance(value, Mapping):
        path = value.get("file", value.get("path"))
        if isinstance(path, str):
            named = str(value.get("title") or value.get("name") or title)
            yield from _pictures(path, named, "run" if value.get("scope") == "run" else "")
        else:
            for name, entry in list(value.items())[:PLOTS]:
                yield from _pictures(entry, str(name), scope)


def plots(document: Mapping[str, Any], steps: Sequence[Outline], roots: Roots) -> list[dict[str, Any]]:
    """The pictures of all steps: ``{"step", "index", "title", "file", "scope", "shown"}``."""
    made = []
    for step in steps:
        proc = document.get(step.key)
        for index, found in enumerate(pictures(proc if isinstance(proc, Mapping) else {})):
            named = {"step": step.key, "index": index, "title": found.title, "file": found.path, "scope": found.scope}
            made.append(named | {"shown": roots.find(found.path) is not None})
    return made


def why(
    chain: Chain | None, document: Mapping[str, Any], now: float, said: Mapping[str, Control] = reasons.NONE_PAUSED
) -> str:
    """Why the document is where it is: the sentence that ``orchestrator show`` says too. ``said``: what is paused."""
    if chain is None:
        return f"Its status is {document.get('status')!r}. This page was started without a chain, and knows no more."
    return reasons.why(chain, document, now, said)


def why_step(
    chain: Chain | None, document: Mapping[str, Any], standing: Standing, now: float,
    said: Mapping[str, Control] = reasons.NONE_PAUSED,
) -> str:  # fmt: skip
    """Why one step has not begun, or what became of it."""
    if standing.state == "done":
        taken = human.duration(standing.proc.get("seconds"))
        return f"Done in {taken}." if taken else "Done."
    if chain is None:
        return ""
    step = next(s for s in chain.steps if s.key == standing.outline.key)
    if standing.state == "ready":
        return reasons.ready_because(document, step, now, said)
    if standing.state != "waiting":
        return reasons.why(chain, document, now, said)
    return reasons.why_not_ready(chain, document, step, now, said) or ""


def document(
    source: Source,
    database: DatabaseLike,
    chain: Chain | None,
    steps: Sequence[Outline],
    logs: Roots,
    plot_files: Roots,
    pollers: Pollers,
    id: str,
    site: str = "here",
    lease: float = 60.0,
    spool: Path | None = None,
) -> dict[str, Any]:
    """All about one document. Raises NotFound for one that there is not.

    Args:
        steps: the chain's, or those that the database knows where there is no chain.
        site: where the page is; the explanation speaks from there.
        lease: seconds after which a silent daemon counts as dead, where it does not say itself.
    """
    now = source.now()
    body = database.get(id)
    whole, gathered, branch = chain, None, ""
    if chain is not None and body.get("type") != chain.type:
        branch = gather_of(chain, body)
        if branch:  # a run, a bundle: it has a chain of its own
            gathered = branches.gathered(source, database, chain, body)
            database, chain = branches.seen(database, chain, branch)
        steps = outlines(chain) if branch else ()  # else an attempt, a note: none of the chain's business
    said = controls(database, list(whole.sites) if whole is not None else [])
    tried = attempts(source, database, id)
    world = _World(source, pollers, logs, said, tried, now, site, lease, spool)
    own = _branch(world, database, chain, steps, body)
    lanes = []
    for name in branches.lanes_of(whole, body):
        inner, lane = branches.seen(database, whole, name)
        assert lane is not None
        turned = lane.branch.inward(body, body["type"]) or {}
        found = _branch(world, inner, lane, outlines(lane), turned, f"{name}_")
        lanes.append({"name": name, "description": lane.description, **found})
    return {
        "id": id,
        "type": body.get("type"),
        "branch": branch,
        "run": body.get("run_name"),
        "file_number": body.get("file_number"),
        "file": body.get("file"),
        "size": body.get("size"),
        "checksum": body.get("checksum"),
        "format": body.get("format"),
        "hostname": body.get("hostname"),
        "site": body.get("site"),
        "priority": body.get("priority"),
        "registered": body.get("registered"),
        "updated": body.get("updated"),
        **own,
        "lanes": lanes,
        "gathered": gathered,
        "operation": body.get("operation") if isinstance(body.get("operation"), dict) else None,
        "past": past(source, database, id),
        "plots": [*plots(body, steps, plot_files), *_plots_of_lanes(whole, body, plot_files)],
        "batch_jobs": [j for j in _list(body.get("batchjob")) if isinstance(j, dict)],
        "header": body.get("header") if isinstance(body.get("header"), dict) else {},
        "document": body,
    }


@dataclass(frozen=True)
class _World:
    """What the branches of a document's page share. ``said``: what is paused; ``tried``: the attempts that failed."""

    source: Source
    pollers: Pollers
    logs: Roots
    said: Mapping[str, Control]
    tried: list[dict[str, Any]]
    now: float
    site: str
    lease: float
    spool: Path | None


def _branch(
    world: _World, database: DatabaseLike, chain: Chain | None, steps: Sequence[Outline], body: dict[str, Any],
    head: str = "",
) -> dict[str, Any]:  # fmt: skip
    """One lane of a document, or all of one that has no lanes. ``head`` stands before its keys in the document."""
    made = standings(body, steps)
    held = any(s.state == "in progress" for s in made)
    running = world.pollers.progress(database, world.now) if held else {}
    by_key: dict[str, list[dict[str, Any]]] = {}
    for attempt in world.tried:
        by_key.setdefault(str(attempt["step"]), []).append(attempt)
    explanation = None
    if chain is not None:
        explanation = explained(database, chain, body, world.site, world.lease, world.now, spool=world.spool).to_json()
    return {
        "status": body.get("status"),
        "kind": kind_of(body.get("status")),
        "sentence": why(chain, body, world.now, world.said),
        "explanation": explanation,
        "acts": possible(chain, body) if chain is not None and body.get("type") == chain.type else (),
        "at_farm": any(s.state in ("queued", "in progress") and s.proc.get("farm") for s in made),
        "steps": [
            {
                "number": s.outline.number,
                "name": s.outline.name,
                "key": head + s.outline.key,
                "needs": [f"{head}{need}" for need in s.outline.needs],
                "state": s.state,
                "sentence": why_step(chain, body, s, world.now, world.said),
                "progress": running.get(str(s.proc.get("attempt"))) if s.state == "in progress" else None,
                "facts": {k: v for k, v in s.proc.items() if k not in _SHOWN},
                "gathered": _gathered(s.proc),
                "result": s.proc.get("result"),
                "software": s.proc.get("software"),
                "log": s.proc.get("log"),
                "tail": world.logs.tail(s.proc.get("log")) if s.proc.get("log") else None,
                "attempts": by_key.get(head + s.outline.key, []),
            }
            for s in made
        ],
    }


def _gathered(proc: Mapping[str, Any]) -> str | None:
    """The document that does a step for this one and others."""
    result = proc.get("result")
    found = proc.get("gathered") or (result.get("gathered") if isinstance(result, dict) else None)
    return found if isinstance(found, str) else None


def _plots_of_lanes(chain: Chain | None, body: Mapping[str, Any], roots: Roots) -> list[dict[str, Any]]:
    """The pictures of the steps of side lanes, by their keys in the document."""
    found: list[dict[str, Any]] = []
    for name in branches.lanes_of(chain, body):
        assert chain is not None
        steps = [Outline(s.number, s.name, f"{name}_{s.key}") for s in chain.of(name).steps]
        found += plots(body, steps, roots)
    return found


def past(source: Source, database: DatabaseLike, id: str) -> list[dict[str, Any]]:
    """What operations have taken out of a document, the last first."""
    rows = source.rows(
        database, "pages/past", startkey=[id, {}], endkey=[id], descending=True, limit=PASTS, include_docs=True
    )
    made = []
    for row in rows:
        found = row.doc or {}
        operation, entries, outputs = (found.get(key) for key in ("operation", "entries", "outputs"))
        known = operation if isinstance(operation, dict) else {}
        made.append(
            {key: known.get(key) for key in ("id", "what", "by", "reason")}
            | {"at": found.get("at"), "status": found.get("status")}
            | {"entries": entries if isinstance(entries, dict) else {}}
            | {"outputs": outputs if isinstance(outputs, dict) else {}}
        )
    return made


def attempts(source: Source, database: DatabaseLike, id: str) -> list[dict[str, Any]]:
    """The attempts at a document that did not succeed, with the end of their logs, in order."""
    rows = source.rows(
        database, "pages/attempts", startkey=[id, {}], endkey=[id], descending=True, limit=ATTEMPTS, include_docs=True
    )
    made = []
    for row in reversed(rows):
        body = row.doc or {}
        value = row.value if isinstance(row.value, dict) else {}
        said = value | {k: body[k] for k in _ATTEMPT if k in body}
        made.append({"id": row.id, "step": row.key[1]} | {k: said.get(k) for k in _ATTEMPT})
    return made


def run(
    source: Source,
    database: DatabaseLike,
    chain: Chain | None,
    steps: Sequence[Outline],
    roots: Roots,
    name: str,
    at: str | None,
    limit: int = lists.ROWS,
) -> dict[str, Any] | None:
    """A run: how many files stand where, a page of them, and the pictures of the last ones. None without such a run."""
    span = {"startkey": [name], "endkey": [name, {}]}
    totals = source.rows(database, "pages/runs", group_level=1, **span)
    if not totals:
        return None
    statuses = {str(r.key[1]): int(r.value) for r in source.rows(database, "pages/run_status", group=True, **span)}
    listed = lists.files(source, database, steps, lists.Filter(run=name), at, limit)
    last = source.rows(
        database,
        "pages/files",
        startkey=[name, {}],
        endkey=[name],
        descending=True,
        limit=PLOT_FILES,
        include_docs=True,
    )
    shown: dict[str, dict[str, Any]] = {}
    for row in last:
        for plot in plots(row.doc, steps, roots) if row.doc is not None else []:
            if plot["shown"]:
                shown.setdefault(plot["file"], plot | {"id": row.id})
    merged = [p for p in shown.values() if p["scope"] == "run"]
    return {
        "run": name,
        "files": int(totals[0].value["count"]),
        "size": totals[0].value["sum"],
        "statuses": statuses,
        "kinds": kind_counts(statuses),
        "documents": listed["documents"],
        "plots": merged or list(shown.values()),
        "gathers": branches.of_run(source, database, chain, name),
        "next": listed["next"],
        "previous": listed["previous"],
    }


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if value else []
