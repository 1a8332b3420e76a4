"""Pulses of any format: amplitudes, baselines and noise by channel, and the traces themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import hist
import numpy as np

from orchestrator.errors import DataError
from orchestrator.online.plot import Plot
from orchestrator.online.spill import Spill
from procs.online.reducers.base import Family, Histograms, by_kind, regular, wanted

NEEDS = "put Waveforms or Pulses of procs.online.maps under `map`"
SHOWN = 64  # channels side by side in one plot


def _by_channel(part: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """The name of each channel that has entries, and their places."""
    names = list(part["names"])
    for channel, members in by_kind(np.asarray(part["channel"])):
        if not 0 <= channel < len(names):
            raise DataError(f"a pulse names the channel {channel}, but there are {len(names)}")
        yield str(names[channel]), members


class _SideBySide(Histograms):
    """Adds plots of all channels side by side: ``overviews`` names the family, the plot and its title."""

    overviews: ClassVar[Mapping[str, tuple[str, str]]] = {}

    def _plots(self) -> Iterator[Plot]:
        """Those of all channels, then those of each."""
        families = {family.name: family for family in self.families}
        for name, (shown, title) in self.overviews.items():
            held = self._held[name]
            labels = sorted(held)[:SHOWN]
            if not labels:
                continue
            first = held[labels[0]].axes[0]
            plane = hist.Hist(
                hist.axis.StrCategory(labels, label="channel"),
                hist.axis.Regular(len(first), first.edges[0], first.edges[-1], label=first.label),
                storage=hist.storage.Int64(),
            )
            plane.view(flow=True)[: len(labels)] = [held[label].view(flow=True) for label in labels]
            family = families[name]
            yield Plot(
                shown, title, plane, family.description, (*family.keywords, "all channels"), family.help,
                {"draw": "colz", "logz": True},
            )  # fmt: skip
        yield from super()._plots()


class PulseAmplitude(_SideBySide):
    """How large the pulses of each channel are."""

    defaults: ClassVar = {"bins": 600, "low": -2000.0, "high": 10000.0}
    settings_help: ClassVar = {
        "bins": "bins of each axis",
        "low": "smallest amplitude that is shown, ADU",
        "high": "largest amplitude that is shown, ADU",
    }
    families = (
        Family(
            "amplitude/channel", "Pulse amplitude, {label}",
            lambda s: [regular(s["bins"], s["low"], s["high"], "amplitude [ADU]")],
            "Amplitudes of the pulses of a channel.",
            "The lines of the source, or the minimum-ionising peak, where the reference has them. Lines that have "
            "moved are a gain or a bias that has changed; only noise around 0 is a channel without signal.",
            ("pulse", "amplitude", "energy"), {"logy": True},
        ),
    )  # fmt: skip
    overviews: ClassVar = {"amplitude/channel": ("amplitude/all", "Pulse amplitudes of all channels")}

    def process(self, spill: Spill) -> None:
        """Needs ``data["pulses"]``."""
        pulses = wanted(spill.data, "pulses", "PulseAmplitude", NEEDS)
        for name, members in _by_channel(pulses):
            values = pulses["amplitude"][members]
            self.fill("amplitude/channel", name, values[np.isfinite(values)])


class BaselineNoise(_SideBySide):
    """Where the baseline of each channel is, and how much it moves."""

    defaults: ClassVar = {"bins": 400, "low": -4000.0, "high": 16000.0, "noise": 100.0}
    settings_help: ClassVar = {
        "bins": "bins of each axis",
        "low": "lowest baseline that is shown, ADU",
        "high": "highest baseline that is shown, ADU",
        "noise": "ADU: the largest noise that is shown",
    }
    families = (
        Family(
            "baseline/channel", "Baseline, {label}",
            lambda s: [regular(s["bins"], s["low"], s["high"], "baseline [ADU]")],
            "Mean of the points before the trigger.",
            "A narrow peak at the usual place. A wide one is a baseline that drifts; at the end of the range the "
            "channel is saturated.",
            ("baseline", "channel"),
        ),
        Family(
            "noise/channel", "Noise, {label}",
            lambda s: [regular(s["bins"], 0, s["noise"], "noise [ADU]")],
            "Standard deviation of the points before the trigger.",
            "A peak where the reference has it. Larger: pick-up, a pump, a light; 0: a channel that is dead.",
            ("noise", "channel"),
        ),
    )  # fmt: skip
    overviews: ClassVar = {
        "baseline/channel": ("baseline/all", "Baselines of all channels"),
        "noise/channel": ("noise/all", "Noise of all channels"),
    }

    def process(self, spill: Spill) -> None:
        """Needs ``data["pulses"]``."""
        pulses = wanted(spill.data, "pulses", "BaselineNoise", NEEDS)
        for name, members in _by_channel(pulses):
            for family, column in (("baseline/channel", "baseline"), ("noise/channel", "noise")):
                values = pulses[column][members]
                self.fill(family, name, values[np.isfinite(values)])


class TracePersistence(Histograms):
    """Traces of each channel laid over each other, as on an oscilloscope with a long afterglow."""

    defaults: ClassVar = {"points": 1024, "columns": 128, "low": -500.0, "high": 4000.0, "rows": 150}
    settings_help: ClassVar = {
        "points": "points of a trace that are shown",
        "columns": "bins of the points",
        "low": "lowest sample that is shown, ADU above the mean of the trace's first eighth",
        "high": "highest sample that is shown, ADU above it",
        "rows": "bins of the samples",
    }
    families = (
        Family(
            "traces", "Traces, {label}",
            lambda s: [
                regular(s["columns"], 0, s["points"], "point"),
                regular(s["rows"], s["low"], s["high"], "sample - baseline [ADU]"),
            ],
            "Traces of a channel, one over the other, without their baselines.",
            "The usual pulse shape over a narrow band. A second band is pile-up or another trigger time; a band "
            "without pulses a channel without signal; a flat top is saturation.",
            ("trace", "pulse", "shape"), {"draw": "colz", "logz": True},
        ),
    )  # fmt: skip

    def process(self, spill: Spill) -> None:
        """Needs ``data["traces"]``."""
        traces = wanted(spill.data, "traces", "TracePersistence", NEEDS)
        lengths = np.asarray(traces["lengths"], dtype=np.int64)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        if starts[-1] != len(traces["samples"]):
            raise DataError(f"the traces have {starts[-1]} points in all and {len(traces['samples'])} samples")
        for name, members in _by_channel(traces):
            for points in np.unique(lengths[members]).tolist():
                mine = members[lengths[members] == points]
                samples = traces["samples"][starts[mine][:, None] + np.arange(points)].astype(float)
                level = samples - samples[:, : max(1, points // 8)].mean(axis=1)[:, None]
                self.fill("traces", name, np.tile(np.arange(points) + 0.5, len(mine)), level.ravel())
