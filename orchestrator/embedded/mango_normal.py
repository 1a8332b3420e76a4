"""Mango selectors in normal form, as CouchDB makes it, and the field names in them.

Implicit ``$and`` and ``$eq`` are written out, nested field names joined with dots, and negations pushed down to the
single conditions. Index choice and ``_explain`` work on this form.

``$regex`` takes Python's syntax (close to PCRE for what is usual). Patterns that could take exponential time (an
endless repeat inside an endless repeat, or over alternatives that may begin alike) are refused: nothing could stop one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from orchestrator.embedded.problems import Problem

Json = Any
Selector = dict[str, Any]

MISSING = object()
"""No such field."""

BAD_PATH = object()
"""The path goes through something that is no object or array."""

COMPARISONS = frozenset(["$lt", "$lte", "$eq", "$ne", "$gte", "$gt"])
_NEGATED = {"$lt": "$gte", "$lte": "$gt", "$eq": "$ne", "$in": "$nin"}
_NEGATED.update({other: operator for operator, other in _NEGATED.items()})
_UNSUPPORTED = frozenset(["$where", "$geoWithin", "$geoIntersects", "$near", "$nearSphere"])
_NESTED = frozenset(["$elemMatch", "$allMatch", "$keyMapMatch"])


class SelectorError(Problem):
    """A selector, or another part of a query, that cannot be used. ``error`` and ``reason`` are what CouchDB sends."""

    def __init__(self, error: str, reason: str, status: int = 400) -> None:
        super().__init__(status, error, reason)


def _bad_argument(operator: str, argument: Json) -> SelectorError:
    return SelectorError("bad_arg", f"Bad argument for operator {operator}: {argument!r}")


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
    if name in COMPARISONS:
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


def is_integer(value: Json) -> bool:
    """Whether a JSON value is a whole number written as one."""
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
    "$size": lambda value: is_integer(value) and value >= 0,
    "$mod": lambda value: isinstance(value, list) and len(value) == 2 and all(map(is_integer, value)) and value[0],
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


def descend(value: Json, path: list[str]) -> Json:
    """Return what lies at the end of a path, or ``MISSING``, or ``BAD_PATH``."""
    for name in path:
        if isinstance(value, dict):
            value = value.get(name, MISSING)
            if value is MISSING:
                return MISSING
        elif isinstance(value, list):
            if not name.isdecimal() or int(name) >= len(value):
                return BAD_PATH
            value = value[int(name)]
        else:
            return BAD_PATH
    return value


def get_field(doc: Json, field: str, default: Json = None) -> Json:
    """Return the value of a dotted field, or the default if the document has none."""
    value = descend(doc, parse_field(field))
    return default if value is MISSING or value is BAD_PATH else value
