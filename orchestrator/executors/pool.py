"""A pool of worker processes on this machine: birth, process, death, and every worker's end noticed.

The pool never blocks but in ``events``: pipes are non-blocking, and what a worker is not ready to read waits here.
A worker that dies, takes too long or holds too much memory is replaced; the attempt it was making gets a report that
says so, the tasks behind it go back to the caller untouched.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orchestrator.capture import keep_left, output_path
from orchestrator.engine.spool import Spool, read_reports
from orchestrator.executors import hang
from orchestrator.executors.process import Batch, Worker, drain, worker_environment
from orchestrator.jobchain import ChainData
from orchestrator.lines import line_of, value_of
from orchestrator.reports import Report
from orchestrator.runner import Places, Task

log = logging.getLogger(__name__)

#: How often limits are looked at (s): a limit is exceeded by at most this, and a look costs about 0.1 ms a worker.
LIMIT_CHECK = 0.5
#: A pool whose workers die at birth waits this long (s) before it makes another, or it would do nothing else; doubled
#: each time up to the longest.
BIRTH_WAIT, LONGEST_BIRTH_WAIT = 2.0, 60.0
#: A worker that is not ready for its first task after so long (s) is ended.
BIRTH_LIMIT = 120.0
#: An idle worker that has not closed its steps in so long (s) when the pool closes is ended.
DEATH_WAIT = 10.0


@dataclass
class Progressed:
    """A step reported how far it is."""

    attempt: str
    fraction: float
    text: str


@dataclass
class Returned:
    """Tasks that were not begun because their worker died: to be handed out again.

    ``unborn`` says why no worker can be made at the moment: then they are better given back.
    """

    tasks: list[Task]
    unborn: str = ""


@dataclass
class BatchDone:
    """Every report of a batch has been handed over: its spool file may go once these attempts are recorded."""

    name: str
    attempts: frozenset[str]


Event = Report | Progressed | Returned | BatchDone

#: The class of a report of an attempt that was ended because its claim could not be renewed: no fault of the step's.
LOST = "lost"


class Pool:
    """Workers for one chain. Use from one thread; ``wake`` alone may be called from any."""

    def __init__(
        self,
        chain: ChainData,
        places: Places,
        spool: Spool,
        size: int,
        *,
        name: str,
        cost: Callable[[str], float],
        depth: float,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make ``size`` places for workers, which are born when there is work.

        ``cost`` says how long (s) an attempt of a step, by keyword, is expected to take; each worker is given tasks for
        ``depth`` seconds ahead.
        """
        self._chain, self._places, self._spool, self._size, self._name = chain, places, spool, size, name
        self._cost, self._depth = cost, depth
        self._clock, self._monotonic = clock, monotonic
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wake_lock = threading.RLock()  # re-entrant: a signal handler may come in the middle of it
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        self._workers: dict[int, Worker] = {}
        self._numbers = 0
        self._next_check = 0.0
        self._no_birth_before = 0.0
        self._birth_wait = BIRTH_WAIT
        self._events: deque[Event] = deque()
        self._called_off: dict[str, str] = {}
        #: Says why somebody else may have killed workers just now; "" for no reason that is known.
        self.killed_because: Callable[[], str] = lambda: ""
        self._closing = False

    # --- handing out ---

    def outstanding(self) -> int:
        """How many tasks have been handed out and not been reported."""
        return sum(worker.outstanding() for worker in self._workers.values())

    def budget(self) -> float:
        """Worker time (s) for which there is room; 0 while workers die at birth or the pool closes."""
        if self._closing or self._monotonic() < self._no_birth_before:
            return 0.0
        return sum(max(0.0, self._depth - load) for load in self._loads())

    def call_off(self, attempt: str, why: str) -> None:
        """End an attempt that nobody wants any more, now or when its turn comes; its report says ``why``."""
        self._called_off[attempt] = why

    def processes(self) -> list[int]:
        """The numbers of the workers' processes, each of which leads its group."""
        return [worker.process.pid for worker in self._workers.values()]

    def end_all(self, why: str) -> None:
        """End whatever runs, now; the reports say ``why`` and are of class LOST, what had not begun is returned."""
        for worker in list(self._workers.values()):
            if worker.batches:
                worker.verdict = (LOST, why)
                worker.kill()

    def next_birth(self) -> float:
        """In how many seconds a worker may be made again, if none may be now; else 0."""
        return max(0.0, self._no_birth_before - self._monotonic())

    def _loads(self) -> list[float]:
        """The expected time (s) that each worker still needs for what it has."""
        loads = []
        for slot in range(self._size):
            worker = self._workers.get(slot)
            steps = (item for batch in worker.batches for item in batch.steps.items()) if worker else ()
            loads.append(sum(count * self._cost(step) for step, count in steps if count))
        return loads

    def submit(self, tasks: list[Task]) -> None:
        """Hand tasks to the workers that have the least to do: short ones as one batch, long ones singly."""
        loads = self._loads()
        shares: list[list[Task]] = [[] for _ in range(self._size)]
        for task in tasks:
            slot = loads.index(min(loads))
            cost = self._cost(task.step)
            loads[slot] += cost
            if cost >= self._depth / 4:
                self._hand_over(slot, [task])
            else:
                shares[slot].append(task)
        for slot, share in enumerate(shares):
            if share:
                self._hand_over(slot, share)

    def _hand_over(self, slot: int, tasks: list[Task]) -> None:
        worker = self._workers.get(slot)
        if worker is None:
            try:
                worker = self._birth(slot)
            except OSError as error:
                self._stillborn(f"the system makes no process: {error}", tasks)
                return
        name, path = self._spool.new_batch()
        if not worker.batches:
            worker.heard = self._monotonic()
        worker.batches.append(Batch(name, path, deque(tasks), frozenset(task.attempt for task in tasks)))
        worker.unsent += line_of({"batch": name, "spool": str(path), "tasks": [task.to_json() for task in tasks]})
        self._send(worker)

    def _birth(self, slot: int) -> Worker:
        read, write = os.pipe2(os.O_CLOEXEC)
        self._numbers += 1
        name = f"{self._name}-worker-{self._numbers}"
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "orchestrator.worker", str(write), str(os.getpid())],
                stdin=subprocess.PIPE, pass_fds=[write], start_new_session=True, bufsize=0, env=worker_environment(),
            )  # fmt: skip
        except OSError:
            os.close(read)
            raise
        finally:
            os.close(write)
        assert process.stdin is not None
        os.set_blocking(process.stdin.fileno(), False)
        os.set_blocking(read, False)
        reader = os.fdopen(read, "rb", buffering=0)
        worker = Worker(slot, process, reader, output_path(self._places.scratch, name), heard=self._monotonic())
        hello: dict[str, Any] = {
            "name": name,
            "chain": self._chain.data(),
            "output": str(self._places.output), "scratch": str(self._places.scratch), "logs": str(self._places.logs),
            "path": [path for path in sys.path if path],
        }  # fmt: skip
        worker.unsent += line_of(hello)
        self._workers[slot] = worker
        self._selector.register(read, selectors.EVENT_READ, worker)
        return worker

    def _send(self, worker: Worker) -> None:
        """Write what the worker's pipe takes; the rest waits until it is ready for more."""
        assert worker.process.stdin is not None
        descriptor = worker.process.stdin.fileno()
        try:
            while worker.unsent:
                del worker.unsent[: os.write(descriptor, worker.unsent[: 1 << 20])]
        except BlockingIOError:
            if descriptor not in self._selector.get_map():
                self._selector.register(descriptor, selectors.EVENT_WRITE, worker)
            return
        except OSError:
            worker.unsent.clear()  # it is dead: its pipe says so when it is read
        if descriptor in self._selector.get_map():
            self._selector.unregister(descriptor)

    # --- hearing back ---

    def wake(self) -> None:
        """End a wait in ``events`` early. May be called from any thread and from a signal handler."""
        with self._wake_lock:
            if self._wake_write < 0:
                return  # closed: the number may be another file's by now
            with contextlib.suppress(BlockingIOError):
                os.write(self._wake_write, b"x")

    def events(self, timeout: float) -> list[Event]:
        """What has happened; waits up to ``timeout`` seconds for something if nothing has."""
        wait = 0.0 if self._events else max(0.0, timeout)
        if any(worker.batches for worker in self._workers.values()):
            wait = min(wait, LIMIT_CHECK)
        for key, mask in self._selector.select(wait):
            if key.data is None:
                drain(self._wake_read)
            elif mask & selectors.EVENT_WRITE:
                self._send(key.data)
            else:
                self._read(key.data)
        now = self._monotonic()
        if now >= self._next_check:
            self._next_check = now + LIMIT_CHECK
            for worker in list(self._workers.values()):
                self._check_limits(worker, now)
        happened = list(self._events)
        self._events.clear()
        return happened

    def _read(self, worker: Worker) -> None:
        ended = False
        chunks = [worker.unread]
        while True:
            try:
                chunk = worker.reader.read(1 << 20)
            except OSError:
                chunk = b""
            if not chunk:
                ended = chunk is not None  # None: nothing more to read yet
                break
            chunks.append(chunk)
        lines = b"".join(chunks).split(b"\n")
        worker.unread = lines.pop()
        for line in lines:
            try:
                self._message(worker, value_of(line))
            except (ValueError, TypeError, KeyError) as error:
                # A step wrote into the pipe. A report that was spoilt by it is in the spool too.
                log.error("a worker said what is no message, which is passed over: %s", error)
        if ended:
            self._death(worker)

    def _message(self, worker: Worker, message: dict[str, Any]) -> None:
        if "report" in message:
            self._reported(worker, Report.from_json(message["report"]), self._monotonic())
        elif "progress" in message:
            self._events.append(Progressed(message["progress"], message["fraction"], message["text"]))
            if worker.movement is not None:
                worker.movement.reports += 1
        elif "batch" in message:
            worker.heard = self._monotonic()
            if worker.batches and worker.batches[0].name == message["batch"]:
                done = worker.batches.popleft()
                self._events.append(BatchDone(done.name, done.attempts))
        elif "born" in message:
            worker.born, worker.heard, self._birth_wait = True, self._monotonic(), BIRTH_WAIT

    def _reported(self, worker: Worker, report: Report, heard: float) -> None:
        """Hand on a report of the task that is the worker's next; another one has been heard already."""
        tasks = worker.batches[0].tasks if worker.batches else ()
        if tasks and tasks[0].attempt == report.attempt:
            worker.batches[0].next()
            worker.heard = heard
            self._called_off.pop(report.attempt, None)
            self._events.append(report)

    # --- limits and deaths ---

    def _check_limits(self, worker: Worker, now: float) -> None:
        if worker.has_ended():
            self._read(worker)  # what it still said
            if self._workers.get(worker.number) is worker:
                self._death(worker)  # its pipe is open yet: something that it started holds the other end
            return
        if not worker.born:
            if now - worker.heard > BIRTH_LIMIT:
                worker.kill()
            return
        if worker.batches and now - worker.heard >= LIMIT_CHECK:
            # Reports of short steps travel together; those that a long step behind them holds up are in the spool.
            for report in _unheard(worker.batches[0]):
                # By the wall clock, but not before it can have been: the clock may have been set since.
                ended = max(worker.heard + report.seconds, now - max(0.0, self._clock() - report.finished))
                self._reported(worker, report, min(now, ended))
        if not worker.batches or not worker.batches[0].tasks or worker.verdict is not None:
            return
        step = self._chain.step(worker.batches[0].tasks[0].step)
        took = now - worker.heard
        attempt = worker.batches[0].tasks[0].attempt
        if attempt in self._called_off and took >= LIMIT_CHECK:  # by then its report, if there is one, has been read
            worker.verdict, worker.unwanted = ("person", self._called_off.pop(attempt)), attempt
        elif step.time_limit is not None and took > step.time_limit:
            worker.verdict = ("resources", f"ended after {took:.1f} s: its time limit is {step.time_limit:g} s")
        elif step.memory_limit is not None and (held := worker.resident()) > step.memory_limit:
            limit = step.memory_limit / 1e6
            worker.verdict = ("resources", f"ended with {held / 1e6:.0f} MB in memory: its limit is {limit:.0f} MB")
        elif step.hang_limit is not None:
            worker.verdict = hang.verdict(worker, attempt, step.hang_limit, now, self._clock())
        if worker.verdict is not None:
            worker.kill()

    def _death(self, worker: Worker) -> None:
        """Clear up after a worker that has ended: blame the attempt it was making, hand back the rest."""
        worker.let_end()
        worker.kill()  # an executable that it started may be alive
        self._forget(worker)
        code = worker.code()
        if not worker.batches:
            worker.output.unlink(missing_ok=True)
            return
        for report in _unheard(worker.batches[0]):
            self._reported(worker, report, self._monotonic())
        if not worker.born and not self._closing:
            tasks = [task for batch in worker.batches for task in batch.tasks]
            self._stillborn(f"no worker could be started (exit code {code})", tasks)
            return
        returned: list[Task] = []
        for batch in worker.batches:
            if batch is worker.batches[0] and batch.tasks and not self._closing and worker.blames(batch.tasks[0]):
                self._events.append(self._blame(worker, batch.next(), code))
            returned.extend(batch.tasks)
            self._events.append(BatchDone(batch.name, batch.attempts))
        if returned:
            self._events.append(Returned(returned))

    def _stillborn(self, why: str, tasks: list[Task]) -> None:
        """No worker can be made: wait before the next attempt, and let others have the tasks."""
        if self.next_birth() == 0:  # of several that fail together, one counts
            log.error("%s; the next attempt is in %.0f s", why, self._birth_wait)
            self._no_birth_before = self._monotonic() + self._birth_wait
            self._birth_wait = min(2 * self._birth_wait, LONGEST_BIRTH_WAIT)
        if tasks:
            self._events.append(Returned(tasks, why))

    def _forget(self, worker: Worker) -> None:
        assert worker.process.stdin is not None
        if worker.process.stdin.fileno() in self._selector.get_map():
            self._selector.unregister(worker.process.stdin.fileno())
        self._selector.unregister(worker.reader)
        worker.reader.close()
        try:
            worker.process.stdin.close()
        except BrokenPipeError:
            log.debug("worker %s ended with unread commands", worker.number)
        if self._workers.get(worker.number) is worker:
            del self._workers[worker.number]

    def _blame(self, worker: Worker, task: Task, code: int) -> Report:
        took = max(0.0, self._monotonic() - worker.heard)
        now = self._clock()
        if worker.verdict is not None:
            kind, reason = worker.verdict
        elif code == -signal.SIGKILL and (why := self.killed_because()):
            kind, reason = LOST, why
        elif code == -signal.SIGKILL:
            kind, reason = "resources", "its worker was killed (signal 9), as the kernel does when memory runs out"
        elif code == -signal.SIGXCPU:
            kind, reason = "resources", "its worker used up the CPU time that it may have (signal 24)"
        elif code < 0:
            kind, reason = "code", f"its worker crashed: signal {-code} ({signal.strsignal(-code)})"
        else:
            kind, reason = "code", f"the step ended its worker with exit code {code}"
        name = str(task.document.get("_id"))
        # What it printed last may say why it died.
        kept, tail = keep_left(worker.output, self._places.logs / task.step, f"{name}.{task.attempt}")
        shutil.rmtree(self._places.scratch / task.attempt, ignore_errors=True)
        return Report(
            name, task.step, task.attempt, started=now - took, finished=now, seconds=round(took, 3),
            exit_code=code, error_class=kind, reason=reason, log=kept, log_tail=tail,
        )  # fmt: skip

    def close(self) -> list[Event]:
        """End every worker now; the last reports, and the tasks that were not finished as Returned."""
        self._closing = True
        for worker in list(self._workers.values()):
            if worker.batches:
                worker.kill()
                worker.code()
                self._read(worker)
                if self._workers.get(worker.number) is worker:
                    self._death(worker)
                continue
            self._forget(worker)  # closing its standard input lets an idle worker close its steps and go
            try:
                worker.process.wait(timeout=DEATH_WAIT)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.code()
        self._selector.close()
        with self._wake_lock:
            os.close(self._wake_read)
            os.close(self._wake_write)
            self._wake_write = -1
        return list(self._events)


def _unheard(batch: Batch) -> list[Report]:
    """Reports that the worker spooled but could not send before it ended."""
    expected = {task.attempt for task in batch.tasks}
    return [report for report in read_reports(batch.spool) if report.attempt in expected]
