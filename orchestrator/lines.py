"""JSON in lines, as it travels between a poller and its workers: quick for what is usual, whole for what is not.

orjson refuses what JSON of the standard library carries: integers beyond 64 bits, keys that are numbers, and halves of
characters, which file names that are no text have in Python. Those go the slow way and lose nothing.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any

_quick: Any = None
with contextlib.suppress(ImportError):  # a batch job's Python may have nothing but the standard library
    import orjson

    _quick = orjson


def line_of(value: Any) -> bytes:
    """``value`` as one line of JSON, with its line end. Raises TypeError for what JSON does not have."""
    if _quick is None:
        return json.dumps(value).encode() + b"\n"
    try:
        return bytes(_quick.dumps(value, option=_quick.OPT_APPEND_NEWLINE))
    except TypeError:  # orjson's JSONEncodeError is one
        return json.dumps(value).encode() + b"\n"


def value_of(line: bytes) -> Any:
    """The value that a line holds. Raises ValueError if it holds none."""
    if _quick is None:
        return json.loads(line)
    try:
        return _quick.loads(line)
    except ValueError:
        return json.loads(line)
