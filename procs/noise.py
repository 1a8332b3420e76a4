"""Noise and baselines of traces: straight lines, power spectra, what counts as a trace without a pulse.

Spectra here are means of ``|rfft(trace)|**2`` (ADU squared), one value per frequency of the real transform of the
trace's length. White noise of variance v in n points has the flat spectrum n * v.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft

QUANTUM = 1.0 / 12.0  # ADU squared: the variance that an ADC's rounding alone gives; no real spectrum lies below it
LOWEST = 8  # frequencies from which a spectrum is continued to lower ones
ENOUGH = 100  # spectra from fewer traces than this are smoothed over neighbouring frequencies to this many


@dataclass(frozen=True)
class Lines:
    """Straight lines fitted to the traces' pre-trigger points, one per trace."""

    offset: np.ndarray  # ADU, mean of the fitted points
    slope: np.ndarray  # ADU per point
    noise: np.ndarray  # ADU, standard deviation of the points around the line
    centre: float  # the point at which the line passes through ``offset``

    def values(self, length: int) -> np.ndarray:
        """The lines in ``length`` points, shape (traces, length)."""
        return self.offset[:, None] + self.slope[:, None] * (np.arange(length) - self.centre)[None, :]


def lines(traces: np.ndarray, points: int, slope: bool = True) -> Lines:
    """Fit a straight line (or, without ``slope``, a constant) to the first ``points`` points of each trace."""
    region = traces[:, :points].astype(float, copy=False)
    offset = region.mean(axis=1)
    centre = (points - 1) / 2
    ramp = np.arange(points) - centre
    left = region - offset[:, None]
    slopes = left @ ramp / (ramp @ ramp) if slope else np.zeros(len(region))
    square = np.einsum("ij,ij->i", left, left) - slopes**2 * (ramp @ ramp)
    freedom = max(points - (2 if slope else 1), 1)
    return Lines(offset, slopes, np.sqrt(np.clip(square, 0, None) / freedom), centre)


def ramp(length: int) -> np.ndarray:
    """A straight line of slope 1 per point and mean 0."""
    return np.arange(length) - (length - 1) / 2


def power_spectrum(traces: np.ndarray, remove_slope: bool = True) -> np.ndarray:
    """The mean noise power of traces that hold no pulse; shape (length // 2 + 1,).

    A straight line removed from each trace takes a known share of the lowest frequencies' power with it; that share
    (exact for white noise) is put back. Few traces are smoothed over neighbouring frequencies, as a filter made of a
    ragged spectrum would believe the noise's own accidents.
    """
    count, length = traces.shape
    level = traces.astype(float)
    level -= level.mean(axis=1, keepdims=True)
    share = np.ones(length // 2 + 1)
    if remove_slope and length > 2:
        line = ramp(length)
        level -= np.outer(level @ line / (line @ line), line)
        power = np.abs(fft.rfft(line)) ** 2
        share = 1 - power / (length * (line @ line))  # a bin of two degrees of freedom loses part of one
        share[0] = 1.0
    spectrum = np.mean(np.abs(fft.rfft(level, axis=1)) ** 2, axis=0) / share
    if count < ENOUGH:
        spectrum = _smooth(spectrum, -(-ENOUGH // (2 * count)))
    spectrum[1:] = np.maximum(spectrum[1:], length * QUANTUM)
    return spectrum


def _smooth(spectrum: np.ndarray, reach: int) -> np.ndarray:
    """Mean over up to ``reach`` neighbours on both sides, fewer at low frequencies, where spectra are steep."""
    total = np.concatenate([[0.0], np.cumsum(spectrum[1:])])
    index = np.arange(1, len(spectrum))
    width = np.minimum(reach, index // 2)
    width = np.minimum(width, len(spectrum) - 1 - index)
    result = spectrum.copy()
    result[1:] = (total[index + width] - total[index - width - 1]) / (2 * width + 1)
    return result


def stretched(spectrum: np.ndarray, points: int, length: int) -> np.ndarray:
    """The spectrum of traces of ``points`` points as it would be in traces of ``length`` points.

    Between frequencies it is interpolated; below the lowest known one (1 / points) it goes on as the power of the
    frequency that the lowest known ones follow, if it rises, as most detectors' noise does.
    """
    known = np.arange(1, len(spectrum)) / points
    wanted = np.arange(length // 2 + 1) / length
    result = np.interp(wanted, known, spectrum[1:]) * (length / points)
    lowest = np.log(np.arange(1, min(LOWEST, len(spectrum) - 1) + 1))
    if len(lowest) > 2:
        power = float(np.clip(np.polyfit(lowest, np.log(spectrum[1 : len(lowest) + 1]), 1)[0], -2.0, 0.0))
        below = (wanted > 0) & (wanted < known[0])
        result[below] *= (wanted[below] / known[0]) ** power
    return result


def quiet(amplitudes: np.ndarray, sigma: float, cut: float = 3.0) -> np.ndarray:
    """Which traces hold no pulse: those whose fitted amplitude is within ``cut`` sigma of nothing."""
    return np.abs(amplitudes) < cut * sigma
