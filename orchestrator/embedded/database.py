"""One database: what can be asked of it and written to it, apart from HTTP.

Reads take a connection of their own from a small pool and can run in any thread; writes go to the writer's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import sqlite3
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.embedded import codec, documents, layout
from orchestrator.embedded.attachments import Blobs
from orchestrator.embedded.documents import Draft
from orchestrator.embedded.problems import no_database
from orchestrator.embedded.ranks import Moves, Ranks
from orchestrator.embedded.revisions import Revision, RevisionTree, text
from orchestrator.embedded.updates import Counters, Outcome
from orchestrator.embedded.validation import Judge, Validators
from orchestrator.embedded.writer import Job, Writer

ADMINS_ONLY = {"members": {"roles": ["_admin"]}, "admins": {"roles": ["_admin"]}}

_POOL = 8  # read connections kept open for a database; more are opened under load and closed after use
_IDS_AT_ONCE = 500  # below SQLite's limit of variables in one statement


class Row(NamedTuple):
    """A document as it is stored: the winner's revision and where things are."""

    seq: int
    id: str
    rev: str
    deleted: bool
    body_seq: int
    leaves: int
    tree: bytes
    body: bytes | None
    attachments: bytes | None

    def render(self, extra: list[tuple[str, bytes]] | None = None) -> bytes:
        """The winner as JSON, attachments as stubs."""
        members = list(extra or [])
        if self.attachments:
            members.append(("_attachments", codec.dumps(documents.stubs(self.attachments))))
        return documents.render(self.id, self.rev, self.deleted, self.body or b"{}", members)

    def document(self) -> dict[str, Any]:
        """The winner decoded."""
        found: dict[str, Any] = {"_id": self.id, "_rev": self.rev}
        if self.deleted:
            found["_deleted"] = True
        found.update(codec.loads(self.body or b"{}"))
        if self.attachments:
            found["_attachments"] = documents.stubs(self.attachments)
        return found

    def revision_tree(self) -> RevisionTree:
        """All revisions."""
        return RevisionTree.decode(self.tree)


_COLUMNS = "d.seq, d.id, d.rev, d.deleted, d.body, d.leaves, d.tree"
SELECT = f"SELECT {_COLUMNS}, b.body, b.atts FROM docs d LEFT JOIN bodies b ON b.seq = d.body"
SELECT_BARE = f"SELECT {_COLUMNS}, NULL, NULL FROM docs d"

_COUNT_BETWEEN = "SELECT count(*) FROM docs WHERE seq > ? AND seq <= ?"
# Over an index, which is far smaller than the rows with their trees.
_COUNT_ALL = "SELECT count(*) FROM docs INDEXED BY by_id WHERE seq > ?"
_FEW = 20_000  # sequences whose rows are counted as fast as the index would be


class DatabaseStore:
    """A database.

    Attributes:
        name: as in the URL.
        folder: where the views' index files lie, private to this database.
        token: names this incarnation; part of every sequence string.
        ranks: says how many documents come before an id.
    """

    def __init__(self, path: Path, name: str, synchronous: str, judge: Callable[[], Judge]) -> None:
        self.name = name
        self.path = path
        self.folder = path.with_name(path.name.removesuffix(layout.SUFFIX) + ".index")
        self.folder.mkdir(exist_ok=True)
        self.blobs = Blobs(path.with_name(path.name.removesuffix(layout.SUFFIX) + ".attachments"))
        self.closed = False
        self._idle: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._pending = (0, 0, 0)  # newest sequence, sequence asked about, changes after it
        self._watchers: set[Callable[[], None]] = set()
        self.ranks = Ranks(self.reading)
        self.validators = Validators(judge)
        self._writer = Writer(path, synchronous, self.validators, self._committed, self.ring)
        self._counters = copy.copy(self._writer.counters)
        with self.reading() as connection:
            known = dict(connection.execute("SELECT key, value FROM meta").fetchall())
        self.token = str(known.get("token", ""))
        self.created = str(known.get("created", "0"))
        self._security: dict[str, Any] = codec.loads(known["security"]) if "security" in known else ADMINS_ONLY
        if not self.token:
            self._initialise()

    def _initialise(self) -> None:
        self.token = uuid.uuid4().hex
        self.created = str(int(time.time()))
        values = [("security", codec.dumps(ADMINS_ONLY)), ("created", self.created), ("token", self.token)]

        def insert(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", values)
            connection.execute("COMMIT")

        self.run(insert)

    # Reading

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection for reading; what is read inside one ``BEGIN`` is one moment's state.

        Raises:
            Problem: 404 if the database has been deleted.
        """
        if self.closed:
            raise no_database()
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            connection = layout.connect(self.path, read_only=True)
        try:
            yield connection
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            with self._lock:
                keep = not self.closed and len(self._idle) < _POOL
                if keep:
                    self._idle.append(connection)
            if not keep:
                connection.close()

    @property
    def counters(self) -> Counters:
        """Sequence and counts after the last commit."""
        return self._counters

    def update_seq(self) -> int:
        """The sequence of the newest change."""
        return self._counters.seq

    def row(self, identifier: str) -> Row | None:
        """A document with its winner's body, or None."""
        with self.reading() as connection:
            found = connection.execute(SELECT + " WHERE d.id = ?", (identifier,)).fetchone()
        return None if found is None else Row(*found)

    def rows(self, identifiers: list[str], bodies: bool = True) -> dict[str, Row]:
        """Many documents by id; those that are not there are left out."""
        select = SELECT if bodies else SELECT_BARE
        found: dict[str, Row] = {}
        with self.reading() as connection:
            for start in range(0, len(identifiers), _IDS_AT_ONCE):
                some = identifiers[start : start + _IDS_AT_ONCE]
                marks = ",".join("?" * len(some))
                for values in connection.execute(f"{select} WHERE d.id IN ({marks})", some):
                    found[values[1]] = Row(*values)
        return found

    def revision_row(self, row: Row, revision: Revision) -> Row | None:
        """The same document at another revision, or None if its body is not (or no longer) here."""
        node = row.revision_tree().nodes.get(revision)
        if node is None or not node.body:
            return None
        with self.reading() as connection:
            stored = connection.execute("SELECT body, atts FROM bodies WHERE seq = ?", (node.body,)).fetchone()
        if stored is None:
            return None
        return row._replace(
            rev=text(revision), deleted=node.deleted, body_seq=node.body, body=stored[0], attachments=stored[1]
        )

    def get(self, identifier: str) -> dict[str, Any] | None:
        """The winning document, or None if there is none or it is deleted."""
        row = self.row(identifier)
        return None if row is None or row.deleted else row.document()

    def get_many(self, identifiers: list[str]) -> dict[str, dict[str, Any]]:
        """Winning documents by id; missing and deleted ones are left out."""
        return {key: row.document() for key, row in self.rows(identifiers).items() if not row.deleted}

    def changes_rows(
        self, since: int, limit: int, *, descending: bool = False, bodies: bool = False, upto: int | None = None
    ) -> list[Row]:
        """The newest change of each document after ``since``, by sequence."""
        select = SELECT if bodies else SELECT_BARE
        order = "DESC" if descending else "ASC"
        last = self._counters.seq if upto is None else upto
        with self.reading() as connection:
            return [
                Row(*values)
                for values in connection.execute(
                    f"{select} WHERE d.seq > ? AND d.seq <= ? ORDER BY d.seq {order} LIMIT ?", (since, last, limit)
                )
            ]

    def pending(self, last: int) -> int:
        """How many changes come after a sequence.

        A follower pages through the feed and asks at each page: counting on from the page before keeps that from
        growing with the square of the database.
        """
        newest = self._counters.seq
        if last >= newest:
            return 0
        known_newest, known_last, known = self._pending
        with self.reading() as connection:
            if known_newest == newest and known_last <= last and last - known_last < newest - last:
                counted = connection.execute(_COUNT_BETWEEN, (known_last, last)).fetchone()[0]
                found = known - int(counted)
            elif newest - last < _FEW:
                found = int(connection.execute(_COUNT_BETWEEN, (last, newest)).fetchone()[0])
            else:
                found = int(connection.execute(_COUNT_ALL, (last,)).fetchone()[0])
        self._pending = (newest, last, found)
        return found

    def changes_since(self, seq: int, limit: int) -> list[tuple[int, str, dict[str, Any] | None, bool]]:
        """What has changed after a sequence, for the indexes: (seq, id, winning document or None, deleted).

        One entry for each document that has changed, at its newest change, ascending.
        """
        return [
            (row.seq, row.id, None if row.deleted else row.document(), bool(row.deleted))
            for row in self.changes_rows(seq, limit, bodies=True)
        ]

    def design_docs(self) -> list[dict[str, Any]]:
        """All design documents that are not deleted."""
        with self.reading() as connection:
            rows = connection.execute(
                SELECT + " WHERE d.id >= '_design/' AND d.id < '_design0' AND d.deleted = 0 ORDER BY d.id"
            ).fetchall()
        return [Row(*values).document() for values in rows]

    def security(self) -> dict[str, Any]:
        """The security object."""
        return self._security

    def local(self, identifier: str) -> tuple[str, bytes] | None:
        """A ``_local`` document as (rev, body), or None."""
        with self.reading() as connection:
            row = connection.execute("SELECT rev, body FROM local WHERE id = ?", (identifier,)).fetchone()
        return None if row is None else (f"0-{row[0]}", row[1])

    @property
    def revs_limit(self) -> int:
        """Generations kept on each branch of a tree."""
        return self._writer.limit

    # Writing

    def write(
        self, drafts: list[Draft], *, new_edits: bool = True, user: dict[str, Any] | None = None
    ) -> list[Outcome]:
        """Write drafts from a thread and wait for the commit.

        Raises:
            Problem: for the whole lot: the database is gone, the disk is full.
        """
        job = Job(Future(), drafts, new_edits, user or {})
        self._writer.submit(job)
        assert isinstance(job.future, Future)
        outcomes: list[Outcome] = job.future.result()
        return outcomes

    async def write_async(
        self, drafts: list[Draft], *, new_edits: bool = True, user: dict[str, Any] | None = None
    ) -> list[Outcome]:
        """As :meth:`write`, from the event loop."""
        loop = asyncio.get_running_loop()
        job = Job(loop.create_future(), drafts, new_edits, user or {}, loop=loop)
        self._writer.submit(job)
        outcomes: list[Outcome] = await job.future  # type: ignore[misc]
        return outcomes

    def run(self, task: Callable[[sqlite3.Connection], Any]) -> Any:
        """Run a task on the writer's thread, alone, and give back what it returns."""
        job = Job(Future(), task=task)
        self._writer.submit(job)
        assert isinstance(job.future, Future)
        return job.future.result()

    def set_security(self, security: dict[str, Any]) -> None:
        """Replace the security object; it is not versioned."""
        self._set_meta("security", codec.dumps(security))
        self._security = security

    def set_revs_limit(self, limit: int) -> None:
        """Change how many generations are kept from the next write on."""
        self._set_meta("revs_limit", limit)
        self._writer.limit = limit

    def _set_meta(self, key: str, value: Any) -> None:
        statement = "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)"
        self.run(lambda connection: connection.execute(statement, (key, value)))

    # Watching

    def _committed(self, counters: Counters, moves: Moves) -> None:
        self._counters = counters
        self.ranks.moved(counters.seq, moves)

    def ring(self) -> None:
        """Wake the feeds of this database."""
        for watcher in list(self._watchers):
            watcher()

    def watch(self, ring: Callable[[], None]) -> Callable[[], None]:
        """Have a function called after each commit, from any thread; what is given back ends that."""
        self._watchers.add(ring)
        return lambda: self._watchers.discard(ring)

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[asyncio.Event]:
        """An event that is set after each commit and when the database is closed."""
        loop = asyncio.get_running_loop()
        event = asyncio.Event()

        def ring() -> None:
            if not event.is_set() and not loop.is_closed():
                loop.call_soon_threadsafe(event.set)

        self._watchers.add(ring)
        try:
            yield event
        finally:
            self._watchers.discard(ring)

    def close(self) -> None:
        """End the writer after what it has, close all connections, and let the feeds know."""
        with self._lock:
            self.closed = True
            idle, self._idle = self._idle, []
        self._writer.close()
        for connection in idle:
            connection.close()
        self.ring()
