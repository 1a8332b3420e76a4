"""Values of any size, cut down to what a page can show. Pure. The JSON beside the page always has all of it."""

from __future__ import annotations

from typing import Any

#: Values that one table on a page may hold, inner ones counted. A header of megabytes must not make a page of tens.
VALUES = 1500
#: Letters of one text.
LETTERS = 3000
#: Entries kept at each level of nesting where a value holds more than VALUES.
KEPT = (60, 12, 4, 2)


def entries(value: Any, most: int = VALUES) -> int:
    """How many plain values there are in ``value``, counted no further than ``most``."""
    count, left = 0, [value]
    while left and count < most:
        each = left.pop()
        if isinstance(each, dict):
            left.extend(each.values())
        elif isinstance(each, list | tuple):
            left.extend(each[: most + 1])
        else:
            count += 1
    return count


def shortened(text: Any, letters: int = LETTERS) -> str:
    """``text`` with its end cut off where it is long, and how much that is."""
    text = str(text)
    return text if len(text) <= letters else f"{text[:letters]} … ({len(text) - letters} letters more)"


def trimmed(value: Any) -> Any:
    """``value`` as it is where a page can hold it; else with its tables and lists cut, which they say."""
    return _cut(value, 0, entries(value) >= VALUES)


def _cut(value: Any, level: int, large: bool) -> Any:
    if isinstance(value, str):
        return shortened(value)
    if not isinstance(value, dict | list | tuple):
        return value
    kept = KEPT[min(level, len(KEPT) - 1)] if large else len(value)
    more = len(value) - kept
    said = f"{more} more in the JSON"
    if isinstance(value, dict):
        some = list(value.items())[:kept] if more > 0 else value.items()
        table = {shortened(k, 200): _cut(v, level + 1, large) for k, v in some}
        return table | {"…": said} if more > 0 else table
    made = [_cut(entry, level + 1, large) for entry in value[:kept]]
    return [*made, f"… {said}"] if more > 0 else made
