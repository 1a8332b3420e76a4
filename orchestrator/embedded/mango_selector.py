"""Mango selectors, compiled to one Python function that says whether a document matches.

Points that surprise and are CouchDB's: a condition on a missing field never holds, ``$ne`` and ``$nin`` included
(only ``{"$exists": false}`` does); comparisons follow view collation, so that ``{"$gt": 5}`` holds for every string;
``_id`` compares by bytes. Normal form, and what is no selector at all, is ``mango_normal``'s.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from orchestrator.embedded.collation import sort_key
from orchestrator.embedded.mango_normal import (
    BAD_PATH,
    COMPARISONS,
    MISSING,
    Selector,
    SelectorError,
    descend,
    get_field,
    is_integer,
    normalize,
    parse_field,
)

__all__ = [
    "Selector",
    "SelectorError",
    "compile_normal",
    "compile_selector",
    "get_field",
    "normalize",
    "parse_field",
]

Json = Any
Predicate = Callable[[Any], bool]


def compile_selector(selector: Selector) -> Callable[[dict[str, Any]], bool]:
    """Return a function that says whether a document matches.

    Args:
        selector: as in a request to ``_find``; ``{}`` matches everything.

    Raises:
        SelectorError: the selector is not one.
    """
    return compile_normal(normalize(selector))


def compile_normal(normal: Selector) -> Predicate:
    """Like ``compile_selector``, for a selector in normal form."""
    if not normal:
        return lambda value: True
    ((name, argument),) = normal.items()
    if name == "$and":
        return _all([compile_normal(part) for part in argument])
    if name == "$or":
        return _any([compile_normal(part) for part in argument])
    if name.startswith("$"):
        return _condition(name, argument, False)
    ((operator, operand),) = argument.items()
    test = _condition(operator, operand, name == "_id")
    if name == "":
        return test
    if operator == "$exists" and operand is False:
        path = parse_field(name)
        return lambda value: descend(value, path) is MISSING
    return _at(parse_field(name), test)


def _all(parts: list[Predicate]) -> Predicate:
    if len(parts) == 1:
        return parts[0]
    if len(parts) == 2:
        first, second = parts
        return lambda value: first(value) and second(value)
    return lambda value: all(part(value) for part in parts)


def _any(parts: list[Predicate]) -> Predicate:
    if not parts:  # CouchDB takes an empty list of alternatives for true
        return lambda value: True

    return lambda value: any(part(value) for part in parts)


def _at(path: list[str], test: Predicate) -> Predicate:
    """Apply a test to the value of a field; a field that is missing fails it."""
    if len(path) == 1:
        name = path[0]

        def top(value: Json) -> bool:
            if type(value) is dict:
                found = value.get(name, MISSING)
                return found is not MISSING and test(found)
            found = descend(value, path)
            return found is not MISSING and found is not BAD_PATH and test(found)

        return top

    def deep(value: Json) -> bool:
        found = descend(value, path)
        return found is not MISSING and found is not BAD_PATH and test(found)

    return deep


def _condition(operator: str, argument: Json, raw: bool) -> Predicate:
    """Return the test that one operator makes of a value; ``raw`` compares strings by their bytes."""
    if operator in ("$eq", "$ne"):
        equal = _equality(argument, raw)
        return equal if operator == "$eq" else lambda value: not equal(value)
    if operator in COMPARISONS:
        return _ordering(operator, argument, raw)
    if operator in ("$in", "$nin"):
        tests = [_equality(element, raw) for element in argument]
        positive = operator == "$in"

        def among(value: Json) -> bool:
            values = value if isinstance(value, list) else [value]
            return any(test(each) for test in tests for each in values) is positive

        return among
    if operator == "$not":
        ((inner_operator, inner_argument),) = argument.items()
        inner = _condition(inner_operator, inner_argument, raw)
        return lambda value: not inner(value)
    return _FACTORIES[operator](argument)


def _plain(text: str) -> bool:
    """Say whether two different strings of this kind never collate as equal."""
    return text.isascii() and text.isprintable()


def _equality(argument: Json, raw: bool) -> Predicate:
    if isinstance(argument, str):
        if raw:
            return lambda value: value == argument
        key, plain = sort_key(argument), _plain(argument)

        def same(value: Json) -> bool:
            if value == argument:
                return True
            if not isinstance(value, str) or (plain and _plain(value)):
                return False
            return sort_key(value) == key

        return same
    if argument is None or isinstance(argument, bool):
        return lambda value: value is argument
    if isinstance(argument, (int, float)):
        return lambda value: value == argument and not isinstance(value, bool)
    key = sort_key(argument)
    return lambda value: sort_key(value) == key


def _ordering(operator: str, argument: Json, raw: bool) -> Predicate:
    number = isinstance(argument, (int, float)) and not isinstance(argument, bool)
    direct = number or (raw and isinstance(argument, str))
    kinds: tuple[type, ...] = (int, float) if number else (str,)
    bound = sort_key(argument)
    if operator == "$lt":
        return lambda value: value < argument if direct and type(value) in kinds else sort_key(value) < bound
    if operator == "$lte":
        return lambda value: value <= argument if direct and type(value) in kinds else sort_key(value) <= bound
    if operator == "$gte":
        return lambda value: value >= argument if direct and type(value) in kinds else sort_key(value) >= bound
    return lambda value: value > argument if direct and type(value) in kinds else sort_key(value) > bound


def json_type(value: Json) -> str:
    """Return the name that ``$type`` knows a JSON value by."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def _contains_all(wanted: list[Json]) -> Predicate:
    keys = [sort_key(each) for each in wanted]

    def test(value: Json) -> bool:
        if not isinstance(value, list) or not wanted:
            return False
        if len(wanted) == 1 and isinstance(wanted[0], list) and wanted[0] == value:
            return True
        present = {sort_key(each) for each in value}
        return all(key in present for key in keys)

    return test


def _remainder(argument: list[int]) -> Predicate:
    divisor, remainder = argument

    def test(value: Json) -> bool:
        if not is_integer(value):
            return False
        # the sign follows the dividend, as in Erlang and C
        rest = abs(value) % abs(divisor)
        return (rest if value >= 0 else -rest) == remainder

    return test


def _element(argument: Selector) -> Predicate:
    inner = compile_normal(argument)
    return lambda value: isinstance(value, list) and any(inner(each) for each in value)


def _all_elements(argument: Selector) -> Predicate:
    inner = compile_normal(argument)
    return lambda value: isinstance(value, list) and bool(value) and all(inner(each) for each in value)


def _key_map(argument: Selector) -> Predicate:
    inner = compile_normal(argument)
    return lambda value: isinstance(value, dict) and any(inner(each) for each in value)


def _regex(pattern: str) -> Predicate:
    search = re.compile(pattern).search
    return lambda value: isinstance(value, str) and search(value) is not None


_FACTORIES: dict[str, Callable[[Any], Predicate]] = {
    "$exists": lambda argument: lambda value: argument,
    "$type": lambda argument: lambda value: json_type(value) == argument,
    "$size": lambda argument: lambda value: isinstance(value, list) and len(value) == argument,
    "$beginsWith": lambda argument: lambda value: isinstance(value, str) and value.startswith(argument),
    "$all": _contains_all,
    "$mod": _remainder,
    "$regex": _regex,
    "$elemMatch": _element,
    "$allMatch": _all_elements,
    "$keyMapMatch": _key_map,
}
