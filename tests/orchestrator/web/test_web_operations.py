"""People's operations through the page: only for operators, in their own name, by the rules of the command line."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import page_double
import page_sample as sample
import pytest
from fastapi.testclient import TestClient
from page_database import populated

from orchestrator.couch import Credentials, Server
from orchestrator.embedded.testing import EmbeddedServer
from orchestrator.people import NAMES
from orchestrator.pushing import admit
from orchestrator.users import Users
from orchestrator.web import create_app
from orchestrator.web.login import Login
from orchestrator.web.login_sessions import Sessions
from orchestrator.web.operations import MOST_BYTES, Acting
from orchestrator.web.roles import anyone_here

JSON = {"Accept": "application/json", "Origin": "http://localhost"}
PASSWORD = "a password for a test"


@pytest.fixture
def database(embedded: EmbeddedServer) -> Any:
    made = populated(embedded, f"operations-{uuid.uuid4().hex}", sample.chain(), sample.documents())
    admit(made, sample.chain().sites)
    return made


@pytest.fixture
def names(embedded: EmbeddedServer) -> dict[str, str]:
    users = Users(Server(embedded.url, Credentials(*embedded.credentials)))
    made = {}
    for short, role in (("ann", "operator"), ("vic", "viewer")):
        made[short] = f"{short}-{uuid.uuid4().hex}"
        users.add(made[short], PASSWORD, [role])
    return made


@pytest.fixture
def browser(embedded: EmbeddedServer, database: Any, tmp_path: Path) -> Iterator[TestClient]:
    login = Login(Sessions(embedded.url, database.name, lambda: 1000.0))
    acting = Acting("here", tmp_path, ask_above=2)
    app = create_app(lambda: database, chain=sample.chain(), live=False, login=login, acting=acting)
    with TestClient(app, base_url="http://localhost") as made:
        yield made


def log_in(browser: TestClient, name: str) -> None:
    from page_html import Elements

    page = Elements(browser.get("/login", headers={"Accept": "text/html"}).text)
    token = [a["value"] for t, a in page.elements if t == "input" and a.get("name") == "token"][-1]
    form = {"name": name, "password": PASSWORD, "token": token}
    assert browser.post("/login", data=form, follow_redirects=False).status_code == 303


def ask(browser: TestClient, what: str, headers: dict[str, str] | None = None, **body: Any) -> Any:
    return browser.post(f"/api/operations/{what}", json=body, headers={**JSON, **(headers or {})})


@pytest.mark.parametrize("what", NAMES)
def test_nobody_who_has_not_logged_in_changes_anything(browser: TestClient, database: Any, what: str) -> None:
    before = database.info()["update_seq"]
    for body in ({}, {"selection": {"everything": True}, "reason": "x", "confirm": True, "dry_run": True}):
        answer = ask(browser, what, **body)
        assert answer.status_code == 401 and answer.json()["reason"].startswith("Log in first")
    assert database.info()["update_seq"] == before


def test_a_viewer_may_not_and_an_operator_may_in_her_own_name(
    browser: TestClient, database: Any, names: dict[str, str]
) -> None:
    chosen = {"selection": {"documents": ["ma22a000_000"]}, "reason": "look at it"}
    log_in(browser, names["vic"])
    assert ask(browser, "hold", **chosen).status_code == 403
    browser.cookies.clear()
    log_in(browser, names["ann"])
    tried = ask(browser, "hold", dry_run=True, **chosen).json()
    assert list(tried["changed"]) == ["ma22a000_000"] and tried["operation"] == ""
    assert "hold" not in database.get("ma22a000_000")
    done = ask(browser, "hold", **chosen).json()
    assert done["counts"] == {"changed": 1, "unchanged": 0, "refused": 0}
    document = database.get("ma22a000_000")
    assert document["hold"]["by"] == document["operation"]["by"] == names["ann"]
    listed = browser.get("/api/operations").json()["operations"]
    assert listed[0]["_id"] == done["operation"] and listed[0]["state"] == "done"
    page = browser.get("/documents/ma22a000_000", headers={"Accept": "text/html"}).text
    assert f"Last done by a person: hold, by {names['ann']}" in page
    again = ask(browser, "hold", **chosen).json()
    assert "on hold already" in again["unchanged"]["ma22a000_000"]


def test_many_documents_want_a_confirm_and_what_cannot_be_is_refused_in_words(
    browser: TestClient, database: Any, names: dict[str, str]
) -> None:
    log_in(browser, names["ann"])
    everything = {"selection": {"everything": True}, "reason": "x"}
    many = ask(browser, "hold", **everything)
    assert many.status_code == 409 and many.json()["error"] == "confirm" and many.json()["documents"] > 2
    assert ask(browser, "hold", confirm=True, **everything).json()["counts"]["changed"] == many.json()["documents"]
    for what, body, sentence in (
        ("hold", {"selection": {"everything": True}}, "needs a reason"),
        ("hold", {"selection": {}, "reason": "x"}, "say which documents"),
        ("hold", {"selection": {"ids": ["a"]}, "reason": "x"}, "knows no 'ids'"),
        ("hold", {"selection": {"documents": "a"}, "reason": "x"}, "list of texts"),
        ("reset", {"selection": {"runs": ["x"]}, "step": "convret"}, "convret"),
        ("reset", {"selection": {"runs": ["x"]}}, "needs a step"),
        ("priority", {"selection": {"runs": ["x"]}, "priority": "high"}, "priority"),
        ("hold", {"selection": {"runs": ["x"]}, "reason": "x", "force": True}, "force"),
    ):
        answer = ask(browser, what, **body)
        assert (answer.status_code, sentence in answer.json()["reason"]) == (400, True), answer.text
    wrong = browser.post("/api/operations/hold", content=b"{", headers={**JSON, "Content-Type": "application/json"})
    assert wrong.status_code == 400 and "no JSON" in wrong.json()["reason"]
    large = ask(browser, "hold", selection={"documents": ["x" * MOST_BYTES]}, reason="x")
    assert large.status_code == 413
    assert ask(browser, "explode", selection={}).status_code == 404


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
    ],
)
def test_a_page_elsewhere_cannot_use_somebodys_login(
    browser: TestClient, database: Any, names: dict[str, str], headers: dict[str, str]
) -> None:
    log_in(browser, names["ann"])
    answer = browser.post(
        "/api/operations/hold", content=b'{"selection": {"everything": true}, "reason": "x", "confirm": true}',
        headers={**JSON, "Content-Type": "application/json", **headers},
    )  # fmt: skip
    assert answer.status_code in (403, 415)
    assert "hold" not in database.get("ma22a000_000")


def test_what_a_reset_took_out_and_why_a_document_waits_stand_on_its_page(
    browser: TestClient, database: Any, names: dict[str, str]
) -> None:
    log_in(browser, names["ann"])
    first = sample.chain().steps[0]
    name = next(d["_id"] for d in sample.documents() if d.get(first.key, {}).get("state") == "done")
    body = {"selection": {"documents": [name]}, "step": first.name, "reason": "<b>calibration</b>"}
    assert ask(browser, "reset", **body).json()["counts"]["changed"] == 1
    data = browser.get(f"/api/documents/{name}").json()
    assert first.key in data["past"][0]["entries"] and data["past"][0]["by"] == names["ann"]
    assert data["explanation"]["cause"] in ("no-poller", "other-site", "poller-silent", "soon", "busy")
    page = browser.get(f"/documents/{name}", headers={"Accept": "text/html"}).text
    assert "Taken out by people" in page and "&lt;b&gt;calibration" in page and "<b>calibration" not in page
    assert "Why it is not further" in page


def test_without_a_login_only_people_at_this_machine_and_only_where_the_settings_say_so(tmp_path: Path) -> None:
    double = page_double.Double(sample.chain(), sample.documents(), sample.NOON)
    acting = Acting("here", tmp_path)
    closed = create_app(lambda: double, chain=sample.chain(), live=False, acting=acting)
    with TestClient(closed, base_url="http://localhost") as client:
        assert ask(client, "hold", selection={"everything": True}, reason="x").status_code == 401
    without = create_app(lambda: double, chain=sample.chain(), live=False)
    with TestClient(without, base_url="http://localhost") as client:
        assert ask(client, "hold", selection={"everything": True}, reason="x").status_code in (404, 405)
    for client_address, status in ((("127.0.0.1", 5000), 400), (("192.0.2.7", 5000), 401)):
        login = Login(Sessions("http://127.0.0.1:1", "x", lambda: 0.0), anyone_here)
        app = create_app(lambda: double, chain=sample.chain(), live=False, acting=acting, login=login)
        with TestClient(app, base_url="http://localhost", client=client_address) as client:
            assert ask(client, "hold", selection={}, reason="x").status_code == status
            behind = ask(client, "hold", {"X-Forwarded-For": "192.0.2.9"}, selection={}, reason="x")
            assert behind.status_code == 401, "behind a proxy everybody is at this machine"
