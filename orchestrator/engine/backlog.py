"""Documents that are known to be ready, in memory: carried from the feed and the views to the claim, never read twice.

Bounded: what does not fit is left in the database, whose view has it all the same, and ``more`` says so. Pure: the time
and the source of randomness come in.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

from orchestrator.chain import Chain, Step
from orchestrator.clock import Jumps
from orchestrator.documents import Document, longest_wait, not_before, ready_step

#: Documents held in memory at most, of those that could be claimed at once and, apart from them, of those whose retry
#: is not due: at a few kB each some MB. A sweep fetches the next when few remain. They are counted apart because
#: a full disk may send thousands to wait for an hour, and what is ready must not wait with them.
LIMIT = 2000
#: Priorities beyond this count as this: a number in somebody's document may be too large for a float.
PRIORITY = 10**15
#: Dead notes in a heap are cleared out when they are more than the living ones by so many.
SLACK = 64


class Backlog:
    """Ready documents of the steps that this poller serves, in the order in which they should be claimed."""

    def __init__(self, chain: Chain, steps: Iterable[Step], limit: int = LIMIT) -> None:
        self._chain, self._steps, self._limit = chain, tuple(steps), limit
        self._ready: dict[str, tuple[Document, Step, int]] = {}
        self._later: dict[str, tuple[Document, Step, int]] = {}
        self._order: list[tuple[tuple[float, int], int, str]] = []
        self._waiting: list[tuple[float, int, str]] = []
        self._count = 0
        self._jumps = Jumps()
        #: Whether documents were turned away for want of room since ``more`` was last set to False.
        self.more = False

    def __len__(self) -> int:
        return len(self._ready) + len(self._later)

    def room(self) -> int:
        """How many more documents that can be claimed at once would be kept."""
        return self._limit - len(self._ready)

    def short(self) -> bool:
        """Whether there is more in the database, and room for it worth a request."""
        return self.more and len(self._ready) < self.room()

    def offer(self, document: Document, now: float) -> bool:
        """Take note of a document as it is now: kept if a step of ours is ready, forgotten if none is any more."""
        name = str(document["_id"])
        step = None if document.get("_deleted") else ready_step(self._chain, document, self._steps)
        if step is None:
            self.forget(name)
            return False
        known = self._ready.get(name) or self._later.get(name)
        if known is not None and known[1] is step and document.get("_rev") == known[0].get("_rev") is not None:
            return True  # seen again by a sweep: it keeps its place, and the heaps do not grow
        # A retry never waits for longer than its policy says: what asks for more was written by a clock that is wrong.
        due = min(not_before(document, step), now + longest_wait(document, step))
        kept, others = (self._later, self._ready) if due > now else (self._ready, self._later)
        if name not in kept and len(kept) >= self._limit:
            self.more = self.more or kept is self._ready  # who waits is found by a later sweep
            if kept is self._later or not self._make_way(_rank(document, step)[0]):
                others.pop(name, None)
                return False
        self._count += 1
        others.pop(name, None)
        kept[name] = (document, step, self._count)
        if due > now:
            heapq.heappush(self._waiting, (due, self._count, name))
        else:
            heapq.heappush(self._order, (_rank(document, step), self._count, name))
        self._tidy()
        return True

    def serve(self, steps: Iterable[Step]) -> None:
        """From now on keep documents of these steps alone. What others become ready for is found by a sweep."""
        self._steps = tuple(steps)
        keys = {step.key for step in self._steps}
        for name, (_, step, _) in [*self._ready.items(), *self._later.items()]:
            if step.key not in keys:
                self.forget(name)

    def clock(self, now: float, steady: float) -> None:
        """What the wall clock (s since 1970) says, and one that is never set."""
        if self._jumps.moved(now, steady):
            self.clock_set(now)

    def clock_set(self, now: float) -> None:
        """The wall clock was set, and says ``now``: who waits for its retry is looked at again."""
        waiting = [document for document, _, _ in self._later.values()]
        self._later.clear()
        for document in waiting:
            self.offer(document, now)

    def _make_way(self, rank: float) -> bool:
        """Let one document of lower priority go, in favour of one that ranks before it; whether there was one.

        The last note of the heap is looked at alone: it is a leaf, so it may go without disturbing the order, and what
        came last is rarely the most urgent. Who is let go is found again by a sweep.
        """
        while self._order:
            last, count, name = self._order[-1]
            alive = self._lives(self._ready, name, count)
            if alive and last[0] <= rank:
                return False
            self._order.pop()
            if alive:
                del self._ready[name]
                return True
        return False

    def forget(self, name: str) -> None:
        """The document is nobody's to claim here any more, as far as is known."""
        self._ready.pop(name, None)
        self._later.pop(name, None)

    def claimable(self) -> bool:
        """Whether something could be claimed at once."""
        return bool(self._ready)

    def next_due(self) -> float | None:
        """When the first of the waiting documents may be tried again, in seconds since 1970."""
        while self._waiting and not self._lives(self._later, self._waiting[0][2], self._waiting[0][1]):
            heapq.heappop(self._waiting)
        return self._waiting[0][0] if self._waiting else None

    def take(
        self, now: float, budget: float, cost: Callable[[Step], float], *, shuffle: Random | None = None
    ) -> list[tuple[Document, Step]]:
        """Documents to claim, first come first, until their expected cost (s) exceeds ``budget``.

        ``shuffle``, where other pollers claim too, draws from a window a few times as long, so that two pollers that
        look at the same list do not ask for the same documents.
        """
        self._wake(now)
        taken: list[tuple[tuple[float, int], int, str]] = []
        window = budget * 4 if shuffle else budget
        while self._order and window > 0:
            entry = heapq.heappop(self._order)
            if not self._lives(self._ready, entry[2], entry[1]):
                continue  # an older note of a document that has changed since
            taken.append(entry)
            window -= cost(self._ready[entry[2]][1])
        if shuffle:
            shuffle.shuffle(taken)
            taken.sort(key=lambda entry: entry[0][0])  # a priority is never traded for luck
        chosen: list[tuple[Document, Step]] = []
        for entry in taken:
            if budget > 0:
                document, step, _ = self._ready.pop(entry[2])
                budget -= cost(step)
                chosen.append((document, step))
            else:
                heapq.heappush(self._order, entry)
        return chosen

    def _wake(self, now: float) -> None:
        """Move documents whose wait is over to those that can be claimed."""
        while self._waiting and self._waiting[0][0] <= now:
            _, count, name = heapq.heappop(self._waiting)
            if self._lives(self._later, name, count):
                document, step, _ = self._ready[name] = self._later.pop(name)
                heapq.heappush(self._order, (_rank(document, step), count, name))

    @staticmethod
    def _lives(kept: dict[str, tuple[Document, Step, int]], name: str, count: int) -> bool:
        """Whether a heap's note is the last one of a document that is still kept."""
        return name in kept and kept[name][2] == count

    def _tidy(self) -> None:
        """Clear dead notes out of the heaps before they are many: documents may change often before they are taken."""
        if len(self._order) > 2 * len(self._ready) + SLACK:
            self._order = [entry for entry in self._order if self._lives(self._ready, entry[2], entry[1])]
            heapq.heapify(self._order)
        if len(self._waiting) > 2 * len(self._later) + SLACK:
            self._waiting = [entry for entry in self._waiting if self._lives(self._later, entry[2], entry[1])]
            heapq.heapify(self._waiting)


def _rank(document: Document, step: Step) -> tuple[float, int]:
    """Higher priority first; of equal priority, a document that is further on first, so that files leave the chain."""
    priority: Any = document.get("priority")
    if isinstance(priority, bool) or not isinstance(priority, int | float) or priority != priority:
        priority = 0
    return (-float(max(-PRIORITY, min(priority, PRIORITY))), -step.number)
