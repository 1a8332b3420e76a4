"""Which changes pass a feed's filter: by ids, by selector, by a view, or by a design document's function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.embedded import mango
from orchestrator.embedded.database import DatabaseStore, Row
from orchestrator.embedded.http_request import Request
from orchestrator.embedded.javascript import FunctionError
from orchestrator.embedded.problems import Problem, bad_request, missing

Choice = Callable[[list[Row]], list[Row]]


class Passing:
    """A filter.

    Attributes:
        needs_documents: whether rows must come with their bodies.
        choose: gives back the rows that pass.
    """

    def __init__(self, choose: Choice, needs_documents: bool) -> None:
        self.choose = choose
        self.needs_documents = needs_documents


def choose_filter(request: Request, database: DatabaseStore, body: dict[str, Any]) -> Passing | None:
    """The filter a request for changes names, or None.

    Raises:
        Problem: 400 for a filter that makes no sense, 404 for one that is not there.
    """
    name = request.query.get("filter")
    if name is None:
        return None
    if name == "_doc_ids":
        return _by_ids(request, body)
    if name == "_selector":
        return _by_selector(request, body)
    if name == "_design":
        return Passing(lambda rows: [row for row in rows if row.id.startswith("_design/")], False)
    if name == "_view":
        return _by_view(request, database)
    return _by_function(request, database, name, body)


def _by_ids(request: Request, body: dict[str, Any]) -> Passing:
    listed = body.get("doc_ids")
    if request.method != "POST" and "doc_ids" in request.query:
        listed = request.parsed("doc_ids")
    if not isinstance(listed, list):
        raise bad_request("`doc_ids` filter parameter is not a list of strings.")
    wanted = set(listed)
    return Passing(lambda rows: [row for row in rows if row.id in wanted], False)


def _by_selector(request: Request, body: dict[str, Any]) -> Passing:
    if request.method != "POST":
        raise bad_request("Selector must be specified in POST payload")
    selector = body.get("selector")
    if selector is None:
        raise bad_request("Selector must be specified in POST payload")
    if not isinstance(selector, dict):
        raise bad_request("Selector error: expected a JSON object")
    try:
        test = mango.compile_selector(selector)
    except mango.SelectorError as error:
        raise bad_request(str(error)) from error
    return Passing(lambda rows: [row for row in rows if test(row.document())], True)


def _design(database: DatabaseStore, name: str) -> dict[str, Any]:
    row = database.row(f"_design/{name}")
    if row is None:
        raise missing()
    if row.deleted:
        raise missing("deleted")
    return row.document()


def _by_view(request: Request, database: DatabaseStore) -> Passing:
    place = request.query.get("view", "")
    name, slash, view = place.partition("/")
    if not slash:
        raise bad_request("`view` filter parameter is not provided." if not place else "Invalid `view` parameter.")
    design = _design(database, name)
    source = (design.get("views") or {}).get(view, {}).get("map")
    if not isinstance(source, str):
        raise missing("missing json key: " + view)
    functions = request.app.store.functions

    def choose(rows: list[Row]) -> list[Row]:
        return _kept(rows, lambda documents: functions.view_filter(source, documents, design))

    return Passing(choose, True)


def _by_function(request: Request, database: DatabaseStore, place: str, body: dict[str, Any]) -> Passing:
    name, slash, function = place.partition("/")
    if not slash or not name or not function:
        raise bad_request("filter parameter must be of the form `designname/filtername`")
    design = _design(database, name)
    source = (design.get("filters") or {}).get(function)
    if not isinstance(source, str):
        raise missing("missing json key: " + function)
    functions = request.app.store.functions
    asked = as_request(request, database, body)

    def choose(rows: list[Row]) -> list[Row]:
        return _kept(rows, lambda documents: functions.filter(source, documents, asked, design))

    return Passing(choose, True)


def _kept(rows: list[Row], ask: Callable[[list[dict[str, Any]]], list[bool]]) -> list[Row]:
    if not rows:
        return []
    try:
        verdicts = ask([row.document() for row in rows])
    except FunctionError as error:
        raise Problem(500, error.error, error.reason) from error
    return [row for row, passed in zip(rows, verdicts, strict=True) if passed]


def as_request(request: Request, database: DatabaseStore, body: dict[str, Any]) -> dict[str, Any]:
    """``req`` as a filter function sees it."""
    headers = {
        name.decode("latin-1").title(): value.decode("latin-1")
        for name, value in request.headers.items()
        if name not in (b"authorization", b"cookie")
    }
    from orchestrator.embedded.http_database import information

    return {
        "info": information(database),
        "id": None,
        "uuid": "",
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
