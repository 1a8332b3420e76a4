"""Many documents at once: ``_bulk_docs``, ``_bulk_get``, ``_revs_diff``, ``_missing_revs``."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from .conftest import Database

A, B, C = "a" * 32, "b" * 32, "c" * 32


def test_each_document_has_its_row_in_order(database: Database) -> None:
    rows = database.bulk([{"_id": f"d{number}", "n": number} for number in range(20)])
    assert [row["id"] for row in rows] == [f"d{number}" for number in range(20)]
    assert all(row["ok"] is True and row["rev"].startswith("1-") for row in rows)
    assert database.get().json()["doc_count"] == 20
    assert database.get("/d7").json() == {"_id": "d7", "_rev": rows[7]["rev"], "n": 7}


def test_a_conflict_stops_nobody_else(database: Database) -> None:
    first = database.save({"_id": "a"})
    rows = database.bulk([{"_id": "a"}, {"_id": "b"}, {"_id": "a", "_rev": f"1-{C}"}])
    refused = {"id": "a", "error": "conflict", "reason": "Document update conflict."}
    assert rows[0] == refused
    assert rows[1]["ok"] is True
    assert rows[2] == refused
    assert database.get("/a").json()["_rev"] == first


def test_update_and_delete(database: Database) -> None:
    rows = database.bulk([{"_id": "a"}, {"_id": "b"}])
    rows = database.bulk(
        [{"_id": "a", "_rev": rows[0]["rev"], "n": 1}, {"_id": "b", "_rev": rows[1]["rev"], "_deleted": True}]
    )
    assert [row["rev"][:2] for row in rows] == ["2-", "2-"]
    assert database.get("/a").json()["n"] == 1
    assert database.get("/b").json()["reason"] == "deleted"
    info = database.get().json()
    assert (info["doc_count"], info["doc_del_count"]) == (1, 1)


def test_an_id_is_made_where_there_is_none(database: Database) -> None:
    rows = database.bulk([{"n": 1}, {"n": 2}])
    assert len({row["id"] for row in rows}) == 2
    assert database.get("/" + rows[0]["id"]).json()["n"] == 1


def test_nothing_to_do(database: Database) -> None:
    assert database.bulk([]) == []


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({}, "POST body must include `docs` parameter."),
        ({"docs": {}}, "`docs` parameter must be an array."),
        ([], "Request body must be a JSON object"),
        ({"docs": [], "new_edits": 1}, "`new_edits` parameter must be a boolean."),
        ({"docs": [1]}, "Document must be a JSON object"),
    ],
)
def test_a_request_that_is_none(database: Database, body: Any, reason: str) -> None:
    answer = database.post("/_bulk_docs", json=body)
    assert answer.status_code == 400
    assert answer.json() == {"error": "bad_request", "reason": reason}


def test_one_malformed_document_refuses_all(database: Database) -> None:
    answer = database.post("/_bulk_docs", json={"docs": [{"_id": "a"}, {"_id": "b", "_zing": 1}]})
    assert answer.status_code == 400
    assert answer.json() == {"error": "doc_validation", "reason": "Bad special document member: _zing"}
    assert database.get("/a").status_code == 404


def test_bulk_docs_wants_json(database: Database) -> None:
    answer = database.post("/_bulk_docs", data='{"docs":[]}', headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415
    headers = {"Content-Type": "application/json;charset=utf-8"}
    answer = database.post("/_bulk_docs", data='{"docs":[]}', headers=headers)
    assert answer.status_code == 201


def test_a_zipped_request(database: Database) -> None:
    body = gzip.compress(json.dumps({"docs": [{"_id": "zipped"}]}).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert database.post("/_bulk_docs", data=body, headers=headers).status_code == 201
    assert database.get("/zipped").status_code == 200


def test_new_edits_false_keeps_revisions_and_reports_only_refusals(database: Database) -> None:
    history = {"start": 3, "ids": [C, B, A]}
    assert database.bulk([{"_id": "d", "_rev": f"3-{C}", "_revisions": history}], new_edits=False) == []
    assert database.bulk([{"_id": "d", "_rev": f"3-{C}", "_revisions": history}], new_edits=False) == []
    found = database.get("/d", params={"revs": "true"}).json()
    assert found["_revisions"] == history
    statuses = {row["rev"]: row["status"] for row in database.get("/d?revs_info=true").json()["_revs_info"]}
    assert statuses == {f"3-{C}": "available", f"2-{B}": "missing", f"1-{A}": "missing"}


def test_new_edits_false_needs_a_revision(database: Database) -> None:
    answer = database.post("/_bulk_docs", json={"docs": [{"_id": "d"}], "new_edits": False})
    assert answer.status_code == 400
    assert answer.json()["error"] == "bad_request"


def test_what_arrives_in_any_order_has_one_winner(database: Database) -> None:
    branches: list[dict[str, Any]] = [
        {"_rev": f"2-{A}", "_revisions": {"start": 2, "ids": [A, A]}},
        {"_rev": f"3-{A}", "_revisions": {"start": 3, "ids": [A, B, A]}},
        {"_rev": f"3-{B}", "_revisions": {"start": 3, "ids": [B, C, A]}, "_deleted": True},
        {"_rev": f"1-{C}", "_revisions": {"start": 1, "ids": [C]}},
    ]
    for name, order in (("forward", branches), ("backward", branches[::-1])):
        for one in order:
            database.bulk([{"_id": name, **one}], new_edits=False)
        found = database.get(f"/{name}", params={"conflicts": "true", "deleted_conflicts": "true"}).json()
        assert found["_rev"] == f"3-{A}"
        assert found["_conflicts"] == [f"2-{A}", f"1-{C}"]
        assert found["_deleted_conflicts"] == [f"3-{B}"]


def test_bulk_get(database: Database) -> None:
    first = database.save({"_id": "a", "n": 1})
    second = database.save({"_id": "a", "_rev": first, "n": 2})
    asked = [{"id": "a"}, {"id": "a", "rev": first}, {"id": "none"}, {"id": "a", "rev": f"7-{C}"}]
    rows = database.post("/_bulk_get", json={"docs": asked}).json()["results"]
    assert [row["id"] for row in rows] == ["a", "a", "none", "a"]
    assert rows[0]["docs"] == [{"ok": {"_id": "a", "_rev": second, "n": 2}}]
    assert rows[1]["docs"] == [{"ok": {"_id": "a", "_rev": first, "n": 1}}]
    assert rows[2]["docs"][0]["error"]["error"] == "not_found"
    assert rows[2]["docs"][0]["error"]["reason"] == "missing"
    assert rows[3]["docs"][0]["error"]["rev"] == f"7-{C}"
    rows = database.post("/_bulk_get", params={"revs": "true"}, json={"docs": [{"id": "a"}]}).json()["results"]
    assert rows[0]["docs"][0]["ok"]["_revisions"]["start"] == 2


def test_bulk_get_wants_docs(database: Database) -> None:
    answer = database.post("/_bulk_get", json={})
    assert answer.status_code == 400
    assert answer.json() == {"error": "bad_request", "reason": "Missing JSON list of 'docs'."}


def test_revs_diff(database: Database) -> None:
    revision = database.save({"_id": "a"})
    asked = {"a": [revision, f"2-{A}"], "b": [f"1-{B}"]}
    found = database.post("/_revs_diff", json=asked).json()
    assert found == {"a": {"missing": [f"2-{A}"], "possible_ancestors": [revision]}, "b": {"missing": [f"1-{B}"]}}
    assert database.post("/_revs_diff", json={"a": [revision]}).json() == {}


def test_missing_revs(database: Database) -> None:
    revision = database.save({"_id": "a"})
    found = database.post("/_missing_revs", json={"a": [revision, f"2-{A}"]}).json()
    assert found == {"missing_revs": {"a": [f"2-{A}"]}}
