"""The local workers as child processes: started, watched, and replaced when they die.

One that had worked is replaced at once; one that dies before it has done anything, again after a wait that doubles.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from orchestrator.runtime import end_group, last_words, send, turn_over

WAITS = (0.2, 30.0)  # s until a worker that died young is started again: at first, and at most
SETTLED = 60.0  # s of life that forget earlier deaths, also of one that has found nothing to do
LOGS = 10.0  # s between two looks at the logs' sizes
#: Numerical libraries start a thread for each core; with a worker for each core they only get into each other's way.
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")


class Process(Protocol):
    """What is needed of a running process."""

    pid: int

    def poll(self) -> int | None:
        """Its exit code once it has ended, negative for a signal."""


@dataclass
class Place:
    """A worker's place in the crew, whoever fills it."""

    name: str
    log: Path
    process: Process | None = None
    started: float = 0.0
    not_before: float = 0.0
    wait: float = WAITS[0]
    restarts: int = 0
    ended: str = ""


@dataclass(frozen=True)
class Ended:
    """A worker's process has ended: who, how, and whether it was by its own time limit."""

    name: str
    how: str
    overtime: bool
    code: int = 0


class Crew:
    """All local workers.

    Args:
        names: of the workers.
        command: the argument list that starts the worker of a name.
        logs: folder of their logs.
        log_size: bytes at which a log is turned over.
    """

    def __init__(
        self,
        names: list[str],
        command: Callable[[str], tuple[str, ...]],
        logs: Path,
        *,
        log_size: float = 20e6,
        start: Callable[[tuple[str, ...], Path], Process] | None = None,
    ) -> None:
        self.places = [Place(name, logs / f"online-worker-{name}.log") for name in names]
        self._command = command
        self._log_size = log_size
        self._start = start or spawn
        self._looked = float("-inf")

    def tick(self, now: float, useful: Mapping[str, int]) -> list[Ended]:
        """Start who is due and tell who has ended. ``useful``: how many spills each name has done in its life."""
        found: list[Ended] = []
        for place in self.places:
            if place.process is not None and (code := place.process.poll()) is not None:
                found.append(self._bury(place, code, now, useful.get(place.name, 0)))
            elif place.process is None and now >= place.not_before:
                self._begin(place, now)
        if now - self._looked > LOGS:
            self._looked = now
            for place in self.places:
                turn_over(place.log, self._log_size)
        return found

    def _begin(self, place: Place, now: float) -> None:
        try:
            place.process = self._start(self._command(place.name), place.log)
        except OSError as error:
            place.ended = f"could not be started: {error}"
            place.not_before, place.wait = now + place.wait, min(WAITS[1], 2 * place.wait)
            return
        place.started = now

    def _bury(self, place: Place, code: int, now: float, done: int) -> Ended:
        if place.process is not None:
            end_group(place.process.pid)
        place.process = None
        place.restarts += 1
        if done or now - place.started > SETTLED:
            place.not_before, place.wait = now, WAITS[0]
        else:
            place.not_before, place.wait = now + place.wait, min(WAITS[1], 2 * place.wait)
        overtime = code == -signal.SIGALRM
        if code < 0:
            with contextlib.suppress(ValueError):
                place.ended = f"was ended by {signal.Signals(-code).name}"
        else:
            place.ended = f"ended with exit code {code}{last_words(place.log)}"
        return Ended(place.name, place.ended, overtime, code)

    def kill(self, name: str) -> None:
        """End a worker at once; it is replaced."""
        for place in self.places:
            if place.name == name and place.process is not None:
                end_group(place.process.pid)

    def dismiss(self, name: str) -> None:
        """Whoever has this place is not replaced any more."""
        self.places = [place for place in self.places if place.name != name]

    def has(self, name: str) -> bool:
        """Whether a worker of that name is of this crew."""
        return any(place.name == name for place in self.places)

    def pid(self, name: str) -> int | None:
        """The process of a worker, if it runs."""
        return next((one.process.pid for one in self.places if one.name == name and one.process is not None), None)

    def stop(self) -> bool:
        """Ask all to end. Returns whether none is left; to be called until then, or until ``end``."""
        alive = [one.process for one in self.places if one.process is not None and one.process.poll() is None]
        for process in alive:
            send(process.pid, signal.SIGTERM)
        return not alive

    def end(self) -> None:
        """End all that are left."""
        for place in self.places:
            if place.process is not None:
                end_group(place.process.pid)
                place.process.poll()


def spawn(words: tuple[str, ...], log: Path) -> subprocess.Popen[bytes]:
    """Start a worker in a session of its own, with a log of its own and one thread for numerical libraries."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            env=THREADS | dict(os.environ),
        )  # fmt: skip
