"""The order of keys in views: CouchDB's collation of JSON values, as byte strings that compare with ``memcmp``.

Types come in the order null < false < true < numbers < strings < arrays < objects. Arrays compare element by element
and a prefix comes first; objects likewise, pair by pair in the order in which they were written, name before value.
Numbers compare by exact value: integers of any size and doubles together, ``1`` and ``1.0`` being one key.

Strings follow the ICU root collation (CLDR, punctuation not ignored, tertiary strength), which CouchDB uses, this far:

* **exact** for printable ASCII: white space, then ``_ - , ; : ! ? . ' " ( ) [ ] { } @ * / \\ & # % ` ^ + < = > | ~ $``,
  digits, letters; lower case before upper case, and only where nothing else differs. Control characters other than tab,
  line feed, vertical tab, form feed and carriage return are ignored, as in ICU;
* **as ICU, for practical purposes**: letters with accents that Unicode decomposes (accents decide only where the base
  letters are equal), ``æ œ ø ł đ ß``, compatibility forms (full width, ligatures, superscripts), decimal digits of all
  scripts, Greek and Cyrillic alphabets, Hangul, kana, unified Han; composed and decomposed writing are one key;
* **approximate**: punctuation, symbols and currency signs outside ASCII come after the ASCII ones of their group, by
  code point; Latin letters without decomposition follow the letter that their Unicode name gives; letters of all
  other scripts go by block and code point (no contractions, no Thai or Lao reordering, accents by code point);
* unassigned code points, private use and lone surrogates come last, by code point, so that the usual ``"\\ufff0"`` end
  of a prefix range works; ``U+FFFF`` is the highest of all. Nothing raises.

Keys have two properties that the view index builds on: no key is a prefix of another, and the key of an array begins
with the keys of its first elements, so that ``prefix`` can cut it to a group.
"""

from __future__ import annotations

import struct
import unicodedata
from functools import lru_cache
from math import isnan
from typing import Any

# One byte per type. 0x00 ends arrays and objects, so that a prefix sorts first; 0xff never begins a value.
NULL, FALSE, TRUE, NUMBER, STRING, ARRAY, OBJECT = b"\x10", b"\x20", b"\x21", b"\x30", b"\x40", b"\x50", b"\x60"
END = b"\x00"
HIGHEST = b"\xff"
"""Greater than the key of every JSON value."""

_SPACE_ORDER = "\t\n\x0b\x0c\r "
_PUNCTUATION_ORDER = "_-,;:!?.'\"()[]{}@*/\\&#%"
_SYMBOL_ORDER = "`^+<=>|~"

# Primary weights. A weight is one byte, or one lead byte and three bytes of code point; no lead byte is also a whole
# weight, which keeps the encoding free of prefixes. 0x00 and 0x01 are the separators between levels.
_LEAD_SPACE, _LEAD_PUNCTUATION, _LEAD_SYMBOL, _LEAD_CURRENCY, _LEAD_NUMBER = 0x0F, 0x2F, 0x3B, 0x3D, 0x4A
_LETTER_A = 0x50  # letters a..z take every second byte; the byte between leads the letters without decomposition
_LEAD_OTHER, _LEAD_HANGUL, _LEAD_KANA, _LEAD_HAN, _LEAD_UNASSIGNED = 0x90, 0x98, 0x99, 0xA0, 0xC0
_HIGHEST_PRIMARY = 0xFE

_COMMON = 0x05  # secondary and tertiary weight of an unaccented, lower-case letter; trailing ones are dropped
_ACCENT = 0x06  # leads the secondary weight of an accent
_UPPER = 0x06
_COMPATIBLE = 0x07  # a compatibility form: full width, ligature, superscript

_IGNORED = bytes([*range(0x09), *range(0x0E, 0x20), 0x7F])

_EXPANSIONS = {
    "æ": "ae\u0335", "œ": "oe\u0335", "ø": "o\u0338", "ł": "l\u0335", "đ": "d\u0335", "ß": "ss",
    "Æ": "AE\u0335", "Œ": "OE\u0335", "Ø": "O\u0338", "Ł": "L\u0335", "Đ": "D\u0335", "ẞ": "SS",
}  # fmt: skip


def _ascii_tables() -> tuple[bytes, bytes]:
    """Return the translation tables of ASCII text to primary and to tertiary weights."""
    primary = bytearray(range(256))
    for start, characters in ((0x04, _SPACE_ORDER), (0x10, _PUNCTUATION_ORDER), (0x30, _SYMBOL_ORDER)):
        for position, character in enumerate(characters):
            primary[ord(character)] = start + position
    primary[ord("$")] = 0x3C
    tertiary = bytearray([_COMMON] * 256)
    for digit in range(10):
        primary[ord("0") + digit] = 0x40 + digit
    for letter in range(26):
        primary[ord("a") + letter] = primary[ord("A") + letter] = _LETTER_A + 2 * letter
        tertiary[ord("A") + letter] = _UPPER
    return bytes(primary), bytes(tertiary)


_PRIMARY, _TERTIARY = _ascii_tables()


def _long(lead: int, point: int) -> bytes:
    """Write a code point after its lead byte, in three bytes above 0x7f: 0x00 must not occur inside a string's key."""
    return bytes((lead, 0x80 | (point >> 14), 0x80 | ((point >> 7) & 0x7F), 0x80 | (point & 0x7F)))


def _latin_base(character: str) -> int | None:
    """Return the number (0 to 25) of the Latin letter that the character's Unicode name begins with, if it has one."""
    words = unicodedata.name(character, "").split(" ")
    if words[0] != "LATIN" or "LETTER" not in words:
        return None
    for word in words[words.index("LETTER") + 1 :]:
        if word[0].isalpha() and word not in ("OPEN", "TURNED", "REVERSED", "DOTLESS", "SIDEWAYS", "LONG", "SHARP"):
            return ord(word[0]) - ord("A")
    return None


def _primary_of(character: str) -> tuple[bytes, int]:
    """Return the primary weight of one character that has no decomposition, and its tertiary weight."""
    point = ord(character)
    if point == 0xFFFF:
        return bytes([_HIGHEST_PRIMARY]), _COMMON
    category = unicodedata.category(character)
    if category.startswith("Z") or point == 0x85:
        return _long(_LEAD_SPACE, point), _COMMON
    if category in ("Cc", "Cf"):
        return b"", _COMMON
    if category.startswith("C"):
        return _long(_LEAD_UNASSIGNED, point), _COMMON
    if category.startswith("P"):
        return _long(_LEAD_PUNCTUATION, point), _COMMON
    if category == "Sc":
        return _long(_LEAD_CURRENCY, point), _COMMON
    if category.startswith("S"):
        return _long(_LEAD_SYMBOL, point), _COMMON
    digit = unicodedata.digit(character, None)
    if digit is not None:
        return bytes([0x40 + digit]), _COMPATIBLE
    if category.startswith("N"):
        return _long(_LEAD_NUMBER, point), _COMMON
    lower = character.lower()
    tertiary = _COMMON
    if len(lower) == 1 and lower != character:
        character, point, tertiary = lower, ord(lower), _UPPER
    latin = _latin_base(character)
    if latin is not None and latin < 26:
        return _long(_LETTER_A + 1 + 2 * latin, point), tertiary
    if 0x30A1 <= point <= 0x30F6:  # katakana is written-otherwise hiragana
        return _long(_LEAD_KANA, point - 0x60), _UPPER
    if 0x3041 <= point <= 0x309F:
        return _long(_LEAD_KANA, point), tertiary
    if 0xAC00 <= point <= 0xD7A3:
        return _long(_LEAD_HANGUL, point), tertiary
    if unicodedata.name(character, "").startswith("CJK UNIFIED"):
        # the main block comes before its extensions
        return _long(_LEAD_HAN, point if 0x4E00 <= point <= 0x9FFF else point + 0x10000), tertiary
    return _long(_LEAD_OTHER, point), tertiary


@lru_cache(maxsize=4096)
def _weights(character: str) -> tuple[bytes, bytes, bytes]:
    """Return the primary, secondary and tertiary weights of one character of composed (NFC) text."""
    primary, secondary, tertiary = bytearray(), bytearray(), bytearray()
    point = ord(character)
    if character in _EXPANSIONS:
        parts, compatible = _EXPANSIONS[character], character in "ßẞ"
    elif 0xAC00 <= point <= 0xD7A3 or point > 0x10FFFF:
        parts, compatible = character, False
    else:
        parts = unicodedata.normalize("NFKD", character)
        compatible = parts != unicodedata.normalize("NFD", character)
    for part in parts:
        if ord(part) < 0x80:
            weight = part.encode().translate(_PRIMARY, _IGNORED)
            level = part.encode().translate(_TERTIARY)[0]
        elif unicodedata.combining(part) or unicodedata.category(part).startswith("M"):
            secondary += _long(_ACCENT, ord(part))
            tertiary.append(_COMMON)
            continue
        else:
            weight, level = _primary_of(part)
        if weight:
            primary += weight
            secondary.append(_COMMON)
            tertiary.append(level + _COMPATIBLE if compatible else level)
    return bytes(primary), bytes(secondary), bytes(tertiary)


_TRAILING = bytes((_COMMON,))


def text_key(text: str) -> bytes:
    """Return the collation key of a string: its primary, secondary and tertiary levels, separated by 0x01."""
    if text.isascii():
        raw = text.encode("ascii")
        if raw == raw.lower():
            return raw.translate(_PRIMARY, _IGNORED) + b"\x01\x01"
        tertiary = raw.translate(_TERTIARY, _IGNORED).rstrip(_TRAILING)
        return raw.translate(_PRIMARY, _IGNORED) + b"\x01\x01" + tertiary
    pieces = [_weights(character) for character in unicodedata.normalize("NFC", text)]
    secondary = b"".join([piece[1] for piece in pieces]).rstrip(_TRAILING)
    tertiary = b"".join([piece[2] for piece in pieces]).rstrip(_TRAILING)
    return b"".join([piece[0] for piece in pieces]) + b"\x01" + secondary + b"\x01" + tertiary


def _magnitude(value: float | int) -> bytes:
    """Return ordered bytes of a number that is not negative: eight of a double rounded down, then what it lost."""
    if isinstance(value, float):
        return struct.pack(">d", value) + END
    bits = value.bit_length()
    if bits <= 53:
        return struct.pack(">d", value) + END
    lost = bits - 53
    rest = value & ((1 << lost) - 1)
    if bits > 1024:  # beyond the doubles: infinity's bytes, the length, then all digits
        head = struct.pack(">dI", float("inf"), bits)
        rest, lost = value, bits
    else:
        head = struct.pack(">d", value - rest)
    padding = -lost % 7
    digits = _groups_left(rest << padding, (lost + padding) // 7)
    return head + digits + END


def _groups_left(value: int, count: int) -> bytes:
    """Write ``count`` groups of seven bits, the first ones first, without the empty ones at the end."""
    digits = bytes([0x80 | ((value >> (7 * place)) & 0x7F) for place in range(count - 1, -1, -1)])
    return digits.rstrip(b"\x80")


_INVERT = bytes(range(255, -1, -1))
_INFINITE = struct.pack(">d", float("inf"))
_POSITIVE = NUMBER + b"\x03"
_EXACT = 2**53  # up to here every integer is a double
_CACHED_LENGTH = 64  # characters
_pack_double = struct.Struct(">d").pack


def number_key(value: float | int) -> bytes:
    """Return the ordered bytes of a number. NaN, which JSON does not have, counts as zero."""
    if isinstance(value, float) and isnan(value):
        value = 0
    if value < 0:
        return b"\x01" + _magnitude(-value).translate(_INVERT)
    if value == 0:
        return b"\x02"
    return b"\x03" + _magnitude(value)


@lru_cache(maxsize=16384)
def _string(text: str) -> bytes:
    """The whole key of a string. Keys of documents repeat a few words (a status, a run's name) very often."""
    return STRING + text_key(text) + END


def _append(value: Any, out: list[bytes]) -> None:
    kind = type(value)
    if kind is str:
        # long texts are rarely seen twice, and would fill the memory
        out.append(_string(value) if len(value) <= _CACHED_LENGTH else STRING + text_key(value) + END)
    elif value is None:
        out.append(NULL)
    elif kind is int and 0 < value <= _EXACT:
        out.append(_POSITIVE + _pack_double(value) + END)
    elif kind is bool:
        out.append(TRUE if value else FALSE)
    elif kind is int or kind is float:
        out.append(NUMBER + number_key(value))
    elif isinstance(value, (list, tuple)):
        out.append(ARRAY)
        for element in value:
            _append(element, out)
        out.append(END)
    elif isinstance(value, dict):
        out.append(OBJECT)
        for name, element in value.items():
            _append(name, out)
            _append(element, out)
        out.append(END)
    else:
        raise TypeError(f"{kind.__name__} is not a JSON value: it has no place in a view's order")


def sort_key(value: Any) -> bytes:
    """Return bytes that order JSON values as CouchDB's views do: ``sort_key(a) < sort_key(b)`` is "a comes before b".

    Args:
        value: what ``json.loads`` returns.

    Raises:
        TypeError: for anything else.
    """
    out: list[bytes] = []
    _append(value, out)
    return b"".join(out)


def _end_of(key: bytes, start: int) -> int:
    """Return where the value that begins at ``start`` of a key ends."""
    kind = key[start]
    if kind < 0x30:
        return start + 1
    if kind == 0x40:
        return key.index(0, start) + 1
    if kind == 0x30:
        sign = key[start + 1]
        if sign == 2:
            return start + 2
        digits = start + 10
        if sign == 3:
            digits += 4 if key[start + 2 : digits] == _INFINITE else 0
            return key.index(0, digits) + 1
        digits += 4 if key[start + 2 : digits] == _INFINITE.translate(_INVERT) else 0
        return key.index(255, digits) + 1
    start += 1
    while key[start] != 0:
        start = _end_of(key, start)
    return start + 1


def prefix(key: bytes, level: int) -> bytes:
    """Return what the keys of one group have in common: those that agree in the first ``level`` elements of an array.

    Level 0 is all keys; a key that is no array, or a shorter one, is its own group.
    """
    if level == 0:
        return b""
    if key[0] != 0x50:
        return key
    end = 1
    for _ in range(level):
        if key[end] == 0:
            return key
        end = _end_of(key, end)
    return key[:end]


def compare(first: Any, second: Any) -> int:
    """Return -1, 0 or 1 as the first JSON value comes before, with or after the second."""
    left, right = sort_key(first), sort_key(second)
    return (left > right) - (left < right)
