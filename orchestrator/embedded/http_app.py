"""The ASGI application: who asks, which handler answers, and how refusals and faults are told."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from orchestrator.embedded import (
    http_attachments,
    http_bulk,
    http_changes,
    http_database,
    http_design,
    http_documents,
    http_listing,
    http_revisions,
    http_server,
)
from orchestrator.embedded.database import DatabaseStore
from orchestrator.embedded.http_database import token
from orchestrator.embedded.http_request import Request, Response, refusal
from orchestrator.embedded.layout import SYSTEM_DATABASES
from orchestrator.embedded.problems import Problem, bad_request, missing, not_implemented, storage_problem
from orchestrator.embedded.replicator import Replicator
from orchestrator.embedded.security import USER_PREFIX, Accounts, User, require_member
from orchestrator.embedded.store import Store
from orchestrator.embedded.views import Views

Result = TypeVar("Result")
Handler = Callable[[Request, DatabaseStore], Awaitable[Response]]

READERS = 16  # threads for reads and design functions; more would only wait for each other

log = logging.getLogger(__name__)

_DATABASE: dict[str, Handler] = {
    "_all_docs": http_listing.all_docs,
    "_design_docs": http_listing.design_docs,
    "_local_docs": http_listing.local_docs,
    "_changes": http_changes.changes,
    "_bulk_docs": http_bulk.bulk_docs,
    "_bulk_get": http_revisions.bulk_get,
    "_revs_diff": http_revisions.revs_diff,
    "_missing_revs": http_revisions.missing_revs,
    "_security": http_database.security,
    "_revs_limit": http_database.revs_limit,
    "_ensure_full_commit": http_database.ensure_full_commit,
    "_compact": http_database.compact,
    "_view_cleanup": http_design.view_cleanup,
    "_find": http_design.find,
    "_explain": http_design.explain,
    "_index": http_design.index,
}
_UNSUPPORTED = frozenset(
    {"_purge", "_purged_infos", "_purged_infos_limit", "_shards", "_sync_shards", "_search_analyze", "_partition",
     "_nouveau_analyze", "_auto_purge", "_time_seq"}
)  # fmt: skip


class Application:
    """The server's HTTP side.

    Args:
        store: the databases.
        admin: username and password of the server's admin.
    """

    def __init__(self, store: Store, admin: tuple[str, str]) -> None:
        self.store = store
        self.accounts = Accounts(admin, self._user_document, store.secret)
        self.threads = ThreadPoolExecutor(READERS, "reader")
        self.feeds = ThreadPoolExecutor(READERS, "feed")
        self.builders = ThreadPoolExecutor(READERS, "builder")
        self.closing = False
        self.views = Views(lambda: store.functions, token)
        self.replicator = Replicator(store)

    def _user_document(self, name: str) -> dict[str, Any] | None:
        return self.store.database("_users").get(USER_PREFIX + name)

    async def thread(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Run something that reads or computes in a thread, so that the event loop never waits for it."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, function, *arguments)

    async def slowly(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """As :meth:`thread`, for what can take seconds or minutes: plain reads must not queue behind it."""
        return await asyncio.get_running_loop().run_in_executor(self.builders, function, *arguments)

    async def database(self, name: str) -> DatabaseStore:
        """A database by name.

        Raises:
            Problem: 404 if there is none.
        """
        found = self.store.opened(name)
        return found if found is not None else await self.thread(self.store.database, name)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return
        try:
            try:
                request = Request(self, scope, receive)
                response = await self._answer(request)
                if request.refreshed:
                    response.with_header("Set-Cookie", session_cookie(request.refreshed))
            except Problem as problem:
                response = refusal(problem)
            except ConnectionError:
                return
            except Exception as error:
                told = storage_problem(error)
                if isinstance(told, Problem):
                    log.error("%s %s: %s", scope["method"], scope["path"], told)
                    response = refusal(told)
                else:
                    log.exception("%s %s failed", scope["method"], scope["path"])
                    response = refusal(Problem(500, "internal_server_error", "The server failed; its log says where."))
            headers = response.headers
            headers.append((b"x-couch-request-id", b"%010x" % random.getrandbits(40)))
            headers.append((b"x-couchdb-body-time", b"0"))
            await _send(response, send)
        except ConnectionError:
            return
        except asyncio.CancelledError:
            log.warning("%s %s was cut off by the end of the server", scope["method"], scope["path"])
        except Problem as problem:
            # The answer has begun: all that is left is to break it off, as CouchDB does.
            log.warning("%s %s was broken off: %s", scope["method"], scope["path"], problem)

    async def _answer(self, request: Request) -> Response:
        request.user = await self._authenticate(request)
        parts = request.parts
        if not parts or not parts[0]:
            return await http_server.welcome(request)
        first = parts[0]
        if first.startswith("_") and first not in SYSTEM_DATABASES:
            return await http_server.dispatch(request)
        if len(parts) == 1:
            return await http_database.root(request)
        return await self._in_database(request, first)

    async def _authenticate(self, request: Request) -> User:
        header = request.header(b"authorization")
        if header is not None:
            known = self.accounts.cached(header)
            return known if known is not None else await self.thread(self.accounts.basic, header)
        cookies = request.header(b"cookie")
        if cookies is None:
            return User()
        for piece in cookies.split(";"):
            name, _, value = piece.strip().partition("=")
            if name == "AuthSession":
                user, renew = await self.thread(self.accounts.session, value.strip('"'))
                if renew and user.name is not None and request.parts[:1] != ["_session"]:
                    request.refreshed = await self.thread(self.accounts.cookie, user.name)
                return user
        return User()

    async def _in_database(self, request: Request, name: str) -> Response:
        database = await self.database(name)
        require_member(request.user, database.security())
        parts = request.parts
        second = parts[1]
        handler = _DATABASE.get(second)
        if handler is not None:
            return await handler(request, database)
        if second in _UNSUPPORTED:
            raise not_implemented(second)
        if second == "_temp_view":
            raise Problem(410, "gone", "Temporary views are not supported in CouchDB")
        if second == "_design" and len(parts) > 2:
            if len(parts) > 3 and parts[3].startswith("_"):
                return await http_design.function(request, database, parts[2], parts[3], parts[4:])
            identifier, rest = f"_design/{parts[2]}", parts[3:]
        elif second == "_local" and len(parts) > 2:
            identifier, rest = f"_local/{parts[2]}", parts[3:]
            if rest:
                raise bad_request("_local documents do not accept attachments.")
        elif second in ("_local", "_local/"):
            raise bad_request("Invalid _local document id.")
        elif second == "":
            raise missing()
        else:
            identifier, rest = second, parts[2:]
        if rest:
            return await http_attachments.attachment(request, database, identifier, "/".join(rest))
        return await http_documents.document(request, database, identifier)

    def end_feeds(self) -> None:
        """The server is about to stop: let the feeds send their last line."""
        self.closing = True
        self.store.ring()

    def close(self) -> None:
        """End the threads; the store is closed by whoever opened it."""
        self.replicator.close()
        self.store.end_functions()
        self.views.close()
        self.threads.shutdown(wait=False, cancel_futures=True)
        self.feeds.shutdown(wait=False, cancel_futures=True)
        self.builders.shutdown(wait=False, cancel_futures=True)


def session_cookie(value: str) -> str:
    """The Set-Cookie header of a session."""
    return f"AuthSession={value}; Version=1; Path=/; HttpOnly"


async def _send(response: Response, send: Any) -> None:
    headers = response.headers
    if response.stream is None:
        headers.append((b"content-length", b"%d" % len(response.body)))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})
        return
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    async for data in response.stream:
        await send({"type": "http.response.body", "body": data, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
