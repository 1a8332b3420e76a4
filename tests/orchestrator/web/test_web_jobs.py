"""The jobs' pages over a real database: counts, limits, pauses, a farm that cannot be asked, and logs in the spool."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from orchestrator import batchjobs, chain, control, documents
from orchestrator.batchjobs import Place
from orchestrator.chain import Chain
from orchestrator.control import Scope
from orchestrator.couch import Database
from orchestrator.documents import Claimant
from orchestrator.web import create_app

NAME = "orc-01234567-convert-00112233aa"
CHAIN = """
name: farmed
farms:
  centre: {scheduler: slurm, spool: SPOOL, limits: {queued: 50}}
  far: {scheduler: gridengine, transport: ssh, access: {host: cc.example.org}, spool: /far, output: /far/out,
        python: [/usr/bin/python3]}
steps:
  - {name: convert, run: 'a.b:c', executor: farm, farm: centre}
  - {name: fit, run: 'a.b:c', executor: farm, farm: far}
  - {name: look, run: 'a.b:c'}
"""


@pytest.fixture
def farmed(tmp_path: Path) -> Chain:
    return chain.loads(CHAIN.replace("SPOOL", str(tmp_path / "spool")))


@pytest.fixture
def database(new_database: Callable[..., Database], farmed: Chain) -> Database:
    now = time.time()
    convert, fit, _ = farmed.steps

    def at_farm(number: int, step: Any, name: str, task: int, state: str) -> dict[str, Any]:
        farm = str(step.farm)
        raw = {"_id": f"r<{number}>", "type": "daqdocument", "status": "closed", "file": "/r", "run_name": "r"}
        if step is fit:
            raw |= {"status": "good", "proc0": {"state": "done"}}
        daemon = Claimant(f"farm:here:{farm}", "daq1", 1, "here")
        found = batchjobs.queue(raw, step, daemon, f"a{number}", Place("slurm", farm, name, task), now - 600)
        if state != "intended":
            paths = {"script": "/s", "stdout": "/etc/passwd", "stderr": "/etc/passwd"}
            found = batchjobs.submitted(found, f"a{number}", "4711", paths, now - 590)
        if state == "held":
            found = batchjobs.says(found, step, "the job is held", now)
        if state == "running":
            found = batchjobs.begun(found, step, f"node{number}", now - 60, now)
        return found

    made = [at_farm(n, convert, NAME, 1 + n // 2, "running" if n < 3 else "queued") for n in range(8)]
    made += [at_farm(20, convert, "orc-01234567-convert-held", 1, "held")]
    made += [at_farm(21, fit, "orc-89abcdef-fit-1", 1, "intended")]
    made += [{"_id": "waits", "type": "daqdocument", "status": "good", "proc0": {"state": "done"}, "run_name": "r",
              "proc1": {"state": "done"}}]  # fmt: skip
    said = control.stop(control.empty("here"), Scope("step", "look"), "pause", "me@daq", "<b>look</b> first", now - 30)
    said = control.limit(said, "centre", {"queued": 7}, "me@daq", "disk full", now - 20)
    made.append(said)
    database: Database = new_database(farmed, made)
    beat = {"host": "daq1", "pid": 5, "site": "here", "steps": ["proc0"], "started": documents.iso(now - 900),
            "at": documents.iso(now), "beat": 3, "lease": 60}  # fmt: skip
    database.put_local("poller:farm:here:centre", {**beat, "id": "farm:here:centre", "farm": "centre", "away": None})
    away = {"since": documents.iso(now - 300), "why": "gridengine could not be asked: <qmaster> is down"}
    database.put_local("poller:farm:here:far", {**beat, "id": "farm:here:far", "farm": "far", "away": away})
    return database


@pytest.fixture
def client(database: Database, farmed: Chain) -> Iterator[TestClient]:
    app = create_app(lambda: database, chain=farmed, live=False)
    with TestClient(app, base_url="http://localhost", headers={"Accept": "text/html"}) as made:
        yield made


def test_what_each_farm_has_may_have_and_who_said_so(client: TestClient) -> None:
    data = client.get("/api/jobs").json()
    centre, far = data["farms"]
    assert centre["states"] == {"intended": 0, "queued": 5, "held": 1, "running": 3, "cancelling": 0}
    queued = next(limit for limit in centre["limits"] if limit["name"] == "queued")
    assert (queued["value"], queued["in_chain"], queued["by"], queued["reason"]) == (7, 50, "me@daq", "disk full")
    assert centre["away"] is None and far["away"]["why"].startswith("gridengine could not be asked")
    assert data["stops"][0]["words"].startswith("step look is paused since")
    first = next(job for job in data["jobs"] if job["name"] == NAME)
    assert first["documents"] == 8 and first["nodes"] == ["node0", "node1", "node2"] and first["number"] == "4711"
    assert data["jobs"][0]["since"] <= data["jobs"][-1]["since"]
    page = client.get("/jobs").text
    for words in ("cannot be asked", "&lt;qmaster&gt;", "step look is paused", "&lt;b&gt;look&lt;/b&gt;", "disk full"):
        assert words in page, words
    assert "<b>look" not in page


def test_a_jobs_documents_and_the_end_of_its_log(client: TestClient, tmp_path: Path) -> None:
    logs = tmp_path / "spool" / "logs" / NAME
    logs.mkdir(parents=True)
    (logs / "out-1").write_text("done d0 <script>\n")
    (logs / "err-1").write_text("")
    (logs / "out-2").symlink_to("/etc/passwd")
    data = client.get(f"/api/jobs/{NAME}").json()
    assert len(data["documents"]) == 8 and data["job"]["states"] == {"queued": 5, "running": 3}
    assert data["task"] == 1 and data["stdout"]["text"] == "done d0 <script>\n"
    page = client.get(f"/jobs/{NAME}").text
    assert "done d0 &lt;script&gt;" in page and "<script>\n" not in page and "/documents/r%3C0%3E" in page
    linked = client.get(f"/api/jobs/{NAME}", params={"task": 2}).json()
    assert linked["stdout"] is None and "root:" not in client.get(f"/jobs/{NAME}?task=2").text
    assert client.get("/documents/r%3C0%3E").text.count(f"/jobs/{NAME}") >= 1


def test_no_connection_is_opened_to_a_farm_elsewhere(client: TestClient) -> None:
    data = client.get("/api/jobs/orc-89abcdef-fit-1").json()
    assert data["elsewhere"] and data["stdout"] is None
    assert "orchestrator job log orc-89abcdef-fit-1" in client.get("/jobs/orc-89abcdef-fit-1").text


@pytest.mark.parametrize("name", ["nothing", "..%2F..%2Fetc", "%2e%2e", "a%20b", "orc-%0a"])
def test_a_job_that_there_is_not(client: TestClient, name: str) -> None:
    assert client.get(f"/jobs/{name}").status_code == 404


def test_a_document_says_that_its_step_is_paused(client: TestClient) -> None:
    assert "proc2 (look) is paused since" in client.get("/documents/waits").text
