"""A process killed at every fault point in turn, started again: all ends right, and each effect is there once."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import orchestrator
from orchestrator import chain as chains
from orchestrator import designs, faults
from orchestrator.audit.auditor import Auditor
from orchestrator.couch import Credentials, Server, deploy
from orchestrator.embedded.testing import EmbeddedServer
from orchestrator.schedulers.fsched import PROGRAM
from orchestrator.settings import Settings

from .quick import Nursery

pytestmark = pytest.mark.system
NURSERY = Nursery()
CODE = Path(orchestrator.__file__).parent.parent
PATIENCE = 60.0  # s for any one process to come to its end

STEPS = '''
"""A step that counts how often it runs, and puts its attempt into its output."""
import os, signal, time
from procs.outputs import atomic_output

def strike(where, work):
    """A fault point of the step's own: it dies here once, if a file says so."""
    if (work.output.parent / where).exists() and work.settings["step"] == 0:
        (work.output.parent / where).rename(work.output.parent / "note")
        os.kill(os.getpid(), signal.SIGKILL)

def mark(document, work):
    time.sleep(work.settings.get("seconds", 0))
    path = work.output_path("out", document["_id"] + "." + str(work.settings["step"]))
    def last_look(temporary):
        strike("written", work)
    with atomic_output(path, work.attempt, check=last_look) as temporary:
        temporary.write_text(work.attempt)
    strike("renamed", work)
    with open(work.output.parent / "effects", "a") as file:
        file.write(f"{document['_id']} {work.settings['step']} {work.attempt}\\n")
    work.directory.joinpath("left").write_text("x")
    print("a word for the log")
    return {"file": str(path), "size": path.stat().st_size}
'''

#: Points that only a poller comes to that finds a dead one's claims and reports.
AFTER_A_DEATH = {"engine.freed", "recovery.adopted", "recovery.decided", "recovery.forgotten", "spool.emptied"}
#: Where it is the second time that matters.
TIMES = {"engine.written": 2, "engine.writing": 2, "farm.prepared": 1, "worker.begun": 2, "runner.begun": 2}


#: What test_faults_beside.py and test_site_install.py try.
BESIDE_FARM = ("farm.told", "farm.cancelled")
BESIDE_ROOMS = ("people", "gather", "direct", "import", "settle", "database", "index", "replication")
BESIDE = [name for name in faults.POINTS if name.partition(".")[0] in BESIDE_ROOMS or name in BESIDE_FARM]


def points(*rooms: str, beside: bool = False) -> list[str]:
    """The points of rooms; of the farm's those of every day, or those ``beside`` them."""
    return [
        name for name in faults.POINTS
        if name.partition(".")[0] in rooms and (not name.startswith("farm.") or (name in BESIDE_FARM) is beside)
    ]  # fmt: skip


class Place:
    """A site's folder and its database, on a server that others use too."""

    def __init__(self, folder: Path, server: EmbeddedServer, chain: str) -> None:
        self.folder, self.note, self.server = folder, folder / "note", server
        folder.mkdir()
        for name in ("data", "data/out", "raw", "queue"):
            (folder / name).mkdir()
        (folder / "sitesteps.py").write_text(STEPS)
        (folder / "chain.yaml").write_text(chain)
        self.chain = chains.loads(chain)
        name = self.database_name(folder)
        (folder / "orchestrator.yaml").write_text(
            f"url: {server.url}\ncredentials: {server.credentials_file}\ndatabase: {name}\nworkers: 2\nlease: 4\n"
            "register: {unknown_format: bad, closed_by: [quiet], quiet: 0}\n"
        )
        couch = Server(server.url, Credentials(*server.credentials), timeout=20.0)
        couch.create(name)
        self.database = couch.database(name)
        deploy.push(self.database, designs.build(self.chain))

    @staticmethod
    def database_name(folder: Path) -> str:
        return "f-" + re.sub(r"[^a-z]", "-", folder.name)

    def add(self, count: int, first: int = 0) -> None:
        self.database.bulk(
            [
                {"_id": f"d{n}", "type": "daqdocument", "run_name": "r", "file_number": n, "status": "closed",
                 "file": f"/raw/{n}", "hostname": "daq"}
                for n in range(first, first + count)
            ]
        )  # fmt: skip

    def run(self, *words: str, fault: str = "") -> int:
        """``orchestrator <words>`` until it ends; its exit code."""
        environment = {**os.environ, "PYTHONPATH": f"{self.folder}{os.pathsep}{CODE}"}
        if fault:
            environment |= {faults.VARIABLE: fault, faults.NOTE: str(self.note)}
        return NURSERY.run(
            words, cwd=self.folder, environment=environment, log=self.folder / "log", seconds=PATIENCE
        )

    def documents(self) -> dict[str, dict[str, Any]]:
        rows = self.database.all_docs(include_docs=True)
        return {row.id: row.doc for row in rows if row.doc and row.doc.get("type") == "daqdocument"}

    def check(self, count: int, doubles: int) -> None:
        """Every step of every document is done once, as far as anybody can see, and nothing is left over."""
        log = (self.folder / "log").read_text()
        found = self.documents()
        assert Counter(d["status"] for d in found.values()) == {"good": count}, log
        ran = [tuple(line.split()) for line in (self.folder / "effects").read_text().splitlines()]
        for name, document in found.items():
            for step in self.chain.steps:
                entry = document[step.key]
                assert entry["state"] == "done"
                assert (name, str(step.number), entry["attempt"]) in ran, "a result of an attempt that never ran"
                written = (self.folder / "data" / "out" / f"{name}.{step.number}").read_text()
                assert written == entry["attempt"], "the output is not that of the attempt that is recorded"
                first, last = f"attempt:{name}:{step.key}:", f"attempt:{name}:{step.key};"
                earlier = self.database.all_docs(startkey=first, endkey=last)
                assert len(earlier) == entry["number"] - 1, "an attempt without a document"
        assert len(ran) - count * len(self.chain.steps) <= doubles, f"more was done than {doubles} deaths can explain"
        pollers = self.folder / "spool" / "pollers"
        assert not (list(pollers.iterdir()) if pollers.exists() else []), log
        assert not list((self.folder / "data").rglob(".*.part"))
        assert not self.database.local_docs("poller:", "poller:\uffff"), log
        self.audit()

    def audit(self) -> None:
        """Nothing is amiss, not even litter."""
        settings = Settings.load(self.folder)
        auditor = Auditor(
            self.chain, self.database, settings, deep=True, grace=0.0, wait=time.sleep, clock=time.time
        )
        assert auditor.run().to_json()["findings"] == []

    def check_farm(self) -> None:
        """No job was submitted twice, and the farm's spool holds nothing that anybody waits for."""
        environment = {**os.environ, "FSCHED_DIR": str(self.folder / "queue")}
        said = [
            subprocess.run([sys.executable, PROGRAM, word], env=environment, capture_output=True, text=True).stdout
            for word in ("list", "history")
        ]
        rows = [row for row in map(json.loads, "".join(said).splitlines()) if "number" in row]
        numbers = {(row["name"], row["number"]) for row in rows}
        assert len(numbers) == len({name for name, _ in numbers}), "a job was submitted twice"
        assert not list((self.folder / "far" / "jobs").iterdir())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("database")) as made:
        yield made


@pytest.fixture
def make_place(tmp_path: Path, server: EmbeddedServer, request: pytest.FixtureRequest) -> Callable[[str], Place]:
    return lambda chain: Place(tmp_path / request.node.callspec.params["name"], server, chain)


def test_every_point_in_the_code_is_in_the_registry_and_every_one_there_is_in_the_code_once() -> None:
    called: Counter[str] = Counter()
    for path in (CODE / "orchestrator").rglob("*.py"):
        text = path.read_text()
        if path.name != "faults.py":
            called.update(name for name in re.findall(r'"([a-z.-]+)"', text) if name in faults.POINTS)
        for given in re.findall(r"\bfaults\.point\(([^)]*)\)", text):
            assert re.fullmatch(r'"[a-z.-]+"|\w+', given), f"{path}: a point's name is written out, not {given}"
            assert given[0] != '"' or given.strip('"') in faults.POINTS, f"{path}: {given} is not registered"
    assert called == dict.fromkeys(faults.POINTS, 1)


def test_every_room_of_the_registry_has_a_test_here() -> None:
    tested = points("poller", "engine", "recovery", "spool", "worker", "runner", "farm", "job", "register")
    others = "".join(path.read_text() for path in (CODE / "tests").rglob("test_*.py") if path.name != "test_faults.py")
    for name in set(faults.POINTS) - {*tested, *BESIDE}:
        assert f'"{name}"' in others or f'"{name.partition(".")[0]}."' in others, f"no test kills at {name}"


LOCAL = """
name: marks
steps:
  - {name: s0, run: "sitesteps:mark", settings: {step: 0}, retries: {count: 3, wait: 0 s}}
  - {name: s1, run: "sitesteps:mark", settings: {step: 1}, retries: {count: 3, wait: 0 s}}
"""


@pytest.mark.parametrize("name", points("poller", "engine", "recovery", "spool", "worker", "runner"))
def test_killed_in_a_poller_or_its_workers(make_place: Callable[[str], Place], name: str) -> None:
    place, count, deaths = make_place(LOCAL), 6, 1
    place.add(count)
    if name in AFTER_A_DEATH:
        assert place.run("poll", "--until-idle", fault="engine.claimed:3") == -signal.SIGKILL
        place.note.unlink()
        deaths += 1
    code = place.run("poll", "--until-idle", fault=f"{name}:{TIMES.get(name, 1)}")
    assert place.note.exists(), f"nobody came to {name}"
    assert code == (0 if name.startswith(("worker.", "runner.")) else -signal.SIGKILL)
    assert place.run("poll", "--until-idle") == 0
    place.check(count, doubles=2 * deaths)  # each of the two workers may have been between its effect and its report


@pytest.mark.parametrize("name", ["written", "renamed"])
def test_killed_between_an_outputs_last_byte_and_its_name_or_after(
    make_place: Callable[[str], Place], name: str
) -> None:
    place = make_place(LOCAL)
    place.add(2)
    (place.folder / name).touch()
    assert place.run("poll", "--until-idle") == 0
    assert place.note.exists()
    place.check(2, doubles=0)


FARM = """
name: marks
farms:
  centre:
    scheduler: fsched
    spool: {folder}/far
    every: 0.2
    environment: {{FSCHED_DIR: {folder}/queue, FSCHED_SLOTS: "3"}}
    path: ["{code}"]
    python: {python}
    grace: {{submission: 1 s, unknown: 1 s, result: 0.5 s}}
    limits: {{submissions_per_minute: 1000}}
steps:
  - {{name: s0, run: "sitesteps:mark", settings: {{step: 0}}, executor: farm, farm: centre, documents_per_job: 2,
      retries: {{count: 3, wait: 0 s, on: [transient, resources, code]}}}}
"""


@pytest.mark.parametrize("name", points("farm", "job"))
def test_killed_in_a_farms_daemon_or_its_jobs(
    make_place: Callable[[str], Place], tmp_path: Path, name: str
) -> None:
    folder, count = tmp_path / name, 4
    python = [sys.executable]
    if name.startswith("job."):
        python = ["/usr/bin/env", f"{faults.VARIABLE}={name}", f"{faults.NOTE}={folder / 'note'}", *python]
    place = make_place(FARM.format(folder=folder, code=CODE, python=json.dumps(python)))
    place.add(count)
    try:
        code = place.run("farm", "--until-idle", fault=name if name.startswith("farm.") else "")
        assert place.note.exists(), f"nobody came to {name}"
        assert code == (-signal.SIGKILL if name.startswith("farm.") else 0)
        if code:
            assert place.run("farm", "--until-idle") == 0
        place.check(count, doubles=1)
        place.check_farm()
    finally:
        environment = {**os.environ, "FSCHED_DIR": str(folder / "queue")}
        subprocess.run([sys.executable, PROGRAM, "stop"], env=environment, check=False)


@pytest.mark.parametrize("name", ["full"])
def test_a_disk_that_is_full_when_a_job_leaves_its_result_costs_nothing(
    make_place: Callable[[str], Place], tmp_path: Path, name: str
) -> None:
    folder = tmp_path / name
    fault = ["/usr/bin/env", f"{faults.VARIABLE}=job.leaving:1:full", f"{faults.NOTE}={folder / 'note'}"]
    place = make_place(FARM.format(folder=folder, code=CODE, python=json.dumps([*fault, sys.executable])))
    place.add(4)
    try:
        assert place.run("farm", "--until-idle") == 0
        assert place.note.exists()
        place.check(4, doubles=0)
    finally:
        environment = {**os.environ, "FSCHED_DIR": str(folder / "queue")}
        subprocess.run([sys.executable, PROGRAM, "stop"], env=environment, check=False)


@pytest.mark.parametrize("name", points("register"))
def test_killed_in_the_registrar(make_place: Callable[[str], Place], name: str) -> None:
    place = make_place(LOCAL)
    for number in range(5):
        (place.folder / "raw" / f"run_{number:03d}").write_bytes(b"\0" * (number + 1))
    assert place.run("register", "raw", fault=name) == -signal.SIGKILL
    assert place.note.exists()
    place.run("register", "raw")
    found = place.documents()
    assert sorted(d["size"] for d in found.values()) == [1, 2, 3, 4, 5]
    assert all(d["_rev"].startswith("1-") for d in found.values()), "a document was written twice"
    place.audit()
