"""How fast the shipped steps are, and how much memory they take: ``python benchmarks/steps.py [events] [points]``.

A simulated Samba file of two detectors (four channels) goes through transfer, convert, amplitude and histograms,
each in a process of its own. Linux only (it reads /proc).
"""

import json
import logging
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

STEPS = ("transfer", "convert", "amplitude", "histograms")


def run(step: str, source: str, output: str) -> dict[str, object]:
    """One step in this process; its time in s, its peak memory in MB and its output."""
    from orchestrator.step import Work, birth

    names = {
        "transfer": "procs.transfer:transfer",
        "convert": "procs.convert:convert",
        "amplitude": "procs.amplitude:Amplitude",
        "histograms": "procs.histograms:histograms",
    }
    log = logging.getLogger("step")
    log.addHandler(logging.NullHandler())
    log.propagate = False
    work = Work({}, Path(output), Path(output), uuid.uuid4().hex, log, source)
    made = birth(names[step], {}, log)
    start = time.perf_counter()
    result = made.process({"_id": "bench", "run_name": "bench", "file": source}, work)
    seconds = time.perf_counter() - start
    # Not getrusage: its peak is inherited from the process that started this one.
    status = Path("/proc/self/status").read_text()
    memory = int(status.split("VmHWM:")[1].split()[0]) / 1024
    return {"file": result["file"], "seconds": seconds, "megabytes": memory, "size": result["size"]}


def main() -> None:
    """Make the file, run the steps one after the other, print a line for each."""
    numbers = [int(word) for word in sys.argv[1:3]]
    events, points = (*numbers, *(2000, 1024)[len(numbers) :])
    from procs.simulate import simulate

    with tempfile.TemporaryDirectory() as folder:
        written = simulate(
            Path(folder) / "daq", runs=1, partitions=1, events=events, points=points, broken=0, date_runs=0
        )
        source, size = str(written[0].path), written[0].path.stat().st_size
        print(f"{events} events of 4 channels, {points} points each: {size / 1e6:.1f} MB")
        for step in STEPS:
            words = [sys.executable, __file__, "--step", step, source, folder]
            done = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
            rate = size / 1e6 / done["seconds"]
            print(
                f"{step:10} {done['seconds']:7.2f} s  {rate:7.1f} MB/s of raw data  "
                f"{4 * events / done['seconds']:9.0f} pulses/s  {done['megabytes']:5.0f} MB of memory  "
                f"output {done['size'] / 1e6:.1f} MB"
            )
            source = done["file"]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--step"]:
        print(json.dumps(run(*sys.argv[2:5])))
    else:
        main()
