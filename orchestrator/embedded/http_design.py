"""What a design document serves: views, and Mango's ``_find``, ``_index`` and ``_explain``."""

from __future__ import annotations

from typing import Any

from orchestrator.embedded import codec, http_attachments, mango
from orchestrator.embedded.database import DatabaseStore
from orchestrator.embedded.http_request import Request, Response, answer
from orchestrator.embedded.problems import bad_request, method_not_allowed, missing, not_implemented
from orchestrator.embedded.security import require_database_admin

_UNSUPPORTED = {
    "_show": "Show functions",
    "_list": "List functions",
    "_update": "Update handlers",
    "_rewrite": "Rewrite rules",
    "_search": "Full-text search",
    "_search_info": "Full-text search",
    "_nouveau": "Full-text search",
    "_nouveau_info": "Full-text search",
    "_geo": "Geospatial search",
}


async def function(request: Request, database: DatabaseStore, name: str, kind: str, rest: list[str]) -> Response:
    """``/{db}/_design/{name}/_…``."""
    row = await request.app.thread(database.row, f"_design/{name}")
    if row is None or row.deleted:
        raise missing("missing" if row is None else "deleted")
    if kind in _UNSUPPORTED:
        raise not_implemented(_UNSUPPORTED[kind])
    design = row.document()
    if kind == "_view" and rest:
        return await _view(request, database, design, rest)
    if kind == "_info" and not rest:
        if request.method not in ("GET", "HEAD"):
            raise method_not_allowed("GET")
        return answer(await request.app.slowly(request.app.views.info, database, design))
    return await http_attachments.attachment(request, database, f"_design/{name}", "/".join([kind, *rest]))


async def _view(request: Request, database: DatabaseStore, design: dict[str, Any], rest: list[str]) -> Response:
    body: dict[str, Any] | None = None
    if request.method == "POST":
        request.check_type()
        body = await request.json_object()
    elif request.method not in ("GET", "HEAD"):
        raise method_not_allowed("GET,POST,HEAD")
    if rest[1:] == ["queries"]:
        if body is None:
            raise method_not_allowed("POST")
        if "queries" not in body:
            raise bad_request("POST body must include `queries` parameter.")
    elif rest[1:]:
        raise missing()
    elif body is not None and "queries" in body:
        raise bad_request("The `queries` parameter is no longer supported at this endpoint")
    found = await request.app.slowly(_query, request, database, design, rest[0], body)
    return Response(200, found)


def _query(
    request: Request, database: DatabaseStore, design: dict[str, Any], name: str, body: dict[str, Any] | None
) -> bytes:
    return codec.dumps(request.app.views.query(database, design, name, dict(request.query), body)) + b"\n"


async def find(request: Request, database: DatabaseStore) -> Response:
    """``POST /{db}/_find``."""
    return await _mango(request, database, mango.find)


async def explain(request: Request, database: DatabaseStore) -> Response:
    """``POST /{db}/_explain``."""
    return await _mango(request, database, mango.explain)


async def _mango(request: Request, database: DatabaseStore, ask: Any) -> Response:
    if request.method != "POST":
        raise method_not_allowed("POST")
    request.check_type()
    body = await request.json_object()
    return answer(await request.app.slowly(ask, request.app.views, database, body))


async def index(request: Request, database: DatabaseStore) -> Response:
    """``/{db}/_index``: list, make and delete Mango's indexes."""
    user = request.user.context(database.name)
    rest = request.parts[2:]
    if not rest:
        if request.method == "GET":
            try:
                limit = int(request.query["limit"]) if "limit" in request.query else None
                skip = int(request.query.get("skip", "0"))
            except ValueError:
                limit, skip = 0, 0  # refused below, in CouchDB's words
            return answer(await request.app.slowly(mango.list_indexes, database, limit, skip))
        if request.method != "POST":
            raise method_not_allowed("GET,POST")
        require_database_admin(request.user, database.security())
        request.check_type()
        return answer(await request.app.slowly(mango.create_index, database, await request.json_object(), user))
    if rest == ["_bulk_delete"]:
        raise not_implemented("_index/_bulk_delete")
    if request.method != "DELETE":
        raise method_not_allowed("DELETE")
    require_database_admin(request.user, database.security())
    if rest[0] == "_design":
        rest = rest[1:]
    if len(rest) != 3:
        raise missing()
    design, kind, name = rest
    return answer(await request.app.slowly(mango.delete_index, database, design, kind, name, user))


async def view_cleanup(request: Request, database: DatabaseStore) -> Response:
    """``POST /{db}/_view_cleanup``: remove index files that no design document needs any more."""
    if request.method != "POST":
        raise method_not_allowed("POST")
    require_database_admin(request.user, database.security())
    request.check_type()
    await request.app.slowly(request.app.views.cleanup, database)
    return answer({"ok": True}, 202)
