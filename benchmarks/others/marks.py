"""What every driver shares: the no-op step's mark, and the proof that each step was done once. Standard library only.

A step of these comparisons does one thing: it appends a line (document, step, time) to a file. That tells the driver
when the first and the last one began, and whether each was done exactly once, whatever the system itself records.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

STEPS = 3
PATIENCE = 60.0  # s without a new mark, after which a run counts as failed
_open: dict[str, int] = {}


def path() -> Path:
    """The file of marks; BENCHMARK_MARKS names it for all processes of a run."""
    return Path(os.environ["BENCHMARK_MARKS"])


def mark(document: int, step: int) -> None:
    """The whole work of a step. One write of a short line to the end of a file is whole, also among processes."""
    name = os.environ["BENCHMARK_MARKS"]
    if name not in _open:
        _open[name] = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(_open[name], f"{document} {step} {time.time():.6f}\n".encode())


def read() -> list[tuple[int, int, float]]:
    """Document, step and time of all marks so far."""
    if not path().exists():
        return []
    rows = (line.split() for line in path().read_text().splitlines())
    return [(int(document), int(step), float(at)) for document, step, at in rows]


def count() -> int:
    """How many marks there are."""
    return path().read_bytes().count(b"\n") if path().exists() else 0


def wait(expected: int, alive: Callable[[], bool] = lambda: True) -> None:
    """Until so many marks are there. Ends the process if nothing moves any more, or what makes them has died."""
    last, since, size = 0, time.monotonic(), -1
    while True:
        now = path().stat().st_size if path().exists() else 0
        if now != size:
            size, since, last = now, time.monotonic(), count()
            if last >= expected:
                return
        if not alive():
            raise SystemExit(f"the workers ended after {last} of {expected} steps")
        if time.monotonic() - since > PATIENCE:
            raise SystemExit(f"nothing moved for {PATIENCE:.0f} s after {last} of {expected} steps")
        time.sleep(0.02)


def end_with_parent() -> None:
    """Between fork and exec: let the kernel end this process when its parent dies, however that ends (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


@contextlib.contextmanager
def started(*command: str, folder: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is asked to end afterwards, and ended if it does not. Its words go to ``said.log``."""
    place = folder or Path(os.environ["BENCHMARK_MARKS"]).parent
    with (place / "said.log").open("ab") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, start_new_session=True, preexec_fn=end_with_parent
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def options() -> argparse.Namespace:
    """What the benchmark asks a driver for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["throughput", "latency"])
    parser.add_argument("--documents", type=int, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--load", type=int, default=0, help="latency: so many other documents a second beside it")
    return parser.parse_args()


def throughput(documents: int, enqueued: float, began: float, *packages: str, ended: float = 0.0) -> None:
    """Prove that each step was done once, in order, and print the result.

    Args:
        began: when the system was started.
        ended: when its last record was there, if that is later than its last step.
    """
    found = read()
    seen = sorted((document, step) for document, step, _at in found)
    if seen != [(document, step) for document in range(documents) for step in range(STEPS)]:
        raise SystemExit(f"{len(found)} steps were done, {len(set(seen))} of them different, not {STEPS * documents}")
    times = {(document, step): at for document, step, at in found}
    if any(times[document, step] > times[document, step + 1] for document, step in seen if step + 1 < STEPS):
        raise SystemExit("a step began before the one that it follows")
    first, last = min(times.values()), max(ended, *times.values())
    say({"steps": len(found), "seconds": last - first, "enqueued": enqueued, "whole": last - began}, *packages)


def latency(send: Callable[[int], None], given: argparse.Namespace, *packages: str) -> None:
    """Send one task at a time, with pauses; print each one's wait. Others are sent beside it if asked for."""
    import random
    import threading

    end = threading.Event()

    def beside() -> None:
        number = 1_000_000
        while not end.wait(0.1):
            for other in range(number, number + given.load // 10):
                send(other)
            number += given.load // 10

    other = threading.Thread(target=beside, daemon=True)
    if given.load:
        other.start()
    sent: dict[int, float] = {}
    seen: set[int] = set()
    warm = 20
    path().touch()
    with path().open() as stream:  # read on from where it was: to read all again would be a load of its own
        for number in range(given.documents + warm):
            time.sleep(random.uniform(0.02, 0.06))
            sent[number] = time.time()
            send(number)
            since = time.monotonic()
            while number not in seen:
                time.sleep(0.01)
                seen.update(int(line.split()[0]) for line in stream.read().splitlines())
                if time.monotonic() - since > PATIENCE:
                    raise SystemExit(f"task {number} was not begun in {PATIENCE:.0f} s")
    end.set()
    if given.load:
        other.join()
    at = {document: moment for document, _step, moment in read()}
    waits = [max(0.0, at[number] - moment) for number, moment in sent.items() if number >= warm]
    say({"waits": waits}, *packages)


def say(found: dict[str, Any], *packages: str) -> None:
    """The one line that a driver prints."""
    names = {name: "redis-py" if name == "redis" else name for name in packages}  # Redis itself is another thing
    found["versions"] = {"python": sys.version.split()[0], **{names[name]: version(name) for name in packages}}
    print(json.dumps(found), flush=True)
