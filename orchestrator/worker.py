"""A worker of the local pool: a process that takes batches of tasks, runs them one by one and reports.

Commands come as JSON lines on standard input, reports go as JSON lines to a pipe whose descriptor is the argument. Each
report is appended to the batch's file in the spool *before* it is sent, so that a poller that dies in between finds it
again. Standard output and error belong to the steps and are kept as their logs.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from orchestrator.capture import Capture
from orchestrator.chain import Chain
from orchestrator.documents import Report
from orchestrator.lifeline import die_with_parent, orphaned
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
        self._waiting.append(json.dumps(message).encode() + b"\n")
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
            self._wire.put({"progress": self._attempt, "fraction": float(fraction), "text": str(text)[:200]})
            self._wire.flush()


def run_batch(runner: Runner, wire: Wire, batch: dict[str, Any]) -> None:
    """Run a batch's tasks in order; each report goes to the spool, then to the poller."""
    spool = os.open(batch["spool"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        for data in batch["tasks"]:
            task = Task(**data)
            report = runner.run(task, ProgressWire(wire, task.attempt))
            _append(spool, report)
            wire.put({"report": report.to_json()})
    finally:
        os.close(spool)
    wire.put({"batch": batch["batch"]})
    wire.flush()


def _append(spool: int, report: Report) -> None:
    try:
        os.write(spool, json.dumps(report.to_json()).encode() + b"\n")
    except OSError as error:
        # The spool is the second net. Without it (a full disk) the report still travels by the pipe.
        print(f"the report could not be spooled: {error}", file=sys.stderr)


def main(arguments: list[str]) -> int:
    """Entry of the process: ``python -m orchestrator.worker <descriptor> <parent pid>``."""
    descriptor, parent = int(arguments[0]), int(arguments[1])
    die_with_parent()
    if orphaned(parent):
        return 0
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at a terminal is the poller's to answer
    wire = Wire(descriptor)
    commands = os.fdopen(os.dup(0), "rb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    hello = json.loads(commands.readline())
    places = Places(Path(hello["output"]), Path(hello["scratch"]), Path(hello["logs"]))
    sys.path += [path for path in hello.get("path", []) if path not in sys.path]  # last: nothing there hides a library
    capture = Capture(places.scratch, hello["name"], redirect=True)
    runner = Runner(Chain.model_validate(hello["chain"]), places, capture)
    wire.put({"born": os.getpid()})
    wire.flush()
    for line in commands:
        run_batch(runner, wire, json.loads(line))
    runner.close()
    capture.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
