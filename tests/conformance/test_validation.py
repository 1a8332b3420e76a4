"""``validate_doc_update``: what it is given, and what its throwing means."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from .conftest import eventually

PROBES = 8  # documents that ask whether a function is in force: enough to reach all parts of a database


def guard(database: Any, body: str, name: str = "guard", **more: Any) -> None:
    """Store a design document with a validation function of that body."""
    probe = f"if (newDoc.probe === '{name}') {{ throw({{forbidden: 'in force'}}); }}"
    source = f"function (newDoc, oldDoc, userCtx, secObj) {{ {probe} {body} }}"
    database.save({"_id": f"_design/{name}", "validate_doc_update": source, **more})
    assert eventually(lambda: in_force(database, name))


def in_force(database: Any, name: str) -> bool:
    """Whether all parts of the database know the function that refuses these probes; none is stored then."""
    said = database.bulk([{"_id": f"probe-{uuid.uuid4().hex}", "probe": name} for _ in range(PROBES)])
    return all(row.get("error") == "forbidden" for row in said)


def test_forbidden(database: Any) -> None:
    guard(database, "if (newDoc.bad) { throw({forbidden: 'no bad ones: ' + newDoc._id}); }")
    database.save({"_id": "a"})
    answer = database.put("/b", json={"bad": True})
    assert answer.status_code == 403
    assert answer.json() == {"error": "forbidden", "reason": "no bad ones: b"}
    assert database.get("/b").status_code == 404


def test_unauthorized(database: Any) -> None:
    guard(database, "throw({unauthorized: 'log in'});")
    answer = database.put("/a", json={})
    assert answer.status_code == 401
    assert answer.json() == {"error": "unauthorized", "reason": "log in"}


@pytest.mark.parametrize("thrown", ["new Error('on purpose')", "{other: 'word'}", "'text'"])
def test_anything_else_thrown_is_an_error(database: Any, thrown: str) -> None:
    guard(database, f"if (newDoc.bad) {{ throw({thrown}); }}")
    assert database.put("/a", json={"bad": True}).status_code == 500
    assert database.get("/a").status_code == 404
    database.save({"_id": "b"})


def test_what_it_returns_says_nothing(database: Any) -> None:
    guard(database, "return false;")
    database.save({"_id": "a"})


def test_old_document(database: Any) -> None:
    guard(
        database,
        "if (!oldDoc) { if (newDoc.n !== 1) { throw({forbidden: 'begin with 1'}); } }"
        "else if (newDoc.n !== oldDoc.n + 1) { throw({forbidden: 'was ' + oldDoc.n + ' in ' + oldDoc._rev}); }",
    )
    assert database.put("/a", json={"n": 2}).status_code == 403
    rev = database.save({"_id": "a", "n": 1})
    answer = database.put("/a", json={"_rev": rev, "n": 5})
    assert answer.json()["reason"] == f"was 1 in {rev}"
    database.save({"_id": "a", "_rev": rev, "n": 2})


def test_deletions_are_asked_about(database: Any) -> None:
    guard(database, "if (newDoc._deleted) { throw({forbidden: 'kept for ever: ' + oldDoc.n}); }")
    rev = database.save({"_id": "a", "n": 7})
    answer = database.delete("/a", params={"rev": rev})
    assert answer.status_code == 403
    assert answer.json()["reason"] == "kept for ever: 7"


def test_user_and_security(database: Any, credentials: tuple[str, str]) -> None:
    security = {"admins": {"names": [], "roles": ["chief"]}, "members": {"names": [], "roles": []}}
    assert database.put("/_security", json=security).status_code == 200
    guard(
        database,
        "var admin = userCtx.roles.indexOf('_admin') >= 0;"
        "throw({forbidden: toJSON([userCtx.name, userCtx.db, admin, secObj.admins.roles])});",
    )
    answer = database.put("/a", json={})
    assert answer.status_code == 403
    assert answer.json()["reason"] == f'["{credentials[0]}","{database.name}",true,["chief"]]'


def test_roles_of_a_user(database: Any, user: tuple[str, str]) -> None:
    security = {"admins": {"names": [], "roles": []}, "members": {"names": [user[0]], "roles": []}}
    assert database.put("/_security", json=security).status_code == 200
    guard(database, "if (userCtx.roles.indexOf('writer') < 0) { throw({forbidden: userCtx.name + ' writes not'}); }")
    answer = database.as_user(user).put("/a", json={})
    assert answer.status_code == 403
    assert answer.json()["reason"] == f"{user[0]} writes not"


def test_each_document_of_a_bulk_has_its_own_verdict(database: Any) -> None:
    guard(database, "if (newDoc.bad) { throw({forbidden: 'bad'}); }")
    found = database.bulk([{"_id": "a"}, {"_id": "b", "bad": True}, {"_id": "c"}])
    assert [row.get("error") for row in found] == [None, "forbidden", None]
    assert found[1]["reason"] == "bad"
    assert [row["id"] for row in found] == ["a", "b", "c"]
    assert database.get("/c").status_code == 200


def test_all_functions_must_agree(database: Any) -> None:
    guard(database, "if (newDoc.x) { throw({forbidden: 'no x'}); }", "one")
    guard(database, "if (newDoc.y) { throw({forbidden: 'no y'}); }", "two")
    assert database.put("/a", json={"x": 1}).json()["reason"] == "no x"
    assert database.put("/a", json={"y": 1}).json()["reason"] == "no y"
    database.save({"_id": "a", "z": 1})


def test_it_takes_effect_and_goes_with_its_design_document(database: Any) -> None:
    guard(database, "throw({forbidden: 'closed'});")
    rev = database.get("/_design/guard").json()["_rev"]
    assert database.put("/a", json={}).status_code == 403
    assert database.delete("/_design/guard", params={"rev": rev}).status_code == 200
    assert eventually(lambda: database.put("/a", json={}).status_code == 201)


def test_local_documents_are_not_asked_about(database: Any) -> None:
    guard(database, "throw({forbidden: 'closed'});")
    assert database.put("/_local/a", json={"n": 1}).status_code == 201


def test_modules(database: Any) -> None:
    guard(
        database,
        "var rules = require('lib/rules'); if (!rules.fits(newDoc)) { throw({forbidden: rules.why}); }",
        lib={
            "rules": "var words = require('./words'); exports.fits = function (doc) { return doc.n > 0; };"
            " exports.why = words.why;",
            "words": "exports.why = 'n must be positive';",
        },
    )
    assert database.put("/a", json={"n": -1}).json()["reason"] == "n must be positive"
    database.save({"_id": "a", "n": 1})


def test_comments_around_a_function(database: Any) -> None:
    source = (
        "// a comment first\nfunction (newDoc) {"
        " if (newDoc.bad || newDoc.probe) { throw({forbidden: 'bad'}); } } // and last\n"
    )
    database.save({"_id": "_design/guard", "validate_doc_update": source})
    assert eventually(lambda: in_force(database, "guard"))
    assert database.put("/a", json={"bad": 1}).status_code == 403
    database.save({"_id": "a"})


def test_a_guard_that_never_ends_blocks_only_its_write(database: Any) -> None:
    guard(database, "while (newDoc.forever) {}")
    assert database.put("/a", json={"forever": True}, timeout=60).status_code == 500
    assert database.get("/a").status_code == 404
    database.save({"_id": "b"})
