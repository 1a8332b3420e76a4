"""Real batch systems for tests, by `deploy/batch/*.sh` of a source checkout: brought up, disturbed, asked, taken down.

Everything here is done as the system's own people would do it: clients run as the account that has the jobs, daemons
are stopped and nodes set down as root.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from orchestrator.schedulers import Answer, Command, HistoryUnavailable, Job, Listing, Query, Scheduler, ask, get

DEPLOY = Path(__file__).parents[2] / "deploy" / "batch"
USER = "batchtest"
#: So long (s) a daemon may take to end, to come up or to know a node again.
PATIENCE = 60.0


def why_not(name: str) -> str | None:
    """Why system ``name`` cannot be brought up here, with what to do; None if that is worth trying."""
    script = SYSTEMS[name].script
    if os.getuid() != 0:
        return f"{script} is started by root: run the tests as root, after deploy/batch/install.sh {script}"
    if not DEPLOY.exists():
        return f"needs a source checkout: {DEPLOY} is not there"
    return None


class NotInstalled(Exception):
    """The system's programs are not there; the sentence says how to get them."""


class BatchSystem:
    """One running system; a context manager. Its folder must be one that other accounts can read."""

    script: ClassVar[str]
    words: ClassVar[tuple[str, ...]] = ()
    settings: ClassVar[dict[str, str]] = {}

    def __init__(self, folder: Path, port: int, **how: Any) -> None:
        """``how`` are variables of the script: ``CPUS=2``, ``SLOTS=4``. Raises NotInstalled."""
        self.folder, self.port = folder, port
        self._how = {key: str(value) for key, value in how.items()}
        self.user = self._how.get("JOB_USER", USER)
        self._call("up", *self.words)
        self.scheduler: Scheduler = get(
            self.script, programs=self.programs, environment=self.environment, settings=self.settings
        )

    # --- up and down ---

    def _call(self, *words: str) -> None:
        environment = {**os.environ, "PORT": str(self.port), "AT_ONCE": "1", **self._how}
        script = DEPLOY / f"{self.script}.sh"
        done = subprocess.run(
            [script, words[0], self.folder, *words[1:]], env=environment, capture_output=True, text=True, timeout=120
        )
        if done.returncode and "install.sh" in done.stderr:
            raise NotInstalled(done.stderr.strip())
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)

    def down(self) -> None:
        """Ends daemons and jobs; the state is thrown away."""
        self.start()  # what is stopped cannot be told to end its jobs
        self._call("down")
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    # --- clients ---

    @property
    def programs(self) -> str:
        """The folder of the clients; empty: they are on the PATH."""
        return ""

    @property
    def environment(self) -> dict[str, str]:
        """What clients need in their environment."""
        return {}

    @property
    def farm(self) -> dict[str, Any]:
        """The system as a chain's farm: all but its spool."""
        return {
            "scheduler": self.script, "programs": self.programs, "environment": self.environment,
            "settings": self.settings,
        }  # fmt: skip

    def run(self, command: Command) -> Answer:
        """Runs a command of the scheduler's file as the account, with next to no environment, as SSH would."""
        try:
            done = self._as_user(command.argv, command.timeout)
        except subprocess.TimeoutExpired:
            return Answer(None)
        return Answer(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def client(self, *words: str) -> str:
        """What a program prints, run as the account."""
        program = f"{self.programs}/{words[0]}" if self.programs else words[0]
        done = self._as_user(
            ("env", *(f"{key}={value}" for key, value in self.environment.items()), program, *words[1:]), 60.0
        )
        if done.returncode:
            raise RuntimeError(f"{words[0]}: {done.stdout.decode()}{done.stderr.decode()}")
        return done.stdout.decode(errors="replace")

    def _as_user(self, words: Sequence[str], timeout: float) -> subprocess.CompletedProcess[bytes]:
        account = pwd.getpwnam(self.user)
        return subprocess.run(
            list(words), capture_output=True, timeout=timeout, cwd="/",
            user=account.pw_uid, group=account.pw_gid, extra_groups=[], check=False,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": account.pw_dir, "USER": self.user},
        )  # fmt: skip

    def admin(self, *words: str) -> str:
        """What a program prints, run as whoever runs the tests."""
        environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin", **self.environment}
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=60, cwd="/", env=environment, check=False
        )
        return done.stdout + done.stderr

    # --- asking ---

    def queue(self, prefix: str) -> Listing:
        """The account's jobs whose names begin so."""
        return ask.queue(self.scheduler, Query(prefix, self.user), self.run)

    def running(self, prefix: str) -> list[Job]:
        """Those of them that run."""
        return [job for job in self.queue(prefix).jobs if job.state == "running"]

    def everything(self, prefix: str) -> tuple[Job, ...]:
        """The account's jobs whose names begin so, in the queue and ended."""
        query = Query(prefix, self.user)
        listing = ask.queue(self.scheduler, query, self.run)
        with contextlib.suppress(HistoryUnavailable):
            listing = listing.plus([ask.history(self.scheduler, query, self.run)])
        return listing.jobs

    def numbers(self, prefix: str) -> dict[str, set[str]]:
        """By name, the numbers under which the system has, or had, jobs: more than one is a name submitted twice."""
        found: dict[str, set[str]] = {}
        for job in self.everything(prefix):
            found.setdefault(job.name, set()).add(job.number)
        return found

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Cancels them by the system's own command."""
        ask.cancel(self.scheduler, [self.scheduler.key(job.number, job.index) for job in jobs], self.run)

    # --- disturbing ---

    def daemon(self) -> list[int]:
        """The processes of the daemon that answers clients."""
        raise NotImplementedError

    def stop(self) -> None:
        """Ends that daemon; clients find nobody."""
        raise NotImplementedError

    def start(self) -> None:
        """Starts it again if it does not run, and waits until it answers."""
        raise NotImplementedError

    def freeze(self) -> None:
        """Stops that daemon in the middle of what it does: clients wait for an answer."""
        for pid in self.daemon():
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets it go on."""
        for pid in self.daemon():
            os.kill(pid, signal.SIGCONT)

    def node_down(self) -> None:
        """Takes a node away from its jobs."""
        raise NotImplementedError

    def node_up(self) -> None:
        """Gives it back."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Whether the queue can be asked."""
        return self.run(self.scheduler.listing(Query("orc-", self.user))).exit_code == 0


class Slurm(BatchSystem):
    """Slurm without an accounting database."""

    script = "slurm"

    @property
    def environment(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def daemon(self) -> list[int]:
        return _alive(self.folder / "slurmctld.pid")

    def stop(self) -> None:
        _end(self.daemon(), signal.SIGTERM)

    def start(self) -> None:
        if self.daemon() and self.answers():
            return
        until(lambda: bool(self.daemon()) or not self.admin("/usr/sbin/slurmctld"), "slurmctld to start")
        until(self.answers, "slurmctld to answer")

    def node_down(self) -> None:
        self.admin("scontrol", "update", "nodename=n2", "state=down", "reason=test")

    def node_up(self) -> None:
        self.admin("scontrol", "update", "nodename=n2", "state=resume")


class SlurmAccounting(Slurm):
    """Slurm with slurmdbd."""

    words = ("--accounting",)

    def stop_accounting(self) -> None:
        """Ends slurmdbd: the queue is still there."""
        _end(_alive(self.folder / "slurmdbd.pid"), signal.SIGTERM)

    def start_accounting(self) -> None:
        """Starts it again."""
        if not _alive(self.folder / "slurmdbd.pid"):
            settings = {**os.environ, "SLURM_CONF": str(self.folder / "slurmdbd.conf")}
            subprocess.run(["/usr/sbin/slurmdbd"], env=settings, check=True, timeout=20)

    def start(self) -> None:
        self.start_accounting()
        super().start()


class GridEngine(BatchSystem):
    """Grid Engine."""

    script = "gridengine"

    @property
    def programs(self) -> str:
        return "/usr/lib/gridengine"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "SGE_ROOT": str(self.folder), "SGE_CELL": "default", "SGE_QMASTER_PORT": str(self.port),
            "SGE_EXECD_PORT": str(self.port + 1),
        }  # fmt: skip

    def daemon(self) -> list[int]:
        return _alive(self.folder / "qmaster" / "qmaster.pid")

    def stop(self) -> None:
        _end(self.daemon(), signal.SIGKILL)

    def start(self) -> None:
        if not self.daemon():
            self.admin("sge_qmaster")
        until(self.answers, "qmaster to answer")

    def node_down(self) -> None:
        """Closes the node, and kills what looks after two of our jobs there: they count as gone, and run on."""
        self.admin("/usr/lib/gridengine/qmod", "-d", "*")
        victims = [
            folder
            for folder in self.folder.glob("execd/*/active_jobs/*")
            if b"\nJOB_NAME=orc-" in _read(folder / "environment") and (folder / "job_pid").exists()
        ]
        for folder in victims[:2]:
            number = _read(folder / "pid").strip()
            if number.isdigit() and _read(Path(f"/proc/{int(number)}/cmdline")).startswith(b"sge_shepherd"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(number), signal.SIGKILL)

    def node_up(self) -> None:
        self.admin("/usr/lib/gridengine/qmod", "-e", "*")


class HTCondor(BatchSystem):
    """HTCondor. Its master starts whatever ends again after some seconds, unless it is stopped too."""

    script = "htcondor"

    @property
    def programs(self) -> str:
        return str(self.folder / "bin")

    def _processes(self, name: str) -> list[int]:
        return [
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if _read(path).startswith(name.encode()) and f"{self.folder}/".encode() in _read(path.with_name("environ"))
        ]

    def daemon(self) -> list[int]:
        return self._processes("condor_schedd")

    def stop(self) -> None:
        for pid in self._processes("condor_master"):
            os.kill(pid, signal.SIGSTOP)
        for pid in self.daemon():
            os.kill(pid, signal.SIGKILL)

    def start(self) -> None:
        for pid in self._processes("condor_master"):
            os.kill(pid, signal.SIGCONT)
        until(self.answers, "schedd to answer")

    def node_down(self) -> None:
        """Ends the daemon of the node with all its jobs, as `condor_off -fast` does; the master starts it again."""
        for pid in self._processes("condor_startd"):
            os.kill(pid, signal.SIGQUIT)

    def node_up(self) -> None:
        """The master has done it."""


SYSTEMS: Mapping[str, type[BatchSystem]] = {
    "slurm": Slurm, "slurm-accounting": SlurmAccounting, "gridengine": GridEngine, "htcondor": HTCondor,
}  # fmt: skip
"""The real systems by the names that tests give them."""


def until(done: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Waits for something. Raises TimeoutError if it does not come."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(0.2)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _alive(path: Path) -> list[int]:
    """The process whose number is in the file, if it lives; a zombie does not."""
    number = _read(path).strip()
    if not number.isdigit() or not Path(f"/proc/{int(number)}").exists():
        return []
    return [] if b"\nState:\tZ" in _read(Path(f"/proc/{int(number)}/status")) else [int(number)]


def _end(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        until(lambda pid=pid: not _lives(pid), f"process {pid} to end")  # type: ignore[misc]


def _lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists() and b"\nState:\tZ" not in _read(Path(f"/proc/{pid}/status"))
