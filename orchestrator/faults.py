"""Fault points: named places between intent, act and record, at which a test lets the process die.

Every place where something has just become true, and is not written down yet (or the other way round), has a name in
POINTS and a call of ``point`` there. Nothing happens unless the environment says so:

    ORCHESTRATOR_FAULT=engine.written:3 orchestrator poll

kills that process (SIGKILL, as a power cut would) the third time it comes there. ``NAME:NTH:HOW`` chooses another end:
``kill``, ``stop`` (SIGSTOP: a process that hangs) or ``full`` (an OSError, as a full disk gives). With
ORCHESTRATOR_FAULT_NOTE naming a file, it happens once: the process makes the file first, and where it exists already
nothing happens, so that what is started again by others in the same environment works.

For tests and rehearsals. A point that nobody has armed costs one comparison.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from orchestrator.errors import SettingsError

VARIABLE = "ORCHESTRATOR_FAULT"
NOTE = "ORCHESTRATOR_FAULT_NOTE"

#: Every point there is, and what a process that dies there leaves behind.
POINTS: Mapping[str, str] = {
    "poller.locked": "the poller's spool and lock are made; the database does not know of it",
    "poller.beaten": "the first heartbeat is written, nothing is claimed",
    "poller.handed-over": "claims are written and their tasks are with the workers",
    "poller.heard": "reports have reached the poller and are in its memory and in the spool",
    "poller.cleared": "all reports of a batch are recorded and its spool file is gone",
    "poller.given-back": "a poller that was told to end has given back what it had not begun; its heartbeat stands",
    "poller.left": "its heartbeat is gone too; its spool folder and its lock file are there",
    "engine.writing": "decisions are made and not written",
    "engine.written": "decisions are in the database, and the poller has not taken in that they are",
    "engine.claimed": "a claim is in the database, its task with no worker",
    "engine.recorded": "a result is in the database, its report still in the spool",
    "engine.went-on": "a result and the claim of the next step are in the database, its task with no worker",
    "engine.freed": "what a dead poller held is free again; its spool is not removed",
    "recovery.adopted": "a dead poller's lock is held and its reports are read; nothing is written",
    "recovery.decided": "its reports and losses wait to be written",
    "recovery.forgotten": "its heartbeat is removed, its spool is not",
    "spool.emptied": "its spool folder is removed, its lock file is not",
    "worker.born": "a worker has said that it is there",
    "worker.begun": "a worker has taken a task up",
    "worker.ran": "the step is done; its report is in the worker's memory alone",
    "worker.spooled": "the report is in the spool and not sent",
    "worker.sent": "every report of a batch is sent",
    "runner.begun": "the step is about to begin",
    "runner.done": "the step has ended; its scratch directory and its log are as it left them",
    "runner.cleared": "the scratch directory is gone, the log is not kept yet",
    "farm.intending": "jobs are planned and nothing is written",
    "farm.intended": "documents are queued with the name of a job that has no files yet",
    "farm.prepared": "the job's files are at the farm; no note says that it is about to be submitted",
    "farm.noted": "the note is written, the submit command is not given",
    "farm.submitted": "the batch system has the job and its answer is lost",
    "farm.numbered": "the job's number is in its documents",
    "farm.recording": "what became of attempts is known and not written",
    "farm.recorded": "it is written; their result files are still there",
    "farm.forgotten": "result files are removed, the job's folder is not",
    "farm.removed": "a job's folder is removed",
    "job.begun": "the batch job has read its chunk",
    "job.claimed": "its marker is made: the task is this job's",
    "job.marked": "the marker names the attempt in work",
    "job.ran": "the attempt has ended, its result file is not written",
    "job.leaving": "the result file is on the disk under its temporary name",
    "job.left": "the result file is there",
    "job.ended": "every document of the task has a result; the job has not ended yet",
    "register.found": "closed files are found",
    "register.writing": "their documents are made and not written",
    "register.written": "the documents are in the database, and the registrar has not taken in that they are",
    "farm.told": "a task's file names the attempts that are to be taken back; the batch system is not told",
    "farm.cancelled": "the batch system was told to cancel jobs; what becomes of them is not looked at yet",
    "direct.recording": "a job has results that it is about to write straight into the database",
    "direct.recorded": "they are in the database, their files still in the farm's spool",
    "people.begun": "an operation's record says that it has begun; nothing of it is done",
    "people.prepared": "the documents of attempts that it ends and of what it takes out are written, the change is not",
    "people.changed": "a bulk of documents is changed",
    "people.cleared": "output files are moved or removed, and nothing says so",
    "people.freeing": "what became of the files is written; their documents are still on hold",
    "people.done": "all is done; the operation's record says that it has begun",
    "gather.taken": "members are taken for a document that is not there",
    "gather.made": "their document is there",
    "gather.counted": "a run's document is there, its members know nothing of it",
    "gather.telling": "a gathered document is through; its members are not told",
    "import.writing": "a page of documents is translated and not written",
    "import.written": "it is in the database, the next page is not read",
    "install.sent": "a version's files are at the farm, in a folder that nobody reads",
    "install.unpacked": "they are unpacked and were tried there",
    "install.named": "the version has its name; new jobs use the one before",
    "install.recorded": "new jobs use it; versions that nobody needs are still there",
    "mend.begun": "the record of a mending is written, nothing is mended",
    "mend.done": "all is mended; the record says that it has begun",
    "settle.decided": "versions in conflict are put together and not written",
    "settle.written": "they are one; nobody has been told",
    "database.committing": "the embedded database has weighed a group of writes; SQLite has not committed them",
    "database.committed": "they are committed; nobody has an answer",
    "database.delivered": "their answers are on their way, the feeds have not been rung",
    "index.committing": "a view's index has taken in changes; SQLite has not committed them",
    "index.committed": "it has; who asked has no answer",
    "replication.copied": "documents of a replication are at the target, no checkpoint says so",
    "replication.recorded": "one end's checkpoint says so, the other's does not",
    "transform.begun": "a run's record is written; no worker knows of the run",
    "transform.processed": "a worker has done a spill and has told nobody",
    "transform.storing": "workers' results are with the transform, and not in the store",
    "transform.stored": "they are in the store; no position says so",
    "transform.placed": "the input's position is written down, and the input has not been told",
    "transform.ended": "a run's record says that it has ended; its workers do not know",
    "reducer.counted": "spills are in a reducer's histograms and not in its saved state",
    "reducer.published": "its plots are published, with spills that its saved state lacks",
    "reducer.saving": "a new saved state is on the disk under its temporary name",
    "reducer.saved": "a new saved state is there",
    "reducer.complete": "all spills of a run are counted and saved; nothing of its end is written",
    "reducer.snapshot": "the ROOT file of a run's end is there, its pictures and metadata are not",
    "reducer.finished": "a reducer has finished with a run; its saved state is there and the run is not final",
    "reducer.united": "all reducers' histograms are in one file; the run's record does not say that it is final",
}

ENDS = ("kill", "stop", "full")


@dataclass
class Fault:
    """What is to happen, where, and at which time of coming there."""

    name: str
    times: int = 1
    how: str = "kill"
    note: str = ""

    def reach(self, name: str) -> None:
        """Somebody is at a point. Raises OSError for ``full``."""
        if name != self.name:
            return
        self.times -= 1
        if self.times == 0 and self._first():
            if self.how == "full":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.kill(os.getpid(), signal.SIGSTOP if self.how == "stop" else signal.SIGKILL)

    def _first(self) -> bool:
        if not self.note:
            return True
        try:
            os.close(os.open(self.note, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            return False
        return True


def parse(environ: Mapping[str, str]) -> Fault | None:
    """The fault that the environment asks for. Raises SettingsError for one that there is not."""
    text = environ.get(VARIABLE, "")
    if not text:
        return None
    name, _, rest = text.partition(":")
    times, _, how = rest.partition(":")
    if name not in POINTS:
        raise SettingsError(f"{VARIABLE}={text}: there is no fault point {name!r}; orchestrator/faults.py names them")
    if not (times or "1").isdecimal() or int(times or "1") < 1:
        raise SettingsError(f"{VARIABLE}={text}: write NAME:NTH, with NTH from 1")
    if (how or "kill") not in ENDS:
        raise SettingsError(f"{VARIABLE}={text}: no end {how!r} (known: {', '.join(ENDS)})")
    return Fault(name, int(times or "1"), how or "kill", environ.get(NOTE, ""))


_reach: Callable[[str], None] | None = None


def arm(environ: Mapping[str, str]) -> None:
    """Let this process meet the fault that its environment asks for, if it asks for one. Raises SettingsError."""
    global _reach
    fault = parse(environ)
    _reach = fault.reach if fault is not None else None


def point(name: str) -> None:
    """A fault point: nothing, unless it is armed."""
    if _reach is not None:
        _reach(name)
