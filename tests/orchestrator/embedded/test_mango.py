"""Mango: selectors against an evaluator of their own, and indexes that must change no answer."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.embedded import documents, mango, mango_index
from orchestrator.embedded.collation import compare
from orchestrator.embedded.javascript import DesignFunctions
from orchestrator.embedded.mango_normal import SelectorError, get_field, normalize, parse_field
from orchestrator.embedded.mango_selector import compile_selector, json_type
from orchestrator.embedded.store import Store
from orchestrator.embedded.views import Views

MISSING = object()

scalars = st.none() | st.booleans() | st.integers(-2, 3) | st.sampled_from([0.5, "a", "B", "b", ""])
values = scalars | st.lists(scalars, max_size=2) | st.fixed_dictionaries({}, optional={"c": scalars, "d": scalars})
docs = st.fixed_dictionaries({}, optional={"a": values, "b": values})
comparisons = st.sampled_from(["$eq", "$ne", "$lt", "$lte", "$gt", "$gte"])
conditions = st.one_of(
    st.tuples(comparisons, values),
    st.tuples(st.sampled_from(["$in", "$nin", "$all"]), st.lists(scalars, max_size=3)),
    st.tuples(st.just("$exists"), st.booleans()),
    st.tuples(st.just("$type"), st.sampled_from(["null", "boolean", "number", "string", "array", "object"])),
    st.tuples(st.just("$size"), st.integers(0, 2)),
    st.tuples(st.just("$mod"), st.sampled_from([[2, 0], [2, 1], [3, -1]])),
    st.tuples(st.just("$beginsWith"), st.sampled_from(["", "a", "b"])),
).map(lambda pair: {pair[0]: pair[1]})
fields = st.sampled_from(["a", "b", "a.c", "b.d", "a.0"])
simple = st.tuples(fields, conditions).map(lambda pair: {pair[0]: pair[1]})
selectors = st.recursive(
    simple,
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["$and", "$or", "$nor"]), st.lists(inner, min_size=1, max_size=3)).map(
            lambda pair: {pair[0]: pair[1]}
        ),
        inner.map(lambda selector: {"$not": selector}),
    ),
    max_leaves=5,
)


def reach(doc: Any, path: list[str]) -> Any:
    """The value at a path; MISSING if a name is not there, None for a path through something else."""
    for name in path:
        if isinstance(doc, dict):
            if name not in doc:
                return MISSING
            doc = doc[name]
        elif isinstance(doc, list) and name.isdigit() and int(name) < len(doc):
            doc = doc[int(name)]
        else:
            return ...
    return doc


def holds(selector: dict[str, Any], doc: Any, wanted: bool = True) -> bool:
    """Whether a selector, or its negation, holds: straight from CouchDB's description, without a normal form."""
    ((name, argument),) = selector.items()
    if name == "$not":
        return holds(argument, doc, not wanted)
    if name in ("$and", "$or", "$nor"):
        if name == "$nor":
            wanted = not wanted
        parts = [holds(part, doc, wanted) for part in argument]
        return all(parts) if (name == "$and") is wanted else any(parts)
    value = reach(doc, name.split("."))
    ((operator, operand),) = argument.items()
    if operator == "$exists":
        return value is not MISSING and value is not ... if operand is wanted else value is MISSING
    if value is MISSING or value is ...:
        return False
    return check(operator, operand, value) is wanted


def check(operator: str, operand: Any, value: Any) -> bool:
    order = compare(value, operand)
    if operator in ("$in", "$nin"):
        among = value if isinstance(value, list) else [value]
        inside = any(compare(one, other) == 0 for one in among for other in operand)
        return inside is (operator == "$in")
    if operator == "$all":
        if not isinstance(value, list) or not operand:
            return False
        return all(any(compare(one, other) == 0 for one in value) for other in operand)
    if operator == "$mod":
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole and value - operand[0] * int(value / operand[0]) == operand[1]
    plain = {
        "$eq": order == 0, "$ne": order != 0, "$lt": order < 0, "$lte": order <= 0, "$gt": order > 0,
        "$gte": order >= 0,
        "$type": json_type(value) == operand,
        "$size": isinstance(value, list) and len(value) == operand,
        "$beginsWith": isinstance(value, str) and isinstance(operand, str) and value.startswith(operand),
    }  # fmt: skip
    return bool(plain[operator])


@settings(max_examples=400, deadline=None)
@given(selectors, docs)
def test_a_selector_matches_what_the_evaluator_says(selector: dict[str, Any], doc: dict[str, Any]) -> None:
    assert compile_selector(selector)(doc) is holds(selector, doc)


@settings(max_examples=100, deadline=None)
@given(selectors)
def test_normal_form_is_its_own_normal_form(selector: dict[str, Any]) -> None:
    normal = normalize(selector)
    assert normalize(normal) == normal


def test_normal_form() -> None:
    assert normalize({"a": 1}) == {"a": {"$eq": 1}}
    assert normalize({"a": {"b": {"$gt": 1}}, "c": 2}) == {"$and": [{"a.b": {"$gt": 1}}, {"c": {"$eq": 2}}]}
    negated = {"$not": {"$and": [{"a": {"$lt": 1}}, {"b": 2}]}}
    assert normalize(negated) == {"$or": [{"a": {"$gte": 1}}, {"b": {"$ne": 2}}]}
    assert normalize({"a": {"$not": {"$regex": "x"}}}) == {"a": {"$not": {"$regex": "x"}}}
    assert normalize({}) == {}


@pytest.mark.parametrize(
    ("selector", "error"),
    [
        ([], "invalid_selector_json"), ({"a": {"$x": 1}}, "invalid_operator"), ({"$gt": 1}, "invalid_selector"),
        ({"$and": {}}, "bad_arg"), ({"a": {"$mod": [0, 1]}}, "bad_arg"), ({"a": {"$where": "x"}}, "not_supported"),
        ({"a": {"$regex": "["}}, "bad_arg"), ({"$text": "x"}, "no_usable_index"), ({"a..b": 1}, "invalid_field_name"),
    ],
)  # fmt: skip
def test_what_is_no_selector(selector: Any, error: str) -> None:
    with pytest.raises(SelectorError) as caught:
        compile_selector(selector)
    assert caught.value.error == error


@pytest.mark.parametrize("pattern", ["(a+)+b", "(a*)*", "(aa|aa)*b", "(a|ab)*", "((x+)y?)*z", r"(\w+\s?)+$"])
def test_patterns_that_could_take_for_ever_are_refused(pattern: str) -> None:
    with pytest.raises(SelectorError, match="endless"):
        compile_selector({"a": {"$regex": pattern}})


@pytest.mark.parametrize("pattern", ["^ma[0-9]+_", "a.*b.*c", "(foo|bar)+", "(abc)*d", "x{3}", "(?i)ROOT$", "a|ab"])
def test_usual_patterns_are_taken(pattern: str) -> None:
    compile_selector({"a": {"$regex": pattern}})


def test_fields() -> None:
    assert parse_field("a.b\\.c.d") == ["a", "b.c", "d"]
    assert get_field({"a": [{"b": 5}]}, "a.0.b") == 5
    assert get_field({"a": 1}, "a.b", "none") == "none"
    assert get_field({"a": None}, "a", "none") is None


# Indexes


def write(db: Any, many: list[dict[str, Any]]) -> None:
    db.write([documents.draft(doc) for doc in many], user={"name": None, "roles": ["_admin"]})


@settings(max_examples=25, deadline=None)
@given(
    st.lists(docs, min_size=3, max_size=12),
    st.lists(selectors, min_size=4, max_size=8),
    st.sampled_from([["a"], ["b", "a"], ["a.c"], ["a", "b"]]),
)
def test_an_index_changes_no_answer(made: list[dict[str, Any]], asked: list[Any], names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "data")
        views = Views(DesignFunctions)
        db = store.create("d")
        write(db, [{"_id": f"d{number:02d}", **doc} for number, doc in enumerate(made)])
        before = [mango.find(views, db, {"selector": selector, "limit": 100})["docs"] for selector in asked]
        mango.create_index(db, {"index": {"fields": names}})
        for selector, expected in zip(asked, before, strict=True):
            answer = mango.find(views, db, {"selector": selector, "limit": 100})["docs"]
            assert sorted(doc["_id"] for doc in answer) == [doc["_id"] for doc in expected]
            pages: list[str] = []
            bookmark = None
            while True:
                page = mango.find(views, db, {"selector": selector, "limit": 3, "bookmark": bookmark})
                pages += [doc["_id"] for doc in page["docs"]]
                bookmark = page["bookmark"]
                if len(page["docs"]) < 3:
                    break
            assert pages == [doc["_id"] for doc in answer]
        views.close()
        store.close()


def test_more_documents_than_are_fetched_at_once(store: Store) -> None:
    db, views = store.create("d"), Views(DesignFunctions)
    count = 2 * mango.BATCH + 7
    write(db, [{"_id": f"d{number:04d}", "n": number} for number in range(count)])
    wanted = [f"d{number:04d}" for number in range(count)]

    def ask(**more: Any) -> list[str]:
        request = {"selector": {"n": {"$gte": 0}}, "limit": 10_000, **more}
        return [doc["_id"] for doc in mango.find(views, db, request)["docs"]]

    assert ask() == wanted
    assert ask(selector={"_id": {"$gte": "d"}}, sort=[{"_id": "desc"}]) == wanted[::-1]
    mango.create_index(db, {"index": {"fields": ["n"]}})
    assert ask(sort=["n"]) == wanted
    assert ask(sort=[{"n": "desc"}]) == wanted[::-1]
    views.close()


def test_an_index_reads_only_its_range(store: Store) -> None:
    db, views = store.create("d"), Views(DesignFunctions)
    write(db, [{"_id": f"d{number:04d}", "n": number, "m": number % 7} for number in range(300)])
    mango.create_index(db, {"index": {"fields": ["n"]}})
    request = {"selector": {"n": {"$gt": 100, "$lte": 120}, "m": 3}, "execution_stats": True}
    stats = mango.find(views, db, request)["execution_stats"]
    assert stats["total_docs_examined"] == 21
    assert stats["results_returned"] == 3
    views.close()


def test_ranges() -> None:
    def bounds(selector: dict[str, Any]) -> Any:
        return mango_index.range_of(normalize(selector), "a")

    assert bounds({"b": 1}) is None
    found = bounds({"a": {"$gt": 1, "$lt": 5, "$gte": 0}})
    assert (found.low, found.high, found.empty) == ((1,), (5,), False)
    assert bounds({"a": {"$gt": 5, "$lt": 1}}).empty
    assert bounds({"a": {"$gt": 1, "$lte": 1}}).empty
    assert not bounds({"a": {"$gte": 1, "$lte": 1}}).empty
    assert bounds({"$or": [{"a": 1}, {"a": 2}]}) is None
    assert mango_index.required(normalize({"a": 1, "$or": [{"b": 1, "c": 1}, {"b": 2}]})) == {"a", "b"}


def test_a_design_document_of_another_language_is_not_touched(store: Store) -> None:
    db = store.create("d")
    write(db, [{"_id": "_design/x", "views": {}}])
    with pytest.raises(SelectorError, match="invalid language"):
        mango.create_index(db, {"index": {"fields": ["n"]}, "ddoc": "x"})
    for kind in ("text", "nouveau"):
        with pytest.raises(mango_index.Problem) as caught:
            mango.create_index(db, {"index": {"fields": ["n"]}, "type": kind})
        assert caught.value.status == 501
