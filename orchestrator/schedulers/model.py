"""What is said to a batch system and what it says back, as plain values: no process, no file, no clock."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from orchestrator.schedulers.errors import UnfitJob
from orchestrator.schedulers.states import JobState

# PBS before 2020 cuts names at 15 characters, all others carry far more; the first must be a letter (Grid Engine)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,99}\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
# what must never stand in a job script, which any user of the farm can read
_SECRET_NAME = re.compile(r"PASSW|SECRET|TOKEN|CREDENTIAL|PRIVATE_KEY|COUCH_USER|API_?KEY", re.IGNORECASE)
_SECRET_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s:@]*:[^/\s@]+@", re.IGNORECASE)

INDEX = "{index}"
"""In `JobSpec.stdout` and `JobSpec.stderr` of an array: stands for the task's number."""


@dataclass(frozen=True)
class Command:
    """One program to run at the farm: an argument list, never a shell string.

    A transport that has only a shell (SSH) quotes it with ``shlex.join``. ``way`` names the manner of asking where
    there are several (`Scheduler.history`), so that the answer is read accordingly.
    """

    argv: tuple[str, ...]
    timeout: float = 30.0  # seconds; a client waits for its daemon's own time-out (Slurm: 10 s) and then says so
    way: str = ""


@dataclass(frozen=True)
class Answer:
    """What came back. ``exit_code`` is None if the program did not end in time or the connection broke."""

    exit_code: int | None
    stdout: str = ""
    stderr: str = ""

    @property
    def said(self) -> str:
        """What the program said about itself, on one line of at most 500 characters."""
        text = " ".join((self.stderr.strip() or self.stdout.strip()).split())
        return text if len(text) <= 500 else text[:499] + "…"


@dataclass(frozen=True)
class JobFile:
    """A file that must be at the farm before the submission. Text, mode as for ``chmod``."""

    path: str
    text: str
    mode: int = 0o644


@dataclass(frozen=True)
class Resources:
    """What a job asks for. None leaves the farm's own default."""

    time: float | None = None  # seconds of wall clock
    memory: int | None = None  # bytes for the whole job
    cores: int = 1  # on one node
    queue: str = ""  # queue or partition
    options: tuple[str, ...] = ()  # more words for this scheduler's submit command, as they are

    def __post_init__(self) -> None:
        if self.time is not None and not 1 <= self.time < 10**8:
            raise UnfitJob(f"a time limit of {self.time} s is out of range: give at least one second")
        if self.memory is not None and not 1 <= self.memory < 2**60:
            raise UnfitJob(f"a memory limit of {self.memory} bytes is out of range")
        if not 1 <= self.cores < 10**5:
            raise UnfitJob(f"{self.cores} cores are out of range: give at least one")


@dataclass(frozen=True)
class JobSpec:
    """One batch job, or an array of them, as the engine wants it.

    Each task runs ``command``, with its own chunk file as one more argument if there are ``chunks``. Tasks are
    numbered from 1 in every system; the number is in the job's environment as ``ORCHESTRATOR_TASK``.

    Raises:
        UnfitJob: a name that some system cannot carry, a text with a NUL, something that looks like a credential.
    """

    name: str  # begins with the orchestrator's own prefix: the job is listed and found again by it
    command: tuple[str, ...]
    script: str  # path of the job script at the farm; further files of the job are named after it
    directory: str  # working directory at the farm
    stdout: str
    stderr: str
    array: int | None = None  # number of tasks; None or 1: a single job without index
    chunks: tuple[str, ...] = ()  # one chunk file for each task, or none
    resources: Resources = field(default_factory=Resources)
    environment: Mapping[str, str] = field(default_factory=dict)
    warning: float | None = None  # seconds before the time limit at which the job gets SIGUSR1

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            raise UnfitJob(
                f"{self.name!r} cannot be a job's name: it begins with a letter and holds at most 100 letters, "
                "digits, dots, dashes and underscores"
            )
        if not self.command:
            raise UnfitJob(f"job {self.name}: there is nothing to run")
        if self.array is not None and not 1 <= self.array < 10**6:
            raise UnfitJob(f"job {self.name}: an array of {self.array} tasks is out of range")
        if self.chunks and len(self.chunks) != self.tasks:
            raise UnfitJob(f"job {self.name}: {len(self.chunks)} chunk files for {self.tasks} tasks: give one each")
        if self.warning is not None and (self.resources.time is None or not 0 < self.warning < self.resources.time):
            raise UnfitJob(f"job {self.name}: a warning needs a time limit that is longer than the warning")
        if not self.is_array and (INDEX in self.stdout or INDEX in self.stderr):
            raise UnfitJob(f"job {self.name}: {INDEX} in its output's path, but it is no array")
        self._check_texts()

    def _check_texts(self) -> None:
        for key, value in self.environment.items():
            if not _VARIABLE.match(key):
                raise UnfitJob(f"job {self.name}: {key!r} cannot be the name of an environment variable")
            if _SECRET_NAME.search(key):
                raise UnfitJob(
                    f"job {self.name}: {key} looks like a credential, and a job script can be read by others: "
                    "keep it in a file of mode 0600 at the site"
                )
            self._check_text(value)
        for text in (*self.command, *self.chunks, *self.resources.options):
            self._check_text(text)
        for what, path in self.paths().items():
            self._check_text(path)
            if not path.startswith("/") or "\n" in path or "\r" in path:
                raise UnfitJob(f"job {self.name}: its {what}, {path!r}, must be an absolute path without line breaks")

    def _check_text(self, text: str) -> None:
        if "\0" in text:
            raise UnfitJob(f"job {self.name}: {text!r} holds a NUL, which no argument can carry")
        if _SECRET_URL.search(text):
            raise UnfitJob(
                f"job {self.name}: a URL in it carries a password: keep it in a file of mode 0600 at the site"
            )

    def paths(self) -> dict[str, str]:
        """The paths that the batch system itself opens, by what they are for."""
        return {"script": self.script, "directory": self.directory, "stdout": self.stdout, "stderr": self.stderr}

    @property
    def tasks(self) -> int:
        """The number of tasks, 1 for a single job."""
        return self.array or 1

    @property
    def is_array(self) -> bool:
        """An array of one task is submitted as a single job, since PBS knows no such array."""
        return self.tasks > 1


@dataclass(frozen=True)
class Submitted:
    """The number that the batch system gave to a job. For an array: of the whole; tasks are `Job.key`."""

    number: str
    tasks: int = 1
    note: str = ""  # what it said besides: a warning that the user should see


@dataclass(frozen=True)
class Job:
    """What a batch system says of one job, or of one task of an array."""

    number: str  # without the task's number
    index: int | None  # from 1, as in `JobSpec`; None for a single job
    name: str
    state: JobState
    raw_state: str  # the system's own word
    reason: str = ""  # why it waits, is held or ended so, in the system's own words
    queue: str = ""
    user: str = ""
    node: str = ""
    exit_code: int | None = None  # of the script; None: not ended, or the system does not tell
    signal: int | None = None  # that ended it
    submitted: str = ""  # ISO 8601 UTC with Z, or empty
    started: str = ""
    finished: str = ""
    max_memory: int | None = None  # bytes, of the whole job, where the accounting tells

    @property
    def task(self) -> int:
        """The task's number from 1, also for a single job."""
        return self.index or 1


@dataclass(frozen=True)
class Query:
    """Which jobs are asked for: ours, all of them, in one call."""

    prefix: str  # of the job's name; a whole name finds one job again
    user: str = ""  # account at the farm; empty: whatever the client takes as its default, names decide
    days: float = 7.0  # how far back the history is searched

    def __post_init__(self) -> None:
        if not _NAME.match(self.prefix):
            raise UnfitJob(f"{self.prefix!r} cannot begin a job's name: it begins with a letter")
        if self.user and not re.match(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*\$?\Z", self.user):
            raise UnfitJob(f"{self.user!r} is no account's name")


@dataclass(frozen=True)
class Listing:
    """Our jobs in one answer.

    ``unread`` holds what could be one of our jobs and could not be read. While it is not empty, the absence of a job
    from ``jobs`` proves nothing (`complete`).
    """

    jobs: tuple[Job, ...] = ()
    unread: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether a job that is not in ``jobs`` was truly not in the answer."""
        return not self.unread

    def of(self, number: str, index: int | None = None) -> Job | None:
        """The job or task with this number, or None.

        While an array waits as a whole, some systems list it as one line without an index: that line speaks for each
        of its tasks.
        """
        whole = None
        for job in self.jobs:
            if job.number == number:
                if job.index == index:
                    return job
                if job.index is None:
                    whole = job
        return whole

    def named(self, name: str) -> tuple[Job, ...]:
        """The jobs with exactly this name: how a submission is found again after a crash."""
        return tuple(job for job in self.jobs if job.name == name)

    def plus(self, others: Iterable[Listing]) -> Listing:
        """This listing with those of other ways of asking. Of two reports on one job the later news is kept."""
        best = {(job.number, job.index): job for job in self.jobs}
        unread = list(self.unread)
        for other in others:
            unread += other.unread
            for job in other.jobs:
                known = best.get((job.number, job.index))
                if known is None or known.state.before(job.state) or known.state is JobState.UNKNOWN:
                    best[job.number, job.index] = job
        return Listing(tuple(best.values()), tuple(unread))
