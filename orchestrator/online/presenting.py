"""Plots of a reducer as they are published: metadata, the histogram in ROOT's JSON, the reference and the verdict."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from orchestrator.errors import DataError
from orchestrator.online import rootjson
from orchestrator.online.plot import QUALITIES, Plot
from orchestrator.online.publication import Header
from orchestrator.online.references import Compared

NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*\Z")
LONGEST = 200  # characters of a plot's name; a file's name has room for 255 bytes


@dataclass(frozen=True)
class Shown:
    """A plot as it is published."""

    header: Header
    body: bytes
    histogram: Any


@dataclass(frozen=True)
class Contents:
    """What is in the plots of a run: the highest spill, how many, when the newest was taken in (unix seconds)."""

    run: str
    spill: int | None = None
    spills: int = 0
    taken: float | None = None


class Presenter:
    """Makes what is published of a reducer's plots.

    Args:
        reducer: its name.
        tag: goes into every plot's metadata.
        compare: says how a plot stands against its reference, None where it has none.
        clock: unix seconds.
    """

    def __init__(
        self, reducer: str, tag: str, compare: Callable[[Plot], Compared | None], clock: Callable[[], float]
    ) -> None:
        self._reducer = reducer
        self._tag = tag
        self._compare = compare
        self._clock = clock
        self._sequence = 0

    def present(
        self,
        plots: Iterable[Plot],
        contents: Contents,
        *,
        final: bool = False,
        fault: Callable[[DataError], None] | None = None,
    ) -> list[Shown]:
        """Every plot, published once.

        A plot that cannot be published (its name, its histogram, a second one of its name) is left out and told to
        ``fault``; without that, DataError is raised.
        """
        now = self._clock()
        # Of the clock, so that it grows over restarts too.
        self._sequence = max(self._sequence + 1, int(now * 1000))
        found: dict[str, Shown] = {}
        for plot in plots:
            try:
                if plot.name in found:
                    raise DataError(f"the reducer {self._reducer} has two plots called {plot.name!r}")
                found[plot.name] = self._one(plot, contents, now, final)
            except DataError as error:
                if fault is None:
                    raise
                fault(error)
        return list(found.values())

    def _one(self, plot: Plot, contents: Contents, now: float, final: bool) -> Shown:
        if not NAME.match(plot.name) or len(plot.name) > LONGEST:
            raise DataError(
                f"{plot.name[:80]!r} cannot be a plot's name: letters, digits, '_', '-', '.' and '/' between parts"
            )
        compared = self._compare(plot)
        y_title = str(plot.style.get("y_title", "entries"))
        more: dict[str, Any] = {}
        if compared is not None and compared.scaled is not None:
            words = f"{compared.name}, scaled"
            more["reference_body"] = rootjson.to_root(compared.scaled, f"{plot.name}_reference", words, y_title)
            title = f"{plot.title} / {words}"
            more["ratio_body"] = rootjson.to_root(compared.ratio, f"{plot.name}_ratio", title, "ratio")
        body = rootjson.dumps(plot.histogram, plot.name, plot.title, y_title, **more)
        header = Header(
            run=contents.run, name=plot.name, title=plot.title, reducer=self._reducer, sequence=self._sequence,
            spill=contents.spill, spills=contents.spills, entries=float(rootjson.flow_values(plot.histogram)[0].sum()),
            input_time=iso(contents.taken), output_time=iso(now) or "", description=plot.description,
            keywords=tuple(plot.keywords), help=plot.help, tag=self._tag,
            style={key: value for key, value in plot.style.items() if key != "y_title"}, final=final,
            quality=compared.verdict.quality if compared is not None else "none",
            verdict=compared.verdict.to_json() if compared is not None else {},
            reference=compared.name if compared is not None else "",
        )  # fmt: skip
        return Shown(header, body, plot.histogram)


def worst(qualities: Iterable[str]) -> str:
    """The quality of a run: that of its worst plot."""
    return max(qualities, key=QUALITIES.index, default="none")


def iso(seconds: float | None) -> str | None:
    """Unix seconds as UTC, ISO 8601, in milliseconds."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
