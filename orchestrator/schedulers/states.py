"""The states of a batch job, the same for every batch system, and which of two reports is the later news."""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """Where a batch job is. Each scheduler's file says which of its own states is which of these.

    A partial order: ``earlier.before(later)`` says that news of ``later`` outranks news of ``earlier``. What is final
    outranks what is not. Two final states say nothing about each other, and ``unknown`` stands outside the order: it
    is what the batch system said in words that are not in our table, and nothing may be concluded from it.
    """

    QUEUED = "queued"  # accepted, not begun
    HELD = "held"  # accepted, and will not begin (or go on) until somebody acts; the reason says what is wrong
    RUNNING = "running"  # on a node, also while it starts, is suspended or cleans up
    DONE = "done"  # ended with exit code 0
    FAILED = "failed"  # ended with another exit code or by a signal, or could not be started
    CANCELLED = "cancelled"  # ended by a person or by the batch system on somebody's behalf
    TIMEOUT = "timeout"  # killed at its time limit
    OUT_OF_MEMORY = "out_of_memory"  # killed for its memory
    NODE_FAILED = "node_failed"  # its node went down; the payload itself may still be running there
    UNKNOWN = "unknown"  # asked, and the answer is in no table; the raw text is kept

    @property
    def final(self) -> bool:
        """Whether a job in this state stays in it."""
        return self in _FINAL

    @property
    def active(self) -> bool:
        """Whether the batch system still has the job in its hands."""
        return self in _ACTIVE

    def before(self, later: JobState) -> bool:
        """Whether news of ``later`` outranks news of this state.

        ``queued`` and ``held`` come and go between each other, so neither is before the other. A requeued job goes
        back from ``running`` to ``queued``: that is a newer report about the job, not a later state of the attempt.
        """
        if JobState.UNKNOWN in (self, later) or self is later:
            return False
        return _RANK[self] < _RANK[later]


_ACTIVE = frozenset({JobState.QUEUED, JobState.HELD, JobState.RUNNING})
_FINAL = frozenset(JobState) - _ACTIVE - {JobState.UNKNOWN}
_RANK = {state: 2 if state in _FINAL else 1 if state is JobState.RUNNING else 0 for state in JobState}
