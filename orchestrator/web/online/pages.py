"""The control room's pages, their JSON, pictures, and the stream of events."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import urlencode

import orjson
from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from orchestrator.errors import FormatError, NotFound
from orchestrator.online import bins
from orchestrator.version import VERSION
from orchestrator.web import human
from orchestrator.web.links import Links
from orchestrator.web.online import thumbnail
from orchestrator.web.online.board import Shown, ordered, pick
from orchestrator.web.online.hub import SHOWN, Hub
from orchestrator.web.online.kept import Kept
from orchestrator.web.online.pictures import SIZES, Pictures
from orchestrator.web.online.room import Room
from orchestrator.web.online.sets import BadSet, Sets
from orchestrator.web.render import assets_version, environment, json_answer, wants_json

#: Plots on one page of a search or a run.
LISTED = 300
#: Seconds between two pictures of a plot that a viewer may ask for.
PERIODS = (0.1, 3600.0)
#: Of a set that is saved, in bytes.
SET_BYTES = 20_000
#: Without scripts a page loads itself anew; so often at most, in seconds.
RELOADS = (2, 3600)

Name = Annotated[str, Query(max_length=400)]
Pause = Annotated[float, Query(allow_inf_nan=False)]
Names = Annotated[list[str], Query(max_length=SHOWN, default_factory=list)]


class Pages:
    """All routes."""

    def __init__(
        self, room: Room, hub: Hub, kept: Kept, pictures: Pictures, sets: Sets, status_port: int | None, jsroot: bool,
        complete: Callable[[], bool],
    ) -> None:  # fmt: skip
        self.room, self.hub, self.kept, self.pictures, self.sets = room, hub, kept, pictures, sets
        self._status_port, self._jsroot, self._complete = status_port, jsroot, complete
        self._thumbnails: dict[tuple[str, str], tuple[int, bytes]] = {}
        self.router = router = APIRouter()
        router.add_api_route("/", self.control_room, methods=["GET"])
        router.add_api_route("/events", self.events, methods=["GET"])
        for base in ("", "/api"):  # the same pages for people and for programs
            router.add_api_route(base + "/search", self.search, methods=["GET"])
            router.add_api_route(base + "/runs", self.runs, methods=["GET"])
            router.add_api_route(base + "/runs/", self.run, methods=["GET"])  # names that no path can have
            router.add_api_route(base + "/runs/{path:path}", self.run_of_path, methods=["GET"])
            router.add_api_route(base + "/compare", self.compare, methods=["GET"])
        router.add_api_route("/api/status", self.status, methods=["GET"])
        router.add_api_route("/api/list", self.listing, methods=["GET"])
        router.add_api_route("/api/plots", self.plots, methods=["GET"])
        router.add_api_route("/api/sets", self.all_sets, methods=["GET"])
        router.add_api_route("/api/sets", self.save_set, methods=["POST"])
        router.add_api_route("/api/sets", self.remove_set, methods=["DELETE"])
        router.add_api_route("/png", self.png, methods=["GET"])
        router.add_api_route("/thumbnail", self.small, methods=["GET"])
        router.add_api_route("/healthz", self.health, methods=["GET"])

    # ---- what every page shares

    def html(self, request: Request, template: str, context: dict[str, Any], status: int = 200) -> Response:
        """A page; everything in it is escaped."""
        links = Links(request.scope.get("root_path", ""))
        now = human.parse_time(self.room.status("")["now"]) or 0.0
        text = environment().get_template("online/" + template).render(
            links=links,
            asset=lambda name: links.static(name, assets_version()),
            address=lambda path, **query: links.to(path) + ("?" + urlencode(query, doseq=True) if query else ""),
            ago=lambda time: human.ago(time, now),
            now=human.iso(now),
            here=request.scope.get("path", ""),
            title=self.room.configuration.title,
            version=VERSION,
            status_page=self._status_page(request),
            jsroot=self._jsroot,
            **context,
        )  # fmt: skip
        return Response(text.encode("utf-8", "replace"), status, {"Vary": "Accept"}, "text/html; charset=utf-8")

    def _status_page(self, request: Request) -> str:
        """Where the status page is: on this machine, under the name by which it was asked for."""
        host = request.url.hostname
        if self._status_port is None or not host:
            return ""
        return f"{request.url.scheme}://{f'[{host}]' if ':' in host else host}:{self._status_port}"

    def _shown(self, run: str, plot: str) -> Shown:
        found = self.room.plots(run).get(plot)
        if found is None:
            raise NotFound(f"run {run or 'now'} has no plot {plot!r}")
        return found

    def _rows(self, run: str, names: list[str]) -> list[dict[str, Any]]:
        plots = self.room.plots(run)
        return [plots[name].header | {"number": plots[name].number} for name in names]

    # ---- live

    async def control_room(
        self, request: Request, show: Names, run: Name = "", at: Name = "", rotate: Pause = 0, reload: Pause = 5
    ) -> Response:  # fmt: skip
        """The control room. The query is the whole view; scripts read it themselves, the rest is for those without."""
        await self._load(run)
        plots = self.room.plots(run)
        canvases = self.room.canvases(plots)
        keys = {canvas["key"]: canvas for canvas in canvases}
        keys |= {f"p:{name}": {"key": f"p:{name}", "name": plots[name].header["title"], "plots": [name], "help": "",
                               "quality": plots[name].header["quality"], "group": ""} for name in plots}  # fmt: skip
        shown = [key for key in show if key in keys] or [c["key"] for c in canvases if c["group"] == "shifter"]
        shown = shown or [canvas["key"] for canvas in canvases]
        place = shown.index(at) if at in shown else 0
        canvas = keys[at] if at in keys else keys[shown[0]] if shown else None
        view: dict[str, Any] = {key: value for key, value in (("run", run), ("show", show)) if value}
        view |= {"rotate": f"{rotate:g}", "reload": f"{reload:g}"}
        turns = {
            name: {**view, "at": shown[(place + step) % len(shown)]} if shown else view
            for name, step in (("before", -1), ("after", 1))
        }
        period = min(max(rotate or reload or 5, RELOADS[0]), RELOADS[1])
        status = self.room.status(run)
        if wants_json(request):
            return json_answer({"status": status, "canvases": canvases, "canvas": canvas})
        context = {
            "status": status, "canvases": canvases, "canvas": canvas, "view": view, "turns": turns,
            "period": int(period), "turned": turns["after"] if rotate else {**view, "at": at},
            "plots": self._rows(run, canvas["plots"][:SHOWN]) if canvas else [], "run": run,
        }  # fmt: skip
        return await run_in_threadpool(self.html, request, "room.html", context)

    async def events(self, request: Request, plots: Names, run: Name = "", period: float = 1.0) -> Response:
        """The stream of one viewer."""
        await self._load(run)
        wait = min(max(period if period == period else 1.0, PERIODS[0]), PERIODS[1])
        compressed = "gzip" in request.headers.get("accept-encoding", "")
        stream = self.hub.stream(run, plots, wait, compressed=compressed)
        first = await anext(stream)  # raises where there are too many viewers, before the answer begins

        async def all_of_it() -> Any:
            try:
                yield first
                async for piece in stream:
                    yield piece
                    await self._load(run)  # a run that has left the memory meanwhile is still shown to its viewers
            finally:
                await stream.aclose()

        headers = {"X-Accel-Buffering": "no", "Cache-Control": "no-store"}
        if compressed:
            headers["Content-Encoding"] = "gzip"
        return StreamingResponse(all_of_it(), headers=headers, media_type="text/event-stream")

    async def status(self, run: Name = "") -> Response:
        """How a run stands."""
        await self._load(run)
        return json_answer(self.room.status(run))

    async def listing(self, run: Name = "") -> Response:
        """The plots and canvases of a run."""
        await self._load(run)
        return json_answer(self.room.listing(run))

    async def plots(self, plots: Names, run: Name = "") -> Response:
        """Plots with their histograms, as the stream has them."""
        await self._load(run)
        known = self.room.plots(run)
        body = b"[" + b",".join(known[name].json() for name in plots if name in known) + b"]"
        return Response(body, media_type="application/json")

    # ---- sets

    async def all_sets(self) -> Response:
        """Every saved view."""
        return json_answer({"sets": await run_in_threadpool(self.sets.all)})

    async def save_set(self, request: Request) -> Response:
        """Save a view by name."""
        data = await self._sent(request)
        return json_answer(await run_in_threadpool(self.sets.save, data), 201)

    async def remove_set(self, request: Request) -> Response:
        """Forget a view."""
        data = await self._sent(request)
        name = data.get("name") if isinstance(data, dict) else None
        if not isinstance(name, str) or not await run_in_threadpool(self.sets.remove, name):
            raise NotFound("there is no set of that name any more")
        return json_answer({"removed": name})

    async def _sent(self, request: Request) -> Any:
        """JSON that a page of ours sent: another site's page can send none without being asked about it first."""
        if request.headers.get("content-type", "").split(";")[0].strip() != "application/json":
            raise BadSet("a set is sent as application/json")
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise BadSet("sets are saved from the control room's own pages")
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > SET_BYTES:
                raise BadSet("the set is too large")
        try:
            return orjson.loads(body)
        except ValueError as error:
            raise BadSet("what was sent is no JSON") from error

    # ---- search, runs

    async def search(self, request: Request, q: Annotated[str, Query(max_length=200)] = "", run: Name = "") -> Response:
        """Plots whose name, title, description, keywords, tag or reducer have all the words."""
        await self._load(run)
        plots = self.room.plots(run)
        words = q.lower().split()
        names = [name for name in ordered(plots) if all(word in _words(plots[name]) for word in words)]
        data = {
            "q": q, "run": self.room.status(run)["run"], "asked": run, "found": len(names), "all": len(plots),
            "plots": self._rows(run, names[:LISTED]), "status": self.room.status(run),
        }  # fmt: skip
        return await self._answer(request, "search.html", data)

    async def runs(self, request: Request) -> Response:
        """All runs that can be looked at, the newest first."""
        return await self._answer(request, "runs.html", {"runs": await self._runs()})

    async def _answer(self, request: Request, template: str, data: dict[str, Any]) -> Response:
        if wants_json(request):
            return json_answer(data)
        return await run_in_threadpool(self.html, request, template, {"data": data})

    async def _load(self, run: str) -> None:
        """See to it that an old run's plots are in memory: what follows asks for nothing else."""
        if run and self.hub.board.run(run) is None:
            await run_in_threadpool(self.kept.load, run)

    async def _runs(self) -> list[dict[str, Any]]:
        rows: dict[str, dict[str, Any]] = {}
        for run in self.hub.board.runs():
            status = self.room.status(run.name)
            rows[run.name] = {key: status[key] for key in ("run", "state", "live", "quality", "plots", "counts", "how",
                                                          "output_time")} | {"kept": False}  # fmt: skip
        for run_name, row in (await run_in_threadpool(self.kept.runs)).items():
            rows[run_name] = row | rows.get(run_name, {}) | {"kept": True}
        return list(rows.values())

    async def run(self, request: Request, name: Name = "") -> Response:
        """All plots of one run, live or final."""
        await self._load(name)
        plots = self.room.plots(name)
        status = self.room.status(name)
        if not plots and not self.hub.board.run(name):
            raise NotFound(f"nothing is known of run {name!r}: it was never shown here, or its snapshot is gone")
        data = {
            "run": status["run"], "status": status, "canvases": self.room.canvases(plots),
            "plots": self._rows(name, ordered(plots)[:LISTED]), "all": len(plots),
            "runs": [row["run"] for row in await self._runs() if row["run"] != status["run"]],
        }  # fmt: skip
        return await self._answer(request, "run.html", data)

    async def run_of_path(self, request: Request, path: str) -> Response:
        """The same, with the run's name in the path."""
        return await self.run(request, path)

    async def compare(
        self, request: Request, a: Name = "", b: Name = "", q: Annotated[str, Query(max_length=200)] = "",
        how: Annotated[str, Query(pattern="^(beside|over)$")] = "beside",
    ) -> Response:  # fmt: skip
        """Two runs, plot by plot."""
        await self._load(a)
        await self._load(b)
        first, second = self.room.plots(a), self.room.plots(b)
        names = [name for name in pick(ordered(first), ["*"]) if name in second and q.lower() in name.lower()]
        data = {
            "a": self.room.status(a)["run"], "b": self.room.status(b)["run"], "q": q, "how": how,
            "plots": [{"name": name, "title": first[name].header["title"], "a": first[name].header,
                       "b": second[name].header} for name in names[:LISTED]],
            "only_a": sorted(set(first) - set(second)), "only_b": sorted(set(second) - set(first)),
            "runs": [row["run"] for row in await self._runs()],
        }  # fmt: skip
        return await self._answer(request, "compare.html", data)

    # ---- pictures

    async def png(self, run: Name = "", plot: Name = "", size: str = "large") -> Response:
        """A plot as PNG."""
        if size not in SIZES:
            raise FormatError(f"there is no size {size[:20]!r}; there are {', '.join(SIZES)}")
        await self._load(run)
        shown = self._shown(run, plot)
        return Response(await self.pictures.png(shown, size), media_type="image/png")

    async def small(self, run: Name = "", plot: Name = "") -> Response:
        """A plot as a small SVG."""
        await self._load(run)
        shown = self._shown(run, plot)
        kept = self._thumbnails.get((shown.run, plot))
        if kept is None or kept[0] != shown.number:
            kept = (shown.number, await run_in_threadpool(_thumbnail, shown))
            if len(self._thumbnails) > 1000:
                self._thumbnails.clear()
            self._thumbnails[(shown.run, plot)] = kept
        return Response(kept[1], media_type="image/svg+xml")

    async def health(self) -> Response:
        """For those who watch, and for a start that waits: whether what the pages show is what there is.

        200 once the broadcast is there and has given its newest plots, 503 as long as not.
        """
        status = self.room.status("")
        facts = {key: status[key] for key in ("connected", "run", "plots", "version")}
        facts |= {"complete": self._complete(), "viewers": self.hub.viewers, "pid": os.getpid()}
        return json_answer(facts, 200 if facts["connected"] and facts["complete"] else 503)


def _words(shown: Shown) -> str:
    header = shown.header
    texts = [shown.name, *(header[key] for key in ("title", "description", "tag", "reducer")), *header["keywords"]]
    return " ".join(texts).lower()


def _thumbnail(shown: Shown) -> bytes:
    drawn, other, _, _ = bins.parts(shown.body)
    style = shown.header["style"]
    try:
        read = bins.read(drawn) if drawn is not None else None
        reference = bins.read(other) if other is not None else None
    except FormatError:
        return thumbnail.draw(None)
    log = bool(style.get("logz" if read is not None and read.y is not None else "logy"))
    return thumbnail.draw(read, log=log, reference=reference)
