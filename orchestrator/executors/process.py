"""One worker process as its poller sees it: its birth, what it has been given and says, whether it lives, its end."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from orchestrator.capture import output_path
from orchestrator.executors import memory
from orchestrator.executors.spool import read_reports
from orchestrator.jobchain import ChainData
from orchestrator.lines import line_of
from orchestrator.reports import Report
from orchestrator.runner import Places, Task

log = logging.getLogger(__name__)

#: How long (s) the end of a worker that has been killed is waited for: one that hangs in the kernel may never come.
KILL_WAIT = 5.0
#: How long (s) a worker that has closed its pipe may take to end by itself.
LAST_WAIT = 0.5
#: Bytes that are written to a pipe, or read from one, at once.
CHUNK = 1 << 20


@dataclass
class Batch:
    """Tasks that one worker makes in order, with the spool file that its reports are in."""

    name: str
    spool: Path
    tasks: deque[Task]
    attempts: frozenset[str]

    def __post_init__(self) -> None:
        #: How many of the tasks that are left are of which step.
        self.steps = Counter(task.step for task in self.tasks)

    def next(self) -> Task:
        """Take out the task that was reported, or will not be."""
        task = self.tasks.popleft()
        self.steps[task.step] -= 1
        return task

    def unheard(self) -> list[Report]:
        """Reports of these tasks that the worker has spooled and not sent, or that have not been read yet."""
        expected = {task.attempt for task in self.tasks}
        return [report for report in read_reports(self.spool) if report.attempt in expected]


@dataclass
class Movement:
    """What was last seen of an attempt, and when (monotonic s) it was last seen to move."""

    attempt: str
    moved: float
    seen: Any = None
    reports: int = 0


@dataclass
class Worker:
    """One process, seen from the poller."""

    number: int
    process: subprocess.Popen[bytes]
    reader: IO[bytes]
    output: Path
    unread: bytes = b""
    unsent: bytearray = field(default_factory=bytearray)
    batches: deque[Batch] = field(default_factory=deque)
    heard: float = 0.0
    verdict: tuple[str, str] | None = None
    #: The attempt that it was ended for, where that one alone was not wanted any more.
    unwanted: str = ""
    born: bool = False
    #: What is known of the movement of the attempt in work, where its step has a limit for standing still.
    movement: Movement | None = None

    @classmethod
    def birth(cls, number: int, name: str, chain: ChainData, places: Places) -> Worker:
        """Start a worker for the steps of a chain, and tell it where it works. Raises OSError if there can be none."""
        read, write = os.pipe2(os.O_CLOEXEC)
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "orchestrator.worker", str(write), str(os.getpid())],
                stdin=subprocess.PIPE, pass_fds=[write], start_new_session=True, bufsize=0, env=worker_environment(),
            )  # fmt: skip
        except OSError:
            os.close(read)
            raise
        finally:
            os.close(write)
        worker = cls(number, process, os.fdopen(read, "rb", buffering=0), output_path(places.scratch, name))
        os.set_blocking(read, False)
        os.set_blocking(worker.writer, False)
        hello: dict[str, Any] = {
            "name": name,
            "chain": chain.data(),
            "output": str(places.output), "scratch": str(places.scratch), "logs": str(places.logs),
            "path": [path for path in sys.path if path],
        }  # fmt: skip
        worker.unsent += line_of(hello)
        return worker

    @property
    def writer(self) -> int:
        """The pipe to it, a descriptor."""
        assert self.process.stdin is not None
        return self.process.stdin.fileno()

    def send(self) -> bool:
        """Write what its pipe takes now of ``unsent``; whether that was all."""
        try:
            while self.unsent:
                del self.unsent[: os.write(self.writer, self.unsent[:CHUNK])]
        except BlockingIOError:
            return False
        except OSError:
            self.unsent.clear()  # it is dead: its pipe says so when it is read
        return True

    def read(self) -> tuple[list[bytes], bool]:
        """The whole lines that it has written since, and whether its pipe has ended."""
        ended = False
        chunks = [self.unread]
        while True:
            try:
                chunk = self.reader.read(CHUNK)
            except OSError:
                chunk = b""
            if not chunk:
                ended = chunk is not None  # None: nothing more to read yet
                break
            chunks.append(chunk)
        *lines, self.unread = b"".join(chunks).split(b"\n")
        return lines, ended

    def close(self) -> None:
        """Close both pipes: an idle worker closes its steps then, and goes."""
        assert self.process.stdin is not None
        self.reader.close()
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            log.debug("worker %s ended with unread commands", self.number)

    def outstanding(self) -> int:
        """How many tasks it has been given and not reported."""
        return sum(len(batch.tasks) for batch in self.batches)

    def blames(self, task: Task) -> bool:
        """Whether its end is this task's: not where another one was called off that had just ended by itself."""
        return self.unwanted in ("", task.attempt)

    def has_ended(self) -> bool:
        """Whether it has ended; it is left to be waited for, so that its number stays its own."""
        try:
            return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True

    def let_end(self) -> None:
        """Wait a moment for its end: its pipe closes shortly before, and its exit code says what SIGKILL would hide."""
        pause = threading.Event()
        for _ in range(100):
            if self.has_ended():
                return
            pause.wait(LAST_WAIT / 100)

    def kill(self) -> None:
        """SIGKILL to it and to all that it started, but for what has left its process group."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def code(self) -> int:
        """Its exit code, once it has ended or been killed; that of SIGKILL if it hangs and does not end."""
        try:
            return self.process.wait(timeout=KILL_WAIT)
        except subprocess.TimeoutExpired:
            log.error("process %d was killed and does not end: a file system may be away", self.process.pid)
            return -signal.SIGKILL

    def resident(self) -> int:
        """Resident memory of it and of all that it started, in bytes; 0 if it is gone."""
        return memory.resident(self.process.pid)


def drain(descriptor: int) -> None:
    """Read a non-blocking pipe empty."""
    try:
        while os.read(descriptor, 4096):
            pass
    except BlockingIOError:
        return


def worker_environment() -> dict[str, str]:
    """What a worker's steps see of this process's environment.

    Not the database's login: steps are other people's code, and print their environment. And one thread for each
    numerical library, unless the person who runs this says otherwise: there is a worker for each core already.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ORCHESTRATOR_COUCH_")}
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        environment.setdefault(name, "1")
    return environment
