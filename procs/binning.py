"""Histograms that can always be added up exactly, whatever range each of them saw.

The width of a bin is a power of two and the edges are its multiples, so that the bins of any two histograms of one
quantity fit into each other. The range is that of the data: nothing is ever lost in an overflow. That is what lets a
run's histogram be rebuilt from those of its files, in any order, with the same counts.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import hist
import numpy as np

from orchestrator.errors import DataError

MOST_BINS = 8192  # bins of one histogram; a wider range makes wider bins
KEY_LIMIT = 60  # characters of a label in a key: enough to be legible
WANTED_BINS = 512  # bins over the central range of the first data
SAMPLE = 1 << 13  # values from which that range is taken, evenly from all where there are more than twice as many
FARTHEST = 2**40  # widths between 0 and the farthest value: bin numbers are exact far beyond
PIECE = 1 << 15  # values worked on at once, so that they stay in the processor's cache


@dataclass
class Counts:
    """One histogram: ``counts[i]`` entries in [(first + i) * width, (first + i + 1) * width)."""

    name: str
    title: str
    unit: str
    width: float = 0.0  # a power of two; 0 while empty
    first: int = 0
    counts: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    @property
    def entries(self) -> int:
        """How many values it holds."""
        return int(self.counts.sum())

    def fill(self, values: np.ndarray) -> int:
        """Add the finite values; returns how many there were."""
        values = np.asarray(values, dtype=float)
        if values.ndim != 1:
            values = values.ravel()
        count = 0
        for start in range(0, len(values), PIECE):
            piece = values[start : start + PIECE]
            if not self._fill_inside(piece):
                piece = piece[np.isfinite(piece)]
                if not len(piece):
                    continue
                if not self.width:
                    sample = values[:: 1 + len(values) // SAMPLE]
                    sample = sample[np.isfinite(sample)]
                    low, high = np.percentile(sample if len(sample) else piece, [2, 98])
                    self.width = power_of_two(max(high - low, abs(high) * 1e-6, 1e-9) / WANTED_BINS)
                self._widen(float(piece.min()), float(piece.max()))
                if not self._fill_inside(piece):
                    raise AssertionError(f"the range of the histogram {self.name} was not made wide enough")
            count += len(piece)
        return count

    def _widen(self, least: float, most: float) -> None:
        """Make room for values from ``least`` to ``most``, with nothing in it."""
        # int64 bin numbers stay exact up to 2**53 widths
        width = max(self.width, power_of_two(max(abs(least), abs(most)) / FARTHEST))
        low_bin, high_bin = math.floor(least / width), math.floor(most / width)
        factor = 1
        while (high_bin // factor) - (low_bin // factor) + 1 > MOST_BINS:
            factor *= 2
        start = low_bin // factor
        self._merge(width * factor, start, np.zeros(high_bin // factor - start + 1, dtype=np.int64))

    def _fill_inside(self, values: np.ndarray) -> bool:
        """Add values that lie in the present range; False, with nothing added, if one does not or is no number."""
        bins, first = len(self.counts), self.first
        if not 0 < bins <= MOST_BINS or not -FARTHEST < first < FARTHEST:
            return False
        with np.errstate(all="ignore"):  # what is far outside has no bin number, and ends in False
            # The width is a power of two, so that this is exact, and a multiplication.
            scaled = values * (1 / self.width)
            if not np.maximum.reduce(scaled, initial=-np.inf) < first + bins:  # NaN is not, either
                return False
            index = np.subtract(np.floor(scaled, out=scaled), first, out=scaled).astype(np.int64)
        try:
            self.counts = self.counts + np.bincount(index, minlength=bins)
        except ValueError:  # it does not take what is below 0
            return False
        return True

    def add(self, other: Counts) -> None:
        """Add another histogram of the same quantity."""
        if other.width:
            self._merge(other.width, other.first, other.counts)

    def _merge(self, width: float, first: int, counts: np.ndarray) -> None:
        if not self.width or not len(self.counts):
            self.width, self.first, self.counts = width, first, counts.astype(np.int64)
            return
        wide = max(width, self.width)
        low = min(first * width, self.first * self.width)
        high = max((first + len(counts)) * width, (self.first + len(self.counts)) * self.width)
        while math.ceil(high / wide) - math.floor(low / wide) > MOST_BINS:
            wide *= 2
        start = math.floor(low / wide)
        total = np.zeros(math.ceil(high / wide) - start, dtype=np.int64)
        for one_width, one_first, one in ((self.width, self.first, self.counts), (width, first, counts)):
            factor = round(min(wide / one_width, 2.0**62))  # bin numbers are far below, so that more is the same
            if factor == 1:
                total[one_first - start : one_first - start + len(one)] += one
            else:
                np.add.at(total, (one_first + np.arange(len(one))) // factor - start, one)
        self.width, self.first, self.counts = wide, start, total

    def edges(self) -> np.ndarray:
        """The bins' edges, one more than counts."""
        return (self.first + np.arange(len(self.counts) + 1)) * self.width

    def mean(self) -> float | None:
        """Mean of the bins' centres, None if empty."""
        if not self.entries:
            return None
        centres = self.edges()[:-1] + self.width / 2
        return float(self.counts @ centres / self.entries)

    def to_hist(self) -> Any:
        """As a ``hist.Hist`` with one regular axis; an empty one has a single bin from 0 to 1."""
        edges = self.edges() if self.width else np.array([0.0, 1.0])
        axis = hist.axis.Regular(len(edges) - 1, edges[0], edges[-1], name="x", label=f"{self.title} [{self.unit}]")
        result = hist.Hist(axis, storage=hist.storage.Double())
        if self.width:
            result.view(flow=False)[:] = self.counts
        result.title = f"{self.title} [{self.unit}]"
        return result

    @classmethod
    def from_root(cls, name: str, stored: Any) -> Counts:
        """Read back what :meth:`to_hist` wrote (an uproot TH1). Raises DataError for any other histogram."""
        match = re.fullmatch(r"(.*) \[([^\[\]]*)\]", str(stored.member("fTitle")), re.DOTALL)
        values, edges = stored.values(flow=True), stored.axis().edges()
        result = cls(name, match[1] if match else name, match[2] if match else "")
        if not values.any():
            return result
        width = power_of_two((edges[-1] - edges[0]) / (len(edges) - 1) * 0.75)
        first = round(edges[0] / width)
        if values[0] or values[-1] or abs(edges[-1] - (first + len(edges) - 1) * width) > 1e-6 * width:
            raise DataError(f"the histogram {name} was not made by this step: its bins cannot be added up")
        result._merge(width, first, np.rint(values[1:-1]).astype(np.int64))
        return result

    def zoomed(self, share: float = 0.002) -> tuple[np.ndarray, np.ndarray]:
        """Counts and edges for a picture: the central part (outliers stay in the file), in bins for the eye."""
        if not self.entries:
            return np.zeros(1), np.array([0.0, 1.0])
        total = np.cumsum(self.counts)
        low = int(np.searchsorted(total, share / 2 * total[-1], side="right"))
        high = int(np.searchsorted(total, (1 - share / 2) * total[-1])) + 1
        margin = max(2, (high - low) // 10)
        low, high = max(0, low - margin), min(len(self.counts), high + margin)
        most = min(300, max(40, round(6 * math.sqrt(self.entries))))
        factor = max(1, -(-(high - low) // most))
        part = self.counts[low:high]
        part = np.concatenate([part, np.zeros(-len(part) % factor, dtype=np.int64)])
        edges = (self.first + low + factor * np.arange(len(part) // factor + 1)) * self.width
        return part.reshape(-1, factor).sum(axis=1), edges


def power_of_two(value: float) -> float:
    """The power of two at or above ``value``, which must be above 0."""
    return 2.0 ** math.ceil(math.log2(value)) if value > 0 else 2.0**-1000


def key_name(quantity: str, label: str) -> str:
    """A ROOT key for a quantity of a channel; different labels never share a key."""
    clean = re.sub(r"[^A-Za-z0-9]", "_", label)
    if len(label) > KEY_LIMIT or re.search(r"[^A-Za-z0-9 ]", label):
        clean = f"{clean[:KEY_LIMIT]}_{zlib.crc32(label.encode('utf-8', 'surrogatepass')):08x}"
    return f"{quantity}_{clean}"


def merged(parts: Iterable[dict[str, Counts]]) -> dict[str, Counts]:
    """The sums of histograms with the same name, in the order of their first appearance."""
    result: dict[str, Counts] = {}
    for part in parts:
        for name, counts in part.items():
            result.setdefault(name, Counts(name, counts.title, counts.unit)).add(counts)
    return result
