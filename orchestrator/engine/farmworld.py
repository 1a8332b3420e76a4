"""A farm as the engine sees it: its batch system's answers and our jobs' files in its spool, over a transport."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable, Mapping, Sequence
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
from orchestrator.transports import Entry, FileRefused, Transport, TransportUnavailable

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
#: Bytes of results that are read in one round at the farm; more come in the next.
READ_AT_ONCE = 64 << 20
#: Removes folders of jobs, in one round trip: chunks first, for a task that its batch system starts again just then
#: would find what it is to do, and no more of the marker that says how far it came. The folders are its arguments.
REMOVAL = f'for one do rm -f -- "$one"/{jobfiles.CHUNKS}; done; exec rm -rf -- "$@"'
#: Folders that one command removes: their names must fit on its line.
REMOVED_AT_ONCE = 500


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
        #: Jobs whose files could not be removed: to be tried again.
        self.unremoved: set[str] = set()

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
            self.transport.write(path, line_of(chunk.to_json()))
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
        """What one job has left so far; see `look_at`. Raises FileRefused."""
        found = self.look_at([job])[job]
        if found is None:
            raise FileRefused(f"the folder of job {job} on {self.transport.where} cannot be read")
        return found

    def look_at(self, jobs: Iterable[str]) -> dict[str, Files | None]:
        """What jobs have left so far, in few exchanges with the farm; None for one whose folder cannot be read.

        Small files that have not changed are not read again, and results are kept for `result`.
        """
        names = list(jobs)
        found: dict[str, Files | None] = dict.fromkeys(names)
        listed: dict[str, Sequence[Entry]] = {}
        folders = self.transport.list_many([jobfiles.folder(self.spool, job) for job in names])
        for job, entries in zip(names, folders, strict=True):
            if not isinstance(entries, FileRefused):
                listed[job] = [entry for entry in entries if _form(entry.name) is not None]
            elif entries.errno == errno.ENOENT:
                listed[job] = ()
            else:
                log.warning("%s", entries)
        for job in self._unread(listed):
            del listed[job]
        return found | {job: self._files(job, entries) for job, entries in listed.items()}

    def _unread(self, listed: Mapping[str, Sequence[Entry]]) -> set[str]:
        """Read, all at once, the files that are new or have changed; the jobs of which one cannot be read now."""
        room = READ_AT_ONCE
        wanted: list[tuple[str, Entry]] = []
        for job, entries in listed.items():
            for entry in entries:
                if self._read.get((job, entry.name), (None, None))[:2] != (entry.mtime, entry.size):
                    room -= entry.size if entry.name.endswith(jobfiles.RESULT) else 0
                    if room >= 0 or not entry.name.endswith(jobfiles.RESULT):  # `result` reads what is left out
                        wanted.append((job, entry))
        paths = [f"{jobfiles.folder(self.spool, job)}/{entry.name}" for job, entry in wanted]
        unread = set()
        for (job, entry), data in zip(wanted, self.transport.read_many(paths) if paths else (), strict=True):
            if isinstance(data, FileRefused):
                if not entry.name.endswith(jobfiles.RESULT):
                    log.warning("%s", data)
                    unread.add(job)
                continue
            form = _form(entry.name)
            value: object = data
            try:
                if form is not None and not issubclass(form, bytes):
                    value = form.from_json(value_of(data))
            except ValueError as error:
                log.error("%s of job %s cannot be read: %s", entry.name, job, error)
                continue
            self._read[job, entry.name] = (entry.mtime, entry.size, value)
        return unread

    def _files(self, job: str, entries: Sequence[Entry]) -> Files:
        """What a job has left, as far as it has been read."""
        found = Files()
        for entry in entries:
            if entry.name.endswith(jobfiles.RESULT):
                found.results.add(entry.name.removesuffix(jobfiles.RESULT))
                continue
            value = self._read.get((job, entry.name), (0.0, 0, None))[2]
            if isinstance(value, Marker):
                found.markers[int(entry.name.removesuffix(".json").partition("-")[2])] = value
            elif isinstance(value, Returned):
                found.returned |= dict.fromkeys(value.attempts, value.reason)
            elif isinstance(value, Withdrawn):
                found.withdrawn |= dict.fromkeys(value.attempts, value.reason)
                found.ending |= set(value.end)
        return found

    def result(self, job: str, attempt: str) -> tuple[Report, str]:
        """What became of an attempt, and on which node. Raises ValueError for a file that is no result."""
        name = jobfiles.result_name(attempt)
        data = self._read.get((job, name), (0.0, 0, None))[2]
        if not isinstance(data, bytes):
            data = self.transport.read(f"{jobfiles.folder(self.spool, job)}/{name}")
        return jobfiles.result_from_json(value_of(data))

    def installed(self) -> Installed | None:
        """The version that new jobs use; None if nothing is installed. Raises ValueError for a spoilt record."""
        path = software.record(self.spool, self.query.prefix)
        return Installed.from_json(value_of(self.transport.read(path))) if self.transport.exists(path) else None

    def forget(self, attempts: Iterable[tuple[str, str]]) -> None:
        """Results, by job and attempt, that are recorded, or that nobody wants: removed in one go."""
        names = [(job, jobfiles.result_name(attempt)) for job, attempt in attempts]
        for key in names:
            self._read.pop(key, None)
        self.transport.remove_many([f"{jobfiles.folder(self.spool, job)}/{name}" for job, name in names])

    def last_words(self, job: str, task: int) -> tuple[JobState, str] | None:
        """What the batch system wrote into the stderr of a job that failed, and which end it means; mostly nothing."""
        path = f"{jobfiles.logs(self.spool, job)}/err-{task}"
        answer = self.transport.run(["tail", "-c", str(LAST_WORDS), "--", path])
        return self.scheduler.read_stderr(answer.stdout) if answer.ok else None

    def give_up(self, tasks: Iterable[tuple[str, int]]) -> None:
        """Take the chunk files of tasks away, by job: what still runs of them, if anything does, ends in seconds."""
        names = [f"{jobfiles.folder(self.spool, job)}/{jobfiles.chunk_name(task)}" for job, task in tasks]
        self.transport.remove_many(names)

    def remove(self, *jobs: str) -> None:
        """Everything of jobs but what people read. A task of theirs that begins only now finds nothing to do."""
        if not jobs:
            return
        self._read = {key: value for key, value in self._read.items() if key[0] not in jobs}
        for start in range(0, len(jobs), REMOVED_AT_ONCE):
            some = jobs[start : start + REMOVED_AT_ONCE]
            folders = [jobfiles.folder(self.spool, job) for job in some]
            answer = self.transport.run(["sh", "-c", REMOVAL, "remove", *folders])
            if not answer.ok:  # a job may have written its last word just then
                self.unremoved |= set(some)
                log.info("the files of jobs %s are not all removed yet: %s", ", ".join(some), answer.said)

    def jobs(self) -> list[str]:
        """The names of our jobs that have files in the spool."""
        folder = f"{self.spool}/jobs"
        self.transport.mkdir(folder)
        names = [entry.name for entry in self.transport.list(folder) if entry.is_folder]
        return sorted(name for name in names if name.startswith(self.query.prefix))


def _form(name: str) -> type[Marker] | type[Returned] | type[Withdrawn] | type[bytes] | None:
    """What a file of a job's folder is read as; None if it is not read at all."""
    if name.startswith("."):
        return None
    if name.endswith(jobfiles.RESULT):
        return bytes
    kind, _, rest = name.removesuffix(".json").partition("-")
    return _FORMS.get(kind) if rest.isdecimal() else None
