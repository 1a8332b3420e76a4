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
from orchestrator.documents import Document, not_before, ready_step

#: Documents held in memory at most: at a few kB each some MB. A sweep fetches the next when few remain.
LIMIT = 2000


class Backlog:
    """Ready documents of the steps that this poller serves, in the order in which they should be claimed."""

    def __init__(self, chain: Chain, steps: Iterable[Step], limit: int = LIMIT) -> None:
        self._chain, self._steps, self._limit = chain, tuple(steps), limit
        self._documents: dict[str, tuple[Document, Step, int]] = {}
        self._order: list[tuple[tuple[float, int], int, str]] = []
        self._waiting: list[tuple[float, int, str]] = []
        self._count = 0
        #: Whether documents were turned away for want of room since ``more`` was last set to False.
        self.more = False

    def __len__(self) -> int:
        return len(self._documents)

    def room(self) -> int:
        return self._limit - len(self._documents)

    def offer(self, document: Document, now: float) -> bool:
        """Take note of a document as it is now: kept if a step of ours is ready, forgotten if none is any more."""
        name = str(document["_id"])
        step = None if document.get("_deleted") else ready_step(self._chain, document, self._steps)
        if step is None:
            self._documents.pop(name, None)
            return False
        if name not in self._documents and len(self._documents) >= self._limit:
            self.more = True
            return False
        self._count += 1
        self._documents[name] = (document, step, self._count)
        due = not_before(document, step)
        if due > now:
            heapq.heappush(self._waiting, (due, self._count, name))
        else:
            heapq.heappush(self._order, (_rank(document), self._count, name))
        return True

    def forget(self, name: str) -> None:
        self._documents.pop(name, None)

    def claimable(self) -> bool:
        """Whether something could be claimed at once."""
        while self._order:
            kept = self._documents.get(self._order[0][2])
            if kept is not None and kept[2] == self._order[0][1]:
                return True
            heapq.heappop(self._order)
        return False

    def next_due(self) -> float | None:
        """When the first of the waiting documents may be tried again, in seconds since 1970."""
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
            kept = self._documents.get(entry[2])
            if kept is None or kept[2] != entry[1]:
                continue  # an older note of a document that has changed since
            taken.append(entry)
            window -= cost(kept[1])
        if shuffle:
            shuffle.shuffle(taken)
            taken.sort(key=lambda entry: entry[0][0])  # a priority is never traded for luck
        chosen: list[tuple[Document, Step]] = []
        for entry in taken:
            if budget > 0:
                document, step, _ = self._documents.pop(entry[2])
                budget -= cost(step)
                chosen.append((document, step))
            else:
                heapq.heappush(self._order, entry)
        return chosen

    def _wake(self, now: float) -> None:
        """Move documents whose wait is over to those that can be claimed."""
        while self._waiting and self._waiting[0][0] <= now:
            _, count, name = heapq.heappop(self._waiting)
            kept = self._documents.get(name)
            if kept is not None and kept[2] == count:
                heapq.heappush(self._order, (_rank(kept[0]), count, name))


def _rank(document: Document) -> tuple[float, int]:
    """Higher priority first; of equal priority, a document that is further on first, so that files leave the chain."""
    priority: Any = document.get("priority")
    done = sum(1 for key in document if key.startswith("proc"))
    return (-float(priority) if isinstance(priority, int | float) else 0.0, -done)
