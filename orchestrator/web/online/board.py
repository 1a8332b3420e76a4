"""The newest plot of each name and run, in memory, and what is known of the runs. Pure.

What comes is somebody else's: every field is brought into its type and a bounded length here, so that nothing behind
this needs to ask.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import orjson

from orchestrator.online.bins import parts
from orchestrator.online.plot import QUALITIES
from orchestrator.online.subscribing import Message
from orchestrator.web import human

#: Runs that are kept: the present one and some to look back at. The broadcast itself remembers as many.
RUNS = 4
#: Plots of one run. More than that is a reducer out of order.
PLOTS = 5000
#: Bytes of all plots together as they came; the oldest runs go first. What is made of a plot for viewers, once for all
#: of them, takes as much again at most.
MEMORY = 192 * 1024 * 1024
#: Letters of a text in a header; a help text is the longest.
LETTERS = 4000
#: Keywords of a plot.
KEYWORDS = 40
#: In the order in which a run is as good as its worst plot.
_RANK = {quality: rank for rank, quality in enumerate(QUALITIES)}
_STYLES = ("draw", "logx", "logy", "logz", "stats")
_TEXTS = ("title", "reducer", "description", "help", "tag", "reference")
_TIMES = ("input_time", "output_time")
_NUMBERS = ("sequence", "spill", "spills", "entries")


def sane(header: Mapping[str, Any], run: str, name: str) -> dict[str, Any]:
    """A plot's metadata with every field in its type; unknown ones are left out."""
    made: dict[str, Any] = {"run": run, "name": name}
    made |= {key: _text(header.get(key)) for key in _TEXTS}
    made["title"] = made["title"] or name
    made |= {key: _time(header.get(key)) for key in _TIMES}
    made |= {key: _number(header.get(key)) for key in _NUMBERS}
    keywords = header.get("keywords")
    made["keywords"] = [_text(word, 80) for word in keywords[:KEYWORDS]] if isinstance(keywords, list | tuple) else []
    style = header.get("style")
    made["style"] = _flat(style, _STYLES) if isinstance(style, Mapping) else {}
    made["final"] = header.get("final") is True
    quality = header.get("quality")
    made["quality"] = quality if isinstance(quality, str) and quality in _RANK else "none"
    verdict = header.get("verdict")
    made["verdict"] = _flat(verdict, None) if isinstance(verdict, Mapping) else {}
    return made


def _text(value: Any, letters: int = LETTERS) -> str:
    return str(value)[:letters] if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def _number(value: Any) -> int | float | None:
    """A number as JSON has it; None for anything else."""
    if not human.figure(value):
        return None
    return value if abs(value) < 2**53 else float(value)


def _time(value: Any) -> str | None:
    return human.iso(human.parse_time(value))


def _flat(table: Mapping[str, Any], known: Sequence[str] | None) -> dict[str, Any]:
    """The plain entries of a table."""
    return {
        str(key)[:60]: value[:400] if isinstance(value, str) else value if isinstance(value, bool) else _number(value)
        for key, value in list(table.items())[:40]
        if (known is None or key in known) and (isinstance(value, str | bool) or human.figure(value))
    }


def worst(qualities: Iterable[str]) -> str:
    """The quality of a whole: that of its worst part."""
    return max(qualities, key=_RANK.__getitem__, default="none")


def ordered(names: Iterable[str]) -> list[str]:
    """Names as people count: station 2 before station 10."""
    return sorted(names, key=lambda name: [(int(part), "") if part.isdecimal() else (-1, part)
                                           for part in re.split(r"([0-9]+)", name[:LETTERS])])  # fmt: skip


def pick(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """The names that fit the patterns, in the patterns' order, each once."""
    all_names = list(names)
    found: dict[str, None] = {}
    for pattern in patterns:
        found |= dict.fromkeys(name for name in all_names if fnmatchcase(name, pattern))
    return list(found)


@dataclass(eq=False, slots=True)
class Shown:
    """One plot as it was published last. ``number`` grows with everything that comes, of all plots of one ``life``."""

    run: str
    name: str
    header: dict[str, Any]
    body: bytes
    number: int
    arrived: float
    life: str = ""  # of whoever counts: numbers of another life say nothing of which is newer
    encoded: bytes | None = None  # as JSON for viewers; made when the first one asks
    block: bytes | None = None  # the same as an event, compressed

    def json(self) -> bytes:
        """``{"number", "life", "header", "object", "reference", "ratio"}`` as JSON, made once for all who ask."""
        if self.encoded is None:
            drawn, reference, ratio, fault = parts(self.body)
            said = {
                "number": self.number, "life": self.life, "header": self.header, "object": drawn,
                "reference": reference, "ratio": ratio,
            }  # fmt: skip
            self.encoded = orjson.dumps(said | ({"fault": fault} if fault else {}))
        return self.encoded


@dataclass(eq=False)
class Run:
    """What is known of one run."""

    name: str
    first: int  # number of the first that was heard of it
    plots: dict[str, Shown] = field(default_factory=dict)
    state: str = ""
    said: dict[str, Any] = field(default_factory=dict)  # with its state
    counts: dict[str, Any] = field(default_factory=dict)
    counted: float | None = None  # when the counts came
    arrived: float = 0.0
    size: int = 0
    listed: int = 0  # changes when a plot comes, goes, or changes its title or quality
    refused: bool = False  # it has more plots than are kept

    @property
    def quality(self) -> str:
        """That of its worst plot."""
        return worst(shown.header["quality"] for shown in self.plots.values())


class Board:
    """Everything that is known, bounded: the newest of each plot, of the last few runs.

    ``life`` tells one board from another, so that nobody compares their numbers.
    """

    def __init__(self, runs: int = RUNS, plots: int = PLOTS, memory: int = MEMORY, life: str = "") -> None:
        self.life = life
        self._runs: OrderedDict[str, Run] = OrderedDict()  # the one heard of last at the end
        self._most_runs, self._most_plots, self._memory = runs, plots, memory
        self.number = 0
        self.size = 0

    def take(self, message: Message, now: float) -> Shown | None:
        """Keep what came. Returns the plot where it was one that is kept."""
        self.number += 1
        run = self._runs.get(message.run)
        if run is None:
            run = self._runs[message.run] = Run(message.run, self.number)
        self._runs.move_to_end(message.run)
        run.arrived = now
        shown = None
        if message.kind == "plot":
            shown = self._plot(run, message, now)
        elif message.kind == "counts":
            run.counts, run.counted = counts(message.header), now
        elif message.kind == "run":
            state = message.header.get("state")
            run.state = state if state in ("begun", "ended", "final") else ""
            run.said = _flat(message.header, None)
        self._forget()
        return shown

    def _plot(self, run: Run, message: Message, now: float) -> Shown | None:
        before = run.plots.get(message.name)
        if before is None and len(run.plots) >= self._most_plots:
            run.refused = True
            return None
        header = sane(message.header, run.name, message.name)
        if header["output_time"] is not None and (human.parse_time(header["output_time"]) or 0.0) > now:
            header["output_time"] = human.iso(now)  # a clock that is ahead of ours: nothing comes before it is made
        shown = Shown(run.name, message.name, header, message.body, self.number, now, self.life)
        if before is None or any(before.header[key] != header[key] for key in ("title", "quality", "reducer", "help")):
            run.listed = self.number
        if before is None:  # a new table instead of a new entry: threads may be reading this one
            run.plots = {**run.plots, message.name: shown}
        else:
            run.plots[message.name] = shown
        change = len(message.body) - (len(before.body) if before is not None else 0)
        run.size += change
        self.size += change
        return shown

    def _forget(self) -> None:
        while len(self._runs) > 1 and (len(self._runs) > self._most_runs or self.size > self._memory):
            current = self.current()
            oldest = next(run for run in self._runs.values() if run is not current)
            self.size -= self._runs.pop(oldest.name).size

    def current(self) -> Run | None:
        """The run that is being taken, or the last one that was."""
        return max(list(self._runs.values()), key=_begun, default=None)

    def run(self, name: str) -> Run | None:
        """A run by its name; of the empty name the current one. None for one that is not in memory."""
        return self._runs.get(name) if name else self.current()

    def runs(self) -> list[Run]:
        """All runs in memory, the current one first."""
        return sorted(self._runs.values(), key=_begun, reverse=True)


def _begun(run: Run) -> tuple[float, int]:
    """Runs by their beginning: as was said, or else as they were heard of."""
    said = human.parse_time(run.said.get("begun") or run.said.get("time"))
    return (said or 0.0, run.first)


def counts(header: Mapping[str, Any]) -> dict[str, Any]:
    """The counts of a run and its workers: ``{"read", "done", "failed", "pending", "closed", "workers": [...]}``.

    ``closed``: whether read = done + failed + pending. Workers come as a list of tables, or as a table by name.
    """
    made: dict[str, Any] = {
        key: int(found) for key in ("read", "done", "failed", "pending") if human.figure(found := header.get(key))
    }
    if len(made) == 4:
        made["closed"] = made["read"] == made["done"] + made["failed"] + made["pending"]
    workers = header.get("workers")
    rows: list[Mapping[str, Any]] = []
    if isinstance(workers, Mapping):
        for name, state in workers.items():
            rows.append({"name": name} | (dict(state) if isinstance(state, Mapping) else {"state": state}))
    elif isinstance(workers, list):
        rows = [row if isinstance(row, Mapping) else {"name": row} for row in workers]
    made |= {key: _text(header.get(key), 400) for key in ("waits_for", "store_away", "trouble") if header.get(key)}
    made["workers"] = [_flat(row, None) for row in rows[:256]]
    return made
