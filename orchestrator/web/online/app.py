"""The control room's application: routes, errors in one shape, headers, and the subscription that makes it live."""

from __future__ import annotations

import gzip
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from orchestrator.errors import FormatError, NotFound, OrchestratorError
from orchestrator.online.broadcast import Secure
from orchestrator.online.configuration import Online
from orchestrator.version import VERSION
from orchestrator.web.answers import Answers, Static
from orchestrator.web.headers import Guard, problem
from orchestrator.web.online.board import Board
from orchestrator.web.online.hub import Full, Hub
from orchestrator.web.online.kept import Kept
from orchestrator.web.online.listening import Listener
from orchestrator.web.online.pages import Pages
from orchestrator.web.online.pictures import Pictures
from orchestrator.web.online.room import Room
from orchestrator.web.online.sets import BadSet, Sets
from orchestrator.web.render import HERE, json_answer, wants_json

log = logging.getLogger(__name__)

#: It draws under the policy of all pages (``headers``): no script but our own files, no style in the text, no eval.
JSROOT = HERE / "static" / "jsroot" / "jsroot.min.js"


def create_app(
    configuration: Online,
    folder: Path,
    *,
    secure: Secure | None = None,
    allowed_hosts: Iterable[str] = (),
    status_port: int | None = None,
    clock: Callable[[], float] = time.time,
    jsroot: Path = JSROOT,
) -> FastAPI:
    """The control room as an ASGI application.

    Args:
        configuration: the file ``online.yaml``.
        folder: the online system's, in the site's: sets are kept there, and old runs' snapshots read.
        secure: gives the subscription its keys.
        allowed_hosts: names, besides localhost, under which the pages may be opened; ``*`` allows any.
        status_port: of the status page on this machine, for the links to it; None where there is none.
        clock: seconds since 1970.
        jsroot: the script that draws; where it is missing, plots are pictures.
    """
    board = Board(life=secrets.token_hex(4))
    kept = Kept(folder / "runs")
    room = Room(configuration, board, clock, lambda: listener.connected, kept.held)
    hub = Hub(board, room.status, room.listing, clock, room.plots)
    listener = Listener(configuration.broadcast.subscribe, hub.take, hub.changed, secure=secure)
    pictures = Pictures()
    pages = Pages(
        room, hub, kept, pictures, Sets(folder / "sets.json"), status_port, jsroot.exists(), lambda: listener.complete
    )

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        listener.start()
        try:
            yield
        finally:
            listener.close()
            hub.close()
            pictures.close()

    app = FastAPI(title=configuration.title, version=VERSION, docs_url=None, redoc_url=None, openapi_url=None,
                  lifespan=life)  # fmt: skip
    app.state.hub = hub
    app.state.board = board
    app.include_router(pages.router)
    app.add_api_route("/static/jsroot/jsroot.min.js", _Script(jsroot), methods=["GET"])
    app.mount("/static", Static(directory=HERE / "static"), name="static")
    answers = _Answers(pages)
    app.add_exception_handler(OrchestratorError, answers.ours)
    app.add_exception_handler(HTTPException, answers.http)
    app.add_exception_handler(RequestValidationError, answers.query)
    app.add_middleware(Guard, names=tuple(allowed_hosts), fault=answers.fault)
    return app


class _Script:
    """JSROOT, compressed once: two and a half megabytes become a third of that for each new viewer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._packed: bytes | None = None

    def __call__(self, request: Request) -> Response:
        if not self._path.exists():
            raise HTTPException(404)
        keep = {"Cache-Control": "public, max-age=604800", "Vary": "Accept-Encoding"}
        if "gzip" not in request.headers.get("accept-encoding", ""):
            return FileResponse(self._path, headers=keep, media_type="text/javascript")
        if self._packed is None:
            self._packed = gzip.compress(self._path.read_bytes(), 6)
        return Response(self._packed, headers=keep | {"Content-Encoding": "gzip"}, media_type="text/javascript")

    @property
    def __name__(self) -> str:
        return "jsroot"


class _Answers(Answers):
    """Errors as pages or as JSON, all in one shape."""

    fault_sentence = "The page could not be made: a fault of ours; its log has more."

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    def _answer(self, request: Request, status: int, error: str, reason: str) -> Response:
        body = problem(status, error, reason)
        path = request.scope.get("path", "")
        if wants_json(request) or path.startswith(("/events", "/static/", "/png", "/thumbnail")):
            return json_answer(body, status)
        return self._pages.html(request, "problem.html", {"data": body}, status)

    def ours(self, request: Request, error: Exception) -> Response:
        """An error of this project: its sentence is fit to be read."""
        if isinstance(error, NotFound):
            return self._answer(request, 404, "not found", str(error))
        if isinstance(error, BadSet | FormatError):
            return self._answer(request, 400, "bad query", str(error))
        if isinstance(error, Full):
            return self._answer(request, 503, "full", str(error))
        log.error("a page could not be made: %s", error)
        return self._answer(request, 500, "error", str(error))

    def http(self, request: Request, error: Exception) -> Response:
        """No such page, or another method than it has."""
        assert isinstance(error, HTTPException)
        words = {404: ("not found", "There is no such page."), 405: ("not allowed", "That cannot be done here.")}
        name, reason = words.get(error.status_code, ("error", str(error.detail)))
        return self._answer(request, error.status_code, name, reason)
