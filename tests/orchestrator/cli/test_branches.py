"""Lanes and gathers as people see them: counts, a document's lanes, a gather's members, what is old after a reset."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from orchestrator import chain as chains
from orchestrator.couch import Database
from orchestrator.web import create_app
from tests.orchestrator.cli.test_operations import a_document

STEPS = '''
def write(document, work):
    path = work.output_path("out", work.attempt)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x" * 2000)
    return {"file": str(path), "size": 2000, "checksum": "sha256:00"}
'''
CHAIN = """
name: branched
steps:
- {name: copy, run: "branched:write"}
- {name: look, run: "branched:write"}
lanes:
  archive:
    description: to tape
    steps:
    - {name: tape, executor: gather, needs: [copy]}
    - {name: verify, run: "branched:write", needs: [tape, look]}
gathers:
  runs:
    type: run
    after: [look]
    settle: 0 s
    steps: [{name: merge, run: "branched:write"}]
  tars:
    type: tar
    after: [copy]
    period: month
    own: 1 kB
    settle: 0 s
    step: tape
    steps: [{name: bundle, run: "branched:write"}]
"""
HTML = {"Accept": "text/html"}


@pytest.fixture
def branched(site: Any, database: Database) -> Any:
    (site.folder / "branched.py").write_text(STEPS)
    (site.folder / "chain.yaml").write_text(CHAIN)
    assert site("couchapp", "push").code == 0
    database.bulk([a_document(name, file_number=n) for n, name in enumerate(("r01_0", "r01_1"))])
    return site


def through(site: Any) -> None:
    for words in (("poll",), ("gather",), ("poll", "--branch", "tars"), ("gather",), ("poll", "--branch", "archive"),
                  ("poll", "--branch", "runs")):  # fmt: skip
        more = ("--set", "workers=1") if words[0] == "poll" else ()
        assert site(*words, "--until-idle", *more).code == 0, words


def counts(said: dict[str, Any]) -> dict[str, dict[str, int]]:
    states = ("waiting", "ready", "queued", "done")
    return {one["step"]: {s: one[s] for s in states if one[s]} for one in said["steps"]}


def test_status_and_show_tell_of_lanes_and_gathers_and_a_reset_makes_old_what_was_gathered(
    branched: Any, database: Database
) -> None:
    site = branched
    assert site("poll", "--until-idle", "--set", "workers=1").code == 0
    lane = counts(site("status", "--json").json["branches"]["archive"])
    assert lane == {"tape": {"ready": 2}, "verify": {"waiting": 2}}
    through(site)
    said = site("status", "--json").json
    assert counts(said) == {"copy": {"done": 2}, "look": {"done": 2}}
    assert counts(said["branches"]["archive"]) == {"tape": {"done": 2}, "verify": {"done": 2}}
    assert (counts(said["branches"]["runs"]), counts(said["branches"]["tars"])) == (
        {"merge": {"done": 1}}, {"bundle": {"done": 1}},
    )  # fmt: skip
    assert "lane archive: 2 documents" in site("status").out and "gather tars: 1 documents" in site("status").out
    assert counts(site("status", "--branch", "runs", "--json").json) == {"merge": {"done": 1}}
    shown = site("show", "r01_0").out
    assert "Lane archive: good" in shown and "verify" in shown
    assert "made of  2 documents, by the gather runs" in site("show", "runs:r01").out
    (tar,) = {database.get(name)["archive_proc0"]["result"]["gathered"] for name in ("r01_0", "r01_1")}
    for name in ("runs:r01", tar):
        assert site("show", name, "--json").json["gathered"]["stale"] == ""
        assert site("explain", name, "--branch", name.partition(":")[0], "--json").json["cause"] == "through"

    assert site("reset", "r01_0", "--to", "copy", "--reason", "a new transfer").code == 0
    document = database.get("r01_0")
    assert (document["status"], document["archive_status"]) == ("closed", "closed")
    assert not {"proc0", "proc1", "archive_proc0", "archive_proc1"} & document.keys()
    assert "1 of its 2 members have been set back" in site("show", tar).out
    assert "1 of 2 members are ready" in site("show", "runs:r01").out
    through(site)
    run = database.get("runs:r01")
    assert (run["status"], run["proc0"]["number"], run["earlier"][0]["members"]) == ("good", 2, 2)
    assert site("show", "runs:r01", "--json").json["gathered"]["stale"] == ""
    document = database.get("r01_0")
    assert document["archive_proc1"]["number"] == 2 and document["archive_proc0"]["number"] == 2
    assert document["archive_proc0"]["result"]["gathered"] != tar
    old = site("show", tar, "--json").json["gathered"]
    assert old["gone"] == ["r01_0"] and "go into another document" in old["stale"]
    assert site("audit", "--grace", "0").code == 0


def test_a_bundle_that_a_gate_refuses_keeps_its_members_until_a_person_has_decided(
    branched: Any, database: Database
) -> None:
    site = branched
    text = CHAIN.replace('{name: bundle, run: "branched:write"}',
                         '{name: bundle, run: "branched:write", gates: [{name: large, size_min: 1 MB}]}')  # fmt: skip
    (site.folder / "chain.yaml").write_text(text)
    database.bulk([a_document("r02_0"), a_document("r03_0")])
    through(site)
    held = {name: database.get(name) for name in ("r01_0", "r02_0", "r03_0")}
    assert {document["archive_status"] for document in held.values()} == {"proc 0 queued"}, "nothing is told them yet"
    tars = {name: document["archive_proc0"]["gathered"] for name, document in held.items()}
    assert {database.get(tar)["status"] for tar in tars.values()} == {"bad"}
    assert site("explain", "r01_0", "--branch", "archive", "--json").json["cause"] == "gathered"
    told = site("explain", tars["r01_0"], "--branch", "tars", "--json").json
    assert told["cause"] == "refused" and len(told["next"]) == 3
    words = ("--branch", "tars", "--reason", "looked at by hand")
    assert site("accept", tars["r01_0"], "bundle", *words).code == 0
    assert site("mark-bad", tars["r02_0"], *words).code == 0
    assert "bad already" in site("mark-bad", tars["r02_0"], *words).out
    (site.folder / "chain.yaml").write_text(CHAIN)
    assert site("mark-good", tars["r03_0"], *words).code == 0
    through(site)
    after = {name: database.get(name) for name in held}
    assert [document["archive_status"] for document in after.values()] == ["good", "failed", "good"]
    assert after["r01_0"]["archive_proc0"]["result"]["gathered"] == tars["r01_0"]
    assert "looked at by hand" in after["r02_0"]["archive_proc0"]["reason"]
    assert database.get(tars["r03_0"])["proc0"]["number"] == 2


def test_the_page_shows_lanes_gathers_their_members_and_what_is_old(branched: Any, database: Database) -> None:
    site = branched
    app = create_app(lambda: database, chain=chains.loads(CHAIN), live=False)
    with TestClient(app, base_url="http://localhost") as client:

        def page(path: str) -> str:
            answer = client.get(path, headers=HTML)
            assert answer.status_code == 200, answer.text
            return answer.text

        waits = client.get("/api/gathers/runs").json()
        assert [(one["run"], one["ready"], one["count"], one["id"]) for one in waits["groups"]] == [("r01", 0, 2, None)]
        assert "nobody gathers" in page("/gathers/runs") and "waits for 2" in page("/gathers/runs")
        assert client.get("/api/runs/r01").json()["gathers"][0] == {
            "gather": "runs", "id": None, "status": None, "kind": "", "count": 2, "ready": 0, "stale": False,
        }  # fmt: skip
        through(site)
        client.app.state.source.forget()  # type: ignore[attr-defined]
        data = client.get("/api/documents/r01_0").json()
        (lane,) = data["lanes"]
        assert (lane["name"], lane["status"], [(s["key"], s["state"]) for s in lane["steps"]]) == (
            "archive", "good", [("archive_proc0", "done"), ("archive_proc1", "done")],
        )  # fmt: skip
        tar = lane["steps"][0]["gathered"]
        text = page("/documents/r01_0")
        assert "Lane archive" in text and tar.replace(":", "%3A") in text
        assert [text.count(f'id="{key}"') for key in ("proc0", "archive_proc0", "archive_proc1")] == [1, 1, 1]
        overview = client.get("/api/overview").json()["branches"]
        assert [(b["name"], b["documents"], [s["counts"]["done"] for s in b["steps"]]) for b in overview] == [
            ("archive", 2, [2, 2]), ("runs", 1, [1]), ("tars", 1, [1]),
        ]  # fmt: skip
        assert "Lane archive" in page("/") and "/gathers/tars" in page("/")
        made = client.get("/api/documents/runs:r01").json()
        assert [one["id"] for one in made["gathered"]["members"]] == ["r01_0", "r01_1"]
        assert (made["branch"], made["steps"][0]["state"], made["gathered"]["stale"]) == ("runs", "done", "")
        assert all("Made of 2 documents" in page(f"/documents/{name}") for name in ("runs:r01", tar))
        listed = client.get("/api/documents?branch=archive&step=verify&state=done").json()["documents"]
        assert {one["id"] for one in listed} == {"r01_0", "r01_1"}
        assert [one["id"] for one in client.get("/api/documents?branch=tars").json()["documents"]] == [tar]
        assert client.get("/api/documents?branch=nothing").status_code == 404
        for path in ("/failed?branch=archive", "/bad?branch=archive", "/files?branch=runs"):
            page(path)
        assert client.get("/logs/r01_0/archive_proc1").status_code == 404, "this page may show no logs"

        assert site("mark-bad", "r01_1", "--branch", "archive", "--reason", "the tape tore").code == 0
        assert site("reset", "r01_0", "--to", "copy").code == 0
        client.app.state.source.forget()  # type: ignore[attr-defined]
        assert [one["id"] for one in client.get("/api/bad?branch=archive").json()["documents"]] == ["r01_1"]
        assert "set back or done anew since" in page(f"/documents/{tar}")
        assert client.get("/api/gathers/runs").json()["groups"][0]["stale"] is True
        assert "of 2 files are ready to be gathered again" in page("/runs/r01")
        assert "Taken out by people" in page("/documents/r01_0")
