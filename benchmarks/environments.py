"""The other systems of the comparisons, each with a driver and in a Python environment of its own, made on first use.

The environments lie in ``~/.cache/couch-orchestrator/benchmarks`` (BENCHMARK_ENVIRONMENTS: elsewhere), so that
nothing of theirs reaches the project's own. One whose requirements have changed is made anew.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from common import Memory, first_line

OTHERS = Path(__file__).parent / "others"
INSTALLING = 600.0  # s that each of the two commands that make an environment may take
PATIENCE = 240.0  # s that one run of a driver may take: they are given work for a few


class NotHere(Exception):
    """A system cannot be measured on this machine; the sentence says why and what would help."""


def place() -> Path:
    """The folder of all environments."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("BENCHMARK_ENVIRONMENTS") or cache / "couch-orchestrator" / "benchmarks")


def environment(name: str) -> Path:
    """The Python of the system ``name``; its environment is made if need be. Raises NotHere where that fails."""
    wanted = OTHERS / name / "requirements.txt"
    folder = place() / name
    python = folder / "bin" / "python"
    state = hashlib.sha256(wanted.read_bytes() + sys.version.encode()).hexdigest()
    done = folder / "made-from"
    if done.exists() and done.read_text() == state:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    commands = (
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", str(wanted)],
    )
    for command in commands:
        try:
            ended = subprocess.run(command, capture_output=True, text=True, timeout=INSTALLING)
            last = (ended.stderr.strip().splitlines() or ["no word"])[-1] if ended.returncode else ""
        except subprocess.TimeoutExpired:
            last = f"not through after {INSTALLING:.0f} s"
        if last:
            raise NotHere(f"{name} could not be installed ({' '.join(command[-2:])}): {last}")
    done.write_text(state)
    return python


@contextlib.contextmanager
def redis(synced: bool) -> Iterator[tuple[str, int]]:
    """A Redis of its own: URL and process. ``synced``: each write is flushed to the disk before it is answered.

    Raises NotHere where Redis is not installed.
    """
    program = shutil.which("redis-server")
    if program is None:
        raise NotHere("no redis-server here: run deploy/benchmark_services.sh")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        words = ["--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--loglevel", "warning"]
        if synced:
            words += ["--appendonly", "yes", "--appendfsync", "always"]
        process = subprocess.Popen([program, *words], stdout=subprocess.DEVNULL, preexec_fn=_end_with_parent)
        try:
            deadline = time.monotonic() + 20
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                if process.poll() is not None or time.monotonic() > deadline:
                    raise NotHere("redis-server did not start")
                time.sleep(0.05)
            yield f"redis://127.0.0.1:{port}/0", process.pid
        finally:
            process.kill()
            process.wait()


def _end_with_parent() -> None:
    """Between fork and exec: nothing goes on when the benchmark has been killed (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def redis_version() -> str:
    """What the Redis here says of itself; empty without one."""
    words = first_line("redis-server", "--version").split()
    return next((word.partition("=")[2] for word in words if word.startswith("v=")), "")


def drive(
    name: str, what: str, keeps: str, documents: int, *, broker: str = "", workers: int = 2, load: int = 0
) -> dict[str, Any]:
    """One run of a system's driver: what it printed, and ``memory`` (MB) of all that it needed.

    Args:
        keeps: the driver's variant (BENCHMARK_KEEPS).
        broker: ``redis`` or ``redis, synced``: a Redis of its own is started for the run.

    Raises:
        NotHere: the system or its broker cannot be had here.
        RuntimeError: the driver failed; with the end of what it said.
    """
    python = environment(name)
    folder = OTHERS / name
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        variables = {
            **os.environ, "BENCHMARK_MARKS": str(scratch / "marks"), "BENCHMARK_KEEPS": keeps,
            "PYTHONPATH": f"{OTHERS}{os.pathsep}{folder}", "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip
        pids = []
        if broker:
            variables["BENCHMARK_REDIS"], pid = stack.enter_context(redis("synced" in broker))
            pids.append(pid)
        words = [what, "--documents", str(documents), "--workers", str(workers), "--load", str(load)]
        process = subprocess.Popen(
            [str(python), str(folder / "driver.py"), *words], cwd=folder, env=variables, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=_end_with_parent, start_new_session=True,
        )  # fmt: skip
        stack.callback(_end_all, process)
        with Memory(process.pid, *pids) as memory:
            try:
                output, errors = process.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                raise RuntimeError(f"{name}: not through after {PATIENCE:.0f} s") from None
        if process.returncode:
            log = scratch / "said.log"
            last = (errors.strip().splitlines() or [f"ended with {process.returncode}"])[-1]
            said = errors.strip() + "\n" + (log.read_text(errors="replace")[-2000:] if log.exists() else "")
            raise RuntimeError(f"{name}: {last}\n{said[-3000:]}")
        try:
            return {**json.loads(output.strip().splitlines()[-1]), "memory": memory.most}
        except (ValueError, IndexError):
            raise RuntimeError(f"{name}: no result in what it printed: {output[-300:]!r}") from None


def _end_all(process: subprocess.Popen[str]) -> None:
    """Ends a driver's processes: its group, and those of its descendants that have made a group of their own."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
