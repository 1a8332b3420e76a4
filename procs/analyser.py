"""All numbers of a pulse, by both methods, for many traces of one channel at once.

An :class:`Analyser` belongs to one channel with one trace length. Its expensive parts (the sampled template, the noise
spectra, the filters' kernels) are made once; :meth:`Analyser.analyse` is then a handful of vectorised operations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from procs.filters import OptimalFilter, TrapezoidalFilter, rise_time
from procs.noise import ENOUGH, lines, power_spectrum, quiet, stretched
from procs.templates import Template, sampled

LEAST_POINTS = 64  # a shorter trace has too few frequencies for a noise spectrum
LEAST_PRETRIGGER = 16  # fewer points before the trigger say nothing about the baseline
LEAST_QUIET = 10  # traces without a pulse, from which on their spectrum is better than the baselines'
MOST_ROUNDS = 5  # choices of traces without a pulse; two or three do
LEAST_PULSES = 20  # pulses, from which on their average is a template
BRIGHT = 20.0  # sigma; what counts as a pulse for the average

#: Column, unit, meaning: one row of the tree ``amplitudes`` per pulse, beside event, channel and trace.
COLUMNS: dict[str, str] = {
    "baseline": "ADU, mean of the points before the trigger: the offset that was removed",
    "slope": "ADU per ms, of the straight line before the trigger: the slope that was removed",
    "noise": "ADU, standard deviation before the trigger, around that line",
    "rise_ms": "ms from 10 % to 90 % of the optimal filter's amplitude",
    **{
        f"{method}_{name}": text
        for method, words in (("optimal", "optimal filter"), ("trapezoid", "trapezoidal filter"))
        for name, text in {
            "amplitude": f"ADU, {words}, at the best place",
            "fixed": f"ADU, {words}, at the trigger's place",
            "sigma": f"ADU, {words}: what the noise gives the fixed amplitude",
            "peak": f"points from the trace's start to the pulse's peak, {words}",
            "chi2": f"per degree of freedom, of the template with the {words}'s amplitude",
            "baseline_amplitude": f"ADU, {words} on the region before the trigger, where there is no pulse",
            "baseline_sigma": f"ADU, {words}: what the noise gives that amplitude",
            "baseline_peak": f"points, where a pulse's peak was assumed there, {words}",
            "baseline_chi2": f"per degree of freedom, {words}, of the region before the trigger",
        }.items()
    },
}


@dataclass(frozen=True)
class Recipe:
    """The settings of the analysis that are the same for all channels."""

    remove_slope: bool = True
    search: float = 0.02  # of the trace's length, to both sides of the trigger
    trapezoid_rise: float = 0.0  # ms; 0: a sixth of the points after the trigger
    trapezoid_gap: float = 0.0  # ms; 0: twice the template's time to peak
    template: str = "database"  # or "average": of the file's own bright pulses


class Analyser:
    """Analyses traces of one channel and one length.

    Args:
        template: from the template database.
        sample: traces of this channel and length for the noise, shape (traces, points), ADU.
        onset: the trigger's place, points from the trace's start.
        ms_per_point: milliseconds between two points.
        recipe: see :class:`Recipe`.

    Raises:
        ValueError: the traces cannot be analysed; the message says why.
    """

    def __init__(
        self, template: Template, sample: np.ndarray, onset: int, ms_per_point: float, recipe: Recipe
    ) -> None:
        self.length, self.onset, self.ms_per_point, self.recipe = sample.shape[1], onset, ms_per_point, recipe
        if self.length < LEAST_POINTS:
            raise ValueError(f"traces of {self.length} points are too short (at least {LEAST_POINTS})")
        if not LEAST_PRETRIGGER <= onset <= self.length - LEAST_PRETRIGGER:
            raise ValueError(f"the trigger at point {onset} of {self.length} leaves no baseline or no pulse")
        if not ms_per_point > 0:
            raise ValueError(f"the time between points is {ms_per_point} ms")
        self.template = template
        guard = max(2, onset // 50)  # points before the trigger that an early pulse may reach
        self.baseline = onset - guard
        self.inner_onset = self.baseline * onset // self.length
        sample = sample.astype(float)
        self.inner_spectrum = power_spectrum(sample[:, : self.baseline], recipe.remove_slope)
        self.spectrum = stretched(self.inner_spectrum, self.baseline, self.length)
        self.noise_source = f"the points before the trigger of {len(sample)} traces"
        self._build()
        self._refine_noise(sample)
        if recipe.template == "average":
            self._average(sample)

    def _refine_noise(self, sample: np.ndarray) -> None:
        """Take the spectrum of whole traces if enough of them hold no pulse: it knows the low frequencies too.

        Repeated, because a spectrum with too little power makes sigma too small, and a cut at too few sigma chooses the
        quietest traces only.
        """
        count = 0
        for _ in range(MOST_ROUNDS):
            estimate, _batch = self.optimal.estimate(sample)
            at_best = quiet(estimate.amplitude, self.optimal.sigma, 5.0)
            chosen = quiet(estimate.fixed, self.optimal.sigma) & at_best
            if int(chosen.sum()) < LEAST_QUIET or int(chosen.sum()) == count:
                break
            count = int(chosen.sum())
            self.spectrum = power_spectrum(sample[chosen], self.recipe.remove_slope)
            self.noise_source = f"{count} traces without a pulse"
            self._build()

    def _average(self, sample: np.ndarray) -> None:
        """Replace the template by the mean of bright pulses, each moved to the trigger's place and scaled to 1."""
        estimate, _ = self.optimal.estimate(sample)
        bright = np.abs(estimate.amplitude) > BRIGHT * self.optimal.sigma
        bright &= (sample.max(axis=1) < 32767) & (sample.min(axis=1) > -32768)
        count = int(bright.sum())
        if count < LEAST_PULSES:
            reason = f"only {count} bright pulses (at least {LEAST_PULSES}) for an average: the database's template"
            self.template = replace(self.template, fallback="; ".join(filter(None, [self.template.fallback, reason])))
            return
        level = self.level(sample[bright])[0] / estimate.amplitude[bright][:, None]
        moved = np.zeros(self.length)
        points = np.arange(self.length)
        for row, shift in zip(level, estimate.shift[bright], strict=True):
            moved += np.interp(points + shift, points, row)
        shape = moved[self.onset :] / count
        shape = shape / np.max(np.abs(shape)) * np.sign(shape[np.argmax(np.abs(shape))])
        source = f"average of {count} pulses of this file"
        self.template = replace(
            self.template, samples=tuple(shape.tolist()), sample_ms=self.ms_per_point, source=source, fallback=""
        )
        self._build()

    def _build(self) -> None:
        recipe, template, ms = self.recipe, self.template, self.ms_per_point
        search = max(3, round(recipe.search * self.length)) if recipe.search > 0 else 0
        self.optimal, self.trapezoid = self._filters(self.length, self.onset, self.baseline, self.spectrum, search)
        self.inner_optimal, self.inner_trapezoid = self._filters(
            self.baseline, self.inner_onset, self.inner_onset, self.inner_spectrum, 0
        )
        self.peak = template.peak_ms / ms

    def _filters(
        self, length: int, onset: int, baseline: int, spectrum: np.ndarray, search: int
    ) -> tuple[OptimalFilter, TrapezoidalFilter]:
        recipe, template, ms = self.recipe, self.template, self.ms_per_point
        pulse = sampled(template, length, float(onset), ms)
        optimal = OptimalFilter(
            pulse, spectrum, search=search, remove_slope=recipe.remove_slope, polarity=template.polarity
        )
        room = length - onset
        rise = recipe.trapezoid_rise / ms if recipe.trapezoid_rise > 0 else room / 6
        gap = recipe.trapezoid_gap / ms if recipe.trapezoid_gap > 0 else 2 * template.peak_ms / ms
        trapezoid = TrapezoidalFilter(
            pulse,
            spectrum,
            onset=onset,
            decay=template.decay_ms / ms,
            rise=round(rise),
            gap=min(max(2, round(gap)), room // 2),
            baseline=max(2, baseline),
            search=search,
            remove_slope=recipe.remove_slope,
            polarity=template.polarity,
        )
        return optimal, trapezoid

    def level(self, traces: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Traces without the straight line of their pre-trigger points, and that line's numbers."""
        fitted = lines(traces, self.baseline, self.recipe.remove_slope)
        numbers = {
            "baseline": fitted.offset,
            "slope": fitted.slope / self.ms_per_point,
            "noise": fitted.noise,
        }
        return traces - fitted.values(self.length), numbers

    def analyse(self, traces: np.ndarray) -> dict[str, np.ndarray]:
        """Every column of :data:`COLUMNS`, each of shape (traces,), float32 but for nothing: all are float64 here.

        Args:
            traces: ADU, shape (traces, points) of the analyser's length.
        """
        traces = traces.astype(float)
        level, result = self.level(traces)
        optimal, batch = self.optimal.estimate(traces)
        trapezoid = self.trapezoid.estimate(traces)
        inner = traces[:, : self.baseline]
        inner_optimal, inner_batch = self.inner_optimal.estimate(inner)
        inner_trapezoid = self.inner_trapezoid.estimate(inner)
        start = self.onset + self.peak
        result["rise_ms"] = rise_time(level, optimal.amplitude, start + optimal.shift) * self.ms_per_point
        for method, signal, region in (
            ("optimal", optimal, inner_optimal),
            ("trapezoid", trapezoid, inner_trapezoid),
        ):
            shape = np.ones(len(traces))
            result[f"{method}_amplitude"] = signal.amplitude
            result[f"{method}_fixed"] = signal.fixed
            result[f"{method}_sigma"] = shape * signal.sigma
            result[f"{method}_peak"] = start + signal.shift
            result[f"{method}_chi2"] = self.optimal.chi2(batch, signal.amplitude, signal.shift)
            result[f"{method}_baseline_amplitude"] = region.amplitude
            result[f"{method}_baseline_sigma"] = shape * region.sigma
            result[f"{method}_baseline_peak"] = shape * (self.inner_onset + self.peak)
            result[f"{method}_baseline_chi2"] = self.inner_optimal.chi2(inner_batch, region.amplitude, region.shift)
        return result

    def said(self) -> dict[str, Any]:
        """What the step's result says about this channel's analysis."""
        return {
            **self.template.said(),
            "noise": self.noise_source,
            "points": self.length,
            "pretrigger": self.onset,
            "ms_per_point": self.ms_per_point,
            "optimal_sigma": self.optimal.sigma,
            "trapezoid_sigma": self.trapezoid.sigma,
            "spectrum_smoothed": self.noise_source.split()[0].isdigit()
            and int(self.noise_source.split()[0]) < ENOUGH,
        }
