"""The scheduler of replications: those that ``POST /_replicate`` asks for, and those that documents ask for.

A replication asked for over HTTP lives as long as the server. One that a document of ``_replicator`` describes is taken
up again at every start, until the document says that it has completed or failed. The state of the others is not written
into their documents, as in CouchDB since 2.1: ``_scheduler/docs`` tells it.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from orchestrator.embedded import documents
from orchestrator.embedded.database import DatabaseStore
from orchestrator.embedded.problems import Problem
from orchestrator.embedded.remotes import FILE, Remotes
from orchestrator.embedded.replication_job import Job
from orchestrator.embedded.replication_log import iso
from orchestrator.embedded.replication_request import BadReplication, Wanted, endpoint, parse
from orchestrator.embedded.store import Store
from orchestrator.embedded.updates import Refusal

DATABASE = "_replicator"
FINAL = ("completed", "failed")

_END = 3.0  # s for the threads to end when the server stops; they are cut, so this is only for a busy machine
_AT_ONCE = 500  # changes of _replicator read at a time

log = logging.getLogger(__name__)


class Described:
    """A document of ``_replicator`` that has been looked at: what it asks for, and its job if it has one."""

    def __init__(self, wanted: Wanted | None, row: dict[str, Any] | None = None, job: Job | None = None) -> None:
        self.wanted = wanted
        self.row = row
        self.job = job


class Replicator:
    """All replications of one server.

    Args:
        store: the databases; ``_replicator`` is read from it, and the file of remote logins lies beside them.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.remotes = Remotes(store.folder / FILE)
        self._jobs: dict[str, Job] = {}
        self._described: dict[str, Described] = {}
        self._lock = threading.RLock()
        self._rung = threading.Event()
        self._closed = False
        self._seq = 0
        self._database: DatabaseStore = store.database(DATABASE)
        self._unwatch = self._database.watch(self._rung.set)
        self._rung.set()
        self._thread = threading.Thread(target=self._follow, name="replicator", daemon=True)
        self._thread.start()

    # Asked for over HTTP

    def request(self, body: dict[str, Any]) -> Wanted:
        """What the body of ``POST /_replicate`` asks for.

        Raises:
            Problem: it makes no sense.
        """
        try:
            return parse(body, self.remotes.login)
        except BadReplication as error:
            raise _refused(error) from error

    def begin(self, wanted: Wanted, user: str | None, ended: Any, running: Any) -> None:
        """Start a replication, unless the very same runs already.

        Args:
            ended: called with the job, from any thread, when it has completed or failed.
            running: called with the job, from any thread, once its id is known.
        """

        def known(job: Job) -> bool:
            with self._lock:
                other = self._jobs.get(job.id)
                mine = other is None or other.wanted != wanted
                if mine:
                    self._jobs[job.id] = job
                elif other is not None:
                    other.waiting.append(ended)
            if mine and other is not None:
                other.cancel()  # the same two databases with another login, say: the newer request counts
            running(job if mine or other is None else other)
            return mine

        def over(job: Job) -> None:
            with self._lock:
                if self._jobs.get(job.id) is job:
                    del self._jobs[job.id]
                told, job.waiting = [ended, *job.waiting], []
            for one in told:
                one(job)

        if self._closed:
            raise Problem(503, "service_unavailable", "The server is stopping.")
        Job(wanted, self._store.uuid, user=user, document=None, ended=over, known=known).start()

    def cancel(self, wanted: Wanted | None, name: str) -> str | None:
        """End a replication by what it is or by its id; the id, or None if there is none such."""
        with self._lock:
            job = self._named(name) if name else None
            if wanted is not None and not name:
                same = (wanted.source.url, wanted.target.url, wanted.doc_ids, wanted.selector, wanted.filter,
                        wanted.query_params, wanted.continuous)  # fmt: skip
                for other in self._jobs.values():
                    has = other.wanted
                    if same == (has.source.url, has.target.url, has.doc_ids, has.selector, has.filter,
                                has.query_params, has.continuous):  # fmt: skip
                        job = other
            if job is None:
                return None
            del self._jobs[job.id]
        job.cancel()
        return job.id

    def _named(self, name: str) -> Job | None:
        """A job by its id; one without its suffix stands for whichever there is."""
        return self._jobs.get(name) or next((job for job in self._jobs.values() if job.base == name), None)

    # Asked for by documents

    def _follow(self) -> None:
        while not self._closed:
            self._rung.wait()
            self._rung.clear()
            try:
                while not self._closed and (rows := self._database.changes_since(self._seq, _AT_ONCE)):
                    for seq, name, document, _ in rows:
                        self._changed(name, document)
                        self._seq = seq
            except Problem:
                if not self._closed:
                    log.exception("the documents of %s cannot be read", DATABASE)

    def _changed(self, name: str, document: dict[str, Any] | None) -> None:
        if name.startswith("_design/"):
            return
        with self._lock:
            known = self._described.get(name)
        state = (document or {}).get("_replication_state")
        if document is None or state in FINAL:
            if known is not None and known.job is not None and known.job.state not in FINAL:
                self._drop(known.job)
            with self._lock:
                if document is None:
                    self._described.pop(name, None)
                elif known is None or known.job is None or known.job.state not in FINAL:
                    self._described[name] = Described(None, _remembered(name, document))
            return
        try:
            wanted = parse(document, self.remotes.login)
        except BadReplication as error:
            if known is not None and known.job is not None:
                self._drop(known.job)
            self._failed(name, str(error), document)
            return
        if known is not None and known.job is not None:
            if known.job.wanted == wanted and known.job.state not in FINAL:
                return  # something else in the document has changed
            self._drop(known.job)
        job = Job(
            wanted, self._store.uuid, user=None, document=(DATABASE, name), ended=self._ended, known=self._known
        )
        with self._lock:
            self._described[name] = Described(wanted, None, job)
        job.start()

    def _known(self, job: Job) -> bool:
        assert job.document is not None
        with self._lock:
            other = self._jobs.get(job.id)
            if other is None:
                self._jobs[job.id] = job
                return True
        by = f"triggered by document `{other.document[1]}` from db `{DATABASE}`" if other.document else "by a request"
        reason = f"Replication `{job.id}` specified by document `{job.document[1]}` already started, {by}"
        self._failed(job.document[1], reason, None)
        return False

    def _ended(self, job: Job) -> None:
        assert job.document is not None
        with self._lock:
            if self._jobs.get(job.id) is job:
                del self._jobs[job.id]
        stats = {**job.progress.info(), "start_time": iso(job.started)}
        self._write(job.document[1], {"_replication_state": "completed", "_replication_stats": stats})

    def _drop(self, job: Job) -> None:
        with self._lock:
            if self._jobs.get(job.id) is job:
                del self._jobs[job.id]
        job.cancel()
        job.join(_END)

    def _failed(self, name: str, reason: str, document: dict[str, Any] | None) -> None:
        found = document if document is not None else self._database.get(name) or {}
        row = _remembered(name, {**found, "_replication_state": "failed", "_replication_state_reason": reason})
        with self._lock:
            self._described[name] = Described(None, row)
        self._write(name, {"_replication_state": "failed", "_replication_state_reason": reason})

    def _write(self, name: str, members: dict[str, Any]) -> None:
        """Write a final state into a document, whoever else is writing it."""
        for _ in range(5):
            try:
                document = self._database.get(name)
                if document is None:
                    return
                for old in ("_replication_state_reason", "_replication_stats"):
                    document.pop(old, None)
                changed = {**document, **members, "_replication_state_time": iso(time.time())}
                outcome = self._database.write([documents.draft(changed)])[0]
                if not isinstance(outcome, Refusal) or outcome.problem.status != 409:
                    return
            except Problem as problem:
                if not self._closed:
                    log.warning("the state of replication document %s cannot be written: %s", name, problem)
                return

    # What is shown

    def jobs(self) -> list[dict[str, Any]]:
        """``_scheduler/jobs``, by id."""
        with self._lock:
            found = list(self._jobs.values())
        return sorted((job.as_job() for job in found), key=lambda row: str(row["id"]))

    def job(self, name: str) -> dict[str, Any] | None:
        """One of them, or None."""
        with self._lock:
            found = self._named(name)
        return None if found is None else found.as_job()

    def documents(self) -> list[dict[str, Any]]:
        """``_scheduler/docs``, by the documents' ids."""
        with self._lock:
            found = sorted(self._described.items())
        return [entry.job.as_document() if entry.job is not None else entry.row or {} for _, entry in found]

    def document(self, name: str) -> dict[str, Any] | None:
        """One of them, or None."""
        with self._lock:
            entry = self._described.get(name)
        if entry is None:
            return None
        return entry.job.as_document() if entry.job is not None else entry.row

    def tasks(self) -> list[dict[str, Any]]:
        """The replications of ``_active_tasks``."""
        with self._lock:
            return [job.as_task() for job in self._jobs.values() if job.state == "running"]

    def close(self) -> None:
        """End all of them."""
        self._closed = True
        self._unwatch()
        self._rung.set()
        with self._lock:
            found = {*self._jobs.values(), *(entry.job for entry in self._described.values() if entry.job is not None)}
        for job in found:
            job.cancel()
        self._thread.join(_END)
        for job in found:
            job.join(_END)


def _refused(error: BadReplication) -> Problem:
    if error.status == 501:
        return Problem(501, "not_implemented", str(error))
    word = "error" if error.status == 500 else "bad_request"
    return Problem(error.status, word, str(error))


def _remembered(name: str, document: dict[str, Any]) -> dict[str, Any]:
    """The row of ``_scheduler/docs`` for a document that has no job any more."""
    state = document.get("_replication_state")
    info: Any = {"error": document.get("_replication_state_reason", "")}
    if state == "completed":
        info = document.get("_replication_stats")
    when = document.get("_replication_state_time") or iso(time.time())
    return {
        "database": DATABASE,
        "doc_id": name,
        "id": None,
        "node": "nonode@nohost",
        "source": _shown(document.get("source")),
        "target": _shown(document.get("target")),
        "source_proxy": None,
        "target_proxy": None,
        "state": state,
        "info": info,
        "error_count": 1 if state == "failed" else 0,
        "last_updated": when,
        "start_time": when,
    }


def _shown(value: Any) -> str | None:
    """An endpoint without what could be a secret in it."""
    try:
        return endpoint(value, "endpoint", lambda url: None).shown
    except BadReplication:
        return None
