"""The lists: runs, documents, failed and bad ones. Each reads one view by key, a page at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.errors import NotFound
from orchestrator.web import paging
from orchestrator.web.paging import BadQuery
from orchestrator.web.source import DatabaseLike, RowLike, Source
from orchestrator.web.states import STATES, Outline, kind_counts, kind_of, standings

#: Documents on a page. Fits two screens, and is one quick read.
ROWS = 50
#: The views keep so much of a reason; the document's page has all of it.
REASON_LETTERS = 199


@dataclass(frozen=True)
class Filter:
    """Which documents a list shows; an empty field filters nothing."""

    status: str = ""
    step: str = ""
    state: str = ""
    run: str = ""
    daq: str = ""
    q: str = ""
    branch: str = ""

    def words(self) -> dict[str, str]:
        """The fields that filter, by name."""
        return {k: v for k, v in vars(self).items() if v}


def document_row(document: Mapping[str, Any], steps: Sequence[Outline]) -> dict[str, Any]:
    """One document as a list shows it."""
    file = document.get("file")
    return {
        "id": document.get("_id"),
        "run": document.get("run_name"),
        "file_number": document.get("file_number"),
        "file": file.rsplit("/", 1)[-1] if isinstance(file, str) else None,
        "size": document.get("size"),
        "hostname": document.get("hostname"),
        "status": document.get("status"),
        "kind": kind_of(document.get("status")),
        "updated": document.get("updated"),
        "steps": [{"key": s.outline.key, "name": s.outline.name, "state": s.state} for s in standings(document, steps)],
    }


def files(
    source: Source, database: DatabaseLike, steps: Sequence[Outline], wanted: Filter, at: str | None, limit: int = ROWS
) -> dict[str, Any]:
    """A page of documents. Raises BadQuery for a state, and NotFound for a step or a position, that there is not."""
    step = _step(wanted, steps)
    view, low, high, checks = _plan(wanted, step)
    descending = view == "pages/files"  # the newest run on top; elsewhere the order is the index's own

    def keep(row: RowLike) -> bool:
        return row.doc is not None and all(check(row.doc) for check in checks)

    if wanted.state and view != "pages/steps":

        def in_state(document: Mapping[str, Any]) -> bool:
            return any(s.state == wanted.state for s in standings(document, steps) if step is None or s.outline == step)

        checks.append(in_state)

    def read(**params: Any) -> list[RowLike]:
        return source.rows(database, view, reduce=False, include_docs=True, **params)

    cut = paging.page(
        read,
        low=low,
        high=high,
        at=paging.cursor(at),
        limit=limit,
        descending=descending,
        keep=keep if checks else None,
    )
    shown: dict[str, dict[str, Any]] = {}
    for row in cut.rows:  # a search finds a document under each of its words
        if row.doc is not None and row.id is not None:
            shown.setdefault(row.id, document_row(row.doc, steps))
    return {
        "filter": wanted.words(),
        "documents": list(shown.values()),
        "next": cut.next,
        "previous": cut.previous,
        "cut": cut.cut,
    }


def whole(wanted: Filter) -> dict[str, str]:
    """The filter in the words by which an operation chooses documents; empty where these do not know it."""
    said = wanted.words()
    if not said.keys() - {"branch"} or not said.keys() <= {"status", "run", "step", "state", "branch"}:
        return {}
    chosen = {"runs": wanted.run, "statuses": wanted.status, "branch": wanted.branch}
    if wanted.state:
        if wanted.status or not wanted.step or wanted.state not in ("queued", "in progress", "failed"):
            return {}
        chosen |= {"statuses": wanted.state, "at_step": wanted.step}
    return {key: value for key, value in chosen.items() if value}


def _step(wanted: Filter, steps: Sequence[Outline]) -> Outline | None:
    """The step asked for. A step without a state filters nothing; a state without a step is that of any step."""
    found = [s for s in steps if wanted.step in (s.key, s.name)]
    if wanted.step and not found:
        raise NotFound(f"there is no step {wanted.step!r}; there are {', '.join(s.key for s in steps) or 'none'}")
    if wanted.state and wanted.state not in STATES:
        raise BadQuery(f"there is no state {wanted.state!r} of a step; there are {', '.join(STATES)}")
    return found[0] if found and wanted.state else None


def _plan(wanted: Filter, step: Outline | None) -> tuple[str, Any, Any, list[Callable[[Mapping[str, Any]], bool]]]:
    """The view that narrows the list most, its key range, and what is left to check on each document."""
    checks: list[Callable[[Mapping[str, Any]], bool]] = []

    def check(name: str, value: str) -> None:
        if value:
            checks.append(lambda document: document.get(name) == value)

    if wanted.state in ("queued", "in progress", "failed", "bad") and not wanted.status and step is None:
        # Of one step the view has these; of any step they are what the document's own status says.
        wanted = replace(wanted, status=wanted.state)
    any_step = wanted.status in ("queued", "in progress")
    if any_step:
        checks.append(lambda document: kind_of(document.get("status")) == wanted.status)
    if wanted.q:
        check("run_name", wanted.run)
        check("hostname", wanted.daq)
        check("status", "" if any_step else wanted.status)
        low, high = paging.prefix(wanted.q.strip().lower())
        return "pages/search", [low], [high], checks
    if wanted.daq:
        check("run_name", wanted.run)
        if wanted.status and not any_step:
            return "pages/daq", [wanted.daq, wanted.status], [wanted.daq, wanted.status, {}], checks
        return "pages/daq", [wanted.daq], [wanted.daq, {}], checks
    if wanted.status and not any_step:
        first = [wanted.status, wanted.run] if wanted.run else [wanted.status]
        return "pages/status", first, [*first, {}], checks
    if wanted.run:
        return "pages/files", [wanted.run], [wanted.run, {}], checks
    if any_step:
        return "pages/status", ["proc "], ["proc " + paging.HIGH], checks
    if step is not None:
        return "pages/steps", [step.number, wanted.state], [step.number, wanted.state], checks
    return "pages/files", None, None, checks


def runs(source: Source, database: DatabaseLike, q: str, at: str | None, limit: int = ROWS) -> dict[str, Any]:
    """A page of runs, the last by name on top: files, bytes, and how many of them stand where."""
    low, high = paging.prefix(q.strip()) if q.strip() else (None, None)
    position = paging.cursor(at)
    if position is not None and not (isinstance(position.key, list) and position.key):
        raise NotFound(paging.LOST)
    if position is not None:  # a run's rows begin at [run] and end before [run, {}]: step over them as a whole
        upwards = position.back
        position = paging.Cursor([position.key[0], {}] if upwards else [position.key[0]], None, position.back)

    def read(**params: Any) -> list[RowLike]:
        params.pop("startkey_docid", None)
        return source.rows(database, "pages/runs", group_level=1, **params)

    cut = paging.page(
        read,
        low=None if low is None else [low],
        high=None if high is None else [high],
        at=position,
        limit=limit,
        descending=True,
    )
    shown = [
        {"run": r.key[0], "files": int(r.value["count"]), "size": r.value["sum"], "kinds": {}, "statuses": {}}
        for r in cut.rows
    ]
    if shown:
        by_run = {str(entry["run"]): entry for entry in shown}  # a run's name may be anything, if only by mistake
        span = {"startkey": [shown[-1]["run"]], "endkey": [shown[0]["run"], {}]}
        for row in source.rows(database, "pages/run_status", group=True, **span):
            entry = by_run.get(str(row.key[0]))
            if entry is not None:
                entry["statuses"][str(row.key[1])] = int(row.value)
        for entry in shown:
            entry["kinds"] = kind_counts(entry["statuses"])
    return {"filter": {"q": q} if q else {}, "runs": shown, "next": cut.next, "previous": cut.previous}


def failed(
    source: Source, database: DatabaseLike, step: str, error_class: str, at: str | None, limit: int = ROWS
) -> dict[str, Any]:
    """Failed documents: how many by step and class of error, and a page of them with their reasons, newest first."""
    groups = [
        {"step": r.key[0], "error_class": r.key[1], "count": int(r.value)}
        for r in source.rows(database, "work/failed", group_level=2)
    ]
    low: Any = None if not step else [step, error_class] if error_class else [step]
    high = None if low is None else [*low, {}]

    def read(**params: Any) -> list[RowLike]:
        return source.rows(database, "work/failed", reduce=False, **params)

    def keep(row: RowLike) -> bool:
        return row.key[1] == error_class

    narrow = keep if error_class and not step else None  # over all steps, for which there is no index
    cut = paging.page(read, low=low, high=high, at=paging.cursor(at), limit=limit, descending=True, keep=narrow)
    return {
        "filter": {k: v for k, v in (("step", step), ("error_class", error_class)) if v},
        "groups": groups,
        "documents": [
            {"id": r.id, "step": r.key[0], "error_class": r.key[1], "finished": r.key[2], "reason": _reason(r.value)}
            for r in cut.rows
        ],
        "next": cut.next,
        "previous": cut.previous,
    }


def bad(source: Source, database: DatabaseLike, at: str | None, limit: int = ROWS) -> dict[str, Any]:
    """Bad documents with their reasons, by run, the last run first."""

    def read(**params: Any) -> list[RowLike]:
        return source.rows(database, "work/bad", reduce=False, **params)

    cut = paging.page(read, at=paging.cursor(at), limit=limit, descending=True)
    total = source.rows(database, "work/bad")
    return {
        "total": int(total[0].value) if total else 0,
        "documents": [
            {"id": r.id, "run": r.key[0], "file_number": r.key[1], "reason": _reason(r.value)} for r in cut.rows
        ],
        "next": cut.next,
        "previous": cut.previous,
    }


def held(source: Source, database: DatabaseLike, at: str | None, limit: int = ROWS) -> dict[str, Any]:
    """Documents on hold, with who put them there and why, the last on top."""

    def read(**params: Any) -> list[RowLike]:
        return source.rows(database, "pages/held", reduce=False, **params)

    cut = paging.page(read, at=paging.cursor(at), limit=limit, descending=True)
    return {
        "filter": {},
        "total": count_held(source, database),
        "documents": [
            {"id": r.id, "since": r.key[0], "by": value.get("by"), "reason": _reason(value) or None,
             "operation": value.get("operation"), "status": value.get("status")}
            for r in cut.rows
            if isinstance(value := r.value, dict)
        ],
        "next": cut.next,
        "previous": cut.previous,
    }  # fmt: skip


def count_held(source: Source, database: DatabaseLike) -> int:
    """How many documents are on hold."""
    total = source.rows(database, "pages/held")
    return int(total[0].value) if total else 0


def _reason(value: Any) -> str:
    reason = value.get("reason") if isinstance(value, dict) else value
    text = "" if reason is None else str(reason)
    return text + "…" if len(text) >= REASON_LETTERS else text
