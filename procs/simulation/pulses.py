"""Pulse shapes, noise and what a DAQ computes of a trace by itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def heat_pulse(times: Floats, rise: float, decay: float) -> Floats:
    """A bolometer's heat pulse: an exponential rise and decay, its highest point 1, 0 before time 0.

    Args:
        times: since the particle, same unit as the constants.
        rise, decay: the two time constants, ``rise`` < ``decay``.
    """
    peak_at = np.log(decay / rise) * rise * decay / (decay - rise)
    height = np.exp(-peak_at / decay) - np.exp(-peak_at / rise)
    after = np.maximum(times, 0.0)
    return (np.exp(-after / decay) - np.exp(-after / rise)) / height


def ionisation_pulse(times: Floats, decay: float) -> Floats:
    """A charge amplifier's answer: a step of height 1 at time 0 that decays exponentially."""
    return np.where(times >= 0.0, np.exp(-np.maximum(times, 0.0) / decay), 0.0)


def noise(rng: np.random.Generator, traces: int, points: int, sigma: float, pink: float = 0.3) -> Floats:
    """Noise traces (traces, points): white, with a part ``pink`` (0 to 1) of the variance falling as 1 / frequency."""
    white = rng.standard_normal((traces, points))
    if pink > 0.0:
        spectrum = np.fft.rfft(rng.standard_normal((traces, points)), axis=1)
        weights = 1.0 / np.sqrt(np.maximum(np.arange(spectrum.shape[1]), 1))
        weights[0] = 0.0  # no offset: the baseline is added apart
        slow = np.fft.irfft(spectrum * weights, points, axis=1)
        slow /= max(float(np.sqrt(np.mean(slow**2))), 1e-30)
        white = np.sqrt(1.0 - pink) * white + np.sqrt(pink) * slow
    return np.asarray(sigma * white)


def digitise(traces: Floats) -> NDArray[np.int16]:
    """Volts to ADU: rounded, and clipped to what 16 bits hold, as a digitiser saturates."""
    return np.clip(np.rint(traces), -32768, 32767).astype(np.int16)


def online_estimates(samples: NDArray[np.int16], pretrigger: int, ms_per_point: float) -> dict[str, Floats]:
    """What the DAQ writes of each trace (traces, points): base, noise, amplitude (ADU), rise and fall (ms).

    Rough, as online: the amplitude is the largest excursion after the trigger; rise and fall are the times from 10 to
    90 % and back to 50 % of it, counted in points.
    """
    values = samples.astype(np.float64)
    before = values[:, : max(pretrigger * 3 // 4, 1)]
    base = before.mean(axis=1)
    moved = values - base[:, None]
    start = min(pretrigger, values.shape[1] - 1)
    peak = start + np.argmax(np.abs(moved[:, start:]), axis=1)
    amplitude = np.take_along_axis(moved, peak[:, None], axis=1)[:, 0]
    scaled = moved / np.where(amplitude == 0.0, 1.0, amplitude)[:, None]
    points = np.arange(values.shape[1])
    rising = (points >= start) & (points <= peak[:, None])
    rise = np.sum(rising & (scaled > 0.1) & (scaled < 0.9), axis=1) + 1.0
    fall = np.sum((points > peak[:, None]) & (scaled > 0.5), axis=1) + 1.0
    return {
        "base": base,
        "noise": before.std(axis=1),
        "amplitude": amplitude,
        "rise": rise * ms_per_point,
        "fall": fall * ms_per_point,
    }
