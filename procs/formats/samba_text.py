"""Lines and values of Samba's text headers.

A line is ``key = value <tab># comment``. Strings are quoted if they hold spaces, booleans are ``oui``/``non``, what is
not known is ``indetermine`` or ``inconnu``, numbers can be negative or ``inf``; text can be Latin-1.
"""

from __future__ import annotations

import math
import re
from typing import Any

NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?\Z")
INTEGER = re.compile(r"[-+]?[0-9]{1,18}\Z")  # 18 digits fit 64 bits; longer ones stay text
HEXADECIMAL = re.compile(r"0[xX][0-9a-fA-F]{1,15}\Z")
NOT_FINITE = {"inf": math.inf, "infinity": math.inf, "nan": math.nan}
UNKNOWN = frozenset({"indetermine", "indetermin\u00e9", "inconnu", "indeterminee", "inconnue", ""})
SEPARATOR = re.compile(rb"\*[ \t]*-+[ \t]*\r?\Z")
MAX_LINE = 65_536  # bytes; a longer line is no text header
MAX_DEPTH = 16  # nested brackets of a value


def decode(raw: bytes) -> str:
    """Text of a header: UTF-8 where it is that, else Latin-1 (which every byte string is)."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def strip_comment(text: str) -> str:
    """The part of a line before its comment: a ``#`` outside quotes, at the start or after a space or tab."""
    quote = False
    for index, letter in enumerate(text):
        if letter == '"':
            quote = not quote
        elif letter == "#" and not quote and (index == 0 or text[index - 1] in " \t"):
            return text[:index]
    return text


def split_assignment(line: str) -> tuple[str, str] | None:
    """``key = value # comment`` or ``key := value`` as (key, value), cut at the first ``=``; None if there is none."""
    key, sign, value = strip_comment(line).partition("=")
    if not sign:
        return None
    key = key.strip()
    if key.endswith(":"):
        key = key[:-1].rstrip()
    return key, value.strip()


def unquote(text: str) -> str:
    """A name without its quotes."""
    text = text.strip()
    return text[1:-1] if len(text) >= 2 and text[0] == text[-1] == '"' else text


def typed(text: str) -> Any:
    """The value of a text: bool, int, float (``inf`` and ``nan`` among them), None for unknown, list or str."""
    text = text.strip()
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return text[1:-1]
    lowered = text.lower()
    if lowered == "oui":
        return True
    if lowered == "non":
        return False
    if lowered in UNKNOWN:
        return None
    if INTEGER.match(text):
        return int(text)
    if HEXADECIMAL.match(text):
        return int(text, 16)
    if NUMBER.match(text):
        return float(text)
    if lowered.lstrip("+-") in NOT_FINITE and len(lowered) - len(lowered.lstrip("+-")) <= 1:
        return -math.inf if lowered.startswith("-") and "inf" in lowered else NOT_FINITE[lowered.lstrip("+-")]
    if text[0] in "({" and text[-1] in ")}":
        return parse_list(text)
    return text


def is_open(text: str) -> bool:
    """Whether a value opens more brackets than it closes: it goes on in the next line."""
    depth = 0
    quote = False
    for letter in text:
        if letter == '"':
            quote = not quote
        elif not quote:
            depth += (letter in "({") - (letter in ")}")
    return depth > 0


def split_top(text: str) -> list[str]:
    """Split at the commas that stand in no bracket and no quotes."""
    parts: list[str] = []
    depth, start, quote = 0, 0, False
    for index, letter in enumerate(text):
        if letter == '"':
            quote = not quote
        elif quote:
            continue
        elif letter in "({":
            depth += 1
        elif letter in ")}":
            depth -= 1
            if depth == 0:  # a comma after it is usual, and not always there
                parts.append(text[start : index + 1])
                start = index + 1
        elif letter == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    parts.append(text[start:])
    return [part.strip() for part in parts if part.strip()]


def parse_list(text: str, depth: int = 0) -> Any:
    """``( charge, light )`` -> list; ``( { a := 1 }, { b := 2 } )`` -> dict where every item assigns, else list."""
    if depth > MAX_DEPTH:
        return text
    items = split_top(text.strip()[1:-1])
    values: list[Any] = []
    named: dict[str, Any] = {}
    for item in items:
        if item[0] in "({" and item[-1] in ")}":
            value = parse_list(item, depth + 1)
            if isinstance(value, dict) and not named.keys() & value.keys():
                named.update(value)
            values.append(value)
        elif not item.startswith('"') and (pair := split_assignment(item)) is not None:
            named[pair[0]] = typed(pair[1])
            values.append({pair[0]: named[pair[0]]})
        else:
            values.append(typed(item))
    if values and all(isinstance(value, dict) for value in values) and len(named) >= len(values):
        return named
    return values


def jsonable(value: Any, notes: list[str], where: str) -> Any:
    """The value as JSON can carry it: what is not finite becomes null and is listed in ``notes``."""
    if isinstance(value, float) and not math.isfinite(value):
        notes.append(f"{where}: {value} is no JSON number, stored as null")
        return None
    if isinstance(value, dict):
        return {str(key): jsonable(item, notes, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item, notes, f"{where}[{index}]") for index, item in enumerate(value)]
    return value


def version_tuple(value: Any) -> tuple[int, ...]:
    """A version or release as numbers that compare rightly: 10.0 comes after 9.19. Unknown is ().

    ``9.19`` and ``9.2`` are read as two whole numbers, as Samba counts them: release 9.19 follows 9.2.
    """
    parts = re.findall(r"[0-9]+", str(value)) if value is not None else []
    return tuple(int(part[:9]) for part in parts)
