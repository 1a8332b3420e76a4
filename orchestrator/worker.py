"""A worker of the local pool: a process that takes batches of tasks, runs them one by one and reports.

Commands come as JSON lines on standard input, reports go as JSON lines to a pipe whose descriptor is the argument. Each
report is appended to the batch's file in the spool *before* it is sent, so that a poller that dies in between finds it
again. Standard output and error belong to the steps and are kept as their logs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from orchestrator import faults
from orchestrator.capture import Capture
from orchestrator.jobchain import JobChain
from orchestrator.lifeline import die_with_parent, orphaned
from orchestrator.lines import line_of, value_of
from orchestrator.runner import Places, Runner, Task

#: Reports of very short steps are sent together, at the latest so long after they were made (s).
REPORT_DELAY = 0.02
#: Progress is passed on at most so often (s): it is for people.
PROGRESS_EVERY = 0.5


class Wire:
    """The worker's end of the pipe to its poller."""

    def __init__(self, descriptor: int) -> None:
        self._file = os.fdopen(descriptor, "wb", buffering=0)
        self._waiting: list[bytes] = []
        self._flushed = time.monotonic()

    def put(self, message: dict[str, Any]) -> None:
        """Send with others, soon."""
        self.put_line(line_of(message))

    def put_line(self, line: bytes) -> None:
        """Send a message that is a line already, with others, soon."""
        self._waiting.append(line)
        if time.monotonic() - self._flushed >= REPORT_DELAY:
            self.flush()

    def flush(self) -> None:
        if self._waiting:
            data = memoryview(b"".join(self._waiting))
            self._waiting = []
            while data:
                data = data[self._file.write(data) :]
        self._flushed = time.monotonic()


class ProgressWire:
    """A progress reporter that speaks to the poller, not too often."""

    def __init__(self, wire: Wire, attempt: str) -> None:
        self._wire = wire
        self._attempt = attempt
        self._next = time.monotonic() + PROGRESS_EVERY

    def __call__(self, fraction: float, text: str = "") -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + PROGRESS_EVERY
            known = fraction == fraction  # a step that divides by nothing reports NaN, which JSON does not have
            self._wire.put(
                {
                    "progress": self._attempt,
                    "fraction": max(0.0, min(1.0, float(fraction))) if known else None,
                    "text": str(text)[:200].encode("utf-8", "replace").decode(),
                }
            )
            self._wire.flush()


def run_batch(runner: Runner, wire: Wire, batch: dict[str, Any]) -> None:
    """Run a batch's tasks in order; each report goes to the spool, then to the poller."""
    me = os.getpid()
    with SpoolFile(batch["spool"]) as spool, HomeFolder() as home:
        for data in batch["tasks"]:
            task = Task(**data)
            faults.point("worker.begun")
            report = runner.run(task, ProgressWire(wire, task.attempt))
            if os.getpid() != me:
                os._exit(1)  # the step forked, and this is the copy: the tasks that follow are not its own
            home.go()
            faults.point("worker.ran")
            line = line_of(report.to_json())
            spool.append(line)
            faults.point("worker.spooled")
            wire.put_line(b'{"report":' + line[:-1] + b"}\n")
    wire.put({"batch": batch["batch"]})
    wire.flush()
    faults.point("worker.sent")


class HomeFolder:
    """The folder that the worker began in: steps may go elsewhere, and what they went to may be gone afterwards."""

    def __enter__(self) -> HomeFolder:
        self._descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def go(self) -> None:
        os.fchdir(self._descriptor)


class SpoolFile:
    """A batch's file in the spool. It is the second net: without it (a full disk) reports still travel by the pipe."""

    def __init__(self, path: str) -> None:
        self._descriptor = -1
        self._broken = False
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            self._say(error)

    def __enter__(self) -> SpoolFile:
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def append(self, line: bytes) -> None:
        """Append a report; after one that was cut short, on a line of its own."""
        if self._descriptor < 0:
            return
        data = b"\n" + line if self._broken else line
        try:
            self._broken = os.write(self._descriptor, data) < len(data)
        except OSError as error:
            self._say(error)

    @staticmethod
    def _say(error: OSError) -> None:
        with contextlib.suppress(OSError, ValueError):
            print(f"the report could not be spooled: {error}", file=sys.stderr)


def main(arguments: list[str]) -> int:
    """Entry of the process: ``python -m orchestrator.worker <descriptor> <parent pid>``."""
    descriptor, parent = int(arguments[0]), int(arguments[1])
    die_with_parent()
    faults.arm(os.environ)
    if orphaned(parent):
        return 0
    os.set_inheritable(descriptor, False)  # what a step starts must not keep the pipe open when this process is gone
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at a terminal is the poller's to answer
    wire = Wire(descriptor)
    commands = os.fdopen(os.dup(0), "rb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    hello = value_of(commands.readline())
    places = Places(Path(hello["output"]), Path(hello["scratch"]), Path(hello["logs"]))
    sys.path += [path for path in hello.get("path", []) if path not in sys.path]  # last: nothing there hides a library
    capture = Capture(places.scratch, hello["name"], redirect=True)
    runner = Runner(JobChain(hello["chain"]), places, capture)
    wire.put({"born": os.getpid()})
    wire.flush()
    faults.point("worker.born")
    for line in commands:
        run_batch(runner, wire, value_of(line))
    try:
        runner.close()
    finally:
        capture.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
