"""Endpoints of a database as a whole: making, deleting, information, security, limits, compaction."""

from __future__ import annotations

import time
from typing import Any

from orchestrator.embedded import compaction, http_bulk
from orchestrator.embedded.database import DatabaseStore
from orchestrator.embedded.http_request import Request, Response, answer
from orchestrator.embedded.problems import (
    Problem,
    bad_request,
    forbidden,
    method_not_allowed,
    missing,
    no_database,
    not_implemented,
)
from orchestrator.embedded.security import (
    check_security,
    require_database_admin,
    require_member,
    require_server_admin,
)


async def root(request: Request) -> Response:
    """``/{db}``."""
    name = request.parts[0]
    store = request.app.store
    method = request.method
    if method == "PUT":
        require_server_admin(request.user)
        if request.query.get("partitioned") == "true":
            raise Problem(501, "not_implemented", "Partitioned databases are not supported by the embedded database.")
        if name.endswith("/_replicator"):
            raise not_implemented("A replicator database besides _replicator")
        await request.app.thread(store.create, name)
        return answer({"ok": True}, 201).with_header("Location", request.location(name))
    if method == "DELETE":
        if "rev" in request.query:
            raise bad_request(
                "You tried to DELETE a database with a ?=rev parameter. Did you mean to DELETE a document instead?"
            )
        require_server_admin(request.user)
        if name == "_replicator":
            raise not_implemented("Deleting the replicator database")
        await request.app.thread(_delete, request, name)
        return answer({"ok": True})
    if method not in ("GET", "HEAD", "POST"):
        raise method_not_allowed("DELETE,GET,HEAD,POST")
    database = await request.app.database(name)
    require_member(request.user, database.security())
    if method == "POST":
        return await http_bulk.post_document(request, database)
    return answer(await request.app.thread(information, database))


def _delete(request: Request, name: str) -> None:
    request.app.views.forget(request.app.store.database(name))
    request.app.store.delete(name)


def token(database: DatabaseStore, number: int) -> str:
    """The opaque string of a sequence: it names the database's incarnation, so that a stranger's is noticed."""
    return f"{number}-{database.token}"


def parse_token(database: DatabaseStore, value: Any) -> int:
    """The sequence that a ``since`` stands for.

    One that another database (or an earlier one of this name) gave out stands for the beginning, as after a
    change of a cluster: a follower sees everything again rather than missing something.

    Raises:
        Problem: 400 for what no server gave out.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value == 0:
        return 0
    if not isinstance(value, str):
        raise bad_request("Malformed sequence supplied in 'since' parameter.")
    text = value.strip('"')
    if text == "0":
        return 0
    if text == "now":
        return database.update_seq()
    number, dash, mark = text.partition("-")
    if not dash or not mark or not number.isascii() or not number.isdigit():
        raise bad_request("Malformed sequence supplied in 'since' parameter.")
    if mark != database.token:
        if len(mark) != len(database.token):
            raise bad_request("Malformed sequence supplied in 'since' parameter.")
        return 0
    return min(int(number), database.update_seq())


def information(database: DatabaseStore) -> dict[str, Any]:
    """What ``GET /{db}`` says."""
    if database.closed:
        raise no_database()
    counters = database.counters
    size = sum(
        path.stat().st_size
        for suffix in ("", "-wal")
        if (path := database.path.with_name(database.path.name + suffix)).exists()
    )
    return {
        "instance_start_time": database.created,
        "db_name": database.name,
        "purge_seq": "0-" + database.token,
        "update_seq": token(database, counters.seq),
        "sizes": {"file": size, "external": counters.bytes, "active": min(size, counters.bytes)},
        "props": {},
        "doc_del_count": counters.deleted,
        "doc_count": counters.documents,
        "disk_format_version": 8,
        "compact_running": False,
        "cluster": {"q": 1, "n": 1, "w": 1, "r": 1},
    }


async def security(request: Request, database: DatabaseStore) -> Response:
    """``/{db}/_security``."""
    if request.method in ("GET", "HEAD"):
        return answer(database.security())
    if request.method != "PUT":
        raise method_not_allowed("PUT,GET")
    if database.name == "_users":
        raise forbidden("You can't edit the security object of the user database.")
    require_database_admin(request.user, database.security())
    value = check_security(await request.json())
    await request.app.thread(database.set_security, value)
    return answer({"ok": True})


async def revs_limit(request: Request, database: DatabaseStore) -> Response:
    """``/{db}/_revs_limit``."""
    if request.method in ("GET", "HEAD"):
        return answer(database.revs_limit)
    if request.method != "PUT":
        raise method_not_allowed("PUT,GET")
    require_database_admin(request.user, database.security())
    value = await request.json()
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise bad_request("Rev limit has to be an integer")
    await request.app.thread(database.set_revs_limit, value)
    return answer({"ok": True})


async def ensure_full_commit(request: Request, database: DatabaseStore) -> Response:
    """``POST /{db}/_ensure_full_commit``: every acknowledged write is committed already."""
    if request.method != "POST":
        raise method_not_allowed("POST")
    request.check_type()
    return answer({"ok": True, "instance_start_time": database.created}, 201)


async def compact(request: Request, database: DatabaseStore) -> Response:
    """``POST /{db}/_compact``: forget the bodies of revisions that have been replaced."""
    if request.method != "POST":
        raise method_not_allowed("POST")
    require_database_admin(request.user, database.security())
    request.check_type()
    if len(request.parts) > 2 and database.get(f"_design/{request.parts[2]}") is None:
        raise missing()
    if len(request.parts) == 2:
        await request.app.slowly(prune, database)
    return answer({"ok": True}, 202)


def prune(database: DatabaseStore) -> int:
    """Drop bodies that no leaf needs and attachments that no body names; returns how many bodies went."""

    removed, used = database.run(compaction.compact)
    database.blobs.prune(used, time.time())
    return int(removed)
