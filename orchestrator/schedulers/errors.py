"""What can go wrong between this project and a batch system, apart from the jobs themselves.

The line that matters runs between *unavailable* and everything else. A batch system that cannot be asked says nothing
about any job, so nobody may conclude anything from it: no state changes, and the question is asked again later.
"""

from __future__ import annotations

from orchestrator.errors import OrchestratorError


class SchedulerError(OrchestratorError):
    """The root of this room. ``said`` is what the batch system itself printed, shortened, for the developer."""

    def __init__(self, message: str, *, said: str = "") -> None:
        super().__init__(message)
        self.said = said


class SchedulerUnavailable(SchedulerError):
    """The batch system could not be asked: no answer in time, connection refused, daemon down, program missing.

    It is never evidence about a job. ``perhaps_done`` is true where the command may have had its effect all the same
    (a submission whose answer did not come): look for the job by its name before submitting it again.
    """

    transient = True

    def __init__(self, message: str, *, said: str = "", perhaps_done: bool = False) -> None:
        super().__init__(message, said=said)
        self.perhaps_done = perhaps_done


class SubmissionRejected(SchedulerError):
    """The batch system was asked and said no: there is no job.

    ``transient`` is true where the same submission may be accepted later (a limit on queued jobs), and false where
    only a change of the chain or the site helps (no such partition, more memory than any node has).
    """

    def __init__(self, message: str, *, said: str = "", transient: bool = False) -> None:
        super().__init__(message, said=said)
        self.transient = transient


class HistoryUnavailable(SchedulerError):
    """This way of asking for finished jobs does not exist here (no accounting database): try the next way, if any.

    Unlike `SchedulerUnavailable` it will be the same tomorrow.
    """


class UnfitJob(SchedulerError):
    """The job cannot be described to this batch system as it stands; the sentence says which word is at fault."""
