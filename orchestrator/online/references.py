"""What plots are compared with: histograms of a ROOT file, or of an earlier run's snapshot."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import DataError, SettingsError
from orchestrator.online import rehearsal
from orchestrator.online.configuration import Online, Reference
from orchestrator.online.plot import Plot
from orchestrator.online.rehearsal import Rehearsed
from orchestrator.online.verdict import Verdict, differs, judge


@dataclass(frozen=True)
class Compared:
    """A plot's reference (named for people), scaled to the plot's entries; the ratio of both; and the verdict."""

    name: str
    verdict: Verdict
    scaled: Any = None
    ratio: Any = None


class References:
    """All references of a configuration.

    Args:
        references: as configured; the first whose pattern fits a plot counts.
        folder: the site's, for relative paths.
        runs: folder of the runs' snapshots.
    """

    def __init__(self, references: Sequence[Reference], folder: Path, runs: Path) -> None:
        self._references = tuple(references)
        self._folder = folder
        self._runs = runs
        self._read: dict[tuple[Path, str], Any] = {}

    def of(self, plot: str) -> Reference | None:
        """The reference that is meant for a plot."""
        return next((one for one in self._references if fnmatch.fnmatchcase(plot, one.plots)), None)

    def path(self, reference: Reference) -> Path:
        """The file of a reference, whether there or not."""
        if reference.file is not None:
            return self._folder / reference.file
        from orchestrator.online.snapshot import WHOLE, run_folder

        return run_folder(self._runs, reference.run) / WHOLE

    def histogram(self, reference: Reference, plot: str) -> Any:
        """The reference's histogram for a plot; None where its file has none for it.

        Raises:
            SettingsError: the file is not there or is no ROOT file, or it has none of the name that was configured.
        """
        path, name = self.path(reference), reference.name or plot
        if (path, name) not in self._read:
            found = histograms(path, [glob_safe(name)]).get(name)
            if found is None and reference.name:
                raise SettingsError(f"the reference {path} has no histogram {name!r}: correct `name`, or leave it out")
            self._read[path, name] = found
        return self._read[path, name]

    def compare(self, plot: Plot) -> Compared | None:
        """Compare a plot with its reference; None where it has none. A fault of the reference is said, not raised."""
        reference = self.of(plot.name)
        if reference is None or not plot.comparable:
            return None
        name = f"run {reference.run}" if reference.run else self.path(reference).name
        try:
            found = self.histogram(reference, plot.name)
            if found is None:
                return None
            verdict = judge(
                plot.histogram, found, test=reference.test, warning=reference.warning, bad=reference.bad,
                entries=reference.entries, name=name,
            )  # fmt: skip
        except (SettingsError, DataError) as error:
            return Compared(name, Verdict("none", str(error), reference.test))
        if differs(plot.histogram, found):
            return Compared(name, verdict)
        scaled = _scaled(plot.histogram, found)
        return Compared(name, verdict, scaled, _ratio(plot.histogram, scaled) if scaled is not None else None)


def histograms(path: Path, patterns: Iterable[str]) -> dict[str, Any]:
    """The TH1 and TH2 of a ROOT file whose names fit a pattern. Raises SettingsError for a file that is none."""
    import uproot

    wanted = tuple(patterns)
    try:
        with uproot.open(path, handler=uproot.source.file.MultithreadedFileSource) as file:
            kinds = file.classnames(recursive=True, cycle=False)
            names = [name for name, kind in kinds.items() if kind.startswith(("TH1", "TH2"))]
            fitting = [name for name in names if any(fnmatch.fnmatchcase(name, one) for one in wanted)]
            return {name: file[name].to_hist() for name in fitting}
    except FileNotFoundError:
        raise SettingsError(f"the reference {path} is not there: correct its name, or make it") from None
    except Exception as error:  # damage shows itself in many ways
        said = " ".join(str(error).split())[:200]
        raise SettingsError(f"the reference {path} cannot be read as a ROOT file: {said}") from error


def check(online: Online, folder: Path, runs: Path | None = None) -> None:
    """Refuse references that cannot work, before anything starts.

    What can be known then is compared: that the file or the run is there and has histograms for the pattern, and that
    their bins are those of the plots, where a reducer says of a name what its plot will look like
    (``Reduce.expected``) or has the plot from the start.

    Args:
        online: the configuration.
        folder: the site's.
        runs: folder of the runs' snapshots; by default the site's.

    Raises:
        SettingsError: the first reference that does not fit, in one sentence.
    """
    from orchestrator.online.snapshot import runs_folder

    if not online.references:
        return
    known = References(online.references, folder, runs or runs_folder(folder))
    rehearsed = rehearsal.reducers(online)
    there = {plot.name: plot.histogram for one in rehearsed for plot in one.plots if plot.comparable}
    others = {plot.name for one in rehearsed for plot in one.plots if not plot.comparable}
    for reference in online.references:
        path = known.path(reference)
        if reference.run and not path.is_file():
            raise SettingsError(f"the reference run {reference.run} has no snapshot at {path}: name another run")
        found = histograms(path, [glob_safe(reference.name) if reference.name else reference.plots])
        if not found:
            what = f"no histogram {reference.name!r}" if reference.name else f"no histogram for {reference.plots!r}"
            raise SettingsError(f"the reference {path} has {what}: choose another file, or correct `plots` and `name`")
        if reference.name:  # one for all plots that the pattern means
            meant = [one for one in _possible(rehearsed) if fnmatch.fnmatchcase(one, reference.plots)]
            found = dict.fromkeys([reference.plots, *meant], found[reference.name])
        for plot, histogram in found.items():
            if plot in others or known.of(plot) is not reference:
                continue  # none, or an earlier one, is meant for it
            mine = there.get(plot)
            for one in rehearsed:
                mine = mine if mine is not None else one.module.expected(plot)
            problem = "" if mine is None else differs(mine, histogram)
            if problem:
                raise SettingsError(
                    f"the reference {path} does not fit the plot {plot}: {problem}; choose another reference, or "
                    "change the reducer's settings"
                )


def _possible(rehearsed: Iterable[Rehearsed]) -> list[str]:
    """Names that plots will have; of those that come with their labels, one for all."""
    return sorted({name.replace("*", "any") for one in rehearsed for name in one.names})


def glob_safe(name: str) -> str:
    """A pattern that fits this name and no other."""
    return re.sub(r"([*?[])", r"[\1]", name)


def _scaled(histogram: Any, reference: Any) -> Any:
    """The reference with as many entries as the plot has, for drawing over it; None where one of them is empty."""
    import hist
    import numpy as np

    from orchestrator.online.rootjson import flow_values

    values, variances = flow_values(reference)
    inside = (slice(1, -1),) * values.ndim
    mine, its = flow_values(histogram)[0][inside].sum(), values[inside].sum()
    if not (mine > 0 and its > 0):
        return None
    made = hist.Hist(*_plain(histogram), storage=hist.storage.Weight())
    factor = mine / its
    made.view(flow=True).value = values * factor
    made.view(flow=True).variance = (np.abs(values) if variances is None else variances) * factor**2
    return made


def _ratio(histogram: Any, scaled: Any) -> Any:
    """Plot over reference, bin by bin, with its variance; 0 where the reference is empty."""
    import hist
    import numpy as np

    from orchestrator.online.rootjson import flow_values

    values, variances = flow_values(histogram)
    variances = values if variances is None else variances
    below, below_variance = flow_values(scaled)
    below_variance = np.zeros_like(below) if below_variance is None else below_variance
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(below > 0, values / below, 0.0)
        spread = np.where(below > 0, variances / below**2 + ratio**2 * below_variance / below**2, 0.0)
    made = hist.Hist(*_plain(histogram), storage=hist.storage.Weight())
    made.view(flow=True).value, made.view(flow=True).variance = ratio, spread
    return made


def _plain(histogram: Any) -> list[Any]:
    """Axes with the same bins as the histogram's and with under- and overflow, whatever theirs have."""
    import hist

    return [
        hist.axis.Variable(axis.edges, label=axis.label)
        if type(axis).__name__ == "Variable"
        else hist.axis.Regular(len(axis), axis.edges[0], axis.edges[-1], label=axis.label)
        for axis in histogram.axes
    ]
