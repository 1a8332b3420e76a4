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
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from orchestrator.executors import blame, limits
from orchestrator.executors.events import LOST, BatchDone, Event, Progressed, Returned
from orchestrator.executors.process import Batch, Worker, drain
from orchestrator.executors.spool import Spool
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

    # --- how much there is to do ---

    def outstanding(self) -> int:
        """How many tasks have been handed out and not been reported."""
        return sum(worker.outstanding() for worker in self._workers.values())

    def budget(self) -> float:
        """Worker time (s) for which there is room; 0 while workers die at birth or the pool closes."""
        if self._closing or self._monotonic() < self._no_birth_before:
            return 0.0
        return sum(max(0.0, self._depth - load) for load in self._loads())

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

    def processes(self) -> list[int]:
        """The numbers of the workers' processes, each of which leads its group."""
        return [worker.process.pid for worker in self._workers.values()]

    # --- handing out ---

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
        self._numbers += 1
        worker = Worker.birth(slot, f"{self._name}-worker-{self._numbers}", self._chain, self._places)
        worker.heard = self._monotonic()
        self._workers[slot] = worker
        self._selector.register(worker.reader, selectors.EVENT_READ, worker)
        return worker

    def _stillborn(self, why: str, tasks: list[Task]) -> None:
        """No worker can be made: wait before the next attempt, and let others have the tasks."""
        if self.next_birth() == 0:  # of several that fail together, one counts
            log.error("%s; the next attempt is in %.0f s", why, self._birth_wait)
            self._no_birth_before = self._monotonic() + self._birth_wait
            self._birth_wait = min(2 * self._birth_wait, LONGEST_BIRTH_WAIT)
        if tasks:
            self._events.append(Returned(tasks, why))

    def _send(self, worker: Worker) -> None:
        """Write what the worker's pipe takes; the rest waits until it is ready for more."""
        waits = worker.writer in self._selector.get_map()
        if not worker.send():
            if not waits:
                self._selector.register(worker.writer, selectors.EVENT_WRITE, worker)
        elif waits:
            self._selector.unregister(worker.writer)

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
                self._look(worker, now)
        happened = list(self._events)
        self._events.clear()
        return happened

    def _read(self, worker: Worker) -> None:
        lines, ended = worker.read()
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

    # --- limits ---

    def call_off(self, attempt: str, why: str) -> None:
        """End an attempt that nobody wants any more, now or when its turn comes; its report says ``why``."""
        self._called_off[attempt] = why

    def _look(self, worker: Worker, now: float) -> None:
        """Whether it lives, is born in time, and its attempt keeps its limits."""
        if worker.has_ended():
            self._read(worker)  # what it still said
            if self._workers.get(worker.number) is worker:
                self._death(worker)  # its pipe is open yet: something that it started holds the other end
        elif not worker.born:
            if now - worker.heard > BIRTH_LIMIT:
                worker.kill()
        elif worker.batches:
            if now - worker.heard >= LIMIT_CHECK:
                self._overhear(worker, now)
            if worker.batches[0].tasks and worker.verdict is None:
                self._judge(worker, worker.batches[0].tasks[0], now)

    def _overhear(self, worker: Worker, now: float) -> None:
        """Take reports from the spool: those of short steps travel together, and a long one behind holds them up."""
        for report in worker.batches[0].unheard():
            # By the wall clock, but not before it can have been: the clock may have been set since.
            ended = max(worker.heard + report.seconds, now - max(0.0, self._clock() - report.finished))
            self._reported(worker, report, min(now, ended))

    def _judge(self, worker: Worker, task: Task, now: float) -> None:
        """End the worker if the attempt that it is at is not wanted or exceeds its step's limits."""
        # Only after a moment: by then the report of one that was called off, if there is one, has been read.
        if task.attempt in self._called_off and now - worker.heard >= LIMIT_CHECK:
            worker.verdict, worker.unwanted = ("person", self._called_off.pop(task.attempt)), task.attempt
        else:
            worker.verdict = limits.exceeded(worker, task.attempt, self._chain.step(task.step), now, self._clock())
        if worker.verdict is not None:
            worker.kill()

    # --- ends ---

    def end_all(self, why: str) -> None:
        """End whatever runs, now; the reports say ``why`` and are of class LOST, what had not begun is returned."""
        for worker in list(self._workers.values()):
            if worker.batches:
                worker.verdict = (LOST, why)
                worker.kill()

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

    def _death(self, worker: Worker) -> None:
        """Clear up after a worker that has ended: blame the attempt it was making, hand back the rest."""
        worker.let_end()
        worker.kill()  # an executable that it started may be alive
        self._forget(worker)
        code = worker.code()
        if not worker.batches:
            worker.output.unlink(missing_ok=True)
            return
        for report in worker.batches[0].unheard():
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

    def _blame(self, worker: Worker, task: Task, code: int) -> Report:
        kind, reason = blame.why(worker.verdict, code, self.killed_because)
        took = max(0.0, self._monotonic() - worker.heard)
        return blame.report(task, worker.output, self._places, code, kind, reason, took, self._clock())

    def _forget(self, worker: Worker) -> None:
        if worker.writer in self._selector.get_map():
            self._selector.unregister(worker.writer)
        self._selector.unregister(worker.reader)
        worker.close()
        if self._workers.get(worker.number) is worker:
            del self._workers[worker.number]
