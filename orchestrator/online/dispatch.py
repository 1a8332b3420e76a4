"""Which worker gets which spill: joining, acknowledging, dying, and every spill done once. Pure.

A worker has *joined* when it has said who it is, is *configured* when it has acknowledged the modules and versions, and
*born* for a run when its modules have gone through their birth. Only born ones get spills. A few are given ahead, so
that none waits; what a dead one held goes back to the front. Its first unfinished spill is a *suspect*: it was
probably being worked on. A suspect is given to an idle worker and nothing behind it, so that the next death is surely
its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

LOOK_AHEAD = 0.1  # s of expected work that a worker holds, so that a round trip and a group of writes fit in
FEWEST, MOST = 2, 64  # spills that a worker holds: one in hand and one waiting; and what a death may cost again
MOST_BYTES = 32 * 2**20  # bytes that a worker holds beyond the fewest
GRACE = 2.0  # s beyond the time limit: the worker ends itself first and leaves a trace in its log
AGAIN = 10.0  # s until a worker whose birth failed is asked again
REFUSED = 100  # names of refused workers that are remembered, besides those that must be there


@dataclass(slots=True)
class Task:
    """A spill on its way. ``order``: its place among all items of the input. ``deaths``: workers that died of it."""

    order: int
    number: int
    payload: bytes
    deaths: int = 0


@dataclass
class Worker:
    """What is known of a worker. ``state``: joined, configured, birth (asked), unborn (its birth failed) or born.

    ``since``: when it was given what it has in hand, s, monotonic. ``seconds``: mean time of its spills.
    """

    key: bytes
    name: str
    where: str = ""
    state: str = "joined"
    reason: str = ""
    serial: int = 0
    tasks: dict[int, Task] = field(default_factory=dict)
    held: int = 0
    since: float = 0.0
    again: float = 0.0
    done: int = 0
    seconds: float | None = None

    @property
    def room(self) -> int:
        """How many spills it should hold."""
        if self.seconds is None:
            return FEWEST
        return max(FEWEST, min(MOST, int(LOOK_AHEAD / max(self.seconds, 1e-6))))


class Dispatcher:
    """All workers and the spills that wait for them.

    Args:
        tries: workers that may die of one spill before it has failed.
        timeout: s that one spill, or one birth, may take.
        expected: names of the workers that must have been there before the first run may start.
    """

    def __init__(self, *, tries: int, timeout: float, expected: Iterable[str] = ()) -> None:
        self.tries, self.timeout = tries, timeout
        self.expected = frozenset(expected)
        self.workers: dict[bytes, Worker] = {}
        self.refused: dict[str, str] = {}  # names, with why
        self.ready: deque[Task] = deque()
        self.suspects: deque[Task] = deque()
        self.deaths = 0
        self.results = 0
        self.useful: dict[str, int] = {}  # by name: spills done in the life that is on, or was the last

    # -- workers

    def joined(self, key: bytes, name: str, where: str, now: float) -> list[tuple[Task, str]]:
        """A worker reports, perhaps once more. Returns the spills that failed because it had died before."""
        failed: list[tuple[Task, str]] = []
        for old in [one.key for one in self.workers.values() if one.key == key or one.name == name]:
            failed += self.gone(old, "has joined anew")
        self.workers[key] = Worker(key, name, where, since=now)
        self.useful[name] = 0
        return failed

    def acknowledged(self, key: bytes, differs: str) -> bool:
        """It has the configuration, or says (or is found to) differ. Returns whether it may work."""
        worker = self.workers.get(key)
        if worker is None or worker.state != "joined":
            return worker is not None
        if differs:
            del self.workers[key]
            self.refused[worker.name] = differs
            for name in [one for one in self.refused if one not in self.expected][:-REFUSED]:
                del self.refused[name]
            return False
        self.refused.pop(worker.name, None)
        worker.state = "configured"
        return True

    def ask(self, serial: int, now: float) -> Iterator[Worker]:
        """Workers that must now be born for the run with this serial number."""
        for worker in self.workers.values():
            due = worker.state == "unborn" and now >= worker.again
            if worker.state == "configured" or due or (worker.state in ("born", "unborn") and worker.serial != serial):
                worker.state, worker.serial, worker.since = "birth", serial, now
                yield worker

    def born(self, key: bytes, serial: int, error: str, now: float) -> None:
        """A birth has come to its end."""
        worker = self.workers.get(key)
        if worker is None or worker.state != "birth" or worker.serial != serial:
            return
        worker.state, worker.reason = ("unborn", error) if error else ("born", "")
        worker.again = now + AGAIN

    def overdue(self, now: float) -> list[Worker]:
        """Those that take longer than they may."""
        limit = self.timeout + GRACE
        return [
            one for one in self.workers.values()
            if now - one.since > limit and (one.tasks or one.state in ("joined", "birth"))
        ]  # fmt: skip

    def gone(self, key: bytes, why: str, *, fatal: bool = False, blame: bool = True) -> list[tuple[Task, str]]:
        """A worker is no more. Returns the spills that have failed by it, with the reason.

        ``fatal``: the spill that it had in hand has failed whatever it was. ``blame`` False: it ended in good order.
        """
        worker = self.workers.pop(key, None)
        if worker is None:
            return []
        self.deaths += blame
        if worker.name not in self.expected:
            self.useful.pop(worker.name, None)  # nobody starts it again from here, and there may be ever new names
        held = list(worker.tasks.values())
        failed: list[tuple[Task, str]] = []
        if held and blame:
            first = held.pop(0)
            first.deaths += 1
            if fatal:
                failed.append((first, f"the worker {worker.name} {why}"))
            elif first.deaths >= self.tries:
                failed.append((first, f"{first.deaths} workers died of it, the last one: {worker.name} {why}"))
            else:
                self.suspects.append(first)
        for task in reversed(held):
            if task.deaths:
                self.suspects.append(task)
            else:
                self.ready.appendleft(task)
        return failed

    def dead(self, serial: int) -> list[Worker]:
        """The run is over: those that were born for it, or are about to be, go through death."""
        found = [one for one in self.workers.values() if one.serial == serial and one.state in ("born", "birth")]
        for worker in found:
            worker.state = "configured"
        return found

    # -- spills

    def add(self, task: Task) -> None:
        """One more to do."""
        self.ready.append(task)

    def result(self, key: bytes, order: int, seconds: float, now: float) -> Task | None:
        """A worker has done a spill; None where that was not its to do (any more)."""
        worker = self.workers.get(key)
        task = worker.tasks.pop(order, None) if worker else None
        if worker is None or task is None:
            return None
        worker.held -= len(task.payload)
        worker.since = now
        worker.done += 1
        self.results += 1
        self.useful[worker.name] = worker.done
        worker.seconds = seconds if worker.seconds is None else 0.8 * worker.seconds + 0.2 * seconds
        return task

    def gives(self, now: float) -> Iterator[tuple[Worker, Task]]:
        """What to send to whom now; whoever iterates must send it."""
        if not self.ready and not self.suspects:
            return
        born = [one for one in self.workers.values() if one.state == "born"]
        if not born:
            return
        born.sort(key=lambda one: len(one.tasks))
        free = [one for one in born if not any(task.deaths for task in one.tasks.values())]
        for worker in [one for one in free if not one.tasks]:
            if not self.suspects:
                break
            free.remove(worker)
            yield worker, self._give(worker, self.suspects.popleft(), now)
        if self.suspects and free:
            free.pop(0)  # it gets nothing new until it is idle, and then the suspect
        hungry = True
        while self.ready and hungry:
            hungry = False
            for worker in free:
                if self.ready and self._takes(worker):
                    hungry = True
                    yield worker, self._give(worker, self.ready.popleft(), now)

    def _takes(self, worker: Worker) -> bool:
        held = len(worker.tasks)
        return held < FEWEST or (held < worker.room and worker.held < MOST_BYTES)

    def _give(self, worker: Worker, task: Task, now: float) -> Task:
        if not worker.tasks:
            worker.since = now
        worker.tasks[task.order] = task
        worker.held += len(task.payload)
        return task

    # -- looking

    @property
    def names(self) -> set[str]:
        """Of the workers that are born."""
        return {one.name for one in self.workers.values() if one.state == "born"}

    def missing(self) -> list[str]:
        """Expected workers that have not reported, or were refused."""
        there = {one.name for one in self.workers.values()}
        return sorted(self.expected - there)

    def refusal(self) -> str | None:
        """Once each expected worker has reported: the sentence that names all that differ, None if none does."""
        reported = {one.name for one in self.workers.values() if one.state != "joined"} | set(self.refused)
        bad = {name: why for name, why in self.refused.items() if name in self.expected}
        if not bad or not self.expected <= reported:
            return None
        return "no run may start: " + "; ".join(f"the worker {name} {why}" for name, why in sorted(bad.items()))
