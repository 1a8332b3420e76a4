"""Endpoints of the server itself: who it is, sessions, the list of databases, uuids."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

from orchestrator.embedded import http_database, http_replicate
from orchestrator.embedded.http_bulk import new_id
from orchestrator.embedded.http_request import Request, Response, answer
from orchestrator.embedded.problems import (
    Problem,
    bad_request,
    method_not_allowed,
    missing,
    not_implemented,
    unauthorized,
)
from orchestrator.embedded.security import User, require_server_admin
from orchestrator.version import VERSION

COMPATIBLE = "3.4.3"  # the Apache CouchDB whose behaviour is followed; clients look at it for what they may use

_MAX_UUIDS = 1000


async def welcome(request: Request) -> Response:
    """``GET /``."""
    allow(request, "GET", "HEAD")
    return answer(
        {
            "couchdb": "Welcome",
            "version": COMPATIBLE,
            "git_sha": "embedded",
            "uuid": request.app.store.uuid,
            "features": [],
            "vendor": {"name": "couch-orchestrator embedded database", "version": VERSION},
        }
    )


def allow(request: Request, *methods: str) -> None:
    """Refuse other methods.

    Raises:
        Problem: 405 with the Allow header.
    """
    if request.method not in methods:
        raise method_not_allowed(",".join(methods))


async def dispatch(request: Request) -> Response:
    """Any path that begins with an underscore."""
    name = request.parts[0]
    handler = _HANDLERS.get(name)
    if handler is not None:
        return await handler(request)
    if name in _UNSUPPORTED:
        raise not_implemented(name)
    if len(request.parts) == 1:
        return await http_database.root(request)
    raise missing()


async def up(request: Request) -> Response:
    """``GET /_up``."""
    allow(request, "GET", "HEAD")
    return answer({"status": "ok", "seeds": {}})


async def uuids(request: Request) -> Response:
    """``GET /_uuids?count=``."""
    allow(request, "GET")
    count = request.number("count", 1) or 0
    if count > _MAX_UUIDS:
        raise bad_request("count parameter too large")
    made = answer({"uuids": [new_id() for _ in range(count)]})
    made.headers[1] = (b"cache-control", b"no-cache")
    return made.with_header("Pragma", "no-cache")


async def all_dbs(request: Request) -> Response:
    """``GET /_all_dbs``: names, within a range of keys."""
    allow(request, "GET", "HEAD")
    require_server_admin(request.user)
    names = await request.app.thread(request.app.store.names)
    return answer(_within(request, names))


def _within(request: Request, names: list[str]) -> list[str]:
    def bound(*keys: str) -> Any:
        for key in keys:
            if key in request.query:
                return request.parsed(key)
        return None

    descending = request.flag("descending")
    start, stop = bound("startkey", "start_key"), bound("endkey", "end_key")
    inclusive = request.flag("inclusive_end", True)
    if descending:
        names = names[::-1]
        start, stop = stop, start
    low, high = start, stop
    chosen = []
    for name in names:
        if low is not None and (name < low or (descending and not inclusive and name == low)):
            continue
        if high is not None and (name > high or (not descending and not inclusive and name == high)):
            continue
        chosen.append(name)
    skip = request.number("skip", 0) or 0
    limit = request.number("limit")
    return chosen[skip:] if limit is None else chosen[skip : skip + limit]


async def dbs_info(request: Request) -> Response:
    """``GET`` or ``POST /_dbs_info``: the information of several databases."""
    allow(request, "GET", "POST", "HEAD")
    require_server_admin(request.user)
    store = request.app.store
    if request.method == "POST":
        request.check_type()
        keys = (await request.json_object()).get("keys")
        if not isinstance(keys, list):
            raise bad_request("`keys` member must exist.")
        names = [str(key) for key in keys]
    else:
        names = _within(request, await request.app.thread(store.names))

    def gather() -> list[dict[str, Any]]:
        found = []
        for name in names:
            try:
                found.append({"key": name, "info": http_database.information(store.database(name))})
            except Problem:
                found.append({"key": name, "error": "not_found"})
        return found

    return answer(await request.app.thread(gather))


async def active_tasks(request: Request) -> Response:
    """``GET /_active_tasks``: indexes that are being built, and replications."""
    allow(request, "GET")
    require_server_admin(request.user)
    return answer([*await request.app.thread(request.app.views.active_tasks), *request.app.replicator.tasks()])


async def membership(request: Request) -> Response:
    """``GET /_membership``: one node."""
    allow(request, "GET")
    require_server_admin(request.user)
    return answer({"all_nodes": ["nonode@nohost"], "cluster_nodes": ["nonode@nohost"]})


async def session(request: Request) -> Response:
    """``/_session``: who am I, log in, log out."""
    allow(request, "GET", "HEAD", "POST", "DELETE")
    if request.method == "POST":
        return await _log_in(request)
    if request.method == "DELETE":
        return answer({"ok": True}).with_header("Set-Cookie", _cookie(""))
    user = request.user
    if user.name is None and request.query.get("basic") == "true":
        raise unauthorized("Please login.")
    info: dict[str, Any] = {"authentication_handlers": ["cookie", "default"]}
    if user.method:
        info["authenticated"] = user.method
    return answer({"ok": True, "userCtx": user.context(), "info": info})


async def _log_in(request: Request) -> Response:
    kind = request.headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    if kind == b"application/json":
        form: dict[str, Any] = await request.json_object()
    elif kind == b"application/x-www-form-urlencoded":
        form = dict(parse_qsl((await request.body()).decode("utf-8", "replace"), keep_blank_values=True))
    else:
        form = {}
    name = form.get("name", form.get("username", ""))
    password = form.get("password", "")
    if not isinstance(name, str) or not isinstance(password, str):
        raise bad_request("name and password must be strings")
    accounts = request.app.accounts
    user: User = await request.app.thread(accounts.login, name, password)
    cookie = await request.app.thread(accounts.cookie, name)
    # For the admin, who has no document in _users, CouchDB says no name here unless asked after logging in.
    made = answer({"ok": True, "name": user.name, "roles": user.roles})
    return made.with_header("Set-Cookie", _cookie(cookie))


def _cookie(value: str) -> str:
    return f"AuthSession={value}; Version=1; Path=/; HttpOnly"


async def utils(request: Request) -> Response:
    """``/_utils``: Fauxton is not part of this server."""
    raise not_implemented("Fauxton (_utils)")


_HANDLERS: dict[str, Callable[[Request], Awaitable[Response]]] = {
    "_up": up,
    "_uuids": uuids,
    "_all_dbs": all_dbs,
    "_dbs_info": dbs_info,
    "_active_tasks": active_tasks,
    "_membership": membership,
    "_session": session,
    "_replicate": http_replicate.replicate,
    "_scheduler": http_replicate.scheduler,
    "_utils": utils,
}
_UNSUPPORTED = frozenset(
    {"_node", "_config", "_stats", "_cluster_setup", "_db_updates", "_reshard",
     "_search_analyze", "_nouveau_analyze", "_log", "_restart"}
)  # fmt: skip
