"""What these tests need: a CouchDB to ask.

By default that is the embedded server, in a process of its own. With ``COUCHDB_URL`` set it is the server there, and
nothing else changes: what is asserted is CouchDB's behaviour, whoever shows it. The admin's name and password come from
``COUCHDB_USER`` and ``COUCHDB_PASSWORD``, or from the URL itself.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
import requests

from orchestrator import designs, roles
from tests.databases import couchdb

TIMEOUT = 30.0  # seconds; a test that waits longer than this has found a server that hangs


def eventually(condition: Callable[[], bool], seconds: float = TIMEOUT) -> bool:
    """Whether a condition holds within so many seconds.

    The parts of a CouchDB hear of some changes one after the other: design documents, users, databases that go. What
    they decide is sure, the moment is not.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


class Client:
    """One account's way to a server: ``requests`` with a base URL, JSON and a time-out."""

    def __init__(self, url: str, auth: tuple[str, str] | None = None) -> None:
        self.url = url
        self.auth = auth
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.auth = auth
        self.session.headers["Accept"] = "application/json"

    def request(self, method: str, path: str = "", **options: Any) -> requests.Response:
        """Send a request to a path below the base URL."""
        options.setdefault("timeout", TIMEOUT)
        return self.session.request(method, self.url + path, **options)

    def get(self, path: str = "", **options: Any) -> requests.Response:
        """GET; parameters as ``params``."""
        return self.request("GET", path, **options)

    def head(self, path: str = "", **options: Any) -> requests.Response:
        """HEAD."""
        return self.request("HEAD", path, **options)

    def put(self, path: str = "", **options: Any) -> requests.Response:
        """PUT; a JSON body as ``json``."""
        return self.request("PUT", path, **options)

    def post(self, path: str = "", **options: Any) -> requests.Response:
        """POST; a JSON body as ``json``."""
        return self.request("POST", path, **options)

    def delete(self, path: str = "", **options: Any) -> requests.Response:
        """DELETE."""
        return self.request("DELETE", path, **options)

    def below(self, path: str) -> Client:
        """The same account further down the path."""
        return Client(self.url + path, self.auth)


class Database(Client):
    """A database that the test has for itself."""

    def __init__(self, server: Client, name: str) -> None:
        super().__init__(f"{server.url}/{quote(name, safe='')}", server.auth)
        self.server = server
        self.name = name

    def save(self, document: dict[str, Any]) -> str:
        """PUT a document that must be accepted; its new revision."""
        answer = self.put("/" + quote(document["_id"], safe=""), json=document)
        assert answer.status_code in (200, 201), answer.text
        return str(answer.json()["rev"])

    def bulk(self, documents: list[dict[str, Any]], **options: Any) -> list[dict[str, Any]]:
        """POST to ``_bulk_docs``; the rows of the answer."""
        answer = self.post("/_bulk_docs", json={"docs": documents, **options})
        assert answer.status_code == 201, answer.text
        rows: list[dict[str, Any]] = answer.json()
        return rows

    def as_user(self, auth: tuple[str, str] | None) -> Client:
        """The same database through another account, or none."""
        return Client(self.url, auth)


@pytest.fixture(scope="session")
def _place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, tuple[str, str]]]:
    with couchdb(tmp_path_factory.mktemp("embedded") / "data") as place:
        yield place


@pytest.fixture(scope="session")
def server_url(_place: tuple[str, tuple[str, str]]) -> str:
    """The server under test, without credentials in the URL."""
    return _place[0]


@pytest.fixture(scope="session")
def credentials(_place: tuple[str, tuple[str, str]]) -> tuple[str, str]:
    """Name and password of the server's admin."""
    return _place[1]


@pytest.fixture(scope="session")
def server(server_url: str, credentials: tuple[str, str]) -> Client:
    """The server, as its admin. A single-node CouchDB may lack its system databases: they are made."""
    client = Client(server_url, credentials)
    for name in ("_users", "_replicator"):
        assert client.put(f"/{name}").status_code in (201, 202, 412)
    return client


@pytest.fixture
def anybody(server_url: str) -> Client:
    """The server, without a login. Where it talks to nobody without one, the test has nothing to say."""
    client = Client(server_url)
    if client.get("/_session").status_code == 401:
        pytest.skip("the server has require_valid_user set: to see what it lets everybody do, set it to false")
    return client


@pytest.fixture
def database(server: Client) -> Iterator[Database]:
    """A fresh database with a random name, deleted afterwards."""
    made = Database(server, f"conformance-{uuid.uuid4().hex}")
    assert made.put().status_code in (201, 202)
    yield made
    made.delete()


@pytest.fixture
def user(server: Client) -> Iterator[tuple[str, str]]:
    """Name and password of a fresh user with the role ``reader``, deleted afterwards."""
    name, password = f"user-{uuid.uuid4().hex[:12]}", uuid.uuid4().hex
    path = f"/_users/org.couchdb.user:{name}"
    document = {"name": name, "password": password, "roles": ["reader"], "type": "user"}
    assert server.put(path, json=document).status_code == 201
    yield name, password
    revision = server.get(path).json().get("_rev")
    if revision:
        server.delete(path, params={"rev": revision})


@pytest.fixture(scope="module")
def accounts(server: Client, request: pytest.FixtureRequest) -> Iterator[dict[str, tuple[str, str]]]:
    """Name and password of an account for each of the module's ``ACCOUNTS``, which has the roles; gone afterwards."""
    made = {}
    for short, granted in request.module.ACCOUNTS.items():
        name, password = f"{short}-{uuid.uuid4().hex}", "a password for a test"
        document = {"type": "user", "name": name, "roles": granted, "password": password}
        assert server.put(f"/_users/org.couchdb.user:{name}", json=document).status_code == 201
        made[short] = (name, password)
    yield made
    for name, _ in made.values():
        path = f"/_users/org.couchdb.user:{name}"
        server.delete(path, params={"rev": server.get(path).json()["_rev"]})


@pytest.fixture
def guarded(database: Database, request: pytest.FixtureRequest) -> Database:
    """A database with the guard and the members that a push of the module's ``CHAIN`` gives it."""
    chain = request.module.CHAIN
    security = {
        "admins": {"names": [], "roles": [roles.SERVER_ADMIN, roles.ADMIN]},
        "members": {"names": [], "roles": roles.member_roles(chain.sites)},
    }
    assert database.put("/_security", json=security).status_code == 200
    database.save(designs.build(chain)["_design/guard"])
    return database
