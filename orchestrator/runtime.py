"""The files of a running site: the lock, the status of what is up, the daemons' logs.

They stand in ``<site>/.orchestrator`` and say nothing that could not be lost: the lock is the kernel's, and the
status names processes together with their start times, so that a stale one is recognised.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from orchestrator.errors import Conflict

FOLDER = ".orchestrator"  # in the site's folder
LOCK = "up.lock"
STATUS = "up.json"
OLD_LOGS = 5  # turned-over logs kept for each child


@dataclass
class Lock:
    """At most one supervisor for a site. Held by the kernel, so a killed holder leaves no stale lock."""

    runtime: Path
    _file: Any = field(default=None, repr=False)

    def take(self) -> None:
        """Raises Conflict where another process holds it."""
        self.runtime.mkdir(parents=True, exist_ok=True)
        file = (self.runtime / LOCK).open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            raise Conflict(
                f"the site in {self.runtime.parent} is already up (process {holder}); "
                f"stop it with `orchestrator -C '{self.runtime.parent}' down`"
            ) from None
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        self._file = file

    def release(self) -> None:
        """Let the next one in."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def holder(self) -> int | None:
        """The process that holds it, or None where nobody does."""
        path = self.runtime / LOCK
        if not path.exists():
            return None
        with path.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                text = file.read().strip()
                return int(text) if text.isdigit() else 0
        return None


def read_status(runtime: Path) -> dict[str, Any] | None:
    """What the last supervisor wrote, or None where there was none."""
    try:
        found = json.loads((runtime / STATUS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def end_leftovers(runtime: Path, patience: float = 5.0) -> list[str]:
    """End children of an earlier supervisor that still live; call it with the lock held. Returns their names.

    A process counts only if its start time is the recorded one too: a process number may be somebody else's by now.
    """
    status = read_status(runtime) or {}
    found: list[tuple[str, psutil.Process]] = []
    for child in status.get("children", []):
        with contextlib.suppress(psutil.Error, TypeError, ValueError):
            process = psutil.Process(int(child["pid"]))
            if abs(process.create_time() - float(child["created"])) < 0.01:
                found.append((str(child["name"]), process))
    for _, process in found:
        send(process.pid, signal.SIGTERM)
    _, alive = psutil.wait_procs([process for _, process in found], timeout=patience)
    for process in alive:
        end_group(process.pid)
    psutil.wait_procs(alive, timeout=patience)
    return [name for name, _ in found]


def write_atomically(path: Path, text: str) -> None:
    """Write a small file so that a reader sees the old or the new text, never half."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def turn_over(log: Path, size: float) -> None:
    """Turn a log over once it is larger than ``size`` bytes.

    The writer keeps its descriptor (opened for appending), so the text is copied and the file emptied; lines that
    come in between copy and emptying, a few microseconds, may be lost from the old log.
    """
    try:
        if log.stat().st_size <= size:
            return
        for number in range(OLD_LOGS - 1, 0, -1):
            old = log.with_name(f"{log.name}.{number}")
            if old.exists():
                old.replace(log.with_name(f"{log.name}.{number + 1}"))
        shutil.copyfile(log, log.with_name(f"{log.name}.1"))
        os.truncate(log, 0)
    except OSError:
        return  # a full disk must not end the supervisor; the next look tries again


def last_words(log: Path, limit: int = 300) -> str:
    """``: `` and the last line of a log, or nothing."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 4096))
            lines = file.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return ""
    words = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f": {words[:limit]}" if words else ""


def send(pid: int, number: signal.Signals) -> None:
    """A signal to one process; no error if it has gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def end_group(pid: int) -> None:
    """SIGKILL to a child's whole process group (it leads one, as ``supervise.spawn`` starts it)."""
    if pid > 1 and pid != os.getpgrp():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
