"""Logging in to the page with an account of the database, on a real one; and what a page elsewhere cannot do."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import page_sample as sample
import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from page_database import populated
from page_html import PAGES, Elements

from orchestrator.couch import Credentials, Server
from orchestrator.couch.client import Connection
from orchestrator.embedded.testing import EmbeddedServer
from orchestrator.errors import Refused, Unauthorised
from orchestrator.pushing import admit
from orchestrator.users import Users
from orchestrator.web import create_app
from orchestrator.web.forms import way_back
from orchestrator.web.login import COOKIE, FORM_COOKIE, Login
from orchestrator.web.login_sessions import ASK_EVERY, AWAY, IDLE, LONGEST, Sessions, Slow, TooSoon
from orchestrator.web.roles import Person, require

PASSWORD = "a password for a test"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Site:
    """A page over a database with accounts: ``ann`` is an operator, ``vic`` a viewer."""

    app: FastAPI
    browser: TestClient
    users: Users
    names: dict[str, str]
    clock: Clock
    server: Server
    database: Any

    def token(self, path: str = "/login") -> str:
        page = Elements(self.browser.get(path).text)
        return [a["value"] for t, a in page.elements if t == "input" and a.get("name") == "token"][-1]

    def log_in(self, who: str, password: str = PASSWORD, **more: str) -> Any:
        form = {"name": self.names.get(who, who), "password": password, "token": self.token(), **more}
        return self.browser.post("/login", data=form, follow_redirects=False)


@pytest.fixture(scope="module")
def place(embedded: EmbeddedServer) -> tuple[Server, Any, Users, dict[str, str]]:
    """A database with the sample in it, and accounts."""
    database = populated(embedded, f"login-{uuid.uuid4().hex}", sample.chain(), sample.documents())
    admit(database, sample.chain().sites)
    server = Server(embedded.url, Credentials(*embedded.credentials))
    users, names = Users(server), {}
    for short, role in (("ann", "operator"), ("vic", "viewer")):
        names[short] = f"{short}-{uuid.uuid4().hex}"
        users.add(names[short], PASSWORD, [role])
    return server, database, users, names


@pytest.fixture
def site(place: Any, request: pytest.FixtureRequest) -> Iterator[Site]:
    server, database, users, names = place
    clock = Clock()
    login = Login(Sessions(server.url, database.name, clock))
    closed = getattr(request, "param", False)
    app = create_app(lambda: database, chain=sample.chain(), live=False, login=login, closed=closed)

    @app.post("/api/note")
    def note(person: Person = Depends(require("operator"))) -> dict[str, str]:  # noqa: B008
        assert person.database is not None
        runs = person.database()
        found = next(doc for doc in sample.documents() if doc["status"] == "good")
        current = runs.get(found["_id"])
        runs.put({**current, "note": person.name})
        return {"id": found["_id"], "by": person.name}

    with TestClient(app, base_url="http://localhost", headers={"Accept": "text/html"}) as browser:
        yield Site(app, browser, users, names, clock, server, database)


def as_json(site: Site, **headers: str) -> Any:
    return site.browser.post("/api/note", json={}, headers={"Accept": "application/json", **headers})


def test_in_and_out_again(site: Site) -> None:
    assert 'href="/login"' in site.browser.get("/").text
    assert as_json(site).status_code == 401
    answer = site.log_in("ann", next="/failed?step=proc0")
    assert (answer.status_code, answer.headers["location"]) == (303, "/failed?step=proc0")
    cookie = next(line for line in answer.headers.get_list("set-cookie") if line.startswith(COOKIE + "="))
    assert {"httponly", "samesite=lax", "path=/"} <= {part.strip().lower() for part in cookie.split(";")}
    assert "max-age" in cookie.lower() and "secure" not in cookie.lower()
    home = site.browser.get("/").text
    assert site.names["ann"] in home and "Log out" in home and 'href="/login"' not in home
    done = as_json(site)
    assert done.status_code == 200 and done.json()["by"] == site.names["ann"]
    token = site.token("/")
    assert site.browser.post("/logout", data={"token": "wrong"}).status_code == 403
    assert as_json(site).status_code == 200, "still logged in"
    assert site.browser.post("/logout", data={"token": token}, follow_redirects=False).status_code == 303
    site.browser.cookies.set(COOKIE, cookie.partition("=")[2].partition(";")[0])
    assert as_json(site).status_code == 401, "an old cookie opens nothing"


def test_the_database_sees_who_it_is_and_its_guard_decides(site: Site) -> None:
    site.log_in("ann")
    done = as_json(site).json()
    assert site.database.get(done["id"])["note"] == site.names["ann"]
    person = site.app.state.login.who(_request(site))
    runs = person.database()
    assert runs.connection.json("GET", ("_session",), subject=site.server.subject)["userCtx"]["name"] == person.name
    with pytest.raises(Refused, match="'file' says which file"):
        runs.put({**runs.get(done["id"]), "file": "/else"})
    with pytest.raises(Unauthorised):
        runs.set_security({})


def _request(site: Site) -> Any:
    from starlette.requests import Request

    cookie = "; ".join(f"{name}={value}" for name, value in site.browser.cookies.items())
    return Request({"type": "http", "headers": [(b"cookie", cookie.encode())], "method": "GET", "path": "/"})


def test_a_person_without_the_role_changes_nothing(site: Site) -> None:
    site.log_in("vic")
    refused = as_json(site)
    assert refused.status_code == 403 and "needs the role operator" in refused.json()["reason"]


def test_the_server_s_admin_may_what_an_admin_may(site: Site, embedded: EmbeddedServer) -> None:
    assert site.log_in(embedded.credentials.username, embedded.credentials.password).status_code == 303
    assert as_json(site).status_code == 200


def test_a_wrong_password_says_no_more_than_that(site: Site) -> None:
    for who, password in (
        ("ann", "wrong password"),
        ("nobody", PASSWORD),
        ("_admin", "quite wrong"),
        ("a:b", "quite wrong"),
    ):
        answer = site.log_in(who, password)
        assert answer.status_code == 401 and "name or the password is wrong" in answer.text
        assert password not in answer.text and COOKIE not in answer.cookies
    assert site.log_in("ann", "").status_code == 400
    assert as_json(site).status_code == 401


def test_guessing_is_slowed_and_forgiven(site: Site) -> None:
    for _ in range(3):
        assert site.log_in("ann", "wrong password").status_code == 401
    refused = site.log_in("ann")
    assert refused.status_code == 429 and 0 < int(refused.headers["retry-after"]) <= 3
    assert site.log_in("vic").status_code == 303, "others are not kept waiting"
    site.clock.now += 3.0
    assert site.log_in("ann").status_code == 303
    assert site.log_in("ann", "wrong password").status_code == 401, "the count begins anew"


def test_waits_grow_up_to_a_limit() -> None:
    slow, now, waits = Slow(), 0.0, []
    for _ in range(14):
        try:
            slow.check("ann", now)
        except TooSoon as error:
            waits.append(error.seconds)
            now += error.seconds
            slow.check("ann", now)
        slow.wrong("ann", now)
    assert waits[:4] == [2.0, 4.0, 8.0, 16.0] and waits[-1] == 300.0
    slow.check("bob", now)
    slow.check("ann", now + 901.0)
    for number in range(5000):
        slow.wrong(f"n{number}", now)
    assert len(slow._wrong) <= 1000


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
     {"Origin": "null"}],
)  # fmt: skip
def test_a_page_elsewhere_can_neither_log_in_nor_out_nor_act(site: Site, headers: dict[str, str]) -> None:
    form = {"name": site.names["ann"], "password": PASSWORD, "token": site.token()}
    assert site.browser.post("/login", data=form, headers=headers).status_code == 403
    assert COOKIE not in site.browser.cookies
    site.log_in("ann")
    assert as_json(site, **headers).status_code == 403
    assert site.browser.post("/logout", data={"token": site.token("/")}, headers=headers).status_code == 403
    assert as_json(site).status_code == 200


def test_a_form_needs_the_token_of_the_page(site: Site) -> None:
    form = {"name": site.names["ann"], "password": PASSWORD}
    token = site.token()
    for wrong in ({}, {"token": ""}, {"token": token + "x"}, {"token": "é"}):
        assert site.browser.post("/login", data={**form, **wrong}).status_code == 403
    site.browser.cookies.delete(FORM_COOKIE)
    assert site.browser.post("/login", data={**form, "token": token}).status_code == 403
    assert site.browser.post("/login", data={**form, "token": ""}).status_code == 403
    assert COOKIE not in site.browser.cookies
    assert site.browser.post("/login", json=form).status_code == 415
    assert site.browser.post("/login", data={**form, "token": "x" * 10000}).status_code == 413


@pytest.mark.parametrize("value", ["", ".", "a.b", "a", "." * 300, "é.é", "x" * 5000])
def test_a_cookie_that_is_made_up_opens_nothing(site: Site, value: str) -> None:
    assert site.app.state.login.sessions.confirmed(value) is None
    site.log_in("ann")
    real = site.browser.cookies[COOKIE]
    identity, _, signature = real.partition(".")
    for forged in (identity, f"{identity}.", f"{identity}.{signature[:-1]}0", f"{identity}x.{signature}"):
        assert forged == real or site.app.state.login.sessions.confirmed(forged) is None


@pytest.mark.parametrize("wanted", ["//evil.example", "/\\evil.example", "http://evil.example", "evil", "", "/a\nb",
                                    "\\\\evil", "/\t/evil.example", "javascript:alert(1)"])  # fmt: skip
def test_after_the_login_comes_a_page_of_ours(wanted: str) -> None:
    assert way_back(wanted) == "/"
    assert way_back("/files?q=a%20b") == "/files?q=a%20b"


def test_a_login_ends_when_nobody_comes_and_after_a_shift(site: Site) -> None:
    site.log_in("ann")
    site.clock.now += IDLE - 1
    assert as_json(site).status_code == 200
    site.clock.now += IDLE + 1
    assert as_json(site).status_code == 401
    site.log_in("ann")
    for _ in range(int(LONGEST / (IDLE - 1))):
        site.clock.now += IDLE - 1
        assert "Log out" in site.browser.get("/").text
    site.clock.now += IDLE - 1
    assert as_json(site).status_code == 401


def test_what_the_database_says_of_an_account_holds_within_a_minute(site: Site) -> None:
    name = f"eve-{uuid.uuid4().hex}"
    site.users.add(name, PASSWORD, ["operator"])
    site.log_in(name)
    assert as_json(site).status_code == 200
    site.users.set_roles(name, ["viewer"])
    site.clock.now += ASK_EVERY + 1
    assert as_json(site).status_code == 403
    site.users.set_password(name, "another password")
    site.clock.now += ASK_EVERY + 1
    assert as_json(site).status_code == 401


def test_a_database_that_is_away_logs_nobody_out_and_nobody_in(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator.errors import Unavailable

    def away(*_: Any, **__: Any) -> Any:
        raise Unavailable("away")

    site.log_in("ann")
    with monkeypatch.context() as patched:
        patched.setattr(Connection, "request", away)
        site.clock.now += ASK_EVERY + 1
        assert site.app.state.login.who(_request(site)) is not None
        answer = site.log_in("vic")
        assert answer.status_code == 503, answer.text
        assert "does not answer" in answer.text
    assert as_json(site).status_code == 200


@pytest.mark.parametrize("site", [True], indirect=True)
def test_reading_can_need_a_login_too(site: Site) -> None:
    for path in PAGES:
        answer = site.browser.get(path, follow_redirects=False)
        assert answer.status_code == 303 and answer.headers["location"].startswith("/login?next=%2F"), path
        assert answer.headers["x-frame-options"] == "DENY"
    for path in ("/api/overview", "/api/openapi.json", "/plots/a/proc0/0", "/logs/a/proc0", "/events"):
        answer = site.browser.get(path)
        assert answer.status_code == 401 and answer.json()["error"] == "unauthorised", path
    assert site.browser.get("/healthz").status_code == 200
    assert site.browser.get("/static/style.css").status_code == 200
    assert site.browser.get("/loginx", follow_redirects=False).status_code == 303
    site.log_in("vic")
    for path in (*PAGES, "/api/overview"):
        assert site.browser.get(path).status_code == 200, path


def test_where_anyone_here_may_act_a_person_who_logs_in_still_acts_in_their_own_name(site: Site) -> None:
    login = Login(site.app.state.login.sessions, lambda request: Person("somebody", frozenset({"operator"})))
    found = login.who(_request(site))
    assert found is not None and (found.name, found.database) == ("somebody", None)
    assert login.person(_request(site)) is None
    site.log_in("ann")
    found = login.who(_request(site))
    assert found is not None and found.name == site.names["ann"] and found.database is not None


def test_a_page_without_logins_has_none(client: TestClient) -> None:
    assert "Log in" not in client.get("/").text
    assert client.get("/login").status_code == 404


def test_a_database_that_is_away_ends_no_login_and_is_not_asked_by_every_request(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "db") as server:
        users = Users(Server(server.url, Credentials(*server.credentials)))
        users.add("ann", PASSWORD, ["operator"])
        clock = Clock()
        sessions = Sessions(server.url, "runs", clock)
        cookie = sessions.log_in("ann", PASSWORD)
        server.kill()
        clock.now += ASK_EVERY + 1
        found = sessions.confirmed(cookie)
        assert found is not None and found.roles == {"operator"}
        server.restart()
        users.remove("ann")
        clock.now += AWAY - 1
        assert sessions.confirmed(cookie) is not None, "it was asked a moment ago"
        clock.now += 2
        assert sessions.confirmed(cookie) is None, "now it could answer: there is no such account any more"


def test_while_one_request_asks_the_others_do_not_wait(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "db") as server:
        Users(Server(server.url, Credentials(*server.credentials))).add("ann", PASSWORD, ["operator"])
        clock = Clock()
        sessions = Sessions(server.url, "runs", clock)
        cookie = sessions.log_in("ann", PASSWORD)
        clock.now += ASK_EVERY + 1
        session = sessions.find(cookie)
        assert session is not None
        with session.lock:  # as the request has it that asks
            assert sessions.confirmed(cookie) is session
