"""What all reducers of histograms share: families of plots, exact sums, a state that can be saved and merged.

Axes come from the settings alone and bins hold whole numbers, so a histogram of many spills is the sum of those of its
parts, bin by bin, whatever their order. A reducer says what families of plots it has and fills them::

    class Triggers(Histograms):
        defaults: ClassVar = {"most": 400}
        families = (
            Family("triggers", "Triggers per spill", lambda s: [regular(s["most"], 0, s["most"], "triggers")]),
        )

        def process(self, spill):
            self.fill("triggers", "", spill.data["events"]["triggers"])
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import boost_histogram as bh
import hist
import numpy as np

from orchestrator.errors import DataError, SettingsError
from orchestrator.online.module import Reduce, RunConfiguration
from orchestrator.online.plot import Plot
from procs.binning import key_name

MOST_PLOTS = 512  # of one family: data with more boards or channels than that are damaged
PREFIX = "in front of the plots' names, with a slash: for a second reducer of the same class"
MOST_CELLS = 4_000_000  # bins of one histogram: 32 MB


@dataclass(frozen=True)
class Family:
    """Plots of one kind.

    ``name`` is what the plots' names begin with; ``{label}`` in the title stands for the board, channel or pair that
    a plot is of. A family without labels has one plot, which is there from the start. ``axes`` makes the axes from the
    settings.
    """

    name: str
    title: str
    axes: Callable[[Mapping[str, Any]], Sequence[Any]]
    description: str = ""
    help: str = ""
    keywords: tuple[str, ...] = ()
    style: Mapping[str, Any] = field(default_factory=dict)

    @property
    def single(self) -> bool:
        """Whether it has one plot, without label."""
        return "{label}" not in self.title

    def plot_name(self, label: str) -> str:
        """The name of the plot of a label; different labels never share one."""
        return f"{self.name}/{key_name('', label)[1:]}" if label else self.name


def regular(bins: Any, low: Any, high: Any, title: str) -> Any:
    """An axis with bins of one width; values outside go into under- and overflow. Raises ValueError."""
    if isinstance(bins, bool) or not isinstance(bins, int) or not 1 <= bins <= 100_000:
        raise ValueError(f"{bins!r} is no number of bins")
    if not float(low) < float(high):
        raise ValueError(f"the range from {low} to {high} is empty")
    return hist.axis.Regular(bins, float(low), float(high), label=title)


def numbers(first: int, beyond: int, title: str) -> Any:
    """An axis of whole numbers, each in the middle of its bin."""
    return regular(int(beyond) - int(first), first - 0.5, beyond - 0.5, title)


class Histograms(Reduce):
    """The base of reducers that fill histograms. A subclass has ``families``, ``defaults`` and ``process``."""

    families: ClassVar[tuple[Family, ...]] = ()

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        cls.defaults = {**cls.defaults, "prefix": ""}
        cls.settings_help = {**getattr(cls, "settings_help", {}), "prefix": PREFIX}  # type: ignore[attr-defined]

    def __init__(self, settings: Mapping[str, Any] | None = None, log: Any = None) -> None:
        super().__init__(settings, log)
        prefix = self.settings["prefix"]
        if not isinstance(prefix, str) or (prefix and not re.fullmatch(r"[A-Za-z0-9_-]+", prefix)):
            raise SettingsError(f"the setting `prefix` of {type(self).__name__} is made of letters, digits, _ and -")
        self._prefix = f"{prefix}/" if prefix else ""
        self._families = {family.name: family for family in self.families}
        self._held: dict[str, dict[str, Any]] = {}
        for family in self.families:
            self._new(family)
        self._begin()

    def birth(self, configuration: RunConfiguration) -> None:
        """Begin with empty histograms."""
        self._begin()

    def _begin(self) -> None:
        self._held = {family.name: {"": self._new(family)} if family.single else {} for family in self.families}

    def fill(self, family: str, label: str, *values: Any, weight: Any = None) -> None:
        """Fill the plot of a label with arrays, one for each axis. ``weight``: whole numbers."""
        found = self.histogram(family, label)
        if found is not None:
            bh.Histogram.fill(found, *values, weight=weight)  # past hist's own, which looks for names of axes first

    def histogram(self, family: str, label: str = "") -> Any:
        """The histogram of a label, made where it is new; None (and a line in the log) if there are too many."""
        held = self._held[family]
        found = held.get(label)
        if found is None:
            if len(held) >= MOST_PLOTS:
                self.log.warning("%s has %d plots already: none for %s", family, MOST_PLOTS, label)
                return None
            found = held[label] = self._new(self._families[family])
        return found

    def plots(self) -> Iterator[Plot]:
        """All plots, under their names with the prefix. What they are is said by ``_plots``."""
        for plot in self._plots():
            yield replace(plot, name=self._prefix + plot.name) if self._prefix else plot

    def names(self) -> list[str]:
        """The families' names, and those of plots that are there from the start."""
        labelled = [f"{self._prefix}{family.name}/*" for family in self.families if not family.single]
        return [*labelled, *(plot.name for plot in self.plots())]

    def _plots(self) -> Iterator[Plot]:
        """All histograms, family by family, labels in order. A subclass may add others."""
        for family in self.families:
            for label in sorted(self._held[family.name]):
                yield self.plot(family, label, self._held[family.name][label])

    def plot(self, family: Family, label: str, histogram: Any) -> Plot:
        """One plot with all that is said about its family."""
        return Plot(
            family.plot_name(label), family.title.format(label=label), histogram, family.description,
            family.keywords + ((label,) if label else ()), family.help, dict(family.style),
        )  # fmt: skip

    def expected(self, name: str) -> Any:
        """An empty histogram of the family that a plot's name belongs to."""
        if not name.startswith(self._prefix):
            return None
        name = name.removeprefix(self._prefix)
        for family in self.families:
            if name == family.name if family.single else name.startswith(f"{family.name}/"):
                return self._new(family)
        return None

    def state(self) -> dict[str, Any]:
        """All counts, with under- and overflow, by family and label."""
        return {
            name: {label: np.asarray(one.view(flow=True)).copy() for label, one in held.items()}
            for name, held in self._held.items()
        }

    def merge(self, state: Mapping[str, Any]) -> None:
        """Add the counts of another state. Raises DataError, and adds nothing, for one of other families or bins."""
        found: list[tuple[Any, Any]] = []
        for name, held in state.items():
            if name not in self._families:
                raise DataError(f"{type(self).__name__} has no plots {name!r}: the state is another version's")
            for label, counts in held.items():
                mine = self.histogram(name, label)
                if mine is None:
                    continue
                if np.shape(counts) != mine.view(flow=True).shape:
                    raise DataError(f"the state's {name} {label} has other bins: it was made with other settings")
                found.append((mine, counts))
        for mine, counts in found:
            mine.view(flow=True)[...] += np.asarray(counts)

    def _new(self, family: Family) -> Any:
        try:
            axes = list(family.axes(self.settings))
            cells = int(np.prod([len(axis) + 2 for axis in axes]))
            if cells > MOST_CELLS:
                raise ValueError(f"{cells} bins are too many (at most {MOST_CELLS})")
            return hist.Hist(*axes, storage=hist.storage.Int64())
        except (ValueError, TypeError, OverflowError) as error:
            what = f"the settings of {type(self).__name__} make no axes for {family.name}"
            raise SettingsError(f"{what}: {error}") from None


def wanted(data: Mapping[str, Any], part: str, reducer: str, maps: str) -> Mapping[str, Any]:
    """A part of a spill's data. Raises DataError with the remedy where it is not there."""
    found = data.get(part)
    if not isinstance(found, Mapping):
        raise DataError(f"{reducer} needs {part!r} in the spills, and it is not there: {maps}")
    return found


def by_kind(kinds: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Each kind in an array of whole numbers, with the places of its members."""
    if not len(kinds):
        return
    low, high = int(kinds.min()), int(kinds.max())
    if low == high:
        yield low, np.arange(len(kinds))
        return
    # Sixteen bits are sorted by radix, several times faster than what numpy does with more.
    small = (kinds - low).astype(np.uint16) if high - low < 65536 else kinds
    order = np.argsort(small, kind="stable")
    ordered = small[order]
    starts = np.concatenate([[0], np.flatnonzero(ordered[1:] != ordered[:-1]) + 1])
    found = kinds[order[starts]].tolist()
    ends = [*starts[1:].tolist(), len(order)]
    for kind, start, end in zip(found, starts.tolist(), ends, strict=True):
        yield kind, order[start:end]
