"""The limits of an attempt: how long it may take, how much memory it may hold, how long it may stand still."""

from __future__ import annotations

from orchestrator.executors import hang
from orchestrator.executors.process import Worker
from orchestrator.jobchain import StepData


def exceeded(worker: Worker, attempt: str, step: StepData, now: float, clock: float) -> tuple[str, str] | None:
    """Class and reason to end the attempt that a worker is at; None while it keeps its step's limits.

    ``now`` is monotonic, as is the time at which the worker was last heard of; ``clock`` s since 1970, for people.
    """
    took = now - worker.heard
    if step.time_limit is not None and took > step.time_limit:
        return "resources", f"ended after {took:.1f} s: its time limit is {step.time_limit:g} s"
    if step.memory_limit is not None and (held := worker.resident()) > step.memory_limit:
        limit = step.memory_limit / 1e6
        return "resources", f"ended with {held / 1e6:.0f} MB in memory: its limit is {limit:.0f} MB"
    if step.hang_limit is not None:
        return hang.verdict(worker, attempt, step.hang_limit, now, clock)
    return None
