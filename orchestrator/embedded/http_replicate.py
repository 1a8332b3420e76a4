"""``_replicate`` and ``_scheduler``: asking for replications, and how they are doing."""

from __future__ import annotations

import asyncio
from typing import Any

from orchestrator.embedded.http_request import Request, Response, answer
from orchestrator.embedded.problems import Problem, bad_request, method_not_allowed, missing
from orchestrator.embedded.replication_job import Job
from orchestrator.embedded.replicator import DATABASE
from orchestrator.embedded.security import require_server_admin

_SOME = 100  # rows that are sent unless more are asked for
_STATES = ("initializing", "running", "completed", "pending", "crashing", "error", "failed")
_IDS = ("_local_id", "replication_id", "id")


async def replicate(request: Request) -> Response:
    """``POST /_replicate``: answers at the end, or at once with ``continuous``. For the server's admin only."""
    if request.method != "POST":
        raise method_not_allowed("POST")
    require_server_admin(request.user)
    request.check_type()
    body = await request.json_object()
    replicator = request.app.replicator
    if not isinstance(body.get("cancel", False), bool):
        raise bad_request("parameter `cancel` must be a boolean")
    if body.get("cancel"):
        name = next((str(body[key]) for key in _IDS if body.get(key)), "")
        wanted = None if name else replicator.request(body)
        cancelled = await request.app.thread(replicator.cancel, wanted, name)
        if cancelled is None:
            return Response(404, b'{"error":"not found"}\n')
        return answer({"ok": True, "_local_id": cancelled})
    wanted = replicator.request(body)
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Job] = loop.create_future()

    def settle(job: Job) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(lambda: None if done.done() else done.set_result(job))

    def nothing(job: Job) -> None:
        return None

    if wanted.continuous:
        replicator.begin(wanted, request.user.name, ended=settle, running=settle)
    else:
        replicator.begin(wanted, request.user.name, ended=settle, running=nothing)
    job = await done
    if wanted.continuous and job.state != "failed":
        return answer({"ok": True, "_local_id": job.id}, 202)
    if job.failure is not None:
        raise Problem(500, job.failure.error, job.failure.reason)
    return answer(job.result)


async def scheduler(request: Request) -> Response:
    """``GET /_scheduler/jobs`` and ``/_scheduler/docs``, whole or one of them."""
    if request.method not in ("GET", "HEAD"):
        raise method_not_allowed("GET,HEAD")
    require_server_admin(request.user)
    replicator = request.app.replicator
    kind, rest = (request.parts[1:2] or [""])[0], request.parts[2:]
    if kind == "jobs" and not rest:
        return answer(_page(request, "jobs", replicator.jobs()))
    if kind == "jobs" and len(rest) == 1:
        return _one(replicator.job(rest[0]))
    if kind == "docs" and rest in ([], [DATABASE]):
        return answer(_page(request, "docs", _of_states(request, replicator.documents())))
    if kind == "docs" and len(rest) == 2 and rest[0] == DATABASE:
        return _one(replicator.document(rest[1]))
    raise missing()


def _one(row: dict[str, Any] | None) -> Response:
    if row is None:
        raise missing()
    return answer(row)


def _page(request: Request, name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    skip, limit = request.number("skip", 0) or 0, request.number("limit", _SOME) or 0
    return {"total_rows": len(rows), "offset": min(skip, len(rows)), name: rows[skip : skip + limit]}


def _of_states(request: Request, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    asked = [word for word in request.query.get("states", "").split(",") if word]
    if any(word not in _STATES for word in asked):
        raise bad_request(f"`states` must be of {', '.join(_STATES)}")
    return [row for row in rows if not asked or row.get("state") in asked]
