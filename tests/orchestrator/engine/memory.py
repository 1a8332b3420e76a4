"""A database in memory with CouchDB's rule for revisions: for tests of decisions, which need no server."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

from orchestrator.couch import Refusal, Saved
from orchestrator.errors import Refused, Unavailable


@dataclass
class Memory:
    """Documents by id. ``away`` makes every call fail, ``away_after`` those after so many requests.

    ``answers_lost`` stores a bulk write and then fails. ``refuse``: the status that a document may not have.
    ``errors``: what is said to a write of a document. ``refuse_requests_over``: larger bulk writes are refused whole.
    ``beside``: further versions of a document, as another site's are, behind the one that is seen.
    """

    documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    locals: dict[str, dict[str, Any]] = field(default_factory=dict)
    away: bool = False
    answers_lost: int = 0
    refuse: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    refuse_requests_over: int = 10**9
    beside: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    away_after: int = 10**9
    writes: int = 0
    requests: int = 0

    def add(self, document: dict[str, Any]) -> dict[str, Any]:
        (saved,) = self.bulk([document])
        assert isinstance(saved, Saved)
        return self.get_many([document["_id"]])[document["_id"]] or {}

    def bulk(self, docs: Any) -> list[Saved | Refusal]:
        self._there()
        docs = list(docs)
        if len(docs) > self.refuse_requests_over:
            raise Refused("the request is too large")
        outcomes: list[Saved | Refusal] = []
        for document in docs:
            name = document["_id"]
            current = self.documents.get(name)
            if (current or {}).get("_rev") != document.get("_rev"):
                outcomes.append(Refusal(name, "conflict", "Document update conflict."))
            elif name in self.errors:
                outcomes.append(Refusal(name, self.errors[name], "a fault"))
            elif name in self.refuse and self.refuse[name] == document.get("status"):
                outcomes.append(Refusal(name, "forbidden", "no"))
            else:
                self.writes += 1
                generation = int((current or {}).get("_rev", "0-").partition("-")[0]) + 1
                stored = {**copy.deepcopy(document), "_rev": f"{generation}-x{self.writes}"}
                self.documents[name] = stored
                if document.get("_deleted"):
                    del self.documents[name]
                outcomes.append(Saved(name, stored["_rev"]))
        if self.answers_lost:
            self.answers_lost -= 1
            raise Unavailable("the answer got lost")
        return outcomes

    def get_many(self, ids: Any) -> dict[str, dict[str, Any] | None]:
        self._there()
        found = {name: copy.deepcopy(self.documents.get(name)) for name in ids}
        for name, others in self.beside.items():
            if found.get(name) is not None:
                found[name]["_conflicts"] = [other["_rev"] for other in others]  # type: ignore[index]
        return found

    def leaves(self, doc_id: str) -> list[dict[str, Any]]:
        self._there()
        return copy.deepcopy([self.documents[doc_id], *self.beside.get(doc_id, [])])

    def get_local(self, id: str) -> dict[str, Any] | None:
        self._there()
        return self.locals.get(id)

    def put_local(self, id: str, doc: dict[str, Any]) -> str:
        self._there()
        self.locals[id] = dict(doc)
        return "0-1"

    def delete_local(self, id: str) -> None:
        self._there()
        self.locals.pop(id, None)

    def local_docs(self, startkey: str | None = None, endkey: str | None = None) -> list[dict[str, Any]]:
        self._there()
        return list(self.locals.values())

    def view(self, name: str, **params: Any) -> Any:
        """``work/inprogress`` alone: what recovery asks for."""
        self._there()
        assert name == "work/inprogress"
        return [
            _Row(key, {"poller": entry.get("poller"), "attempt": entry.get("attempt")}, [number, entry.get("started")])
            for key, document in self.documents.items()
            if str(document.get("status", "")).endswith("in progress")
            for number in [int(document["status"].split()[1])]
            for entry in [document[f"proc{number}"]]
        ]

    def _there(self) -> None:
        self.requests += 1
        if self.away or self.requests > self.away_after:
            raise Unavailable("the database does not answer")


@dataclass
class _Row:
    id: str
    value: dict[str, Any]
    key: list[Any]
