"""Views: what the HTTP layer asks. Indexes are opened when first needed and shared by all who ask.

    view_params   what a query says            view_index   which index, and keeping it up to date
    view_query    reading an answer            view_file    the file of an index
    view_reduce   the builtin reduces          view_blocks  its rows, and what they add up to
                                               view_build   processes for large builds, by view_stage
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from orchestrator.embedded import codec, revisions, view_build, view_params
from orchestrator.embedded.javascript import DesignFunctions, FunctionError
from orchestrator.embedded.problems import Problem, missing, no_database, not_implemented
from orchestrator.embedded.view_blocks import Row
from orchestrator.embedded.view_file import IndexClosed
from orchestrator.embedded.view_index import SUFFIX, Definition, Mapper, Source, View, ViewIndex, script_mapper
from orchestrator.embedded.view_params import Params
from orchestrator.embedded.view_query import (
    DistinctReducer,
    Reducer,
    ScriptReducer,
    StateReducer,
    read_map,
    read_reduce,
)
from orchestrator.embedded.view_reduce import builtin_name

log = logging.getLogger(__name__)

Json = Any

LAZY_WORKERS = 2  # threads for update=lazy: a long build of one index must not hold up all others


class Database(Source, Protocol):
    """What queries need of a database; a subset of ``DatabaseStore``."""

    def rows(self, identifiers: list[str]) -> Mapping[str, Any]:
        """Documents with their winners' bodies, by id."""
        ...

    def revision_row(self, row: Any, revision: Any) -> Any | None:
        """A document at another revision, or None if it is not here."""
        ...

    def design_docs(self) -> list[dict[str, Any]]:
        """All design documents."""
        ...


class Views:
    """All indexes of a server.

    Args:
        functions: runs map and reduce functions.
        sequence: makes the opaque sequence string of a database from a number.
    """

    def __init__(
        self,
        functions: DesignFunctions | Callable[[], DesignFunctions],
        sequence: Callable[[Any, int], Json] | None = None,
    ) -> None:
        self._functions = functions if callable(functions) else lambda: functions
        self._sequence = sequence or (lambda db, seq: seq)
        self._indexes: dict[Path, ViewIndex] = {}
        self._lock = threading.Lock()
        self._lazy = ThreadPoolExecutor(LAZY_WORKERS, "view-lazy")
        self._scheduled: set[Path] = set()
        self._builder = view_build.Builder(self._functions)
        self._closed = False

    # Queries

    def query(
        self,
        db: Database,
        ddoc: dict[str, Json],
        name: str,
        query: dict[str, Json] | None = None,
        body: dict[str, Json] | None = None,
    ) -> dict[str, Json]:
        """Answer a request to ``_design/x/_view/name``.

        Args:
            ddoc: the design document, with ``_id``.
            query: the URL's parameters, still as text.
            body: the decoded body of a POST, if it was one: more parameters, or ``{"queries": [...]}``.

        Returns:
            ``{"total_rows", "offset", "rows"}`` for a map, ``{"rows"}`` for a reduce, ``{"results": [...]}`` for
            several queries at once.

        Raises:
            Problem: as CouchDB would.
        """
        definition = Definition(ddoc)
        view = definition.views.get(name)
        if view is None:
            raise missing("missing_named_view")
        if body is None or "queries" not in body:
            return self._answer(db, definition, view, view_params.from_request(query or {}, body))
        base = replace(view_params.parse(query or {}), group=None, level=None, keys=None)
        parsed = [view_params.parse(each, decoded=True, base=base) for each in view_params.queries_of(body)]
        for each in parsed:
            view_params.validate(each, view.reduce is not None)
        return {"results": [self._answer(db, definition, view, each) for each in parsed]}

    def _answer(self, db: Database, definition: Definition, view: View, params: Params) -> dict[str, Json]:
        reducing = view_params.validate(params, view.reduce is not None)
        params.ranges()  # a range that cannot hold anything is refused before an index is built for it
        try:
            return self._read(db, definition, view, params, reducing)
        except IndexClosed:
            return self._read(db, definition, view, params, reducing)
        except sqlite3.OperationalError as error:
            reason = f"The index of {definition.id} in {db.name} cannot be read ({error})."
            raise Problem(500, "index_error", reason) from error
        except sqlite3.DatabaseError as error:
            log.error("the index of %s in %s is damaged (%s): it is built anew", definition.id, db.name, error)
            self._discard(db, definition)
            return self._read(db, definition, view, params, reducing)

    def _read(
        self, db: Database, definition: Definition, view: View, params: Params, reducing: bool
    ) -> dict[str, Json]:
        index = self.index(db, definition)
        if params.update == "true":
            index.update()
        with index.file.reading() as connection:
            answer: dict[str, Json] = {}
            seq = int(connection.execute("SELECT value FROM meta WHERE key = 'seq'").fetchone()[0])
            if reducing:
                make = self._reducer(definition, view)
                groups = read_reduce(connection, view.number, params, make)
                rows = [{"key": group.key, "value": group.value} for group in groups]
            else:
                found = read_map(connection, view.number, params)
                if params.is_sorted:
                    answer |= {"total_rows": found.total, "offset": found.offset}
                rows = self._rows(db, found.rows, params)
        if params.update_seq:
            answer["update_seq"] = self._sequence(db, seq)
        if params.update == "lazy":
            self._later(index)
        return {**answer, "rows": rows}

    def _rows(self, db: Database, found: list[Row], params: Params) -> list[Json]:
        rows: list[dict[str, Json]] = [
            {"id": row.id, "key": codec.loads(row.k), "value": codec.loads(row.v)} for row in found
        ]
        if params.include_docs:
            wanted: list[tuple[str, str | None]] = []
            for row in rows:
                value = row["value"]
                linked = value if isinstance(value, dict) else {}
                identifier, revision = linked.get("_id", row["id"]), linked.get("_rev")
                wanted.append((str(identifier), revision if isinstance(revision, str) else None))
            for row, doc in zip(rows, _fetch(db, wanted, params), strict=True):
                row["doc"] = doc
        return rows

    def _reducer(self, definition: Definition, view: View) -> Callable[[], Reducer]:
        source = view.reduce or ""
        builtin = builtin_name(source)
        if builtin == "_count":
            return Reducer
        if builtin == "_approx_count_distinct":
            return DistinctReducer
        if builtin is not None:
            place = definition.kinds[view.number].index(builtin)
            return lambda: StateReducer(builtin, place)

        def call(keys: Json, values: list[Json], rereduce: bool) -> Json:
            try:
                return self._functions().reduce([source], keys, values, rereduce)[0]
            except FunctionError as error:
                if error.error == "reduce_overflow_error":
                    return {"reduce_overflow_error": error.reason}
                raise

        return lambda: ScriptReducer(call)

    # Indexes

    def index(self, db: Source, definition: Definition) -> ViewIndex:
        """Return the index of a definition, opened if it is not yet.

        Raises:
            Problem: 404 if the database has been deleted.
        """
        path = ViewIndex.path_of(db, definition)
        with self._lock:
            if self._closed:
                raise IndexClosed
            index = self._indexes.get(path)
            if index is not None and index.db is not db:  # of a database that was deleted and made again
                index.close()
                index = None
            if index is None:
                if not db.folder.is_dir():
                    raise no_database()
                index = ViewIndex(db, definition, self._mapper(definition), self._builder)
                self._indexes[path] = index
            return index

    def _discard(self, db: Source, definition: Definition) -> None:
        """Remove an index whose file is damaged."""
        with self._lock:
            index = self._indexes.pop(ViewIndex.path_of(db, definition), None)
        if index is not None:
            index.close(remove=True)

    def _mapper(self, definition: Definition) -> Mapper:
        if definition.language == "query":
            from orchestrator.embedded.mango_index import mapper

            return mapper(definition.maps)

        def apply(texts: list[bytes]) -> Any:
            return script_mapper(self._functions(), definition)(texts)

        return apply

    def _later(self, index: ViewIndex) -> None:
        """Bring an index up to date in the background, unless that is already to be done."""
        path = index.file.path
        with self._lock:
            if path in self._scheduled or index.file.seq >= index.db.update_seq():
                return
            self._scheduled.add(path)

        def run() -> None:
            with self._lock:
                self._scheduled.discard(path)
            try:
                index.update()
            except (Problem, sqlite3.Error, OSError) as problem:
                log.warning("the index of %s in %s is behind: %s", index.definition.id, index.db.name, problem)

        self._lazy.submit(run)

    def info(self, db: Database, ddoc: dict[str, Json]) -> dict[str, Json]:
        """Answer ``_design/x/_info``."""
        index = self.index(db, Definition(ddoc))
        sizes = index.file.sizes()
        return {
            "name": str(ddoc.get("_id", "")).removeprefix("_design/"),
            "view_index": {
                "signature": index.definition.signature,
                "language": index.definition.language,
                "sizes": {"file": sizes["file"], "active": sizes["active"], "external": sizes["active"]},
                "updater_running": index.busy,
                "compact_running": False,
                "waiting_commit": False,
                "waiting_clients": index.waiting,
                "update_seq": self._sequence(db, index.file.seq),
                "updates_pending": {"minimum": 0, "preferred": 0, "total": max(db.update_seq() - index.file.seq, 0)},
                "purge_seq": 0,
            },
        }

    def cleanup(self, db: Database) -> list[str]:
        """Remove the files of indexes that no design document has any more. Returns their signatures."""
        wanted = set()
        for ddoc in db.design_docs():
            try:
                wanted.add(Definition(ddoc).signature)
            except Problem:
                continue
        removed = []
        for path in sorted(db.folder.glob("*" + SUFFIX)):
            signature = path.name.removesuffix(SUFFIX)
            if signature in wanted:
                continue
            with self._lock:
                index = self._indexes.pop(path, None)
            if index is not None:
                index.close(remove=True)
            for suffix in ("", "-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            removed.append(signature)
        for signature in {signature for signature, _path in view_build.leftovers(db.folder)} - wanted:
            view_build.clear(db.folder, signature)
        return removed

    def active_tasks(self) -> list[dict[str, Json]]:
        """The updates under way."""
        with self._lock:
            indexes = list(self._indexes.values())
        found = [(index.progress, f"<0.{number}.0>") for number, index in enumerate(indexes, 100)]
        return [progress.describe(pid) for progress, pid in found if progress is not None]

    def forget(self, db: Source) -> None:
        """Close the indexes of a database that is going away."""
        with self._lock:
            paths = [path for path in self._indexes if path.parent == db.folder]
            indexes = [self._indexes.pop(path) for path in paths]
        for index in indexes:
            index.close()

    def close(self) -> None:
        """Close all indexes; updates under way end after their batch."""
        with self._lock:
            self._closed = True
            indexes, self._indexes = list(self._indexes.values()), {}
        for index in indexes:
            index.stopping = True
        self._lazy.shutdown(wait=True, cancel_futures=True)
        for index in indexes:
            index.close()


def _fetch(db: Database, wanted: list[tuple[str, str | None]], params: Params) -> list[Json]:
    """The documents of some rows, by (id, revision or None for the winner); None for what is missing or deleted."""
    if params.attachments:
        raise not_implemented("`attachments=true` of a view query")
    found = db.rows(list({identifier for identifier, _revision in wanted}))
    documents: list[Json] = []
    for identifier, revision in wanted:
        row = found.get(identifier)
        if row is not None and revision is not None and revision != row.rev:
            row = db.revision_row(row, revisions.parse(revision))
        if row is None or row.deleted:
            documents.append(None)
            continue
        document = row.document()
        if params.conflicts and row.leaves > 1:
            losers = [leaf for leaf in row.revision_tree().leaves() if not leaf.deleted]
            revs = [revisions.text(leaf.revision) for leaf in losers]
            others = [rev for rev in revs if rev != row.rev]
            if others:
                document["_conflicts"] = others
        documents.append(document)
    return documents
