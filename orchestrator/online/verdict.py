"""Whether a plot looks like its reference: a probability, and what follows from it.

Both tests ask how probable a difference as large as the one seen is if both histograms came from one distribution;
only shapes are compared, as a run and its reference have different numbers of entries.

Kolmogorov-Smirnov, for one axis: the largest distance D of the two cumulated distributions, inside the range; with the
effective numbers of entries n and m, the probability is Q(sqrt(n m / (n + m)) D) with
Q(z) = 2 sum (-1)^(j-1) exp(-2 j^2 z^2) (W. T. Eadie et al., Statistical Methods in Experimental Physics, 1971, section
11.4.2). For binned data it comes out too large rather than too small: it warns too late rather than too early.

Chi-squared, for one or two axes: two unweighted histograms, with N and M entries in all, n_i and m_i in bin i, give
sum (N m_i - M n_i)^2 / (n_i + m_i) / (N M), with weights the form with variances; one degree of freedom less than bins
that are not empty in both (N. D. Gagunashvili, Nucl. Instr. Meth. A 614 (2010) 287). Neighbouring bins are joined until
each has at least five entries in both together, since the formula needs that.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from orchestrator.errors import DataError
from orchestrator.online.rootjson import flow_values

LEAST = 5.0  # entries of a bin in the chi-squared test, in both together: the usual rule
EDGES = 1e-6  # of a bin's width, by which edges may differ and be the same: single precision in old ROOT files
TERMS = 100  # of the series; it has converged long before


@dataclass(frozen=True)
class Verdict:
    """``quality`` is one of ``plot.QUALITIES``; ``sentence`` says it for people. ``probability`` None: no test made."""

    quality: str
    sentence: str
    test: str = ""
    probability: float | None = None
    distance: float | None = None  # D, or chi-squared per degree of freedom
    warning: float | None = None
    bad: float | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def judge(
    histogram: Any,
    reference: Any,
    *,
    test: str,
    warning: float,
    bad: float,
    entries: float,
    name: str = "the reference",
) -> Verdict:
    """Compare a histogram with its reference.

    Args:
        histogram, reference: counting histograms of the same axes (see :func:`differs`).
        test: ``ks`` or ``chi2``; of two axes it is always ``chi2``.
        warning, bad: probabilities below which it is a warning, or bad.
        entries: with fewer entries than that there is no verdict.
        name: what the sentence calls the reference.
    """
    problem = differs(histogram, reference)
    if problem:
        return Verdict("none", f"cannot be compared with {name}: {problem}", test)
    one, one_variance = _inner(histogram)
    two, two_variance = _inner(reference)
    if one.sum() < entries:
        return Verdict("none", f"no verdict with fewer than {entries:g} entries (there are {one.sum():g})", test)
    if not two.sum() > 0:
        return Verdict("none", f"{name} is empty", test)
    if one.sum() <= 0:
        return Verdict("none", "no entries", test)
    if one.ndim > 1:
        test = "chi2"  # bins of a plane have no order along which they could be cumulated
    if test == "ks":
        probability, distance = kolmogorov(one, two, one_variance, two_variance)
        words = f"largest distance {distance:.3g}"
    else:
        probability, distance = chi_squared(one, two, one_variance, two_variance)
        words = f"chi-squared per degree of freedom {distance:.3g}"
    quality = "bad" if probability < bad else "warning" if probability < warning else "good"
    threshold = {"bad": f", below {bad:g}", "warning": f", below {warning:g}", "good": ""}[quality]
    sentence = f"{quality}: probability {probability:.3g}{threshold} ({_NAMES[test]} with {name}, {words})"
    return Verdict(quality, sentence, test, float(probability), float(distance), warning, bad)


_NAMES = {"ks": "Kolmogorov-Smirnov", "chi2": "chi-squared"}


def differs(histogram: Any, reference: Any) -> str:
    """Why two histograms cannot be compared, in words; empty if they can."""
    if len(histogram.axes) != len(reference.axes):
        return f"it has {len(reference.axes)} axes, the plot has {len(histogram.axes)}"
    for number, (mine, other) in enumerate(zip(histogram.axes, reference.axes, strict=True)):
        which = "" if len(histogram.axes) == 1 else f" on the {'xy'[number]} axis"
        if len(mine) != len(other):
            return f"it has {len(other)} bins{which}, the plot has {len(mine)}"
        ours, theirs = (np.asarray(axis.edges, dtype=float) for axis in (mine, other))
        if np.any(np.abs(ours - theirs) > EDGES * np.max(np.diff(ours))):
            said = [f"from {edges[0]:g} to {edges[-1]:g}" for edges in (theirs, ours)]
            return f"its bins go {said[0]}{which}, the plot's {said[1]}"
    return ""


def kolmogorov(
    one: np.ndarray, two: np.ndarray, one_variance: np.ndarray | None = None, two_variance: np.ndarray | None = None
) -> tuple[float, float]:
    """Probability and D of the Kolmogorov-Smirnov test of two histograms with one axis."""
    first, second = np.cumsum(one) / one.sum(), np.cumsum(two) / two.sum()
    distance = float(np.max(np.abs(first - second)))
    n, m = _effective(one, one_variance), _effective(two, two_variance)
    return _survival(math.sqrt(n * m / (n + m)) * distance), distance


def chi_squared(
    one: np.ndarray, two: np.ndarray, one_variance: np.ndarray | None = None, two_variance: np.ndarray | None = None
) -> tuple[float, float]:
    """Probability and chi-squared per degree of freedom. Raises DataError for counts below zero."""
    from scipy.stats import chi2  # it takes a while, and only those who judge need it

    if one.min() < 0 or two.min() < 0:
        raise DataError("a histogram with counts below zero cannot be compared by chi-squared")
    parts = [one, two, one if one_variance is None else one_variance, two if two_variance is None else two_variance]
    first, second, first_variance, second_variance = _joined([np.asarray(part, dtype=float).ravel() for part in parts])
    total, other = first.sum(), second.sum()
    # With unit weights this is the formula above: then the variances are the counts.
    if one_variance is None and two_variance is None:
        terms = (total * second - other * first) ** 2 / (first + second) / (total * other)
    else:
        terms = (first / total - second / other) ** 2 / (first_variance / total**2 + second_variance / other**2)
    degrees = len(terms) - 1
    if degrees < 1:
        return 1.0, 0.0
    value = float(terms.sum())
    return float(chi2.sf(value, degrees)), value / degrees


def _inner(histogram: Any) -> tuple[np.ndarray, np.ndarray | None]:
    values, variances = flow_values(histogram)
    inside = (slice(1, -1),) * values.ndim
    return values[inside], None if variances is None else variances[inside]


def _effective(values: np.ndarray, variances: np.ndarray | None) -> float:
    total = float(values.sum())
    squares = total if variances is None else float(variances.sum())
    return total * total / squares if squares > 0 else total


def _survival(z: float) -> float:
    if z < 0.2:
        return 1.0  # 1 to better than 1e-12, where the series converges slowly
    total = 0.0
    for j in range(1, TERMS + 1):
        term = math.exp(-2.0 * j * j * z * z)
        total += term if j % 2 else -term
        if term < 1e-12 * abs(total):
            break
    return min(1.0, max(0.0, 2.0 * total))


def _joined(parts: list[np.ndarray]) -> list[np.ndarray]:
    """Neighbouring bins added up until each holds enough in both histograms together; the rest goes to the last."""
    both = parts[0] + parts[1]
    groups = np.zeros(len(both), dtype=np.int64)
    group, held = 0, 0.0
    for place, value in enumerate(both.tolist()):
        groups[place] = group
        held += value
        if held >= LEAST:
            group, held = group + 1, 0.0
    if held < LEAST and group:
        groups[groups == group] = group - 1
    return [np.bincount(groups, part) for part in parts]
