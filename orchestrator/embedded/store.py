"""All databases of one folder, and the lock that keeps a second server out of it."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

from orchestrator.embedded import layout
from orchestrator.embedded.database import DatabaseStore
from orchestrator.embedded.javascript import DesignFunctions
from orchestrator.embedded.problems import file_exists, no_database, storage_problem
from orchestrator.embedded.validation import Judge
from orchestrator.errors import SettingsError

LOCK = "lock"
IDENTITY = "server.json"


class Store:
    """The databases of one folder.

    Args:
        folder: made if it is not there.
        synchronous: ``full`` or ``normal``, as :func:`layout.connect` says.
        judge: what runs design functions; a :class:`DesignFunctions` of its own by default, made when first needed.

    Raises:
        SettingsError: the folder cannot be written, or another server has it.
    """

    def __init__(self, folder: Path, synchronous: str = "full", judge: Callable[[], Judge] | None = None) -> None:
        self.folder = folder
        self.synchronous = synchronous
        self._judge = judge or (lambda: self.functions)
        self._functions: DesignFunctions | None = None
        self._open: dict[str, DatabaseStore] = {}
        self._mutex = threading.RLock()
        # Its own: a writer that is being closed, under the mutex, may just be asking for the functions.
        self._functions_mutex = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise SettingsError(
                f"The database folder {folder} cannot be written ({error.strerror}): choose another with --path, "
                "or mend its permissions."
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._lock)
            raise SettingsError(
                f"Another server (process {holder}) has the database folder {folder} open: stop it first, "
                "or choose another folder."
            ) from error
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, b"%d\n" % os.getpid(), 0)
        self.uuid, self.secret = self._identity()
        self._sweep()
        for name in ("_users", "_replicator"):
            if not layout.file_of(folder, name).exists():
                self.create(name)

    def _identity(self) -> tuple[str, str]:
        path = self.folder / IDENTITY
        try:
            known = json.loads(path.read_text())
            return known["uuid"], known["secret"]
        except FileNotFoundError:
            known = {"uuid": uuid.uuid4().hex, "secret": secrets.token_hex(32)}
        except (OSError, ValueError, KeyError) as error:
            raise SettingsError(f"The file {path} cannot be read: remove it, and all will log in again.") from error
        temporary = path.with_suffix(".new")
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:  # noqa: PTH123
            json.dump(known, stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        return known["uuid"], known["secret"]

    def _sweep(self) -> None:
        # A database that was being deleted when the server was killed: its files have this suffix.
        for path in self.folder.glob("*.deleted"):
            _remove(path)
        for suffix in ("-wal", "-shm"):
            for path in self.folder.glob(f"*{layout.SUFFIX}{suffix}"):
                if not path.with_name(path.name.removesuffix(suffix)).exists():
                    path.unlink(missing_ok=True)

    @property
    def functions(self) -> DesignFunctions:
        """The JavaScript host, made when first needed."""
        with self._functions_mutex:
            if self._functions is None:
                self._functions = DesignFunctions()
            return self._functions

    def end_functions(self) -> None:
        """End the JavaScript host: what waits for it fails at once, so that a shutdown need not wait for an index."""
        with self._functions_mutex:
            if self._functions is not None:
                self._functions.close()

    def names(self) -> list[str]:
        """All databases, sorted."""
        return sorted(layout.name_of(path) for path in self.folder.glob(f"*{layout.SUFFIX}"))

    def opened(self, name: str) -> DatabaseStore | None:
        """A database that is open already: the way that never waits."""
        return self._open.get(name)

    def exists(self, name: str) -> bool:
        """Whether there is such a database."""
        return name in self._open or layout.file_of(self.folder, name).exists()

    def database(self, name: str) -> DatabaseStore:
        """A database by name, opened if need be.

        Raises:
            Problem: 404 if there is none, be it for a name no database may have.
        """
        found = self._open.get(name)
        if found is not None:
            return found
        with self._mutex:
            if name not in self._open:
                path = layout.file_of(self.folder, name)
                if not layout.is_name(name) or not path.exists():
                    raise no_database()
                self._open[name] = DatabaseStore(path, name, self.synchronous, self._judge)
            return self._open[name]

    def create(self, name: str) -> DatabaseStore:
        """Make a database, for admins only until its security object says otherwise.

        Raises:
            Problem: 412 if it is there; 400 for a name no database may have; 507 if the disk is full.
        """
        layout.check_name(name)
        with self._mutex:
            path = layout.file_of(self.folder, name)
            if self.exists(name):
                raise file_exists()
            try:
                self._open[name] = DatabaseStore(path, name, self.synchronous, self._judge)
            except Exception as error:
                # Half a database must not stay behind, such as on a disk that is full.
                for suffix in ("", "-wal", "-shm"):
                    path.with_name(path.name + suffix).unlink(missing_ok=True)
                raise storage_problem(error) from error
            return self._open[name]

    def delete(self, name: str) -> None:
        """Remove a database with all its files.

        Raises:
            Problem: 404 if there is none.
        """
        with self._mutex:
            database = self.database(name)
            database.close()
            del self._open[name]
            # Renamed first: a kill in between leaves either the whole database or none of it.
            mark = f".{uuid.uuid4().hex}.deleted"
            doomed = []
            for path in (database.path, database.folder, database.blobs.folder):
                if path.exists():
                    doomed.append(path.rename(path.with_name(path.name + mark)))
            for suffix in ("-wal", "-shm"):
                database.path.with_name(database.path.name + suffix).unlink(missing_ok=True)
            for path in doomed:
                _remove(path)

    def ring(self) -> None:
        """Wake all feeds."""
        for database in list(self._open.values()):
            database.ring()

    def close(self) -> None:
        """Close all databases and give up the lock."""
        with self._mutex:
            for database in self._open.values():
                database.close()
            self._open.clear()
            self.end_functions()
            os.close(self._lock)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
