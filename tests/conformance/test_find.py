"""Mango: ``_find``, ``_index`` and ``_explain``."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from .conftest import eventually

PEOPLE = [
    {"_id": "ada", "name": {"first": "Ada", "last": "L."}, "age": 36, "tags": ["x", "y"], "city": "London"},
    {"_id": "bob", "name": {"first": "Bob"}, "age": 25, "tags": ["y"], "city": "Paris"},
    {"_id": "cyn", "name": {"first": "Cyn"}, "age": 41, "tags": [], "city": None, "dotted.name": 1},
    {"_id": "dan", "name": {"first": "Dan"}, "age": "unknown", "points": [{"n": 1}, {"n": 8}]},
    {"_id": "eve", "name": "Eve", "age": 25.5, "tags": ["x", "y", "z"], "map": {"alpha": 1, "beta": 2}, "empty": {}},
]


@pytest.fixture
def people(database: Any) -> Any:
    database.bulk(PEOPLE)
    return database


def find(database: Any, selector: Any, **more: Any) -> requests.Response:
    return database.post("/_find", json={"selector": selector, **more})


def ids(database: Any, selector: Any, **more: Any) -> list[str]:
    answer = find(database, selector, **more)
    assert answer.status_code == 200, answer.text
    return [doc["_id"] for doc in answer.json()["docs"]]


def index(database: Any, fields: list[Any], **more: Any) -> dict[str, Any]:
    definition = {"fields": fields}
    if "partial_filter_selector" in more:
        definition["partial_filter_selector"] = more.pop("partial_filter_selector")
    answer = database.post("/_index", json={"index": definition, **more})
    assert answer.status_code == 200, answer.text
    made: dict[str, Any] = answer.json()
    assert eventually(lambda: is_listed(database, made["id"], made["name"]))
    return made


def is_listed(database: Any, ddoc: str, name: str) -> bool:
    """Whether the server knows of an index: it keeps its list of them, and makes a new one a moment later."""
    return any((one["ddoc"], one["name"]) == (ddoc, name) for one in database.get("/_index").json()["indexes"])


# Selectors


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ({}, "ada bob cyn dan eve"),
        ({"age": 25}, "bob"),
        ({"age": {"$eq": 41}}, "cyn"),
        ({"age": {"$ne": 25}}, "ada cyn dan eve"),
        ({"age": {"$gt": 25, "$lt": 41}}, "ada eve"),
        ({"age": {"$gte": 25, "$lte": 25.5}}, "bob eve"),
        ({"age": {"$gt": 40}}, "cyn dan"),  # a string is greater than every number
        ({"age": {"$gt": None}}, "ada bob cyn dan eve"),
        ({"city": None}, "cyn"),
        ({"city": {"$exists": True}}, "ada bob cyn"),
        ({"city": {"$exists": False}}, "dan eve"),
        ({"city": {"$ne": "Paris"}}, "ada cyn"),  # not where the field is missing
        ({"city": {"$type": "null"}}, "cyn"),
        ({"age": {"$type": "string"}}, "dan"),
        ({"age": {"$type": "number"}}, "ada bob cyn eve"),
        ({"name": {"$type": "object"}}, "ada bob cyn dan"),
        ({"tags": {"$type": "array"}}, "ada bob cyn eve"),
        ({"age": {"$in": [25, "unknown"]}}, "bob dan"),
        ({"age": {"$nin": [25, "unknown"]}}, "ada cyn eve"),
        ({"tags": {"$in": ["z", "x"]}}, "ada eve"),
        ({"tags": {"$all": ["x", "y"]}}, "ada eve"),
        ({"tags": {"$size": 0}}, "cyn"),
        ({"tags": {"$elemMatch": {"$eq": "z"}}}, "eve"),
        ({"points": {"$elemMatch": {"n": {"$gt": 5}}}}, "dan"),
        ({"points": {"$allMatch": {"n": {"$gt": 5}}}}, ""),
        ({"points": {"$allMatch": {"n": {"$gte": 1}}}}, "dan"),
        ({"tags": {"$allMatch": {"$eq": "y"}}}, "bob"),
        ({"map": {"$keyMapMatch": {"$eq": "beta"}}}, "eve"),
        ({"age": {"$mod": [5, 0]}}, "bob"),
        ({"city": {"$regex": "^P.*s$"}}, "bob"),
        ({"city": {"$beginsWith": "Lon"}}, "ada"),
        ({"name.first": "Bob"}, "bob"),
        ({"name": {"first": "Bob"}}, "bob"),
        ({"name": {"first": {"$gt": "Bob"}}}, "cyn dan"),
        ({"dotted\\.name": 1}, "cyn"),
        ({"tags.0": "y"}, "bob"),
        ({"points.1.n": 8}, "dan"),
        ({"empty": {}}, "eve"),
        ({"_id": {"$gt": "cyn"}}, "dan eve"),
        ({"$or": [{"age": 25}, {"city": "London"}]}, "ada bob"),
        ({"$and": [{"age": {"$gt": 30}}, {"age": {"$lt": 40}}]}, "ada"),
        ({"$nor": [{"age": 25}, {"age": 36}]}, "cyn dan eve"),
        ({"$not": {"age": {"$gt": 25}}}, "bob"),
        ({"age": {"$not": {"$lt": 41}}}, "cyn dan"),
        ({"age": {"$or": [{"$lt": 26}, {"$gt": 40}]}}, "bob cyn dan eve"),
        ({"age": {"$gt": 30}, "city": "London"}, "ada"),
        ({"tags": ["y"]}, "bob"),
        ({"nothing": {"$ne": 1}}, ""),
    ],
)
def test_operators(people: Any, selector: Any, expected: str) -> None:
    assert ids(people, selector) == expected.split()


@pytest.mark.parametrize(
    "selector",
    [
        None, True, 1, "text", [], {"age": {"$nonsense": 1}}, {"$gt": 5}, {"$and": 1}, {"$or": {"a": 1}},
        {"age": {"$in": 5}}, {"age": {"$exists": "yes"}}, {"age": {"$mod": [1]}}, {"age": {"$size": -1}},
        {"age": {"$regex": "("}}, {"age": {"$elemMatch": 5}}, {"age": {"$type": 1}},
    ],
)  # fmt: skip
def test_selectors_that_are_none(people: Any, selector: Any) -> None:
    assert find(people, selector).status_code == 400


def test_design_documents_are_not_found(people: Any) -> None:
    people.save({"_id": "_design/x", "age": 25})
    assert ids(people, {"age": 25}) == ["bob"]


# Answers


def test_fields(people: Any) -> None:
    answer = find(people, {"_id": "ada"}, fields=["_id", "name.first", "missing"]).json()
    assert answer["docs"] == [{"_id": "ada", "name": {"first": "Ada"}}]


def test_limit_and_skip(people: Any) -> None:
    assert ids(people, {}, limit=2) == ["ada", "bob"]
    assert ids(people, {}, limit=2, skip=3) == ["dan", "eve"]
    assert ids(people, {}, limit=0) == []


def test_the_limit_is_25_by_default(database: Any) -> None:
    database.bulk([{"_id": f"{number:03d}", "n": number} for number in range(40)])
    assert len(ids(database, {"n": {"$gte": 0}})) == 25


@pytest.mark.parametrize("indexed", [False, True])
def test_bookmarks_lead_through_everything(database: Any, indexed: bool) -> None:
    database.bulk([{"_id": f"{number:03d}", "n": number // 4} for number in range(50)])
    if indexed:
        index(database, ["n"])
    seen: list[str] = []
    bookmark = None
    for _page in range(20):
        answer = find(database, {"n": {"$gte": 0}}, limit=7, bookmark=bookmark).json()
        seen += [doc["_id"] for doc in answer["docs"]]
        bookmark = answer["bookmark"]
        if not answer["docs"]:
            break
    assert seen == [f"{number:03d}" for number in range(50)]


def test_a_bookmark_that_is_none(people: Any) -> None:
    assert find(people, {}, bookmark="nonsense").status_code == 400


def test_a_warning_where_no_index_helps(people: Any) -> None:
    assert "no matching index found" in find(people, {"age": 25}).json()["warning"].lower()
    index(people, ["age"])
    assert "warning" not in find(people, {"age": 25}).json()


def test_execution_stats(people: Any) -> None:
    stats = find(people, {"age": 25}, execution_stats=True).json()["execution_stats"]
    assert stats["results_returned"] == 1
    assert stats["total_docs_examined"] == 5
    assert stats["execution_time_ms"] > 0
    assert "execution_stats" not in find(people, {"age": 25}).json()


@pytest.mark.parametrize(
    "more",
    [{"limit": -1}, {"limit": "x"}, {"skip": -1}, {"sort": 5}, {"sort": [5]}, {"fields": "name"}, {"fields": [5]},
     {"use_index": 5}, {"conflicts": "x"}, {"nonsense": 1}, {"sort": [{"a": "asc"}, {"b": "desc"}]}],
)  # fmt: skip
def test_parameters_that_do_not_fit(people: Any, more: dict[str, Any]) -> None:
    assert find(people, {"age": 25}, **more).status_code == 400


def test_the_selector_is_needed(people: Any) -> None:
    answer = people.post("/_find", json={"limit": 1})
    assert answer.status_code == 400
    assert answer.json()["error"] == "missing_required_key"


def test_other_methods_and_types(people: Any) -> None:
    assert people.get("/_find").status_code == 405
    assert people.post("/_find", data="{}", headers={"Content-Type": "text/plain"}).status_code == 415


# Sort


def test_sort_needs_an_index(people: Any) -> None:
    answer = find(people, {"age": {"$gt": None}}, sort=["age"])
    assert answer.status_code == 400
    assert answer.json()["error"] == "no_usable_index"


def test_sort_by_an_index(people: Any) -> None:
    index(people, ["age"])
    assert ids(people, {"age": {"$gt": None}}, sort=["age"]) == ["bob", "eve", "ada", "cyn", "dan"]
    assert ids(people, {"age": {"$gt": None}}, sort=[{"age": "desc"}]) == ["dan", "cyn", "ada", "eve", "bob"]
    assert ids(people, {"age": {"$gt": 25}}, sort=[{"age": "desc"}], limit=2) == ["dan", "cyn"]


def test_sort_by_id(people: Any) -> None:
    assert ids(people, {"_id": {"$gt": None}}, sort=[{"_id": "desc"}], limit=2) == ["eve", "dan"]


def test_sort_after_a_constant_field(database: Any) -> None:
    database.bulk([{"_id": str(number), "kind": number % 2, "n": -number} for number in range(8)])
    index(database, ["kind", "n"])
    assert ids(database, {"kind": 1, "n": {"$lt": 0}}, sort=["n"]) == ["7", "5", "3", "1"]


# Indexes


def test_create_list_and_delete(people: Any) -> None:
    made = index(people, ["age", "city"], name="age-city", ddoc="ages")
    assert made == {"result": "created", "id": "_design/ages", "name": "age-city"}
    assert index(people, ["age", "city"], name="age-city", ddoc="ages")["result"] == "exists"
    listed = people.get("/_index").json()
    assert listed["total_rows"] == 2
    special, other = listed["indexes"]
    assert (special["ddoc"], special["name"], special["type"]) == (None, "_all_docs", "special")
    assert (other["ddoc"], other["name"], other["type"]) == ("_design/ages", "age-city", "json")
    assert other["def"]["fields"] == [{"age": "asc"}, {"city": "asc"}]
    ddoc = people.get("/_design/ages").json()
    assert ddoc["language"] == "query"
    assert ddoc["views"]["age-city"]["map"]["fields"] == {"age": "asc", "city": "asc"}
    assert people.delete("/_index/_design/ages/json/nothing").status_code == 404
    assert people.delete("/_index/_design/ages/json/age-city").json() == {"ok": True}
    assert eventually(lambda: not is_listed(people, "_design/ages", "age-city"))
    assert people.get("/_index").json()["total_rows"] == 1
    assert people.get("/_design/ages").status_code == 404


def test_names_are_made_up_where_none_is_given(people: Any) -> None:
    made = index(people, ["age"])
    assert made["id"].startswith("_design/")
    assert index(people, ["age"])["result"] == "exists"


@pytest.mark.parametrize(
    "fields", [None, True, "age", 2.0, {"age": "asc"}, [{"age": 2}], [{"age": "asc"}, {"n": "desc"}], [""]]
)
def test_index_fields_that_are_none(people: Any, fields: Any) -> None:
    assert people.post("/_index", json={"index": {"fields": fields}}).status_code == 400


def test_bad_index_requests(people: Any) -> None:
    assert people.post("/_index", json={}).status_code == 400
    assert people.post("/_index", json={"index": {"fields": ["age"]}, "type": "none-such"}).status_code == 400
    assert people.post("/_index", json={"index": {"fields": ["age"]}, "name": 5}).status_code == 400


@pytest.mark.parametrize(
    "selector",
    [
        {"age": {"$gt": 25}}, {"age": 25}, {"age": {"$gte": 25, "$lt": 36}}, {"age": {"$lt": 0}},
        {"age": {"$gt": None}}, {"age": {"$lte": "unknown"}}, {"age": {"$gt": 5, "$lt": 2}}, {"age": {"$exists": True}},
        {"age": {"$gt": 20}, "city": {"$gt": None}}, {"$or": [{"age": 25}, {"age": 36}]}, {"age": {"$ne": 25}},
    ],
)  # fmt: skip
def test_an_index_changes_no_answer(people: Any, selector: Any) -> None:
    before = ids(people, selector)
    index(people, ["age"])
    index(people, ["age", "city"])
    assert sorted(ids(people, selector)) == sorted(before)


def test_an_index_follows_the_documents(people: Any) -> None:
    index(people, ["age"])
    assert ids(people, {"age": {"$lt": 30}}) == ["bob", "eve"]
    people.save({"_id": "fay", "age": 20})
    rev = people.get("/bob").json()["_rev"]
    assert people.delete("/bob", params={"rev": rev}).status_code == 200
    assert ids(people, {"age": {"$lt": 30}}) == ["fay", "eve"]


def test_documents_without_a_field_are_found_all_the_same(people: Any) -> None:
    index(people, ["city", "age"])
    # ``dan`` has no city: an index that holds only documents with a city must not be used
    assert ids(people, {"age": "unknown"}) == ["dan"]


def test_partial_index(people: Any) -> None:
    partial = {"age": {"$type": "number"}}
    index(people, ["name.first"], ddoc="numbers", partial_filter_selector=partial)
    selector = {"name.first": {"$gt": None}}
    assert ids(people, selector, use_index="numbers") == ["ada", "bob", "cyn"]
    # not chosen unless it is asked for
    assert ids(people, selector) == ["ada", "bob", "cyn", "dan"]


def test_use_index_that_does_not_fit(people: Any) -> None:
    index(people, ["city", "age"], ddoc="wide")
    answer = find(people, {"age": 25}, use_index="wide").json()
    assert [doc["_id"] for doc in answer["docs"]] == ["bob"]
    assert "_design/wide was not used" in answer["warning"]


# Explain


def explain(database: Any, selector: Any, **more: Any) -> dict[str, Any]:
    answer = database.post("/_explain", json={"selector": selector, **more})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_explain(people: Any) -> None:
    assert explain(people, {"age": 25})["index"]["type"] == "special"
    index(people, ["age"], name="by-age", ddoc="ages")
    found = explain(people, {"age": {"$gt": 25}}, limit=3, skip=1, fields=["_id"])
    assert found["index"]["name"] == "by-age"
    assert found["index"]["ddoc"] == "_design/ages"
    assert found["selector"] == {"age": {"$gt": 25}}
    assert (found["limit"], found["skip"], found["fields"]) == (3, 1, ["_id"])
    assert found["dbname"].endswith(people.name)
    assert found["mrargs"]["start_key"] == [25]
    assert found["mrargs"]["end_key"] == ["<MAX>"]
    assert found["mrargs"]["direction"] == "fwd"


def test_explain_shows_the_selector_in_normal_form(people: Any) -> None:
    assert explain(people, {"a": 1, "b": {"c": {"$gt": 2}}})["selector"] == {
        "$and": [{"a": {"$eq": 1}}, {"b.c": {"$gt": 2}}]
    }
    assert explain(people, {"$not": {"a": {"$lt": 1}}})["selector"] == {"a": {"$gte": 1}}


def test_the_index_with_more_of_the_selector_is_chosen(people: Any) -> None:
    index(people, ["age"], ddoc="one")
    index(people, ["age", "city"], ddoc="two")
    assert explain(people, {"age": 25})["index"]["ddoc"] == "_design/one"
    assert explain(people, {"age": 25, "city": "Paris"})["index"]["ddoc"] == "_design/two"
    assert explain(people, {"age": 25, "city": "Paris"}, use_index="one")["index"]["ddoc"] == "_design/one"
