"""Histogram files: one per document, and one per run that is rebuilt from them.

Whichever document of a run finishes last leaves the complete run's histograms, because each one rebuilds them from the
files that are in the run's folder, alone there by a file lock. Rebuilding is idempotent: the run's file remembers which
members (name, size, time, inode) it was made of, adds only what is new, and starts afresh if a member changed. A crash
between the two writes, or the same document done twice, never counts anything twice.
"""

from __future__ import annotations

import fcntl
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uproot

from orchestrator.errors import DataError, TransientError
from orchestrator.step import Work
from procs.binning import Counts, merged
from procs.outputs import atomic_output, describe, safe_name, storage
from procs.pictures import page
from procs.rootio import PROVENANCE, opened, text

MEMBER = "_histograms.root"  # how the name of a document's histogram file ends
MEMBERS = "members"  # key of the JSON text that lists what a run's file was made of
POLL = 0.1  # s between two tries for the lock
NAMES_SHOWN = 20  # members named in a result; a run may have thousands
ENTRIES_SHOWN = 40  # histograms named in a result: it becomes part of a document, which stays small


@dataclass(frozen=True)
class Page:
    """A picture to be drawn: ``suffix`` goes into the file's name, ``panels`` are the histograms on it."""

    suffix: str
    title: str
    panels: list[Counts]
    log: bool = False


Pages = Callable[[dict[str, Counts], str], list[Page]]  # (histograms, "file" or "run") -> the pictures of them


@dataclass(frozen=True)
class RunFile:
    """A run's histograms after a rebuild."""

    path: Path
    histograms: dict[str, Counts]
    members: list[str]
    unreadable: list[str]

    def said(self) -> dict[str, Any]:
        """The summary for a step's result."""
        return {
            "file": str(self.path),
            "members": len(self.members),
            "member_names": self.members[-NAMES_SHOWN:],
            "unreadable": self.unreadable[:NAMES_SHOWN],
            **summary(self.histograms),
        }


def summary(histograms: dict[str, Counts]) -> dict[str, Any]:
    """How many histograms and entries, and the entries of each of the first :data:`ENTRIES_SHOWN`."""
    return {
        "histograms": len(histograms),
        "total": sum(counts.entries for counts in histograms.values()),
        "entries": {name: histograms[name].entries for name in list(histograms)[:ENTRIES_SHOWN]},
    }


def save(path: Path, attempt: str, histograms: dict[str, Counts], texts: dict[str, str]) -> None:
    """Write histograms and JSON texts to a ROOT file, atomically, and read their counts back before the rename."""

    def check(temporary: Path) -> None:
        with opened(temporary) as file:
            for name, counts in histograms.items():
                found = round(float(file[name].values(flow=True).sum()))
                if found != counts.entries:
                    raise DataError(f"{path}: {name} was written with {counts.entries} entries and reads back {found}")

    with atomic_output(path, attempt, check=check) as temporary, uproot.recreate(temporary) as file:
        for name, value in texts.items():
            file[name] = value
        for name, counts in histograms.items():
            file[name] = counts.to_hist()


def load(path: Path) -> tuple[dict[str, Counts], Any]:
    """The histograms of a file that :func:`save` wrote, and its list of members (None in a document's file)."""
    with opened(path) as file:
        names = [key for key in file.keys(cycle=False) if file.classname_of(key).startswith("TH1")]
        return {name: Counts.from_root(name, file[name]) for name in names}, text(file, MEMBERS)


def run_file(folder: Path, run: str) -> Path:
    """The run's file in the folder of its members."""
    return folder / f"histograms_{safe_name(run)}.root"


def rebuild(folder: Path, run: str, attempt: str, log: logging.Logger) -> RunFile:
    """Bring the run's file up to the members that are in ``folder``. The caller holds :func:`locked`.

    A member that cannot be read is left out and named: one document's damaged file must not fail the others.
    """
    path = run_file(folder, run)
    identities: dict[str, list[int]] = {}
    for member in sorted(folder.glob(f"*{MEMBER}")):
        if member.name.startswith(".") or member == path:
            continue
        try:
            status = member.stat()
        except FileNotFoundError:
            continue
        identities[member.name] = [status.st_size, status.st_mtime_ns, status.st_ino]
    base: dict[str, Counts] = {}
    known: dict[str, list[int]] = {}
    if path.exists():
        try:
            base, stored = load(path)
            known = stored if isinstance(stored, dict) else {}
        except DataError as error:
            log.warning("the run's histograms are made afresh: %s", error)
    if not known or any(identities.get(name) != identity for name, identity in known.items()):
        base, known = {}, {}
    unreadable = []
    parts = [base]
    for name in sorted(set(identities) - set(known)):
        try:
            parts.append(load(folder / name)[0])
            known[name] = identities[name]
        except DataError as error:
            log.warning("left out of the run's histograms: %s", error)
            unreadable.append(name)
    histograms = merged(parts)
    members = sorted(known)
    if len(parts) > 1 or not path.exists():
        note = json.dumps({"step": "histograms", "run_name": run, "attempt": attempt}, ensure_ascii=False)
        save(path, attempt, histograms, {PROVENANCE: note, MEMBERS: json.dumps(known, ensure_ascii=False)})
    return RunFile(path, histograms, members, unreadable)


@contextmanager
def locked(folder: Path, timeout: float = 300.0, name: str = ".histograms.lock") -> Iterator[None]:
    """Be alone in ``folder`` among all processes that ask; the kernel frees the lock of a process that dies.

    Raises:
        TransientError: not free within ``timeout`` seconds.
    """
    path = folder / name
    with storage(path, "locking"):
        folder.mkdir(parents=True, exist_ok=True)
        handle = path.open("a")
    with handle:
        end = time.monotonic() + timeout
        pause = threading.Event()
        while True:
            try:
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise TransientError(
                        f"{path} was not free within {timeout:.0f} s: another process is writing the run's histograms. "
                        "Tried again later."
                    ) from None
                pause.wait(POLL)
            except OSError as error:
                raise TransientError(f"{path} cannot be locked: {error.strerror}. Tried again later.") from error
        yield


def publish(
    path: Path,
    run: str,
    work: Work,
    histograms: dict[str, Counts],
    note: str,
    pages: Pages | None,
    lock_timeout: float,
) -> dict[str, Any]:
    """Write a document's histograms and pictures, then bring its run's up to date.

    Args:
        path: the document's histogram file; its name ends in :data:`MEMBER`.
        run: the run's name.
        work: for the attempt's id and the log.
        histograms: of the document's file.
        note: provenance, a JSON text.
        pages: which pictures to draw; None for none.
        lock_timeout: s to wait for the run's lock.

    Returns:
        ``file``, ``size``, ``checksum``, ``histograms``, ``total``, ``entries`` (by name), ``plots`` (file, title,
        scope), ``run``.
    """
    save(path, work.attempt, histograms, {PROVENANCE: note})
    plots = draw(path, work, pages(histograms, "file") if pages else [], path.name.removesuffix(MEMBER), "file")
    with locked(path.parent, lock_timeout):
        whole = rebuild(path.parent, run, work.attempt, work.log)
        number = len(whole.members)
        title = f"run {run}, {number} file{'' if number == 1 else 's'}"
        plots += draw(whole.path, work, pages(whole.histograms, "run") if pages else [], title, "run")
    return {
        **describe(path),
        **summary(histograms),
        "plots": plots,
        "run": whole.said(),
    }


def draw(path: Path, work: Work, pages: list[Page], title: str, scope: str) -> list[dict[str, str]]:
    """Draw the pictures beside the file ``path``; what a result says of them: file, title, scope."""
    drawn = []
    for each in pages:
        picture = path.with_name(f"{path.stem}_{each.suffix}.png")
        page(picture, work.attempt, f"{title}: {each.title}", each.panels, log=each.log)
        drawn.append({"file": str(picture), "title": f"{title}: {each.title}", "scope": scope})
    return drawn
