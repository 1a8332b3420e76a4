"""Which files an input reads, and in which order: all that a pattern names, or one after the other as a DAQ makes them.

Numbers in names count as numbers: ``run_10.000`` comes after ``run_9.001``.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.errors import SettingsError
from procs.formats import names

LOOK_SECONDS = 1.0  # s between two looks for further files: a folder with many is slow to list
NOT_DATA = (".done", ".part", ".tmp", ".json", ".log")  # what lies beside a DAQ's files, unless it is asked for

HELP: dict[str, str] = {
    "files": "a path, a pattern such as `/data/daq/*.[0-9][0-9][0-9]` (`**` for folders below), or a list of them",
    "grow": "the DAQ is still writing: wait for more, and for the next file",
    "begin": "with `grow`, where no position is known: files of the `newest` run, or `all` that are there",
    "poll": "s between two looks at a file that grows",
    "settle": "s that a file must not have grown before the next one of the DAQ is taken up",
}


def order(path: str) -> tuple[Any, ...]:
    """Files sort by their names, numbers in them as numbers, then by their folders."""
    parts = re.split(r"([0-9]+)", Path(path).name)
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part), path


def run_of(path: str) -> str:
    """What the name says of the run; the name itself where it says nothing."""
    found = names.from_dotted_name(path) or names.from_samba_name(path)
    return found.run_name if found else Path(path).name


class Listing:
    """The files that the settings ``files``, ``begin`` and ``settle`` mean."""

    def __init__(self, settings: Mapping[str, Any], who: str) -> None:
        given = settings["files"]
        if not isinstance(given, str | os.PathLike | list | tuple):
            raise SettingsError(f"{who}: files is a path, a pattern, or a list of them, not {given!r}")
        self._patterns = [str(one) for one in ([given] if isinstance(given, str | os.PathLike) else given) if str(one)]
        if not self._patterns:
            raise SettingsError(f"{who} needs `files`: a path, a pattern, or a list of them")
        self._begin = settings["begin"]
        if self._begin not in ("newest", "all"):
            raise SettingsError(f"{who}: begin is `newest` or `all`, not {self._begin!r}")
        self._who = who
        self._looked = -LOOK_SECONDS
        self._known: list[str] = []

    def found(self) -> list[str]:
        """All files that are there now, in order; those with no data in them left out."""
        paths: set[str] = set()
        for pattern in self._patterns:
            # Path.glob takes no absolute pattern
            listed = glob.glob(pattern, recursive=True) if glob.has_magic(pattern) else [pattern]  # noqa: PTH207
            unwanted = tuple(one for one in NOT_DATA if not pattern.endswith(one))
            files = (Path(path).absolute() for path in listed if not path.endswith(unwanted))
            paths.update(str(path) for path in files if path.is_file())
        return sorted(paths, key=order)

    def check(self, grows: bool) -> str:
        """What is there. Raises SettingsError where there is nothing, or no folder in which it could appear."""
        found = self.found()
        if found:
            return found[0] if len(found) == 1 else f"{len(found)} files, the last is {found[-1]}"
        if not grows:
            raise SettingsError(f"{self._who}: there is no file {' '.join(self._patterns)}")
        for pattern in self._patterns:
            folder = Path(pattern)
            while glob.has_magic(str(folder)):
                folder = folder.parent
            folder = folder if folder != Path(pattern) else folder.parent
            if not folder.is_dir():
                raise SettingsError(f"{self._who}: there is no folder {folder}: make it, or correct `files`")
        return f"no files yet of {' '.join(self._patterns)}"

    def following(self, path: str, now: float) -> str | None:
        """The next file after this one, if it is there; ``now`` in seconds, to look not too often."""
        later = [one for one in self._known if order(one) > order(path)]
        if not later and now - self._looked >= LOOK_SECONDS:
            self._looked = now
            self._known = self.found()
            later = [one for one in self._known if order(one) > order(path)]
        return later[0] if later else None

    def paths(self, start: str | None, *, wait: Callable[[], None] | None) -> Iterator[str | None]:
        """The files from ``start`` on. With ``wait`` for ever: None after each wait while there is no next one.

        Raises SettingsError where complete files are asked for and there are none.
        """
        found = self.found()
        if wait is None:
            if not found:
                raise SettingsError(f"{self._who}: there is no file {' '.join(self._patterns)}")
            yield from (path for path in found if start is None or order(path) >= order(start))
            return
        current = self._first(found, start)
        while current is None:
            wait()
            yield None
            current = self._first(self.found(), start)
        while True:
            yield current
            following = None
            while (following := next((one for one in self.found() if order(one) > order(current)), None)) is None:
                wait()
                yield None
            current = following

    def _first(self, found: list[str], start: str | None) -> str | None:
        if start is not None:
            return next((path for path in found if order(path) >= order(start)), None)
        if not found:
            return None
        if self._begin == "all":
            return found[0]
        newest = run_of(found[-1])
        return next(path for path in found if run_of(path) == newest)
