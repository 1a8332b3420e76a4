"""Logins, sessions, users and what a database's security object lets them do.

Wrong passwords are tried sparingly and only for accounts made for it: CouchDB locks an account after a few.
"""

from __future__ import annotations

import threading
import uuid
from typing import Any

import pytest
import requests

from .conftest import TIMEOUT, Client, Database

NOBODY = {"error": "unauthorized", "reason": "You are not authorized to access this db."}
STRANGER = {"error": "forbidden", "reason": "You are not allowed to access this db."}
NO_ADMIN = {"error": "unauthorized", "reason": "You are not a server admin."}
WRONG = {"error": "unauthorized", "reason": "Name or password is incorrect."}


def let_in(database: Database, **members: Any) -> None:
    """Replace the security object."""
    security = {"admins": {"names": [], "roles": []}, "members": {"names": [], "roles": [], **members}}
    assert database.put("/_security", json=security).json() == {"ok": True}


def comes_to(server: Client, login: tuple[str, str], status: int) -> None:
    """A login's outcome; CouchDB hears of a changed user a moment later.

    While the outcome may be a refusal it is asked for seldom: a few of them lock the account.
    """
    for seconds in (0.0, 1.0, 3.0):
        threading.Event().wait(seconds)
        if Client(server.url, login).get("/_session").status_code == status:
            return
    pytest.fail(f"the login did not come to {status}")


def test_a_new_database_is_for_admins(database: Database, anybody: Client, user: tuple[str, str]) -> None:
    assert database.get("/_security").json() == {"members": {"roles": ["_admin"]}, "admins": {"roles": ["_admin"]}}
    nobody = anybody.below(f"/{database.name}")
    for path in ("", "/_all_docs", "/d", "/_changes", "/_security"):
        answer = nobody.get(path)
        assert answer.status_code == 401
        assert answer.json() == NOBODY
    answer = database.as_user(user).get("/_all_docs")
    assert answer.status_code == 403
    assert answer.json() == STRANGER


def test_members_by_name_and_by_role(database: Database, user: tuple[str, str]) -> None:
    let_in(database, names=[user[0]])
    member = database.as_user(user)
    assert member.put("/d", json={"n": 1}).status_code == 201
    assert member.get("/d").json()["n"] == 1
    let_in(database, roles=["reader"])
    assert member.get("/d").status_code == 200
    let_in(database, roles=["other"])
    assert member.get("/d").status_code == 403
    assert database.as_user(None).get("/d").status_code == 401


def test_without_members_everybody_may_read_and_write(database: Database, anybody: Client) -> None:
    let_in(database)
    nobody = anybody.below(f"/{database.name}")
    assert nobody.put("/d", json={}).status_code == 201
    assert nobody.get("/d").status_code == 200


def test_members_write_no_design_documents(database: Database, user: tuple[str, str]) -> None:
    let_in(database, roles=["reader"])
    member = database.as_user(user)
    answer = member.put("/_design/x", json={})
    assert answer.status_code == 403
    assert answer.json()["error"] == "forbidden"
    security = {"admins": {"names": [user[0]], "roles": []}, "members": {"names": [], "roles": ["reader"]}}
    database.put("/_security", json=security)
    assert member.put("/_design/x", json={}).status_code == 201


def test_the_security_object_keeps_what_else_is_in_it(database: Database) -> None:
    value = {"admins": {"names": ["a"], "roles": []}, "members": {"names": [], "roles": ["r"]}, "site": {"x": 1}}
    database.put("/_security", json=value)
    assert database.get("/_security").json() == value


def test_databases_are_made_and_listed_by_admins(server: Client, anybody: Client, user: tuple[str, str]) -> None:
    for client in (anybody, Client(server.url, user)):
        for answer in (client.put("/conformance-not-allowed"), client.get("/_all_dbs")):
            assert answer.status_code == 401
            assert answer.json() == NO_ADMIN


def test_a_wrong_password(server: Client, user: tuple[str, str]) -> None:
    answer = Client(server.url, (user[0], "wrong")).get("/_session")
    assert answer.status_code == 401
    assert answer.json() == WRONG


def test_a_user_that_is_not_there(server: Client) -> None:
    answer = Client(server.url, (f"nobody-{uuid.uuid4().hex}", "x")).get("/_session")
    assert answer.status_code == 401
    assert answer.json() == WRONG


def test_session_says_who_asks(server: Client, anybody: Client, user: tuple[str, str]) -> None:
    said = anybody.get("/_session").json()
    assert said["ok"] is True
    assert said["userCtx"] == {"name": None, "roles": []}
    assert "authenticated" not in said["info"]
    said = server.get("/_session").json()
    assert server.auth is not None and said["userCtx"]["name"] == server.auth[0]
    assert said["userCtx"]["roles"] == ["_admin"]
    assert said["info"]["authenticated"] == "default"
    assert {"cookie", "default"} <= set(said["info"]["authentication_handlers"])
    said = Client(server.url, user).get("/_session").json()
    assert said["userCtx"] == {"name": user[0], "roles": ["reader"]}


@pytest.mark.parametrize("form", [True, False])
def test_a_cookie_session(server: Client, database: Database, user: tuple[str, str], form: bool) -> None:
    let_in(database, roles=["reader"])
    session = requests.Session()
    session.trust_env = False
    given = {"name": user[0], "password": user[1]}
    body: dict[str, Any] = {"data": given} if form else {"json": given}
    answer = session.post(server.url + "/_session", timeout=TIMEOUT, **body)
    assert answer.status_code == 200
    assert answer.json() == {"ok": True, "name": user[0], "roles": ["reader"]}
    assert "HttpOnly" in answer.headers["Set-Cookie"]
    assert session.cookies["AuthSession"]
    said = session.get(server.url + "/_session", timeout=TIMEOUT).json()
    assert said["userCtx"] == {"name": user[0], "roles": ["reader"]}
    assert said["info"]["authenticated"] == "cookie"
    assert session.get(database.url + "/_all_docs", timeout=TIMEOUT).status_code == 200
    assert session.delete(server.url + "/_session", timeout=TIMEOUT).json() == {"ok": True}
    said = session.get(server.url + "/_session", timeout=TIMEOUT)
    assert said.status_code == 401 or said.json()["userCtx"]["name"] is None


def test_a_cookie_of_the_admin(server: Client, credentials: tuple[str, str]) -> None:
    session = requests.Session()
    session.trust_env = False
    given = {"name": credentials[0], "password": credentials[1]}
    answer = session.post(server.url + "/_session", json=given, timeout=TIMEOUT)
    assert answer.status_code == 200
    assert answer.json()["roles"] == ["_admin"]
    assert isinstance(session.get(server.url + "/_all_dbs", timeout=TIMEOUT).json(), list)


def test_a_login_that_is_refused(anybody: Client, user: tuple[str, str]) -> None:
    answer = anybody.post("/_session", json={"name": user[0], "password": "wrong"})
    assert answer.status_code == 401
    assert answer.json() == WRONG


def test_a_forged_cookie_is_nobodys(anybody: Client, user: tuple[str, str]) -> None:
    good = anybody.post("/_session", json={"name": user[0], "password": user[1]}).cookies["AuthSession"]
    forged = good[:-4] + ("aaaa" if good[-4:] != "aaaa" else "bbbb")
    anybody.session.cookies.clear()
    answer = anybody.get("/_session", headers={"Cookie": f"AuthSession={forged}"})
    assert answer.status_code >= 400 or answer.json()["userCtx"]["name"] is None


def test_passwords_are_not_kept(server: Client, user: tuple[str, str]) -> None:
    found = server.get(f"/_users/org.couchdb.user:{user[0]}").json()
    assert "password" not in found
    assert user[1] not in str(found)
    assert found["password_scheme"] == "pbkdf2"
    assert found["iterations"] > 0
    assert found["name"] == user[0]
    assert found["roles"] == ["reader"]


def test_a_new_password_replaces_the_old(server: Client, user: tuple[str, str]) -> None:
    path = f"/_users/org.couchdb.user:{user[0]}"
    assert Client(server.url, user).get("/_session").status_code == 200
    found = server.get(path).json()
    assert server.put(path, json={**found, "password": "another one"}).status_code == 201
    comes_to(server, (user[0], "another one"), 200)
    comes_to(server, user, 401)


def test_a_deleted_user_is_out(server: Client, user: tuple[str, str]) -> None:
    path = f"/_users/org.couchdb.user:{user[0]}"
    server.delete(path, params={"rev": server.get(path).json()["_rev"]})
    comes_to(server, user, 401)


@pytest.mark.parametrize(
    "change", [{"type": "person"}, {"name": "other"}, {"roles": "reader"}, {"roles": ["_admin"]}, {"roles": [1]}]
)
def test_users_that_are_none(server: Client, change: dict[str, Any]) -> None:
    name = "conformance-nobody"
    document = {"name": name, "password": "x" * 20, "roles": [], "type": "user", **change}
    answer = server.put(f"/_users/org.couchdb.user:{name}", json=document)
    assert answer.status_code == 403
    assert answer.json()["error"] == "forbidden"


def test_users_are_not_for_anybody(anybody: Client, server: Client, user: tuple[str, str]) -> None:
    assert anybody.get("/_users/_all_docs").status_code == 401
    assert anybody.get(f"/_users/org.couchdb.user:{user[0]}").status_code in (401, 404)
    assert Client(server.url, user).get("/_users/_all_docs").status_code in (401, 403)


def test_a_header_that_is_no_login(anybody: Client) -> None:
    answer = anybody.get("/_session", headers={"Authorization": "Basic %%%"})
    assert answer.status_code >= 400 or answer.json()["userCtx"]["name"] is None
