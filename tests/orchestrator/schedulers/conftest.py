"""Real batch systems for the tests beside this file, and answers recorded from them.

A system that is not installed, or a caller who is not root, skips its tests with a sentence. The systems are brought up
by ``deploy/batch/*.sh`` on ports and in folders of their own and taken down again afterwards.

``RECORD_BATCH=1 pytest tests/orchestrator/schedulers/test_real_*.py`` writes the answers anew into ``recorded/``.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator import schedulers
from orchestrator.schedulers import Answer, Command, Job, JobFile, Listing, Query, Scheduler, ask

RECORDED = Path(__file__).parent / "recorded"
DEPLOY = Path(__file__).parents[3] / "deploy" / "batch"
# for two runs side by side on one machine; without it the second waits for the first
OFFSET = int(os.environ.get("BATCH_TEST_PORT_OFFSET", "0"))
FOLDER = Path(f"/var/tmp/batch-systems-of-tests{OFFSET or ''}")
USER = "batchtest"
RECORDING = bool(os.environ.get("RECORD_BATCH"))


@dataclass
class Farm:
    """A batch system with an account at it. ``run`` and ``write`` are what a transport does, here by a subprocess."""

    name: str  # the folder of its recorded answers
    scheduler: Scheduler
    user: str
    home: Path
    folder: Path  # of the system's own state
    environment: dict[str, str] = field(default_factory=dict)  # for `admin`
    port: int = 0
    recorded: set[str] = field(default_factory=set)
    log: list[tuple[str, ...]] = field(default_factory=list)  # what was run, for "in one call"

    def run(self, command: Command, record: str = "") -> Answer:
        """Runs ``command`` as the farm's account with next to no environment, as SSH would."""
        self.log.append(command.argv)
        account = pwd.getpwnam(self.user)
        try:
            ended = subprocess.run(
                command.argv,
                capture_output=True,
                timeout=command.timeout,
                cwd="/",
                user=account.pw_uid if os.getuid() == 0 else None,
                group=account.pw_gid if os.getuid() == 0 else None,
                extra_groups=[] if os.getuid() == 0 else None,
                env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": account.pw_dir, "USER": self.user},
            )
            answer = Answer(
                ended.returncode, ended.stdout.decode(errors="replace"), ended.stderr.decode(errors="replace")
            )
        except subprocess.TimeoutExpired:
            answer = Answer(None)
        except FileNotFoundError as error:
            answer = Answer(127, "", str(error))
        if record:
            self.record(record, command, answer)
        return answer

    def record(self, name: str, command: Command, answer: Answer) -> None:
        """Keeps an answer as a fixture if this is a recording."""
        self.recorded.add(name)
        if not RECORDING:
            return
        place = RECORDED / self.name
        place.mkdir(parents=True, exist_ok=True)
        content = {"argv": command.argv, "way": command.way, "exit_code": answer.exit_code, "stdout": answer.stdout,
                   "stderr": answer.stderr}  # fmt: skip
        text = json.dumps(content, indent=1, ensure_ascii=False)
        # where the tests happen to stand is nobody's business
        for here, there in (
            (sys.executable, "python3"),
            (str(FOLDER), "/var/tmp/batch-systems"),
            (str(DEPLOY.parents[1]), "/opt/orchestrator"),
        ):
            text = text.replace(here, there)
        (place / f"{name}.json").write_text(text + "\n")

    def write(self, file: JobFile) -> None:
        path = Path(file.path)
        path.write_text(file.text)
        path.chmod(file.mode)
        self.give(path)

    def give(self, path: Path) -> None:
        if os.getuid() == 0:
            shutil.chown(path, self.user, self.user)

    def admin(self, *words: str) -> str:
        """Runs a command as whoever runs the tests, with the system's environment."""
        environment = os.environ | self.environment
        ended = subprocess.run(words, capture_output=True, text=True, timeout=60, cwd="/", env=environment, check=False)
        return ended.stdout + ended.stderr

    def queue(self, query: Query, record: str = "") -> Listing:
        return ask.queue(self.scheduler, query, lambda command: self.run(command, record))

    def history(self, query: Query, record: str = "") -> Listing:
        """As `ask.history`, keeping the answer of each way."""
        return ask.history(
            self.scheduler, query, lambda command: self.run(command, record and f"{record}-{command.way}")
        )

    def until(self, query: Query, done: Callable[[dict[str, Job]], bool], *, seconds: float = 30.0) -> dict[str, Job]:
        """Our jobs by name and task (``name/2``), from queue and history, as soon as ``done`` says so."""
        deadline = time.monotonic() + seconds
        while True:
            listing = self.queue(query)
            with contextlib.suppress(schedulers.HistoryUnavailable):
                listing = listing.plus([self.history(query)])
            jobs = {f"{job.name}/{job.index}" if job.index else job.name: job for job in listing.jobs}
            if done(jobs):
                return jobs
            if time.monotonic() > deadline:
                states = ", ".join(
                    f"{name} {job.state} ({job.raw_state}: {job.reason})" for name, job in sorted(jobs.items())
                )
                raise AssertionError(f"{self.name}: not so after {seconds} s: {states}")
            time.sleep(0.3)


def bring_up(system: str, folder: Path, port: int, *words: str) -> None:
    """Starts a system by its script, or skips the test with the reason."""
    if os.getuid() != 0:
        pytest.skip(f"{system} is started by root: run the tests as root, after deploy/batch/install.sh {system}")
    script = DEPLOY / f"{system}.sh"
    ended = subprocess.run(
        [script, "up", folder, *words],
        env=os.environ | {"PORT": str(port)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    if ended.returncode and "install.sh" in ended.stderr:
        pytest.skip(ended.stderr.strip())
    assert ended.returncode == 0, ended.stdout + ended.stderr


def take_down(system: str, folder: Path, port: int) -> None:
    script = DEPLOY / f"{system}.sh"
    environment = os.environ | {"PORT": str(port), "AT_ONCE": "1"}
    subprocess.run([script, "down", folder], env=environment, capture_output=True, timeout=120)
    shutil.rmtree(folder, ignore_errors=True)


def farm_home(name: str) -> Path:
    """A folder of the account, with everything in its name that a shell could trip over."""
    home = Path(pwd.getpwnam(USER).pw_dir) / f'{name} it\'s "$(touch pwned)" %t %j'
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    shutil.chown(home, USER, USER)
    return home


SYSTEMS: Sequence[tuple[str, str, int, tuple[str, ...]]] = (
    ("slurm", "slurm", 18817, ()),
    ("slurm-accounting", "slurm", 18917, ("--accounting",)),
    ("gridengine", "gridengine", 18444, ()),
    ("htcondor", "htcondor", 18618, ()),
)


class Farms:
    """The real systems that have been brought up so far; all go down together, after the last module that uses them."""

    def __init__(self) -> None:
        self.stack = contextlib.ExitStack()
        self.up: dict[str, Farm] = {}

    def get(self, name: str) -> Farm:
        """Brings ``name`` up at the first asking. Skips the test where it cannot be."""
        if name not in self.up:
            if not self.up and os.getuid() == 0:
                # the ports and folders are fixed: a second run of the tests on this machine waits for the first
                FOLDER.mkdir(mode=0o755, parents=True, exist_ok=True)
                lock = self.stack.enter_context((FOLDER / "lock").open("w"))
                fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                self.up[name] = self.stack.enter_context(real_farm(name))
            except BaseException:
                if not self.up:
                    self.close()
                raise
        return self.up[name]

    def close(self) -> None:
        """Takes down what is up; closing twice does nothing."""
        self.up.clear()
        self.stack.close()


@contextlib.contextmanager
def real_farm(name: str) -> Iterator[Farm]:
    """Brings ``name`` up, gives a farm, and takes it down."""
    _, system, port, words = next(entry for entry in SYSTEMS if entry[0] == name)
    port += OFFSET
    folder = FOLDER / name
    bring_up(system, folder, port, *words)
    try:
        programs, environment = "", {}
        if system == "slurm":
            environment = {"SLURM_CONF": str(folder / "slurm.conf")}
        elif system == "gridengine":
            programs = "/usr/lib/gridengine"
            environment = {"SGE_ROOT": str(folder), "SGE_CELL": "default", "SGE_QMASTER_PORT": str(port),
                           "SGE_EXECD_PORT": str(port + 1)}  # fmt: skip
        else:
            programs = str(folder / "bin")
        scheduler = schedulers.get(system, programs=programs, environment=environment)
        yield Farm(name, scheduler, USER, farm_home(name), folder, environment, port)
    finally:
        take_down(system, folder, port)


@pytest.fixture(scope="session")
def farms() -> Iterator[Farms]:
    farms = Farms()
    yield farms
    farms.close()


@pytest.fixture(scope="module")
def slurm(farms: Farms) -> Farm:
    return farms.get("slurm")


@pytest.fixture(scope="module")
def slurm_accounting(farms: Farms) -> Farm:
    return farms.get("slurm-accounting")


@pytest.fixture(scope="module")
def gridengine(farms: Farms) -> Farm:
    return farms.get("gridengine")


@pytest.fixture(scope="module")
def htcondor(farms: Farms) -> Farm:
    return farms.get("htcondor")


@pytest.fixture(scope="session")
def fsched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """The batch system of one file: here on every machine, under the caller's own account."""
    base = tmp_path_factory.mktemp('fsched it\'s "$(touch pwned)"')
    state, home = base / "state", base / "home"
    state.mkdir()
    home.mkdir()
    environment = {"FSCHED_DIR": str(state), "FSCHED_SLOTS": "8"}
    scheduler = schedulers.get("fsched", environment=environment)
    account = pwd.getpwuid(os.getuid())
    farm = Farm("fsched", scheduler, account.pw_name, home, state, environment)
    yield farm
    farm.run(scheduler._fsched("up"))  # type: ignore[attr-defined]
    farm.run(scheduler._fsched("stop"))  # type: ignore[attr-defined]
