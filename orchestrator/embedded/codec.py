"""JSON as CouchDB takes and gives it: strict, UTF-8, integers of any size.

orjson does the work because this is the hot path of every request. It differs from what CouchDB accepts in one
point, which is mended here: integers beyond 64 bits would silently become floats.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import orjson

# Nineteen digits are where a 64-bit integer can overflow; anything shorter is safe with orjson. Looked for with every
# digit made the same, which takes a quarter of the time of decoding, where a pattern takes four times as long as that.
_DIGITS = bytes(0x30 if 0x30 <= byte <= 0x39 else 0x20 for byte in range(256))
_LONG = b"0" * 19
# Where such digits may be an integer's first ones: in a hash, a revision or a name they are none.
_LONG_NUMBER = re.compile(rb"(?:\A|[\s:,\[])-?\d{19}")


class InvalidJson(ValueError):
    """The bytes are no JSON that CouchDB would accept (NaN, infinities and lone surrogates included)."""


def loads(data: bytes | str) -> Any:
    """Decode JSON.

    Raises:
        InvalidJson: for anything that is not strict JSON in UTF-8.
    """
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    try:
        if _LONG in raw.translate(_DIGITS) and _LONG_NUMBER.search(raw):
            orjson.loads(raw)  # strict about syntax; the decoding below keeps the digits
            return json.loads(raw, parse_constant=_refuse, parse_float=_finite)
        return orjson.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InvalidJson(str(error)) from error


def dumps(value: Any) -> bytes:
    """Encode to compact UTF-8 JSON, keys in their given order.

    Raises:
        InvalidJson: if the value holds something JSON has no form for.
    """
    try:
        return orjson.dumps(value)
    except TypeError:
        pass
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode("utf-8")
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidJson(str(error)) from error


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits} is out of range")
    return number
