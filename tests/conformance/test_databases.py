"""Databases as a whole, and the endpoints of the server itself."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from .conftest import Client, Database, eventually


@pytest.fixture
def name(server: Client) -> Iterator[str]:
    """A name that no database has; what the test makes of it is removed."""
    made = f"conformance-{uuid.uuid4().hex}"
    yield made
    server.delete("/" + quote(made, safe=""))


def test_welcome(server: Client) -> None:
    said = server.get("/").json()
    assert said["couchdb"] == "Welcome"
    assert int(said["version"].split(".")[0]) >= 3
    assert said["vendor"]["name"]
    assert len(said["uuid"]) == 32


def test_up(server: Client) -> None:
    answer = server.get("/_up")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"


def test_uuids(server: Client) -> None:
    assert len(server.get("/_uuids").json()["uuids"]) == 1
    made = server.get("/_uuids", params={"count": 10}).json()["uuids"]
    assert len(set(made)) == 10
    assert all(len(one) == 32 and int(one, 16) >= 0 for one in made)


def test_active_tasks(server: Client) -> None:
    assert isinstance(server.get("/_active_tasks").json(), list)


def test_membership(server: Client) -> None:
    found = server.get("/_membership").json()
    assert found["all_nodes"] == found["cluster_nodes"]
    assert len(found["all_nodes"]) == 1


def test_create_and_delete(server: Client, name: str) -> None:
    answer = server.put(f"/{name}")
    assert answer.status_code == 201
    assert answer.json() == {"ok": True}
    assert answer.headers["Location"].endswith(f"/{name}")
    assert server.head(f"/{name}").status_code == 200
    answer = server.put(f"/{name}")
    assert answer.status_code == 412
    assert answer.json() == {
        "error": "file_exists",
        "reason": "The database could not be created, the file already exists.",
    }
    answer = server.delete(f"/{name}")
    assert answer.status_code == 200
    assert answer.json() == {"ok": True}


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_a_missing_database(server: Client, name: str, method: str) -> None:
    answer = server.request(method, f"/{name}")
    assert answer.status_code == 404
    if method != "HEAD":
        assert answer.json() == {"error": "not_found", "reason": "Database does not exist."}


@pytest.mark.parametrize("path", ["/d", "/_all_docs", "/_changes", "/_security", "/_design/x/_view/y"])
def test_what_is_below_a_missing_database(server: Client, name: str, path: str) -> None:
    answer = server.get(f"/{name}{path}")
    assert answer.status_code == 404
    assert answer.json() == {"error": "not_found", "reason": "Database does not exist."}
    assert server.put(f"/{name}/d", json={}).status_code == 404


@pytest.mark.parametrize("bad", ["Upper", "1one", "a.b", "a b", "a%c", "ä"])
def test_names_that_are_none(server: Client, bad: str) -> None:
    answer = server.put("/" + quote(bad, safe=""))
    assert answer.status_code == 400
    said = answer.json()
    assert said["error"] == "illegal_database_name"
    assert said["reason"].startswith(f"Name: '{bad}'. Only lowercase characters (a-z), digits (0-9), and any of")


def test_names_may_hold_a_few_signs(server: Client, name: str) -> None:
    for sign in "_$()+-/":
        odd = f"{name}{sign}x"
        path = "/" + quote(odd, safe="")
        assert server.put(path).status_code == 201
        try:
            assert server.get(path).json()["db_name"] == odd
            assert odd in server.get("/_all_dbs").json()
        finally:
            assert server.delete(path).status_code == 200


def test_a_new_database_of_an_old_name_is_empty(server: Client, name: str) -> None:
    assert server.put(f"/{name}").status_code == 201
    assert server.put(f"/{name}/d", json={}).status_code == 201
    assert server.delete(f"/{name}").status_code == 200
    assert eventually(lambda: server.head(f"/{name}").status_code == 404)
    time.sleep(1.1)  # a CouchDB tells databases of one name by the second in which they were made
    assert server.put(f"/{name}").status_code == 201
    assert eventually(lambda: server.get(f"/{name}").status_code == 200)
    assert server.get(f"/{name}").json()["doc_count"] == 0
    assert server.get(f"/{name}/d").status_code == 404


def test_information(database: Database) -> None:
    found = database.get().json()
    assert found["db_name"] == database.name
    assert (found["doc_count"], found["doc_del_count"]) == (0, 0)
    assert isinstance(found["update_seq"], str)
    assert set(found["sizes"]) == {"file", "external", "active"}
    assert {"purge_seq", "instance_start_time", "disk_format_version", "compact_running", "props"} <= set(found)
    assert set(found["cluster"]) == {"q", "n", "w", "r"}


def test_counts(database: Database) -> None:
    revision = database.save({"_id": "a"})
    database.save({"_id": "b"})
    database.save({"_id": "_design/x"})
    assert database.get().json()["doc_count"] == 3
    database.delete("/a", params={"rev": revision})
    found = database.get().json()
    assert (found["doc_count"], found["doc_del_count"]) == (2, 1)
    assert int(found["update_seq"].split("-")[0]) == 4


def test_all_dbs(server: Client, name: str) -> None:
    names = [f"{name}-{letter}" for letter in "abc"]
    for one in names:
        server.put(f"/{one}")
    try:
        assert set(names) <= set(server.get("/_all_dbs").json())
        window = {"startkey": json.dumps(names[0]), "endkey": json.dumps(names[2])}
        assert server.get("/_all_dbs", params=window).json() == names
        assert server.get("/_all_dbs", params={**window, "limit": 1, "skip": 1}).json() == [names[1]]
    finally:
        for one in names:
            server.delete(f"/{one}")


def test_dbs_info(server: Client, database: Database) -> None:
    found = server.post("/_dbs_info", json={"keys": [database.name, "no-such-database"]}).json()
    assert found[0]["key"] == database.name
    assert found[0]["info"]["db_name"] == database.name
    assert found[1]["key"] == "no-such-database"
    assert "info" not in found[1]


def test_maintenance(database: Database) -> None:
    json_ = {"Content-Type": "application/json"}
    answer = database.post("/_ensure_full_commit", headers=json_)
    assert answer.status_code == 201
    assert answer.json()["ok"] is True
    answer = database.post("/_compact", headers=json_)
    assert answer.status_code == 202
    assert answer.json() == {"ok": True}
    answer = database.post("/_view_cleanup", headers=json_)
    assert answer.status_code == 202
    assert database.post("/_compact", headers={"Content-Type": "text/plain"}).status_code == 415


def test_delete_with_a_revision_is_a_mistake(database: Database) -> None:
    answer = database.delete("/", params={"rev": "1-abc"})
    assert answer.status_code == 400
    assert answer.json()["error"] == "bad_request"
    assert database.get().status_code == 200


def test_other_methods(database: Database) -> None:
    answer = database.put("/_all_docs", json={})
    assert answer.status_code == 405
    assert answer.json() == {"error": "method_not_allowed", "reason": "Only GET,HEAD,POST allowed"}
