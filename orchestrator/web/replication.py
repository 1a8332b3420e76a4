"""The page of several sites: how the replications are doing, and which documents have several versions.

It reads what the watcher leaves in ``_local/replication``. So it needs no right that the page's account has not, asks
no other site, and says how old that is.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from orchestrator.documents import seconds_of
from orchestrator.web.pages import Pages
from orchestrator.web.source import DatabaseLike

ID = "replication"  # of the local document that orchestrator.replicating writes
OLD = 60.0  # s after which what the watcher has left is said to be old: it writes every ten


def overview(database: DatabaseLike, now: float) -> dict[str, Any]:
    """All that the page shows; ``now`` in seconds since 1970."""
    found = next(iter(database.local_docs(ID, ID)), {})
    at = seconds_of(found.get("at"))
    return {
        "at": found.get("at"),
        "watched": at is not None and now - at <= OLD,
        "links": _rows(found.get("links")),
        "conflicts": _rows(found.get("conflicts")),
        "conflicts_count": found.get("conflicts_count", 0),
    }


def _rows(value: Any) -> list[dict[str, Any]]:
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def router(pages: Pages) -> APIRouter:
    """The page, and the same as JSON."""

    def replication(request: Request) -> Response:
        data = pages.source.cached("replication", lambda database: overview(database, pages.source.now()))
        return pages.answer(request, "replication.html", data)

    made = APIRouter()
    made.add_api_route("/replication", replication, methods=["GET", "HEAD"], include_in_schema=False)
    made.add_api_route(
        "/api/replication", replication, methods=["GET"], summary="How this site is joined with others, and conflicts"
    )
    return made
