"""One process that starts the daemons of a site, keeps them alive, and stops them.

A child that dies is started again, it alone, after a wait that doubles each time and is forgotten once it has lived
for a while. A child that ends with an exit code which no restart can mend (settings, a refused login) is given up
with its last words. Each child is a process group of its own, writes to a log of its own, and ends when the supervisor
does, however that ends: it asks the kernel for a signal at its parent's death (``die_with``). What an earlier
supervisor left behind all the same is ended before anything is started.

``Supervisor.tick(now)`` does all the work and never waits, so ``up``, ``demo`` and the tests bring their own loop
and their own time.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil

from orchestrator.errors import DatabaseError, Exit
from orchestrator.lifeline import die_with_parent, orphaned
from orchestrator.runtime import STATUS, end_group, last_words, send, turn_over, write_atomically

FIRST_WAIT = 0.5  # s before the first restart; a killed child is back within a second
LONGEST_WAIT = 30.0  # s; a broken child costs next to nothing, a mended one is back soon
SETTLED = 60.0  # s of life after which earlier deaths are forgotten
GRACE = 10.0  # s beyond the drain time until a child that will not stop is killed
DATABASE_GRACE = 10.0  # s for the database to close after all others have gone
HOPELESS = frozenset({Exit.USAGE, Exit.SETTINGS, Exit.UNAUTHORISED})  # restarts cannot mend these


class Process(Protocol):
    """What the supervisor needs of a running process (``subprocess.Popen`` has it)."""

    pid: int

    def poll(self) -> int | None:
        """The exit code, negative for a signal, or None while it runs."""


@dataclass(frozen=True)
class Spec:
    """A child to be kept alive.

    ``ready`` is asked after the start until it says yes, and children further down the list wait for that, once;
    then ``prepare`` runs, once. ``once``: it works to its end and is not started again after exit code 0.
    ``last``: stopped only when all others have gone (the database).
    """

    name: str
    command: tuple[str, ...]
    ready: Callable[[], bool] | None = None
    prepare: Callable[[], None] | None = None
    once: bool = False
    last: bool = False


@dataclass
class Child:
    """A spec and what has become of it. ``state``: waiting, starting, running, finished, given up, stopped."""

    spec: Spec
    log: Path
    state: str = "waiting"
    process: Process | None = None
    started: float = 0.0
    created: float = 0.0
    not_before: float = 0.0
    wait: float = FIRST_WAIT
    restarts: int = 0
    was_ready: bool = False
    ended: str = ""
    exit_code: int | None = None


def die_with(parent: int) -> None:
    """Make this process end when its parent, process ``parent``, does, even by kill -9. Called by a child at start.

    On Linux the kernel sends SIGTERM; elsewhere a thread looks once a second.
    """
    die_with_parent(signal.SIGTERM)
    if orphaned(parent):
        os._exit(0)

    def watch() -> None:
        never = threading.Event()
        while not never.wait(1.0):
            if orphaned(parent):
                os.kill(os.getpid(), signal.SIGTERM)
                return

    threading.Thread(target=watch, name="parent", daemon=True).start()


def spawn(spec: Spec, log: Path) -> subprocess.Popen[bytes]:
    """Start a child in a session of its own (Ctrl-C on the terminal is the supervisor's), with a log of its own."""
    with log.open("ab") as output:
        return subprocess.Popen(
            spec.command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )


class Supervisor:
    """Starts, watches, restarts and stops the children of one site.

    Args:
        specs: the children, in the order of their start.
        logs: folder of their logs.
        runtime: folder for the lock and the status file (see orchestrator.runtime).
        drain: s that a child may take to stop.
        log_size: bytes at which a log is turned over.
        about: what else goes into the status file (the page's address and the like).
        start: starts a process; tests bring their own.
    """

    def __init__(
        self,
        specs: Iterable[Spec],
        *,
        logs: Path,
        runtime: Path,
        drain: float,
        log_size: float = 20e6,
        about: dict[str, Any] | None = None,
        start: Callable[[Spec, Path], Process] = spawn,
    ) -> None:
        self.children = [Child(spec, logs / f"{spec.name}.log") for spec in specs]
        self.stopping = False
        self.news: list[str] = []  # sentences for whoever shows them; that one empties the list
        self._runtime = runtime
        self._logs = logs
        self._drain = drain
        self._log_size = log_size
        self._about = about or {}
        self._start = start
        self._deadline = 0.0
        self._last_deadline: float | None = None
        self._next_look = 0.0
        self._written = ""
        logs.mkdir(parents=True, exist_ok=True)
        runtime.mkdir(parents=True, exist_ok=True)

    # -- the loop's body

    def tick(self, now: float) -> None:
        """Do all that is due at ``now`` (s, monotonic): see who died, start who may, turn logs over, say how it is."""
        for child in self.children:
            if child.process is not None:
                code = child.process.poll()
                if code is not None:
                    self._bury(child, code, now)
                elif child.state == "starting":
                    self._ask_ready(child)
        if self.stopping:
            self._go_on_stopping(now)
        else:
            self._start_due(now)
        if now >= self._next_look:
            self._next_look = now + 5.0
            for child in self.children:
                turn_over(child.log, self._log_size)
        self._write_status()

    def add(self, spec: Spec) -> None:
        """One more child, started at the next tick as the others were."""
        self.children.append(Child(spec, self._logs / f"{spec.name}.log"))

    @property
    def ready(self) -> bool:
        """Whether every child has come up (or has finished its work)."""
        return all(child.state in ("running", "finished") for child in self.children)

    @property
    def over(self) -> bool:
        """Whether stopping is complete."""
        return self.stopping and all(child.process is None for child in self.children)

    def say(self, **about: Any) -> None:
        """What the status file says besides, from now on."""
        self._about = {**self._about, **about}

    def child(self, name: str) -> Child:
        """The child of that name."""
        return next(child for child in self.children if child.spec.name == name)

    # -- starting

    def _start_due(self, now: float) -> None:
        for child in self.children:
            if child.process is None and child.state == "waiting" and now >= child.not_before:
                self._spawn(child, now)
            if child.spec.ready is not None and not child.was_ready:
                return  # those further down need it

    def _spawn(self, child: Child, now: float) -> None:
        try:
            child.process = self._start(child.spec, child.log)
        except OSError as error:
            child.ended = f"could not be started: {error}"
            self._wait_longer(child, now)
            return
        child.started = now
        child.created = _created(child.process.pid)
        child.state = "running" if child.spec.ready is None else "starting"

    def _ask_ready(self, child: Child) -> None:
        if child.spec.ready is None or not child.spec.ready():
            return
        if not child.was_ready and child.spec.prepare is not None:
            try:
                child.spec.prepare()
            except DatabaseError as error:
                if not error.transient:
                    raise
                return  # it went away again in between: the next tick asks anew
        child.was_ready = True
        child.state = "running"
        self.news.append(f"{child.spec.name} is up")

    # -- dying

    def _bury(self, child: Child, code: int, now: float) -> None:
        if child.process is not None:
            end_group(child.process.pid)  # whatever it started must not outlive it
        child.process = None
        child.exit_code = code
        child.ended = f"{_meaning(code)}{last_words(child.log)}"
        if self.stopping:
            child.state = "stopped"
        elif child.spec.once and code == 0:
            child.state = "finished"
        elif code in HOPELESS:
            child.state = "given up"
            self.news.append(f"{child.spec.name} {child.ended} (not started again: see {child.log})")
        else:
            if now - child.started > SETTLED:
                child.wait = FIRST_WAIT
            child.restarts += 1
            self.news.append(f"{child.spec.name} {child.ended} (again in {child.wait:g} s)")
            self._wait_longer(child, now)

    def _wait_longer(self, child: Child, now: float) -> None:
        child.state = "waiting"
        child.not_before = now + child.wait
        child.wait = min(LONGEST_WAIT, 2 * child.wait)

    # -- stopping

    def stop(self, now: float) -> None:
        """Begin to stop: all drain, the database goes last. A second call ends everything at once."""
        if self.stopping:
            self._deadline = now
            self._last_deadline = now
            return
        self.stopping = True
        self._deadline = now + self._drain + GRACE
        for child in self.children:
            if child.process is None:
                child.state = "stopped" if child.state != "finished" else child.state
            elif not child.spec.last:
                send(child.process.pid, signal.SIGTERM)

    def _go_on_stopping(self, now: float) -> None:
        alive = [c for c in self.children if c.process is not None and not c.spec.last]
        if alive:
            if now >= self._deadline:
                for child in alive:
                    end_group(child.process.pid if child.process else 0)
            return
        for child in self.children:
            if child.process is None:
                continue
            if self._last_deadline is None:
                send(child.process.pid, signal.SIGTERM)
            elif now >= self._last_deadline:
                end_group(child.process.pid)
        if self._last_deadline is None:
            self._last_deadline = now + DATABASE_GRACE

    # -- telling

    def status(self) -> dict[str, Any]:
        """The state of everything, as the status file holds it."""
        return {
            "pid": os.getpid(),
            "stopping": self.stopping,
            **self._about,
            "children": [
                {
                    "name": child.spec.name,
                    "state": child.state,
                    "pid": child.process.pid if child.process else None,
                    "created": child.created if child.process else None,
                    "restarts": child.restarts,
                    "ended": child.ended,
                    "log": str(child.log),
                }
                for child in self.children
            ],
        }

    def _write_status(self) -> None:
        text = json.dumps(self.status(), indent=1)
        if text != self._written:
            with contextlib.suppress(OSError):  # a full disk must not end the supervisor: the next tick tries again
                write_atomically(self._runtime / STATUS, text)
                self._written = text


def _meaning(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
        return f"killed by signal {-code}"
    return f"ended with exit code {code}"


def _created(pid: int) -> float:
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return 0.0
