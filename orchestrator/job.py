"""The farm-side runner: what a batch job is. ``orchestrator job CHUNK.json``, or ``python -m orchestrator.job``.

It needs no network and no database: its documents, their attempts and the step come in the chunk file, and what became
of each goes into a result file of its own (`jobfiles`), which the farm's daemon collects. Where the nodes reach the
database, results also go straight there (`direct`). A worker does the documents, one at a time, as in the local pool:
so limits hold for each document, and a crash takes one attempt.

Signals: SIGUSR1 (the time limit is near) lets the document in work go on and hands the rest back; SIGTERM, SIGXCPU and
SIGUSR2 (about to be killed) end that one too, with a result that says so. Whatever else ends the job, what is there is
whole, the marker says which attempt was in work, and a job that is started again skips what has a result.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from orchestrator import faults, jobfiles
from orchestrator.direct import Direct, direct
from orchestrator.executors.events import Event, Returned
from orchestrator.executors.pool import Pool
from orchestrator.executors.spool import Spool
from orchestrator.jobchain import JobChain
from orchestrator.jobfiles import Chunk, Marker
from orchestrator.lines import line_of, value_of
from orchestrator.reports import Report
from orchestrator.runner import Places, Task

log = logging.getLogger(__name__)

#: No more documents are begun.
WARNINGS = frozenset({signal.SIGUSR1})
#: The document in work is ended too: the batch system kills soon.
ENDINGS = frozenset({signal.SIGTERM, signal.SIGXCPU, signal.SIGUSR2})
#: Exit codes of a worker that was ended by such a signal, and so long (s) the job's own may come after it.
TOLD, SAME_MOMENT = frozenset(-number for number in ENDINGS), 1.0
#: How often the job looks whether its chunk has been withdrawn while a document is in work (s).
LOOK = 5.0
#: How often a job that was started again looks whether its first start still works (s).
AGAIN = 1.0
#: Pauses (s) before a file is written again; shorter than what batch systems leave between SIGTERM and the end.
WRITE_AGAIN = (0.5, 1.0, 2.0, 5.0, 10.0)
#: How long the end of a job waits for the database, which need not answer (s); after a signal, how long.
LAST_WORD, LAST_MOMENT = 6.0, 1.0
#: Exit code for a chunk that cannot be read: EX_DATAERR of sysexits.h.
BAD_CHUNK = 65


class Heard:
    """The signals that have come, from the first moment on."""

    def __init__(self) -> None:
        self.signals: list[signal.Signals] = []
        #: Called with each.
        self.wake: Callable[[], None] | None = None
        for number in WARNINGS | ENDINGS:
            signal.signal(number, self._hear)

    def _hear(self, number: int, _: FrameType | None = None) -> None:
        self.signals.append(signal.Signals(number))
        if self.wake is not None:
            self.wake()


class Job:
    """One task of a batch job."""

    def __init__(self, path: Path, chunk: Chunk, number: str, scratch: Path, heard: Heard) -> None:
        self.path, self.chunk, self.number = path, chunk, number
        self.folder = path.parent
        self.tasks = [Task(**task) for task in chunk.tasks]
        self.marker = Marker(number, socket.gethostname(), os.getpid(), time.time())
        self.direct: Direct | None = None
        self._signals = heard.signals
        self._heard = heard
        self._marks = 0
        self._scratch = scratch
        self._unborn = ""
        self._interrupted: str | None = None
        self._places = {task.attempt: place for place, task in enumerate(self.tasks)}
        self._before = 0  # so many documents an earlier start of this job has dealt with

    def claim(self) -> bool:
        """Whether the task is this job's to do: the marker is made once, and belongs to one job of the batch system.

        If two jobs of the same name exist (a submission whose answer was lost, and its repetition), the second finds
        the marker of the first and does nothing. If the batch system starts the same job again, the second start waits
        for the first to end, if that is still at work on this machine, and goes on with what is left.
        """
        path = self.folder / jobfiles.started_name(self.chunk.task)
        if not path.exists():
            temporary = self.folder / f".{path.name}.{self.number or 0}.{os.getpid()}"
            with temporary.open("wb") as file:
                file.write(line_of(asdict(self.marker)))
                file.flush()
                os.fsync(file.fileno())
            try:
                path.hardlink_to(temporary)
                return True
            except FileExistsError:
                log.info("another job was quicker")
            finally:
                temporary.unlink(missing_ok=True)
        held = Marker.from_json(value_of(path.read_bytes()))
        if not self.number or held.number != self.number:
            return False
        while self._works(held) and not self._signals and self._wanted():
            time.sleep(AGAIN)
        try:
            held = Marker.from_json(value_of(path.read_bytes()))
        except FileNotFoundError:  # nobody waits for the task any more
            return False
        self._interrupted, self._before = held.attempt, held.position
        return not self._works(held)

    def _works(self, held: Marker) -> bool:
        """Whether another start of this job, that of the marker, lives on this machine."""
        if held.host != self.marker.host or held.pid == self.marker.pid:
            return False
        try:
            return os.fsencode(self.path) in Path(f"/proc/{held.pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False

    def run(self) -> int:
        """Do what is left to do; the exit code."""
        faults.point("job.begun")
        if not self.claim():
            log.warning("task %d of %s is done by another job: nothing to do", self.chunk.task, self.chunk.job)
            return 0
        faults.point("job.claimed")
        left = [task for task in self.tasks if not self._dealt_with(task.attempt)]
        for task in [task for task in left if task.attempt == self._interrupted]:
            left.remove(task)  # how far it had come is not known: another attempt is made, by another name
            self._leave(self._ended(task, [], "the batch system started its job again while it was in work"))
        chain = JobChain(self.chunk.chain)
        logs = Path(self.chunk.logs) if self.chunk.logs else self._scratch / "logs"
        places = Places(Path(self.chunk.output), self._scratch / "work", logs)
        spool = Spool(self._scratch, f"job-{os.getpid()}")

        def workers() -> Pool:
            return Pool(chain, places, spool, 1, name="job", cost=lambda _: 1.0, depth=1.0)

        pool = workers()
        self._heard.wake = pool.wake
        skipped: list[Task] = []
        closed = False
        try:
            while left and not self._signals and self._wanted():
                # The mark comes first: who withdraws an attempt looks at the mark after that, so one of the two sees
                # what the other has done.
                self._mark(left[0])
                faults.point("job.marked")
                if left[0].attempt in self._withdrawn().attempts:
                    skipped.append(left.pop(0))
                    continue
                report = self._one(pool, left[0])
                if report is None:  # it was ended, or no worker can be made
                    closed = True
                    report = self._ended(left[0], pool.close())
                faults.point("job.ran")
                self._leave(report)
                faults.point("job.left")
                ended = left.pop(0)
                if closed and not self._unborn and not self._signals and ended.attempt in self._withdrawn().end:
                    pool, closed = workers(), False  # this one alone was to end
                    self._heard.wake = pool.wake
                if closed:
                    break
            self._mark(None, left)
            self._hand_back([*skipped, *left])
            faults.point("job.ended")
        finally:
            self._heard.wake = None
            if not closed:
                pool.close()
            spool.close()
        return 0

    def _dealt_with(self, attempt: str) -> bool:
        """Whether an earlier start of this job has left a result of the attempt, or has handed it back.

        The result of one that is recorded is gone: then the marker tells. It does not tell those apart that were
        skipped because they had been withdrawn, so these are looked at again.
        """
        if self._places[attempt] < self._before and attempt not in self._withdrawn().attempts:
            return True
        if (self.folder / jobfiles.result_name(attempt)).exists():
            return True
        try:
            returned = (self.folder / jobfiles.returned_name(self.chunk.task)).read_bytes()
        except FileNotFoundError:
            return False
        return attempt in jobfiles.Returned.from_json(value_of(returned)).attempts

    def _withdrawn(self) -> jobfiles.Withdrawn:
        """The attempts that who submitted this job wants no more."""
        try:
            data = (self.folder / jobfiles.withdrawn_name(self.chunk.task)).read_bytes()
        except FileNotFoundError:
            return jobfiles.Withdrawn()
        return jobfiles.Withdrawn.from_json(value_of(data))

    def _one(self, pool: Pool, task: Task) -> Report | None:
        """Have one attempt made: its report, or None if it has to be ended here."""
        self._unborn = ""
        pool.submit([task])
        while True:
            for event in pool.events(LOOK):
                if isinstance(event, Report):
                    return None if self._told_too(event) else event
                if isinstance(event, Returned):
                    if event.unborn:
                        self._unborn = event.unborn
                        return None
                    pool.submit(event.tasks)
            if ENDINGS & set(self._signals) or not self._wanted() or task.attempt in self._ending():
                return None

    def _wanted(self) -> bool:
        """Whether the chunk file is there still. Only a certain absence counts: a spool may be away for a moment."""
        try:
            self.path.stat()
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return True

    def _ending(self) -> list[str]:
        """The attempts that shall end; none as long as that cannot be read."""
        try:
            return self._withdrawn().end
        except (OSError, ValueError):
            return []

    def _told_too(self, report: Report) -> bool:
        """Whether the worker ended by a signal that this job has got too: a batch system may signal all processes."""
        if report.exit_code not in TOLD:
            return False
        end = time.monotonic() + SAME_MOMENT
        while not ENDINGS & set(self._signals) and time.monotonic() < end:
            time.sleep(0.02)
        return bool(ENDINGS & set(self._signals))

    def _ended(self, task: Task, last: list[Event], why: str = "") -> Report:
        """The report of an attempt that was ended here: its own, if it came to one in the last moment."""
        for event in last:
            if isinstance(event, Report) and event.attempt == task.attempt:
                return event
        names = [one.name for one in self._signals]
        if why:
            kind, reason = "transient", why
        elif self._unborn:
            kind, reason = "transient", f"no worker can be made on {self.marker.host}: {self._unborn}"
        elif "SIGXCPU" in names or "SIGUSR1" in names:
            kind, reason = "resources", f"its job reached a limit and was ended ({', '.join(names)})"
        elif names:
            kind, reason = "transient", f"its job was ended by the batch system or by hand ({', '.join(names)})"
        else:
            kind, reason = "transient", "its job was withdrawn"
        now = time.time()
        started = self.marker.attempt_started or now
        return Report(
            str(task.document.get("_id")), task.step, task.attempt, started, now,
            seconds=round(max(0.0, now - started), 3), exit_code=None, error_class=kind, reason=reason,
        )  # fmt: skip

    def _mark(self, task: Task | None, left: Sequence[Task] = ()) -> None:
        """Say which attempt is in work; None at the end, with what is left undone."""
        self.marker.attempt = task.attempt if task else None
        first = task or next(iter(left), None)
        self.marker.position = self._places[first.attempt] if first else len(self.tasks)
        self.marker.attempt_started = time.time() if task else 0.0
        # No two marks that follow each other are of one size: over SFTP a file's time is whole seconds, and who reads
        # marks only where time or size has changed would miss the second of two.
        self._marks += 1
        padded = {**asdict(self.marker), "pad": "x" * (64 * (self._marks % 8))}
        self._write(jobfiles.started_name(self.chunk.task), padded)

    def _leave(self, report: Report) -> None:
        report.software["chain"] = self.chunk.fingerprint
        content = jobfiles.result_to_json(report, self.marker.host, self.number)
        self._write(jobfiles.result_name(report.attempt), content, "job.leaving")
        if self.direct is not None:
            self.direct.offer(report, self.marker.host)

    def _hand_back(self, left: list[Task]) -> None:
        if not left:
            return
        names = ", ".join(one.name for one in self._signals)
        reason = f"its job did not come to it ({names or 'it was withdrawn, or no worker could be made'})"
        attempts = [task.attempt for task in left]
        self._write(jobfiles.returned_name(self.chunk.task), {"attempts": attempts, "reason": reason})

    def _write(self, name: str, content: Any, fault: str = "") -> None:
        """A file, whole and on the disk or not at all. If the job's folder is gone, nobody waits for it any more.

        A disk that is full or away for a moment is waited for: hours of work may be in this file. Raises OSError.
        """
        for pause in (*WRITE_AGAIN, None):
            try:
                self._write_once(name, content, fault)
                return
            except OSError as error:
                if pause is None or ENDINGS & set(self._signals):
                    raise
                log.warning("%s cannot be written, tried again in %g s: %s", name, pause, error)
                time.sleep(pause)

    def _write_once(self, name: str, content: Any, fault: str) -> None:
        temporary = self.folder / f".{name}.{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):
            with temporary.open("wb") as file:
                file.write(line_of(content))
                file.flush()
                os.fsync(file.fileno())
            if fault:
                faults.point(fault)
            temporary.replace(self.folder / name)


def read_chunk(path: Path) -> Chunk:
    """The chunk file. Raises FileNotFoundError if it has been withdrawn, ValueError if it is none."""
    return Chunk.from_json(value_of(path.read_bytes()))


def run(path: Path, environ: Mapping[str, str]) -> int:
    """Do a chunk; the exit code. 0 does not mean that every document went well: the result files say."""
    heard = Heard()
    try:
        chunk = read_chunk(path)
    except FileNotFoundError:
        log.warning("%s has been withdrawn: nothing to do", path)
        return 0
    except ValueError as error:
        log.error("the chunk file %s cannot be used: %s", path, error)
        return BAD_CHUNK
    sys.path += [folder for folder in chunk.path if folder not in sys.path]  # last: nothing there hides a library
    root = chunk.scratch or tempfile.gettempdir()
    scratch = Path(tempfile.mkdtemp(prefix=f"{chunk.job}-{chunk.task}-", dir=root))
    try:
        job = Job(path, chunk, environ.get("ORCHESTRATOR_JOB_NUMBER", ""), scratch, heard)
        job.direct = direct(chunk, environ)
        try:
            return job.run()
        finally:
            if job.direct is not None:  # the files are there: a job that is to end does not wait for the database
                job.direct.close(LAST_MOMENT if heard.signals else LAST_WORD)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def main(arguments: list[str]) -> int:
    """Entry of the process."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname).1s %(message)s")
    faults.arm(os.environ)
    if len(arguments) != 1:
        print("usage: python -m orchestrator.job CHUNK.json", file=sys.stderr)
        return 2
    return run(Path(arguments[0]), os.environ)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
