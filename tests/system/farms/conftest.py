"""A site whose steps are done by a real batch system, under an ordinary account, and all that can go wrong there.

The systems are brought up by ``deploy/batch/*.sh`` on ports and in folders of their own, and taken down with the last
test. ``ORCHESTRATOR_LONG=1`` makes the tests of this folder full-size: minutes instead of seconds.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import orchestrator
from orchestrator import chain as chains
from orchestrator import designs, documents
from orchestrator.couch import Credentials, Database, Server, deploy
from orchestrator.embedded.testing import EmbeddedServer
from orchestrator.schedulers.testing import SYSTEMS, USER, BatchSystem, NotInstalled, why_not

CODE = Path(orchestrator.__file__).parent.parent
LONG = bool(os.environ.get("ORCHESTRATOR_LONG"))
#: For two runs side by side on one machine; without it the second waits for the first.
OFFSET = int(os.environ.get("BATCH_TEST_PORT_OFFSET", "0"))
PORTS = {"slurm": 21817, "slurm-accounting": 21917, "gridengine": 21444, "htcondor": 21618}
FOLDER = Path(f"/var/tmp/batch-systems-of-farm-tests{OFFSET or ''}")
#: Jobs at once: two cores do no more, and the rest is to wait in the queue, where it can be cancelled.
ROOM = {"CPUS": 2, "SLOTS": 4}

STEPS = '''
"""Steps that leave a line for each time they run, and that go wrong once, or always, by the number of their file."""
import json, os, signal, time
from orchestrator.errors import DataError
from procs.outputs import atomic_output

def once(work, name):
    """Whether this is the first time, over all attempts."""
    path = work.output_path("tried", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        return True
    except FileExistsError:
        return False

def line(work, kind, *words):
    text = json.dumps(words) + "\\n"
    descriptor = os.open(work.output_path(kind), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, text.encode())
    os.close(descriptor)

def mark(document, work):
    step, number = work.settings["step"], document["file_number"]
    name = f"{number}.{step}"
    line(work, "begun", document["_id"], step, work.attempt)
    ill = work.settings.get("ill", 0)
    if (ill and number % ill == 3 or work.settings.get("slow")) and once(work, name):
        time.sleep(300)
    if ill and number % ill == 7 and once(work, name):
        hold = bytearray(work.settings["grab"])
        for place in range(0, len(hold), 4096):
            hold[place] = 1
        time.sleep(300)
    if ill and number % ill == 11 and step == 0:
        raise DataError("the header of this file says nothing")
    if ill and number % ill == 15 and step == 1:
        os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(work.settings.get("seconds", 0))
    path = work.output_path("out", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_output(path, work.attempt) as temporary:
        temporary.write_text(work.attempt)
    line(work, "effects", document["_id"], step, work.attempt)
    return {"file": str(path), "size": path.stat().st_size}
'''


class Systems:
    """The real systems that have been brought up so far; all go down together."""

    def __init__(self) -> None:
        self.up: dict[str, BatchSystem] = {}
        self.python: tuple[str, tuple[str, ...]] | None = None
        self._lock: Any = None

    def get(self, name: str) -> BatchSystem:
        """Brings ``name`` up at the first asking. Skips the test where it cannot be."""
        if name not in self.up:
            if reason := why_not(name):
                pytest.skip(reason)
            FOLDER.mkdir(mode=0o755, parents=True, exist_ok=True)
            if self._lock is None:
                self._lock = (FOLDER / "lock").open("w")
                fcntl.flock(self._lock, fcntl.LOCK_EX)
            try:
                self.up[name] = SYSTEMS[name](FOLDER / name, PORTS[name] + OFFSET, **ROOM)
            except NotInstalled as error:
                pytest.skip(str(error))
        if self.python is None:
            self.python = far_python()
        return self.up[name]

    def close(self) -> None:
        for system in self.up.values():
            system.down()
        if self._lock is not None:
            self._lock.close()


@pytest.fixture(scope="session")
def systems() -> Iterator[Systems]:
    systems = Systems()
    yield systems
    systems.close()


def far_python() -> tuple[str, tuple[str, ...]]:
    """A Python that the jobs' account may run, and where it finds this code and its libraries.

    The tests' own may stand in a folder that is closed to others: then another one of the same version is taken, and
    the folders are linked into one that is open.
    """
    libraries = Path(pytest.__file__).parents[1]
    paths: tuple[str, ...] = (str(CODE), str(libraries))
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    pythons = [sys.executable, f"/usr/bin/python{version}"]
    for attempt in range(2):
        for python in pythons:
            if _there(python) and _imports(python, paths):
                return python, paths
        if attempt == 0:
            paths = _opened(libraries)
    pytest.skip(f"the account {USER} needs a Python {version} that it may run: install one as /usr/bin/python{version}")


def _imports(python: str, paths: tuple[str, ...]) -> bool:
    words = [python, "-c", "import orchestrator.job, requests, pydantic, couchdb"]
    said = subprocess.run(
        words, capture_output=True, user=USER, group=USER, extra_groups=[], cwd="/",
        env={"PYTHONPATH": ":".join(paths), "PYTHONDONTWRITEBYTECODE": "1"}, check=False,
    )  # fmt: skip
    return said.returncode == 0


def _there(python: str) -> bool:
    return subprocess.run(["test", "-x", python], user=USER, group=USER, extra_groups=[], check=False).returncode == 0


def _opened(libraries: Path) -> tuple[str, ...]:
    """The code and its libraries, linked to where everybody may read them."""
    there = FOLDER / "python"
    shutil.rmtree(there, ignore_errors=True)
    there.mkdir(parents=True, mode=0o755)

    def link(source: str, target: str) -> None:
        try:
            os.link(source, target)
        except OSError:
            shutil.copy2(source, target)

    large = shutil.ignore_patterns("playwright", "mypy", "ruff*", "__pycache__", "tests")
    for folder in ("orchestrator", "procs", "couchapp"):
        shutil.copytree(CODE / folder, there / folder, copy_function=link, ignore=large)
    shutil.copytree(libraries, there / "libraries", copy_function=link, ignore=large, symlinks=True)
    return (str(there), str(there / "libraries"))


class FarmSite:
    """A site of the jobs' account: a folder, a real database, a chain whose steps go to a real batch system."""

    def __init__(self, system: BatchSystem, folder: Path, server: EmbeddedServer, python: tuple[str, tuple[str, ...]]):
        self.system, self.folder, self.server = system, folder, server
        self.python, self.paths = python
        self.account = pwd.getpwnam(USER)
        self.daemons: list[subprocess.Popen[bytes]] = []
        self.problems: list[BaseException] = []
        #: Further variables of the daemon's environment.
        self.more: dict[str, str] = {}
        self.spool = folder / 'far it\'s "$(touch pwned)" %t %j $x'
        folder.mkdir(mode=0o755)
        (folder / "data").mkdir()
        (folder / "farmsteps.py").write_text(STEPS)
        shutil.copy(server.credentials_file, folder / "credentials.json")
        (folder / "credentials.json").chmod(0o600)
        (folder / "orchestrator.yaml").write_text(
            f"url: {server.url}\ncredentials: credentials.json\nworkers: 2\nlease: 6\nsweep: 3\n"
        )
        for path in (folder, *folder.iterdir()):
            os.chown(path, self.account.pw_uid, self.account.pw_gid)
        couch = Server(server.url, Credentials(*server.credentials), timeout=20.0)
        couch.create("runs")
        self.database: Database = couch.database("runs")

    def write_chain(self, steps: list[dict[str, Any]], **farm: Any) -> None:
        """``steps`` are said as in a chain file; ``farm`` is what is different of the farm ``centre``."""
        text = yaml.safe_dump(
            {
                "name": "marks",
                "farms": {
                    "centre": {
                        **self.system.farm, "spool": str(self.spool), "every": 1, "python": [self.python],
                        "path": [str(self.folder), *self.paths], "setup_time": "60 s",
                        "grace": {"submission": "15 s", "unknown": "8 s", "result": "4 s"},
                        "limits": {"submissions_per_minute": 1000}, **farm,
                    }
                },
                "steps": [{"executor": "farm", "farm": "centre", **step} for step in steps],
            },
            sort_keys=False, allow_unicode=True,
        )  # fmt: skip
        (self.folder / "chain.yaml").write_text(text)
        self.chain = chains.loads(text)
        deploy.push(self.database, designs.build(self.chain))

    def add(self, count: int) -> None:
        """Register ``count`` documents of files that nobody reads."""
        self.database.bulk(
            [
                {
                    "_id": f"r_{n:04d}", "type": "daqdocument", "run_name": "r", "file_number": n, "status": "closed",
                    "file": f"/raw/{n}", "hostname": "daq1", "registered": documents.iso(time.time()),
                }
                for n in range(count)
            ]
        )  # fmt: skip

    # --- the daemon ---

    def environment(self) -> dict[str, str]:
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": self.account.pw_dir, "USER": USER,
            "PYTHONPATH": ":".join(self.paths), "PYTHONDONTWRITEBYTECODE": "1", **self.more,
        }  # fmt: skip

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """``orchestrator <words>`` as the account, to its end."""
        return subprocess.run(
            [self.python, "-m", "orchestrator.cli", *words], cwd=self.folder, env=self.environment(), text=True,
            user=USER, group=USER, extra_groups=[], capture_output=True, timeout=60, check=False,
        )  # fmt: skip

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """``orchestrator <words>`` as the account, in the background; output in ``log-<n>``."""
        with (self.folder / f"log-{len(self.daemons)}").open("wb") as log:
            daemon = subprocess.Popen(
                [self.python, "-m", "orchestrator.cli", *(words or ("farm",))], cwd=self.folder,
                env=self.environment(), stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                user=USER, group=USER, extra_groups=[],
            )  # fmt: skip
        self.daemons.append(daemon)
        return daemon

    def kill(self) -> None:
        """kill -9 of the daemon; commands that it has given go on."""
        if self.daemons and self.daemons[-1].poll() is None:
            os.kill(self.daemons[-1].pid, signal.SIGKILL)
            self.daemons[-1].wait()

    def stop(self) -> None:
        self.kill()
        self.system.start()
        left = [job for job in self.system.queue("orc-").jobs if not job.state.final]
        if left:
            self.system.cancel(left)

    # --- what is there ---

    def everything(self, kind: str = "daqdocument") -> dict[str, dict[str, Any]]:
        """All documents of a type as the database has them."""
        rows = self.database.all_docs(include_docs=True)
        return {row.id: row.doc for row in rows if row.doc and row.doc.get("type") == kind}

    def count(self) -> Counter[str]:
        """The documents by status."""
        return Counter({row.key[0]: row.value for row in self.database.view("pages/status", group_level=1)})

    def finished(self) -> bool:
        """Whether nothing more happens to any document by itself."""
        try:
            if set(self.count()) - {"good", "failed"}:
                return False
            found = self.everything().values()
        except Exception:
            return False
        return all(documents.complete(self.chain, document) for document in found)

    def wait(self, done: Callable[[], bool], seconds: float, what: str = "the documents to be finished") -> None:
        """Wait for something, at most so long; says what the daemon said if it does not come."""
        end = time.monotonic() + seconds
        while not done():
            if self.problems:
                raise self.problems[0]
            ended = self.daemons[-1].poll() if self.daemons else None
            assert ended in (None, -signal.SIGKILL), f"the daemon has ended with {ended}\n{self.story()}"
            assert time.monotonic() < end, f"waited {seconds:g} s for {what}\n{self.story()}"
            time.sleep(0.3)

    def story(self) -> str:
        """What the last daemons said, and the documents that are not through."""
        logs = sorted(self.folder.glob("log-*"), key=lambda path: int(path.name[4:]))[-3:]
        said = "\n".join(path.read_text(errors="replace")[-2500:] for path in logs)
        open_ones = [d for d in self.everything().values() if d["status"] not in ("good", "failed")]
        return f"{said}\n{self.count()}\n{json.dumps(open_ones[:3], indent=1)}"

    def lines(self, kind: str) -> list[tuple[str, int, str]]:
        """``begun`` or ``effects``: document, step, attempt of every time that a step got so far."""
        path = self.folder / "data" / kind
        lines = path.read_text().splitlines() if path.exists() else []
        return [tuple(json.loads(line)) for line in lines]

    # --- the end ---

    def check(self, *, ill: int = 0) -> dict[str, int]:
        """Every document ended right, every attempt is accounted for, nothing was done or submitted twice."""
        found, attempts = self.everything(), self.everything("attempt")
        effects, begun = Counter(self.lines("effects")), Counter(self.lines("begun"))
        assert not [key for key, times in effects.items() if times > 1], "a step's effect twice in one attempt"
        assert not [key for key, times in begun.items() if times > 1], "an attempt began twice"
        names: dict[str, set[str]] = {}
        for name, document in found.items():
            number = document["file_number"]
            for step in self.chain.steps:
                entry = document.get(step.key)
                jobs = [job for job in document.get("batchjob", []) if job["step"] == step.key]
                for job in jobs:
                    names.setdefault(job["name"], set()).update({job["number"]} - {None})
                if entry is None:
                    continue
                past = [attempts[f"attempt:{name}:{step.key}:{n}"] for n in range(1, entry["number"])]
                tries = [past_one["attempt"] for past_one in past] + [entry["attempt"]]
                assert [p["state"] for p in past] == [s for p in past if (s := p["state"]) in ("failed", "lost")]
                assert all(p["reason"] and p["error_class"] for p in past)
                submitted = [job["attempt"] for job in jobs]
                assert [one for one in submitted if one in tries] == tries, "an attempt has no job of its own"
                assert len(set(submitted)) == len(submitted)
                mine = {key[2] for key in begun if key[:2] == (name, step.number)}
                assert mine <= set(tries), "an attempt that was handed back had begun"
                if entry["state"] == "done":
                    assert (name, step.number, entry["attempt"]) in effects
                    assert jobs[-1]["number"] and jobs[-1]["attempt"] == entry["attempt"]
                    assert Path(jobs[-1]["script"]).is_file()
            if ill and number % ill == 11:
                assert document["status"] == "failed" and "says nothing" in document["proc0"]["reason"]
            elif ill and number % ill == 15 and len(self.chain.steps) > 1:
                assert document["status"] == "failed" and "signal 11" in document["proc1"]["reason"]
            else:
                assert document["status"] == "good", json.dumps(document, indent=1)
        known = {attempt["_id"] for attempt in attempts.values()}
        expected = {
            f"attempt:{name}:{step.key}:{n}"
            for name, document in found.items()
            for step in self.chain.steps
            for n in range(1, (document.get(step.key) or {"number": 1})["number"] + (document["status"] == "failed"
                           and (document.get(step.key) or {}).get("state") == "failed"))
        }  # fmt: skip
        assert known == expected, "attempts are numbered without a gap, and there is none that nobody made"
        listed = self.system.numbers("orc-")
        for job, numbers in names.items():
            assert len(numbers) <= 1, f"{job} is known under two numbers"
            assert listed.get(job, numbers) == numbers or not numbers, f"{job}: {listed.get(job)} {numbers}"
        twice = {job: numbers for job, numbers in listed.items() if job in names and len(numbers) > 1}
        assert not twice, "the batch system had a job twice"
        assert not list(self.folder.rglob("pwned")) and not Path(self.account.pw_dir, "pwned").exists()
        self.wait(lambda: not list((self.spool / "jobs").iterdir()), 15, "the spool to be cleared")
        return {"documents": len(found), "jobs": len(names), "attempts": len(begun), "repeated": len(attempts)}


@contextlib.contextmanager
def farm_sites(systems: Systems, folder: Path) -> Iterator[Callable[[str], FarmSite]]:
    made: list[FarmSite] = []

    def make(name: str) -> FarmSite:
        system = systems.get(name)
        server = EmbeddedServer(folder / f"database-{len(made)}")
        server.start()
        there = FOLDER / f"site-{name}-{os.getpid()}-{time.time_ns()}"
        made.append(FarmSite(system, there, server, systems.python or far_python()))
        return made[-1]

    yield make
    for site in made:
        site.stop()
        site.server.stop()
        shutil.rmtree(site.folder, ignore_errors=True)


@pytest.fixture
def make_farm_site(systems: Systems, tmp_path: Path) -> Iterator[Callable[[str], FarmSite]]:
    """Makes a site with a database of its own at a real batch system; everything ends with the test."""
    with farm_sites(systems, tmp_path) as make:
        yield make


@pytest.fixture(scope="module")
def make_lasting_site(
    systems: Systems, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], FarmSite]]:
    """The same, to the end of the module."""
    with farm_sites(systems, tmp_path_factory.mktemp("farm")) as make:
        yield make


class Disturber(threading.Thread):
    """Does things to a farm at their times (s after its start); what goes wrong with that fails the test."""

    def __init__(self, site: FarmSite, schedule: list[tuple[float, Callable[[], Any]]]) -> None:
        super().__init__(daemon=True)
        self.site, self.schedule = site, sorted(schedule, key=lambda entry: entry[0])
        self.log: list[str] = []

    def run(self) -> None:
        began = time.monotonic()
        for when, act in self.schedule:
            time.sleep(max(0.0, began + when - time.monotonic()))
            try:
                said = act()
                self.log.append(f"{time.monotonic() - began:.1f} s: {getattr(act, '__name__', act)} {said or ''}")
            except BaseException as error:
                self.site.problems.append(error)
                raise


@pytest.fixture(scope="session")
def disturb() -> Callable[..., Disturber]:
    def start(site: FarmSite, schedule: list[tuple[float, Callable[[], Any]]]) -> Disturber:
        thread = Disturber(site, schedule)
        thread.start()
        return thread

    return start
