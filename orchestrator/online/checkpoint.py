"""What a reducer knows, on the disk: its histograms, which spills are in them, and how far it has read. One file.

The three change together or not at all, so a reducer that is killed at any line and started again counts each spill
once. The file is written under another name, flushed and renamed; its last 32 bytes are the SHA-256 of those before.
A file of another module version or of other settings, or a damaged one, counts as none: everything is then counted
anew from the store.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from orchestrator import faults
from orchestrator.errors import DataError
from orchestrator.online.numbers import Numbers
from orchestrator.online.packing import pack, unpack

FORMAT = 1
SUM = 32  # bytes of a SHA-256
SUFFIX = ".state"


@dataclass
class Counted:
    """What a reducer knows of one run.

    ``numbers``: the spills that are counted, failed and hidden ones too; ``mark``: where to read on in the store;
    ``state``: the module's own; ``spill``: the highest number in the plots; ``taken``: when the newest of them was
    taken in (unix seconds); ``shown``, ``failed``, ``hidden``: how many of each; ``wrong``: by number, why a spill
    could not be counted (the first few).
    """

    run: str
    numbers: Numbers = field(default_factory=Numbers)
    mark: str | None = None
    state: Mapping[str, Any] = field(default_factory=dict)
    spill: int | None = None
    taken: float | None = None
    shown: int = 0
    failed: int = 0
    hidden: int = 0
    wrong: dict[str, str] = field(default_factory=dict)


def digest(reference: str, version: str, settings: Mapping[str, Any]) -> str:
    """What a saved state belongs to: a module, its version and its settings."""
    text = orjson.dumps([reference, version, dict(settings)], option=orjson.OPT_SORT_KEYS, default=str)
    return hashlib.sha256(text).hexdigest()


class Checkpoint:
    """The saved state of one reducer of one run.

    Args:
        folder: of all saved states; made when needed.
        reducer: the reducer's name.
        run: the run's name.
        belongs: see :func:`digest`.
    """

    def __init__(self, folder: Path, reducer: str, run: str, belongs: str) -> None:
        self.path = folder / f"{reducer}.{run}{SUFFIX}"
        self._run = run
        self._belongs = belongs

    def save(self, counted: Counted) -> None:
        """Write it, so that it is there after a power cut. Raises OSError."""
        content = pack(
            {
                "format": FORMAT, "belongs": self._belongs, "run": counted.run,
                "numbers": counted.numbers.intervals(), "mark": counted.mark, "state": dict(counted.state),
                "spill": counted.spill, "taken": counted.taken, "shown": counted.shown, "failed": counted.failed,
                "hidden": counted.hidden, "wrong": counted.wrong,
            }
        )  # fmt: skip
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f".{self.path.name}.part")
        with temporary.open("wb") as file:
            file.write(content)
            file.write(hashlib.sha256(content).digest())
            file.flush()
            os.fsync(file.fileno())
        faults.point("reducer.saving")
        temporary.replace(self.path)
        sync_folder(self.path.parent)

    def load(self) -> tuple[Counted | None, str]:
        """What was saved; or None, and in a sentence why not (empty where there is no file)."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None, ""
        except OSError as error:
            return None, f"{self.path} cannot be read: {error.strerror}"
        if hashlib.sha256(content[:-SUM]).digest() != content[-SUM:]:
            return None, f"{self.path} is damaged"
        try:
            found = unpack(memoryview(content)[:-SUM])
            if found["format"] != FORMAT or found["belongs"] != self._belongs or found["run"] != self._run:
                return None, f"{self.path} was made by another version of the reducer or with other settings"
            return (
                Counted(
                    found["run"], Numbers.of(found["numbers"]), found["mark"], found["state"], found["spill"],
                    found["taken"], found["shown"], found["failed"], found["hidden"], found["wrong"],
                ),
                "",
            )  # fmt: skip
        except (DataError, KeyError, TypeError, ValueError) as error:
            return None, f"{self.path} cannot be used: {error}"

    def forget(self) -> None:
        """Remove it: the run's snapshot is safe."""
        self.path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, where the file system can."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def write_safely(path: Path, content: bytes, *, name_too: bool = True) -> None:
    """Write a file whole or not at all, and so that it is there after a power cut. Raises OSError.

    Without ``name_too`` the caller flushes the folder, once for many files.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        if name_too:
            sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
