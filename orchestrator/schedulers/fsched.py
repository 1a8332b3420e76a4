"""fsched: the batch system of one file that comes with this package (``fake/fsched.py``).

For tests, the guide and first tries on a laptop; also the shortest example of a `Scheduler`. The folder that holds its
state is the environment's ``FSCHED_DIR``.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from orchestrator.schedulers.base import Scheduler, checked_keys, is_ours, utc_seconds
from orchestrator.schedulers.errors import SchedulerUnavailable, UnfitJob
from orchestrator.schedulers.model import INDEX, Answer, Command, Job, JobSpec, Listing, Query, Submitted
from orchestrator.schedulers.states import JobState

PROGRAM = Path(__file__).with_name("fake") / "fsched.py"
"""The program itself: standard library only, so that it can be copied to another machine."""

STATES: dict[str, JobState] = {
    "waiting": JobState.QUEUED,
    "held": JobState.HELD,
    "running": JobState.RUNNING,
    "ended": JobState.DONE,  # or failed, by its exit code
    "failed": JobState.FAILED,
    "cancelled": JobState.CANCELLED,
    "timeout": JobState.TIMEOUT,
    "memory": JobState.OUT_OF_MEMORY,
    "node": JobState.NODE_FAILED,
}
"""fsched's words."""


class Fsched(Scheduler):
    """See the module and `Scheduler`. Settings: ``python`` and ``program``, where it runs on another machine."""

    name = "fsched"
    warns = True
    task_variable = "${FSCHED_TASK:-1}"
    number_variable = "${FSCHED_NUMBER:-}"
    away = ("cannot be reached", "must name a folder", "database is locked", "unable to open database")
    later = ("too many",)
    settings_known: ClassVar[dict[str, tuple[str, str]]] = {
        "python": (sys.executable or "python3", "the Python that runs fsched at the farm"),
        "program": (str(PROGRAM), "where fsched.py is at the farm"),
    }

    def _fsched(self, *words: str, way: str = "") -> Command:
        return self._command(self.settings["python"], self.settings["program"], *words, way=way)

    def submit(self, spec: JobSpec) -> Command:
        if "%t" in spec.stdout + spec.stderr:
            raise UnfitJob(f"job {spec.name}: fsched cannot write to a path with %t in it")
        wanted = spec.resources
        words = ["--name", spec.name, "--directory", spec.directory]
        words += ["--output", spec.stdout.replace(INDEX, "%t"), "--error", spec.stderr.replace(INDEX, "%t")]
        if spec.is_array:
            words += ["--array", str(spec.tasks)]
        if wanted.time is not None:
            words += ["--time", f"{wanted.time:g}"]
        if spec.warning is not None:
            words += ["--warn", f"{spec.warning:g}"]
        if wanted.memory is not None:
            words += ["--memory", str(wanted.memory)]
        return self._fsched("submit", *words, *wanted.options, spec.script)

    def read_submit(self, answer: Answer, spec: JobSpec) -> Submitted:
        return self._accepted(answer, spec, re.compile(r"^job ([0-9]+)$", re.MULTILINE))

    def listing(self, query: Query) -> Command:
        return self._fsched("list")

    def read_listing(self, answer: Answer, query: Query) -> Listing:
        self._must_succeed(answer, "list its queue")
        return self._jobs(answer, query)

    def history(self, query: Query) -> list[Command]:
        return [self._fsched("history", way="history")]

    def read_history(self, command: Command, answer: Answer, query: Query) -> Listing:
        self._must_succeed(answer, "tell its history")
        return self._jobs(answer, query)

    def cancel(self, keys: Sequence[str]) -> Command:
        return self._fsched("cancel", *checked_keys(keys))

    def _jobs(self, answer: Answer, query: Query) -> Listing:
        lines = answer.stdout.strip().split("\n")
        if lines.pop() != '{"end": true}':
            raise SchedulerUnavailable("fsched's answer is cut off", said=answer.stdout[-200:])
        jobs: list[Job] = []
        unread: list[str] = []
        for line in lines:
            try:
                job = _job(json.loads(line))
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
                unread.append(line[:200])
                continue
            if is_ours(job, query):
                jobs.append(job)
        return Listing(tuple(jobs), tuple(unread))


def _job(row: dict[str, Any]) -> Job:
    """One line. Raises KeyError, TypeError or ValueError if it is not whole."""
    raw = str(row["state"])
    state = STATES.get(raw, JobState.UNKNOWN)
    if state is JobState.DONE and row["exit_code"] != 0:
        state = JobState.FAILED
    return Job(
        str(int(row["number"])),
        int(row["task"]) or None,
        str(row["name"]),
        state,
        raw,
        reason=str(row["reason"] or ""),
        user=str(row["user"]),
        exit_code=None if row["exit_code"] is None else int(row["exit_code"]),
        signal=None if row["signal"] is None else int(row["signal"]),
        submitted=utc_seconds(row["submitted"]),
        started=utc_seconds(row["started"]),
        finished=utc_seconds(row["finished"]),
    )
