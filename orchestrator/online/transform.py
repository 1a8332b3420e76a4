"""The transform without its sockets and threads: runs one after the other, each spill done once, counts that close.

What comes from outside is told by method calls; what is to be done outside comes as commands out of :meth:`pump`.
Nothing here waits, reads a clock, or knows how a spill is kept.

A run's life: *opening* (what has the store of it?), *beginning* (it is being written down), *birth* (workers prepare),
*running*, *ending* (its last spill has been read), *closing* (its end is being written down). Spills of the next run
wait meanwhile. A run that the store has as ended is *dormant*: only a spill that is not there yet begins it once more.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from orchestrator.online.commands import Begin, Birth, Command, Configure, Death, End, Give, Keep, Open, Refuse
from orchestrator.online.dispatch import Dispatcher, Task
from orchestrator.online.ledger import Ledger
from orchestrator.online.numbers import Numbers
from orchestrator.online.run import Run
from orchestrator.online.spill import EndOfRun, Item, Spill, StartOfRun
from orchestrator.online.store import Outcome


@dataclass(slots=True)
class Entry:
    """An item of the input that was read and not looked at yet; ``payload``: a spill's bytes."""

    order: int
    item: Item
    payload: bytes = b""


class Transform:
    """Runs, spills and workers of one online system.

    Args:
        workers: who does the work.
        position: of the input, from where it is read.
        most: items that may be on their way at once; with more the input is held back.
        most_bytes: the same in bytes of packed spills. With as many bytes of results that wait for the store, workers
            get nothing new: a spill that refers to a file comes back far larger than it went.
    """

    def __init__(
        self, workers: Dispatcher, *, position: Any = None, most: int = 2000, most_bytes: int = 256 * 2**20
    ) -> None:
        self.workers = workers
        self.ledger = Ledger(position)
        self.run: Run | None = None
        self.last: Run | None = None  # the one before, whose end is written down
        self.runs = 0
        self.over = False
        self._most, self._most_bytes = most, most_bytes
        self._backlog: deque[Entry] = deque()
        self._out: list[Command] = []
        self._stopping = False
        self.started = False  # the first run's spills are being worked on, or were

    # -- the input

    @property
    def room(self) -> bool:
        """Whether the input may go on."""
        return self.ledger.open < self._most and self.ledger.held < self._most_bytes

    def read(self, item: Item, payload: bytes, position: Any) -> None:
        """The input has an item; afterwards it stands at ``position``. ``payload``: a spill, packed."""
        order = self.ledger.add(position, len(payload))
        self._backlog.append(Entry(order, item, payload))

    def resume(self, run: str) -> None:
        """An earlier life left this run without its end. To be called before anything is read."""
        self.read(StartOfRun(run), b"", self.ledger.position)

    def quiet(self) -> None:
        """Nothing has come for the time after which a run has ended."""
        if self.run is not None and self.run.state == "running" and not self._backlog:
            self._finish(self.run, EndOfRun(self.run.name, "time-out"), None)

    def stop(self) -> None:
        """Begin nothing more: what workers have in hand may come in, all else is left to the next life."""
        self._stopping = True

    def finished(self) -> None:
        """The input has nothing more."""
        self.over = True

    # -- the store

    def opened(self, run: Run, known: dict[int, bool], state: str, header: dict[str, Any]) -> None:
        """What the store has of a run: numbers with whether they failed; ``state`` is its record's, '' without one."""
        run.known = Numbers(known)
        run.failed = sum(known.values())
        run.done = len(known) - run.failed
        run.read = len(known)
        run.header = run.header or header
        if state in ("", "begun"):
            self._begin(run, self.ledger.at(run.first))
        else:
            run.state = "dormant"
            self._opened_by(run)

    def begun(self, run: Run) -> None:
        """The run is written down."""
        run.state = "birth"
        self._opened_by(run)

    def stored(self, run: Run, numbers: list[int]) -> None:
        """Outcomes are in the store."""
        for number in numbers:
            order, failed = run.keeping.pop(number)
            run.failed += failed
            run.done += not failed
            self.ledger.settle(order)

    def ended(self, run: Run) -> None:
        """The run's end is written down."""
        self._out += [Death(worker.key) for worker in self.workers.dead(run.serial)]
        if run.last is not None:
            self.ledger.settle(run.last)
        self.run, self.last = None, run

    # -- the workers

    def joined(self, key: bytes, name: str, where: str, now: float) -> None:
        """A worker has said who it is."""
        self._failed(self.workers.joined(key, name, where, now))
        self._out.append(Configure(key))

    def acknowledged(self, key: bytes, differs: str) -> None:
        """A worker has acknowledged the configuration; ``differs`` says what is not as it is here."""
        if not self.workers.acknowledged(key, differs):
            self._out.append(Refuse(key, differs or "is not known here"))

    def born(self, key: bytes, serial: int, error: str, now: float) -> None:
        """A worker's modules are ready for a run, or could not be made so."""
        self.workers.born(key, serial, error, now)

    def result(self, key: bytes, order: int, outcome: Outcome, now: float) -> bool:
        """A worker's outcome of a spill. Returns False where it is not wanted any more."""
        task = self.workers.result(key, order, outcome.seconds, now)
        if task is None or self.run is None:
            return False
        outcome.number = task.number
        if outcome.failed and outcome.packed is None:
            outcome.packed = task.payload
        self._keep(task, outcome)
        return True

    def gone(self, key: bytes, why: str, *, fatal: bool = False, blame: bool = True) -> None:
        """A worker is no more; see ``Dispatcher.gone``."""
        worker = self.workers.workers.get(key)
        self._failed(self.workers.gone(key, why, fatal=fatal, blame=blame), worker.name if worker else "")

    # -- what follows

    def pump(self, now: float) -> list[Command]:
        """All that is to be done outside now, in order."""
        while not self._stopping and self._advance():
            pass
        run = self.run
        if run is not None and not self._stopping and run.state in ("birth", "running", "ending"):
            self._out += [Birth(worker.key, run) for worker in self.workers.ask(run.serial, now)]
            if self.ledger.waiting < self._most_bytes:
                self._out += [Give(worker.key, task) for worker, task in self.workers.gives(now)]
        found, self._out = self._out, []
        return found

    @property
    def finished_all(self) -> bool:
        """Whether the input has ended and nothing is left to do."""
        return self.over and self.run is None and not self._backlog

    def waits_for(self) -> str:
        """Why no spill is being worked on, or nothing."""
        if self.run is None or self.run.state != "birth":
            return ""
        unborn = [f"{one.name}: {one.reason}" for one in self.workers.workers.values() if one.state == "unborn"]
        if unborn:
            return f"run {self.run.name} cannot start: " + "; ".join(sorted(unborn))
        missing = [] if self.started else self.workers.missing()
        if missing:
            return "waiting for workers that have not reported: " + ", ".join(missing)
        if self.workers.workers:
            return "workers prepare for the run"
        refused = "; ".join(f"{name} {why}" for name, why in sorted(self.workers.refused.items()))
        return f"waiting for a worker; refused: {refused}" if refused else "waiting for a worker"

    def _advance(self) -> bool:
        """One step of the run that is on. Returns whether there may be another."""
        run = self.run
        if run is None:
            return bool(self._backlog) and self._next_run()
        if run.state == "dormant":
            return self._look_for_new(run)
        if run.state == "birth":
            if not self._may_start():
                return False
            self.started = True
            run.state = "running"
        if run.state == "running":
            self._consume(run)
        if run.state == "ending" and run.end is not None and run.pending == 0:
            run.state = "closing"
            self._out.append(End(run, run.end, self.ledger.at(run.last)))
        return False

    def _next_run(self) -> bool:
        entry = self._backlog[0]
        if isinstance(entry.item, EndOfRun):
            self._drop_first()
            return True
        self.runs += 1
        self.run = run = Run(entry.item.run, self.runs)
        if isinstance(entry.item, StartOfRun):
            run.header, run.first = dict(entry.item.header), entry.order
            self._backlog.popleft()
        self._out.append(Open(run))
        return False

    def _look_for_new(self, run: Run) -> bool:
        while self._backlog:
            item = self._backlog[0].item
            if item.run != run.name:
                self.run = None
                return True
            if isinstance(item, Spill) and item.number not in run.known:
                self._begin(run, self.ledger.position)
                return False
            run.again += isinstance(item, Spill)
            self._drop_first()
            if isinstance(item, EndOfRun):
                self.run = None
                return True
        if self.over:
            self.run = None
        return False

    def _begin(self, run: Run, position: Any) -> None:
        run.state = "beginning"
        self._out.append(Begin(run, position))

    def _opened_by(self, run: Run) -> None:
        if run.first is not None:
            self.ledger.settle(run.first)
            run.first = None

    def _may_start(self) -> bool:
        """The first run starts when all expected workers are ready for it, a later one when all that are there are."""
        workers = self.workers.workers.values()
        if not workers or any(one.state != "born" for one in workers):
            return False
        return self.started or self.workers.expected <= self.workers.names

    def _consume(self, run: Run) -> None:
        while self._backlog:
            entry = self._backlog[0]
            item = entry.item
            if isinstance(item, Spill) and item.run == run.name:
                if run.known.add(item.number):
                    self._backlog.popleft()
                    run.read += 1
                    self.workers.add(Task(entry.order, item.number, entry.payload))
                else:
                    run.again += 1
                    self._drop_first()
            elif isinstance(item, EndOfRun):
                if item.run == run.name:
                    self._backlog.popleft()
                    self._finish(run, item, entry.order)
                    return
                self._drop_first()
            elif item.run == run.name:
                self._drop_first()
            else:
                self._finish(run, EndOfRun(run.name, "next run"), None)
                return
        if self.over:
            self._finish(run, EndOfRun(run.name, "end of input"), None)

    def _finish(self, run: Run, end: EndOfRun, order: int | None) -> None:
        run.state, run.end, run.last = "ending", end, order

    def _failed(self, failed: list[tuple[Task, str]], worker: str = "") -> None:
        for task, why in failed:
            self._keep(task, Outcome(task.number, task.payload, error=why, worker=worker))

    def _keep(self, task: Task, outcome: Outcome) -> None:
        assert self.run is not None  # a run ends only when none of its spills is on its way
        self.run.keeping[task.number] = (task.order, outcome.failed)
        self.ledger.resulted(task.order, len(outcome.packed or b""))
        self._out.append(Keep(self.run, outcome))

    def _drop_first(self) -> None:
        self.ledger.settle(self._backlog.popleft().order)
