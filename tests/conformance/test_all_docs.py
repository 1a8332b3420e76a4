"""``_all_docs`` and ``_design_docs``: documents by id."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .conftest import Database

NAMES = ["A", "Z", "a", "b", "c", "d", "ä"]


@pytest.fixture
def filled(database: Database) -> Database:
    """A database with documents whose ids are in no collation's order when inserted."""
    database.bulk([{"_id": name, "n": number} for number, name in enumerate(NAMES[::-1])])
    return database


def ids(database: Database, **params: Any) -> list[str]:
    """The ids that a query answers, keys encoded as JSON."""
    sent = {name: value if isinstance(value, str) and value in ("true", "false") else json.dumps(value)
            for name, value in params.items()}  # fmt: skip
    answer = database.get("/_all_docs", params=sent)
    assert answer.status_code == 200, answer.text
    return [row["id"] for row in answer.json()["rows"]]


def test_ids_are_sorted_by_their_bytes(filled: Database) -> None:
    assert ids(filled) == NAMES
    assert ids(filled, descending="true") == NAMES[::-1]


def test_an_empty_database(database: Database) -> None:
    assert database.get("/_all_docs").json() == {"total_rows": 0, "offset": 0, "rows": []}


def test_rows_say_the_revision(filled: Database) -> None:
    found = filled.get("/_all_docs", params={"limit": 1}).json()
    revision = filled.get("/A").json()["_rev"]
    assert found == {"total_rows": 7, "offset": 0, "rows": [{"id": "A", "key": "A", "value": {"rev": revision}}]}


def test_ranges(filled: Database) -> None:
    assert ids(filled, startkey="b") == ["b", "c", "d", "ä"]
    assert ids(filled, endkey="b") == ["A", "Z", "a", "b"]
    assert ids(filled, startkey="a", endkey="c") == ["a", "b", "c"]
    assert ids(filled, start_key="a", end_key="c", inclusive_end="false") == ["a", "b"]
    assert ids(filled, startkey="c", endkey="a", descending="true") == ["c", "b", "a"]
    assert ids(filled, startkey="c", endkey="a", descending="true", inclusive_end="false") == ["c", "b"]
    assert ids(filled, startkey="aa", endkey="az") == []
    assert ids(filled, key="c") == ["c"]
    assert ids(filled, key="none") == []


def test_pages(filled: Database) -> None:
    assert ids(filled, limit=2) == ["A", "Z"]
    assert ids(filled, limit=2, skip=3) == ["b", "c"]
    assert ids(filled, limit=0) == []
    assert ids(filled, startkey="b", skip=1, limit=1) == ["c"]
    assert ids(filled, descending="true", limit=2) == ["ä", "d"]


def test_offset_counts_what_lies_before(filled: Database) -> None:
    assert filled.get("/_all_docs", params={"startkey": '"b"'}).json()["offset"] == 3


def test_include_docs(filled: Database) -> None:
    rows = filled.get("/_all_docs", params={"include_docs": "true", "startkey": '"d"'}).json()["rows"]
    assert [row["doc"]["n"] for row in rows] == [1, 0]
    assert rows[0]["doc"]["_id"] == "d"
    assert rows[0]["doc"]["_rev"] == rows[0]["value"]["rev"]


def test_keys_come_in_the_order_asked_for(filled: Database) -> None:
    gone = filled.get("/b").json()["_rev"]
    tombstone = filled.delete("/b", params={"rev": gone}).json()["rev"]
    asked = ["c", "none", "b", "a", "c"]
    for rows in (
        filled.post("/_all_docs", json={"keys": asked}).json()["rows"],
        filled.get("/_all_docs", params={"keys": json.dumps(asked)}).json()["rows"],
    ):
        assert [row["key"] for row in rows] == asked
        assert rows[1] == {"key": "none", "error": "not_found"}
        assert rows[2] == {"id": "b", "key": "b", "value": {"rev": tombstone, "deleted": True}}
        assert rows[0]["id"] == "c"
        assert rows[0] == rows[4]


def test_keys_with_documents(filled: Database) -> None:
    gone = filled.get("/b").json()["_rev"]
    filled.delete("/b", params={"rev": gone})
    answer = filled.post("/_all_docs", params={"include_docs": "true"}, json={"keys": ["a", "b", "none"]})
    rows = answer.json()["rows"]
    assert rows[0]["doc"]["_id"] == "a"
    assert rows[1]["doc"] is None
    assert rows[2] == {"key": "none", "error": "not_found"}


def test_limit_and_skip_among_keys(filled: Database) -> None:
    answer = filled.post("/_all_docs", params={"limit": 2, "skip": 1}, json={"keys": ["a", "b", "c", "d"]})
    assert [row["key"] for row in answer.json()["rows"]] == ["b", "c"]


def test_a_post_may_carry_the_other_parameters(filled: Database) -> None:
    answer = filled.post("/_all_docs", json={"startkey": "b", "limit": 2})
    assert [row["id"] for row in answer.json()["rows"]] == ["b", "c"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [([], "Request body must be a JSON object"), ({"keys": 1}, "`keys` body member must be an array.")],
)
def test_a_post_that_is_none(database: Database, body: Any, reason: str) -> None:
    answer = database.post("/_all_docs", json=body)
    assert answer.status_code == 400
    assert answer.json() == {"error": "bad_request", "reason": reason}


@pytest.mark.parametrize("params", [{"limit": "x"}, {"skip": "-1"}, {"descending": "maybe"}, {"include_docs": "1"}])
def test_parameters_of_the_wrong_kind(database: Database, params: dict[str, str]) -> None:
    answer = database.get("/_all_docs", params=params)
    assert answer.status_code == 400
    assert answer.json()["error"] == "query_parse_error"


def test_a_key_that_is_no_json(database: Database) -> None:
    assert database.get("/_all_docs", params={"startkey": "plain"}).status_code == 400


def test_deleted_documents_are_not_listed(filled: Database) -> None:
    filled.delete("/a", params={"rev": filled.get("/a").json()["_rev"]})
    found = filled.get("/_all_docs").json()
    assert found["total_rows"] == 6
    assert "a" not in [row["id"] for row in found["rows"]]


def test_conflicts_are_shown_with_the_documents(database: Database) -> None:
    for digit in "abc":
        database.bulk([{"_id": "d", "_rev": "1-" + digit * 32}], new_edits=False)
    rows = database.get("/_all_docs", params={"include_docs": "true", "conflicts": "true"}).json()["rows"]
    assert rows[0]["doc"]["_rev"] == "1-" + "c" * 32
    assert rows[0]["doc"]["_conflicts"] == ["1-" + "b" * 32, "1-" + "a" * 32]


def test_update_seq(filled: Database) -> None:
    found = filled.get("/_all_docs", params={"update_seq": "true", "limit": 1}).json()
    assert isinstance(found["update_seq"], str)
    assert filled.get("/_changes", params={"since": found["update_seq"]}).json()["results"] == []


def test_design_docs(filled: Database) -> None:
    filled.save({"_id": "_design/one"})
    filled.save({"_id": "_design/two"})
    rows = filled.get("/_design_docs").json()["rows"]
    assert [row["id"] for row in rows] == ["_design/one", "_design/two"]
    assert ids(filled, startkey="_design/", endkey="_design0") == ["_design/one", "_design/two"]


def test_several_queries_at_once(filled: Database) -> None:
    queries = [{"keys": ["a", "none"]}, {"startkey": "c", "limit": 1}]
    answer = filled.post("/_all_docs/queries", json={"queries": queries})
    first, second = answer.json()["results"]
    assert [row["key"] for row in first["rows"]] == ["a", "none"]
    assert [row["key"] for row in second["rows"]] == ["c"]


def test_a_large_answer_is_complete(database: Database) -> None:
    names = [f"d{number:05d}" for number in range(2500)]
    for start in range(0, 2500, 500):
        database.bulk([{"_id": name, "text": "x" * 100} for name in names[start : start + 500]])
    rows = database.get("/_all_docs", params={"include_docs": "true"}).json()["rows"]
    assert [row["id"] for row in rows] == names
    rows = database.post("/_all_docs", json={"keys": names[::-1]}).json()["rows"]
    assert [row["id"] for row in rows] == names[::-1]
