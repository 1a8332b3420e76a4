"""Two ways to an amplitude: the optimal (matched) filter and the trapezoidal filter.

Both take many traces of one channel at once, shape (traces, points) in ADU, and give amplitudes in ADU at the pulse's
peak, at the trigger's place (``fixed``, which is unbiased whatever the amplitude) and at the best place within a search
window. Everything that depends only on the template and the noise is computed once, at construction.

Optimal filter: the least-squares fit of ``amplitude * template + offset + slope * line`` with the weights 1 / noise
power in the frequency domain (E. Gatti and P. F. Manfredi, Riv. Nuovo Cim. 9 (1986) 1). Offset costs nothing there (the
zero frequency is left out); the line is fitted along with the pulse. Trapezoidal filter: pole-zero correction by the
decay constant turns a pulse into a step, and the difference of two running means makes a flat-topped trapezoid of it
(V. T. Jordanov and G. F. Knoll, Nucl. Instr. Meth. A 345 (1994) 337).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import fft

from procs.noise import ramp


@dataclass(frozen=True)
class Estimate:
    """One method's answer for a batch of traces; arrays of shape (traces,), sigma is one number for all."""

    amplitude: np.ndarray  # ADU, at the best place
    fixed: np.ndarray  # ADU, at the trigger's place
    shift: np.ndarray  # points from the trigger's place to the best place
    sigma: float  # ADU, standard deviation that the noise alone gives ``fixed``


@dataclass(frozen=True)
class Batch:
    """What the optimal filter knows about a batch: enough for the chi2 of any amplitude at any place."""

    total: np.ndarray  # (traces,) weighted square of each trace
    overlap: np.ndarray  # (traces, points) weighted product of trace and template, by shift


class OptimalFilter:
    """The optimal filter of one template and one noise spectrum.

    Args:
        template: pulse of peak 1 that begins at the trigger's place, shape (points,).
        spectrum: noise power, shape (points // 2 + 1,), as from :func:`procs.noise.power_spectrum`.
        search: how many points to both sides the best place is looked for.
        remove_slope: fit a straight line along with the pulse.
        polarity: ``both``, ``positive`` or ``negative``: which sign the best place may have.
    """

    def __init__(
        self,
        template: np.ndarray,
        spectrum: np.ndarray,
        *,
        search: int = 0,
        remove_slope: bool = True,
        polarity: str = "both",
    ) -> None:
        self.length = len(template)
        self._weight = np.zeros(self.length // 2 + 1)
        self._weight[1:] = 1 / spectrum[1:]
        # In the real transform every frequency but the last of an even length stands for two.
        self._double = 2 * self._weight
        if self.length % 2 == 0:
            self._double[-1] = self._weight[-1]
        shape = fft.rfft(template)
        self._kernel = np.conj(shape) * self._weight
        self._norm = float(np.sum(self._double * np.abs(shape) ** 2))
        if not self._norm > 0:
            raise ValueError("the template has no power above the zero frequency")
        line = fft.rfft(ramp(self.length))
        self._line = np.conj(line) * self._double
        self._line_norm = float(np.sum(self._double * np.abs(line) ** 2)) if remove_slope else math.inf
        self._mixed = self.length * fft.irfft(line * self._kernel, self.length)  # line times template, by shift
        self._power = self._norm - self._mixed**2 / self._line_norm
        self._polarity = polarity
        self.search = min(search, (self.length - 1) // 2)
        self.sigma = 1 / math.sqrt(self._power[0])
        self.freedom = self.length - 1 - (2 if remove_slope else 1)

    def estimate(self, traces: np.ndarray) -> tuple[Estimate, Batch]:
        """Amplitudes of all traces, and what :meth:`chi2` needs."""
        transform = fft.rfft(traces, axis=1)
        total = np.abs(transform) ** 2 @ self._double
        along = (transform @ self._line).real if math.isfinite(self._line_norm) else np.zeros(len(traces))
        overlap = self.length * fft.irfft(transform * self._kernel, self.length, axis=1)
        if math.isfinite(self._line_norm):
            total = total - along**2 / self._line_norm
            overlap -= np.outer(along / self._line_norm, self._mixed)
        fixed = overlap[:, 0] / self._power[0]
        if not self.search:
            return Estimate(fixed, fixed, np.zeros(len(traces)), self.sigma), Batch(total, overlap)

        places = np.arange(-self.search, self.search + 1)
        heights = overlap[:, places] / self._power[places]
        gain = heights * np.abs(heights) * self._power[places]  # what the fit gains there, with the amplitude's sign
        best = np.argmax(_signed(gain, self._polarity), axis=1)
        rows = np.arange(len(traces))
        middle = np.clip(best, 1, len(places) - 2)
        left, top, right = (heights[rows, middle + step] for step in (-1, 0, 1))
        curve = left - 2 * top + right
        with np.errstate(divide="ignore", invalid="ignore"):
            between = np.where(curve != 0, 0.5 * (left - right) / curve, 0.0)
        inner = (best == middle) & (np.abs(between) <= 0.5)
        between = np.where(inner, between, 0.0)
        amplitude = np.where(inner, top - 0.25 * (left - right) * between, heights[rows, best])
        return Estimate(amplitude, fixed, places[best] + between, self.sigma), Batch(total, overlap)

    def chi2(self, batch: Batch, amplitude: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """Chi square per degree of freedom of the pulse ``amplitude`` at ``shift`` (rounded to whole points)."""
        place = np.rint(shift).astype(int) % self.length
        overlap = batch.overlap[np.arange(len(place)), place]
        left = batch.total - 2 * amplitude * overlap + amplitude**2 * self._power[place]
        return np.clip(left, 0, None) / self.freedom


class TrapezoidalFilter:
    """The trapezoidal filter of one channel, corrected for its decay constant and its pulse's finite rise.

    Args:
        template: pulse of peak 1 beginning at ``onset``, shape (points,): it calibrates the filter's answer.
        onset: the trigger's place, in points.
        decay: the decay constant, in points.
        rise: length of each running mean, in points.
        gap: length of the flat top, in points; longer than the pulse's rise.
        baseline: how many points from the start are free of the pulse.
        spectrum: noise power, for sigma.
    """

    def __init__(
        self,
        template: np.ndarray,
        spectrum: np.ndarray,
        *,
        onset: int,
        decay: float,
        rise: int,
        gap: int,
        baseline: int,
        search: int = 0,
        remove_slope: bool = True,
        polarity: str = "both",
    ) -> None:
        self.length, self.onset = len(template), onset
        self.rise = max(1, min(rise, onset, (self.length - onset - 1) // 2))
        self.gap = max(0, min(gap, self.length - onset - self.rise - 1))
        self.baseline, self._slope, self._polarity = baseline, remove_slope, polarity
        self._pole = math.exp(-1 / decay)
        self.pick = onset + self.rise + self.gap  # where the later mean begins when the flat top is over
        self.search = max(0, min(search, self.length - self.pick, onset - self.rise))
        answer = self._shape(template[None, :])[0]
        self.response = float(answer[self.pick])
        if not self.response > 0:
            raise ValueError("the trapezoidal filter does not answer to the template")
        self._edge = float(_crossing(answer[None, :] / self.response, np.array([self.pick]))[0])
        weights = self._functional() / self.response
        power = np.abs(fft.rfft(weights)) ** 2
        count = np.full(len(power), 2.0)
        if self.length % 2 == 0:
            count[-1] = 1.0
        count[0] = 0.0  # the functional does not see a constant
        self.sigma = float(np.sqrt(np.sum(count * power * spectrum))) / self.length
        self._weights = weights

    def estimate(self, traces: np.ndarray) -> Estimate:
        """Amplitudes of all traces; the best place is where the trapezoid's edge crosses half its height."""
        fixed = traces @ self._weights
        if not self.search:
            return Estimate(fixed, fixed, np.zeros(len(traces)), self.sigma)
        answer = self._shape(self._level(traces)) / self.response
        window = answer[:, self.pick - self.search : self.pick + self.search + 1]
        top = np.argmax(_signed(window, self._polarity), axis=1) + self.pick - self.search
        rows = np.arange(len(traces))
        height = answer[rows, top]
        with np.errstate(divide="ignore", invalid="ignore"):
            edge = _crossing(answer / np.where(height != 0, height, np.nan)[:, None], top)
        shift = np.nan_to_num(np.clip(edge - self._edge, -self.search, self.search), nan=0.0)
        return Estimate(answer[rows, self.pick + np.rint(shift).astype(int)], fixed, shift, self.sigma)

    def _level(self, traces: np.ndarray) -> np.ndarray:
        points = np.arange(self.baseline)
        centre = (self.baseline - 1) / 2
        region = traces[:, : self.baseline]
        level = traces - region.mean(axis=1)[:, None]
        if self._slope:
            line = points - centre
            level -= np.outer(region @ line / (line @ line), np.arange(self.length) - centre)
        return level

    def _shape(self, level: np.ndarray) -> np.ndarray:
        """The trapezoid at every point; point n compares the mean of [n - rise, n) with the earlier one's."""
        total = np.cumsum(level, axis=1)
        step = level.copy()
        step[:, 1:] += (1 - self._pole) * total[:, :-1]
        area = np.concatenate([np.zeros((len(step), 1)), np.cumsum(step, axis=1)], axis=1)
        first, late = 2 * self.rise + self.gap, self.rise + self.gap
        result = np.zeros((len(level), self.length + 1))
        result[:, first:] = (
            area[:, first:]
            - area[:, first - self.rise : -self.rise]
            - area[:, self.rise : self.length + 1 - late]
            + area[:, : self.length + 1 - first]
        ) / self.rise
        return result

    def _functional(self) -> np.ndarray:
        """The weights w with ``trace @ w`` = the unscaled trapezoid at the trigger's place."""
        weights = np.zeros(self.length)
        weights[self.pick - self.rise : self.pick] = 1 / self.rise
        early = self.pick - self.rise - self.gap
        weights[early - self.rise : early] -= 1 / self.rise
        after = np.cumsum(weights[::-1])[::-1]
        weights[:-1] += (1 - self._pole) * after[1:]
        points = np.arange(self.length)
        pre = points < self.baseline
        sums = weights.sum()
        if self._slope:
            line = points - (self.baseline - 1) / 2
            inner = line[pre]
            weights[pre] -= (weights @ line) * inner / (inner @ inner)
        weights[pre] -= sums / self.baseline
        return weights


def _signed(values: np.ndarray, polarity: str) -> np.ndarray:
    return np.abs(values) if polarity == "both" else values if polarity == "positive" else -values


def _crossing(scaled: np.ndarray, start: np.ndarray, level: float = 0.5) -> np.ndarray:
    """Where each row, walked back from ``start``, last lies below ``level``: between two points, nan if nowhere."""
    columns = np.arange(scaled.shape[1])
    below = (scaled < level) & (columns[None, :] <= start[:, None])
    last = scaled.shape[1] - 1 - np.argmax(below[:, ::-1], axis=1)
    found = below.any(axis=1) & (last < scaled.shape[1] - 1)
    rows = np.arange(len(scaled))
    low = scaled[rows, last]
    high = scaled[rows, np.minimum(last + 1, scaled.shape[1] - 1)]
    with np.errstate(divide="ignore", invalid="ignore"):
        part = (level - low) / (high - low)
    return np.where(found, last + part, np.nan)


def rise_time(level: np.ndarray, amplitude: np.ndarray, peak: np.ndarray) -> np.ndarray:
    """Points from 10 % to 90 % of the amplitude, walking back from the peak; nan where the trace does not cross.

    Args:
        level: traces without their baseline, shape (traces, points).
        amplitude: ADU, shape (traces,).
        peak: the point of each pulse's peak, shape (traces,).
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = level / np.where(amplitude != 0, amplitude, np.nan)[:, None]
    start = np.clip(np.rint(peak).astype(int), 0, level.shape[1] - 1)
    high = _crossing(scaled, start, 0.9)
    begin = np.nan_to_num(np.floor(high), nan=0).astype(int)
    return np.where(np.isfinite(high), high - _crossing(scaled, begin, 0.1), np.nan)
