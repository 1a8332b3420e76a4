"""The questions to a batch system with their answers, over anything that can run a command at the farm.

For the engine and for tests. What runs the commands is passed in: a function that takes a `Command` and gives its
`Answer`, with ``exit_code`` None if it did not end in time or the connection broke. It does not raise for that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from orchestrator.schedulers.base import Scheduler
from orchestrator.schedulers.errors import HistoryUnavailable
from orchestrator.schedulers.model import Answer, Command, Job, JobFile, JobSpec, Listing, Query, Submitted

Run = Callable[[Command], Answer]
Write = Callable[[JobFile], None]


def submit(scheduler: Scheduler, spec: JobSpec, run: Run, write: Write) -> Submitted:
    """Writes the job's files and submits it: one call. The intent must be on record before.

    Raises:
        SchedulerUnavailable: with ``perhaps_done`` the job may exist all the same: `find` it before trying again.
        SubmissionRejected: the system said no.
        UnfitJob: the job cannot be described to this system.
    """
    command = scheduler.submit(spec)
    for file in scheduler.files(spec):
        write(file)
    return scheduler.read_submit(run(command), spec)


def queue(scheduler: Scheduler, query: Query, run: Run) -> Listing:
    """All our jobs in the queue: one call. Raises SchedulerUnavailable."""
    return scheduler.read_listing(run(scheduler.listing(query)), query)


def history(scheduler: Scheduler, query: Query, run: Run) -> Listing:
    """Our ended jobs by the first way that exists at this farm: mostly one call.

    Raises:
        SchedulerUnavailable: could not be asked this time.
        HistoryUnavailable: this farm keeps no history at all; the sentence says why for the last way tried.
    """
    refusal = HistoryUnavailable(f"{scheduler.name} keeps no history")
    for command in scheduler.history(query):
        try:
            return scheduler.read_history(command, run(command), query)
        except HistoryUnavailable as error:
            refusal = error
    raise refusal


def find(scheduler: Scheduler, name: str, run: Run, *, user: str = "", days: float = 7.0) -> tuple[Job, ...]:
    """The jobs called ``name``, in the queue or ended: how a submission is found again after a crash.

    An empty answer means that the batch system knows of none *now*; a submission that was under way a moment ago can
    still appear.

    Raises:
        SchedulerUnavailable: the queue could not be asked, or its answer could not be read whole.
    """
    query = Query(name, user, days)
    listing = queue(scheduler, query, run)
    found = listing.named(name)
    if found:
        return found
    try:
        return history(scheduler, query, run).named(name)
    except HistoryUnavailable:
        return ()


def cancel(scheduler: Scheduler, keys: Sequence[str], run: Run) -> None:
    """Cancels jobs and tasks (`Scheduler.key`): one call. Raises SchedulerUnavailable."""
    scheduler.read_cancel(run(scheduler.cancel(keys)))
