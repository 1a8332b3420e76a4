"""Mango selectors: CouchDB's JSON query language, normalised as CouchDB does it and compiled to one Python function.

``normalize`` brings a selector to the form that index choice and ``_explain`` work on: implicit ``$and`` and ``$eq``
written out, nested field names joined with dots, negations pushed down to the single conditions. ``compile_selector``
turns that into closures. Points that surprise and are CouchDB's: a condition on a field that is missing never holds,
``$ne`` and ``$nin`` included (only ``{"$exists": false}`` does); comparisons follow view collation, so that
``{"$gt": 5}`` holds for every string; ``_id`` compares by bytes.

``$regex`` takes Python's syntax (close to PCRE for what is usual). Patterns that could take exponential time (an
endless repeat inside an endless repeat, or over alternatives that may begin alike) are refused: nothing could stop one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from orchestrator.embedded.collation import sort_key
from orchestrator.embedded.problems import Problem

Json = Any
Selector = dict[str, Any]
Predicate = Callable[[Any], bool]

_MISSING = object()  # no such field
_BAD_PATH = object()  # the path goes through something that is no object or array

_COMPARISONS = frozenset(["$lt", "$lte", "$eq", "$ne", "$gte", "$gt"])
_NEGATED = {"$lt": "$gte", "$lte": "$gt", "$eq": "$ne", "$in": "$nin"}
_NEGATED.update({other: operator for operator, other in _NEGATED.items()})
_UNSUPPORTED = frozenset(["$where", "$geoWithin", "$geoIntersects", "$near", "$nearSphere"])
_NESTED = frozenset(["$elemMatch", "$allMatch", "$keyMapMatch"])
TYPES = ("null", "boolean", "number", "string", "array", "object")


class SelectorError(Problem):
    """A selector, or another part of a query, that cannot be used. ``error`` and ``reason`` are what CouchDB sends."""

    def __init__(self, error: str, reason: str, status: int = 400) -> None:
        super().__init__(status, error, reason)


def _bad_argument(operator: str, argument: Json) -> SelectorError:
    return SelectorError("bad_arg", f"Bad argument for operator {operator}: {argument!r}")


# Normal form


def normalize(selector: Selector) -> Selector:
    """Return the selector in normal form: ``{}``, or one condition, or ``$and``/``$or``/``$not`` over such.

    Raises:
        SelectorError: an unknown operator, an argument of the wrong kind, a condition without a field.
    """
    if not isinstance(selector, dict):
        raise SelectorError("invalid_selector_json", f"Selector must be a JSON object, not: {selector!r}")
    if not selector:
        return {}
    normal = _negations(_fields(_operators(selector), ""))
    if "" in normal:
        raise SelectorError("invalid_selector", "One or more conditions is missing a field name.")
    return normal


def _operators(selector: Json) -> Selector:
    """Write out what is implicit, and check every operator's argument."""
    if not isinstance(selector, dict) or not selector:
        return {"$eq": selector}
    if len(selector) > 1:
        return {"$and": [_operators({name: value}) for name, value in selector.items()]}
    ((name, argument),) = selector.items()
    if not name.startswith("$"):
        return {name: _operators(argument)}
    if name in ("$and", "$or", "$nor"):
        if not isinstance(argument, list):
            raise _bad_argument(name, argument)
        return {name: [_operators(part) for part in argument]}
    if name == "$not" or name in _NESTED:
        if not isinstance(argument, dict):
            raise _bad_argument(name, argument)
        return {name: _operators(argument)}
    if name in _COMPARISONS:
        return selector
    if name in _UNSUPPORTED:
        raise SelectorError("not_supported", f"Unsupported operator: {name}")
    if name == "$text":
        raise SelectorError("no_usable_index", "There is no text index here: $text cannot be answered.", 501)
    check = _ARGUMENT_CHECKS.get(name)
    if check is None:
        raise SelectorError("invalid_operator", f"Invalid operator: {name}")
    if not check(argument):
        raise _bad_argument(name, argument)
    return selector


def _is_integer(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_regex(value: Json) -> bool:
    if not isinstance(value, str):
        return False
    try:
        parsed = re._parser.parse(value)  # type: ignore[attr-defined]
        re.compile(value)
    except (re.error, OverflowError, RecursionError):
        return False
    if _explosive(parsed, False):
        reason = f"The pattern {value!r} may take endless time here: avoid repeats inside repeats."
        raise SelectorError("not_supported", reason, 501)
    return True


def _explosive(parsed: Any, repeated: bool) -> bool:
    """Say whether a parsed pattern repeats without end something that repeats, or that has alternatives alike."""
    for code, argument in parsed:
        name = str(code)
        if name in ("MAX_REPEAT", "MIN_REPEAT"):
            endless = argument[1] > 100
            if (endless and repeated) or _explosive(argument[2], repeated or endless):
                return True
        elif name == "POSSESSIVE_REPEAT" or name == "ATOMIC_GROUP":
            continue
        elif name == "BRANCH":
            if repeated and not _distinct(argument[1]):
                return True
            if any(_explosive(branch, repeated) for branch in argument[1]):
                return True
        elif name == "SUBPATTERN":
            if _explosive(argument[3], repeated):
                return True
        elif name in ("ASSERT", "ASSERT_NOT"):
            if _explosive(argument[1], repeated):
                return True
        elif name == "GROUPREF_EXISTS" and repeated:
            return True
    return False


def _distinct(branches: Any) -> bool:
    """Say whether all alternatives begin with a literal, and no two with the same."""
    firsts = [branch[0] for branch in branches if len(branch) and str(branch[0][0]) == "LITERAL"]
    if len(firsts) != len(branches):
        return False
    return len({first[1] for first in firsts}) == len(firsts)


_ARGUMENT_CHECKS: dict[str, Callable[[Json], Any]] = {
    "$in": lambda value: isinstance(value, list),
    "$nin": lambda value: isinstance(value, list),
    "$all": lambda value: isinstance(value, list),
    "$exists": lambda value: isinstance(value, bool),
    "$type": lambda value: isinstance(value, str),
    "$size": lambda value: _is_integer(value) and value >= 0,
    "$mod": lambda value: isinstance(value, list) and len(value) == 2 and all(map(_is_integer, value)) and value[0],
    "$beginsWith": lambda value: isinstance(value, str),
    "$regex": _is_regex,
}


def _fields(selector: Selector, path: str) -> Selector:
    """Move field names down to the single conditions, joined with dots."""
    ((name, argument),) = selector.items()
    if name in ("$and", "$or", "$nor"):
        return {name: [_fields(part, path) for part in argument]}
    if name == "$not":
        return {name: _fields(argument, path)}
    if name in _NESTED:
        return {path: {name: _fields(argument, "")}}
    if name.startswith("$"):
        return {path: selector}
    return _fields(argument, f"{path}.{name}" if path else name)


def _negations(selector: Selector) -> Selector:
    ((name, argument),) = selector.items()
    if name == "$not":
        return _negate(argument)
    if name == "$nor":
        return {"$and": [_negate(part) for part in argument]}
    if name in ("$and", "$or"):
        return {name: [_negations(part) for part in argument]}
    if name in _NESTED:
        return {name: _negations(argument)}
    if name.startswith("$"):
        return selector
    return {name: _negations(argument)}


def _negate(selector: Selector) -> Selector:
    ((name, argument),) = selector.items()
    if name == "$not":
        return _negations(argument)
    if name == "$nor":
        return {"$or": [_negations(part) for part in argument]}
    if name == "$and":
        return {"$or": [_negate(part) for part in argument]}
    if name == "$or":
        return {"$and": [_negate(part) for part in argument]}
    if name in _NEGATED:
        return {_NEGATED[name]: argument}
    if name == "$exists":
        return {"$exists": not argument}
    if name.startswith("$"):
        return {"$not": _negations(selector)}
    return {name: _negate(argument)}


# Fields


def parse_field(field: str) -> list[str]:
    """Split a field name at its dots; ``\\.`` is a dot that belongs to a name.

    Raises:
        SelectorError: a name between two dots is empty.
    """
    if "\\" in field:
        parts = [part.replace("\\", "") for part in re.split(r"(?<!\\)\.", field)]
    else:
        parts = field.split(".")
    if "" in parts:
        raise SelectorError("invalid_field_name", f"Invalid field name: {field}")
    return parts


def _descend(value: Json, path: list[str]) -> Json:
    for name in path:
        if isinstance(value, dict):
            value = value.get(name, _MISSING)
            if value is _MISSING:
                return _MISSING
        elif isinstance(value, list):
            if not name.isdecimal() or int(name) >= len(value):
                return _BAD_PATH
            value = value[int(name)]
        else:
            return _BAD_PATH
    return value


def get_field(doc: Json, field: str, default: Json = None) -> Json:
    """Return the value of a dotted field, or the default if the document has none."""
    value = _descend(doc, parse_field(field))
    return default if value is _MISSING or value is _BAD_PATH else value


# Compilation


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
        return lambda value: _descend(value, path) is _MISSING
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
                found = value.get(name, _MISSING)
                return found is not _MISSING and test(found)
            found = _descend(value, path)
            return found is not _MISSING and found is not _BAD_PATH and test(found)

        return top

    def deep(value: Json) -> bool:
        found = _descend(value, path)
        return found is not _MISSING and found is not _BAD_PATH and test(found)

    return deep


def _condition(operator: str, argument: Json, raw: bool) -> Predicate:
    """Return the test that one operator makes of a value; ``raw`` compares strings by their bytes."""
    if operator in ("$eq", "$ne"):
        equal = _equality(argument, raw)
        return equal if operator == "$eq" else lambda value: not equal(value)
    if operator in _COMPARISONS:
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
        if not _is_integer(value):
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
