"""Whether anything still moves in an attempt: does it write, does its log grow, does it report progress?

What counts as writing is what the kernel counts (``wchar`` of man 5 proc, Linux): bytes that the worker and all that
it started have given to files and pipes, wherever these lie. So an output that grows is seen under any name. Elsewhere
only the log and reported progress count. Standard library only: batch jobs use it too.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.executors.process import Movement, Worker


def verdict(worker: Worker, attempt: str, limit: float, now: float, clock: float) -> tuple[str, str] | None:
    """Class and reason to end an attempt in which nothing has moved for ``limit`` s; None while something moves.

    ``now`` is monotonic, ``clock`` s since 1970, for people.
    """
    movement = worker.movement
    if movement is None or movement.attempt != attempt:
        movement = worker.movement = Movement(attempt, now)
    seen = (movement.reports, _log_size(worker), written(worker.process.pid))
    if seen != movement.seen:
        movement.seen, movement.moved = seen, now
    still = now - movement.moved
    if still <= limit:
        return None
    since = datetime.fromtimestamp(clock - still, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    reason = f"ended after {still:.0f} s in which nothing moved (since {since}): no output and no log grew, "
    return "transient", f"{reason}no progress was reported; its limit is {limit:g} s"


def written(pid: int) -> int:
    """Bytes that a process and its descendants, as they are now, have written; 0 where the system does not count."""
    total, waiting = 0, [pid]
    while waiting:
        folder = Path("/proc") / str(waiting.pop())
        with contextlib.suppress(OSError, ValueError, IndexError):
            total += int(folder.joinpath("io").read_text().split("wchar:")[1].split()[0])
        for children in folder.glob("task/*/children"):
            with contextlib.suppress(OSError, ValueError):
                waiting += [int(child) for child in children.read_text().split()]
    return total


def _log_size(worker: Worker) -> int:
    try:
        return worker.output.stat().st_size
    except OSError:
        return 0
