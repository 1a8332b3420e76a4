"""``validate_doc_update``: which functions a database has, and what they say to a round of drafts.

The functions live in design documents, so they are read again whenever one of those changes. They run in batches: one
call to the JavaScript host for all drafts of a round.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, Protocol

from orchestrator.embedded import codec, documents, revisions
from orchestrator.embedded.documents import Draft
from orchestrator.embedded.javascript import FunctionError
from orchestrator.embedded.problems import Problem, forbidden, unauthorized

Triple = tuple[Any, Any, Any, Any]


class Judge(Protocol):
    """What runs the functions; ``javascript.DesignFunctions`` is one."""

    def validate(
        self, sources: list[tuple[str, str | dict[str, Any]]], triples: list[Triple]
    ) -> list[dict[str, str] | None]:  # pragma: no cover - a shape
        """One verdict for each (new, old, userCtx, secObj): None, or {"forbidden"|"unauthorized": message}."""
        ...


class Validators:
    """The validation functions of one database.

    Args:
        judge: makes or returns the JavaScript host; asked only where there is a function to run.
    """

    def __init__(self, judge: Callable[[], Judge]) -> None:
        self._judge = judge
        self._sources: list[tuple[str, str | dict[str, Any]]] | None = None

    def forget(self) -> None:
        """A design document has changed: read the functions again before the next write."""
        self._sources = None

    def sources(self, connection: sqlite3.Connection) -> list[tuple[str, str | dict[str, Any]]]:
        """The functions as (design document's id, design document)."""
        if self._sources is None:
            found: list[tuple[str, str | dict[str, Any]]] = []
            for identifier, body in connection.execute(
                "SELECT d.id, b.body FROM docs d JOIN bodies b ON b.seq = d.body "
                "WHERE d.id >= '_design/' AND d.id < '_design0' AND d.deleted = 0 ORDER BY d.id"
            ):
                design = codec.loads(body)
                source = design.get("validate_doc_update")
                if isinstance(source, str) and design.get("language", "javascript") == "javascript":
                    found.append((identifier, {"_id": identifier, **design}))
            self._sources = found
        return self._sources

    def judge(
        self, asked: list[tuple[Draft, dict[str, Any] | None, dict[str, Any]]], connection: sqlite3.Connection
    ) -> list[Problem | None]:
        """Run all functions over (draft, old document, userCtx); a Problem for each draft that is refused."""
        if not asked:
            return []
        row = connection.execute("SELECT value FROM meta WHERE key = 'security'").fetchone()
        security = codec.loads(row[0]) if row else {}
        triples = [(as_document(draft), old, user, security) for draft, old, user in asked]
        try:
            verdicts = self._judge().validate(self.sources(connection), triples)
        except FunctionError as error:
            return [Problem(error.status, error.error, error.reason)] * len(asked)
        return [_problem(verdict) for verdict in verdicts]


def as_document(draft: Draft) -> dict[str, Any]:
    """The draft as a validation function sees the new document."""
    document: dict[str, Any] = {"_id": draft.id}
    path = draft.history or ([draft.revision] if draft.revision else [])
    if path:
        document["_rev"] = revisions.text(path[0])
    if draft.deleted:
        document["_deleted"] = True
    document.update(codec.loads(draft.body))
    document["_revisions"] = documents.revisions_member(path)
    if draft.attachments:
        document["_attachments"] = {
            name: {**{key: value for key, value in entry.items() if key != "blob"}, "stub": True}
            for name, entry in draft.attachments.items()
        }
    return document


def _problem(verdict: dict[str, str] | None) -> Problem | None:
    if verdict is None:
        return None
    if "forbidden" in verdict:
        return forbidden(verdict["forbidden"])
    if "unauthorized" in verdict:
        return unauthorized(verdict["unauthorized"])
    return Problem(500, verdict.get("error", "unknown_error"), verdict.get("reason", ""))
