"""One database: documents one by one, in bulk, by view and by selector; ``_local`` documents.

The hot path is ``bulk``, ``view``, ``all_docs`` and ``get_many``: one request each, however many documents.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote

from orchestrator.couch import wire
from orchestrator.couch.answers import Subject, refusal
from orchestrator.couch.client import Connection
from orchestrator.errors import DatabaseError, NotFound, SettingsError

_JSON_PARAMETERS = frozenset(("key", "keys", "startkey", "start_key", "endkey", "end_key"))
REPLACED = "updated or deleted"  # CouchDB's words to those who wait for an index whose design document is replaced


class Saved(NamedTuple):
    """A document that was written. ``accepted``: a cluster took it (202), but not yet by a majority of its copies."""

    id: str
    rev: str
    accepted: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """A document of a bulk that was not written: ``error`` is conflict, forbidden, unauthorized, ..."""

    id: str
    error: str
    reason: str


class Row(NamedTuple):
    """One row of a view. ``doc`` is there with include_docs; ``error`` for a key of ``keys`` that is not there."""

    id: str | None
    key: Any
    value: Any = None
    doc: dict[str, Any] | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ViewResult:
    """Rows of a view. ``total_rows`` and ``offset`` are None for reduced ones, ``update_seq`` unless asked for."""

    rows: list[Row]
    total_rows: int | None = None
    offset: int | None = None
    update_seq: str | None = None

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


class Database:
    """The database ``name``. Cheap to make; thread-safe, as its connection is.

    Whatever is asked of it can raise Unavailable (no answer), Unauthorised (the login or its roles) and NotFound (no
    such database); what else a method raises, it says itself.
    """

    def __init__(self, connection: Connection, name: str) -> None:
        if not name:
            raise SettingsError("A database needs a name")
        self.connection = connection
        self.name = name
        self.subject = Subject(connection.url, name)

    def __repr__(self) -> str:
        return f"Database({self.name!r} at {self.connection.url!r})"

    def _document(self, doc_id: str, *, write: bool = False) -> tuple[tuple[str, ...], Subject]:
        return (self.name, *segments(doc_id)), Subject(self.connection.url, self.name, document=doc_id, write=write)

    def info(self) -> dict[str, Any]:
        """``GET /db``: doc_count, update_seq, sizes, ... Raises NotFound if the database is not there."""
        return self.connection.json("GET", (self.name,), subject=self.subject)

    def get(self, doc_id: str, **params: Any) -> dict[str, Any]:
        """One document. ``params`` as the server knows them: rev, revs, conflicts, attachments, ..."""
        path, subject = self._document(doc_id)
        return self.connection.json("GET", path, subject=subject, params=encoded(params))

    def get_many(self, ids: Iterable[str]) -> dict[str, dict[str, Any] | None]:
        """Documents by id, in one request; None for what is absent or deleted. One in conflict has ``_conflicts``."""
        wanted = list(ids)
        if not wanted:
            return {}
        found = self.all_docs(keys=wanted, include_docs=True, conflicts=True)
        return {str(row.key): row.doc for row in found.rows}

    def leaves(self, doc_id: str) -> list[dict[str, Any]]:
        """All versions of a document that are not deleted; more than one where it is in conflict."""
        found: Any = Database.get(self, doc_id, open_revs="all")
        return [self.seen(one["ok"]) for one in found if "ok" in one and not one["ok"].get("_deleted")]

    def put(self, doc: dict[str, Any]) -> str:
        """Write one document (an id is given if it has none). Returns its new revision; ``doc`` is left as it is.

        Raises:
            Conflict: ``doc['_rev']`` is not the newest.
            Refused: the guard, or the database, does not take it.
        """
        content = wire.document(doc)
        if "_id" in doc:
            path, subject = self._document(doc["_id"], write=True)
            return self.connection.json("PUT", path, subject=subject, body=content)["rev"]
        subject = Subject(self.connection.url, self.name, document="(no id yet)", write=True)
        return self.connection.json("POST", (self.name,), subject=subject, body=content)["rev"]

    def delete(self, doc: dict[str, Any]) -> str:
        """Delete a document by its ``_id`` and ``_rev``. Returns the tombstone's revision."""
        path, subject = self._document(doc["_id"], write=True)
        return self.connection.json("DELETE", path, subject=subject, params={"rev": doc["_rev"]})["rev"]

    def copy(self, source: str, target: str, target_rev: str | None = None) -> str:
        """COPY a document over another one, of revision ``target_rev`` if that exists. Returns the new revision."""
        path, _ = self._document(source)
        subject = Subject(self.connection.url, self.name, document=target, write=True)
        quoted = "/".join(_quoted(part) for part in segments(target))
        destination = quoted + (f"?rev={target_rev}" if target_rev else "")
        return self.connection.json("COPY", path, subject=subject, headers={"Destination": destination})["rev"]

    def bulk(self, docs: Iterable[dict[str, Any]], *, timeout: float | None = None) -> list[Saved | Refusal]:
        """Write documents in one request; each gets its own result, in order. ``_deleted: true`` deletes.

        Raises:
            Refused: the database refused the request as a whole: one document is no document (NaN, a field that
                begins with ``_``, no text). Nothing was written.
            Unavailable: no answer. Any of them may have been written: read before you write again.
        """
        return self.bulk_encoded([wire.document(doc) for doc in docs], timeout=timeout)

    def bulk_encoded(self, docs: Sequence[bytes], *, timeout: float | None = None) -> list[Saved | Refusal]:
        """As ``bulk``, for documents that are JSON already."""
        if not docs:
            return []
        body = b'{"docs":[' + b",".join(docs) + b"]}"
        subject = Subject(self.connection.url, self.name, write=True)
        answer = self.connection.json("POST", (self.name, "_bulk_docs"), subject=subject, body=body, timeout=timeout)
        if not isinstance(answer, list) or len(answer) != len(docs):
            raise DatabaseError(f"{subject}: _bulk_docs did not answer with one result a document. Is it CouchDB?")
        return [
            Refusal(line.get("id", ""), line["error"], str(line.get("reason", "")))
            if "error" in line
            else Saved(line["id"], line["rev"], bool(line.get("accepted")))
            for line in answer
        ]

    def refusal_error(self, refusal_: Refusal) -> DatabaseError:
        """A bulk's refusal as the error that ``put`` would have raised."""
        subject = Subject(self.connection.url, self.name, document=refusal_.id, write=True)
        return refusal(refusal_.error, refusal_.reason, subject)

    def view(self, name: str, *, timeout: float | None = None, **params: Any) -> ViewResult:
        """Rows of the view ``"design/view"``.

        Args:
            name: design document and view, as in ``"work/proc0"``.
            timeout: seconds without an answer; an index that is being built keeps the server silent meanwhile.
            params: startkey, endkey, keys, limit, descending, group_level, include_docs, reduce, update
                ("false" or "lazy" answer at once), update_seq=True, ... Values of keys are Python values. None
                leaves a parameter out; ask for the key null by ``keys=[None]``.

        Raises:
            NotFound: no such database, design document or view; the sentence says which and what to do.
        """
        design, slash, view = name.removeprefix("_design/").partition("/")
        view = view.removeprefix("_view/")
        if not slash or not design or not view:
            raise SettingsError(f"{name!r} names no view: write design/view, as in 'work/proc0'")
        subject = Subject(self.connection.url, self.name, view=f"{design}/{view}")
        path = (self.name, "_design", design, "_view", view)
        try:
            return self._rows(path, subject, params, timeout)
        except NotFound as error:
            if REPLACED not in str(error):
                raise
        return self._rows(path, subject, params, timeout)  # the new one answers

    def index_signature(self, design: str) -> str:
        """What the index of a design document's views is named by: equal for documents that share an index."""
        name = design.removeprefix("_design/")
        subject = Subject(self.connection.url, self.name, view=f"{name}/_info")
        info = self.connection.json("GET", (self.name, "_design", name, "_info"), subject=subject)
        return str(info["view_index"]["signature"])

    def all_docs(self, *, timeout: float | None = None, **params: Any) -> ViewResult:
        """Rows of all documents, by id: key the id, value ``{"rev": ...}``. ``params`` as for a view."""
        return self._rows((self.name, "_all_docs"), self.subject, params, timeout)

    def _rows(
        self, path: tuple[str, ...], subject: Subject, params: dict[str, Any], timeout: float | None
    ) -> ViewResult:
        keys = params.get("keys")
        query = encoded({name: value for name, value in params.items() if name != "keys"})
        if keys is None:
            answer = self.connection.json("GET", path, subject=subject, params=query, timeout=timeout)
        else:
            body = wire.dumps({"keys": list(keys)}, "the list of keys")
            answer = self.connection.json(
                "POST", path, subject=subject, params=query, body=body, timeout=timeout, safe=True
            )
        rows = [
            Row(row.get("id"), row["key"], row.get("value"), row.get("doc"), row.get("error")) for row in answer["rows"]
        ]
        return ViewResult(rows, answer.get("total_rows"), answer.get("offset"), _sequence(answer.get("update_seq")))

    def find(self, selector: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
        """Documents that match a Mango ``selector``; ``options``: fields, sort, limit, skip, use_index, ..."""
        body = {"selector": selector, **{name: value for name, value in options.items() if value is not None}}
        answer = self.connection.json("POST", (self.name, "_find"), subject=self.subject, body=body, safe=True)
        return answer["docs"]

    def feed_selector(self, selector: dict[str, Any]) -> dict[str, Any]:
        """A selector for this database's feed; what comes through it is to be ``seen``."""
        return selector

    def seen(self, document: dict[str, Any]) -> dict[str, Any]:
        """A document of the feed as ``get`` would give it."""
        return document

    def get_local(self, local_id: str) -> dict[str, Any] | None:
        """The ``_local`` document ``local_id`` (with or without that prefix); None if there is none."""
        path, subject = self._document(_local(local_id))
        try:
            return self.connection.json("GET", path, subject=subject)
        except NotFound:
            self._must_exist()
            return None

    def put_local(self, local_id: str, doc: dict[str, Any]) -> str:
        """Write a ``_local`` document: not replicated, not in views, the last writer wins (no conflicts)."""
        name = _local(local_id)
        path, subject = self._document(name, write=True)
        content = wire.document({**{key: doc[key] for key in doc if key != "_rev"}, "_id": name})
        return self.connection.json("PUT", path, subject=subject, body=content)["rev"]

    def delete_local(self, local_id: str) -> None:
        """Remove a ``_local`` document; none there is well too."""
        path, subject = self._document(_local(local_id), write=True)
        try:
            self.connection.json("DELETE", path, subject=subject)
        except NotFound:
            return

    def local_docs(self, startkey: str | None = None, endkey: str | None = None) -> list[dict[str, Any]]:
        """The ``_local`` documents from ``startkey`` to ``endkey`` (ids, with or without ``_local/``)."""
        params = {
            "include_docs": True,
            "startkey": None if startkey is None else _local(startkey),
            "endkey": None if endkey is None else _local(endkey),
        }
        answer = self._rows((self.name, "_local_docs"), self.subject, params, None)
        return [row.doc for row in answer.rows if row.doc is not None]

    def _must_exist(self) -> None:
        self.info()  # a 404 of a _local document looks the same whether it or the whole database is missing

    def security(self) -> dict[str, Any]:
        """The ``_security`` object: who may read and write. Not versioned."""
        return self.connection.json("GET", (self.name, "_security"), subject=self.subject)

    def set_security(self, security: dict[str, Any]) -> None:
        """Replace the ``_security`` object (for admins)."""
        self.connection.json("PUT", (self.name, "_security"), subject=self.subject, body=security)

    def cleanup_views(self) -> None:
        """``_view_cleanup``: remove index files that no design document needs any more."""
        self.connection.json("POST", (self.name, "_view_cleanup"), subject=self.subject, body=b"{}")


def segments(doc_id: str) -> tuple[str, ...]:
    """A document's id as path segments: only ``_design/`` and ``_local/`` are folders, any other '/' is quoted."""
    if not isinstance(doc_id, str) or not doc_id:
        raise SettingsError(f"A document's id is text and not empty; this one is {doc_id!r}")
    for folder in ("_design", "_local"):
        if doc_id.startswith(folder + "/") and len(doc_id) > len(folder) + 1:
            return folder, doc_id[len(folder) + 1 :]
    return (doc_id,)


def encoded(params: dict[str, Any]) -> dict[str, Any]:
    """Query parameters as text: keys as JSON, booleans as true and false, None left out."""
    query: dict[str, Any] = {}
    for name, value in params.items():
        if value is None:
            continue
        if name in _JSON_PARAMETERS or isinstance(value, list | tuple | dict):
            query[name] = wire.dumps(value, f"parameter {name}").decode()
        elif isinstance(value, bool):
            query[name] = "true" if value else "false"
        else:
            query[name] = str(value)
    return query


def _local(local_id: str) -> str:
    return "_local/" + local_id.removeprefix("_local/")


def _quoted(part: str) -> str:
    return quote(part, safe="_")


def _sequence(value: Any) -> str | None:
    """``update_seq`` as opaque text; CouchDB 1.x and some servers send a number."""
    return None if value is None else str(value)
