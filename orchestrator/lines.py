"""JSON in lines, as it travels between a poller and its workers: quick for what is usual, whole for what is not.

orjson refuses what JSON of the standard library carries: integers beyond 64 bits, keys that are numbers, and halves of
characters, which file names that are no text have in Python. Those go the slow way and lose nothing. Reading, it would
make such an integer a float: so it is not shown them.
"""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any

_quick: Any = None
with contextlib.suppress(ImportError):  # a batch job's Python may have nothing but the standard library
    import orjson

    _quick = orjson

#: A 64-bit integer has nineteen digits at most. They are looked for with every digit made the same, which takes a
#: quarter of the time of decoding; in a hash or a name they are no integer's.
_DIGITS = bytes(0x30 if 0x30 <= byte <= 0x39 else 0x20 for byte in range(256))
_LONG = b"0" * 19
_LONG_NUMBER = re.compile(rb"(?:\A|[\s:,\[])-?\d{19}")


def has_long_number(data: bytes) -> bool:
    """Whether JSON may hold an integer beyond 64 bits."""
    return _LONG in data.translate(_DIGITS) and _LONG_NUMBER.search(data) is not None


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
    if _quick is None or has_long_number(line):
        return json.loads(line)
    try:
        return _quick.loads(line)
    except ValueError:
        return json.loads(line)
