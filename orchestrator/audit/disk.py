"""The site's disk, for the audit: outputs, unfinished and unnamed files, the spool, raw files without document.

Nothing here keeps what it reads but 8 bytes a name (`Names`): a million documents with three outputs each are 24 MB.
"""

from __future__ import annotations

import hashlib
import os
import re
from array import array
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.audit.document import Output
from orchestrator.audit.findings import Finding
from orchestrator.capture import safe_file_name
from orchestrator.documents import Report
from orchestrator.executors.spool import is_locked, read_reports
from orchestrator.filenames import text_of, unfinished

if TYPE_CHECKING:
    from orchestrator.chain import Chain
    from orchestrator.settings import Settings

#: Files whose names are looked up together.
TOGETHER = 4096
#: A registrar that is busy may take so long (s) beyond what its settings say.
LAG = 30.0


class Names:
    """A set of texts that keeps 8 bytes of each: enough to say of a million names which other ones are among them.

    Two different names count as one with a chance of 1e-19 a pair: then something is not found, never found falsely.
    """

    def __init__(self) -> None:
        self._marks = array("q")
        self._sorted: Any = None

    def __len__(self) -> int:
        return len(self._marks)

    def add(self, name: str) -> None:
        self._marks.append(hash(name))

    def add_all(self, names: Iterable[str]) -> None:
        self._marks.extend(map(hash, names))

    def _order(self) -> Any:
        import numpy

        if self._sorted is None or len(self._sorted) != len(self._marks):
            self._sorted = numpy.sort(numpy.array(self._marks, dtype=numpy.int64))
        return self._sorted

    def missing(self, names: list[str]) -> list[str]:
        """Those of ``names`` that have not been added."""
        import numpy

        known = self._order()
        if not len(known):
            return names
        marks = numpy.array([hash(name) for name in names], dtype=numpy.int64)
        places = numpy.minimum(numpy.searchsorted(known, marks), len(known) - 1)
        return [name for name, there in zip(names, known[places] == marks, strict=True) if not there]

    def doubles(self) -> set[int]:
        """The marks of names that have been added more than once."""
        known = self._order()
        return {int(mark) for mark in known[1:][known[1:] == known[:-1]]} if len(known) > 1 else set()


def check_file(
    path: str, size: int | None, checksum: str | None, *, deep: bool
) -> tuple[str, str] | None:
    """What is wrong with a file: ("missing" | "differs", sentence), or None."""
    try:
        found = os.stat(path)  # noqa: PTH116 - a million of them
    except (FileNotFoundError, NotADirectoryError):
        return "missing", f"{text_of(path)} is not there"
    except (OSError, ValueError) as error:
        return "missing", f"{text_of(path)} cannot be looked at: {error}"
    if size is not None and found.st_size != size and not os.path.isdir(path):  # noqa: PTH112
        return "differs", f"{text_of(path)} has {found.st_size} bytes, recorded are {size}"
    if deep and checksum and ":" in checksum:
        algorithm, _, wanted = checksum.partition(":")
        if algorithm not in hashlib.algorithms_available:
            return None
        try:
            with open(path, "rb") as stream:  # noqa: PTH123
                is_now = hashlib.file_digest(stream, algorithm).hexdigest()
        except OSError as error:
            return "differs", f"{text_of(path)} cannot be read: {error.strerror}"
        if is_now != wanted:
            return "differs", f"{text_of(path)} has checksum {algorithm}:{is_now}, recorded is {checksum}"
    return None


def output_finding(output: Output, *, deep: bool) -> Finding | None:
    """What is wrong with a step's output, if anything is."""
    wrong = check_file(output.path, output.size, output.checksum, deep=deep)
    if wrong is None:
        return None
    text = f"{output.step.key} ({output.step.name}) is done; {wrong[1]}"
    return Finding(f"output-{wrong[0]}", output.document, text, step=output.step.key)


def walk(root: Path, leave: Collection[str] = ()) -> Iterator[os.DirEntry[str]]:
    """Every regular file below ``root``, but for folders in ``leave``; what cannot be read is passed over."""
    folders = [str(root)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if entry.path not in leave:
                            folders.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        yield entry
        except OSError:
            continue


def data_folder(
    root: Path, names: Names, held: Collection[str], since: float, leave: Collection[str], folders: Collection[str]
) -> Iterator[Finding]:
    """Unfinished outputs of attempts that are over, and files that nothing names.

    ``held`` are the attempts that run, ``since`` (s since 1970) when the oldest of them began: what is younger may be
    theirs. ``folders`` are outputs that are folders.
    """
    batch: list[str] = []

    def unnamed() -> Iterator[Finding]:
        for path in names.missing(batch):
            if not any(path.startswith(folder + "/") for folder in folders):
                yield Finding("output-unnamed", text_of(path), "no document names it")
        batch.clear()

    for entry in walk(root, leave):
        part = unfinished(entry.name)
        try:
            changed = entry.stat(follow_symlinks=False).st_mtime
        except OSError:
            continue  # gone meanwhile
        if part is not None:
            if part[1] not in held:
                yield Finding("output-unfinished", text_of(entry.path), f"its attempt {part[1]} is over")
        elif changed < since:
            batch.append(entry.path)
            if len(batch) >= TOGETHER:
                yield from unnamed()
    yield from unnamed()


@dataclass
class PollerSpool:
    """What lies in the spool of one poller: whether it lives, and its files with the reports in them."""

    name: str
    folder: Path
    alive: bool
    files: dict[Path, list[Report]]


def poller_spools(spool: Path) -> Iterator[PollerSpool]:
    """The spools of all pollers of this site's folder."""
    root = spool / "pollers"
    names = {path.stem for path in root.glob("*.lock")} | {p.name for p in root.glob("*") if p.is_dir()}
    for name in sorted(names):
        if name.startswith("."):
            continue
        folder = root / name
        alive = is_locked(root / f"{name}.lock")
        yield PollerSpool(name, folder, alive, {path: read_reports(path) for path in sorted(folder.glob("*.jsonl"))})


def spool_findings(spools: Iterable[PollerSpool], held: Collection[str]) -> Iterator[Finding]:
    """What is in the spool and in nobody's hands. ``held`` are the attempts that hold their documents."""
    for one in spools:
        waiting = [report for reports in one.files.values() for report in reports if report.attempt in held]
        if one.alive:
            for path, reports in one.files.items():
                if reports and not any(report.attempt in held for report in reports):
                    yield Finding("spool-left", text_of(path), f"all its {len(reports)} reports are recorded")
        elif waiting:
            documents = ", ".join(sorted({report.document for report in waiting})[:3])
            yield Finding("spool-unrecorded", one.name, f"{len(waiting)} reports wait, of {documents} ...")
        else:
            yield Finding("spool-left", text_of(one.folder), f"its poller {one.name} lives no more")


def scratch_findings(spool: Path, pollers: Collection[str]) -> Iterator[Finding]:
    """Scratch folders of pollers that have no spool any more."""
    root = spool / "scratch"
    for path in sorted(root.glob("*")) if root.is_dir() else ():
        of_poller = path.is_dir() and re.search(r"-\d+-[0-9a-f]{8}\Z", path.name)
        if of_poller and not any(path.name == safe_file_name(name) for name in pollers):
            yield Finding("scratch-left", text_of(path), "its poller lives no more")


def raw_files(chain: Chain, settings: Settings, now: float) -> Iterator[tuple[str, str]]:
    """(document's id, path) of every raw file in the watched folders that the registrar must have seen by ``now`` (s).

    What it may still be waiting for is left out: files that changed within its `quiet` and `rescan` times, open ones,
    and those whose format it does not know and ignores.
    """
    if not settings.watch:
        return
    import socket

    from procs.register.document import Maker
    from procs.register.readers import default_formats, run_has_ended
    from procs.register.settings import RegisterSettings
    from procs.register.watch import Watcher

    values = {
        **settings.register_settings, "type": chain.type, "site": settings.site,
        "directories": [str(path) for path in settings.watch], "events": "never", "register_open": False,
    }  # fmt: skip
    rules = RegisterSettings.model_validate(values)
    formats = default_formats()
    maker = Maker(rules, formats, socket.gethostname())
    everything = rules.model_copy(update={"closed_by": ["quiet"], "quiet": 0.0})
    watcher = Watcher(everything, lambda path: run_has_ended(path, formats))
    lag = rules.quiet + rules.rescan + LAG
    try:
        watcher.sweep()
        while True:
            found = watcher.take(500)
            for one in found:
                watcher.settle(one)
                if now - Path(one.path).stat().st_mtime > lag and (
                    rules.unknown_format != "ignore" or _is_known(one.path, formats)
                ):
                    yield maker.id_of(one.path), one.path
            if not found and not watcher.busy:
                return
    finally:
        watcher.close()


def _is_known(path: str, formats: Any) -> bool:
    from procs.register.readers import HEAD, detect

    try:
        with open(path, "rb") as stream:  # noqa: PTH123 - names of any bytes
            return detect(stream.read(HEAD), formats) is not None
    except OSError:
        return False
