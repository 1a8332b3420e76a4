"""The live transform: what the framework costs a spill, and how much faster two workers are than one.

    python benchmarks/online.py                         all
    python benchmarks/online.py --spills 2000 --rounds 1

*Overhead*: spills and a map through input, transform, one worker and a store in memory, against the bare map over the
same spills in one process; small spills with a map that does nothing, and spills of 400 kB. *Processor time*: what of
it the transform itself uses, and a worker to take a spill apart and put it together again; other work on the machine
does not change these. *Speed-up*: spills of 400 kB and a map that computes, with one worker and with two, in turn.
Times run from the first stored result to the last, so that starting processes does not count.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import zmq

from orchestrator.online import configuration, wire
from orchestrator.online.coordinator import Coordinator, Outside
from orchestrator.online.crew import Crew
from orchestrator.online.module import Map, RunConfiguration, find
from orchestrator.online.packing import packed, unpacked
from orchestrator.online.pipeline import Pipeline
from orchestrator.online.progress import Progress
from orchestrator.online.spill import Spill
from orchestrator.online.starting_transform import made_input
from orchestrator.online.store import Outcome
from orchestrator.online.stores.memory import MemoryStore, MemoryStores

MODULES = '''
import numpy as np
from orchestrator.online.module import Input, Map
from orchestrator.online.spill import Spill


class Made(Input):
    defaults = {"spills": 0, "bytes": 0}

    def items(self, position=None):
        data = np.arange(self.settings["bytes"] // 8, dtype=np.float64)
        for number in range(self.settings["spills"]):
            yield Spill("1", number, data={"x": data})


class Nothing(Map):
    def process(self, spill):
        return None


class Compute(Map):
    """Some tens of milliseconds of one core, as a filter over waveforms takes."""

    defaults = {"times": 1}

    def process(self, spill):
        x = spill.data["x"]
        for _ in range(self.settings["times"]):
            spectrum = np.fft.rfft(x)
            x = np.fft.irfft(spectrum * 0.5, len(x))
        spill.data["y"] = x
'''


class Watched(MemoryStore):
    """A store that knows when the first and the last outcome came, and how many came in between."""

    def __init__(self, run: str) -> None:
        super().__init__(run)
        self.first = self.last = 0.0
        self.first_cpu = self.last_cpu = 0.0  # s of this process, all threads
        self.early = self.count = 0

    def put(self, outcomes: Iterable[Outcome]) -> int:
        """Keep them, and the time."""
        new = super().put(outcomes)
        self.last, self.last_cpu = time.monotonic(), time.process_time()
        self.count += new
        if not self.first:
            self.first, self.first_cpu, self.early = self.last, self.last_cpu, new
        return new

    @property
    def seconds_a_spill(self) -> float:
        """From the first outcomes to the last."""
        return (self.last - self.first) / max(1, self.count - self.early)

    @property
    def cpu_a_spill(self) -> float:
        """Processor time of this process for each."""
        return (self.last_cpu - self.first_cpu) / max(1, self.count - self.early)


class WatchedStores(MemoryStores):
    """One run's."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Watched("1")

    def of(self, run: str) -> Watched:
        """The only one."""
        return self.store

    def runs(self) -> list[Any]:
        """Nothing was there before."""
        return []


def online(spills: int, size: int, module: str, settings: dict[str, Any]) -> configuration.Online:
    """What is measured, as a configuration."""
    return configuration.loads(
        json.dumps(
            {
                "input": {"module": "spillmodules:Made", "settings": {"spills": spills, "bytes": size}},
                "map": [{"module": f"spillmodules:{module}", "settings": settings}],
                "workers": {"address": "tcp://127.0.0.1:*"},
            }
        )
    )


def through(chosen: configuration.Online, workers: int, folder: Path, cpu: list[float] | None = None) -> float:
    """Seconds a spill through the framework. ``cpu``: gets the transform's processor time for each."""
    stores = WatchedStores()
    with zmq.Context() as context:
        address: list[str] = []

        def command(name: str) -> tuple[str, ...]:
            words = ["-C", str(folder), "online", "worker", "--connect", address[0], "--name", name, "--alone"]
            return (sys.executable, "-P", "-m", "orchestrator.cli", "--parent", str(os.getpid()), *words)

        crew = Crew([f"w{number}" for number in range(workers)], command, folder / "logs")
        outside = Outside(chosen, stores, made_input(chosen.input), "", lambda kind, run, header: None)
        made = Coordinator(outside, crew, Progress(folder / "progress.json"), context, until_end=True)
        address.append(made.address)
        made.run(lambda: False)
    wanted = chosen.input.settings["spills"]
    assert stores.store.count == wanted, f"{stores.store.count} of {wanted} spills came through"
    if cpu is not None:
        cpu.append(1000 * stores.store.cpu_a_spill)
    return stores.store.seconds_a_spill


def alone(chosen: configuration.Online) -> float:
    """Seconds a spill of the bare map in this process."""
    entry = chosen.maps()[0]
    module: Any = find(entry.module, Map)(entry.settings)
    spills = [item for item in made_input(chosen.input).items() if isinstance(item, Spill)]
    begun = time.monotonic()
    for spill in spills:
        module.process(spill)
    return (time.monotonic() - begun) / len(spills)


def handling(chosen: configuration.Online) -> float:
    """Processor time, ms, that a worker needs for a spill besides the map: from bytes, and the result to bytes."""
    spills = [item for item in made_input(chosen.input).items() if isinstance(item, Spill)]
    module: Any = find(chosen.maps()[0].module, Map)(chosen.maps()[0].settings)
    module.process(spills[0])
    result, first = packed(spills[0]), packed(spills[-1])
    pipeline = Pipeline(())
    pipeline.birth(RunConfiguration("1"))
    whole = unpacked(result)
    begun = time.process_time()
    for _ in range(500):
        wire.done(b"", pipeline.process(whole))
        unpacked(first)
    return 2 * (time.process_time() - begun)


def rounds(count: int, *calls: Callable[[], float]) -> list[list[float]]:
    """Each call's figures, taken in turn so that a change of the machine's load meets all."""
    found: list[list[float]] = [[] for _ in calls]
    for _ in range(count):
        for place, call in zip(found, calls, strict=True):
            place.append(call())
    return found


def main(words: list[str]) -> int:
    """Measure and print; a line of JSON last."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    options.add_argument("--spills", type=int, default=20_000, help="small spills")
    options.add_argument("--big", type=int, default=150, help="spills of 400 kB")
    options.add_argument("--times", type=int, default=20, help="transforms back and forth of each big spill")
    options.add_argument("--rounds", type=int, default=3)
    chosen = options.parse_args(words)
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory(prefix="online-") as name:
        folder = Path(name)
        (folder / "spillmodules.py").write_text(MODULES)
        sys.path.append(name)
        small = online(chosen.spills, 128, "Nothing", {})
        big = online(chosen.big, 400_000, "Compute", {"times": chosen.times})
        light: list[float] = []
        framework, direct = rounds(chosen.rounds, lambda: through(small, 1, folder, light), lambda: alone(small))
        weighty: list[float] = []
        one, two, own = rounds(
            chosen.rounds, lambda: through(big, 1, folder, weighty), lambda: through(big, 2, folder), lambda: alone(big)
        )
        hands = handling(small), handling(big)
    overhead = [1000 * (a - b) for a, b in zip(framework, direct, strict=True)]
    speedup = [a / b for a, b in zip(one, two, strict=True)]
    heavy = [1000 * (a - b) for a, b in zip(one, own, strict=True)]
    print(f"overhead of a small spill: {statistics.median(overhead):.3f} ms (rounds: {_list(overhead, 3)})")
    print(f"  {1 / statistics.median(framework):.0f} spills/s through one worker; processor time: "
          f"{statistics.median(light):.3f} ms in the transform, {hands[0]:.3f} ms in the worker")  # fmt: skip
    print(f"overhead of a spill of 400 kB: {statistics.median(heavy):.2f} ms (rounds: {_list(heavy, 2)})")
    print(f"  the map takes {1000 * statistics.median(own):.1f} ms in one process; processor time besides: "
          f"{statistics.median(weighty):.2f} ms in the transform, {hands[1]:.2f} ms in the worker")  # fmt: skip
    print(f"two workers against one: {statistics.median(speedup):.2f} times (rounds: {_list(speedup, 2)})")
    print(json.dumps({"overhead_ms": overhead, "overhead_400kB_ms": heavy, "speedup": speedup, "cpu_ms": light,
                      "cpu_400kB_ms": weighty, "load": os.getloadavg()[0], "cores": os.cpu_count()}))  # fmt: skip
    return 0


def _list(values: list[float], digits: int) -> str:
    return ", ".join(f"{value:.{digits}f}" for value in values)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
