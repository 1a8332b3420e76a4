"""The few ways in which steps open, write and check ROOT files."""

from __future__ import annotations

import json
import os
import platform
import queue
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any

import awkward as ak
import numpy as np
import uproot

from orchestrator.errors import DataError, OrchestratorError, SettingsError
from orchestrator.filenames import text_of
from orchestrator.step import Work
from procs.outputs import plain, storage_fault

PROVENANCE = "provenance"  # key of the JSON text that says where a file comes from
FAMILIES = ("zstd", "lz4", "zlib", "lzma", "none")


def compression(text: str) -> Any:
    """uproot's compression for a setting such as ``zstd-1``, ``lz4-1`` or ``none``. Raises SettingsError."""
    family, _, level = text.partition("-")
    if family not in FAMILIES or (level and not level.isdecimal()) or int(level or 1) > 22:
        raise SettingsError(
            f"the setting 'compression' is {text!r}: write one of {', '.join(FAMILIES)} and a level, such as zstd-1"
        )
    makers = {"zstd": uproot.ZSTD, "lz4": uproot.LZ4, "zlib": uproot.ZLIB, "lzma": uproot.LZMA}
    if family == "none":
        return None
    highest = 22 if family == "zstd" else 12 if family == "lz4" else 9
    return makers[family](min(int(level or 1), highest))


class Writer:
    """Extends trees in a thread of its own, so that the next batch is read while one is compressed and written.

    Compression and file access leave Python's lock free, so a second core is of use to a single file. One batch is
    written and one waits at most. On a single core it writes at once, without a thread. A context manager, inside that
    of the file: at its end all is written, unless the block has failed.

    Args:
        cores: how many this process may use; by default it looks.
    """

    def __init__(self, cores: int | None = None) -> None:
        if cores is None:  # a batch job may use fewer than the machine has
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._alone = cores < 2
        self._queue: queue.Queue[Sequence[tuple[Any, Mapping[str, Any]]] | None] = queue.Queue(1)
        self._thread: threading.Thread | None = None
        self._fault: BaseException | None = None

    def __enter__(self) -> Writer:
        if not self._alone:
            self._thread = threading.Thread(target=self._run, name="root-writer", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._fault = error  # what still waits is of no use
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
        if kind is None:
            self._raise()

    def extend(self, rows: Sequence[tuple[Any, Mapping[str, Any]]]) -> None:
        """Write a batch: trees and their rows. Raises what an earlier batch met."""
        if self._thread is None:
            for tree, columns in rows:
                tree.extend(columns)
            return
        self._raise()
        self._queue.put(rows)

    def _raise(self) -> None:
        if self._fault is not None:
            raise self._fault

    def _run(self) -> None:
        while (rows := self._queue.get()) is not None:
            try:
                # After a fault what comes is taken and dropped, so that nobody waits for room in the queue.
                for tree, columns in rows if self._fault is None else ():
                    tree.extend(columns)
            except BaseException as error:
                self._fault = error


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """An uproot file for reading.

    Raises:
        DataError: it is not a ROOT file, or is damaged.
        TransientError: the file system failed.
    """
    try:
        # Read through a plain file object: a memory map turns a vanished file system into a killed process.
        with uproot.open(path, handler=uproot.source.file.MultithreadedFileSource) as file:
            yield file
    except OrchestratorError:
        raise
    except FileNotFoundError as error:
        raise storage_fault(FileNotFoundError(2, "no such file", str(path)), path, "reading") from error
    except OSError as error:
        if error.errno:
            raise storage_fault(error, path, "reading") from error
        raise DataError(f"{path} cannot be read as a ROOT file: {_short(error)}. Make it again.") from error
    except Exception as error:
        # uproot meets damage in many places (struct, zlib, KeyError, its own errors): all mean the same here. An error
        # that does not come from its reading is a fault of the code and must look like one.
        if isinstance(error, MemoryError) or not _from_reading(error):
            raise
        raise DataError(f"{path} cannot be read as a ROOT file: {_short(error)}. Make it again.") from error


def step_size(text: str) -> str:
    """uproot's chunk size for a setting such as ``20 MB``. Raises SettingsError."""
    if not re.fullmatch(r"[1-9][0-9]*(\.[0-9]+)? ?[kMG]B", text):
        raise SettingsError(f"the setting 'step_size' is {text!r}: write a number and kB, MB or GB, such as 20 MB")
    return text


@lru_cache(maxsize=256)
def _branch_type(text: str) -> Any:
    """What uproot makes of a branch's type: parsing one such as ``var * int16`` takes it milliseconds, each time."""
    return ak.types.from_datashape(text, highlevel=False) if "*" in text or text == "string" else np.dtype(text)


def branches(columns: Mapping[str, str]) -> dict[str, Any]:
    """A tree's branches (name: type, as ``int32``, ``string`` or ``var * int16``) for ``mktree``."""
    return {name: _branch_type(kind) for name, kind in columns.items()}


def distinct(names: Iterable[str]) -> list[str]:
    """The names, with a number behind each that stands there more than once."""
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return result


def _from_reading(error: BaseException) -> bool:
    trace = error.__traceback__
    modules = []
    while trace is not None:
        modules.append(str(trace.tb_frame.f_globals.get("__name__", "")))
        trace = trace.tb_next
    inside = [name for name in modules if name.split(".")[0] == "uproot"]
    return bool(inside) and not any(name.startswith(("uproot.writing", "uproot.sink")) for name in inside)


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def tree(file: Any, name: str, path: Path) -> Any:
    """The tree ``name`` of an open file. Raises DataError that lists what is there instead."""
    known = trees(file)
    if name not in known:
        raise DataError(f"{path} has no tree {name!r} (it has {', '.join(sorted(known)) or 'none'})")
    return file[name]


def trees(file: Any) -> list[str]:
    """The names of all trees in a file, without cycle numbers."""
    return sorted(set(file.keys(filter_classname="TTree", cycle=False)))


def text(file: Any, name: str) -> Any:
    """The JSON value of a stored text, None if it is not there."""
    if name not in file.keys(cycle=False):
        return None
    try:
        return json.loads(str(file[name]))
    except ValueError as error:
        raise DataError(f"the text {name!r} of {file.file_path} is not JSON: {error}. Make the file again.") from error


def counts(path: Path) -> dict[str, int]:
    """The number of entries of every tree in a file."""
    with opened(path) as file:
        return {name: int(file[name].num_entries) for name in trees(file)}


def verified(
    path: Path, expected: Mapping[str, int], count: Callable[[Path], Mapping[str, int]] = counts
) -> None:
    """Open a finished file again and compare its trees' entries. Raises DataError where they differ."""
    found = count(path)
    for name, entries in expected.items():
        if found.get(name) != entries:
            raise DataError(
                f"{path} was written with {entries} entries in the tree {name!r} but reads back {found.get(name)}"
            )


@lru_cache(maxsize=1)
def software() -> dict[str, str]:
    """Versions of what computes: for the provenance in files."""
    found = {"python": platform.python_version()}
    for package in ("couch-orchestrator", "uproot", "awkward", "numpy", "scipy", "hist"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def provenance(step: str, document: Mapping[str, Any], work: Work, source: Path, extra: Mapping[str, Any]) -> str:
    """The JSON text stored in every ROOT file: which document, attempt, input, settings and software made it."""
    checksum = None
    for key in sorted((k for k in document if k.startswith("proc")), reverse=True):
        part = document[key]
        if isinstance(part, Mapping) and part.get("file") == str(source):
            checksum = part.get("checksum")
            break
    if checksum is None and document.get("file") == str(source):
        checksum = document.get("checksum")
    return json.dumps(
        plain(
            {
                "step": step,
                "document": document.get("_id"),
                "run_name": document.get("run_name"),
                "file_number": document.get("file_number"),
                "attempt": work.attempt,
                "input": {"file": text_of(source), "checksum": checksum},
                "settings": dict(work.settings),
                "software": software(),
                **extra,
            }
        ),
        ensure_ascii=False,
    )
