"""All benchmarks one after the other, their results into ``benchmarks/results``, and the page of results from those.

    python benchmarks/run_all.py                                      all, in about 50 minutes on two cores
    python benchmarks/run_all.py --quick --minutes 25                 smaller sizes; begins nothing that takes longer
    python benchmarks/run_all.py --only comparison latency            some; the others' results stay as they are
    python benchmarks/run_all.py --largest 1000000 --folder /var/tmp/growth     growth to a million; kept afterwards
    python benchmarks/run_all.py --render                             the page alone, from the results that are there

What cannot be measured on this machine (no Redis, no batch system, not root) is said and left out; a benchmark that
fails, or takes ten minutes more than four times what it should and is ended for it, leaves its former result as it was.
The page is ``docs/benchmarks.md``, the figures are in ``docs/images/benchmarks``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import report

HERE = Path(__file__).parent
SHARED = HERE.parent.parent / "shared" / "data"  # files as they were taken, where the project lies beside them
GRACE = 20.0  # s that a benchmark has to end its servers when it took too long


@dataclass(frozen=True)
class Part:
    """One benchmark: its script, its options, and the minutes that it takes with each on two idle cores."""

    name: str
    script: str
    full: tuple[str, ...]
    quick: tuple[str, ...]
    minutes: tuple[float, float]
    root: bool = False


#: In the order of what matters most, which is the order in which they run.
PARTS = (
    Part("comparison", "comparison.py", ("--documents", "10000", "--rounds", "3"),
         ("--documents", "3000", "--rounds", "3"), (15, 6)),
    Part("latency", "latency_comparison.py", ("--documents", "300", "--rounds", "3"),
         ("--documents", "80", "--rounds", "2"), (14, 4.5)),
    Part("growth", "growth.py", ("--rounds", "3"), ("--rounds", "3", "--documents", "1500", "--waits", "60"), (6, 4)),
    Part("conversion", "conversion.py", ("--rounds", "5"), ("--rounds", "3", "--megabytes", "40"), (7, 3.5)),
    Part("histograms", "histograms.py", ("--rounds", "7"), ("--rounds", "5", "--values", "2000000"), (0.5, 0.3)),
    Part("transfer", "transfer.py", ("--rounds", "5"), ("--rounds", "5", "--large", "500", "--files", "500"), (4, 2),
         root=True),
    Part("submission", "submission.py", ("--rounds", "3"), ("--rounds", "1"), (3, 1), root=True),
)  # fmt: skip


def options() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller sizes and fewer rounds: about 20 minutes")
    parser.add_argument("--minutes", type=float, help="begin nothing that would not be through after so many minutes")
    parser.add_argument("--only", nargs="*", default=[], choices=[part.name for part in PARTS], metavar="NAME")
    parser.add_argument("--largest", type=int, default=100_000, help="documents of the largest database (growth)")
    parser.add_argument("--folder", type=Path, help="keep the databases of growth here, and use them the next time")
    parser.add_argument("--raw", type=Path, nargs="*", default=sorted(SHARED.glob("*.000")), metavar="FILE",
                        help="raw files of a DAQ (conversion)")  # fmt: skip
    parser.add_argument("--render", action="store_true", help="measure nothing")
    return parser.parse_args()


def words_of(part: Part, given: argparse.Namespace) -> list[str]:
    """The command of one benchmark."""
    words = [sys.executable, str(HERE / part.script), *(part.quick if given.quick else part.full)]
    if part.name == "growth":
        words += ["--largest", str(given.largest), *(("--folder", str(given.folder)) if given.folder else ())]
    if part.name == "conversion" and given.raw:
        words += ["--real", *map(str, given.raw)]
    figure = report.IMAGES / f"{part.name}.svg"
    return [*words, "--json", str(report.RESULTS / f"{part.name}.json"), "--plot", str(figure)]


def minutes(part: Part, given: argparse.Namespace) -> float:
    """What one benchmark takes; growth takes as much longer as its largest database is larger, to fill it."""
    more = max(1.0, given.largest / 100_000) if part.name == "growth" else 1.0
    return part.minutes[given.quick] * more


def run(words: list[str], seconds: float) -> str:
    """Runs one benchmark; why it failed, if it has. One that takes too long is ended with all that it started."""
    process = subprocess.Popen(words)
    try:
        code = process.wait(seconds)
        return f"failed with exit code {code}" if code else ""
    except subprocess.TimeoutExpired:
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)  # it ends its servers then
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
        process.kill()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        return f"not through after {seconds / 60:.0f} minutes, and ended"


def main() -> int:
    given = options()
    began, failed, taken = time.monotonic(), [], []
    for part in PARTS if not given.render else ():
        if given.only and part.name not in given.only:
            continue
        left = given.minutes - (time.monotonic() - began) / 60 if given.minutes else None
        needed = minutes(part, given)
        if left is not None and needed > left:
            print(f"{part.name}: left out, it takes {needed:g} minutes and {max(left, 0):.1f} are left")
            continue
        if part.root and os.getuid() != 0:
            print(f"{part.name}: left out, it needs root")
            continue
        print(f"\n=== {part.name} (load {os.getloadavg()[0]:.1f}) ===", flush=True)
        since, limit = time.monotonic(), 10 + 4 * needed
        why = run(words_of(part, given), limit * 60)
        taken.append(f"{part.name} {(time.monotonic() - since) / 60:.1f}")
        if why:
            failed.append(part.name)
            print(f"{part.name}: {why}; its former result stays", flush=True)
    changed = report.write()
    said = [f"{report.PAGE.name} {'brought up to date' if changed else 'is up to date'}",
            f"{(time.monotonic() - began) / 60:.1f} minutes" + (f" ({', '.join(taken)})" if taken else ""),
            *(f"{name} failed" for name in failed)]  # fmt: skip
    print("\n" + "; ".join(said))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
