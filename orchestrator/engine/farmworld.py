"""A farm as the engine sees it: its batch system's answers and our jobs' files in its spool, over a transport."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace

from orchestrator import jobfiles, software
from orchestrator.documents import Report
from orchestrator.jobfiles import Chunk, Marker, Returned, Withdrawn
from orchestrator.lines import line_of, value_of
from orchestrator.schedulers import (
    Answer,
    Command,
    HistoryUnavailable,
    JobSpec,
    JobState,
    Listing,
    Query,
    Scheduler,
    Submitted,
)
from orchestrator.schedulers import ask as batch
from orchestrator.software import Installed
from orchestrator.transports import FileRefused, Transport, TransportUnavailable

log = logging.getLogger(__name__)

#: So long (s) an answer may take to come back once its command has ended.
ANSWER = 10.0
#: Exit codes of coreutils' timeout for a command that it had to end, by SIGTERM or by SIGKILL.
TIMED_OUT = (124, 137)
#: Bytes at the end of a job's stderr in which the batch system's own words are looked for.
LAST_WORDS = 8192
#: Files of a job's tasks that are read again when they have changed, by the first word of their names.
_FORMS: dict[str, type[Marker] | type[Returned] | type[Withdrawn]] = {
    "started": Marker, "returned": Returned, "withdrawn": Withdrawn,
}  # fmt: skip


@dataclass
class Files:
    """What a job has left so far: attempts with results, markers by task, attempts handed back with the reason.

    ``withdrawn`` are attempts, with the reason, that its tasks have been told not to begin, ``ending`` those of them
    that they have been told to end.
    """

    results: set[str] = field(default_factory=set)
    markers: dict[int, Marker] = field(default_factory=dict)
    returned: dict[str, str] = field(default_factory=dict)
    withdrawn: dict[str, str] = field(default_factory=dict)
    ending: set[str] = field(default_factory=set)


class World:
    """One farm. Raises `SchedulerError` and `TransportError` as those rooms do; nothing is kept but what was read."""

    def __init__(self, scheduler: Scheduler, transport: Transport, spool: str, query: Query) -> None:
        self.scheduler, self.transport, self.spool, self.query = scheduler, transport, spool, query
        self._read: dict[tuple[str, str], tuple[float, int, object]] = {}
        self.submissions = 0

    # --- the batch system ---

    def _run(self, command: Command) -> Answer:
        try:
            answer = self.transport.run(command.argv, timeout=command.timeout)
        except TransportUnavailable as error:
            return Answer(None, "", str(error))
        return Answer(answer.exit_code, answer.stdout, answer.stderr)

    def queue(self) -> Listing:
        """All our jobs in the queue: one call."""
        return batch.queue(self.scheduler, self.query, self._run)

    def history(self) -> Listing | None:
        """Our ended jobs; None where this farm keeps no history."""
        try:
            return batch.history(self.scheduler, self.query, self._run)
        except HistoryUnavailable:
            return None

    def submit(self, spec: JobSpec, grace: float = 90.0) -> Submitted:
        """Give the submit command, and nothing else: the files are there.

        The command is ended at the farm after two thirds of ``grace`` (s), which is how long its job is waited for if
        no answer comes: also one whose daemon or connection is gone must not submit later than that.
        """
        self.submissions += 1
        command = self.scheduler.submit(spec)
        seconds = min(command.timeout, grace / 1.5)
        words = ("timeout", "--kill-after=2", f"{seconds:.3f}", *command.argv)
        answer = self._run(replace(command, argv=words, timeout=seconds + ANSWER))
        if answer.exit_code in TIMED_OUT:
            answer = Answer(None, answer.stdout, answer.stderr)
        return self.scheduler.read_submit(answer, spec)

    def cancel(self, keys: Iterable[str]) -> None:
        """Have jobs and tasks (`Scheduler.key`) cancelled. Raises SchedulerUnavailable."""
        batch.cancel(self.scheduler, list(keys), self._run)

    # --- files of a job ---

    def prepare(self, spec: JobSpec, chunks: Iterable[Chunk]) -> None:
        """Write the job's files. Overwriting those of an earlier try that was not submitted harms nothing."""
        self.transport.mkdir(jobfiles.folder(self.spool, spec.name))
        self.transport.mkdir(jobfiles.logs(self.spool, spec.name))
        for chunk in chunks:
            path = f"{jobfiles.folder(self.spool, spec.name)}/{jobfiles.chunk_name(chunk.task)}"
            self.transport.write(path, line_of(asdict(chunk)))
        for file in self.scheduler.files(spec):
            self.transport.write(file.path, file.text.encode("utf-8", "surrogateescape"), file.mode)

    def mark_submitting(self, job: str, now: float) -> None:
        """Note that the submit command is about to be given."""
        self.transport.write(self._submitting(job), line_of({"at": now}))

    def unmark_submitting(self, job: str) -> None:
        """The submit command surely had no effect."""
        self.transport.remove(self._submitting(job))

    def submitting(self, job: str) -> float | None:
        """When the submit command was given, or was about to be; None if it surely never was."""
        try:
            return float(value_of(self.transport.read(self._submitting(job)))["at"])
        except FileRefused as error:
            if not self.transport.exists(self._submitting(job)):
                return None
            raise error
        except (ValueError, KeyError, TypeError):
            return 0.0

    def _submitting(self, job: str) -> str:
        return f"{jobfiles.folder(self.spool, job)}/{jobfiles.SUBMITTING}"

    def withdraw(self, job: str, task: int, attempts: Iterable[str], end: Iterable[str], why: str) -> None:
        """Tell a task not to begin these attempts, and to end the one that it is at, if it is among ``end``."""
        path = f"{jobfiles.folder(self.spool, job)}/{jobfiles.withdrawn_name(task)}"
        self.transport.write(path, line_of(asdict(Withdrawn(sorted(attempts), sorted(end), why))))

    def look(self, job: str) -> Files:
        """What a job has left so far; small files that have not changed are not read again."""
        found = Files()
        folder = jobfiles.folder(self.spool, job)
        if not self.transport.exists(folder):
            return found
        for entry in self.transport.list(folder):
            name = entry.name
            if name.startswith("."):
                continue
            if name.endswith(jobfiles.RESULT):
                found.results.add(name.removesuffix(jobfiles.RESULT))
                continue
            kind, _, rest = name.removesuffix(".json").partition("-")
            if kind not in _FORMS or not rest.isdecimal():
                continue
            known = self._read.get((job, name))
            if known is None or known[:2] != (entry.mtime, entry.size):
                try:
                    data = value_of(self.transport.read(f"{folder}/{name}"))
                    value = _FORMS[kind].from_json(data)
                except ValueError as error:
                    log.error("%s of job %s cannot be read: %s", name, job, error)
                    continue
                known = self._read[job, name] = (entry.mtime, entry.size, value)
            if isinstance(known[2], Marker):
                found.markers[int(rest)] = known[2]
            elif isinstance(known[2], Returned):
                found.returned |= dict.fromkeys(known[2].attempts, known[2].reason)
            elif isinstance(known[2], Withdrawn):
                found.withdrawn |= dict.fromkeys(known[2].attempts, known[2].reason)
                found.ending |= set(known[2].end)
        return found

    def result(self, job: str, attempt: str) -> tuple[Report, str]:
        """What became of an attempt, and on which node. Raises ValueError for a file that is no result."""
        path = f"{jobfiles.folder(self.spool, job)}/{jobfiles.result_name(attempt)}"
        return jobfiles.result_from_json(value_of(self.transport.read(path)))

    def installed(self) -> Installed | None:
        """The version that new jobs use; None if nothing is installed. Raises ValueError for a spoilt record."""
        path = software.record(self.spool, self.query.prefix)
        return Installed.from_json(value_of(self.transport.read(path))) if self.transport.exists(path) else None

    def forget(self, job: str, attempts: Iterable[str]) -> None:
        """Results that are recorded, or that nobody wants."""
        for attempt in attempts:
            self.transport.remove(f"{jobfiles.folder(self.spool, job)}/{jobfiles.result_name(attempt)}")

    def last_words(self, job: str, task: int) -> tuple[JobState, str] | None:
        """What the batch system wrote into the stderr of a job that failed, and which end it means; mostly nothing."""
        path = f"{jobfiles.logs(self.spool, job)}/err-{task}"
        answer = self.transport.run(["tail", "-c", str(LAST_WORDS), "--", path])
        return self.scheduler.read_stderr(answer.stdout) if answer.ok else None

    def give_up(self, job: str, task: int) -> None:
        """Take the chunk file away: what still runs of the task, if anything does, ends within seconds."""
        self.transport.remove(f"{jobfiles.folder(self.spool, job)}/{jobfiles.chunk_name(task)}")

    def remove(self, job: str) -> None:
        """Everything of a job but what people read. A task of it that begins only now finds nothing to do."""
        self._read = {key: value for key, value in self._read.items() if key[0] != job}
        answer = self.transport.run(["rm", "-rf", "--", jobfiles.folder(self.spool, job)])
        if not answer.ok:
            log.warning("the files of job %s cannot be removed: %s", job, answer.said)

    def jobs(self) -> list[str]:
        """The names of our jobs that have files in the spool."""
        folder = f"{self.spool}/jobs"
        self.transport.mkdir(folder)
        names = [entry.name for entry in self.transport.list(folder) if entry.is_folder]
        return sorted(name for name in names if name.startswith(self.query.prefix))
