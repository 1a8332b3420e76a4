"""Recorded data once more, at the pace at which they came, or faster: as an input, and for whoever sends them on.

The run gets another name, so that a replay never writes over what the first time has left.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from orchestrator.errors import DataError, SettingsError
from orchestrator.online.module import Input, find
from orchestrator.online.spill import Item
from procs.formats import date_layout as layout
from procs.online.inputs import files as listing

LONGEST_PAUSE = 30.0  # s of the data's own time that are waited at most: what lies between two runs is not played again
TICK = 0.1  # s between two looks around while it waits
#: In a file's name: the run that its events are given, ``mice_06008.as-6008.replay1.000``.
NAMED = re.compile(r"\.as-([A-Za-z0-9][A-Za-z0-9_.+-]*)\.[0-9]{3,9}\Z")


def named_run(path: str | Path) -> str | None:
    """The run's name that a file's name gives to its events; None for all but files of a replay."""
    found = NAMED.search(Path(path).name)
    return found[1] if found else None


def reader_of(path: str | Path) -> str:
    """The input that reads a file of this form, as ``package.module:Class``. Raises DataError for unknown ones."""
    try:
        with Path(path).open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if start[4:8] == layout.MAGIC_BYTES:
        return "procs.online.inputs.date:DateInput"
    if start[:4] == b"root":
        return "procs.online.inputs.root:RootInput"
    if start.lstrip()[:1] == b"*":
        return "procs.online.inputs.samba:SambaInput"
    if start.lstrip()[:1] == b"{":
        return "procs.online.inputs.spill_json:SpillJsonInput"
    raise DataError(f"{path} is neither DATE nor Samba, ROOT or spill JSON: it cannot be replayed")


def files_of_run(run: str, patterns: str | Sequence[str]) -> list[str]:
    """The files of a run among those that patterns name: by their names, or by the number in a DATE file's header."""
    if not patterns:
        return []
    found = listing.Listing({"files": patterns, "begin": "all"}, "the input").found()
    by_name = [one for one in found if listing.run_of(one) == run]
    return by_name or [one for one in found if _number_in(one) == run and named_run(one) is None]


def _number_in(path: str) -> str | None:
    try:
        with Path(path).open("rb") as file:
            start = file.read(4 * (layout.RUN + 1))
    except OSError:
        return None
    return str(int.from_bytes(start[4 * layout.RUN :], "little")) if start[4:8] == layout.MAGIC_BYTES else None


def source(files: Sequence[str], module: str = "", settings: Mapping[str, Any] | None = None, log: Any = None) -> Input:
    """The input that reads recorded files to their ends. Raises SettingsError, or DataError."""
    if not files:
        raise SettingsError("there are no files to replay")
    kind = find(module or reader_of(files[0]), Input)
    given = {**(settings or {}), "files": list(files)}
    if "grow" in kind.defaults:
        given["grow"] = False
    made = kind(given, log)
    assert isinstance(made, Input)
    return made


def paced(
    items: Iterator[Item | None],
    speed: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[float], Any] = time.sleep,
) -> Iterator[Item | None]:
    """Items when their time has come, None while it has not.

    Args:
        items: recorded; those without a time come at once.
        speed: how many times faster than they were taken; 0: as fast as they can be read.
    """
    last: float | None = None  # the time of the newest item, in the data
    due = clock()
    for item in items:
        if item is not None and item.time is not None and speed > 0:
            if last is not None:
                due += min(max(item.time - last, 0.0), LONGEST_PAUSE) / speed
            last = item.time if last is None else max(last, item.time)
            while (left := due - clock()) > 0:
                wait(min(left, TICK))
                if due > clock():
                    yield None
            due = max(due, clock() - TICK)  # whoever was held up does not hurry afterwards
        yield item


class Renaming:
    """Gives runs their new names: ``name`` for the only run, or what ``of`` makes of each run's own."""

    def __init__(self, name: str, of: Callable[[str], str] | None = None) -> None:
        self._name, self._of = name, of
        self.runs: dict[str, str] = {}

    def __call__(self, item: Item) -> Item:
        """Raises SettingsError for a second run where there is one name only."""
        if item.run not in self.runs:
            if self._name and self.runs:
                raise SettingsError(
                    f"the files hold run {next(iter(self.runs))} and run {item.run}, which cannot both be called "
                    f"{self._name}: replay them one by one, or leave the choice of names to the replay"
                )
            self.runs[item.run] = self._name or (self._of(item.run) if self._of else item.run)
        return replace(item, run=self.runs[item.run])


class ReplayInput(Input):
    """Recorded files at their own pace, under another run's name."""

    version: ClassVar[str] = "1"
    defaults: ClassVar[Mapping[str, Any]] = {
        "files": "", "run": "", "suffix": "replay1", "speed": 1.0, "module": "", "settings": {},
    }  # fmt: skip
    settings_help: ClassVar[Mapping[str, str]] = {
        "files": "the recorded files: a path, or a list of them",
        "run": "what the run is called this time; empty: its own name, a dot and `suffix`",
        "suffix": "what is added to each run's own name",
        "speed": "how many times faster than it was taken; 0: as fast as it can be read",
        "module": "the input that reads the files; empty: by their form",
        "settings": "of that input, besides `files`",
    }

    def __init__(
        self,
        settings: Mapping[str, Any] | None = None,
        log: Any = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], Any] = time.sleep,
    ) -> None:
        super().__init__(settings, log)
        given = self.settings["files"]
        files = [given] if isinstance(given, str) else list(given)
        self._source = source(
            [one for one in files if one], str(self.settings["module"]), self.settings["settings"], log
        )
        self._speed = float(self.settings["speed"])
        if not self._speed >= 0:
            raise SettingsError("ReplayInput: speed is a number, 0 or more")
        suffix = str(self.settings["suffix"])
        self.renaming = Renaming(str(self.settings["run"]), lambda run: f"{run}.{suffix}" if suffix else run)
        self._clock, self._wait = clock, wait

    def check(self) -> str:
        """Which files there are. Raises SettingsError where there are none."""
        return self._source.check()

    def items(self, position: Any = None) -> Iterator[Item | None]:
        """What the files hold, when its time has come."""
        for item in paced(self._source.items(position), self._speed, clock=self._clock, wait=self._wait):
            yield None if item is None else self.renaming(item)

    @property
    def position(self) -> Any:
        """Of the input that reads the files."""
        return self._source.position

    def safe(self, position: Any) -> None:
        """Told to the input that reads the files."""
        self._source.safe(position)
