"""Values of the keys in Samba's event blocks: bytes in, numbers out, and a :class:`BadValue` for what cannot be one."""

from __future__ import annotations

import math
import re

from procs.formats import samba_text as text

Fields = dict[bytes, bytes]
I4 = 2**31 - 1
GIGA = 1_000_000_000  # time stamps in one giga stamp
NAN = math.nan
UNKNOWN_BYTES = frozenset(word.encode("latin-1") for word in text.UNKNOWN)
NUMBER = re.compile(rb"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,4})?\Z")
BITS = re.compile(rb"[-+]?[0-9]{1,20}\Z")
HEX = re.compile(rb"(?:0[xX])?[0-9a-fA-F]{1,16}\Z")
LIST_KEY = re.compile(rb"Liste:([0-9]{1,4})-([0-9]{1,4})\Z")


class BadValue(ValueError):
    """A key of a block has a value that it cannot have (internal: becomes a FormatError with the value's offset)."""

    def __init__(self, key: bytes, expected: str) -> None:
        super().__init__(expected)
        self.key = key
        self.expected = expected


def integer(fields: Fields, key: bytes, default: int, low: int = -I4 - 1, high: int = I4) -> int:
    """A whole number; ``default`` where the key is missing or its value unknown."""
    raw = fields.get(key)
    if raw is None:
        return default
    try:
        if len(raw) > 19 or b"_" in raw:
            raise ValueError
        value = int(raw)
    except ValueError:
        if raw.lower() in UNKNOWN_BYTES:
            return default
        if NUMBER.match(raw) is None or not float(raw).is_integer() or abs(float(raw)) > 2**53:
            raise BadValue(key, "a whole number") from None
        value = int(float(raw))
    if not low <= value <= high:
        raise BadValue(key, f"a number from {low} to {high}")
    return value


def number(fields: Fields, key: bytes) -> float:
    """A number, ``inf`` among them; NaN where the key is missing or its value unknown."""
    raw = fields.get(key)
    if raw is None:
        return NAN
    try:
        if b"_" not in raw:  # Python's own spelling of numbers
            return float(raw)
    except ValueError:
        if raw.lower() in UNKNOWN_BYTES:
            return NAN
    raise BadValue(key, "a number")


def loose(fields: Fields, key: bytes) -> float:
    """As :func:`number`, and NaN for a word: some keys changed their meaning between releases."""
    try:
        return number(fields, key)
    except BadValue:
        return NAN


def touched(fields: Fields, key: bytes, names: dict[bytes, int]) -> int:
    """The index of the detector or channel that fired, given as a number or by name; -1 for unknown."""
    try:
        return integer(fields, key, -1)
    except BadValue:
        return names.get(fields[key].strip(b'"'), -1)


def reference(fields: Fields) -> tuple[float, str]:
    """``Reference``, a number in some releases and a word (what the estimates were made on) in others."""
    try:
        return number(fields, b"Reference"), ""
    except BadValue:
        return NAN, text.decode(fields[b"Reference"].strip(b'"'))[:60]


def stamp(fields: Fields) -> int:
    """giga * 1e9 + time, in units of 10 us; 0 where neither is given."""
    giga = integer(fields, b"GigaStamp", 0, -(10**9), 9 * 10**9)
    return giga * GIGA + integer(fields, b"TimeStamp", 0, -(10**18), 2 * 10**17)


def yes(fields: Fields, key: bytes) -> bool:
    """``oui`` or a number other than 0; False where the key is missing or unknown."""
    raw = fields.get(key, b"").strip(b'"').lower()
    if raw in (b"oui", b"vrai", b"1"):
        return True
    if raw in (b"non", b"faux", b"0") or raw in UNKNOWN_BYTES:
        return False
    raise BadValue(key, "oui or non")


def trigger_bits(fields: Fields, keys: list[bytes]) -> tuple[int, int]:
    """The trigger's bit lists: ``Liste:31-0`` (also spelt ``Liste:31-00``), ``Liste:63-32``, ... as bits 0-63, 64-127.

    The DAQ prints each word as a signed decimal number; a value with ``0x``, a letter or a leading 0 is hexadecimal.
    Bits from 128 on are not kept.
    """
    bits = 0
    for key in keys:
        match = LIST_KEY.match(key)
        assert match is not None
        low, high = sorted((int(match[1]), int(match[2])))
        raw = fields[key].strip(b'"')
        if raw.lower() in UNKNOWN_BYTES:
            continue
        if HEX.match(raw) and (not raw.isdigit() or (len(raw) > 1 and raw.startswith(b"0"))):
            word = int(raw, 16)
        elif BITS.match(raw):
            word = int(raw)
        else:
            raise BadValue(key, "a word of trigger bits")
        width = high - low + 1
        if word < 0:
            word += 1 << width
        if not 0 <= word < 1 << width:
            raise BadValue(key, f"a word of {width} bits")
        bits |= word << low
    return bits & 0xFFFFFFFFFFFFFFFF, bits >> 64 & 0xFFFFFFFFFFFFFFFF


def dead_time(fields: Fields) -> float:
    """TempsMort.secondes + TempsMort.microsecs in seconds; NaN where neither is given."""
    seconds, micro = number(fields, b"TempsMort.secondes"), number(fields, b"TempsMort.microsecs")
    if math.isnan(seconds):
        return micro * 1e-6
    return seconds if math.isnan(micro) else seconds + micro * 1e-6
