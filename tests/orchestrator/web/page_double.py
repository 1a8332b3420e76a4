"""A database in memory that answers the pages' views: quick enough for tests of shapes, and able to be away.

The views are written in Python here, so nothing of this says that the couchapp is right: ``test_pages_on_database.py``
reads the same documents through the real one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from orchestrator.chain import Chain
from orchestrator.errors import NotFound, OrchestratorError
from orchestrator.web import human
from orchestrator.web.states import outlines, standings


@dataclass
class Row:
    """As ``orchestrator.couch.Row``."""

    id: str | None
    key: Any
    value: Any
    doc: dict[str, Any] | None = None


@dataclass
class Result:
    """As ``orchestrator.couch.ViewResult``."""

    rows: list[Row]


def order(value: Any) -> Any:
    """CouchDB's collation, for what the sample's keys hold."""
    if value is None:
        return (0,)
    if isinstance(value, bool):
        return (1, value)
    if isinstance(value, int | float):
        return (2, value)
    if isinstance(value, str):
        return (3, value)
    if isinstance(value, list):
        return (4, tuple(order(v) for v in value))
    return (5, json.dumps(value, sort_keys=True))


class Double:
    """Documents and the views over them. ``broken`` is raised by every read while it is set."""

    name = "test"

    def __init__(self, chain: Chain, documents: list[dict[str, Any]], now: float) -> None:
        self.chain = chain
        self.documents = {d["_id"]: d for d in documents}
        self.local: dict[str, dict[str, Any]] = {}
        self.now = now
        self.broken: OrchestratorError | None = None
        self.pushed = True
        self.fixed: dict[str, list[tuple[Any, Any]]] = {}  # rows of the document "odd", for which the maps are no match
        self.reads: list[tuple[str, dict[str, Any]]] = []

    def _check(self) -> None:
        if self.broken is not None:
            raise self.broken

    def info(self) -> dict[str, Any]:
        self._check()
        return {"doc_count": len(self.documents), "update_seq": "1-x"}

    def get(self, doc_id: str) -> dict[str, Any]:
        self._check()
        if doc_id not in self.documents:
            raise NotFound(f"there is no document {doc_id!r}")
        return self.documents[doc_id]

    def local_docs(self, startkey: str, endkey: str) -> list[dict[str, Any]]:
        self._check()
        return [d for i, d in sorted(self.local.items()) if startkey <= i <= endkey]

    def view(self, name: str, **params: Any) -> Result:
        self._check()
        self.reads.append((name, params))
        if not self.pushed:
            raise NotFound(f"there is no view {name}")
        emit, reduce = self._views()[name]
        if name in self.fixed:
            documents = {i: self.documents[i] for i in ("odd",)}
            found = [Row(i, key, value, d) for i, d in documents.items() for key, value in self.fixed[name]]
            return Result(found)
        rows = [Row(d["_id"], k, v) for d in self.documents.values() for k, v in emit(d)]
        rows.sort(key=lambda r: (order(r.key), r.id), reverse=bool(params.get("descending")))
        rows = [r for r in rows if self._inside(r, params)]
        if reduce and params.get("reduce", True):
            rows = list(self._reduced(rows, reduce, params))
        rows = rows[: params.get("limit")]
        if params.get("include_docs"):
            for row in rows:
                row.doc = self.documents.get(row.id or "")
        return Result(rows)

    @staticmethod
    def _inside(row: Row, params: dict[str, Any]) -> bool:
        sign = -1 if params.get("descending") else 1

        def compare(a: Any, b: Any) -> int:
            return sign * ((order(a) > order(b)) - (order(a) < order(b)))

        if "startkey" in params:
            place = compare(row.key, params["startkey"])
            first = params.get("startkey_docid")
            if place < 0 or (place == 0 and first is not None and sign * ((row.id > first) - (row.id < first)) < 0):
                return False
        return "endkey" not in params or compare(row.key, params["endkey"]) <= 0

    @staticmethod
    def _reduced(rows: list[Row], reduce: str, params: dict[str, Any]) -> Iterator[Row]:
        level = params.get("group_level", 99 if params.get("group") else 0)
        groups: dict[str, list[Row]] = {}
        for row in rows:
            groups.setdefault(json.dumps(row.key[:level] if level else None), []).append(row)
        for key, members in groups.items():
            values = [m.value for m in members]
            value: Any = len(values)
            if reduce == "_sum":
                value = sum(values)
            elif reduce == "_stats":
                squares = sum(v * v for v in values)
                value = {
                    "sum": sum(values),
                    "count": len(values),
                    "min": min(values),
                    "max": max(values),
                    "sumsqr": squares,
                }
            yield Row(None, json.loads(key), value)

    def _views(self) -> dict[str, tuple[Callable[[dict[str, Any]], list[tuple[Any, Any]]], str]]:
        steps = outlines(self.chain)

        def data(
            emit: Callable[[dict[str, Any]], list[tuple[Any, Any]]],
        ) -> Callable[[dict[str, Any]], list[tuple[Any, Any]]]:
            return lambda d: emit(d) if d.get("type") == self.chain.type else []

        def standing(d: dict[str, Any]) -> list[tuple[Any, Any]]:
            since = (human.parse_time(d.get("registered")) or 0) * 1000
            return [([s.outline.number, s.state], since) for s in standings(d, steps)]

        def throughput(d: dict[str, Any]) -> list[tuple[Any, Any]]:
            made = []
            for step in steps:
                p = d.get(step.key, {})
                if p.get("state") == "done":
                    at = p["finished"]
                    made.append(([step.number, *map(int, (at[:4], at[5:7], at[8:10], at[11:13]))], p["seconds"]))
            return made

        def search(d: dict[str, Any]) -> list[tuple[Any, Any]]:
            words = [d["_id"], d["run_name"], d["file"].rsplit("/", 1)[-1]]
            words += [p for w in words for p in w.replace("_", " ").split()]
            return [([w.lower()], None) for w in dict.fromkeys(words)]

        def failed(d: dict[str, Any]) -> list[tuple[Any, Any]]:
            found = [(s.key, d[s.key]) for s in steps if d.get(s.key, {}).get("state") == "failed"]
            return [([k, p.get("error_class"), p.get("finished")], {"reason": p.get("reason")}) for k, p in found]

        def held(d: dict[str, Any]) -> list[tuple[Any, Any]]:
            found = [(s.number, d[s.key]) for s in steps if d.get("status") == f"proc {s.number} in progress"]
            return [([n, p["started"]], {k: p.get(k) for k in ("attempt", "host", "pid", "poller")}) for n, p in found]

        def attempts(d: dict[str, Any]) -> list[tuple[Any, Any]]:
            if d.get("type") != "attempt":
                return []
            return [([d["document"], d["step"], d["number"]], {k: d[k] for k in ("state", "error_class", "reason")})]

        def ready(key: str) -> Callable[[dict[str, Any]], list[tuple[Any, Any]]]:
            return lambda d: [
                ([0, d.get("run_name"), d.get("file_number")], None)
                for s in standings(d, steps)
                if s.outline.key == key and s.state == "ready"
            ]

        return {
            **{f"work/{step.key}": (data(ready(step.key)), "_count") for step in steps},
            "pages/past": (lambda d: [([d["document"], d["at"]], None)] if d.get("type") == "past" else [], ""),
            "pages/steps": (data(standing), "_stats"),
            "pages/status": (data(lambda d: [([d["status"], d["run_name"], d["file_number"]], 1)]), "_sum"),
            "pages/runs": (data(lambda d: [([d["run_name"], d["file_number"]], d["size"])]), "_stats"),
            "pages/run_status": (data(lambda d: [([d["run_name"], d["status"]], None)]), "_count"),
            "pages/daq": (data(lambda d: [([d["hostname"], d["status"]], None)]), "_count"),
            "pages/files": (data(lambda d: [([d["run_name"], d["file_number"]], {"status": d["status"]})]), ""),
            "pages/search": (data(search), ""),
            "pages/recent": (data(lambda d: [([d["updated"]], {"status": d["status"]})]), ""),
            "pages/throughput": (data(throughput), "_stats"),
            "pages/attempts": (attempts, ""),
            "farm/jobs": (data(lambda d: []), "_stats"),
            "farm/documents": (data(lambda d: []), ""),
            "work/failed": (data(failed), "_count"),
            "work/inprogress": (data(held), "_count"),
            "pages/held": (
                data(
                    lambda d: (
                        [([d["hold"].get("at"), d["run_name"], d["file_number"]], {"reason": d["hold"].get("reason")})]
                        if isinstance(d.get("hold"), dict)
                        else []
                    )
                ),
                "_count",
            ),
            "work/bad": (
                data(
                    lambda d: (
                        [([d["run_name"], d["file_number"]], {"reason": d.get("reason")})]
                        if d["status"] == "bad"
                        else []
                    )
                ),
                "_count",
            ),
        }
