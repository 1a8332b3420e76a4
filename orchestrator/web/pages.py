"""The routes: each page as HTML, and the same as JSON under ``/api``. Reads only; nothing here changes anything."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.convertors import Convertor, register_url_convertor
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from orchestrator.chain import Chain
from orchestrator.errors import NotFound
from orchestrator.web import branches, detail, human, lists, settings_table
from orchestrator.web import jobs as job_pages
from orchestrator.web.chain_picture import picture
from orchestrator.web.control_room import ControlRoom
from orchestrator.web.headers import problem
from orchestrator.web.live import Full, Hub
from orchestrator.web.overview import overview
from orchestrator.web.pollers import Pollers
from orchestrator.web.render import html, json_answer, wants_json
from orchestrator.web.roots import LOG_BYTES, Roots
from orchestrator.web.source import DatabaseLike, Source
from orchestrator.web.states import STATES, Outline, outlines

Limit = Annotated[int, Query(ge=1, le=200, description="rows on a page")]
At = Annotated[str, Query(max_length=4000, description="where to go on: 'next' or 'previous' of an earlier answer")]
Words = Annotated[str, Query(max_length=200)]
Task = Annotated[int | None, Query(ge=1, le=10**6, description="the task of an array whose log is shown")]
#: A step's state, or nothing for any.
State = Annotated[str, Query(max_length=200, json_schema_extra={"enum": ["", *STATES]})]

#: A step's key in a document, of the main lane or of another.
_ENTRY = re.compile(r"(?:\A|_)proc\d{1,6}\Z")

_PROBLEM = {
    "type": "object",
    "required": ["status", "error", "reason"],
    "properties": {"status": {"type": "integer"}, "error": {"type": "string"}, "reason": {"type": "string"}},
}


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    words = {400: "the address asks for what cannot be", 404: "there is no such thing", 503: "the database is away"}
    return {s: {"description": words[s], "content": {"application/json": {"schema": _PROBLEM}}} for s in statuses}


class _Anything(Convertor[str]):
    """The rest of an address, slashes and line breaks too: an id may hold anything."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


class Pages:
    """What the routes share, and the routes."""

    def __init__(self, source: Source, hub: Hub, chain: Chain | None, plots: Roots, logs: Roots, title: str) -> None:
        self.source = source
        self.hub = hub
        self.chain = chain
        self.plots = plots
        self.logs = logs
        self.title = title
        self.control_room: ControlRoom | None = None
        #: Where documents are explained from: the site, and after how long (s) a silent daemon counts as dead.
        self.site, self.lease = "here", 60.0
        #: Where daemons of the site have left their last words.
        self.spool: Path | None = None
        self.pollers = Pollers()
        register_url_convertor("anything", _Anything())
        self.router = APIRouter()
        self._route("/", "/overview", self.overview, "How many documents stand where, and who works")
        self._route("/runs", "/runs", self.runs, "Runs, the last on top", 400, 404)
        self._route(
            "/runs/{run:anything}", "/runs/{run:anything}", self.run, "One run: its files and pictures", 400, 404
        )
        self._route("/files", "/documents", self.files, "Documents, by any filter", 400, 404)
        self._route(
            "/documents/{id:anything}", "/documents/{id:anything}", self.document, "All about one document", 404
        )
        self._route("/failed", "/failed", self.failed, "Failed documents and why", 400, 404)
        self._route("/bad", "/bad", self.bad, "Bad documents and why", 400, 404)
        self._route("/held", "/held", self.held, "Documents on hold, by whom and why", 400, 404)
        self._route("/gathers/{name}", "/gathers/{name}", self.gather, "What a gather makes, and what waits", 404)
        self._route("/jobs", "/jobs", self.jobs, "What farms have in hand, their limits, and what is paused")
        self._route("/jobs/{name}", "/jobs/{name}", self.job, "One batch job: its documents and its log", 400, 404)
        self._route("/chain", "/chain", self.chain_page, "The chain's steps and settings")
        self.router.add_api_route(
            "/healthz", self.health, summary="Whether page and database answer", responses=_errors(503)
        )
        self.router.add_api_route(
            "/events", self.events, summary="Server-sent events: change, database", responses=_errors(503)
        )
        self.router.add_api_route(
            "/plots/{id:anything}/{step}/{index}",
            self.plot,
            summary="A picture (PNG) of a step",
            responses=_errors(400, 404, 503),
        )
        self.router.add_api_route(
            "/logs/{id:anything}/{step}", self.log, summary="The end of a step's log", responses=_errors(404, 503)
        )
        self.router.add_api_route("/api", self.api, include_in_schema=False)
        self.router.add_api_route("/api/docs", self.api, include_in_schema=False)

    def _route(self, page: str, api: str, endpoint: Callable[..., Response], summary: str, *statuses: int) -> None:
        self.router.add_api_route(page, endpoint, methods=["GET", "HEAD"], include_in_schema=False)
        self.router.add_api_route(
            "/api" + api,
            endpoint,
            methods=["GET"],
            summary=summary,
            responses={
                200: {"content": {"application/json": {"schema": {"type": "object"}}}},
                **_errors(*statuses, 503),
            },
        )

    def outlines(self, database: DatabaseLike) -> tuple[Outline, ...]:
        """The chain's steps, or those that the database knows where no chain was given."""
        if self.chain is None:
            rows = self.source.rows(database, "pages/steps", group_level=1)
            return outlines(None, [row.key[0] for row in rows])
        return outlines(self.chain)

    def answer(
        self, request: Request, template: str, data: dict[str, Any], status: int = 200, **extra: Any
    ) -> Response:
        """The page, or its JSON where the reader is a program."""
        if wants_json(request):
            return json_answer(data, status)
        return html(template, request, {**self.common(), **extra, "data": data}, status)

    def common(self) -> dict[str, Any]:
        """What every template gets."""
        return {"title": self.title, "health": self.source.health, "now_seconds": self.source.now(), "iso": human.iso,
                "control_room": self.control_room}  # fmt: skip

    def overview(self, request: Request) -> Response:
        def read(database: DatabaseLike) -> dict[str, Any]:
            return overview(self.source, database, self.chain, self.pollers, self.title)

        data = self.source.cached("overview", read)
        return self.answer(request, "overview.html", data)

    def _pictures(self, steps: tuple[Outline, ...], words: dict[str, dict[str, str]]) -> list[dict[str, Any]]:
        return [picture(steps, words), picture(steps, words, vertical=True)]

    def runs(self, request: Request, q: Words = "", at: At = "", limit: Limit = lists.ROWS) -> Response:
        data = self.source.cached(("runs", q, at, limit), lambda db: lists.runs(self.source, db, q, at, limit))
        return self.answer(request, "runs.html", data)

    def run(self, request: Request, run: str, name: Words = "", at: At = "", limit: Limit = lists.ROWS) -> Response:
        wanted = run or name

        def read(database: DatabaseLike) -> dict[str, Any] | None:
            return detail.run(
                self.source, database, self.chain, self.outlines(database), self.plots, wanted, at, limit
            )

        data = self.source.cached(("run", wanted, at, limit), read)
        if data is None:
            raise NotFound(f"there is no run {wanted!r}: the list of runs has a search")
        return self.answer(request, "run.html", data)

    def files(
        self,
        request: Request,
        status: Words = "",
        step: Words = "",
        state: State = "",
        run: Words = "",
        daq: Words = "",
        q: Words = "",
        branch: Words = "",
        at: At = "",
        limit: Limit = lists.ROWS,
    ) -> Response:
        wanted = lists.Filter(status, step, state, run, daq, q, branch)

        def read(database: DatabaseLike) -> tuple[dict[str, Any], tuple[Outline, ...]]:
            inner, chain = branches.seen(database, self.chain, branch)
            steps = self.outlines(database) if not branch else outlines(chain)
            return lists.files(self.source, inner, steps, wanted, at, limit), steps

        data, steps = self.source.cached(("files", wanted, at, limit), read)
        return self.answer(request, "files.html", data, steps=steps, wanted=wanted, all_of=lists.whole(wanted))

    def document(self, request: Request, id: str) -> Response:
        wanted = id or request.query_params.get("id", "")
        if not wanted or wanted.startswith("_"):
            raise NotFound(f"there is no document {wanted!r}")

        def read(database: DatabaseLike) -> dict[str, Any]:
            steps = self.outlines(database)
            return detail.document(
                self.source, database, self.chain, steps, self.logs, self.plots, self.pollers, wanted,
                self.site, self.lease, self.spool,
            )  # fmt: skip

        data = self.source.cached(("document", wanted), read)
        drawn = {lane["name"]: self._drawn(lane["steps"]) for lane in data["lanes"]}
        return self.answer(request, "document.html", data, pictures=self._drawn(data["steps"]), drawn=drawn)

    def _drawn(self, steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The picture of a document's way through the steps of one lane."""
        words = {
            s["key"]: {"state": s["state"], "note": s["state"], "title": s["sentence"], "href": f"#{s['key']}"}
            for s in steps
        }
        made = tuple(Outline(s["number"], s["name"], s["key"], tuple(s["needs"])) for s in steps)
        return self._pictures(made, words)

    def failed(
        self, request: Request, step: Words = "", error_class: Words = "", branch: Words = "", at: At = "",
        limit: Limit = lists.ROWS,
    ) -> Response:  # fmt: skip
        def read(database: DatabaseLike) -> tuple[dict[str, Any], dict[str, str]]:
            inner, chain = branches.seen(database, self.chain, branch)
            found = lists.failed(self.source, inner, step, error_class, at, limit)
            if branch:
                found["filter"]["branch"] = branch
            return found, {} if chain is None else {s.key: s.name for s in chain.steps}

        data, names = self.source.cached(("failed", step, error_class, branch, at, limit), read)
        return self.answer(request, "failed.html", data, names=names)

    def bad(self, request: Request, branch: Words = "", at: At = "", limit: Limit = lists.ROWS) -> Response:
        def read(database: DatabaseLike) -> dict[str, Any]:
            found = lists.bad(self.source, branches.seen(database, self.chain, branch)[0], at, limit)
            return found | {"filter": {"branch": branch} if branch else {}}

        return self.answer(request, "bad.html", self.source.cached(("bad", branch, at, limit), read))

    def held(self, request: Request, at: At = "", limit: Limit = lists.ROWS) -> Response:
        data = self.source.cached(("held", at, limit), lambda db: lists.held(self.source, db, at, limit))
        return self.answer(request, "held.html", data)

    def gather(self, request: Request, name: str, at: At = "", limit: Limit = branches.ROWS) -> Response:
        def read(database: DatabaseLike) -> dict[str, Any]:
            return branches.gather(self.source, database, self.chain, self.pollers, name, at, limit)

        return self.answer(request, "gather.html", self.source.cached(("gather", name, at, limit), read))

    def jobs(self, request: Request) -> Response:
        data = self.source.cached("jobs", lambda db: job_pages.overview(self.source, db, self.chain, self.pollers))
        return self.answer(request, "jobs.html", data)

    def job(
        self, request: Request, name: str, task: Task = None, at: At = "", limit: Limit = job_pages.ROWS
    ) -> Response:
        def read(database: DatabaseLike) -> dict[str, Any] | None:
            return job_pages.job(self.source, database, self.chain, name, at, task, limit)

        data = self.source.cached(("job", name, task, at, limit), read)
        if data is None:
            raise NotFound(f"no document has had a batch job {name!r}: the list of jobs shows those that wait")
        return self.answer(request, "job.html", data)

    def chain_page(self, request: Request) -> Response:
        data = settings_table.chain(self.chain)
        steps = outlines(self.chain)
        words = {s.key: {"state": "", "note": s.key, "title": s.name, "href": f"#{s.key}"} for s in steps}
        return self.answer(request, "chain.html", data, pictures=self._pictures(steps, words))

    def _raw(self, id: str) -> dict[str, Any]:
        """A document. ``_all_docs`` and its like are no documents, though the database would answer with them all."""
        if not id or id.startswith("_"):
            raise NotFound(f"there is no document {id!r}")
        return self.source.cached(("raw", id), lambda database: database.get(id))

    def plot(self, id: str, step: str, index: int) -> Response:
        """A picture by its place in the document, so that no path ever comes from an address."""
        proc = self._raw(id).get(step) if _ENTRY.search(step) else None
        named = detail.pictures(proc) if isinstance(proc, dict) else []
        picture = self.plots.picture(named[index].path) if 0 <= index < len(named) else None
        if picture is None:
            raise NotFound(f"document {id!r} has no picture {index} of {step} that this page may show")
        return Response(picture, media_type="image/png", headers={"Cache-Control": "private, max-age=5"})

    def log(self, id: str, step: str) -> Response:
        """The end of a step's log as plain text."""
        proc = self._raw(id).get(step) if _ENTRY.search(step) else None
        name = proc.get("log") if isinstance(proc, dict) else None
        tail = self.logs.tail(name, LOG_BYTES)
        if tail is None:
            raise NotFound(f"document {id!r} has no log of {step} that this page may show")
        return PlainTextResponse(tail["text"].encode("utf-8", "replace"))

    def health(self) -> Response:
        """200 where the database answers, else 503; with since when that is so."""
        self.source.cached("ping", lambda database: database.info())
        health = self.source.health
        return json_answer({"ok": True, "since": human.iso(health.since), "viewers": self.hub.viewers})

    async def events(self) -> Response:
        """One viewer's stream. Sent unbuffered by reverse proxies that heed X-Accel-Buffering."""
        stream: AsyncGenerator[str, None] = self.hub.stream()
        try:
            first = await anext(stream)
        except Full as error:
            return json_answer(problem(503, "full", str(error)), 503, {"Retry-After": "10"})

        async def all_of_it() -> AsyncIterator[str]:
            async with aclosing(stream):  # a viewer that has gone is not kept until somebody collects garbage
                yield first
                async for piece in stream:
                    yield piece

        return StreamingResponse(all_of_it(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})

    def api(self, request: Request) -> Response:
        """What programs can read, made from the OpenAPI description."""
        schema = request.app.openapi()
        calls = [
            {
                "path": path,
                "summary": body["get"].get("summary", ""),
                "parameters": [
                    {"name": p["name"], "in": p["in"], "description": p.get("description", "")}
                    for p in body["get"].get("parameters", [])
                ],
            }
            for path, body in schema["paths"].items()
            if "get" in body
        ]
        return self.answer(request, "api.html", {"calls": calls, "openapi": "/api/openapi.json"})
