"""``_local`` documents: they are nowhere else, and have no history."""

from __future__ import annotations

import json

from .conftest import Database


def test_put_get_delete(database: Database) -> None:
    answer = database.put("/_local/checkpoint", json={"seq": "12-x"})
    assert answer.status_code == 201
    assert answer.json() == {"ok": True, "id": "_local/checkpoint", "rev": "0-1"}
    assert database.get("/_local/checkpoint").json() == {"_id": "_local/checkpoint", "_rev": "0-1", "seq": "12-x"}
    answer = database.put("/_local/checkpoint", json={"_rev": "0-1", "seq": "13-x"})
    assert answer.json()["rev"] == "0-2"
    assert database.get("/_local/checkpoint").json()["seq"] == "13-x"
    assert database.delete("/_local/checkpoint", params={"rev": "0-2"}).status_code == 200
    assert database.get("/_local/checkpoint").status_code == 404


def test_there_is_no_conflict(database: Database) -> None:
    assert database.put("/_local/c", json={"n": 1}).status_code == 201
    assert database.put("/_local/c", json={"n": 2}).status_code == 201
    assert database.get("/_local/c").json()["n"] == 2


def test_a_missing_one(database: Database) -> None:
    answer = database.get("/_local/none")
    assert answer.status_code == 404
    assert answer.json() == {"error": "not_found", "reason": "missing"}
    assert database.delete("/_local/none").status_code == 404


def test_they_are_nowhere_else(database: Database) -> None:
    database.put("/_local/hidden", json={})
    assert database.get().json()["doc_count"] == 0
    assert database.get("/_all_docs").json()["rows"] == []
    assert database.get("/_changes").json()["results"] == []


def test_in_bulk(database: Database) -> None:
    rows = database.bulk([{"_id": "_local/a", "n": 1}, {"_id": "b"}])
    assert rows[0] == {"ok": True, "id": "_local/a", "rev": "0-1"}
    assert database.get("/_local/a").json()["n"] == 1


def test_the_list_of_them(database: Database) -> None:
    for name in ("poller:1", "poller:2", "run:1"):
        database.put(f"/_local/{name}", json={"n": name})
    found = database.get("/_local_docs").json()
    assert sorted(row["id"] for row in found["rows"]) == ["_local/poller:1", "_local/poller:2", "_local/run:1"]
    assert found["rows"][0]["value"] == {"rev": "0-1"}
    params = {"startkey": json.dumps("_local/poller:"), "endkey": json.dumps("_local/poller;")}
    found = database.get("/_local_docs", params={**params, "include_docs": "true"}).json()
    assert sorted(row["doc"]["n"] for row in found["rows"]) == ["poller:1", "poller:2"]
    found = database.post("/_local_docs", json={"keys": ["_local/run:1"]}).json()
    assert [row["id"] for row in found["rows"]] == ["_local/run:1"]


def test_they_take_no_attachments(database: Database) -> None:
    database.put("/_local/a", json={})
    answer = database.put("/_local/a/file", data=b"x", headers={"Content-Type": "application/x"})
    assert answer.status_code == 400
