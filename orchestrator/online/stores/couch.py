"""Runs' spills in the database: one database for each run, dropped whole once the run's snapshot is safe.

A document for each spill, with a deterministic id: ``spill:000000012``. What its packed bytes are kept in goes by their
size, because measurement said so (1 kB spills in bulk on two cores, embedded server: 24,000 /s as base64 in the
document, 1,700 /s as attachments, each of which is a file that is flushed there; from 60 kB on the two are equal):

- up to ``IN_DOCUMENT``: ``data``, base64;
- up to the setting ``inline``: a binary attachment ``spill``, sent inside of the bulk;
- above: a file on the disk, flushed before the document that refers to it is sent (``files``).

The document ``run`` is the run's record. Following is by the changes feed with documents and attachments, so that a
reducer makes no request per spill. Only CouchDB's documented API is used.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import copy
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, fields
from typing import Any

import orjson

from orchestrator.couch import Database, Refusal, Server, wire
from orchestrator.errors import Conflict, DataError, NotFound, Refused
from orchestrator.online.packing import unpacked
from orchestrator.online.spill import Spill
from orchestrator.online.store import STATES, Arrivals, Outcome, RunRecord, kept_final
from orchestrator.online.stores.files import SpillFiles
from orchestrator.online.stores.names import MOST_BYTES, checked_run, database_name, spill_id, spill_number, text

RUN = "run"  # id of the record's document
KIND = "online run"  # its type: a database without such a document is none of ours
ATTACHMENT = "spill"
IN_DOCUMENT = 16 * 1024  # bytes of packed data up to which base64 in the document is the faster way
BULK_DOCUMENTS, BULK_BYTES = 500, 4 * 1024 * 1024  # of one request at most; a request is read into memory whole
LONGEST_ERROR = 20_000  # characters of a failed spill's trace that are kept: its end
PAUSE = 0.1  # s without news after which a follower gets an empty Arrivals
QUIET = 20.0  # s after which a feed without changes is asked for again
INFOS = 100  # databases that CouchDB tells about in one request
KEPT_OPEN = 8  # runs; one or two are worked on
ROWS = 250  # of the feed in one batch at most: 20 MB where each has an attachment
WAITING = 2  # batches that are read ahead of whoever follows


class CouchStores:
    """All runs' stores of one site.

    Args:
        server: with a login that may make and delete databases.
        prefix: of the databases' names.
        files: for what is above ``inline``.
        inline: bytes of packed data above which a spill goes by reference.
    """

    def __init__(self, server: Server, prefix: str, files: SpillFiles, inline: int = 65536) -> None:
        self.server = server
        self.prefix = prefix
        self.files = files
        self.inline = inline
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[str, RunRecord | None]] = {}  # by database: how far it was, and the record then
        self._open: dict[str, CouchStore] = {}  # they know their records' revisions, which saves two requests a save

    def of(self, run: str) -> CouchStore:
        """The store of a run, whether there or not. Raises SettingsError for a name that no run can have."""
        with self._lock:
            if run not in self._open:
                while len(self._open) >= KEPT_OPEN:
                    del self._open[next(iter(self._open))]
                self._open[run] = CouchStore(self, run)
            return self._open[run]

    def runs(self) -> list[RunRecord]:
        """Every run that has a store, the newest last. Reads those records alone whose database has changed since."""
        names = [name for name in self.server.databases() if name.startswith(f"{self.prefix}-")]
        seen: dict[str, tuple[str, RunRecord | None]] = {}
        for name, sequence in self._sequences(names).items():
            before = self._seen.get(name)
            with contextlib.suppress(NotFound):
                seen[name] = before if before and before[0] == sequence else (sequence, self._record_in(name))
        self._seen = seen
        found = [copy.deepcopy(record) for _, record in seen.values() if record is not None]
        return sorted(found, key=lambda record: (record.begun, record.run))

    def _sequences(self, names: list[str]) -> dict[str, str]:
        """How far each database is; equal means that nothing was written."""
        found: dict[str, str] = {}
        for start in range(0, len(names), INFOS):
            answer = self.server.connection.json(
                "POST", ("_dbs_info",), subject=self.server.subject, safe=True,
                body=wire.dumps({"keys": names[start : start + INFOS]}),
            )  # fmt: skip
            for one in answer:
                info = one.get("info")
                if isinstance(info, dict):  # else it has gone meanwhile
                    found[str(one["key"])] = f"{info.get('instance_start_time')} {info.get('update_seq')}"
        return found

    def _record_in(self, name: str) -> RunRecord | None:
        record = record_of(self.server.database(name).get(RUN))
        return record if record is not None and name == database_name(self.prefix, record.run) else None


class CouchStore:
    """The spills of one run. Thread-safe; a mark is a sequence of the database's feed."""

    def __init__(self, stores: CouchStores, run: str) -> None:
        self.run = checked_run(run)
        self.name = database_name(stores.prefix, run)
        self._server = stores.server
        self._database: Database = stores.server.database(self.name)
        self._files = stores.files
        self._inline = stores.inline
        self._revision: str | None = None  # of the record, as it was read or written here last
        self._known: RunRecord | None = None  # that record
        self._saving = threading.Lock()

    def record(self) -> RunRecord | None:
        """What is known of the run; None before the first ``save``."""
        with self._saving:
            self._read()
            return copy.deepcopy(self._known)

    def save(self, record: RunRecord) -> None:
        """Write what is known of the run, making its database first where it is not there.

        Of two who write, the later one wins, but a run that is final stays so.
        """
        with self._saving:
            for _ in range(10):
                try:
                    self._revision = self._database.put(self._with(record))
                    self._known = copy.deepcopy(record)
                    return
                except NotFound:
                    self._server.create(self.name)
                    self._revision = self._known = None
                except Conflict:
                    self._read()
            raise Conflict(f"the record of run {self.run} is being changed by others all the time")

    def put(self, outcomes: Iterable[Outcome]) -> int:
        """Keep outcomes, durably. Returns how many were new; for others the first one stays. May be repeated.

        Raises NotFound before the first ``save``, Unavailable where trying again helps.
        """
        given = list(outcomes)
        files = self._to_files(given)
        new = 0
        for some in _portions([self._spill_document(one, files.get(index)) for index, one in enumerate(given)]):
            for result in self._database.bulk_encoded(some):
                if not isinstance(result, Refusal):
                    new += 1
                elif result.error != "conflict":
                    raise self._database.refusal_error(result)
        return new

    def numbers(self) -> dict[int, bool]:
        """The numbers of all spills that are in, with whether they failed."""
        # Two requests that carry no documents: all ids, and those that a selector finds on the server.
        found = {
            number: False
            for row in self._database.all_docs(startkey="spill:", endkey="spill;", timeout=300.0).rows
            if (number := spill_number(str(row.id))) is not None
        }
        answer = self._database.connection.json(
            "POST",
            (self.name, "_changes"),
            subject=self._database.subject,
            params={"filter": "_selector"},
            body=wire.dumps({"selector": {"error": {"$gt": ""}}}),
            timeout=300.0,
            safe=True,
        )
        for change in answer["results"]:
            if (number := spill_number(change["id"])) in found and number is not None:
                found[number] = True
        return found

    def follow(self, mark: str | None, *, wait: Callable[[float], bool], most: int = 500) -> Iterator[Arrivals]:
        """Outcomes from ``mark`` on, then new ones as they come. A sequence that is not known begins anew."""
        from orchestrator.couch.changes import Follower  # when asked for: it brings ``requests`` along

        follower = Follower(
            self._database, since=mark or "0", include_docs=True, params={"attachments": True},
            mode="continuous", timeout=QUIET, most_rows=min(most, ROWS),
        )  # fmt: skip
        # The feed is read by a thread, so that an outage or a quiet feed holds up nobody who has a clock to look at.
        batches: queue.Queue[Any] = queue.Queue(WAITING)
        reader = threading.Thread(target=_read_on, args=(follower, batches), name=f"feed-{self.name}", daemon=True)
        reader.start()
        since = mark or "0"
        try:
            while True:
                try:
                    batch = batches.get(timeout=PAUSE)
                except queue.Empty:
                    batch = None
                if isinstance(batch, Exception):
                    raise batch
                if batch is None:
                    yield Arrivals(since)
                    if wait(0.0):
                        return
                    continue
                for arrivals in self._arrivals(batch.changes, batch.last_seq or since):
                    since = arrivals.mark
                    yield arrivals
                    if wait(0.0):
                        return
        finally:
            follower.close()
            while reader.is_alive():
                with contextlib.suppress(queue.Empty):
                    batches.get(timeout=PAUSE)  # it may wait for room

    def spill(self, number: int) -> Spill | None:
        """One spill, unpacked; None where it is not in or failed without data."""
        try:
            document = self._database.get(spill_id(number), attachments=True)
        except NotFound:
            return None
        packed = self._packed(document)
        return None if packed is None else unpacked(packed)

    def drop(self) -> None:
        """Remove all of it. Raises Refused for a database that is not a run's."""
        document = self._document()
        if document is None:
            try:
                self._database.info()
            except NotFound:
                self._files.drop(self.run)
                return
        record = None if document is None else record_of(document)
        if record is None or record.run != self.run:
            raise Refused(f"the database {self.name!r} is not the store of run {self.run}: it stays")
        with contextlib.suppress(NotFound):  # another one was quicker
            self._server.delete(self.name)
        with self._saving:
            self._revision = self._known = None
        self._files.drop(self.run)

    def _document(self) -> dict[str, Any] | None:
        try:
            return self._database.get(RUN)
        except NotFound:
            return None

    def _read(self) -> None:
        document = self._document()
        self._revision = None if document is None else document["_rev"]
        self._known = None if document is None else record_of(document)

    def _with(self, record: RunRecord) -> dict[str, Any]:
        record = kept_final(record, self._known)
        found = {"_id": RUN, "type": KIND, "run": self.run, "state": record.state, "record": asdict(record)}
        return found if self._revision is None else {**found, "_rev": self._revision}

    def _to_files(self, outcomes: list[Outcome]) -> dict[int, dict[str, Any]]:
        """References for those that are too big, by their place in the list."""
        big = [
            (index, one.number, one.packed)
            for index, one in enumerate(outcomes)
            if one.packed is not None and len(one.packed) > self._inline
        ]
        if not big:
            return {}
        references = self._files.write(self.run, [(number, packed) for _, number, packed in big])
        return {index: reference for (index, _, _), reference in zip(big, references, strict=True)}

    def _spill_document(self, outcome: Outcome, reference: dict[str, Any] | None) -> bytes:
        document: dict[str, Any] = {
            "_id": spill_id(outcome.number), "type": "spill", "number": outcome.number, "shown": outcome.shown,
            "worker": text(outcome.worker), "seconds": outcome.seconds,
        }  # fmt: skip
        if outcome.failed:
            document["error"] = text(outcome.error)[-LONGEST_ERROR:]
            document["module"] = text(outcome.module)
        if reference is not None:
            document["file"] = reference
        elif outcome.packed is not None:
            data = base64.b64encode(outcome.packed).decode()
            if len(outcome.packed) <= IN_DOCUMENT:
                document["data"] = data
            else:
                document["_attachments"] = {ATTACHMENT: {"content_type": "application/octet-stream", "data": data}}
        return orjson.dumps(document)

    def _arrivals(self, changes: Iterable[Any], last: str) -> Iterator[Arrivals]:
        """What a batch of changes brings, in portions that fit into memory; ``last``: the mark after all of them."""
        outcomes: list[Outcome] = []
        record, size = None, 0
        for change in changes:
            if change.deleted or change.doc is None:
                continue
            if change.id == RUN:
                record = record_of(change.doc)
            elif (number := spill_number(change.id)) is not None:
                outcomes.append(self._outcome(number, change.doc))
                size += len(outcomes[-1].packed or b"")
                if size >= MOST_BYTES:
                    yield Arrivals(change.seq, tuple(outcomes), record)
                    outcomes, record, size = [], None, 0
        yield Arrivals(last, tuple(outcomes), record)

    def _outcome(self, number: int, document: dict[str, Any]) -> Outcome:
        error, packed = str(document.get("error") or ""), None
        try:
            packed = self._packed(document)
        except DataError as lost:
            error = error or str(lost)  # it must still be counted, or the run would never close
        seconds = document.get("seconds")
        return Outcome(
            number, packed, error, str(document.get("module") or ""), document.get("shown") is not False,
            str(document.get("worker") or ""), float(seconds) if isinstance(seconds, int | float) else 0.0,
        )  # fmt: skip

    def _packed(self, document: dict[str, Any]) -> bytes | None:
        """The packed bytes that a document carries or refers to; None where it has none. Raises DataError."""
        if "file" in document:
            return self._files.read(self.run, document["file"])
        data = document.get("data")
        if data is None:
            data = document.get("_attachments", {}).get(ATTACHMENT, {}).get("data")
        if data is None:
            return None
        try:
            return base64.b64decode(data)
        except (binascii.Error, ValueError, TypeError) as error:
            raise DataError(f"run {self.run}: {document.get('_id')} has data that are not base64") from error


def record_of(document: dict[str, Any]) -> RunRecord | None:
    """A run's record in its document; None for a document that is none of ours."""
    content = document.get("record")
    if document.get("type") != KIND or not isinstance(content, dict) or not isinstance(content.get("run"), str):
        return None
    known = {field.name for field in fields(RunRecord)}
    record = RunRecord(**{name: value for name, value in content.items() if name in known})
    return record if record.state in STATES else None


def _read_on(follower: Any, batches: queue.Queue[Any]) -> None:
    """Hand on what a feed brings; an exception last, where it ends with one."""
    try:
        for batch in follower:
            batches.put(batch)
    except Exception as error:
        batches.put(error)


def _portions(documents: list[bytes]) -> Iterator[list[bytes]]:
    """Documents in groups that make one request each."""
    some: list[bytes] = []
    size = 0
    for document in documents:
        if some and (len(some) >= BULK_DOCUMENTS or size + len(document) > BULK_BYTES):
            yield some
            some, size = [], 0
        some.append(document)
        size += len(document)
    if some:
        yield some
