"""Sums of whole numbers against time: exact, whatever part of a run each of many has seen.

Bins stand at multiples of their width from 1970 on, so the bins of any two fit together, and the range is that of the
data. A plot shows them from the first one on, several joined where there are too many for the eye.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import hist
import numpy as np

from orchestrator.errors import DataError

MOST = 200_000  # bins that are kept: 23 days in bins of 10 s; more are time stamps gone wrong
SHOWN = 500  # bins of a plot


class Trend:
    """One sum for each stretch of ``width`` seconds."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.bins = np.zeros(0, dtype=np.int64)
        self.sums = np.zeros(0, dtype=np.int64)

    def add(self, seconds: np.ndarray, values: np.ndarray | None = None) -> None:
        """Add whole numbers (1 each without ``values``) at unix times; times that are none are left out."""
        seconds = np.asarray(seconds, dtype=float)
        fine = np.isfinite(seconds) & (np.abs(seconds) < 1e11)
        values = np.ones(len(seconds), dtype=np.int64) if values is None else np.asarray(values, dtype=np.int64)
        self._join(np.floor(seconds[fine] / self.width).astype(np.int64), values[fine])

    def state(self) -> dict[str, Any]:
        """Bins and sums."""
        return {"bins": self.bins.copy(), "sums": self.sums.copy(), "width": self.width}

    def merge(self, state: Mapping[str, Any]) -> None:
        """Add another's. Raises DataError for bins of another width."""
        if int(state["width"]) != self.width:
            raise DataError(f"the state's bins are {state['width']} s wide, here they are {self.width} s")
        self._join(np.asarray(state["bins"], dtype=np.int64), np.asarray(state["sums"], dtype=np.int64))

    def _join(self, bins: np.ndarray, sums: np.ndarray) -> None:
        every = np.concatenate([self.bins, bins])
        if not len(every):
            return
        found, place = np.unique(every, return_inverse=True)
        if len(found) > MOST:
            return
        total = np.zeros(len(found), dtype=np.int64)
        np.add.at(total, place.ravel(), np.concatenate([self.sums, sums]))
        self.bins, self.sums = found, total

    def span(self) -> tuple[int, int, int]:
        """The first bin of a plot, how many bins it has, and how many of these are joined in each."""
        if not len(self.bins):
            return 0, 1, 1
        many = int(self.bins[-1] - self.bins[0]) + 1
        joined = -(-many // SHOWN)
        return int(self.bins[0]), -(-many // joined), joined

    def values(self, span: tuple[int, int, int]) -> np.ndarray:
        """The sums in the bins of a plot."""
        first, many, joined = span
        place = (self.bins - first) // joined
        found = np.zeros(many, dtype=np.int64)
        inside = (place >= 0) & (place < many)
        np.add.at(found, place[inside], self.sums[inside])
        return found

    def axis(self, span: tuple[int, int, int]) -> Any:
        """The time axis of a plot."""
        first, many, joined = span
        begin = datetime.fromtimestamp(first * self.width, UTC).strftime("%Y-%m-%d %H:%M:%S") if len(self.bins) else "-"
        return hist.axis.Regular(many, 0, many * joined * self.width, label=f"time since {begin} UTC [s]")

    def histogram(self) -> Any:
        """The sums as a histogram of whole numbers."""
        span = self.span()
        made = hist.Hist(self.axis(span), storage=hist.storage.Int64())
        made.view(flow=False)[:] = self.values(span)
        return made
