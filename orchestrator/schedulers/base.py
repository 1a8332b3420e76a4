"""The contract that each batch system's file fulfils."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import ClassVar

from orchestrator.errors import SettingsError
from orchestrator.schedulers.errors import HistoryUnavailable, SchedulerUnavailable, SubmissionRejected, UnfitJob
from orchestrator.schedulers.model import Answer, Command, Job, JobFile, JobSpec, Listing, Query, Submitted
from orchestrator.schedulers.script import job_script
from orchestrator.schedulers.states import JobState

_KEY = re.compile(r"[0-9]+(?:[._\[][0-9]*)?\]?[A-Za-z0-9_.-]*\Z")


class Scheduler(ABC):
    """One batch system, as pure text: what to ask, and what the answer means.

    Nothing here runs a process, opens a file or looks at a clock. Each question is a pair of methods: one makes the
    `Command` (an argument list, to be run at the farm by any transport), the other reads its `Answer`::

        question    ask                                    read
        submit      files(spec), submit(spec)              read_submit(answer, spec)    -> Submitted
        queue       listing(query)                         read_listing(answer, query)  -> Listing
        history     history(query): ways, best first       read_history(command, answer, query) -> Listing
        cancel      cancel(keys)                           read_cancel(answer)

    **What the job script does.** It ignores SIGUSR1 and SIGUSR2 until its program listens, exports the spec's
    environment and ``ORCHESTRATOR_SCHEDULER``, ``ORCHESTRATOR_JOB`` (name), ``ORCHESTRATOR_JOB_NUMBER`` and
    ``ORCHESTRATOR_TASK`` (from 1), goes to the working directory (exit 111 if it is not there), adds the task's chunk
    file to the command (exit 112 if the task has none) and becomes the program by ``exec``. Its exit code is the
    program's. It is the same for all systems (`script.job_script`).

    **What the job must expect.** SIGUSR1 `JobSpec.warning` seconds before its time limit, give or take the system's
    own clock (a minute in Slurm); SIGUSR2 or SIGTERM a few seconds before SIGKILL when it is cancelled, though some
    kill at once; SIGXCPU where a site limits CPU time. It is never started a second time by the system: each
    submission forbids requeueing, since the engine decides about retries.

    **Which files there are.** Before the submission: those of `files`, written by the caller. Afterwards the system
    writes `JobSpec.stdout` and `JobSpec.stderr` (`INDEX` in them is the task's number), which may be missing, late or
    empty: they are for people. What the job has to say it leaves in result files of its own; that is the caller's.

    **How an absence is read.** A job that is not in a *complete* listing is not in the queue: no more. It may have
    ended, or not be visible yet. Then the history is asked, which may lag by seconds; a job that is in neither is
    *lost* only if its result file is not there either and a grace period has passed. A job that is absent from an
    incomplete listing (`Listing.unread`) may well be there. If a command fails or its answer is cut off, nothing was
    asked: the reading method raises `SchedulerUnavailable` and no state may change.

    **Unknown states** become `JobState.UNKNOWN` with the raw word; they never spoil the rest of a listing. Jobs
    whose names do not begin with the query's prefix are dropped, whatever state they are in.

    Every reading method takes any text at all and raises nothing but the errors of `orchestrator.schedulers.errors`.

    Args:
        programs: folder at the farm that holds the system's programs; empty: they are on the PATH.
        environment: variables that the programs need there (``SLURM_CONF``, ``SGE_ROOT``), since a command that comes
            through SSH has no login shell. Never a credential.
        settings: what sites do differently, from ``settings_known``.

    Raises:
        SettingsError: there is no such setting.
    """

    name: ClassVar[str]
    warns: ClassVar[bool] = False  # sends SIGUSR1 before the time limit by itself
    task_variable: ClassVar[str]  # shell expressions, see `script.job_script`
    number_variable: ClassVar[str]
    away: ClassVar[tuple[str, ...]] = ()  # lower-case pieces of messages that mean: could not be asked
    not_sent: ClassVar[tuple[str, ...]] = ("connection refused", "no route to host")  # of those: surely without effect
    later: ClassVar[tuple[str, ...]] = ()  # pieces of refusals that may not stand tomorrow

    large_exit_codes: ClassVar[bool] = False  # its programs use codes above 128 themselves, not only when killed
    written: ClassVar[tuple[tuple[str, JobState], ...]] = ()  # pieces of what it writes into a job's stderr
    settings_known: ClassVar[dict[str, tuple[str, str]]] = {}  # name: (default, what it is for)

    def __init__(
        self,
        programs: str = "",
        environment: Mapping[str, str] | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.programs = programs.rstrip("/")
        self.environment = dict(environment or {})
        unknown = sorted(set(settings or {}) - set(self.settings_known))
        if unknown:
            known = ", ".join(sorted(self.settings_known)) or "none"
            raise SettingsError(f"{self.name} has no setting {unknown[0]!r}: it knows {known}")
        self.settings = {name: default for name, (default, _) in self.settings_known.items()} | dict(settings or {})

    # ---- submission

    def files(self, spec: JobSpec) -> list[JobFile]:
        """The files that must be at the farm before `submit`'s command runs. Overwriting them is harmless.

        Raises:
            UnfitJob: this system cannot carry the job as described.
        """
        return [JobFile(spec.script, self.script(spec), 0o755)]

    def script(self, spec: JobSpec) -> str:
        """The job script alone."""
        return job_script(
            spec, scheduler=self.name, task=self.task_variable, number=self.number_variable, warns=self.warns
        )

    @abstractmethod
    def submit(self, spec: JobSpec) -> Command:
        """The command that submits ``spec``, with its array as one job. Raises `UnfitJob`."""

    @abstractmethod
    def read_submit(self, answer: Answer, spec: JobSpec) -> Submitted:
        """The job's number.

        Raises:
            SchedulerUnavailable: not asked, or (``perhaps_done``) asked without an answer: find the job by its name.
            SubmissionRejected: asked, and refused.
        """

    # ---- queue and history

    @abstractmethod
    def listing(self, query: Query) -> Command:
        """The one command that lists all our jobs which the system has in its hands (some also list ended ones)."""

    @abstractmethod
    def read_listing(self, answer: Answer, query: Query) -> Listing:
        """Our jobs. Raises `SchedulerUnavailable` if the queue could not be asked or the answer is cut off."""

    @abstractmethod
    def history(self, query: Query) -> list[Command]:
        """The ways of asking for our ended jobs, the best first; one command each, for all jobs."""

    @abstractmethod
    def read_history(self, command: Command, answer: Answer, query: Query) -> Listing:
        """Our ended jobs.

        Raises:
            SchedulerUnavailable: could not be asked this time.
            HistoryUnavailable: this way does not exist at this farm; ask the next one.
        """

    # ---- cancelling

    @abstractmethod
    def cancel(self, keys: Sequence[str]) -> Command:
        """The one command that cancels all these jobs and tasks (`key`)."""

    def read_cancel(self, answer: Answer) -> None:
        """Nothing, if the system took the command. Jobs that have ended already are no error: the listing tells.

        Raises:
            SchedulerUnavailable: could not be asked.
        """
        self._unless_away(answer, "cancel jobs")

    def read_stderr(self, text: str) -> tuple[JobState, str] | None:
        """What the system itself wrote into the job's stderr about its end, and the line; None if it wrote nothing.

        A hint, for an end that queue and history leave open: the job's program can write the same words.
        """
        for line in reversed(text.splitlines()):
            for piece, state in self.written:
                if piece in line:
                    return state, line.strip()[:300]
        return None

    def key(self, number: str, index: int | None = None) -> str:
        """The word that names a whole job or one task to `cancel`. Systems that do it otherwise override it."""
        return number if index is None else f"{number}.{index}"

    # ---- for the subclasses

    def _command(self, program: str, *arguments: str, timeout: float = 30.0, way: str = "") -> Command:
        """``program`` with its folder and environment. Times are asked for in UTC, messages in English."""
        path = f"{self.programs}/{program}" if self.programs and "/" not in program else program
        settings = {"LC_ALL": "C", "TZ": "UTC", **self.environment}
        words = ("env", *(f"{key}={value}" for key, value in settings.items()), path)
        return Command((*words, *arguments), timeout=timeout, way=way)

    def _unless_away(self, answer: Answer, purpose: str) -> None:
        """Raises `SchedulerUnavailable` if the system was not asked at all; `purpose` ends the sentence."""
        what = f"{self.name} could not be asked to {purpose}"
        if answer.exit_code is None:
            raise SchedulerUnavailable(f"{what}: no answer in time", said=answer.said, perhaps_done=True)
        if answer.exit_code in (126, 127):
            raise SchedulerUnavailable(
                f"{what}: its programs are not there or may not be run: give the folder they are in", said=answer.said
            )
        if answer.exit_code < 0 or (answer.exit_code > 128 and not self.large_exit_codes):
            raise SchedulerUnavailable(f"{what}: the program was killed", said=answer.said, perhaps_done=True)
        text = answer.stderr.lower() + (answer.stdout.lower() if answer.exit_code else "")
        if answer.exit_code and any(piece in text for piece in self.away):
            sure = any(piece in text for piece in self.not_sent)
            raise SchedulerUnavailable(f"{what}: {answer.said}", said=answer.said, perhaps_done=not sure)

    def _must_succeed(self, answer: Answer, purpose: str) -> None:
        """As `_unless_away`, and any other exit code than 0 counts as unavailable too: nothing was listed."""
        self._unless_away(answer, purpose)
        if answer.exit_code:
            raise SchedulerUnavailable(
                f"{self.name} could not {purpose} (exit {answer.exit_code}): {answer.said}", said=answer.said
            )

    def _accepted(self, answer: Answer, spec: JobSpec, pattern: re.Pattern[str]) -> Submitted:
        """The job's number by ``pattern``'s first group in the output of the submit command."""
        self._unless_away(answer, f"submit {spec.name}")
        match = pattern.search(answer.stdout)
        if answer.exit_code == 0 and match:
            return Submitted(match[1], spec.tasks, " ".join(answer.stderr.split())[:500])
        if answer.exit_code == 0:
            raise SchedulerUnavailable(
                f"{self.name} took {spec.name} but said no job number: {answer.said!r}",
                said=answer.said,
                perhaps_done=True,
            )
        later = any(piece in answer.stderr.lower() + answer.stdout.lower() for piece in self.later)
        hint = "it is tried again later" if later else "change the step's resources, queue or options in the chain"
        raise SubmissionRejected(
            f"{self.name} refused {spec.name}: {answer.said}: {hint}", said=answer.said, transient=later
        )

    def _no_history(self, answer: Answer, why: str) -> HistoryUnavailable:
        return HistoryUnavailable(f"{self.name} keeps no such history here: {why}", said=answer.said)


def checked_keys(keys: Sequence[str]) -> tuple[str, ...]:
    """``keys`` if each can be nothing but a job's number: a word such as ``-u`` must never reach a cancel."""
    if not keys:
        raise UnfitJob("no job to cancel was named")
    for key in keys:
        if not _KEY.match(key):
            raise UnfitJob(f"{key!r} is no job's number")
    return tuple(keys)


def is_ours(job: Job, query: Query) -> bool:
    """Whether ``job`` carries our prefix and, where both are known, our account."""
    return job.name.startswith(query.prefix) and (not query.user or not job.user or job.user == query.user)


def utc(text: str, form: str = "%Y-%m-%dT%H:%M:%S") -> str:
    """A time that the program wrote in UTC as ISO 8601 with Z; empty for what is no time (``Unknown``, ``N/A``)."""
    try:
        return datetime.strptime(text, form).strftime("%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        return ""


def utc_seconds(value: object) -> str:
    """Seconds since 1970 as ISO 8601 with Z; empty for what is no time, and for 0, which stands for "not yet"."""
    try:
        number = float(value)  # type: ignore[arg-type]
        return datetime.fromtimestamp(number, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if number > 0 else ""
    except (TypeError, ValueError, OverflowError, OSError):
        return ""
