"""Views, as CouchDB shows them: map, reduce, ranges, order, errors."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests

from .conftest import eventually


def view(database: Any, name: str, body: dict[str, Any] | None = None, **params: Any) -> requests.Response:
    """Ask a view of the design document ``test``; keys are written as JSON."""
    sent = {
        key: value if key in ("update", "stale") or key.endswith("docid") else json.dumps(value)
        for key, value in params.items()
    }
    if body is None:
        return database.get(f"/_design/test/_view/{name}", params=sent)
    return database.post(f"/_design/test/_view/{name}", params=sent, json=body)


def rows(database: Any, name: str, body: dict[str, Any] | None = None, **params: Any) -> list[dict[str, Any]]:
    """The rows of an answer that must succeed."""
    answer = view(database, name, body, **params)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["rows"]
    return found


def design(database: Any, **views: Any) -> None:
    """Store the design document ``test``; a view is its map, or a (map, reduce)."""
    made = {}
    for name, given in views.items():
        source, reduce = given if isinstance(given, tuple) else (given, None)
        made[name] = {"map": source} if reduce is None else {"map": source, "reduce": reduce}
    database.save({"_id": "_design/test", "views": made})


def fill(database: Any, count: int) -> None:
    """Store documents 000, 001, ... with ``n`` and a group ``g`` of ten each."""
    database.bulk([{"_id": f"{number:03d}", "n": number, "g": number // 10} for number in range(count)])


# Maps


def test_rows_have_id_key_and_value_in_the_order_of_the_keys(database: Any) -> None:
    design(database, byn="function (doc) { emit(doc.n, doc.g); }")
    fill(database, 12)
    answer = view(database, "byn").json()
    assert answer["total_rows"] == 12
    assert answer["offset"] == 0
    assert answer["rows"][11] == {"id": "011", "key": 11, "value": 1}
    assert [row["key"] for row in answer["rows"]] == list(range(12))


def test_equal_keys_are_ordered_by_document_id(database: Any) -> None:
    design(database, same="function (doc) { emit(null, null); }")
    database.bulk([{"_id": name} for name in ("b", "a", "ä", "B")])
    assert [row["id"] for row in rows(database, "same")] == ["B", "a", "b", "ä"]


def test_keys_follow_the_collation(database: Any) -> None:
    design(database, key="function (doc) { emit(doc.k, null); }")
    order: list[Any] = [
        None, False, True, -3, 0, 1, 1.5, 2, "", "a", "A", "aa", "b", "B", "ba", "bb",
        [], ["a"], ["b"], ["b", "c"], ["b", "c", "a"], ["b", "d"], ["b", "d", "e"],
        {}, {"a": 1}, {"a": 2}, {"b": 1}, {"b": 2}, {"b": 2, "c": 2},
    ]  # fmt: skip
    database.bulk([{"_id": f"d{(index * 7) % len(order):02d}x{index}", "k": key} for index, key in enumerate(order)])
    assert [row["key"] for row in rows(database, "key")] == order
    assert [row["key"] for row in rows(database, "key", descending=True)] == order[::-1]


def test_punctuation_and_digits_follow_the_collation(database: Any) -> None:
    design(database, key="function (doc) { emit(doc.k, null); }")
    # without ` and ^, which older versions of ICU have before the others
    order = list("_-,;:!?.'\"()[]{}@*/\\&#%+<=>|~$0123456789aAbBzZ")
    database.bulk([{"k": character} for character in reversed(order)])
    assert [row["key"] for row in rows(database, "key")] == order


def test_accents_come_between_a_letter_and_the_next(database: Any) -> None:
    design(database, key="function (doc) { emit(doc.k, null); }")
    order = ["cote", "coté", "côte", "cotz", "d"]
    database.bulk([{"k": word} for word in reversed(order)])
    found = [row["key"] for row in rows(database, "key")]
    assert found[0] == "cote" and found[3:] == ["cotz", "d"]
    assert set(found[1:3]) == {"coté", "côte"}


def test_a_document_may_emit_many_rows_or_none(database: Any) -> None:
    design(database, tags="function (doc) { for (var i = 0; i < doc.tags.length; i++) { emit(doc.tags[i], i); } }")
    database.bulk([{"_id": "a", "tags": ["x", "y"]}, {"_id": "b", "tags": []}, {"_id": "c", "tags": ["x"]}])
    assert [(row["key"], row["id"], row["value"]) for row in rows(database, "tags")] == [
        ("x", "a", 0), ("x", "c", 0), ("y", "a", 1),
    ]  # fmt: skip


def test_what_is_undefined_is_null(database: Any) -> None:
    design(database, none="function (doc) { emit(doc.missing, [doc.missing]); emit('only a key'); }")
    database.save({"_id": "a"})
    assert [(row["key"], row["value"]) for row in rows(database, "none")] == [(None, [None]), ("only a key", None)]


def test_a_map_that_throws_emits_nothing_for_that_document(database: Any) -> None:
    design(database, some="function (doc) { emit(doc._id, null); if (doc.bad) { doc.nothing.here; } }")
    database.bulk([{"_id": "a"}, {"_id": "b", "bad": True}, {"_id": "c"}])
    assert [row["id"] for row in rows(database, "some")] == ["a", "c"]


def test_a_map_cannot_change_the_document_for_the_next_one(database: Any) -> None:
    design(
        database,
        first="function (doc) { doc.tags.push('changed'); doc.n = 2; emit(1, doc.n); }",
        second="function (doc) { emit(doc._id, [doc.n, doc.tags]); }",
    )
    database.save({"_id": "a", "n": 1, "tags": ["x"]})
    assert rows(database, "second")[0]["value"] == [1, ["x"]]


def test_helper_functions(database: Any) -> None:
    design(database, help="function (doc) { emit(sum([1, 2, 3]), [isArray([]), isArray({}), toJSON({a: 1})]); }")
    database.save({"_id": "a"})
    assert rows(database, "help") == [{"id": "a", "key": 6, "value": [True, False, '{"a":1}']}]


def test_views_require_their_library(database: Any) -> None:
    views = {
        "lib": {"double": "exports.double = function (x) { return 2 * x; };", "deep": {"er": "exports.er = 1;"}},
        "twice": {
            "map": "function (doc) { var lib = require('views/lib/double');"
            " emit(lib.double(doc.n), require('views/lib/deep/er').er); }"
        },
    }
    database.save({"_id": "_design/test", "views": views})
    database.save({"_id": "a", "n": 21})
    assert rows(database, "twice") == [{"id": "a", "key": 42, "value": 1}]


def test_updates_and_deletions_are_seen(database: Any) -> None:
    design(database, byn="function (doc) { emit(doc.n, null); }")
    rev = database.save({"_id": "a", "n": 1})
    database.save({"_id": "b", "n": 2})
    assert [row["key"] for row in rows(database, "byn")] == [1, 2]
    rev = database.save({"_id": "a", "_rev": rev, "n": 3})
    assert [(row["id"], row["key"]) for row in rows(database, "byn")] == [("b", 2), ("a", 3)]
    assert database.delete("/a", params={"rev": rev}).status_code == 200
    answer = view(database, "byn").json()
    assert answer["total_rows"] == 1
    assert [row["id"] for row in answer["rows"]] == ["b"]


def test_design_documents_are_not_indexed(database: Any) -> None:
    design(database, all="function (doc) { emit(doc._id, null); }")
    database.save({"_id": "a"})
    assert [row["id"] for row in rows(database, "all")] == ["a"]


# Ranges


@pytest.fixture
def hundred(database: Any) -> Any:
    design(
        database,
        byn="function (doc) { emit(doc.n, null); }",
        byg=("function (doc) { emit(doc.g, doc.n); }", "_count"),
        pair=("function (doc) { emit([doc.g, doc.n], doc.n); }", "_sum"),
    )
    fill(database, 100)
    return database


def test_range_and_its_ends(hundred: Any) -> None:
    def keys(**params: Any) -> list[int]:
        return [row["key"] for row in rows(hundred, "byn", **params)]

    assert keys(startkey=10, endkey=13) == [10, 11, 12, 13]
    assert keys(start_key=10, end_key=13, inclusive_end=False) == [10, 11, 12]
    assert keys(startkey=98) == [98, 99]
    assert keys(endkey=1) == [0, 1]
    assert keys(key=7) == [7]
    assert keys(key="7") == []
    assert keys(startkey=13, endkey=10, descending=True) == [13, 12, 11, 10]
    assert keys(startkey=13, endkey=10, descending=True, inclusive_end=False) == [13, 12, 11]
    assert keys(descending=True, limit=2) == [99, 98]
    assert keys(limit=0) == []


def test_limit_skip_and_offset(hundred: Any) -> None:
    answer = view(hundred, "byn", limit=3, skip=5).json()
    assert [row["key"] for row in answer["rows"]] == [5, 6, 7]
    assert (answer["total_rows"], answer["offset"]) == (100, 5)
    answer = view(hundred, "byn", startkey=40, limit=1).json()
    assert (answer["total_rows"], answer["offset"]) == (100, 40)
    answer = view(hundred, "byn", startkey=40, limit=1, descending=True).json()
    assert (answer["total_rows"], answer["offset"]) == (100, 59)
    assert rows(hundred, "byn", skip=1000) == []


def test_ids_narrow_equal_keys(hundred: Any) -> None:
    def ids(**params: Any) -> list[str]:
        return [row["id"] for row in rows(hundred, "byg", reduce=False, **params)]

    assert ids(startkey=3, startkey_docid="038", endkey=3) == ["038", "039"]
    assert ids(startkey=3, endkey=3, endkey_docid="031") == ["030", "031"]
    assert ids(startkey=3, endkey=3, endkey_docid="031", inclusive_end=False) == ["030"]
    assert ids(startkey=3, startkey_docid="031", endkey=3, descending=True) == ["031", "030"]
    # without a startkey the id says nothing
    assert len(ids(startkey_docid="050")) == 100


def test_paging_by_key_and_id_meets_every_row_once(hundred: Any) -> None:
    seen: list[str] = []
    params: dict[str, Any] = {"reduce": False, "limit": 8}
    while True:
        page = rows(hundred, "byg", **params)
        seen += [row["id"] for row in page[:7]]
        if len(page) < 8:
            break
        params |= {"startkey": page[7]["key"], "startkey_docid": page[7]["id"]}
    assert seen == [f"{number:03d}" for number in range(100)]


def test_keys_come_in_the_order_asked(hundred: Any) -> None:
    assert [row["key"] for row in rows(hundred, "byn", keys=[30, 10, 1000, 20])] == [30, 10, 20]
    assert [row["key"] for row in rows(hundred, "byn", {"keys": [3, 1]})] == [3, 1]
    assert rows(hundred, "byn", {"keys": []}) == []
    assert [row["key"] for row in rows(hundred, "byn", {"keys": [30, 10, 20]}, limit=2)] == [30, 10]


def test_a_posted_body_carries_parameters(hundred: Any) -> None:
    assert [row["key"] for row in rows(hundred, "byn", {"startkey": 97, "descending": False})] == [97, 98, 99]


def test_several_queries_at_once(hundred: Any) -> None:
    answer = hundred.post(
        "/_design/test/_view/pair/queries",
        json={"queries": [{"reduce": False, "limit": 2}, {"group_level": 1, "limit": 1}, {}]},
    )
    assert answer.status_code == 200
    first, second, third = answer.json()["results"]
    assert [row["key"] for row in first["rows"]] == [[0, 0], [0, 1]]
    assert second["rows"] == [{"key": [0], "value": 45}]
    assert third["rows"] == [{"key": None, "value": 4950}]


# Documents with the rows


def test_include_docs(database: Any) -> None:
    design(database, byn="function (doc) { emit(doc.n, null); }")
    fill(database, 3)
    found = rows(database, "byn", include_docs=True)
    assert [row["doc"]["_id"] for row in found] == ["000", "001", "002"]
    assert found[0]["doc"]["_rev"].startswith("1-")


def test_include_docs_of_another_document(database: Any) -> None:
    design(database, link="function (doc) { if (doc.link) { emit(doc._id, {_id: doc.link}); } }")
    database.bulk([{"_id": "a", "link": "b"}, {"_id": "b", "n": 1}, {"_id": "c", "link": "nowhere"}])
    found = rows(database, "link", include_docs=True)
    assert found[0]["doc"]["n"] == 1
    assert found[1]["doc"] is None


def test_include_docs_of_an_emitted_revision(database: Any) -> None:
    design(database, old="function (doc) { emit(doc._id, {_rev: doc.before}); }")
    first = database.save({"_id": "a", "n": 1})
    database.save({"_id": "a", "_rev": first, "n": 2, "before": first})
    assert rows(database, "old", include_docs=True)[0]["doc"]["n"] == 1


def test_include_docs_with_conflicts(database: Any) -> None:
    design(database, all="function (doc) { emit(doc._id, null); }")
    loser, winner = "1-" + 32 * "a", "1-" + 32 * "b"
    database.bulk([{"_id": "a", "_rev": loser}, {"_id": "a", "_rev": winner}], new_edits=False)
    assert rows(database, "all", include_docs=True, conflicts=True)[0]["doc"]["_conflicts"] == [loser]
    assert "_conflicts" not in rows(database, "all", include_docs=True)[0]["doc"]


def test_a_map_sees_conflicts(database: Any) -> None:
    design(database, conflicts="function (doc) { if (doc._conflicts) { emit(doc._id, doc._conflicts); } }")
    loser, winner = "1-" + 32 * "a", "1-" + 32 * "b"
    database.bulk([{"_id": "a"}, {"_id": "b"}])
    assert rows(database, "conflicts") == []
    database.bulk([{"_id": "c", "_rev": loser}, {"_id": "c", "_rev": winner}], new_edits=False)
    assert rows(database, "conflicts") == [{"id": "c", "key": "c", "value": [loser]}]
    assert database.delete("/c", params={"rev": loser}).status_code == 200
    assert rows(database, "conflicts") == []


# Reduce


def test_builtin_reduces(database: Any) -> None:
    source = "function (doc) { emit(doc.g, doc.n); }"
    design(database, count=(source, "_count"), sum=(source, "_sum"), stats=(source, "_stats"))
    fill(database, 100)
    assert rows(database, "count") == [{"key": None, "value": 100}]
    assert rows(database, "sum") == [{"key": None, "value": 4950}]
    assert rows(database, "stats") == [
        {"key": None, "value": {"sum": 4950, "count": 100, "min": 0, "max": 99, "sumsqr": 328350}}
    ]
    assert rows(database, "sum", key=1) == [{"key": None, "value": 145}]
    assert rows(database, "stats", startkey=2, endkey=3, group=True)[1] == {
        "key": 3, "value": {"sum": 345, "count": 10, "min": 30, "max": 39, "sumsqr": 11985},
    }  # fmt: skip


def test_minimum_and_maximum_after_deletions(database: Any) -> None:
    design(database, stats=("function (doc) { emit(null, doc.n); }", "_stats"))
    revs = {number: database.save({"_id": f"d{number}", "n": number}) for number in range(1, 6)}
    assert rows(database, "stats")[0]["value"]["max"] == 5
    for number in (1, 5):
        assert database.delete(f"/d{number}", params={"rev": revs[number]}).status_code == 200
    assert rows(database, "stats")[0]["value"] == {"sum": 9, "count": 3, "min": 2, "max": 4, "sumsqr": 29}


def test_sums_of_arrays_and_objects(database: Any) -> None:
    design(database, sum=("function (doc) { emit(doc.k, doc.v); }", "_sum"))
    arrays = [{"k": 1, "v": [1, 2]}, {"k": 1, "v": [10, 20, 30]}]
    database.bulk([*arrays, {"k": 2, "v": {"a": 1}}, {"k": 2, "v": {"a": 2, "b": 5}}])
    assert rows(database, "sum", group=True) == [
        {"key": 1, "value": [11, 22, 30]},
        {"key": 2, "value": {"a": 3, "b": 5}},
    ]


def test_group_level(hundred: Any) -> None:
    assert rows(hundred, "pair", group_level=1, limit=2) == [{"key": [0], "value": 45}, {"key": [1], "value": 145}]
    assert rows(hundred, "pair", group_level=2, limit=1) == [{"key": [0, 0], "value": 0}]
    assert rows(hundred, "pair", group=True, skip=99) == [{"key": [9, 99], "value": 99}]
    assert rows(hundred, "pair", group_level=1, descending=True, limit=1) == [{"key": [9], "value": 945}]
    assert rows(hundred, "pair", group_level=1, startkey=[3, 35], endkey=[4, 41]) == [
        {"key": [3], "value": 185}, {"key": [4], "value": 81},
    ]  # fmt: skip
    assert len(rows(hundred, "pair", group_level=0)) == 1


def test_keys_of_different_lengths_group_by_what_they_have(database: Any) -> None:
    design(database, keys=("function (doc) { emit(doc.k, 1); }", "_count"))
    database.bulk([{"k": key} for key in (["a"], ["a", 1], ["a", 1, 2], ["b"], "c", ["a", 1])])
    assert [(row["key"], row["value"]) for row in rows(database, "keys", group_level=2)] == [
        ("c", 1), (["a"], 1), (["a", 1], 3), (["b"], 1),
    ]  # fmt: skip
    assert [(row["key"], row["value"]) for row in rows(database, "keys", group_level=1)] == [
        ("c", 1), (["a"], 4), (["b"], 1),
    ]  # fmt: skip


def test_reduce_by_keys(hundred: Any) -> None:
    assert rows(hundred, "byg", {"keys": [5, 1]}, group=True) == [{"key": 5, "value": 10}, {"key": 1, "value": 10}]


def test_reduce_of_nothing(hundred: Any) -> None:
    assert rows(hundred, "byg", key=1000, group=True) == []
    assert rows(hundred, "byg", limit=0, group=True) == []


def test_reduce_can_be_left_out(hundred: Any) -> None:
    answer = view(hundred, "byg", reduce=False, limit=1).json()
    assert answer["total_rows"] == 100
    assert answer["rows"] == [{"id": "000", "key": 0, "value": 0}]
    assert "total_rows" not in view(hundred, "byg").json()


def test_javascript_reduce_with_rereduce(database: Any) -> None:
    reduce = """function (keys, values, rereduce) {
        var numbers = values.map(function (v) { return rereduce ? v.top : v; });
        var count = rereduce ? sum(values.map(function (v) { return v.n; })) : keys.length;
        return {n: count, top: Math.max.apply(null, numbers)};
    }"""
    design(database, top=("function (doc) { emit(doc.g, doc.n); }", reduce))
    fill(database, 1000)
    assert rows(database, "top") == [{"key": None, "value": {"n": 1000, "top": 999}}]
    assert rows(database, "top", group=True, limit=1) == [{"key": 0, "value": {"n": 10, "top": 9}}]
    assert rows(database, "top", startkey=1, endkey=2) == [{"key": None, "value": {"n": 20, "top": 29}}]


# Freshness


def test_update_false_answers_from_the_index_as_it_is(database: Any) -> None:
    design(database, byn="function (doc) { emit(doc.n, null); }")
    database.save({"_id": "a", "n": 1})
    assert len(rows(database, "byn")) == 1
    database.save({"_id": "b", "n": 2})
    # A server may have brought the index up to date by itself in the meantime.
    assert len(rows(database, "byn", update="false")) in (1, 2)
    assert len(rows(database, "byn", stale="ok")) in (1, 2)
    assert len(rows(database, "byn", update="true")) == 2


@pytest.mark.parametrize("params", [{"update": "lazy"}, {"stale": "update_after"}])
def test_lazy_updates_after_the_answer(database: Any, params: dict[str, Any]) -> None:
    design(database, byn="function (doc) { emit(doc.n, null); }")
    database.save({"_id": "a", "n": 1})
    assert len(rows(database, "byn")) == 1
    database.save({"_id": "b", "n": 2})
    rows(database, "byn", **params)
    assert eventually(lambda: len(rows(database, "byn", update="false")) == 2)


def test_update_seq(database: Any) -> None:
    design(database, byn=("function (doc) { emit(doc.n, null); }", "_count"))
    assert isinstance(view(database, "byn", update_seq=True).json()["update_seq"], str)
    assert isinstance(view(database, "byn", update_seq=True, reduce=False).json()["update_seq"], str)
    assert "update_seq" not in view(database, "byn").json()


def test_a_copied_design_document_answers_the_same(hundred: Any) -> None:
    before = hundred.get("/_design/test/_info").json()["view_index"]["signature"]
    assert rows(hundred, "byg")[0]["value"] == 100
    copied = hundred.request("COPY", "/_design/test", headers={"Destination": "_design/other"})
    assert copied.status_code == 201
    info = hundred.get("/_design/other/_info").json()
    assert info["name"] == "other"
    assert info["view_index"]["signature"] == before
    found = hundred.get("/_design/other/_view/byg", params={"update": "false"})
    assert found.json()["rows"] == [{"key": None, "value": 100}]


def test_cleanup_keeps_what_is_in_use(hundred: Any) -> None:
    assert len(rows(hundred, "byn")) == 100
    answer = hundred.post("/_view_cleanup", headers={"Content-Type": "application/json"})
    assert answer.status_code == 202
    assert answer.json() == {"ok": True}
    assert len(rows(hundred, "byn", update="false")) == 100


# Errors


def refused(answer: requests.Response, error: str = "query_parse_error", status: int = 400) -> None:
    assert answer.status_code == status, answer.text
    assert answer.json()["error"] == error
    assert answer.json()["reason"]


def test_grouping_needs_a_reduce(hundred: Any) -> None:
    refused(view(hundred, "byn", group=True))
    refused(view(hundred, "byn", group_level=1))
    refused(view(hundred, "byn", reduce=True))
    refused(view(hundred, "byg", reduce=False, group=True))


def test_reduces_have_no_documents(hundred: Any) -> None:
    refused(view(hundred, "byg", include_docs=True))
    assert view(hundred, "byg", include_docs=True, reduce=False, limit=1).status_code == 200


def test_several_keys_need_group(hundred: Any) -> None:
    refused(view(hundred, "byg", {"keys": [1, 2]}))
    refused(view(hundred, "pair", {"keys": [[1, 10], [1, 11]]}, group_level=1))


def test_a_list_of_one_key_is_that_key(hundred: Any) -> None:
    assert rows(hundred, "byg", {"keys": [3]}) == [{"key": None, "value": 10}]
    assert rows(hundred, "byg", keys=[3]) == [{"key": None, "value": 10}]
    assert rows(hundred, "pair", {"keys": [[1, 10]]}, group_level=1) == [{"key": [1], "value": 10}]
    assert rows(hundred, "byg", {"keys": [3]}, group=True) == [{"key": 3, "value": 10}]
    assert [row["key"] for row in rows(hundred, "byn", {"keys": [3]})] == [3]


def test_keys_exclude_ranges(hundred: Any) -> None:
    refused(view(hundred, "byn", {"keys": [1, 2]}, startkey=1))


def test_a_range_upside_down(hundred: Any) -> None:
    answer = view(hundred, "byn", startkey=2, endkey=1)
    refused(answer)
    assert answer.json()["reason"].startswith("No rows can match your key range")
    refused(view(hundred, "byn", startkey=1, endkey=2, descending=True))


@pytest.mark.parametrize(
    "query", ["limit=-1", "limit=x", "skip=-1", "descending=maybe", "group_level=-1", "update=sometimes", "stale=yes"]
)
def test_values_that_do_not_fit(hundred: Any, query: str) -> None:
    refused(hundred.get(f"/_design/test/_view/byg?{query}"))


def test_keys_that_are_no_json(hundred: Any) -> None:
    refused(hundred.get("/_design/test/_view/byn?startkey=foo"), "bad_request")


def test_no_such_view_or_design_document(hundred: Any) -> None:
    refused(view(hundred, "nothing"), "not_found", 404)
    refused(hundred.get("/_design/nothing/_view/x"), "not_found", 404)


def test_bodies_that_are_wrong(hundred: Any) -> None:
    refused(hundred.post("/_design/test/_view/byn", json={"keys": 1}), "bad_request")
    refused(hundred.post("/_design/test/_view/byn", json=[]), "bad_request")
    answer = hundred.post("/_design/test/_view/byn", data="{}", headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415


def test_temporary_views_are_gone(database: Any) -> None:
    answer = database.post("/_temp_view", json={"map": "function (doc) { emit(null, null); }"})
    refused(answer, "gone", 410)


def test_a_map_that_never_ends_answers_an_error_and_others_go_on(database: Any) -> None:
    database.save({"_id": "_design/endless", "views": {"v": {"map": "function (doc) { while (true) {} }"}}})
    design(database, byn="function (doc) { emit(doc.n, null); }")
    database.save({"_id": "a", "n": 1})
    assert database.get("/_design/endless/_view/v", timeout=60).status_code == 500
    assert len(rows(database, "byn")) == 1
