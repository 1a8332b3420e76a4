"""Logins in texts that go into documents: of a step's own words, nothing that opens another system is kept. Pure.

Found are users with passwords in URLs, and what stands behind ``password=``, ``passwd:`` or ``--secret``. A password
that looks like any other word cannot be known: steps take theirs from files, and do not print them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

#: A user with a password in a URL.
IN_URL = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^/\s:@'\"]*:[^/\s@'\"]*@")
_NAME = r"(?:password|passwd|passphrase|secret)"
#: The name of a key that holds one.
KEY = re.compile(rf"(?i)(^|[_.\-]){_NAME}$")
_SAID = re.compile(rf"(?i)(\b\w*{_NAME}[\"']?\s*[=:]\s*[\"']?)(?!\(hidden\))[^\s\"',;&]+")
HIDDEN = "(hidden)"


def without(text: str) -> str:
    """The text without logins."""
    if "://" in text:
        text = IN_URL.sub(r"\1", text)
    return _SAID.sub(rf"\1{HIDDEN}", text)


def without_in(command: Sequence[Any] | None) -> list[Any] | None:
    """The words of a command without logins, ``--password WORD`` included."""
    if command is None:
        return None
    shown: list[Any] = []
    for word in command:
        before = shown[-1] if shown else ""
        opened = isinstance(before, str) and before.startswith("-") and KEY.search(before) is not None
        shown.append(HIDDEN if opened else without(word) if isinstance(word, str) else word)
    return shown


def places(value: Any, place: str = "") -> Iterator[str]:
    """Where settings hold a login: in a URL, or under a name that says so."""
    if isinstance(value, str):
        if IN_URL.search(value):
            yield place
    elif isinstance(value, Mapping):
        for key, part in value.items():
            where = f"{place} / {key}" if place else str(key)
            if isinstance(part, str) and part and KEY.search(str(key)):
                yield where
            else:
                yield from places(part, where)
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            yield from places(part, f"{place}[{number}]")
