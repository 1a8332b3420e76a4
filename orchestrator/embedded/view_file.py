"""The file of one index: the rows of its map functions with what they add up to, and what each document emitted.

Rows and sums are as ``view_blocks`` says.

``back`` remembers what each document has emitted, so that an update removes and inserts only what differs. It is
compressed: an entry that does not fit into a quarter of a page would take a page of its own. Rows,
sums and the sequence that they reflect change in one transaction: after a crash the file is some earlier state.

One thread writes, holding the index's lock; readers have connections of their own and see one moment's state.
"""

from __future__ import annotations

import contextlib
import hashlib
import marshal
import os
import sqlite3
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator import faults
from orchestrator.embedded import codec
from orchestrator.embedded.collation import sort_key
from orchestrator.embedded.problems import Problem
from orchestrator.embedded.view_blocks import Delta, schema, write

FORMAT = "3"  # of the tables; another format is built anew
_SHORT = 40  # characters of a value that ``back`` keeps as it is
_CONNECTIONS = 4  # readers kept open for an index

Emitted = list[list[tuple[Any, Any]]]
"""What the map functions of an index emitted for one document: for each function its (key, value) pairs."""


class IndexClosed(Problem):
    """The index was closed or removed while somebody was about to read it; asking again opens it anew."""

    def __init__(self) -> None:
        super().__init__(500, "index_closed", "The index was removed at this moment: ask again.")


def create(connection: sqlite3.Connection, kinds: list[tuple[str, ...]], token: str, seq: int) -> None:
    """Make the tables of an index, without rows; see :class:`ViewFile` for the arguments."""
    tables = "".join(schema(number) for number in range(len(kinds)))
    connection.executescript(
        "BEGIN; CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;"
        "CREATE TABLE back (id TEXT PRIMARY KEY, emitted BLOB NOT NULL) WITHOUT ROWID;" + tables + "COMMIT;"
    )
    values = [("format", FORMAT), ("token", token), ("seq", str(seq))]
    connection.executemany("INSERT INTO meta VALUES (?, ?)", values)


class ViewFile:
    """The rows of an index on disk.

    Args:
        path: the SQLite file; made if it is not there, made anew if it belongs to something else.
        kinds: for each map function the builtin reduces whose states its blocks keep.
        token: names the database's incarnation: an index of an earlier one is thrown away.
    """

    def __init__(self, path: Path, kinds: list[tuple[str, ...]], token: str) -> None:
        self.path = path
        self.kinds = kinds
        self.token = token
        self._idle: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._closed = False
        self._era = 0  # how often another file has taken the place of this one
        self._writer = self._connect()
        if not self._is_ours():
            self._writer.close()
            self._remove()
            self._writer = self._connect()
            create(self._writer, kinds, token, 0)
        self.seq = int(self._meta("seq"))

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=30.0)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            # A power cut may cost the last batches, never the order between rows and sequence: they are built again.
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("PRAGMA cache_size=-8000")  # 8 MB a connection
        except sqlite3.DatabaseError as error:
            connection.close()
            if isinstance(error, sqlite3.OperationalError):
                raise  # the disk, a lock or the permissions: the file may be well
            self._remove()
            return self._connect()
        return connection

    def _is_ours(self) -> bool:
        try:
            return self._meta("format") == FORMAT and self._meta("token") == self.token
        except (sqlite3.DatabaseError, TypeError):
            return False

    def _meta(self, key: str) -> str:
        return str(self._writer.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()[0])

    def _remove(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    # Reading

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection inside a transaction: all that is read from it is one moment's state.

        Raises:
            IndexClosed: somebody has closed the index.
        """
        with self._lock:
            if self._closed:
                raise IndexClosed
            connection = self._idle.pop() if self._idle else self._connect()
            era = self._era
        try:
            connection.execute("BEGIN")
            yield connection
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            with self._lock:
                keep = not self._closed and era == self._era and len(self._idle) < _CONNECTIONS
                if keep:
                    self._idle.append(connection)
            if not keep:
                connection.close()

    def sizes(self) -> dict[str, int]:
        """Bytes of the file, and of it in use; rows in all."""
        with self.reading() as connection:
            names = ("page_count", "freelist_count", "page_size")
            pages, free, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
            tables = range(len(self.kinds))
            rows = sum(connection.execute(f"SELECT SUM(count) FROM regions_{n}").fetchone()[0] or 0 for n in tables)
        return {"file": pages * size, "active": (pages - free) * size, "rows": rows}

    def close(self, remove: bool = False) -> None:
        """Close all connections; remove the file if it is no longer needed."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in [*idle, self._writer]:
            connection.close()
        if remove:
            self._remove()

    # Writing

    def replace(self, made: Path) -> None:
        """Put a file that was built beside this one into its place. Who reads just now reads the old one to the end."""
        with self._lock:
            self._era += 1
            idle, self._idle = self._idle, []
            for connection in [*idle, self._writer]:
                connection.close()
            for suffix in ("-wal", "-shm"):  # still there where somebody reads; another file's rows are not for ours
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
            os.replace(made, self.path)  # noqa: PTH105 - the one that is atomic by its contract
            self._writer = self._connect()
        self.reload()

    def reload(self) -> None:
        """Take in what another process has written to the file."""
        self.seq = int(self._meta("seq"))

    def apply(self, documents: list[tuple[str, Emitted | None]], seq: int) -> None:
        """Take in what documents emit now, each at most once, and the sequence that this reflects.

        Args:
            documents: (id, emitted pairs, or None for a document that is deleted or not indexed).
            seq: the database's sequence up to which the index is now complete.
        """
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            deltas = [Delta() for _ in self.kinds]
            self._differences(documents, deltas)
            for number, delta in enumerate(deltas):
                if delta.removed or delta.added:
                    write(self._writer, number, self.kinds[number], delta)
            self._writer.execute("UPDATE meta SET value = ? WHERE key = 'seq'", (str(seq),))
            faults.point("index.committing")
            self._writer.execute("COMMIT")
            faults.point("index.committed")
        except BaseException:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raise
        self.seq = seq

    def _differences(self, documents: list[tuple[str, Emitted | None]], deltas: list[Delta]) -> None:
        """Compare what documents emit with what they emitted before."""
        before: dict[str, Entries] = {}
        if self.seq:
            for identifier, _emitted in documents:
                found = self._writer.execute("SELECT emitted FROM back WHERE id = ?", (identifier,)).fetchone()
                if found is not None:
                    before[identifier] = recalled(found[0])
        forgotten, remembered = [], []
        for identifier, emitted in documents:
            old = {(number, key, pos): token for number, key, pos, token in before.get(identifier, ())}
            entries: Entries = []
            for number, key, pos, k, v, token in emissions(emitted or ()):
                entries.append((number, key, pos, token))
                place = (number, key, pos)
                if place in old:
                    was = old.pop(place)
                    if was == token:
                        continue
                    deltas[number].removed.append((key, identifier, pos, was if isinstance(was, str) else None))
                deltas[number].added.append((key, identifier, pos, k, v))
            for (number, key, pos), was in old.items():
                deltas[number].removed.append((key, identifier, pos, was if isinstance(was, str) else None))
            if entries:
                remembered.append((identifier, remembered_as(entries)))
            elif identifier in before:
                forgotten.append((identifier,))
        self._writer.executemany("DELETE FROM back WHERE id = ?", forgotten)
        self._writer.executemany("INSERT OR REPLACE INTO back VALUES (?, ?)", remembered)


Entries = list[tuple[int, bytes, int, str | bytes]]
"""What ``back`` keeps of a document's rows: function, key, position, and its value or a hash."""


def remembered_as(entries: Entries) -> bytes:
    """The form of entries in ``back``."""
    return zlib.compress(marshal.dumps(entries, 4), 1)


def recalled(stored: bytes) -> Entries:
    """The entries of a row of ``back``."""
    found: Entries = marshal.loads(zlib.decompress(stored))
    return found


def emissions(emitted: Emitted | tuple[()]) -> Iterator[tuple[int, bytes, int, str, str, str | bytes]]:
    """The rows of one document: (function's number, key, position, key and value as JSON, what ``back`` keeps)."""
    for number, pairs in enumerate(emitted):
        seen: dict[bytes, int] = {}
        for key_value, value in pairs:
            key = sort_key(key_value)
            pos = 0
            if len(pairs) > 1:
                pos = seen.get(key, 0)
                seen[key] = pos + 1
            k = codec.dumps(key_value).decode()
            v = "null" if value is None else codec.dumps(value).decode()
            yield number, key, pos, k, v, _token(k, v)


def _token(k: str, v: str) -> str | bytes:
    """What ``back`` keeps of a row: its value if short, or a hash; a hash too where one key has several spellings."""
    if len(v) <= _SHORT and k.isascii() and "\\u00" not in k:
        return v
    return hashlib.blake2b(f"{k}\n{v}".encode("utf-8", "surrogatepass"), digest_size=12).digest()
