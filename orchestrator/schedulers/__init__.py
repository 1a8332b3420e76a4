"""The batch systems that steps can be sent to. ``docs/schedulers.md`` shows how another one is added.

get(name)                       a `Scheduler`: makes the commands, reads the answers, runs nothing
JobSpec, Resources              what is to run
Command, Answer, JobFile        what goes through a transport, and what comes back
Submitted, Job, Listing         what the system said
JobState                        queued, held, running, done, failed, cancelled, ...
ask.submit, ask.queue, ...      the same questions with a callable that runs the commands
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

from orchestrator.errors import SettingsError
from orchestrator.schedulers.base import Scheduler
from orchestrator.schedulers.errors import (
    HistoryUnavailable,
    SchedulerError,
    SchedulerUnavailable,
    SubmissionRejected,
    UnfitJob,
)
from orchestrator.schedulers.fsched import Fsched
from orchestrator.schedulers.gridengine import GridEngine
from orchestrator.schedulers.htcondor import HTCondor
from orchestrator.schedulers.model import (
    INDEX,
    Answer,
    Command,
    Job,
    JobFile,
    JobSpec,
    Listing,
    Query,
    Resources,
    Submitted,
)
from orchestrator.schedulers.pbs import PBS
from orchestrator.schedulers.slurm import Slurm
from orchestrator.schedulers.states import JobState

__all__ = [
    "INDEX",
    "SCHEDULERS",
    "Answer",
    "Command",
    "HistoryUnavailable",
    "Job",
    "JobFile",
    "JobSpec",
    "JobState",
    "Listing",
    "Query",
    "Resources",
    "Scheduler",
    "SchedulerError",
    "SchedulerUnavailable",
    "SubmissionRejected",
    "Submitted",
    "UnfitJob",
    "get",
]

SCHEDULERS: dict[str, type[Scheduler]] = {
    scheduler.name: scheduler for scheduler in (Slurm, GridEngine, HTCondor, PBS, Fsched)
}
"""All batch systems by the name that a site's settings use."""


def get(
    name: str,
    *,
    programs: str = "",
    environment: Mapping[str, str] | None = None,
    settings: Mapping[str, str] | None = None,
) -> Scheduler:
    """The batch system called ``name``; `Scheduler` says what the others are for.

    Raises:
        SettingsError: there is none of that name, or it has no such setting.
    """
    if name not in SCHEDULERS:
        near = get_close_matches(name, SCHEDULERS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "choose one of " + ", ".join(sorted(SCHEDULERS))
        raise SettingsError(f"there is no batch system called {name!r}: {hint}")
    return SCHEDULERS[name](programs, environment, settings)
