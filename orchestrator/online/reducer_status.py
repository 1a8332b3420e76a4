"""How a reducer is, in a small file: for ``orchestrator online status``, and for the sentence that pages show.

    <site>/online/reduce-<name>.json

Written by the reducer about once a second while something changes. Nothing depends on it: with a full disk it is old.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.runtime import write_atomically

EVERY = 1.0  # s between two words about the same run in the same state
LONGEST = 300  # characters of a sentence that a page shows


@dataclass
class Said:
    """What a reducer says of itself.

    ``state``: counting, cannot begin, finished. ``run``, ``begun``, ``opened``: which run, as in its record. Of the
    ``counted`` spills ``shown`` are in the plots, and ``failed`` are not. ``error``: why its module could not be born,
    the last of ``tries`` times. ``wrong``: by spill, why it could not be counted (the first few). ``left_out``: why
    plots could not be published the last time.
    """

    name: str
    state: str
    run: str
    begun: str = ""
    opened: int = 1
    counted: int = 0
    shown: int = 0
    failed: int = 0
    error: str = ""
    tries: int = 0
    wrong: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def of(self, run: Mapping[str, Any]) -> bool:
        """Whether it speaks of this run, and not of another one of its name."""
        return (self.run, self.begun, self.opened) == (run.get("run"), run.get("begun"), run.get("opened"))

    def trouble(self) -> str:
        """What is wrong, in a sentence; empty where nothing is."""
        if self.error:
            return f"the reducer {self.name} cannot begin run {self.run}: {self.error}"[:LONGEST]
        if self.wrong:
            number, why = next(iter(self.wrong.items()))
            return f"the reducer {self.name} cannot count spills of run {self.run}, such as {number}: {why}"[:LONGEST]
        if self.left_out:
            return f"the reducer {self.name} cannot show all plots of run {self.run}: {self.left_out[0]}"[:LONGEST]
        return ""


class Teller:
    """Writes the file, not more often than is of use.

    Args:
        folder: ``online`` in the site's folder.
        now: s, monotonic.
    """

    def __init__(self, folder: Path, now: Callable[[], float]) -> None:
        self._folder, self._now = folder, now
        self._last: Said | None = None
        self._written = 0.0

    def say(self, said: Said) -> None:
        """Write it, unless it was written just now and has no news but numbers."""
        last, now = self._last, self._now()
        news = last is None or (last.run, last.state, last.trouble()) != (said.run, said.state, said.trouble())
        if said == last or not (news or now - self._written >= EVERY):
            return
        with contextlib.suppress(OSError):  # a full disk must not end the reducer
            self._folder.mkdir(parents=True, exist_ok=True)
            write_atomically(_path(self._folder, said.name), json.dumps(asdict(said)))
            self._last, self._written = said, now


def read(folder: Path, name: str) -> Said | None:
    """What the reducer ``name`` has said last; None where there is nothing, or nothing that can be read."""
    try:
        return Said(**json.loads(_path(folder, name).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def troubles(folder: Path, names: Iterable[str], run: str) -> str:
    """What is wrong with the reducers of a run, in one sentence; empty where nothing is."""
    found = [said.trouble() for name in names if (said := read(folder, name)) is not None and said.run == run]
    return "; ".join(one for one in found if one)[: 2 * LONGEST]


def forget(folder: Path) -> None:
    """Remove what reducers of an earlier life have said."""
    for path in folder.glob("reduce-*.json"):
        with contextlib.suppress(OSError):
            path.unlink()


def _path(folder: Path, name: str) -> Path:
    return folder / f"reduce-{name}.json"
