"""How a database lies on disk: one SQLite file in WAL mode, and the names that files and databases may have.

    docs    one row per document, its row number the sequence of its newest change, so that the changes feed is one
            ascending scan; the winner, and the whole revision tree
    bodies  one row per stored revision, numbered by the sequence it was written under; JSON without the special
            members, kept as bytes so that reads never decode it
    local   `_local` documents, which have no tree and no place in the feed
    by_id   with the mark of deletion, so that ranges of ids are counted without reading the rows
    meta    counts, the security object, limits
"""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

from orchestrator.embedded.problems import Problem

SUFFIX = ".couch.sqlite"
SYSTEM_DATABASES = ("_users", "_replicator", "_global_changes")
MAX_NAME = 234  # characters; CouchDB takes 238. A file's name has 255, less our suffix and SQLite's `-journal`

_NAME = re.compile(r"^[a-z][a-z0-9_$()+/-]*\Z")

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS docs (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL, rev TEXT NOT NULL, deleted INTEGER NOT NULL,
    body INTEGER NOT NULL, leaves INTEGER NOT NULL, tree BLOB NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS by_id ON docs (id, deleted);
CREATE INDEX IF NOT EXISTS branched ON docs (id) WHERE leaves > 1 OR body <> seq;
CREATE TABLE IF NOT EXISTS bodies (seq INTEGER PRIMARY KEY, body BLOB NOT NULL, atts BLOB);
CREATE TABLE IF NOT EXISTS local (id TEXT PRIMARY KEY, rev INTEGER NOT NULL, body BLOB NOT NULL) WITHOUT ROWID;
"""

SYNCHRONOUS = ("full", "normal")


def is_name(name: str) -> bool:
    """Whether a database may have this name."""
    return name in SYSTEM_DATABASES or (_NAME.match(name) is not None and len(name) <= MAX_NAME)


def check_name(name: str) -> None:
    """Refuse a name that no database may have.

    Raises:
        Problem: 400 ``illegal_database_name`` with CouchDB's reason.
    """
    if not is_name(name):
        raise Problem(
            400,
            "illegal_database_name",
            f"Name: '{name}'. Only lowercase characters (a-z), digits (0-9), and any of the characters "
            "_, $, (, ), +, -, and / are allowed. Must begin with a letter.",
        )


def file_of(folder: Path, name: str) -> Path:
    """The file of a database. ``/`` becomes ``.``, which no name holds, so the mapping has an inverse."""
    return folder / (name.replace("/", ".") + SUFFIX)


def name_of(path: Path) -> str:
    """The database of a file; the inverse of :func:`file_of`."""
    return path.name.removesuffix(SUFFIX).replace(".", "/")


def connect(path: Path, *, synchronous: str = "full", read_only: bool = False) -> sqlite3.Connection:
    """Open one connection in autocommit mode, usable from any one thread at a time.

    Args:
        synchronous: ``full`` flushes the log to the disk at each commit; ``normal`` only at checkpoints: after a
            kill everything acknowledged is there all the same, after a power cut the last moments may not be.
    """
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30.0)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={'NORMAL' if synchronous == 'normal' else 'FULL'}")
    connection.execute("PRAGMA cache_size=-16000")  # 16 MB a connection
    connection.execute("PRAGMA temp_store=MEMORY")
    if read_only:
        connection.execute("PRAGMA query_only=1")
    return connection


def create(connection: sqlite3.Connection) -> None:
    """Make the tables of a database where they are not there yet."""
    connection.executescript(SCHEMA)
