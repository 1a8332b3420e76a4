"""Reads what `orchestrator.explain` needs to know of the world around a document: a few requests, for one document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator import documents
from orchestrator.chain import Chain, Step
from orchestrator.control import Control, name_of
from orchestrator.engine.heartbeat import PREFIX
from orchestrator.errors import NotFound
from orchestrator.explain import Explanation, Facts, explain

#: Attempts that are read, the last ones.
ATTEMPTS = 50


def explained(
    database: Any, chain: Chain, document: Mapping[str, Any], site: str, lease: float, now: float,
    step: Step | None = None,
) -> Explanation:  # fmt: skip
    """Why a document, or one step of it, does not go on. Raises DatabaseError."""
    return explain(chain, document, gather(database, chain, document, site, lease, now), step)


def gather(
    database: Any, chain: Chain, document: Mapping[str, Any], site: str, lease: float, now: float
) -> Facts:
    """The facts around a document. Raises DatabaseError, but not where the couchapp has not been pushed."""
    name = str(document.get("_id"))
    beats = {str(one.get("id")): one for one in database.local_docs(PREFIX, PREFIX + "\uffff")}
    sites = sorted({one.site for one in chain.steps})
    return Facts(
        now, site, lease, beats, _attempts(database, chain, name),
        {one: Control.read(one, _or_none(database, name_of(one))) for one in sites},
        _deployed(database, chain), _ahead(database, chain, document),
        chain.branch.name,
    )  # fmt: skip


def _or_none(database: Any, name: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = database.get(name)
    except NotFound:
        return None
    return found


def _deployed(database: Any, chain: Chain) -> Mapping[str, Any]:
    """The chain in short that the views were made from; empty where there are none."""
    design = _or_none(database, "_design/" + chain.branch.design("work")) or {}
    summary = design.get("chain")
    return summary if isinstance(summary, dict) else {}


def _attempts(database: Any, chain: Chain, name: str) -> tuple[dict[str, Any], ...]:
    """Those of this lane: an attempt of a side lane names it."""
    try:
        rows = database.view(
            "pages/attempts", startkey=[name, {}], endkey=[name], descending=True, limit=ATTEMPTS, include_docs=True
        ).rows
    except NotFound:
        return ()
    lane = chain.branch.name if chain.branch.lane else ""
    return tuple(row.doc for row in reversed(rows) if row.doc and (row.doc.get("lane") or "") == lane)


def _ahead(database: Any, chain: Chain, document: Mapping[str, Any]) -> int | None:
    """How many documents are ready for the same step up to this one, in the order in which they are taken."""
    step = documents.ready_step(chain, document)
    if step is None:
        return None
    priority = document.get("priority")
    first = -priority if isinstance(priority, int | float) and not isinstance(priority, bool) else 0
    key = [first, document.get("run_name"), document.get("file_number")]
    try:
        rows = database.view(f"work/{step.key}", endkey=key, endkey_docid=document.get("_id")).rows
    except NotFound:
        return None
    return int(rows[0].value) if rows else 0
