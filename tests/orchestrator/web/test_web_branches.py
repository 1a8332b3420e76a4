"""Whatever stands in a document's lanes, or in a gather's document, has a page; none of it becomes part of the page."""

from __future__ import annotations

import itertools
import uuid
from typing import Any

import pytest
from fastapi.testclient import TestClient
from page_database import populated

from orchestrator import chain as chains
from orchestrator.embedded.testing import EmbeddedServer
from orchestrator.web import create_app

CHAIN = chains.loads("""
name: branched
steps: [{name: copy, run: 'a.b:c'}, {name: look, run: 'a.b:c', needs: [copy, tape]}]
lanes:
  archive: {steps: [{name: tape, executor: gather, needs: [copy]}, {name: verify, run: 'a.b:c', needs: [tape]}]}
gathers:
  runs: {type: run, after: [look], steps: [{name: merge, run: 'a.b:c'}]}
  tars: {type: tar, after: [copy], period: month, step: tape, steps: [{name: bundle, run: 'a.b:c'}]}
""")
EVIL = "<script>alert('x')</script>"
ODD: tuple[Any, ...] = (None, 0, -1.5, True, EVIL, "../..", [], [[]], {}, {"a": {"b": [EVIL]}}, [EVIL, {"id": EVIL}])
DATA = ("archive_status", "archive_proc0", "archive_proc1", "archive_retry", "archive_numbers", "status", "run_name")
GATHERED = ("members", "of", "earlier", "run_name", "period", "bytes", "proc0", "status", "gather")


def documents() -> list[dict[str, Any]]:
    """One document for each odd value under each key, and some that hold a word of what they should."""
    made: list[dict[str, Any]] = []
    for kind, keys in (("daqdocument", DATA), ("run", GATHERED), ("tar", GATHERED)):
        for key, value in itertools.product(keys, ODD):
            body = {"type": kind, "status": "good", "run_name": "r", "registered": "2026-01-22T11:00:00.000Z"}
            made.append({"_id": f"{kind}:{len(made)}", **body, key: value})
    for entry in ({"state": "queued", "gathered": EVIL}, {"state": "done", "result": {"gathered": [EVIL]}},
                  {"state": "done", "result": {"gathered": EVIL}}, {"state": "refused", "reason": EVIL}):  # fmt: skip
        for status in ("proc 0 queued", "good", "bad"):
            made.append({"_id": f"lane:{len(made)}", "type": "daqdocument", "status": "good", "run_name": EVIL,
                         "archive_status": status, "archive_proc0": entry, "proc0": {"state": "done"}})  # fmt: skip
    members = [{"id": EVIL, "file": EVIL, "size": EVIL, "run_name": {}}, 3, None, {"id": ["x"]}]
    made.append({"_id": "tars:x", "type": "tar", "status": "good", "members": members, "earlier": [1, {"at": EVIL}]})
    return made


@pytest.fixture(scope="module")
def client(embedded: EmbeddedServer) -> Any:
    database = populated(embedded, f"branches-{uuid.uuid4().hex}", CHAIN, documents())
    app = create_app(lambda: database, chain=CHAIN, live=False)
    with TestClient(app, base_url="http://localhost") as made:
        yield made


def test_every_such_document_has_a_page_and_nothing_of_it_runs(client: TestClient) -> None:
    for document in documents():
        for form in ({"Accept": "text/html"}, {"Accept": "application/json"}):
            answer = client.get("/documents/", params={"id": document["_id"]}, headers=form)
            assert answer.status_code == 200, (document, answer.text[:500])
            assert "<script>alert" not in answer.text or form["Accept"] == "application/json", document


@pytest.mark.parametrize(
    "path",
    ["/", "/gathers/runs", "/gathers/tars", "/runs/r", "/files?branch=archive", "/failed?branch=archive",
     "/files?branch=tars&step=bundle&state=ready", "/bad?branch=archive", "/files?branch=runs&q=run"],
)  # fmt: skip
def test_the_lists_of_branches_stand_it(client: TestClient, path: str) -> None:
    answer = client.get(path, headers={"Accept": "text/html"})
    assert answer.status_code == 200, answer.text[:500]
    assert "<script>alert" not in answer.text


@pytest.mark.parametrize("path", ["/gathers/nothing", "/files?branch=nothing", "/gathers/archive", "/bad?branch=%3C"])
def test_a_branch_that_there_is_not_is_said(client: TestClient, path: str) -> None:
    answer = client.get(path, headers={"Accept": "text/html"})
    assert answer.status_code == 404 and "there are: " in answer.text
