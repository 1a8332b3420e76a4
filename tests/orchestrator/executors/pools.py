"""For tests of the pool: steps, handing tasks to it and hearing what becomes of them."""

from __future__ import annotations

import time
from collections.abc import Callable

from orchestrator.documents import Report
from orchestrator.executors.events import BatchDone, Event
from orchestrator.executors.pool import Pool
from orchestrator.runner import Task

STEPS = """
import os, pathlib, signal, subprocess, sys, time
from orchestrator.errors import DataError

def plain(document, work):
    return {"twice": 2 * document["x"], "input": str(work.input), "pid": os.getpid()}

def noisy(document, work):
    print("printed"); os.write(2, b"written\\n"); work.log.info("logged"); subprocess.run(["echo", "echoed"])
    (work.directory / "scratch").write_text("x")
    work.progress(0.5, "half")
    return {}

def slow(document, work):
    time.sleep(60)

def naps(document, work):
    time.sleep(document["x"])
    return {}

def greedy(document, work):
    kept = bytearray(300_000_000); time.sleep(60); return {"n": len(kept)}

def crash(document, work):
    os.kill(os.getpid(), signal.SIGSEGV)

def leave(document, work):
    os._exit(7)

def wrong(document, work):
    raise DataError("the header is cut")

def bug(document, work):
    return {}["missing"]

def infinite(document, work):
    return {"x": float("inf")}

def surroundings(document, work):
    return {"environment": dict(os.environ)}

class Once:
    def __init__(self, settings, log):
        self.count = 0
        self.folder = pathlib.Path(settings["folder"])
        (self.folder / f"born-{os.getpid()}").touch()
    def process(self, document, work):
        self.count += 1
        return {"count": self.count}
    def close(self):
        (self.folder / f"dead-{os.getpid()}").touch()
"""


def tasks(count: int, step: str = "proc0") -> list[Task]:
    return [Task({"_id": f"d{n}", "x": n}, step, f"t{n}", f"/raw/{n}") for n in range(count)]


def collect(pool: Pool, enough: Callable[[list[Event]], bool], seconds: float = 30.0) -> list[Event]:
    events: list[Event] = []
    end = time.monotonic() + seconds
    while not enough(events):
        assert time.monotonic() < end, f"only {events}"
        events += pool.events(0.5)
    return events


def reports(events: list[Event]) -> list[Report]:
    return [event for event in events if isinstance(event, Report)]


def run(pool: Pool, count: int = 1) -> list[Report]:
    pool.submit(tasks(count))
    return reports(
        collect(pool, lambda events: sum(len(e.attempts) for e in events if isinstance(e, BatchDone)) == count)
    )
