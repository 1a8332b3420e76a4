"""Which changes pass a feed's filter: by ids, by selector, by a view, or by a design document's function."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orchestrator.embedded import mango, revisions
from orchestrator.embedded.database import DatabaseStore, Row
from orchestrator.embedded.http_database import information
from orchestrator.embedded.http_request import Request
from orchestrator.embedded.javascript import FunctionError
from orchestrator.embedded.problems import Problem, bad_request, missing

Ids = Callable[[str], bool]
Documents = Callable[[list[dict[str, Any]]], list[bool]]

_NO_IDS = "`doc_ids` filter parameter is not a list of doc ids."


@dataclass(slots=True)
class Passing:
    """A filter: either of ids, or of documents, many at a time."""

    ids: Ids | None = None
    documents: Documents | None = None

    def choose(self, database: DatabaseStore, rows: list[Row], all_leaves: bool) -> list[tuple[Row, list[str]]]:
        """The rows that pass, each with the revisions that do.

        Args:
            all_leaves: ask for every leaf of a document rather than for the winner alone (``style=all_docs``).
        """
        if self.documents is None:
            test = self.ids or (lambda identifier: True)
            return [(row, revs_of(row, all_leaves)) for row in rows if test(row.id)]
        asked: list[tuple[int, Row]] = []
        for number, row in enumerate(rows):
            if not all_leaves or row.leaves == 1:
                asked.append((number, row))
                continue
            for leaf in row.revision_tree().leaves():
                found = row if revisions.text(leaf.revision) == row.rev else database.revision_row(row, leaf.revision)
                if found is not None:
                    asked.append((number, found))
        passed: dict[int, list[str]] = {}
        for (number, found), verdict in zip(asked, self._verdicts([found for _, found in asked]), strict=True):
            if verdict:
                passed.setdefault(number, []).append(found.rev)
        return [(rows[number], revs) for number, revs in passed.items()]

    def _verdicts(self, rows: list[Row]) -> list[bool]:
        if not rows or self.documents is None:
            return []
        documents = []
        for row in rows:
            document = row.document()
            if row.leaves > 1:
                losers = [leaf for leaf in row.revision_tree().leaves() if not leaf.deleted]
                others = [revisions.text(leaf.revision) for leaf in losers if revisions.text(leaf.revision) != row.rev]
                if others:
                    document["_conflicts"] = others
            documents.append(document)
        try:
            return self.documents(documents)
        except FunctionError as error:
            raise Problem(error.status, error.error, error.reason) from error


def revs_of(row: Row, all_leaves: bool) -> list[str]:
    """The revisions a change lists: the winner's, or all leaves'."""
    if all_leaves and row.leaves > 1:
        return [revisions.text(leaf.revision) for leaf in row.revision_tree().leaves()]
    return [row.rev]


def choose_filter(request: Request, database: DatabaseStore, body: dict[str, Any]) -> Passing | None:
    """The filter a request for changes names, or None.

    Raises:
        Problem: 400 for a filter that makes no sense, 404 for one that is not there.
    """
    name = request.query.get("filter", "")
    if not name:
        return None
    if name == "_doc_ids":
        return _by_ids(request, body)
    if name == "_selector":
        return _by_selector(request, body)
    if name == "_design":
        return Passing(ids=lambda identifier: identifier.startswith("_design"))
    if name == "_view":
        return _by_view(request, database)
    if name.startswith("_"):
        raise bad_request("unknown builtin filter name")
    return _by_function(request, database, name, body)


def _by_ids(request: Request, body: dict[str, Any]) -> Passing:
    listed = body.get("doc_ids")
    if request.method != "POST" and "doc_ids" in request.query:
        listed = request.parsed("doc_ids")
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        raise bad_request(_NO_IDS)
    return Passing(ids=frozenset(listed).__contains__)


def _by_selector(request: Request, body: dict[str, Any]) -> Passing:
    if request.method != "POST":
        raise bad_request("Selector must be specified in POST payload")
    selector = body.get("selector")
    if not isinstance(selector, dict):
        raise bad_request("Selector error: expected a JSON object")
    try:
        test = mango.compile_selector(selector)
    except mango.SelectorError as error:
        raise bad_request(str(error)) from error
    return Passing(documents=lambda documents: [test(document) for document in documents])


def _design(database: DatabaseStore, name: str) -> dict[str, Any]:
    row = database.row(f"_design/{name}")
    if row is None:
        raise missing()
    if row.deleted:
        raise missing("deleted")
    return row.document()


def _member(design: dict[str, Any], *path: str) -> Any:
    found: Any = design
    for name in path:
        if not isinstance(found, dict) or name not in found:
            raise missing(f"missing json key: {name}")
        found = found[name]
    return found


def _by_view(request: Request, database: DatabaseStore) -> Passing:
    place = request.query.get("view", "")
    if not place:
        raise bad_request("`view` filter parameter is not provided.")
    name, slash, view = place.partition("/")
    if not slash:
        raise bad_request("`view` must be of the form `designname/viewname`")
    design = _design(database, name)
    source = _member(design, "views", view)
    source = source.get("map") if isinstance(source, dict) else None
    if not isinstance(source, str):
        raise missing("missing json key: map")
    functions = request.app.store.functions
    return Passing(documents=lambda documents: functions.view_filter(source, documents, design))


def _by_function(request: Request, database: DatabaseStore, place: str, body: dict[str, Any]) -> Passing:
    name, slash, function = place.partition("/")
    if not slash or not name or not function:
        raise bad_request("`filter` must be of the form `designname/filtername`")
    design = _design(database, name)
    source = _member(design, "filters", function)
    if not isinstance(source, str):
        raise missing(f"missing json key: {function}")
    functions = request.app.store.functions
    asked = as_request(request, database, body)
    return Passing(documents=lambda documents: functions.filter(source, documents, asked, design))


def as_request(request: Request, database: DatabaseStore, body: dict[str, Any]) -> dict[str, Any]:
    """``req`` as a filter function sees it."""
    headers = {
        name.decode("latin-1").title(): value.decode("latin-1")
        for name, value in request.headers.items()
        if name not in (b"authorization", b"cookie")
    }
    return {
        "info": information(database),
        "id": None,
        "uuid": uuid.uuid4().hex,
        "method": request.method,
        "requested_path": request.path.strip("/").split("/"),
        "path": request.parts,
        "raw_path": request.path,
        "query": request.query,
        "headers": headers,
        "body": body or "undefined",
        "peer": request.peer,
        "form": {},
        "cookie": {},
        "userCtx": request.user.context(database.name),
        "secObj": database.security(),
    }
