"""Documents one at a time: writing, reading, revisions, conflicts, deletion, copying."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .conftest import Database


def test_put_makes_a_document_and_says_its_revision(database: Database) -> None:
    answer = database.put("/spill-1", json={"triggers": 147})
    assert answer.status_code == 201
    said = answer.json()
    assert said["ok"] is True
    assert said["id"] == "spill-1"
    assert said["rev"].startswith("1-")
    assert answer.headers["ETag"] == f'"{said["rev"]}"'
    assert answer.headers["Location"].endswith(f"/{database.name}/spill-1")


def test_get_gives_back_what_was_put(database: Database) -> None:
    body = {
        "text": "Größe ∑ 🚀 \" \\ / \n",
        "integer": -12,
        "float": 0.1,
        "big": 1e300,
        "yes": True,
        "nothing": None,
        "list": [1, [2, {"three": 3}]],
        "object": {"": "empty key", "a b": {}},
    }
    revision = database.save({"_id": "all", **body})
    assert database.get("/all").json() == {"_id": "all", "_rev": revision, **body}


def test_members_keep_their_order(database: Database) -> None:
    database.put("/order", data='{"z":1,"a":2,"m":{"y":1,"b":2}}')
    text = database.get("/order").text
    assert text.index('"z"') < text.index('"a"') < text.index('"m"') < text.index('"y"') < text.index('"b"')


@pytest.mark.parametrize(
    "identifier", ["plain", "with space", "a/b", "ä", "1:2", "x&y=z", "$%#?", "+", "-", "run'\"1", "a\nb"]
)
def test_ids_may_hold_anything(database: Database, identifier: str) -> None:
    revision = database.save({"_id": identifier})
    rows = database.get("/_all_docs").json()["rows"]
    assert rows == [{"id": identifier, "key": identifier, "value": {"rev": revision}}]


def test_integers_keep_all_their_digits(database: Database) -> None:
    database.put("/n", data='{"n":12345678901234567890123}')
    assert database.get("/n").json()["n"] == 12345678901234567890123


def test_post_makes_an_id(database: Database) -> None:
    answer = database.post(json={"a": 1})
    assert answer.status_code == 201
    identifier = answer.json()["id"]
    assert len(identifier) == 32
    assert answer.headers["Location"].endswith(f"/{database.name}/{identifier}")
    assert database.get(f"/{identifier}").json()["a"] == 1


def test_post_keeps_a_given_id(database: Database) -> None:
    assert database.post(json={"_id": "given"}).json()["id"] == "given"
    assert database.post(json={"_id": "given"}).status_code == 409


def test_post_wants_json(database: Database) -> None:
    answer = database.post(data="{}", headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415
    assert answer.json() == {"error": "bad_content_type", "reason": "Content-Type must be application/json"}


def test_a_missing_document(database: Database) -> None:
    answer = database.get("/nothing")
    assert answer.status_code == 404
    assert answer.json() == {"error": "not_found", "reason": "missing"}
    assert database.head("/nothing").status_code == 404


def test_an_update_needs_the_revision(database: Database) -> None:
    first = database.save({"_id": "d", "n": 1})
    answer = database.put("/d", json={"n": 2})
    assert answer.status_code == 409
    assert answer.json() == {"error": "conflict", "reason": "Document update conflict."}
    second = database.save({"_id": "d", "_rev": first, "n": 2})
    assert second.startswith("2-")
    assert database.put("/d", json={"_rev": first, "n": 3}).status_code == 409
    assert database.get("/d").json() == {"_id": "d", "_rev": second, "n": 2}


def test_the_revision_may_stand_in_the_query_or_in_if_match(database: Database) -> None:
    first = database.save({"_id": "d"})
    second = database.put("/d", params={"rev": first}, json={"n": 2}).json()["rev"]
    assert second.startswith("2-")
    third = database.put("/d", headers={"If-Match": f'"{second}"'}, json={"n": 3}).json()["rev"]
    assert third.startswith("3-")
    assert database.put("/d", headers={"If-Match": f'"{second}"'}, json={"n": 4}).status_code == 409


def test_two_revisions_that_differ_are_a_bad_request(database: Database) -> None:
    first = database.save({"_id": "d"})
    answer = database.put("/d", params={"rev": "1-ffffffffffffffffffffffffffffffff"}, json={"_rev": first})
    assert answer.status_code == 400
    assert answer.json()["reason"] == "Document rev from request body and query string have different values"
    answer = database.put("/d", headers={"If-Match": "1-ffffffffffffffffffffffffffffffff"}, json={"_rev": first})
    assert answer.status_code == 400
    assert answer.json()["reason"] == "Document rev and etag have different values"


def test_a_revision_for_a_document_that_is_not_there(database: Database) -> None:
    assert database.put("/new", json={"_rev": "1-967a00dff5e02add41819138abb3284d"}).status_code == 409


@pytest.mark.parametrize("revision", ["garbage", "x-123", "", 1])
def test_a_revision_that_is_none(database: Database, revision: Any) -> None:
    answer = database.put("/d", json={"_rev": revision})
    assert answer.status_code == 400
    assert answer.json() == {"error": "bad_request", "reason": "Invalid rev format"}


def test_the_same_content_on_the_same_parent_has_the_same_revision(database: Database) -> None:
    first = database.save({"_id": "one", "a": 1})
    assert database.save({"_id": "two", "a": 1}) == first
    assert database.save({"_id": "three", "a": 2}) != first
    assert database.save({"_id": "one", "_rev": first, "b": 2}) == database.save({"_id": "two", "_rev": first, "b": 2})


def test_an_update_without_a_change_is_a_new_revision(database: Database) -> None:
    first = database.save({"_id": "d", "a": 1})
    assert database.save({"_id": "d", "_rev": first, "a": 1}).startswith("2-")


@pytest.mark.parametrize("text", ["{", "", "nothing", '{"a": NaN}', '{"a": Infinity}', '{"a": 01}'])
def test_what_is_not_json(database: Database, text: str) -> None:
    answer = database.put("/d", data=text)
    assert answer.status_code == 400
    assert answer.json()["error"] == "bad_request"
    assert database.get("/d").status_code == 404


@pytest.mark.parametrize("value", [[], 1, "text", None, True])
def test_a_document_is_an_object(database: Database, value: Any) -> None:
    answer = database.put("/d", data=json.dumps(value))
    assert answer.status_code == 400
    assert answer.json() == {"error": "bad_request", "reason": "Document must be a JSON object"}


def test_special_members_are_refused(database: Database) -> None:
    answer = database.put("/d", json={"_zing": 4})
    assert answer.status_code == 400
    assert answer.json() == {"error": "doc_validation", "reason": "Bad special document member: _zing"}


def test_special_members_inside_are_nobodys_business(database: Database) -> None:
    database.save({"_id": "d", "inner": {"_id": 1, "_zing": 2}})
    assert database.get("/d").json()["inner"] == {"_id": 1, "_zing": 2}


def test_reserved_ids_are_refused(database: Database) -> None:
    answer = database.put("/_special", json={})
    assert answer.status_code == 400
    assert answer.json() == {
        "error": "illegal_docid",
        "reason": "Only reserved document ids may start with underscore.",
    }


def test_a_document_that_is_too_large(database: Database) -> None:
    answer = database.put("/large", data=json.dumps({"_id": "large", "text": "x" * 8_100_000}))
    assert answer.status_code == 413
    assert answer.json() == {"error": "document_too_large", "reason": "large"}
    assert database.put("/just", data=json.dumps({"text": "x" * 7_000_000})).status_code == 201


def test_head_says_as_much_as_get(database: Database) -> None:
    revision = database.save({"_id": "d"})
    answer = database.head("/d")
    assert answer.status_code == 200
    assert answer.content == b""
    assert answer.headers["ETag"] == f'"{revision}"'
    assert int(answer.headers["Content-Length"]) == len(database.get("/d").content)


def test_a_reader_who_has_it_already(database: Database) -> None:
    revision = database.save({"_id": "d"})
    answer = database.get("/d", headers={"If-None-Match": f'"{revision}"'})
    assert answer.status_code == 304
    assert answer.content == b""
    database.save({"_id": "d", "_rev": revision})
    assert database.get("/d", headers={"If-None-Match": f'"{revision}"'}).status_code == 200


def test_delete(database: Database) -> None:
    first = database.save({"_id": "d", "a": 1})
    assert database.delete("/d").status_code == 409
    answer = database.delete("/d", params={"rev": first})
    assert answer.status_code == 200
    assert answer.json()["rev"].startswith("2-")
    gone = database.get("/d")
    assert gone.status_code == 404
    assert gone.json() == {"error": "not_found", "reason": "deleted"}
    assert database.delete("/d", params={"rev": answer.json()["rev"]}).status_code == 404
    tombstone = database.get("/d", params={"rev": answer.json()["rev"]})
    assert tombstone.json() == {"_id": "d", "_rev": answer.json()["rev"], "_deleted": True}


def test_delete_by_if_match(database: Database) -> None:
    first = database.save({"_id": "d"})
    assert database.delete("/d", headers={"If-Match": "1-ffffffffffffffffffffffffffffffff"}).status_code == 409
    assert database.delete("/d", headers={"If-Match": first}).status_code == 200


def test_delete_of_what_never_was(database: Database) -> None:
    answer = database.delete("/never", params={"rev": "1-ffffffffffffffffffffffffffffffff"})
    assert answer.status_code == 404
    assert answer.json() == {"error": "not_found", "reason": "missing"}


def test_a_tombstone_can_carry_fields(database: Database) -> None:
    first = database.save({"_id": "d"})
    answer = database.put("/d", json={"_rev": first, "_deleted": True, "why": "bad run"})
    assert answer.status_code == 200
    assert database.get("/d").status_code == 404
    found = database.get("/d", params={"rev": answer.json()["rev"]}).json()
    assert found["why"] == "bad run"
    assert found["_deleted"] is True


def test_a_deleted_document_can_come_back(database: Database) -> None:
    first = database.save({"_id": "d"})
    second = database.delete("/d", params={"rev": first}).json()["rev"]
    third = database.save({"_id": "d", "again": True})
    assert third.startswith("3-")
    history = database.get("/d", params={"revs": "true"}).json()["_revisions"]
    assert history["start"] == 3
    assert history["ids"] == [revision.split("-")[1] for revision in (third, second, first)]


def test_old_revisions_can_be_read(database: Database) -> None:
    first = database.save({"_id": "d", "n": 1})
    second = database.save({"_id": "d", "_rev": first, "n": 2})
    assert database.get("/d", params={"rev": first}).json() == {"_id": "d", "_rev": first, "n": 1}
    found = database.get("/d", params={"revs_info": "true"}).json()
    assert found["_revs_info"] == [{"rev": second, "status": "available"}, {"rev": first, "status": "available"}]
    answer = database.get("/d", params={"rev": "9-ffffffffffffffffffffffffffffffff"})
    assert answer.status_code == 404
    assert answer.json() == {"error": "not_found", "reason": "missing"}


def branch(database: Database, identifier: str, *revisions: str, **fields: Any) -> None:
    """Store a revision with its ancestors, as replication does."""
    start = int(revisions[0].split("-")[0])
    history = {"start": start, "ids": [revision.split("-")[1] for revision in revisions]}
    document = {"_id": identifier, "_rev": revisions[0], "_revisions": history, **fields}
    assert database.bulk([document], new_edits=False) == []


A, B, C = "a" * 32, "b" * 32, "c" * 32


def test_of_two_branches_the_longer_wins(database: Database) -> None:
    branch(database, "d", f"2-{A}", f"1-{A}", n="long")
    branch(database, "d", f"1-{C}", n="short")
    found = database.get("/d", params={"conflicts": "true"}).json()
    assert found == {"_id": "d", "_rev": f"2-{A}", "n": "long", "_conflicts": [f"1-{C}"]}
    assert database.get("/d", params={"rev": f"1-{C}"}).json()["n"] == "short"


def test_of_two_equally_long_branches_the_greater_hash_wins(database: Database) -> None:
    branch(database, "d", f"2-{B}", f"1-{A}")
    branch(database, "d", f"2-{C}", f"1-{A}")
    branch(database, "d", f"2-{A}", f"1-{A}")
    found = database.get("/d", params={"conflicts": "true"}).json()
    assert found["_rev"] == f"2-{C}"
    assert found["_conflicts"] == [f"2-{B}", f"2-{A}"]


def test_a_deleted_branch_loses(database: Database) -> None:
    branch(database, "d", f"3-{C}", f"2-{C}", f"1-{A}", _deleted=True)
    branch(database, "d", f"2-{A}", f"1-{A}")
    found = database.get("/d", params={"deleted_conflicts": "true", "conflicts": "true"}).json()
    assert found == {"_id": "d", "_rev": f"2-{A}", "_deleted_conflicts": [f"3-{C}"]}


def test_deleting_the_winner_uncovers_the_other(database: Database) -> None:
    branch(database, "d", f"2-{B}", f"1-{A}", n=1)
    branch(database, "d", f"2-{C}", f"1-{A}", n=2)
    assert database.delete("/d", params={"rev": f"2-{C}"}).status_code == 200
    assert database.get("/d", params={"conflicts": "true"}).json() == {"_id": "d", "_rev": f"2-{B}", "n": 1}
    assert database.delete("/d", params={"rev": f"2-{B}"}).status_code == 200
    assert database.get("/d").json()["reason"] == "deleted"


def test_a_losing_branch_can_be_updated(database: Database) -> None:
    branch(database, "d", f"2-{B}", f"1-{A}")
    branch(database, "d", f"2-{C}", f"1-{A}")
    third = database.save({"_id": "d", "_rev": f"2-{B}"})
    found = database.get("/d", params={"conflicts": "true"}).json()
    assert found["_rev"] == third
    assert found["_conflicts"] == [f"2-{C}"]


def test_a_put_with_new_edits_false(database: Database) -> None:
    answer = database.put("/d", params={"new_edits": "false"}, json={"_rev": f"3-{A}", "n": 3})
    assert answer.status_code == 201
    assert answer.json()["rev"] == f"3-{A}"
    assert database.get("/d").json()["_rev"] == f"3-{A}"
    assert database.put("/d", params={"new_edits": "false"}, json={"n": 3}).status_code == 400


def test_open_revs(database: Database) -> None:
    branch(database, "d", f"2-{B}", f"1-{A}", n="b")
    branch(database, "d", f"2-{C}", f"1-{A}", n="c")
    rows = database.get("/d", params={"open_revs": "all"}).json()
    assert sorted(row["ok"]["_rev"] for row in rows) == [f"2-{B}", f"2-{C}"]
    asked = json.dumps([f"2-{B}", f"7-{A}"])
    rows = database.get("/d", params={"open_revs": asked, "revs": "true"}).json()
    found = {row["ok"]["_rev"] if "ok" in row else row["missing"]: row for row in rows}
    assert set(found) == {f"2-{B}", f"7-{A}"}
    assert found[f"2-{B}"]["ok"]["_revisions"] == {"start": 2, "ids": [B, A]}
    assert "missing" in found[f"7-{A}"]


def test_revs_limit(database: Database) -> None:
    assert database.get("/_revs_limit").json() == 1000
    assert database.put("/_revs_limit", data="3").json() == {"ok": True}
    assert database.get("/_revs_limit").json() == 3
    revision = database.save({"_id": "d"})
    for _ in range(5):
        revision = database.save({"_id": "d", "_rev": revision})
    history = database.get("/d", params={"revs": "true"}).json()["_revisions"]
    assert history["start"] == 6
    assert len(history["ids"]) == 3


def test_copy(database: Database) -> None:
    source = database.save({"_id": "from", "n": 1})
    answer = database.request("COPY", "/from", headers={"Destination": "to"})
    assert answer.status_code == 201
    assert answer.json()["id"] == "to"
    copied = answer.json()["rev"]
    assert database.get("/to").json() == {"_id": "to", "_rev": copied, "n": 1}
    database.save({"_id": "from", "_rev": source, "n": 2})
    assert database.request("COPY", "/from", headers={"Destination": "to"}).status_code == 409
    answer = database.request("COPY", "/from", headers={"Destination": f"to?rev={copied}"})
    assert answer.status_code == 201
    assert database.get("/to").json()["n"] == 2
    assert database.request("COPY", "/nothing", headers={"Destination": "other"}).status_code == 404


def test_batch_answers_before_the_revision_is_known(database: Database) -> None:
    answer = database.put("/d", params={"batch": "ok"}, json={})
    assert answer.status_code == 202
    assert answer.json() == {"ok": True, "id": "d"}


def test_other_methods_are_refused(database: Database) -> None:
    answer = database.delete("/_bulk_docs")
    assert answer.status_code == 405
    assert answer.json() == {"error": "method_not_allowed", "reason": "Only POST allowed"}
    assert answer.headers["Allow"] == "POST"


def test_design_documents_are_documents(database: Database) -> None:
    revision = database.save({"_id": "_design/work", "views": {}})
    for path in ("/_design/work", "/_design%2Fwork"):
        assert database.get(path).json() == {"_id": "_design/work", "_rev": revision, "views": {}}
    assert database.delete("/_design/work", params={"rev": revision}).status_code == 200
