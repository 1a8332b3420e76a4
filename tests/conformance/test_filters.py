"""Filter functions and views as filters of the changes feed."""

from __future__ import annotations

from typing import Any

import pytest
import requests


def design(database: Any, **filters: str) -> None:
    """Store the design document ``test`` with filters."""
    database.save({"_id": "_design/test", "filters": filters})


def changes(database: Any, name: str, **params: Any) -> requests.Response:
    """Ask for the changes that a filter of ``test`` lets pass."""
    return database.get("/_changes", params={"filter": f"test/{name}", **params})


def ids(database: Any, name: str, **params: Any) -> set[str]:
    answer = changes(database, name, **params)
    assert answer.status_code == 200, answer.text
    return {row["id"] for row in answer.json()["results"]}


def test_a_filter_sees_each_document(database: Any) -> None:
    design(database, even="function (doc, req) { return doc.n % 2 === 0; }")
    database.bulk([{"_id": str(number), "n": number} for number in range(6)])
    assert ids(database, "even") == {"0", "2", "4"}


def test_the_query_is_text(database: Any) -> None:
    design(database, over="function (doc, req) { return doc.n > parseInt(req.query.limit_to, 10); }")
    database.bulk([{"_id": str(number), "n": number} for number in range(6)])
    assert ids(database, "over", limit_to=3) == {"4", "5"}


def test_what_counts_as_true(database: Any) -> None:
    design(
        database,
        text="function (doc) { return doc.v ? 'yes' : ''; }",
        nothing="function (doc) { }",
        zero="function (doc) { return 0; }",
    )
    database.bulk([{"_id": "a", "v": 1}, {"_id": "b"}])
    assert ids(database, "text") == {"a"}
    assert ids(database, "nothing") == set()
    assert ids(database, "zero") == set()


def test_the_request(database: Any, credentials: tuple[str, str]) -> None:
    checks = [
        "req.method === 'GET'",
        f"req.info.db_name === '{database.name}'",
        "req.path[req.path.length - 1] === '_changes'",
        "req.query.filter === 'test/request'",
        "typeof req.headers === 'object'",
        f"req.userCtx.name === '{credentials[0]}'",
        "req.userCtx.roles.indexOf('_admin') >= 0",
        f"req.userCtx.db === '{database.name}'",
        "typeof req.secObj === 'object'",
        "typeof req.uuid === 'string'",
        "typeof req.peer === 'string'",
        "typeof req.cookie === 'object'",
        "typeof req.form === 'object'",
        "req.id === null",
    ]
    design(database, request=f"function (doc, req) {{ return {' && '.join(checks)}; }}")
    database.save({"_id": "a"})
    assert "a" in ids(database, "request")


def test_this_is_the_design_document_and_it_has_modules(database: Any) -> None:
    database.save(
        {
            "_id": "_design/test",
            "wanted": "b",
            "lib": {"names": "exports.wanted = function (doc) { return doc.kind === 'x'; };"},
            "filters": {
                "own": "function (doc) { return doc._id === this.wanted; }",
                "module": "function (doc) { return require('lib/names').wanted(doc); }",
            },
        }
    )
    database.bulk([{"_id": "a", "kind": "x"}, {"_id": "b"}])
    assert ids(database, "own") == {"b"}
    assert ids(database, "module") == {"a"}


def test_deletions_pass_too_if_the_filter_lets_them(database: Any) -> None:
    design(
        database,
        gone="function (doc) { return doc._deleted === true; }",
        named="function (doc) { return doc._id === 'a'; }",
    )
    rev = database.save({"_id": "a", "n": 1})
    database.save({"_id": "b"})
    assert database.delete("/a", params={"rev": rev}).status_code == 200
    assert ids(database, "gone") == {"a"}
    assert ids(database, "named") == {"a"}


def test_documents_come_with_the_rows_that_pass(database: Any) -> None:
    design(database, odd="function (doc) { return doc.n % 2 === 1; }")
    database.bulk([{"_id": str(number), "n": number} for number in range(4)])
    answer = changes(database, "odd", include_docs="true").json()
    assert sorted(row["doc"]["n"] for row in answer["results"]) == [1, 3]


def test_a_filter_that_throws(database: Any) -> None:
    design(database, bad="function (doc) { throw new Error('on purpose'); }", good="function (doc) { return true; }")
    database.save({"_id": "a"})
    assert changes(database, "bad").status_code == 500
    assert "a" in ids(database, "good")


@pytest.mark.parametrize(
    "body", ["while (true) {}", "var text = ['x']; while (true) { text.push(text.join('') + text.length); }"]
)
def test_a_filter_that_never_ends_or_eats_memory_harms_nobody_else(database: Any, body: str) -> None:
    design(database, bad=f"function (doc) {{ {body} }}", good="function (doc) { return true; }")
    database.save({"_id": "a"})
    try:
        answer = database.get("/_changes", params={"filter": "test/bad"}, timeout=90)
        # CouchDB may have begun its answer when it gives the function up; then the answer breaks off.
        whole = answer.status_code < 500 and "last_seq" in answer.text
    except requests.RequestException:
        whole = False
    assert not whole
    assert "a" in ids(database, "good")


def test_a_filter_that_is_not_there(database: Any) -> None:
    design(database, good="function (doc) { return true; }")
    database.save({"_id": "a"})
    assert changes(database, "nothing").status_code == 404
    answer = database.get("/_changes", params={"filter": "nothing/good"})
    assert answer.status_code == 404
    assert answer.json()["error"] == "not_found"


def test_a_filter_without_a_name(database: Any) -> None:
    answer = database.get("/_changes", params={"filter": "nothing"})
    assert answer.status_code == 400
    assert answer.json()["error"] == "bad_request"


def test_a_view_as_a_filter(database: Any) -> None:
    views = {"good": {"map": "function (doc) { if (doc.status === 'good') { emit(null, null); } }"}}
    database.save({"_id": "_design/test", "views": views})
    database.bulk([{"_id": "a", "status": "good"}, {"_id": "b", "status": "bad"}])
    answer = database.get("/_changes", params={"filter": "_view", "view": "test/good"})
    assert answer.status_code == 200
    assert {row["id"] for row in answer.json()["results"]} == {"a"}


def test_a_selector_as_a_filter(database: Any) -> None:
    database.bulk([{"_id": "a", "status": "good", "n": 1}, {"_id": "b", "status": "good", "n": 5}, {"_id": "c"}])
    answer = database.post(
        "/_changes", params={"filter": "_selector"}, json={"selector": {"status": "good", "n": {"$gt": 1}}}
    )
    assert answer.status_code == 200
    assert {row["id"] for row in answer.json()["results"]} == {"b"}
    wrong = database.post("/_changes", params={"filter": "_selector"}, json={"selector": {"n": {"$nonsense": 1}}})
    assert wrong.status_code == 400
