"""The report of an attempt whose worker ended under it: why that was, and what it had printed."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from orchestrator.capture import keep_left
from orchestrator.executors.events import LOST
from orchestrator.reports import Report
from orchestrator.runner import Places, Task


def why(verdict: tuple[str, str] | None, code: int, killed_because: Callable[[], str]) -> tuple[str, str]:
    """Class and reason of a worker's end.

    ``verdict`` is why the pool itself has ended it, if it has; ``code`` its exit code, negative for a signal;
    ``killed_because`` says why somebody else may have killed workers just now, "" for no reason that is known.
    """
    if verdict is not None:
        return verdict
    if code == -signal.SIGKILL:
        if known := killed_because():
            return LOST, known
        return "resources", "its worker was killed (signal 9), as the kernel does when memory runs out"
    if code == -signal.SIGXCPU:
        return "resources", "its worker used up the CPU time that it may have (signal 24)"
    if code < 0:
        return "code", f"its worker crashed: signal {-code} ({signal.strsignal(-code)})"
    return "code", f"the step ended its worker with exit code {code}"


def report(
    task: Task, output: Path, places: Places, code: int, kind: str, reason: str, took: float, now: float
) -> Report:
    """The report that the worker cannot make any more. Keeps its log and clears its scratch directory away.

    Args:
        output: what the worker printed last, which may say why it died.
        took: how long the attempt had been at work (s).
        now: s since 1970.
    """
    name = str(task.document.get("_id"))
    kept, tail = keep_left(output, places.logs / task.step, f"{name}.{task.attempt}")
    shutil.rmtree(places.scratch / task.attempt, ignore_errors=True)
    return Report(
        name, task.step, task.attempt, started=now - took, finished=now, seconds=round(took, 3),
        exit_code=code, error_class=kind, reason=reason, log=kept, log_tail=tail,
    )  # fmt: skip
