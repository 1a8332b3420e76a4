"""The order of JSON values: CouchDB's documented order, and the properties that the index builds on."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestrator.embedded.collation import compare, prefix, sort_key

numbers = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.integers(-5, 5))
ascii_text = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=6)
scalars = st.one_of(st.none(), st.booleans(), numbers, ascii_text, st.text(max_size=6))
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ascii_text, inner, max_size=3), max_leaves=8
)

ORDER: list[Any] = [
    None, False, True,
    -(10**400), -1e308, -(2**63), -5, -2.5, -2, -1e-300, 0, 5e-324, 1e-300, 1, 1.5, 2, 3.0, 4,
    2**53 - 1, 2**53, 2**53 + 1, 2**53 + 2, 2**64, 2**64 + 1, 1e30, 1.7976931348623157e308,
    2**1024, 10**400, 10**400 + 1,
    "", "a", "A", "aa", "aA", "Aa", "AA", "ab", "b", "B", "ba", "bb",
    [], [None], ["a"], ["b"], ["b", "c"], ["b", "c", "a"], ["b", "d"], ["b", "d", "e"], [[]], [{}],
    {}, {"a": 1}, {"a": 2}, {"b": 1}, {"b": 2}, {"b": 2, "a": 1}, {"b": 2, "c": 2},
]  # fmt: skip


def reference(first: Any, second: Any) -> int:
    """CouchDB's order written down plainly, for ASCII text: letters first by letter, then by case."""

    def rank(value: Any) -> int:
        if value is None:
            return 0
        if isinstance(value, bool):
            return 2 if value else 1
        kinds: list[type | tuple[type, ...]] = [(int, float), str, list, dict]
        return 3 + next(index for index, kind in enumerate(kinds) if isinstance(value, kind))

    def sign(left: Any, right: Any) -> int:
        return (left > right) - (left < right)

    if rank(first) != rank(second):
        return sign(rank(first), rank(second))
    if isinstance(first, (bool, type(None))):
        return 0
    if isinstance(first, (int, float)):
        return sign(first, second)
    if isinstance(first, str):
        order = " _-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$0123456789abcdefghijklmnopqrstuvwxyz"
        letters = sign([order.index(c) for c in first.lower()], [order.index(c) for c in second.lower()])
        return letters or sign([c.isupper() for c in first], [c.isupper() for c in second])
    if isinstance(first, dict):
        first = [part for pair in first.items() for part in pair]
        second = [part for pair in second.items() for part in pair]
    for left, right in zip(first, second, strict=False):
        found = reference(left, right)
        if found:
            return found
    return sign(len(first), len(second))


def test_the_documented_order() -> None:
    keys = [sort_key(value) for value in ORDER]
    for place in range(len(keys) - 1):
        assert keys[place] < keys[place + 1], (ORDER[place], ORDER[place + 1])


def test_the_order_of_ascii() -> None:
    order = "\t\n\x0b\x0c\r _-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$0123456789"
    order += "".join(letter + letter.upper() for letter in "abcdefghijklmnopqrstuvwxyz")
    mixed = list(order)[::-1]
    assert sorted(mixed, key=sort_key) == list(order)


@pytest.mark.parametrize(
    "words",
    [
        ["cote", "Cote", "coté", "Coté", "cotz"],
        ["ae", "æ", "af"],
        ["o", "ö", "ø", "oo", "p"],
        ["ss", "ß", "st"],
        ["z", "α", "β", "я", "あ", "漢", "\ufff0"],
        ["1", "１", "2"],
        ["a", "a\ufff0", "b"],
        ["ж", "Ж", "з"],
        ["", "\u0000a", "b"],
        ["x", "\ud800"],
    ],
)
def test_text_beyond_ascii(words: list[str]) -> None:
    mixed = words[::-1]
    assert sorted(mixed, key=sort_key) == words


def test_what_is_one_key() -> None:
    assert sort_key(1) == sort_key(1.0)
    assert sort_key(0) == sort_key(-0.0)
    assert sort_key("e\u0301") == sort_key("\u00e9")
    assert sort_key("a\u0001b") == sort_key("ab")


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes"])
def test_what_is_no_json(value: object) -> None:
    with pytest.raises(TypeError, match="not a JSON value"):
        sort_key([value])


def test_not_a_number_raises_nothing() -> None:
    assert sort_key(math.nan) == sort_key(0)
    assert sort_key(1e308) < sort_key(math.inf)


ascii_values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, ascii_text),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ascii_text, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(ascii_values, ascii_values)
@example([1, "a"], [1, "a", None])
@example({"a": 1}, {"a": 1, "b": 2})
@example([-1], [-1, 0])
def test_the_order_is_the_reference_order(first: Any, second: Any) -> None:
    assert compare(first, second) == reference(first, second)


@settings(max_examples=200, deadline=None)
@given(numbers, numbers)
def test_numbers_compare_by_value(first: float, second: float) -> None:
    assert compare(first, second) == (first > second) - (first < second)


@settings(max_examples=200, deadline=None)
@given(values, values)
def test_no_key_is_the_beginning_of_another(first: Any, second: Any) -> None:
    left, right = sort_key(first), sort_key(second)
    assert left == right or not right.startswith(left)


@settings(max_examples=200, deadline=None)
@given(st.lists(values, max_size=4), st.integers(1, 4))
def test_a_key_is_cut_where_an_element_ends(elements: list[Any], level: int) -> None:
    cut = prefix(sort_key(elements), level)
    if level <= len(elements):
        assert sort_key(elements[:level]) == cut + b"\0"
        assert sort_key([*elements[:level], "more"]).startswith(cut)
    else:
        assert cut == sort_key(elements)


@given(scalars)
def test_what_is_no_array_is_its_own_group(value: Any) -> None:
    assert prefix(sort_key(value), 2) == sort_key(value)
    assert prefix(sort_key(value), 0) == b""
