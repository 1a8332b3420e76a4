"""A document of which there are several versions: what differs between them, and for an admin the choice of one.

Those that a rule puts together are gone within seconds; what stands here for longer waits for a person. Choosing
deletes the other versions, which the database's guard leaves to admins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from orchestrator import conflicts, settling
from orchestrator.conflicts import Merge
from orchestrator.documents import iso
from orchestrator.errors import Conflict, NotFound, Refused
from orchestrator.web import forms
from orchestrator.web.links import Links
from orchestrator.web.states import kind_of

if TYPE_CHECKING:
    from orchestrator.web.operations import Operations
    from orchestrator.web.pages import Pages

#: Fields in which versions differ that are shown.
FIELDS = 200
_ABSENT: Any = object()


def compared(leaves: list[dict[str, Any]], types: conflicts.Types) -> dict[str, Any]:
    """What the page shows of a document's versions, the one that readers see first."""
    bodies = [{key: value for key, value in leaf.items() if not key.startswith("_")} for leaf in leaves]
    names = sorted({name for body in bodies for name in body})
    differ = [name for name in names if any(body.get(name, _ABSENT) != bodies[0].get(name, _ABSENT) for body in bodies)]
    decision: Any = conflicts.merge(bodies, types[str(leaves[0].get("type"))]) if _known(bodies, types) else None
    return {
        "versions": [
            {"rev": leaf["_rev"], "status": leaf.get("status"), "kind": kind_of(leaf.get("status")),
             "updated": leaf.get("updated") if isinstance(leaf.get("updated"), str) else None}
            for leaf in leaves
        ],
        "fields": [
            {"name": name, "values": [{"there": name in body, "value": body.get(name)} for body in bodies]}
            for name in differ[:FIELDS]
        ],
        "more": max(0, len(differ) - FIELDS),
        "reason": getattr(decision, "reason", ""),
        "by_rule": isinstance(decision, dict | Merge),
    }  # fmt: skip


def _known(bodies: list[dict[str, Any]], types: conflicts.Types) -> bool:
    return all(body.get("type") == bodies[0].get("type") for body in bodies) and str(bodies[0].get("type")) in types


class Versions:
    """The routes."""

    def __init__(self, pages: Pages, operations: Operations | None) -> None:
        self._pages, self._operations = pages, operations
        self.router = APIRouter()
        self.router.add_api_route(
            "/conflicts/{id:anything}", self.page, methods=["GET", "HEAD"], include_in_schema=False
        )
        self.router.add_api_route(
            "/api/conflicts/{id:anything}", self.page, methods=["GET"], summary="What differs between versions",
            responses={200: {"content": {"application/json": {"schema": {"type": "object"}}}}},
        )  # fmt: skip
        if operations is not None:
            self.router.add_api_route("/conflicts/{id:anything}", self.take, methods=["POST"], include_in_schema=False)

    def page(self, request: Request, id: str) -> Response:
        """What differs. Raises NotFound."""
        if not id or id.startswith("_"):
            raise NotFound(f"there is no document {id!r}")

        def read(database: Any) -> dict[str, Any]:
            seen = database.get(id)["_rev"]
            leaves = sorted(database.leaves(id), key=lambda leaf: (leaf["_rev"] != seen, leaf["_rev"]))
            types = conflicts.types_of(self._pages.chain) if self._pages.chain is not None else {}
            return {"id": id, **compared(leaves, types)}

        return self._pages.answer(request, "versions.html", self._pages.source.cached(("versions", id), read))

    async def take(self, request: Request, id: str) -> Response:
        """Keep one version."""
        fields = await forms.sent(request)
        person = await forms.acting(request, fields, "admin")
        rev, reason = fields.one("take"), fields.one("reason").strip()[:2000]
        if not reason:
            raise HTTPException(400, "Say why: it is kept with the deletion of the others.")
        return await run_in_threadpool(self._take, request, person, id, rev, reason)

    def _take(self, request: Request, person: Any, id: str, rev: str, reason: str) -> Response:
        assert self._operations is not None
        now = iso(self._pages.source.now())
        try:
            with self._operations.database(person) as database:
                settling.take(database, id, rev, person.name, now, reason)
        except Conflict as error:
            raise HTTPException(409, f"{error}. Look again.") from error
        except Refused as error:
            raise HTTPException(403, str(error)) from error
        self._pages.source.changed()
        return RedirectResponse(Links(request.scope.get("root_path", "")).document(id), 303)
