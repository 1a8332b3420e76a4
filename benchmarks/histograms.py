"""Histograms: fills a second and the time to merge, beside boost-histogram alone.

    python benchmarks/histograms.py
    python benchmarks/histograms.py --values 100000 --rounds 1

- *fill*: normal values into one histogram, in calls of 100, 10,000 and 1,000,000 values. ``Counts`` is what the steps
  use (``procs/binning.py``): its range grows with the data and nothing is lost in an overflow. boost-histogram has a
  regular axis of as many bins, whose range is known beforehand; NumPy's ``histogram`` the same.
- *merge*: so many histograms of files into that of their run: ``Counts.add`` against adding boost-histograms.
- *online*: the reducers of the live histograms add themselves here as further ways of filling and merging (``FILLS``,
  ``MERGES``).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import boost_histogram as bh
import common
import numpy as np

from procs.binning import Counts

CALLS = (100, 10_000, 1_000_000)  # values in one call
CENTRE, WIDTH = 5.0, 0.7
LOW, HIGH = 0.0, 10.0
BINS = 2048  # about as many as Counts makes of such values


def counts(parts: list[np.ndarray]) -> Counts:
    """Filled as the steps do."""
    made = Counts("amplitude", "amplitude", "keV")
    for part in parts:
        made.fill(part)
    return made


def boost(parts: list[np.ndarray]) -> Any:
    """Filled by boost-histogram, the range known beforehand."""
    made = bh.Histogram(bh.axis.Regular(BINS, LOW, HIGH), storage=bh.storage.Int64())
    for part in parts:
        made.fill(part)
    return made


def plain(parts: list[np.ndarray]) -> Any:
    """Filled by NumPy, the range known beforehand."""
    total = np.zeros(BINS, dtype=np.int64)
    for part in parts:
        total += np.histogram(part, BINS, (LOW, HIGH))[0]
    return total


def add_counts(parts: list[Counts]) -> Counts:
    """One run's histogram of those of its files."""
    total = Counts("amplitude", "amplitude", "keV")
    for part in parts:
        total.add(part)
    return total


def add_boost(parts: list[Any]) -> Any:
    """The same with boost-histogram."""
    total = parts[0].copy()
    for part in parts[1:]:
        total += part
    return total


#: Ways of filling: name, and what makes a histogram of arrays. The first is the baseline.
FILLS: dict[str, Callable[[list[np.ndarray]], Any]] = {
    "boost-histogram": boost, "NumPy histogram": plain, "procs.binning.Counts": counts,
}  # fmt: skip
#: Ways of merging: name, what fills one part, what adds up the parts. The first is the baseline.
MERGES: dict[str, tuple[Callable[[list[np.ndarray]], Any], Callable[[list[Any]], Any]]] = {
    "boost-histogram": (boost, add_boost), "procs.binning.Counts": (counts, add_counts),
}  # fmt: skip


def timed(work: Callable[[Any], Any], parts: Any) -> float:
    """Seconds of one go."""
    began = time.perf_counter()
    work(parts)
    return time.perf_counter() - began


def main() -> None:
    parser = common.parser(__doc__, rounds=5)
    parser.add_argument("--values", type=int, default=5_000_000, help="values in all, of each way in each round")
    parser.add_argument("--histograms", type=int, default=500, help="histograms that are merged")
    given = parser.parse_args()
    run = common.Run("histograms", __doc__, common.versions(["boost-histogram", "hist", "numpy"]))
    random = np.random.default_rng(5)
    values = random.normal(CENTRE, WIDTH, given.values)
    for part in (values[:10_000],):
        if counts([part]).entries != int(boost([part]).sum(flow=True)):
            raise SystemExit("Counts and boost-histogram do not agree")
    rows: list[list[Any]] = []
    for size in CALLS:
        # Small calls cost more each: as many values would take minutes.
        part = values[: max(size, given.values // (20 if size < 1000 else 1))]
        parts = [part[start : start + size] for start in range(0, len(part), size)]
        ways = {name: partial(timed, way, parts) for name, way in FILLS.items()}
        found = common.interleaved(ways, given.rounds)
        base = next(iter(found.values()))
        for name, seconds in found.items():
            share = [theirs / ours for theirs, ours in zip(base, seconds, strict=True)]
            rows.append([f"{name}, {size:,} a call", common.spread([len(part) / one / 1e6 for one in seconds]),
                         common.spread(share)])  # fmt: skip
    run.add(common.table("Fills", ["", "million values a second", "of boost-histogram"], rows))
    merged = []
    ways = {}
    for name, (fill, add) in MERGES.items():
        filled = [fill([random.normal(CENTRE, WIDTH, 1000)]) for _ in range(given.histograms)]
        ways[name] = partial(timed, add, filled)
    found = common.interleaved(ways, given.rounds)
    base = next(iter(found.values()))
    for name, seconds in found.items():
        ratio = [ours / theirs for theirs, ours in zip(base, seconds, strict=True)]
        merged.append([name, common.spread([1e6 * one / given.histograms for one in seconds]), common.spread(ratio)])
    run.add(common.table(
        f"Merging {given.histograms} histograms of 1,000 values each",
        ["", "a histogram, microseconds", "times boost-histogram"], merged,
        "boost-histogram adds up histograms of one binning; Counts brings each to a common width and range first.",
    ))  # fmt: skip
    run.end(given, draw)


def draw(result: dict[str, Any], path: Path) -> None:
    """Fills as bars."""
    rows = result["tables"][0]["rows"]
    common.bars(path, "Fills", "million values a second", {row[0]: row[1] for row in rows}, "procs")


if __name__ == "__main__":
    main()
