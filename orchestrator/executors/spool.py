"""Reports that are not in the database yet, on disk: they survive the poller, and wait while the database is away.

Each poller has a folder of its own in the spool; in it a file per batch holds a line of JSON per report. A file goes
when all its reports are recorded. Beside the folder stands a lock file, held for as long as the poller lives: the
kernel lets go of it however the process ends, so on one machine nobody has to guess whether a poller is alive, and of
two that want to adopt what a dead one left exactly one gets the lock.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from pathlib import Path

from orchestrator import faults
from orchestrator.capture import safe_file_name
from orchestrator.errors import SettingsError
from orchestrator.lines import value_of
from orchestrator.reports import Report

log = logging.getLogger(__name__)


def read_reports(path: Path) -> list[Report]:
    """The reports in a spool file; a half-written last line (the writer was killed) is passed over."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    reports = []
    for line in lines[:-1]:
        if not line:
            continue  # a writer that was cut short begins anew on a line of its own
        try:
            reports.append(Report.from_json(value_of(line)))
        except (ValueError, TypeError, AttributeError) as error:
            log.error("a line of the spool file %s cannot be read and is passed over: %s", path, error)
    return reports


class Spool:
    """The spool folder of one living poller, and the way to those of dead ones."""

    def __init__(self, root: Path, poller: str, scratch: Path | None = None) -> None:
        """Make and lock the poller's folder below ``root``. Raises SettingsError if it cannot be written.

        Below ``scratch`` each poller's workers have a folder of the poller's name, which goes when the spool goes.
        """
        self.root = root / "pollers"
        self._scratch = scratch
        self._name = safe_file_name(poller)
        self.folder = self.root / self._name
        self._count = 0
        self._adopted: dict[str, int] = {}
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self.folder.mkdir(exist_ok=True)
            self._lock: int | None = _locked_file(self.root, self._name)
        except OSError as error:
            raise SettingsError(
                f"the spool {root} cannot be written ({error.strerror or error}): correct the setting 'spool' or the "
                "folder's permissions"
            ) from error

    @property
    def scratch(self) -> Path | None:
        """Where this poller's workers may write, made by whoever writes."""
        return self._scratch / self._name if self._scratch else None

    def new_batch(self) -> tuple[str, Path]:
        """A name for a new batch and the file that its reports go to."""
        self._count += 1
        name = f"{self._count:08d}"
        return name, self.folder / f"{name}.jsonl"

    def done(self, batch: str) -> None:
        """Every report of the batch is recorded: its file can go."""
        try:
            (self.folder / f"{batch}.jsonl").unlink(missing_ok=True)
        except OSError as error:
            log.warning("a spool file cannot be removed, its reports will be passed over later: %s", error)

    def same(self, one: str, other: str) -> bool:
        """Whether two names, of which one may be as in a file name, are one poller's."""
        return safe_file_name(one) == safe_file_name(other)

    def others(self) -> list[str]:
        """The names (as in file names) of other pollers that have or had their spool here."""
        return sorted(path.stem for path in self.root.glob("*.lock") if path.stem != self._name)

    def alive(self, poller: str) -> bool | None:
        """Whether a poller that has its spool here lives; None if this spool knows nothing of it (or may not look)."""
        name = safe_file_name(poller)
        if name == self._name:
            return True
        if name in self._adopted:
            return False
        try:
            lock = _locked(self.root / f"{name}.lock")
        except (FileNotFoundError, PermissionError):
            return None
        if lock is None:
            return True
        os.close(lock)
        return False

    def adopt(self, poller: str) -> list[Report] | None:
        """What a dead poller left, for this one alone until ``let_go``; None if it lives or somebody else was first."""
        name = safe_file_name(poller)
        if name not in self._adopted:
            try:
                lock = _locked(self.root / f"{name}.lock")
            except (FileNotFoundError, PermissionError):
                return None
            if lock is None:
                return None
            self._adopted[name] = lock
        return [report for path in sorted((self.root / name).glob("*.jsonl")) for report in read_reports(path)]

    def let_go(self, poller: str) -> None:
        """What an adopted poller left has been dealt with: remove it. Nothing happens for one that was not adopted."""
        name = safe_file_name(poller)
        lock = self._adopted.pop(name, None)
        if lock is None:
            return
        shutil.rmtree(self.root / name, ignore_errors=True)
        if self._scratch:
            shutil.rmtree(self._scratch / name, ignore_errors=True)
        faults.point("spool.emptied")
        (self.root / f"{name}.lock").unlink(missing_ok=True)
        os.close(lock)

    def close(self) -> None:
        """Let go of everything; a folder that still holds reports stays for the next poller to adopt."""
        for lock in self._adopted.values():
            os.close(lock)
        self._adopted.clear()
        if self.scratch:
            shutil.rmtree(self.scratch, ignore_errors=True)
        try:
            self.folder.rmdir()
            (self.root / f"{self._name}.lock").unlink(missing_ok=True)
        except OSError:
            log.warning(
                "the spool %s keeps reports that are not in the database; the next poller records them", self.folder
            )
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def is_locked(path: Path) -> bool:
    """Whether the lock file at ``path`` is held, that is, whether its poller lives; so too if it may not be opened."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _locked_file(folder: Path, name: str) -> int:
    """A new lock file, held: it is there only once it is locked, or another poller might take its maker for dead."""
    temporary = folder / f".{name}.new"
    descriptor = os.open(temporary, os.O_RDWR | os.O_CLOEXEC | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        temporary.rename(folder / f"{name}.lock")
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _locked(path: Path) -> int | None:
    """A descriptor that holds the lock, or None if somebody else does. Raises FileNotFoundError if there is no file."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    if not path.exists():  # its holder removed it between our open and our lock
        os.close(descriptor)
        raise FileNotFoundError(path)
    return descriptor
