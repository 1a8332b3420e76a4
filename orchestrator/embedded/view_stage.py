"""An index made from nothing: its rows are laid down as they come, sorted once, and written in their order.

Row by row, a large index is written in many places at once, each row costing a page of its own in the end. Here a
*stage* is a file that only grows (one for each process that works on the index), and :func:`merge` sorts what the
stages hold with SQLite's own sorter, whose memory is bounded, into a new index file. Nobody sees that file before it is
whole and on the disk; the caller then renames it into the index's place.

A stage notes how far it is together with its rows, so that a build that was broken off goes on there. It is never
flushed: after a restart of the machine it is thrown away.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from orchestrator.embedded import codec, view_blocks, view_file
from orchestrator.embedded.view_blocks import FIRST, Block, Place, merged
from orchestrator.embedded.view_file import Emitted, Entries, create, emissions, remembered_as
from orchestrator.embedded.view_reduce import State, reduce_values

SUFFIX = ".stage.sqlite"
_LOG_PAGES = 16_000  # pages (64 MB) of write-ahead log before it is taken into the stage
_SORTER = 64_000  # kB that one sort may take before it goes on in a temporary file
_FLUSHES = 1.0  # s between two flushes while an index is written: one at the end would hold up all other writers

Kinds = list[tuple[str, ...]]


class Stage:
    """What one process has laid down.

    Args:
        path: its file; made anew if it belongs to another build, or to another run of the machine.
        kinds: as of :class:`view_file.ViewFile`.
        build: names the build.
    """

    def __init__(self, path: Path, kinds: Kinds, build: str) -> None:
        self.path = path
        described = f"{build} {view_file.FORMAT} {round(psutil.boot_time())}"
        self._connection = _opened(path)
        try:
            known = dict(self._connection.execute("SELECT key, value FROM meta").fetchall())
        except sqlite3.DatabaseError:
            known = {}
        if known.get("build") != described:
            self._connection.close()
            remove(path)
            self._connection = _opened(path)
            self._connection.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value)")
            self._connection.execute("CREATE TABLE back (id TEXT, emitted BLOB)")
            for number in range(len(kinds)):
                self._connection.execute(f"CREATE TABLE rows_{number} (key BLOB, id TEXT, pos INTEGER, k TEXT, v TEXT)")
            known = {"build": described, "done": 0}
            self._connection.executemany("INSERT INTO meta VALUES (?, ?)", list(known.items()))
        self.done = int(known["done"])
        self._tables = len(kinds)

    def take(self, documents: list[tuple[str, Emitted]], done: int) -> None:
        """Lay down what documents emit, and how far this is."""
        lots: list[list[tuple[bytes, str, int, str, str]]] = [[] for _ in range(self._tables)]
        back = []
        for identifier, emitted in documents:
            entries: Entries = []
            for number, key, pos, k, v, token in emissions(emitted):
                lots[number].append((key, identifier, pos, k, v))
                entries.append((number, key, pos, token))
            if entries:
                back.append((identifier, remembered_as(entries)))
        self._connection.execute("BEGIN")
        for number, lot in enumerate(lots):
            self._connection.executemany(f"INSERT INTO rows_{number} VALUES (?, ?, ?, ?, ?)", lot)
        self._connection.executemany("INSERT INTO back VALUES (?, ?)", back)
        self._connection.execute("UPDATE meta SET value = ? WHERE key = 'done'", (done,))
        self._connection.execute("COMMIT")
        self.done = done

    def close(self) -> None:
        """Close the file; it stays."""
        self._connection.close()


def _opened(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30.0)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute(f"PRAGMA wal_autocheckpoint={_LOG_PAGES}")
    except sqlite3.OperationalError:
        connection.close()
        raise
    except sqlite3.DatabaseError:
        connection.close()
        remove(path)
        return _opened(path)
    return connection


def remove(path: Path) -> None:
    """Remove a file of SQLite with what belongs to it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def merge(stages: list[Path], target: Path, kinds: Kinds, token: str, seq: int, moved: Callable[[], None]) -> None:
    """Make an index file of what the stages hold; on the disk when this returns.

    Args:
        target: the file; what is there of an earlier attempt is replaced.
        kinds: as of :class:`view_file.ViewFile`.
        token: of the database's incarnation.
        seq: the sequence of the database that the rows reflect.
        moved: called after each part.
    """
    remove(target)
    connection = sqlite3.connect(target, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=OFF")  # half a file is never used
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute(f"PRAGMA cache_size=-{_SORTER}")
    connection.execute("PRAGMA threads=1")  # the sorter's own, besides this one
    ended = threading.Event()
    flusher = threading.Thread(target=_flush, args=(target, ended), daemon=True)
    try:
        create(connection, kinds, token, seq)
        flusher.start()
        for number, stage in enumerate(stages):
            connection.execute(f"ATTACH ? AS stage_{number}", (str(stage),))
        for number in range(len(kinds)):
            _sorted(connection, f"rows_{number}", "key, id, pos", len(stages))
            _sum_up(connection, number, kinds[number])
            moved()
        _sorted(connection, "back", "id", len(stages))
    finally:
        ended.set()
        if flusher.ident is not None:
            flusher.join()
        connection.close()
    _fsync(target)


def _sorted(connection: sqlite3.Connection, table: str, order: str, stages: int) -> None:
    parts = " UNION ALL ".join(f"SELECT * FROM stage_{number}.{table}" for number in range(stages))
    connection.execute(f"INSERT INTO main.{table} SELECT * FROM ({parts}) ORDER BY {order}")


def _sum_up(connection: sqlite3.Connection, number: int, kinds: tuple[str, ...]) -> None:
    """Make blocks and regions, three quarters full, of the rows."""
    size = max(view_blocks.SPLIT * 3 // 4, 1)
    connection.execute("BEGIN")
    for table in (f"blocks_{number}", f"regions_{number}"):
        connection.execute(f"DELETE FROM {table}")
    region: list[Block] = []
    for block in _blocks(connection, number, kinds, size):
        if len(region) == size:
            _region(connection, number, kinds, region)
            region = []
        region.append(block)
    _region(connection, number, kinds, region)
    connection.execute("COMMIT")


def _region(connection: sqlite3.Connection, number: int, kinds: tuple[str, ...], held: list[Block]) -> None:
    connection.executemany(
        f"INSERT INTO blocks_{number} VALUES (?, ?, ?, ?)", [(*block.place, block.size, block.text) for block in held]
    )
    count = sum(block.size for block in held)
    states = codec.dumps(merged(kinds, held) if count else []).decode()
    connection.execute(f"INSERT INTO regions_{number} VALUES (?, ?, ?, ?)", (*held[0].place, count, states))


def _blocks(connection: sqlite3.Connection, number: int, kinds: tuple[str, ...], size: int) -> Iterator[Block]:
    place, values = FIRST, list[str]()
    last: Place | None = None
    for key, identifier, v in connection.execute(
        f"SELECT key, id, {'v' if kinds else 'NULL'} FROM rows_{number} ORDER BY key, id, pos"
    ):
        if len(values) >= size and last != (key, identifier):
            yield Block(place, len(values), codec.dumps(_states(kinds, values)).decode())
            place, values = (key, identifier), []
        last = (key, identifier)
        values.append(v)
    yield Block(place, len(values), codec.dumps(_states(kinds, values)).decode() if values else "[]")


def _states(kinds: tuple[str, ...], texts: list[str]) -> list[State]:
    if not kinds:
        return []
    values = codec.loads("[" + ",".join(texts) + "]")
    if all(type(value) is int for value in values):  # exact in any order
        whole = {"_sum": lambda: sum(values), "_stats": lambda: [
            sum(values), len(values), min(values), max(values), sum(value * value for value in values)
        ]}  # fmt: skip
        return [whole[kind]() for kind in kinds]
    return [reduce_values(kind, values) for kind in kinds]


def _flush(path: Path, ended: threading.Event) -> None:
    while not ended.wait(_FLUSHES):
        _fsync(path)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
