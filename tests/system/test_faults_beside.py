"""Killed at every fault point beside pollers and farms: people's operations, gathers, cancelling, import, databases."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from orchestrator import faults
from orchestrator.couch import Credentials, Server
from orchestrator.embedded.testing import EmbeddedServer
from orchestrator.schedulers.fsched import PROGRAM

from .test_faults import BESIDE, CODE, FARM, LOCAL, Place, points

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("database")) as made:
        yield made


@pytest.fixture
def make_place(tmp_path: Path, server: EmbeddedServer, request: pytest.FixtureRequest) -> Callable[[str], Place]:
    return lambda chain: Place(tmp_path / request.node.callspec.params["name"], server, chain)


def effects(place: Place) -> Counter[tuple[str, str]]:
    lines = (place.folder / "effects").read_text().splitlines()
    return Counter((name, step) for name, step, _ in map(str.split, lines))


def of_type(place: Place, kind: str) -> list[dict[str, Any]]:
    return [row.doc for row in place.database.all_docs(include_docs=True) if row.doc and row.doc.get("type") == kind]


# --- people's operations ---


@pytest.mark.parametrize("name", points("people"))
def test_killed_in_an_operation_that_is_given_again(make_place: Callable[[str], Place], name: str) -> None:
    place, count = make_place(LOCAL), 3
    place.add(count)
    assert place.run("poll", "--until-idle") == 0
    reset = ("reset", "--to", "s1", "--outputs", "removed", "--all", "--yes", "--reason", "a better step")
    assert place.run(*reset, fault=name) == -signal.SIGKILL
    assert place.note.exists(), f"nobody came to {name}"
    [operation] = of_type(place, "operation")
    assert operation["state"] == "begun"
    assert place.run("operations", operation["_id"], "--finish") == 0
    assert not any("hold" in d for d in place.documents().values())
    assert place.run(*reset) == 0
    assert place.run("poll", "--until-idle") == 0
    for document in place.documents().values():
        assert (document["status"], document["proc1"]["number"]) == ("good", 2)
        written = (place.folder / "data" / "out" / f"{document['_id']}.1").read_text()
        assert written == document["proc1"]["attempt"]
    assert effects(place) == {(f"d{n}", step): 1 + int(step) for n in range(count) for step in "01"}
    pasts = of_type(place, "past")
    assert sorted(past["document"] for past in pasts) == [f"d{n}" for n in range(count)], "each was reset once"
    assert {past["outputs"]["state"] for past in pasts} == {"removed"}
    assert Counter(one["state"] for one in of_type(place, "operation")) == {"done": 2}
    place.audit()


# --- gathers ---

GATHERS = """
name: marks
steps: [{name: s0, run: "sitesteps:mark", settings: {step: 0}}]
lanes:
  archive: {steps: [{name: tape, executor: gather, needs: [s0]}]}
gathers:
  runs: {type: run, after: [s0], settle: 0 s, every: 0.1 s,
         steps: [{name: merge, run: "sitesteps:mark", settings: {step: merge}}]}
  tars: {type: tar, after: [s0], settle: 0 s, every: 0.1 s, step: tape,
         steps: [{name: bundle, run: "sitesteps:mark", settings: {step: bundle}}]}
"""


@pytest.mark.parametrize("name", points("gather"))
def test_killed_while_gathering(make_place: Callable[[str], Place], name: str) -> None:
    place, count = make_place(GATHERS), 4
    place.add(count)
    assert place.run("poll", "--until-idle") == 0
    died = 0
    for turn in range(2):
        if place.run("gather", "--until-idle", fault=name):
            died += 1
            assert place.run("gather", "--until-idle") == 0
        for branch in ("runs", "tars") if turn == 0 else ():
            assert place.run("poll", "--branch", branch, "--until-idle") == 0
    assert place.note.exists() and died == 1, f"nobody came to {name}"
    [run], [tar] = of_type(place, "run"), of_type(place, "tar")
    for made in (run, tar):
        assert (made["status"], len(made["members"])) == ("good", count)
    assert effects(place) == {
        (run["_id"], "merge"): 1, (tar["_id"], "bundle"): 1, **{(f"d{n}", "0"): 1 for n in range(count)},
    }  # fmt: skip
    for document in place.documents().values():
        assert document["archive_proc0"]["state"] == "done"
        assert document["archive_proc0"]["result"]["gathered"] == tar["_id"]
    place.audit()


# --- farms: cancelling, and results that go straight to the database ---


@pytest.mark.parametrize("name", points("farm", beside=True))
def test_killed_while_jobs_are_cancelled(make_place: Callable[[str], Place], tmp_path: Path, name: str) -> None:
    folder, count = tmp_path / name, 3
    chain = FARM.format(folder=folder, code=CODE, python=json.dumps([sys.executable])).replace(
        "settings: {step: 0}", "settings: {step: 0, seconds: 30}"
    )
    place = make_place(chain)
    place.add(count)
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{CODE}", faults.VARIABLE: name}
    with (folder / "log").open("ab") as log:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.cli", "farm"], cwd=folder, env=environment, stdout=log, stderr=log
        )
    try:
        end = time.monotonic() + 30
        while not all(d["status"] == "proc 0 in progress" or d["_id"] != "d0" for d in place.documents().values()):
            assert time.monotonic() < end, (folder / "log").read_text()
            time.sleep(0.1)
        assert place.run("cancel", "d0", "d1", "d2", "--yes", "--reason", "wrong files") == 0
        assert daemon.wait(30) == -signal.SIGKILL, f"nobody came to {name}"
        assert place.run("farm", "--until-idle") == 0
        found = place.documents()
        assert {d["status"] for d in found.values()} == {"failed"}
        assert all("wrong files" in d["proc0"]["reason"] for d in found.values())
        assert {one["state"] for one in of_type(place, "attempt")} == {"cancelled"}
        place.audit()
        place.check_farm()
    finally:
        daemon.kill()
        daemon.wait()
        subprocess.run([sys.executable, PROGRAM, "stop"], env={**os.environ, "FSCHED_DIR": str(folder / "queue")})


@pytest.mark.parametrize("name", points("direct"))
def test_killed_while_a_job_writes_its_results_straight_into_the_database(
    make_place: Callable[[str], Place], tmp_path: Path, server: EmbeddedServer, name: str
) -> None:
    folder, count = tmp_path / name, 4
    python = ["/usr/bin/env", f"{faults.VARIABLE}={name}", f"{faults.NOTE}={folder / 'note'}", sys.executable]
    chain = FARM.format(folder=folder, code=CODE, python=json.dumps(python)).replace(
        "scheduler: fsched", "scheduler: fsched\n    results: both\n    "
        f"database: {server.url}/{Place.database_name(folder)}\n    credentials: {server.credentials_file}",
    )  # fmt: skip
    place = make_place(chain)
    place.add(count)
    try:
        assert place.run("farm", "--until-idle") == 0
        while not place.note.exists() and count < 16:  # busy: the job did not wait any longer
            place.add(4, first=count)
            count += 4
            assert place.run("farm", "--until-idle") == 0
        assert place.note.exists(), f"nobody came to {name}"
        place.check(count, doubles=1)
        place.check_farm()
    finally:
        subprocess.run([sys.executable, PROGRAM, "stop"], env={**os.environ, "FSCHED_DIR": str(folder / "queue")})


# --- import ---


@pytest.mark.parametrize("name", points("import"))
def test_killed_while_documents_are_imported(make_place: Callable[[str], Place], name: str) -> None:
    place, count = make_place(LOCAL), 5
    old = place.folder / "old.jsonl"
    old.write_text("".join(
        json.dumps({"_id": f"run_{n}", "type": "daqdocument", "run_name": "a", "file": f"/raw/{n}", "status": "closed"})
        + "\n" for n in range(count)
    ))  # fmt: skip
    assert place.run("import", str(old), "--write", fault=name) == -signal.SIGKILL
    assert place.note.exists()
    assert place.run("import", str(old), "--write") == 0
    found = place.documents()
    assert len(found) == count
    assert all(d["_rev"].startswith("1-") for d in found.values()), "a document was written twice"
    place.audit()


# --- conflicts ---

SETTLE = """
import os, sys
from orchestrator import chain, faults, settling
from orchestrator.couch import Credentials, Server
faults.arm(os.environ)
url, name, password, database, text = sys.argv[1:]
settling.settle(Server(url, Credentials(name, password)).database(database), chain.loads(text))
"""


@pytest.mark.parametrize("name", points("settle"))
def test_killed_while_conflicts_are_settled(make_place: Callable[[str], Place], name: str) -> None:
    place = make_place(LOCAL)
    base = {"_id": "d0", "type": "daqdocument", "run_name": "r", "status": "closed", "file": "/raw/0"}
    theirs = [
        {**base, **more, "_rev": f"1-{letter * 32}", "_revisions": {"start": 1, "ids": [letter * 32]}}
        for letter, more in (("a", {}), ("b", {"status": "bad"}))
    ]
    place.database.connection.json(
        "POST", (place.database.name, "_bulk_docs"), body={"docs": theirs, "new_edits": False},
        subject=place.database.subject,
    )  # fmt: skip

    def settle(fault: str) -> int:
        server = place.server
        return subprocess.run(
            [sys.executable, "-c", SETTLE, server.url, *server.credentials, place.database.name, LOCAL],
            env={**os.environ, "PYTHONPATH": str(CODE), faults.VARIABLE: fault}, timeout=60,
        ).returncode  # fmt: skip

    assert settle(name) == -signal.SIGKILL
    assert settle("") == 0
    found = place.database.get("d0", conflicts=True)
    assert found["status"] == "bad" and "_conflicts" not in found
    place.audit()


# --- databases ---


@pytest.mark.parametrize("name", points("database", "index"))
def test_an_embedded_database_killed_in_a_commit_has_all_of_it_or_nothing(tmp_path: Path, name: str) -> None:
    design = {"_id": "_design/v", "language": "javascript", "views": {"n": {
        "map": "function (d) { if (d.n !== undefined) { emit(d.n, d.n); } }", "reduce": "_sum",
    }}}  # fmt: skip
    with EmbeddedServer(tmp_path / "db") as server:
        couch = Server(server.url, Credentials(*server.credentials), timeout=20.0)
        couch.create("runs")
        couch.database("runs").bulk([design, *({"_id": f"a{n}", "n": 1} for n in range(50))])
    known = dict.fromkeys((f"a{n}" for n in range(50)), 1)
    dying = EmbeddedServer(tmp_path / "db", environment={faults.VARIABLE: name, faults.NOTE: str(tmp_path / "note")})
    dying.start()
    try:
        url, auth = f"{dying.url}/runs", dying.auth
        with pytest.raises(requests.RequestException):
            docs = [{"_id": f"b{n}", "n": 10} for n in range(20)]
            answer = requests.post(f"{url}/_bulk_docs", json={"docs": docs}, auth=auth, timeout=20)
            known |= dict.fromkeys((row["id"] for row in answer.json() if row.get("ok")), 10)
            requests.get(f"{url}/_design/v/_view/n", auth=auth, timeout=20)
            time.sleep(2)  # where the server dies after its last answer
            requests.get(url, auth=auth, timeout=20)
        assert (tmp_path / "note").exists(), f"nobody came to {name}"
        dying.restart()
        rows = requests.get(f"{dying.url}/runs/_all_docs?include_docs=true", auth=auth, timeout=20).json()["rows"]
        found = {row["id"]: row["doc"]["n"] for row in rows if not row["id"].startswith("_")}
        assert known.items() <= found.items(), "what was acknowledged is there"
        assert len(found) in (50, 70), "a group of writes is there as a whole or not at all"
        sums = requests.get(f"{dying.url}/runs/_design/v/_view/n", auth=auth, timeout=20).json()["rows"]
        assert sums[0]["value"] == sum(found.values())
        listed = requests.get(f"{dying.url}/runs/_design/v/_view/n?reduce=false", auth=auth, timeout=20).json()
        assert len(listed["rows"]) == len(found)
        info = requests.get(f"{dying.url}/runs", auth=auth, timeout=20).json()
        assert info["doc_count"] == len(found) + 1
    finally:
        dying.stop()


@pytest.mark.parametrize("name", points("replication"))
def test_a_replication_killed_around_its_checkpoint_goes_on_and_passes_nothing_over(tmp_path: Path, name: str) -> None:
    environment = {faults.VARIABLE: name, faults.NOTE: str(tmp_path / "note")}
    here, there = EmbeddedServer(tmp_path / "here", environment=environment), EmbeddedServer(tmp_path / "there")
    try:
        bases = []
        for server in (here, there):
            server.start()
            couch = Server(server.url, Credentials(*server.credentials), timeout=20.0)
            couch.create("runs")
            bases.append(couch.database("runs"))
        bases[0].bulk([{"_id": f"d{n}", "n": n} for n in range(300)])
        order = {
            end: {"url": f"{server.url}/runs", "auth": {"basic": server.credentials._asdict()}}
            for end, server in (("source", here), ("target", there))
        }
        with pytest.raises(requests.RequestException):
            requests.post(f"{here.url}/_replicate", json=order, auth=here.auth, timeout=30)
        assert (tmp_path / "note").exists()
        here.restart()
        bases[0].put({**bases[0].get("d7"), "n": -7})
        bases[0].put({"_id": "late", "n": 1})
        done = requests.post(f"{here.url}/_replicate", json=order, auth=here.auth, timeout=30).json()
        assert done["ok"]
        ours, theirs = (
            {row.id: (row.value["rev"], row.doc) for row in base.all_docs(include_docs=True, conflicts=True)}
            for base in bases
        )
        assert ours == theirs and len(ours) == 301
        again = requests.post(f"{here.url}/_replicate", json=order, auth=here.auth, timeout=30).json()
        assert again.get("no_changes"), "the checkpoint is there now"
    finally:
        here.stop()
        there.stop()


def test_every_room_has_a_test_in_one_of_the_two_files() -> None:
    here = points("people", "gather", "direct", "import", "settle", "database", "index", "replication")
    assert sorted([*here, *points("farm", beside=True)]) == sorted(BESIDE)


@pytest.mark.parametrize("name", ["anew"])
def test_what_is_reset_is_gathered_anew_into_another_document(make_place: Callable[[str], Place], name: str) -> None:
    place, count = make_place(GATHERS), 3
    place.add(count)
    assert place.run("poll", "--until-idle") == 0

    def through() -> None:
        for words in (("gather",), ("poll", "--branch", "runs"), ("poll", "--branch", "tars"), ("gather",)):
            assert place.run(*words, "--until-idle") == 0

    through()
    [first] = of_type(place, "tar")
    reset = ("reset", "--branch", "archive", "--to", "tape", "--all", "--yes", "--reason", "a tape is lost")
    assert place.run(*reset) == 0
    through()
    tars = {one["_id"]: one for one in of_type(place, "tar")}
    assert len(tars) == 2 and tars[first["_id"]] == first, "what was made before stays as it was"
    [second] = [one for one in tars.values() if one["_id"] != first["_id"]]
    assert (second["status"], len(second["members"])) == ("good", count)
    for document in place.documents().values():
        assert document["archive_proc0"]["result"]["gathered"] == second["_id"]
        assert document["archive_proc0"]["number"] == 2
