"""``validate_doc_update``: which functions a database has, and what they say to a round of drafts.

The functions live in design documents, so they are read again whenever one of those changes. They run in batches: one
call to the JavaScript host for all drafts of a round. What they are shown is spliced from stored and arriving bytes:
nothing is decoded for it here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, Protocol

from orchestrator.embedded import codec, documents, revisions
from orchestrator.embedded.documents import Draft
from orchestrator.embedded.javascript import FunctionError
from orchestrator.embedded.problems import Problem, forbidden, unauthorized


class Judge(Protocol):
    """What runs the functions; ``javascript.DesignFunctions`` is one."""

    def validate_texts(
        self, sources: list[tuple[str, str | dict[str, Any]]], texts: list[bytes]
    ) -> list[dict[str, str] | None]:  # pragma: no cover - a shape
        """One verdict for each [new, old, userCtx, secObj]: None, or {"forbidden"|"unauthorized": message}."""
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
        self, asked: list[tuple[Draft, bytes | None, dict[str, Any]]], connection: sqlite3.Connection
    ) -> list[Problem | None]:
        """Run all functions over (draft, old document, userCtx); a Problem for each draft that is refused."""
        if not asked:
            return []
        row = connection.execute("SELECT value FROM meta WHERE key = 'security'").fetchone()
        security = bytes(row[0]) if row else b"{}"
        endings: dict[int, bytes] = {}  # those who ask are few
        texts = []
        for draft, old, user in asked:
            ending = endings.get(id(user))
            if ending is None:
                ending = endings[id(user)] = b",%b,%b]" % (codec.dumps(user), security)
            texts.append(b"[%b,%b%b" % (as_document(draft), old or b"null", ending))
        try:
            verdicts = self._judge().validate_texts(self.sources(connection), texts)
        except FunctionError as error:
            return [Problem(error.status, error.error, error.reason)] * len(asked)
        return [_problem(verdict) for verdict in verdicts]


def as_document(draft: Draft) -> bytes:
    """The draft as a validation function sees the new document, as JSON."""
    path = draft.history or ([draft.revision] if draft.revision else [])
    attachments = {
        name: {key: value for key, value in entry.items() if key != "blob"} | {"stub": True}
        for name, entry in (draft.attachments or {}).items()
    }
    return documents.shown(
        draft.id, revisions.text(path[0]) if path else "", draft.deleted, draft.body,
        codec.dumps(documents.revisions_member(path)), attachments,
    )  # fmt: skip


def _problem(verdict: dict[str, str] | None) -> Problem | None:
    if verdict is None:
        return None
    if "forbidden" in verdict:
        return forbidden(verdict["forbidden"])
    if "unauthorized" in verdict:
        return unauthorized(verdict["unauthorized"])
    return Problem(500, verdict.get("error", "unknown_error"), verdict.get("reason", ""))
