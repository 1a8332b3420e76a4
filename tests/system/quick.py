"""Commands in processes of their own that need not start Python anew: forked from one that has everything imported.

For tests that run hundreds of them. The processes are real: they are killed, have signals and children of their own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import orchestrator

CODE = Path(orchestrator.__file__).parent.parent
#: What commands import when they are needed.
EAGER = (
    "orchestrator.poller", "orchestrator.farmer", "orchestrator.gatherer", "orchestrator.registrar",
    "orchestrator.importing", "orchestrator.byhand", "orchestrator.engine.operations", "orchestrator.engine.controls",
    "orchestrator.cli.daemons", "orchestrator.cli.operations", "orchestrator.cli.control", "orchestrator.cli.importing",
    "orchestrator.couch", "orchestrator.schedulers.fsched", "orchestrator.transports",
)  # fmt: skip


class Nursery:
    """The process that others are forked from. One command at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def run(self, words: Sequence[str], *, cwd: Path, environment: Mapping[str, str], log: Path, seconds: float) -> int:
        """``orchestrator <words>`` to its end, its output at the end of ``log``; its exit code, negative for a signal.

        Raises TimeoutError if it takes longer; then it is killed.
        """
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                env={**os.environ, "PYTHONPATH": str(CODE)},
            )  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None
        order = {"words": list(words), "cwd": str(cwd), "environment": dict(environment), "log": str(log),
                 "seconds": seconds}  # fmt: skip
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if answer["late"]:
            raise TimeoutError(f"orchestrator {' '.join(words)} had not ended after {seconds:g} s")
        return int(answer["code"])


def _child(order: dict[str, object]) -> None:
    """The command, in the forked process. Does not come back."""
    os.setsid()
    code = 1
    try:
        log = os.open(str(order["log"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(str(order["cwd"]))
        environment = order["environment"]
        assert isinstance(environment, dict)
        os.environ.clear()
        os.environ.update(environment)
        sys.path[:0] = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
        from orchestrator.cli import main

        words = order["words"]
        assert isinstance(words, list)
        code = int(main(words) or 0)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _nursery() -> None:
    import importlib
    import signal
    import time

    for name in EAGER:
        importlib.import_module(name)
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            _child(order)
        end, late = time.monotonic() + order["seconds"], False
        while True:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                break
            if time.monotonic() > end and not late:
                late = True
                os.killpg(child, signal.SIGKILL)
            time.sleep(0.01)
        print(json.dumps({"code": os.waitstatus_to_exitcode(status), "late": late}), flush=True)


if __name__ == "__main__":
    _nursery()
