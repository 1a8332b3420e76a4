"""The page's application: routes, errors in one shape, headers, and the follower that makes it live."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from orchestrator.chain import Chain
from orchestrator.errors import NotFound, OrchestratorError, Unauthorised, Unavailable
from orchestrator.version import VERSION
from orchestrator.web import human, replication
from orchestrator.web.acts import Acts
from orchestrator.web.answers import Answers, Static
from orchestrator.web.control_room import ControlRoom
from orchestrator.web.controlling import Controlling
from orchestrator.web.headers import Guard, problem
from orchestrator.web.live import RETRY_SECONDS, Follow, Hub
from orchestrator.web.login import Gate, Login
from orchestrator.web.operations import Acting, Operations
from orchestrator.web.pages import Pages
from orchestrator.web.paging import BadQuery
from orchestrator.web.render import HERE, html, json_answer, wants_json
from orchestrator.web.roots import Roots
from orchestrator.web.source import Factory, Setup, Source
from orchestrator.web.versions import Versions

log = logging.getLogger(__name__)

Folders = Path | Sequence[Path] | None


class _App(FastAPI):
    """Describes itself as it is: what cannot be asked for is 400 here, in the shape of all errors, and never 422."""

    def openapi(self) -> dict[str, Any]:
        schema = super().openapi()
        for path in schema["paths"].values():
            for call in path.values():
                call["responses"].pop("422", None)
        return schema


def create_app(
    database_factory: Factory,
    *,
    chain: Chain | None = None,
    files_root: Folders = None,
    logs_root: Folders = None,
    title: str = "Orchestrator",
    allowed_hosts: Iterable[str] = (),
    login: Login | None = None,
    closed: bool = False,
    acting: Acting | None = None,
    follow: Follow | None = None,
    live: bool = True,
    control_room: ControlRoom | None = None,
    clock: Callable[[], float] = time.time,
) -> FastAPI:
    """The status page as an ASGI application.

    Args:
        database_factory: makes an ``orchestrator.couch.Database``, with a time-out of a few seconds, for people wait.
        chain: the chain whose steps are shown; without it they are numbered as the documents have them.
        files_root: the folder or folders that plots may be shown from.
        logs_root: the folder or folders that logs may be shown from.
        title: what the pages call themselves: the experiment's name, say.
        allowed_hosts: names, besides localhost, under which the page may be opened; ``*`` allows any.
        login: knows people by their accounts at the database; without it nobody can log in.
        closed: reading needs a login too.
        acting: the site for which documents may be changed by people that ``login`` knows; without it nothing is.
        follow: where changes come from, for tests; by default the database's changes feed.
        live: False for a page that does not follow changes at all.
        control_room: where the live system's pages are, for links to them.
        clock: seconds since 1970, by which the pages tell ages and keep answers.
    """
    source = Source(database_factory, clock)
    if follow is None and live:
        follow = Changes(database_factory)
    hub = Hub(source, follow)
    pages = Pages(source, hub, chain, Roots(files_root), Roots(logs_root, files_root), title)
    pages.control_room = control_room
    if acting is not None:
        pages.site, pages.lease, pages.spool = acting.site, acting.lease, acting.spool

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        hub.start()
        try:
            yield
        finally:
            hub.close()

    app = _App(
        title=title,
        version=VERSION,
        description="What the status page shows, for programs; and people's operations, for operators.",
        docs_url=None,  # the stock documentation pages load scripts from elsewhere; /api lists the calls instead
        redoc_url=None,
        openapi_url="/api/openapi.json",
        lifespan=life,
    )
    app.state.hub = hub
    app.state.source = source
    app.state.login = login
    app.include_router(pages.router)
    app.include_router(replication.router(pages))
    operations = Operations(source, chain, acting) if acting is not None and chain is not None else None
    app.include_router(Versions(pages, operations).router)
    if operations is not None and acting is not None and chain is not None:
        app.include_router(operations.router)
        app.include_router(Acts(pages, operations, chain, acting.ask_above).router)
        app.include_router(Controlling(pages, operations, chain, acting).router)
        app.state.acting = True
    if login is not None:
        app.state.who = login.who
        app.include_router(login.router(pages))
        if closed:
            app.add_middleware(Gate, login=login)
    app.mount("/static", Static(directory=HERE / "static"), name="static")
    answers = _Answers(pages)
    app.add_exception_handler(OrchestratorError, answers.ours)
    app.add_exception_handler(HTTPException, answers.http)
    app.add_exception_handler(RequestValidationError, answers.query)
    app.add_middleware(Guard, names=tuple(allowed_hosts), fault=answers.fault)
    return app


class Changes:
    """Follows the database's changes feed from now on, ids only. One at a time: it belongs to one hub."""

    def __init__(self, factory: Factory) -> None:
        self._factory = factory
        self._follower: Any = None

    def __call__(self, stop: threading.Event) -> Iterator[Sequence[str]]:
        """Batches of ids. Raises NotFound, Unauthorised; an absent database is waited for."""
        from orchestrator.couch import Follower  # here, so that a page without a feed needs no HTTP client

        def wait(seconds: float) -> bool:
            return stop.wait(min(seconds, RETRY_SECONDS))  # people look on: back within seconds, not half a minute

        database: Any = self._factory()
        with Follower(database, since="now", include_docs=False, wait=wait) as follower:
            self._follower = follower
            for batch in follower.batches():
                yield [change.id for change in batch.changes]

    def close(self) -> None:
        """Cut the connection that the follower waits on."""
        if self._follower is not None:
            self._follower.close()


class _Answers(Answers):
    """Errors as pages or as JSON, all in one shape."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    def _answer(self, request: Request, status: int, error: str, reason: str, **extra: Any) -> Response:
        body = problem(status, error, reason)
        retry = {"Retry-After": "5"} if status == 503 else {}
        programs = ("/plots/", "/logs/", "/events", "/healthz", "/static/")
        path = request.scope.get("path", "")
        if wants_json(request) or path.startswith(programs):
            return json_answer(body | extra, status, retry)
        context = self._pages.common() | {"data": body, "since": None} | extra
        response = html("problem.html", request, context, status)
        response.headers.update(retry)
        return response

    def ours(self, request: Request, error: Exception) -> Response:
        """An error of this project: its sentence is fit to be read."""
        health = self._pages.source.health
        since = {"since": human.iso(health.since)}
        if isinstance(error, Setup):
            return self._answer(request, 503, "not set up", str(error))
        if isinstance(error, Unauthorised):
            return self._answer(request, 503, "unauthorised", str(error), **since)
        if isinstance(error, Unavailable):
            return self._answer(request, 503, "unavailable", str(error), **since)
        if isinstance(error, NotFound):
            return self._answer(request, 404, "not found", str(error))
        if isinstance(error, BadQuery):
            return self._answer(request, 400, "bad query", str(error))
        log.error("a page could not be made: %s", error)
        return self._answer(request, 500, "error", str(error))

    def http(self, request: Request, error: Exception) -> Response:
        """No such page, or a method other than GET."""
        assert isinstance(error, HTTPException)
        words = {
            404: ("not found", "There is no such page."),
            405: ("not allowed", "These pages can only be read (GET)."),
            401: ("unauthorised", str(error.detail)),
            403: ("forbidden", str(error.detail)),
        }
        name, reason = words.get(error.status_code, ("error", str(error.detail)))
        response = self._answer(request, error.status_code, name, reason)
        if error.status_code == 405:
            response.headers["Allow"] = "GET, HEAD"
        return response
