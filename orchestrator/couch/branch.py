"""A database seen from one lane: documents come inward and go outward, views are the lane's own.

Whoever is handed this in the place of a `Database` works in the lane without knowing it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from orchestrator.couch.answers import Subject
from orchestrator.couch.database import Database, Refusal, Saved, ViewResult
from orchestrator.lanes import Branch


class BranchDatabase(Database):
    """``database`` as ``branch`` sees it; ``data_type`` is the type of the documents that have the lane's keys."""

    def __init__(self, database: Database, branch: Branch, data_type: str) -> None:
        super().__init__(database.connection, database.name)
        self.branch, self.data_type = branch, data_type

    def _inward(self, document: dict[str, Any]) -> dict[str, Any]:
        return self.branch.inward(document, self.data_type) or {}

    def get(self, doc_id: str, **params: Any) -> dict[str, Any]:
        return self._inward(super().get(doc_id, **params))

    def put(self, doc: dict[str, Any]) -> str:
        return super().put(self.branch.outward(doc, self.data_type))

    def bulk(self, docs: Iterable[dict[str, Any]], *, timeout: float | None = None) -> list[Saved | Refusal]:
        return super().bulk([self.branch.outward(doc, self.data_type) for doc in docs], timeout=timeout)

    def view(self, name: str, *, timeout: float | None = None, **params: Any) -> ViewResult:
        return super().view(self.branch.view(name), timeout=timeout, **params)

    def index_signature(self, design: str) -> str:
        return super().index_signature(self.branch.design(design.removeprefix("_design/")))

    def _rows(
        self, path: tuple[str, ...], subject: Subject, params: dict[str, Any], timeout: float | None
    ) -> ViewResult:
        found = super()._rows(path, subject, params, timeout)
        if self.branch.lane and params.get("include_docs"):
            found.rows[:] = [row._replace(doc=self._inward(row.doc)) if row.doc else row for row in found.rows]
        return found

    def find(self, selector: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
        return [self._inward(one) for one in super().find(self.feed_selector(selector), **options)]

    def feed_selector(self, selector: dict[str, Any]) -> dict[str, Any]:
        return self.branch.selector(selector)

    def seen(self, document: dict[str, Any]) -> dict[str, Any]:
        return self._inward(document)
