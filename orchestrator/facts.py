"""Reads what `orchestrator.explain` needs to know of the world around a document: a few requests, for one document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator import documents, gathering, lastwords
from orchestrator.chain import Chain, Step
from orchestrator.control import Control, name_of
from orchestrator.documents import iso
from orchestrator.engine.heartbeat import PREFIX, clock_of
from orchestrator.errors import DatabaseError, NotFound, Unavailable
from orchestrator.explain import Explanation, Facts, explain
from orchestrator.gathering import Group
from orchestrator.waiting import period_of

#: Attempts that are read, the last ones.
ATTEMPTS = 50


#: Causes behind which may stand that nobody can write into the database.
SILENT = ("no-poller", "poller-silent", "poller-lost", "farm-silent")
#: The local document by which it is tried whether the database can be written.
TRIAL = "explain"


def explained(
    database: Any, chain: Chain, document: Mapping[str, Any], site: str, lease: float, now: float,
    step: Step | None = None, spool: Path | None = None,
) -> Explanation:  # fmt: skip
    """Why a document, or one step of it, does not go on. ``spool``: this site's, where ended daemons have left word.

    Raises DatabaseError.
    """
    facts = replace(gather(database, chain, document, site, lease, now), words=lastwords.heard(spool))
    found = explain(chain, document, facts, step)
    innermost = found.because or found
    if innermost.cause in SILENT and (why := _no_writes(database, now)):
        found = explain(chain, document, replace(facts, writes=why), step)
    return found


def _no_writes(database: Any, now: float) -> str:
    """Why the database takes no writes, tried with a local document; empty where it does, or nobody can tell."""
    try:
        database.put_local(TRIAL, {"at": iso(now)})
    except Unavailable as error:
        return str(error)
    except (AttributeError, DatabaseError):
        return ""  # this account may not write, or this is no database of ours
    return ""


def gather(
    database: Any, chain: Chain, document: Mapping[str, Any], site: str, lease: float, now: float
) -> Facts:
    """The facts around a document. Raises DatabaseError, but not where the couchapp has not been pushed."""
    name = str(document.get("_id"))
    beats = {str(one.get("id")): one for one in database.local_docs(PREFIX, PREFIX + "\uffff")}
    sites = sorted({one.site for one in chain.steps})
    return Facts(
        now, site, lease, beats, _attempts(database, name),
        {one: Control.read(one, _or_none(database, name_of(one))) for one in sites},
        _deployed(database, chain), _ahead(database, chain, document),
        chain.branch.name, _group(database, chain, document), behind=clock_of(database),
    )  # fmt: skip


def _group(database: Any, chain: Chain, document: Mapping[str, Any]) -> Group | None:
    """The documents with which a gather would take this one up, if it waits for one."""
    step = documents.ready_step(chain, document)
    if step is None or step.executor != "gather":
        return None
    name, wanted = next((n, one) for n, one in chain.whole.gathers.items() if one.step == step.name)
    key = [period_of(wanted, document), document.get("run_name")]
    rows = _rows(database, f"gather-{name}/members", startkey=key, endkey=key, reduce=True, group=True)
    return next(iter(gathering.groups((row.key, row.value) for row in rows)), None)


def _rows(database: Any, view: str, **params: Any) -> list[Any]:
    """A view's rows; none where the couchapp has not been pushed, or the index cannot be written: documents can be read
    from a database whose disk is full, and that is when people ask."""
    try:
        found: list[Any] = database.view(view, **params).rows
    except (NotFound, Unavailable):
        return []
    return found


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


def _attempts(database: Any, name: str) -> tuple[dict[str, Any], ...]:
    rows = _rows(
        database, "pages/attempts", startkey=[name, {}], endkey=[name], descending=True, limit=ATTEMPTS,
        include_docs=True,
    )  # fmt: skip
    return tuple(row.doc for row in reversed(rows) if row.doc)


def _ahead(database: Any, chain: Chain, document: Mapping[str, Any]) -> int | None:
    """How many documents are ready for the same step up to this one, in the order in which they are taken."""
    step = documents.ready_step(chain, document)
    if step is None:
        return None
    priority = document.get("priority")
    first = -priority if isinstance(priority, int | float) and not isinstance(priority, bool) else 0
    key = [first, document.get("run_name"), document.get("file_number")]
    rows = _rows(database, f"work/{step.key}", endkey=key, endkey_docid=document.get("_id"))
    return int(rows[0].value) if rows else 0
