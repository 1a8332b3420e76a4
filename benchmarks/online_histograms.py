"""How fast live histograms are filled, merged, saved and published, against boost-histogram alone.

    python benchmarks/online_histograms.py [--values 2000000] [--rounds 5] [--json FILE]

Rounds of the two alternate, so that other work on the machine meets both; the medians are shown. What stands against
boost-histogram is the reducer's own way: the spill's dictionary, names of channels, one histogram each. Spills per
second are those of one reducer's process: bytes as they come from the store, unpacked, counted once, filled.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boost_histogram as bh
import numpy as np

from orchestrator.online import configuration
from orchestrator.online.module import RunConfiguration
from orchestrator.online.packing import packed
from orchestrator.online.presenting import Contents, Presenter
from orchestrator.online.run_reducer import RunReducer
from orchestrator.online.spill import Spill
from orchestrator.online.store import Outcome, RunRecord
from procs.online.reducers.pulses import PulseAmplitude

CHANNELS = 8
RANGE = {"bins": 600, "low": -2000.0, "high": 10000.0}
MODULE = "procs.online.reducers.pulses:PulseAmplitude"


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--values", type=int, default=2_000_000, help="values filled in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    given = parser.parse_args()
    found: dict[str, Any] = {}
    for size in (100, 1000, 10_000, 100_000):
        found[f"fill, {size} values a spill"] = filling(size, given.values, given.rounds)
    found["merge of 64 channels"] = merging(given.rounds)
    for size in (10, 1000, 25_000):
        found[f"spills of {size} values"] = reducing(size, given.rounds)
    found["publishing 64 plots of 600 bins"] = publishing(given.rounds)
    for what, figures in found.items():
        print(f"{what:32}", "   ".join(f"{name} {value:,.4g}" for name, value in figures.items()))
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def timed(rounds: int, *works: Callable[[], Any]) -> list[float]:
    """The median time of each, in s; they take turns."""
    times: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for place, work in enumerate(works):
            start = time.perf_counter()
            work()
            times[place].append(time.perf_counter() - start)
    return [statistics.median(one) for one in times]


def spills_of(size: int, count: int) -> list[Spill]:
    """Spills with ``size`` pulses in all channels together."""
    rng = np.random.default_rng(1)
    names = [f"channel {number}" for number in range(CHANNELS)]
    found = []
    for number in range(count):
        channel = rng.integers(0, CHANNELS, size).astype(np.int32)
        pulses = {"names": names, "channel": channel, "amplitude": rng.normal(1000, 800, size)}
        found.append(Spill("1", number, data={"pulses": pulses}))
    return found


def filling(size: int, values: int, rounds: int) -> dict[str, float]:
    """Values a second, by boost-histogram alone (channels parted beforehand) and by the reducer."""
    spills = spills_of(size, max(1, min(200, values // size)))
    turns = max(1, values // (size * len(spills)))
    parted = [
        [spill.data["pulses"]["amplitude"][spill.data["pulses"]["channel"] == number] for number in range(CHANNELS)]
        for spill in spills
    ]
    axis = bh.axis.Regular(RANGE["bins"], RANGE["low"], RANGE["high"])
    alone = [bh.Histogram(axis, storage=bh.storage.Int64()) for _ in range(CHANNELS)]
    reducer = PulseAmplitude(RANGE)
    reducer.birth(RunConfiguration("1"))

    def by_itself() -> None:
        for _ in range(turns):
            for parts in parted:
                for histogram, part in zip(alone, parts, strict=True):
                    histogram.fill(part)

    def by_reducer() -> None:
        for _ in range(turns):
            for spill in spills:
                reducer.process(spill)

    first, second = timed(rounds, by_itself, by_reducer)
    filled = turns * len(spills) * size
    return {"boost-histogram /s": filled / first, "reducer /s": filled / second, "ratio": first / second}


def merging(rounds: int) -> dict[str, float]:
    """Adding the state of 64 channels to another's, in ms."""
    one, other = PulseAmplitude(RANGE), PulseAmplitude(RANGE)
    axis = bh.axis.Regular(RANGE["bins"], RANGE["low"], RANGE["high"])
    alone = [[bh.Histogram(axis, storage=bh.storage.Int64()) for _ in range(64)] for _ in range(2)]
    for number in range(64):
        one.fill("amplitude/channel", f"channel {number}", [1.0])
    state = one.state()

    def by_itself() -> None:
        for mine, its in zip(*alone, strict=True):
            mine += its

    first, second = timed(10 * rounds, by_itself, lambda: other.merge(state))
    return {"boost-histogram ms": 1e3 * first, "reducer ms": 1e3 * second}


def reducing(size: int, rounds: int) -> dict[str, float]:
    """Spills a second from the store's bytes to the counted histogram, and the saving of the state in ms."""
    count = 2000 if size <= 1000 else 200
    outcomes = [Outcome(spill.number, packed(spill)) for spill in spills_of(size, count)]
    entry = configuration.Reducer(name="a", module=MODULE, settings=RANGE)
    taken, saved = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            work = RunReducer(entry, RunRecord("1"), Path(folder))
            work.begin()
            start = time.perf_counter()
            work.take(outcomes, "1")
            taken.append(time.perf_counter() - start)
            start = time.perf_counter()
            work.save()
            saved.append(time.perf_counter() - start)
    seconds = statistics.median(taken)
    bytes_each = sum(len(one.packed or b"") for one in outcomes) / count
    return {
        "spills /s": count / seconds, "ms each": 1e3 * seconds / count, "bytes each": bytes_each,
        "saving ms": 1e3 * statistics.median(saved),
    }  # fmt: skip


def publishing(rounds: int) -> dict[str, float]:
    """From histograms to what is sent, in ms for all and bytes for each."""
    reducer = PulseAmplitude(RANGE)
    rng = np.random.default_rng(2)
    for number in range(63):
        reducer.fill("amplitude/channel", f"channel {number}", rng.normal(1000, 800, 5000))
    presenter = Presenter("a", "", lambda plot: None, time.time)
    (seconds,) = timed(rounds, lambda: presenter.present(reducer.plots(), Contents("1")))
    shown = presenter.present(reducer.plots(), Contents("1"))
    return {"ms": 1e3 * seconds, "plots": len(shown), "kB in all": sum(len(one.body) for one in shown) / 1e3}


if __name__ == "__main__":
    sys.exit(main())
