"""Pausing, draining, limiting and cancelling through the page's programming interface and by forms."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from page_database import populated
from test_web_operations import JSON, log_in, names  # noqa: F401 - a fixture of its neighbour

from orchestrator import batchjobs, chain
from orchestrator.batchjobs import Place
from orchestrator.documents import Claimant
from orchestrator.embedded.testing import EmbeddedServer
from orchestrator.engine import controls
from orchestrator.pushing import admit
from orchestrator.web import create_app
from orchestrator.web.login import Login
from orchestrator.web.login_sessions import Sessions
from orchestrator.web.operations import Acting
from orchestrator.web.roles import anyone_here

HTML = {"Accept": "text/html", "Origin": "http://localhost"}
FARMED = chain.loads("""
name: farmed
farms: {centre: {scheduler: slurm, spool: /spool}}
steps: [{name: convert, run: 'a.b:c', executor: farm, farm: centre}, {name: analyse, run: 'a.b:c'}]
""")
NAME = "orc-01234567-convert-00112233aa"


@pytest.fixture
def farm(embedded: EmbeddedServer) -> Any:
    now = time.time()
    found = []
    for number in range(3):
        raw = {"_id": f"d{number}", "type": "daqdocument", "status": "closed", "file": "/r", "site": "here"}
        place = Place("slurm", "centre", NAME, 1 + number)
        daemon = Claimant("farm:here:centre", "h", 1, "here")
        made = batchjobs.queue(raw, FARMED.steps[0], daemon, f"a{number}", place, now)
        found.append(batchjobs.submitted(made, f"a{number}", "4711", {}, now))
    made_ = populated(embedded, f"control-{uuid.uuid4().hex}", FARMED, found)
    admit(made_, FARMED.sites)
    return made_


@pytest.fixture
def browser(embedded: EmbeddedServer, farm: Any, tmp_path: Path) -> Iterator[TestClient]:
    login = Login(Sessions(embedded.url, farm.name, lambda: 1000.0))
    acting = Acting("here", tmp_path, ask_above=2)
    app = create_app(lambda: farm, chain=FARMED, live=False, login=login, acting=acting)
    with TestClient(app, base_url="http://localhost") as made:
        yield made


def ask(browser: TestClient, what: str, **body: Any) -> Any:
    return browser.post(f"/api/control/{what}", json=body, headers=JSON)


def test_who_may_pauses_drains_limits_and_cancels(browser: TestClient, farm: Any, names: dict[str, str]) -> None:  # noqa: F811
    for what in ("pause", "drain", "resume", "limits", "cancel"):
        assert ask(browser, what, dry_run=True).status_code == 401
    log_in(browser, names["vic"])
    assert ask(browser, "pause").status_code == 403
    browser.cookies.clear()
    log_in(browser, names["ann"])
    assert ask(browser, "pause", step="convert", reason="x", dry_run=True).json()["stops"][0]["scope"] == "step:convert"
    assert controls.read(farm, "here").stops == ()
    said = ask(browser, "pause", step="proc0", reason="noon").json()
    assert (said["changed"], said["queued"], said["running"]) == (True, 3, 0)
    assert controls.read(farm, "here").stops[0].by == names["ann"]
    many = ask(browser, "drain", farm="centre")
    assert (many.status_code, many.json()["documents"]) == (409, 3)
    assert ask(browser, "drain", farm="centre", confirm=True).json()["changed"] is True
    assert ask(browser, "resume", all=True).json()["stops"] == []
    assert ask(browser, "limits", farm="centre", values={"queued": 5}).json()["limits"][0]["value"] == 5
    assert ask(browser, "limits", farm="centre", values={"queued": None}).json()["limits"] == []
    assert ask(browser, "cancel", jobs=["4711"]).status_code == 409
    done = ask(browser, "cancel", jobs=["4711_2", "nothing"], reason="wrong disk", hold=True).json()
    assert done["cancelled"] == ["d1"] and "nothing" in done["refused"]
    assert farm.get("d1")["proc0"]["cancel"]["reason"] == "wrong disk"


@pytest.mark.parametrize(
    ("what", "body", "sentence"),
    [
        ("pause", {"step": "nothing"}, "nothing"),
        ("pause", {"step": "convert", "farm": "centre"}, "not both"),
        ("drain", {"site": "elsewhere"}, "elsewhere"),
        ("limits", {"farm": "centre", "values": {"colour": 1}}, "give some of"),
        ("limits", {"farm": "centre", "values": {"queued": -1}}, "not possible"),
        ("pause", {"scope": "site"}, "scope"),
    ],
)
def test_what_cannot_be_is_refused_in_words(
    browser: TestClient, names: dict[str, str], what: str, body: dict[str, Any], sentence: str  # noqa: F811
) -> None:
    log_in(browser, names["ann"])
    answer = ask(browser, what, **body)
    assert (answer.status_code, sentence in answer.json()["reason"]) == (400, True), answer.text


def test_forms_keep_what_was_said_and_show_what_is_wrong(
    browser: TestClient, farm: Any, names: dict[str, str]  # noqa: F811
) -> None:
    assert browser.get("/control/pause", headers=HTML, follow_redirects=False).headers["location"].startswith("/login?")
    log_in(browser, names["ann"])
    page = browser.get("/control/limits?farm=centre&site=here&next=//evil.example/", headers=HTML).text
    assert 'name="limit.queued"' in page and "evil" not in page
    token = page.split('name="token" value="')[1].split('"')[0]
    form = {"token": token, "farm": "centre", "site": "here", "next": "/jobs", "reason": "<i>many</i>", "do": "yes"}
    wrong = browser.post("/control/limits", data={**form, "limit.queued": "ten"}, headers=HTML)
    assert wrong.status_code == 400 and "no number" in wrong.text and "&lt;i&gt;many" in wrong.text
    right = browser.post("/control/limits", data={**form, "limit.queued": "10"}, headers=HTML, follow_redirects=False)
    assert (right.status_code, right.headers["location"]) == (303, "/jobs")
    assert controls.read(farm, "here").limits[0].value == 10
    assert browser.get("/control/explode", headers=HTML).status_code == 404
    assert browser.get("/act/explode", headers=HTML).status_code == 404
    asked = browser.post("/control/drain", data={**form, "do": "yes"}, headers=HTML)
    assert asked.status_code == 409 and 'name="confirm" value="3"' in asked.text
    refused = browser.post("/control/cancel", data={**form, "documents": "d0", "reason": ""}, headers=HTML)
    assert refused.status_code == 400 and "say why" in refused.text.lower()


def test_where_anyone_at_this_machine_may_the_forms_need_no_login_and_the_token_all_the_same(
    embedded: EmbeddedServer, farm: Any, tmp_path: Path
) -> None:
    login = Login(Sessions(embedded.url, farm.name, lambda: 1000.0), anyone_here)
    app = create_app(lambda: farm, chain=FARMED, live=False, login=login, acting=Acting("here", tmp_path, ask_above=2))
    with TestClient(app, base_url="http://localhost", client=("192.0.2.7", 5000)) as other:
        assert "/act/" not in other.get("/documents/d0", headers=HTML).text
        assert other.get("/act/hold?documents=d0", headers=HTML, follow_redirects=False).status_code == 303
    with TestClient(app, base_url="http://localhost", client=("127.0.0.1", 5000)) as here:
        assert "/act/hold?" in here.get("/documents/d0", headers=HTML).text
        page = here.get("/act/hold?documents=d0&next=/documents/d0", headers=HTML).text
        form = {"documents": "d0", "reason": "look", "do": "yes", "next": "/documents/d0"}
        for token in ("", "guessed"):
            assert here.post("/act/hold", data={**form, "token": token}, headers=HTML).status_code == 403
        token = page.split('name="token" value="')[1].split('"')[0]
        done = here.post("/act/hold", data={**form, "token": token}, headers=HTML, follow_redirects=False)
        assert (done.status_code, done.headers["location"]) == (303, "/documents/d0")
    assert farm.get("d0")["hold"]["by"] == "somebody at the page"


def test_the_pages_own_lists_offer_all_that_fit_only_where_an_operation_can_choose_them() -> None:
    from orchestrator.web.lists import Filter, whole

    assert whole(Filter(status="failed", run="r")) == {"runs": "r", "statuses": "failed"}
    assert whole(Filter(step="proc1", state="failed")) == {"statuses": "failed", "at_step": "proc1"}
    for wanted in (Filter(), Filter(q="x"), Filter(daq="x", run="r"), Filter(step="proc1", state="done")):
        assert whole(wanted) == {}
