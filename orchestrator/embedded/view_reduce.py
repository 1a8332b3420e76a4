"""CouchDB's builtin reduces as states that can be added up, and for whole numbers taken apart again.

A *state* is what a set of values reduces to, in a form that merges with other states and that JSON can hold:

    _sum     the sum: a number, an array, an object; or CouchDB's error object, which is the answer then
    _stats   [sum, count, min, max, sumsqr], or {"each": [states]} for arrays of numbers, or {"error": reason}

None is the state of no values. ``_count`` needs no state: the index counts its rows anyway. Integers stay integers of
any size: sums over them are exact in any order, and removing one is subtraction; with fractions a state is made anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from orchestrator.embedded.problems import Problem

Json = Any
State = Any

BUILTINS = ("_approx_count_distinct", "_count", "_stats", "_sum")
STATEFUL = ("_stats", "_sum")

_SUM_ERROR = (
    "The _sum function requires that map values be numbers, arrays of numbers, or objects. Objects cannot be mixed "
    "with other data structures. Objects can be arbitrarily nested, provided that the values for all fields are "
    "themselves numbers, arrays of numbers, or objects."
)


def builtin_name(reduce: str) -> str | None:
    """Return the builtin that a reduce's text names, or None for JavaScript. What follows the name is ignored.

    Raises:
        Problem: it begins with an underscore and is none of them.
    """
    if not reduce.startswith("_"):
        return None
    for name in BUILTINS:
        if reduce.startswith(name):
            return name
    raise Problem(501, "not_implemented", f"The reduce function {reduce!r} is not supported by the embedded database.")


class _Unsummable(Exception):
    """A value that ``_sum`` cannot take."""


def _is_number(value: Json) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _add(value: Json, total: Json) -> Json:
    if _is_number(value) and _is_number(total):
        return total + value
    if isinstance(value, dict):
        if total == 0 and _is_number(total):
            return value
        if not isinstance(total, dict):
            raise _Unsummable(value)
        merged = {name: total[name] if name in total else value[name] for name in sorted({**total, **value})}
        for name in value.keys() & total.keys():
            merged[name] = _add(value[name], total[name])
        return merged
    if isinstance(value, list) or isinstance(total, list):
        first = value if isinstance(value, list) else [value]
        second = total if isinstance(total, list) else [total]
        return _add_arrays(first, second)
    raise _Unsummable(value)


def _add_arrays(first: list[Json], second: list[Json]) -> list[Json]:
    shorter = min(len(first), len(second))
    if not all(map(_is_number, [*first, *second])):
        raise _Unsummable(first)
    rest = first[shorter:] or second[shorter:]
    return [first[place] + second[place] for place in range(shorter)] + rest


def merge_sum(state: State, value: Json) -> State:
    """Add a value, or another state, to a state of ``_sum``."""
    for one in (state, value):
        if isinstance(one, dict) and one.get("error") == "builtin_reduce_error":
            return one
    try:
        return _add(value, 0 if state is None else state)
    except _Unsummable as unfit:
        return {"error": "builtin_reduce_error", "reason": _SUM_ERROR, "caused_by": unfit.args[0]}


def stats_of(value: Json) -> State:
    """Return the state of one value for ``_stats``."""
    if _is_number(value):
        return [value, 1, value, value, value * value]
    if isinstance(value, list):
        return {"each": [stats_of(element) for element in value]}
    if isinstance(value, dict):
        parts = [value.get(name) for name in ("sum", "count", "min", "max", "sumsqr")]
        if all(map(_is_number, parts)):
            return parts
    return {"error": f"The _stats function requires that map values be numbers or arrays of numbers, not '{value}'"}


def merge_stats(state: State, other: State) -> State:
    """Add two states of ``_stats``."""
    if state is None or other is None:
        return other if state is None else state
    if isinstance(state, list) and isinstance(other, list):
        return [
            state[0] + other[0],
            state[1] + other[1],
            min(state[2], other[2]),
            max(state[3], other[3]),
            state[4] + other[4],
        ]
    for one in (state, other):
        if isinstance(one, dict) and "error" in one:
            return one
    if isinstance(state, dict) and isinstance(other, dict) and len(state["each"]) == len(other["each"]):
        pairs = zip(state["each"], other["each"], strict=True)
        return {"each": [merge_stats(first, second) for first, second in pairs]}
    return {"error": "The _stats function requires that map values be of one shape: numbers, or arrays of one length"}


def merge(kind: str, state: State, other: State) -> State:
    """Add two states of a builtin; either may be None."""
    if kind == "_sum":
        return state if other is None else merge_sum(state, other)
    return merge_stats(state, other)


def add_value(kind: str, state: State, value: Json) -> State:
    """Add one emitted value to a state."""
    if kind == "_sum":
        if type(value) is int and type(state) is int:
            return state + value
        return merge_sum(state, value)
    return merge_stats(state, stats_of(value))


def remove_value(kind: str, state: State, value: Json) -> tuple[State, bool]:
    """Take one value out of a state. Returns the state and whether that was possible: if not, make it anew."""
    if type(value) is not int:
        return state, False
    if kind == "_sum":
        return (state - value, True) if type(state) is int else (state, False)
    if not isinstance(state, list) or type(state[0]) is not int or type(state[4]) is not int:
        return state, False
    if value in (state[2], state[3]):
        return state, False
    return [state[0] - value, state[1] - 1, state[2], state[3], state[4] - value * value], True


def reduce_values(kind: str, values: Iterable[Json]) -> State:
    """Return the state of several values."""
    state: State = None
    for value in values:
        state = add_value(kind, state, value)
    return state


def finish(kind: str, state: State) -> Json:
    """Return what the client gets for a state.

    Raises:
        Problem: 500 ``invalid_value`` if ``_stats`` met something that is no number.
    """
    if kind == "_sum":
        return 0 if state is None else state
    if state is None:
        return {"sum": 0, "count": 0, "min": 0, "max": 0, "sumsqr": 0}
    if isinstance(state, list):
        return dict(zip(("sum", "count", "min", "max", "sumsqr"), state, strict=True))
    if "error" in state:
        raise Problem(500, "invalid_value", state["error"])
    return [finish(kind, part) for part in state["each"]]
