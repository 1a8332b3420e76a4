"""Results straight to the database, beside their files: a real job and database, and the daemon in a race."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator import batchjobs, designs, documents, jobfiles
from orchestrator import chain as chains
from orchestrator.batchjobs import Place
from orchestrator.couch import Credentials, Database, Server, deploy
from orchestrator.direct import Direct
from orchestrator.documents import Claimant
from orchestrator.embedded.testing import EmbeddedServer
from orchestrator.engine import submission
from orchestrator.engine.edits import edit
from orchestrator.engine.submission import Places
from orchestrator.engine.verdicts import at_farm, reported
from orchestrator.errors import DatabaseError, Unavailable
from orchestrator.lines import line_of
from orchestrator.reports import Report

STEPS = """
def mark(document, work):
    with open(work.output / "effects", "a") as file:
        file.write(document["_id"] + "\\n")
    if document["file_number"] % 5 == 4:
        raise ValueError("every fifth")
    return {"n": document["file_number"]}
"""
CHAIN = """
name: marks
farms: {centre: {scheduler: fsched, spool: /spool}}
steps:
  - {name: s0, run: 'directsteps:mark', executor: farm, farm: centre, documents_per_job: 100, retries: {count: 0}}
  - {name: s1, run: 'directsteps:mark'}
"""
CLAIMANT = Claimant("farm:here:centre", "daq1", 1, "here")


class Farm:
    """Documents that are queued for one job, its folder with the chunk, and the database."""

    def __init__(self, folder: Path, server: EmbeddedServer, count: int) -> None:
        self.folder, self.server = folder, server
        self.chain = chains.loads(CHAIN)
        self.database: Database = login(server).database(f"t{uuid.uuid4().hex}")
        login(server).create(self.database.name)
        deploy.push(self.database, designs.build(self.chain))
        (folder / "directsteps.py").write_text(STEPS)
        (folder / "out").mkdir()
        step = self.chain.steps[0]
        made = [
            {
                "_id": f"d{n}", "type": "daqdocument", "run_name": "r", "file_number": n, "status": "closed",
                "file": f"/raw/{n}",
            }
            for n in range(count)
        ]  # fmt: skip
        self.database.bulk(made)
        place, now = Place("fsched", "centre", "job", 1), time.time()
        self.database.bulk(
            [batchjobs.queue(one, step, CLAIMANT, uuid.uuid4().hex, place, now) for one in self.now().values()]
        )
        self.held = {name: at_farm(self.chain, one, CLAIMANT.poller) for name, one in self.now().items()}
        self.jobs = folder / "jobs" / "job"
        self.jobs.mkdir(parents=True)

    def now(self) -> dict[str, dict[str, Any]]:
        return {
            row.id: row.doc
            for row in self.database.all_docs(include_docs=True)
            if row.doc and row.doc.get("type") == "daqdocument"
        }

    def chunk(self, **direct: str) -> jobfiles.Chunk:
        places = Places(
            str(self.folder), str(self.folder / "out"), str(self.folder / "logs"), (sys.executable,), (),
            (str(self.folder),), direct or None,
        )  # fmt: skip
        found = [(one, one["proc0"]["attempt"]) for one in self.now().values()]
        return submission.chunk(self.chain, self.chain.steps[0], 0, "job", 1, found, places)

    def start(self, credentials: str = "", url: str = "", **environment: str) -> subprocess.Popen[bytes]:
        address = url or f"{self.server.url}/{self.database.name}"
        path = self.jobs / jobfiles.chunk_name(1)
        if not path.exists():
            path.write_bytes(line_of(self.chunk(database=address, credentials=credentials).to_json()))
        clean = {key: value for key, value in os.environ.items() if not key.startswith("ORCHESTRATOR_COUCH")}
        with (self.folder / "stderr").open("wb") as stderr:
            return subprocess.Popen(
                [sys.executable, "-m", "orchestrator.job", str(path)],
                env={**clean, "ORCHESTRATOR_JOB_NUMBER": "7", **environment}, stderr=stderr,
            )  # fmt: skip

    @property
    def said(self) -> str:
        return (self.folder / "stderr").read_text()

    def results(self) -> dict[str, tuple[Report, str]]:
        found = {}
        for path in self.jobs.glob(f"*{jobfiles.RESULT}"):
            report, host = jobfiles.result_from_json(json.loads(path.read_bytes()))
            found[report.document] = (report, host)
        return found

    def daemon(self, names: set[str]) -> None:
        """What the farm's daemon does with the results of these documents."""
        found = self.results()
        edit(
            self.database,
            {name: reported(self.held[name], *found[name], time.time(), set()) for name in names},  # type: ignore[arg-type]
        )

    def check(self) -> None:
        """Each document has one result, written once, on what it was."""
        assert self.now().keys() == self.held.keys() and self.held
        for name, document in self.now().items():
            number = document["file_number"]
            assert document["_rev"].startswith("3-"), "written more than once"
            assert document["proc0"]["attempt"] == self.held[name].attempt  # type: ignore[union-attr]
            if number % 5 == 4:
                assert (document["status"], document["proc0"]["error_class"]) == ("failed", "code")
                record = self.database.get(documents.attempt_id(name, "proc0", 1))
                assert record["_rev"].startswith("1-") and record["reason"].startswith("ValueError: every fifth")
            else:
                assert (document["status"], document["proc0"]["result"]) == ("good", {"n": number})
                assert document["proc0"]["host"] == socket.gethostname()


def login(server: EmbeddedServer) -> Server:
    return Server(server.url, Credentials(*server.credentials), timeout=20.0)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("database")) as made:
        yield made


@pytest.fixture
def make(tmp_path: Path, server: EmbeddedServer) -> Callable[[int], Farm]:
    return lambda count: Farm(tmp_path, server, count)


def test_results_are_in_the_database_when_the_job_ends(make: Callable[[int], Farm], server: EmbeddedServer) -> None:
    farm = make(12)
    user, password = server.credentials
    secret = farm.folder / "login"
    secret.write_text(f"{user}\n{password}\n")
    secret.chmod(0o600)
    assert farm.start(str(secret)).wait(60) == 0
    farm.check()
    assert len(farm.results()) == 12  # the files are there all the same, for the daemon to clear
    farm.daemon(set(farm.now()))
    farm.check()
    spoken = farm.said + "".join(path.read_text() for path in farm.jobs.iterdir())
    assert password not in spoken


def test_the_job_and_the_daemon_race_and_each_document_has_one_result(
    make: Callable[[int], Farm], server: EmbeddedServer
) -> None:
    farm = make(100)
    user, password = server.credentials
    job = farm.start(ORCHESTRATOR_COUCH_USER=user, ORCHESTRATOR_COUCH_PASSWORD=password)
    seen: set[str] = set()
    while job.poll() is None:
        new = set(farm.results()) - seen
        mine = {name for name in new if int(name[1:]) % 3}  # of the others, the job is surely first
        farm.daemon(mine)
        seen |= new
    assert job.returncode == 0
    farm.daemon(set(farm.results()))
    farm.check()
    assert (farm.folder / "out" / "effects").read_text().count("\n") == 100


def test_both_write_the_same_results_at_the_same_moment(make: Callable[[int], Farm], server: EmbeddedServer) -> None:
    farm = make(100)
    assert farm.start(url=closed_port()).wait(60) == 0
    start = threading.Barrier(4)

    def write() -> None:
        start.wait()
        farm.daemon(set(farm.held))

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    farm.check()


@pytest.mark.parametrize("how", ["refused", "silent"])
def test_a_database_that_is_away_does_not_touch_the_job(make: Callable[[int], Farm], how: str) -> None:
    farm = make(6)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/runs" if how == "silent" else closed_port()
        assert farm.start(url=address).wait(60) == 0
    assert len(farm.results()) == 6 and {one["status"] for one in farm.now().values()} == {"proc 0 queued"}
    farm.daemon(set(farm.held))
    farm.check()


def test_a_login_that_others_can_read_is_refused_and_the_spool_does(
    make: Callable[[int], Farm], server: EmbeddedServer
) -> None:
    farm = make(3)
    secret = farm.folder / "login"
    secret.write_text(json.dumps(dict(zip(("username", "password"), server.credentials, strict=True))))
    secret.chmod(0o640)
    assert farm.start(str(secret)).wait(60) == 0
    assert "results go by the spool alone" in farm.said and "chmod 600" in farm.said
    assert server.credentials[1] not in farm.said
    assert len(farm.results()) == 3 and {one["status"] for one in farm.now().values()} == {"proc 0 queued"}


def test_what_has_gone_on_meanwhile_is_left_alone(make: Callable[[int], Farm], server: EmbeddedServer) -> None:
    farm = make(3)
    address = f"{server.url}/{farm.database.name}"
    path = farm.jobs / jobfiles.chunk_name(1)
    path.write_bytes(line_of(farm.chunk(database=address, credentials="").to_json()))
    document = farm.now()["d0"]
    farm.database.put(documents.release(document, farm.chain.steps[0], "a person's hand", time.time()))
    user, password = server.credentials
    assert farm.start(ORCHESTRATOR_COUCH_USER=user, ORCHESTRATOR_COUCH_PASSWORD=password).wait(60) == 0
    found = farm.now()
    assert found["d0"]["status"] == "closed" and {found["d1"]["status"], found["d2"]["status"]} == {"good"}


def test_groups_are_written_together_and_an_outage_is_waited_out() -> None:
    now = [0.0]
    groups: list[list[str]] = []
    away = threading.Event()
    wrote = threading.Event()

    def write(group: list[tuple[Report, str]]) -> None:
        groups.append([report.document for report, _ in group])
        wrote.set()
        if away.is_set():
            raise Unavailable("away")

    def offer(*names: str) -> None:
        wrote.clear()
        for name in names:
            made.offer(Report(name, "proc0", name, 0.0, 1.0), "node1")

    made = Direct(lambda: write, clock=lambda: now[0])
    away.set()
    offer("a")
    now[0] += 1.0
    assert wrote.wait(10) and groups == [["a"]]
    away.clear()
    offer("b", "c", "d")
    ends = time.monotonic() + 10
    while sum(map(len, groups)) < 4 and time.monotonic() < ends:
        now[0] += 100.0  # again and again: the writer may only now read from when on it waits
        time.sleep(0.01)
    made.close(10)
    assert [name for group in groups[1:] for name in group] == ["b", "c", "d"]


def test_whatever_goes_wrong_the_job_goes_on() -> None:
    def closed() -> Any:
        raise DatabaseError("no such database")

    made = Direct(closed)
    made.offer(Report("a", "proc0", "a", 0.0, 1.0), "node1")
    began = time.monotonic()
    made.close(10)
    assert time.monotonic() - began < 5


def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/runs"
