"""What the broadcast keeps for those who join: the last message of each topic of the last runs, within bounds. Pure."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from orchestrator.online.publication import KINDS, parsed

RUNS = 4  # last runs whose plots are kept: the present one, and some to compare it with
TOPICS = 5000  # of one run; a reducer that makes more plots than that is out of order
MEMORY = 512 * 1024 * 1024  # bytes of all that is kept; the oldest run goes first, then plots of the newest
PART = 64  # messages of one part of an answer, less than QUEUED so that a part is not lost
PART_BYTES = 8 * 1024 * 1024  # and its size


@dataclass
class Kept:
    """The last message of one topic, and its number."""

    number: int
    topic: bytes
    header: bytes
    body: bytes


class Cache:
    """The last message of each topic, of the runs that were heard of last. Pure.

    Args:
        runs: how many runs are kept; the one that was not heard of for longest goes first.
        topics: how many topics of one run are kept.
        memory: bytes above which the oldest runs go, and of a run that is alone the plots that did not change for
            longest: they go to those who listen, and come back with their next change.
    """

    def __init__(self, runs: int = RUNS, topics: int = TOPICS, memory: int = MEMORY) -> None:
        self.number = 0
        self.size = 0
        self.dropped = 0  # plots that there was no room for, so that who joins does not have them at once
        self._runs = runs
        self._topics = topics
        self._memory = memory
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()  # the newest last
        self._by_run: OrderedDict[str, set[bytes]] = OrderedDict()

    def take(self, topic: bytes, header: bytes, body: bytes) -> int:
        """Keep a message; its number. Raises ValueError for a topic that is none."""
        kind, run, _ = parsed(topic)
        if kind not in KINDS or not run:
            raise ValueError(f"{topic[:80]!r} is no topic")
        self.number += 1
        members = self._by_run.setdefault(run, set())
        self._by_run.move_to_end(run)
        if topic not in members and len(members) >= self._topics:
            self.dropped += 1
            return self.number  # it goes to those who listen, and is not kept
        members.add(topic)
        self._forget(topic)
        self._kept[topic] = Kept(self.number, topic, header, body)
        self.size += len(header) + len(body)
        while len(self._by_run) > self._runs or (self.size > self._memory and len(self._by_run) > 1):
            _, old = self._by_run.popitem(last=False)
            for one in old:
                self._forget(one)
        while self.size > self._memory:
            kept = self._kept.values()  # counts and states are small, and stay
            oldest = next((one for one in kept if one.body), None) or next(iter(kept))
            self._forget(oldest.topic)
            members.discard(oldest.topic)
            self.dropped += 1
        return self.number

    def _forget(self, topic: bytes) -> None:
        known = self._kept.pop(topic, None)
        if known is not None:
            self.size -= len(known.header) + len(known.body)

    def since(self, number: int, until: int, most: int = PART, size: int = PART_BYTES) -> tuple[list[Kept], int]:
        """Messages with numbers above ``number`` and not above ``until``, in order, at most so many and so large.

        The second value is the number up to which these are all; ``until`` where nothing is left.
        """
        found: list[Kept] = []
        total = 0
        for one in self._kept.values():
            if one.number <= number:
                continue
            if one.number > until:
                break
            if found and (len(found) >= most or total + len(one.body) > size):
                return found, found[-1].number
            found.append(one)
            total += len(one.body)
        return found, until

    def about(self) -> dict[str, int]:
        """How much there is, for who looks after the system."""
        return {
            "runs": len(self._by_run), "topics": len(self._kept), "bytes": self.size, "most": self._memory,
            "dropped": self.dropped,
        }  # fmt: skip

    def __len__(self) -> int:
        return len(self._kept)
