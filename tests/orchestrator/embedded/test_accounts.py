"""Passwords and cookies without a server."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest

from orchestrator.embedded import security
from orchestrator.embedded.problems import Problem
from orchestrator.embedded.security import SESSION_SECONDS, Accounts, User


class Clock:
    """A clock that the test moves."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def users() -> dict[str, dict[str, Any]]:
    document = {"_id": "org.couchdb.user:ann", "name": "ann", "type": "user", "roles": ["site:here"], "password": "pw"}
    return {"ann": security.hash_password(document)}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def accounts(users: dict[str, dict[str, Any]], clock: Clock) -> Accounts:
    return Accounts(("admin", "secret"), users.get, "server's own", clock)


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def test_a_password_is_hashed_with_salt(users: dict[str, dict[str, Any]]) -> None:
    assert "password" not in users["ann"]
    assert "pw" not in users["ann"].values()
    again = security.hash_password({**users["ann"], "password": "pw"})
    assert again["derived_key"] != users["ann"]["derived_key"]


def test_basic_logins(accounts: Accounts) -> None:
    assert accounts.basic(basic("admin", "secret")).is_admin
    user = accounts.basic(basic("ann", "pw"))
    assert (user.name, user.roles) == ("ann", ["site:here"])
    assert accounts.cached(basic("ann", "pw")) is user
    accounts.forget()
    assert accounts.cached(basic("ann", "pw")) is None


@pytest.mark.parametrize(
    "document",
    [
        # Worked out with Python's hashlib by the forms that CouchDB documents: 3.4's two, 1.3's and 1.2's.
        {"password_scheme": "pbkdf2", "pbkdf2_prf": "sha256", "iterations": 2, "salt": "s",
         "derived_key": hashlib.pbkdf2_hmac("sha256", b"pw", b"s", 2).hex()},
        {"password_scheme": "pbkdf2", "pbkdf2_prf": "sha512", "iterations": 2, "salt": "s",
         "derived_key": hashlib.pbkdf2_hmac("sha512", b"pw", b"s", 2).hex()},
        {"password_scheme": "pbkdf2", "iterations": 10, "salt": "s",
         "derived_key": hashlib.pbkdf2_hmac("sha1", b"pw", b"s", 10).hex()},
        {"password_scheme": "simple", "salt": "s", "password_sha": hashlib.sha1(b"pws").hexdigest()},
        {"salt": "s", "password_sha": hashlib.sha1(b"pws").hexdigest()},
    ],
)  # fmt: skip
def test_accounts_that_a_couchdb_of_any_age_has_made(document: dict[str, Any]) -> None:
    found = Accounts(("admin", "secret"), {"ann": {**document, "roles": ["x"]}}.get, "server's own")
    assert found.login("ann", "pw").roles == ["x"]
    with pytest.raises(Problem):
        found.login("ann", "pws")


@pytest.mark.parametrize(
    "document",
    [{}, {"derived_key": None}, {"derived_key": "x"}, {"derived_key": "x", "iterations": 10**12, "salt": "s"},
     {"derived_key": "x", "iterations": "9", "salt": 3}, {"derived_key": "x", "iterations": 1, "pbkdf2_prf": "md5"},
     {"password_scheme": "simple"}, {"password_scheme": "simple", "password_sha": 3}],
)  # fmt: skip
def test_an_account_without_a_usable_password_lets_nobody_in(document: dict[str, Any]) -> None:
    found = Accounts(("admin", "secret"), {"ann": document}.get, "server's own")
    for password in ("", "pw", "None"):
        with pytest.raises(Problem, match="incorrect"):
            found.login("ann", password)


@pytest.mark.parametrize("login", [("admin", "wrong"), ("ann", "wrong"), ("nobody", "pw"), ("", "")])
def test_refused_logins(accounts: Accounts, login: tuple[str, str]) -> None:
    with pytest.raises(Problem, match="Name or password is incorrect"):
        accounts.basic(basic(*login))
    assert accounts.cached(basic(*login)) is None


def test_a_cookie_lasts_for_a_while(accounts: Accounts, clock: Clock) -> None:
    value = accounts.cookie("ann")
    assert accounts.session(value) == (User("ann", ["site:here"], "cookie"), False)
    clock.now += SESSION_SECONDS / 2
    assert accounts.session(value)[1] is True
    clock.now += SESSION_SECONDS / 2 + 1
    assert accounts.session(value)[0].name is None


def test_a_cookie_ends_with_the_password(accounts: Accounts, users: dict[str, dict[str, Any]]) -> None:
    value = accounts.cookie("ann")
    users["ann"] = security.hash_password({**users["ann"], "password": "new"})
    assert accounts.session(value)[0].name is None


def test_a_cookie_of_another_server(users: dict[str, dict[str, Any]], clock: Clock, accounts: Accounts) -> None:
    other = Accounts(("admin", "secret"), users.get, "another", clock)
    assert accounts.session(other.cookie("admin"))[0].name is None


@pytest.mark.parametrize("value", ["x", "%%%", base64.urlsafe_b64encode(b"no colons").decode()])
def test_a_cookie_that_is_none(accounts: Accounts, value: str) -> None:
    with pytest.raises(Problem) as caught:
        accounts.session(value)
    assert caught.value.status == 400


def test_who_is_a_member() -> None:
    rules = {"admins": {"names": ["boss"], "roles": []}, "members": {"names": ["ann"], "roles": ["site:here"]}}
    for user in (User("ann"), User("x", ["site:here"]), User("boss"), User("root", ["_admin"])):
        security.require_member(user, rules)
    with pytest.raises(Problem) as caught:
        security.require_member(User(), rules)
    assert caught.value.status == 401
    with pytest.raises(Problem) as caught:
        security.require_member(User("x"), rules)
    assert caught.value.status == 403


@pytest.mark.parametrize("value", [[], {"members": []}, {"admins": {"names": "a"}}, {"members": {"roles": [1]}}])
def test_security_objects_that_are_none(value: object) -> None:
    with pytest.raises(Problem):
        security.check_security(value)
