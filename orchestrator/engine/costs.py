"""What an attempt of each step is expected to cost in worker time (s), learnt from reports: claims ahead go by it."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.documents import Report

#: Worker time (s) that is claimed ahead for each worker: enough that it never waits for the next commit, and no more,
#: for what is claimed here cannot be done by another poller.
DEPTH = 0.25
#: Tasks that one worker has before it at most, however short they are.
MOST = 250
#: The cost (s) of a step that has not reported yet: it may be a long one, so each worker gets one to begin with.
FIRST_COST = DEPTH


class Costs:
    """By the steps' keywords."""

    def __init__(self) -> None:
        self._known: dict[str, float] = {}

    def of(self, key: str) -> float:
        """How long (s) an attempt of a step is expected to hold a worker, between ``DEPTH / MOST`` and ``DEPTH``."""
        return max(DEPTH / MOST, min(self._known.get(key, FIRST_COST), DEPTH))

    def total(self, counts: Mapping[str, int]) -> float:
        """The same for so many attempts of each step."""
        return sum(number * self.of(key) for key, number in counts.items())

    def learn(self, report: Report) -> None:
        """Follow what the step takes: quickly, for a new kind of file can change it at once."""
        known = self._known.get(report.step)
        self._known[report.step] = report.seconds if known is None else 0.8 * known + 0.2 * report.seconds
