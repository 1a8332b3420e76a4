"""Many writers, few requests: single documents are grouped into ``_bulk_docs``, and each caller gets its own result.

CouchDB writes 280 documents a second one by one and 9,000 in bulks of 100. A group is closed when it is full, or a
few milliseconds after its first document; while one is under way the next gathers.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, wait
from typing import Any, NamedTuple

from orchestrator.couch import wire
from orchestrator.couch.database import Database, Refusal, Saved
from orchestrator.errors import DatabaseError, Refused

MAX_BYTES = 4 * 1024 * 1024  # bytes in one request: well below what proxies and servers take


class _Entry(NamedTuple):
    id: str | None
    content: bytes
    future: Future[Saved]


class BulkWriter:
    """Groups writes to one database. Thread-safe; make one for each process and close it at the end.

    Two writes to the same document never share a group: the second waits for the group after, so they arrive in the
    order they were submitted. (It still needs the revision that the first one makes, else it is a Conflict.)

    Args:
        database: where to.
        max_documents: a group's largest size.
        max_wait: seconds that the first document of a group waits for others.
        timeout: seconds without an answer after which the database counts as away; default: the connection's.
    """

    def __init__(
        self,
        database: Database,
        max_documents: int = 500,
        max_wait: float = 0.005,
        timeout: float | None = None,
    ) -> None:
        self.database = database
        self.max_documents = max_documents
        self.max_wait = max_wait
        self.timeout = timeout
        self.groups = 0  # requests made so far
        self.documents = 0  # documents in them
        self._waiting: deque[_Entry] = deque()
        self._change = threading.Condition()
        self._unanswered: set[Future[Saved]] = set()  # submitted, and not yet answered
        self._closed = False
        self._hurry = False  # do not wait for more: somebody waits in flush or close
        self._thread = threading.Thread(target=self._run, name=f"bulk-writer-{database.name}", daemon=True)
        self._thread.start()

    def __enter__(self) -> BulkWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, doc: dict[str, Any]) -> Future[Saved]:
        """Queue ``doc``. It is encoded here and now: what happens to the dict later does not matter.

        Returns:
            A future: its result is Saved; its exception Conflict, Refused, Unauthorised or Unavailable (then the
            document may or may not have been written: read it before writing again).

        Raises:
            Refused: it is not JSON.
            DatabaseError: the writer is closed.
        """
        return self._enqueue([_Entry(doc.get("_id"), wire.document(doc), Future())])[0]

    def submit_many(self, docs: Iterable[dict[str, Any]]) -> list[Future[Saved]]:
        """Queue documents together; futures in their order. If one is not JSON, none is queued."""
        return self._enqueue([_Entry(doc.get("_id"), wire.document(doc), Future()) for doc in docs])

    def _enqueue(self, entries: list[_Entry]) -> list[Future[Saved]]:
        with self._change:
            if self._closed:
                raise DatabaseError(f"The writer for database {self.database.name!r} is closed: make a new one")
            self._waiting.extend(entries)
            self._unanswered.update(entry.future for entry in entries)
            self._change.notify_all()
        return [entry.future for entry in entries]

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was submitted has been answered. Returns False if ``timeout`` seconds were too few."""
        with self._change:
            self._hurry = True
            self._change.notify_all()
            before = set(self._unanswered)  # what comes later need not be waited for
        return not wait(before, timeout).not_done

    def close(self, timeout: float | None = None) -> None:
        """Write what is queued, then end. Submitting afterwards is an error."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        self._thread.join(timeout)

    def _run(self) -> None:
        while group := self._next_group():
            self._write(group)
            with self._change:
                self._unanswered.difference_update(entry.future for entry in group)
                if not self._unanswered:
                    self._hurry = False

    def _next_group(self) -> list[_Entry]:
        """The next documents to write; empty when the writer is closed and all is written."""
        with self._change:
            while True:
                self._change.wait_for(lambda: self._waiting or self._closed)
                if not self._closed and not self._hurry:
                    self._change.wait_for(self._ready, self.max_wait)
                group = self._taken()
                if group or self._closed:
                    return group

    def _ready(self) -> bool:
        return len(self._waiting) >= self.max_documents or self._closed or self._hurry

    def _taken(self) -> list[_Entry]:
        group: list[_Entry] = []
        ids: set[str] = set()
        size = 0
        held: list[_Entry] = []
        while self._waiting and len(group) < self.max_documents:
            entry = self._waiting[0]
            if group and size + len(entry.content) > MAX_BYTES:
                break
            self._waiting.popleft()
            if entry.id is not None and entry.id in ids:
                held.append(entry)
                if len(held) >= self.max_documents:
                    break
                continue
            if not entry.future.set_running_or_notify_cancel():  # cancelled by its caller in time
                self._unanswered.discard(entry.future)
                continue
            if entry.id is not None:
                ids.add(entry.id)
            group.append(entry)
            size += len(entry.content)
        self._waiting.extendleft(reversed(held))
        return group

    def _write(self, group: list[_Entry]) -> None:
        """Write a group and answer each of its callers, whatever happens."""
        self.groups += 1
        self.documents += len(group)
        try:
            results = self.database.bulk_encoded([entry.content for entry in group], timeout=self.timeout)
        except Refused as error:
            if len(group) == 1:
                group[0].future.set_exception(error)
            else:
                # One document that is none makes the server refuse them all: halve until it stands alone.
                middle = len(group) // 2
                self._write(group[:middle])
                self._write(group[middle:])
            return
        except BaseException as error:  # handed to the callers, each of whom must hear of it
            for entry in group:
                entry.future.set_exception(error)
            return
        for entry, result in zip(group, results, strict=True):
            if isinstance(result, Refusal):
                entry.future.set_exception(self.database.refusal_error(result))
            else:
                entry.future.set_result(result)
