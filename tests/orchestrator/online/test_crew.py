"""Local workers as processes: started, told dead, replaced, at once if they were of use."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from orchestrator.online.crew import WAITS, Crew


class Fake:
    """A process that ends when it is told to."""

    def __init__(self, number: int) -> None:
        self.pid = -number  # nobody's: signals to it go nowhere
        self.code: int | None = None

    def poll(self) -> int | None:
        return self.code


def crew_of(names: list[str], folder: Path) -> tuple[Crew, list[Fake]]:
    made: list[Fake] = []

    def start(words: tuple[str, ...], log: Path) -> Fake:
        made.append(Fake(len(made) + 2))
        return made[-1]

    return Crew(names, lambda name: (name,), folder, start=start), made


def test_one_that_was_of_use_is_replaced_at_once(tmp_path: Path) -> None:
    crew, made = crew_of(["a"], tmp_path)
    assert crew.tick(0.0, {}) == [] and len(made) == 1
    made[0].code = -9
    (ended,) = crew.tick(1.0, {"a": 5})
    assert (ended.name, ended.how, ended.overtime) == ("a", "was ended by SIGKILL", False)
    crew.tick(1.0, {})
    assert len(made) == 2


def test_one_that_dies_young_is_started_after_a_wait_that_doubles(tmp_path: Path) -> None:
    crew, made = crew_of(["a"], tmp_path)
    now, waits = 0.0, []
    for _ in range(12):
        crew.tick(now, {})
        made[-1].code = 1
        crew.tick(now, {})
        count, died = len(made), now
        while len(made) == count:
            now += 0.05
            crew.tick(now, {})
        waits.append(now - died)
    assert waits[0] < WAITS[0] + 0.1 and waits[1] < 2 * WAITS[0] + 0.1
    assert max(waits) < WAITS[1] + 0.1 and waits[-1] > WAITS[1] - 0.1


def test_its_own_time_limit_is_told_from_other_ends(tmp_path: Path) -> None:
    crew, made = crew_of(["a", "b"], tmp_path)
    crew.tick(0.0, {})
    made[0].code, made[1].code = -signal.SIGALRM, 3
    found = {one.name: (one.overtime, one.code) for one in crew.tick(1.0, {})}
    assert found == {"a": (True, -signal.SIGALRM), "b": (False, 3)}


def test_one_that_is_dismissed_is_not_replaced(tmp_path: Path) -> None:
    crew, made = crew_of(["a"], tmp_path)
    crew.tick(0.0, {})
    made[0].code = 0
    crew.tick(1.0, {})
    crew.dismiss("a")
    crew.tick(100.0, {})
    assert len(made) == 1 and not crew.has("a")


def test_real_processes_write_logs_of_their_own_and_end_when_asked(tmp_path: Path) -> None:
    sleeps = "import os, time; print(os.environ['OMP_NUM_THREADS'], flush=True); time.sleep(60)"
    crew = Crew(["a"], lambda name: (sys.executable, "-c", sleeps), tmp_path / "logs")
    crew.tick(0.0, {})
    log = tmp_path / "logs" / "online-worker-a.log"
    end = time.monotonic() + 10
    while log.read_text() == "" and time.monotonic() < end:
        time.sleep(0.01)
    assert log.read_text() == "1\n", "one thread for numerical libraries"
    process = crew.places[0].process
    assert isinstance(process, subprocess.Popen) and crew.pid("a") == process.pid
    while not crew.stop() and time.monotonic() < end:
        time.sleep(0.01)
    assert process.returncode == -signal.SIGTERM
    crew.end()
