"""What others say, fit for logs, documents, terminals and pages: cut to a length, without control characters. Pure."""

from __future__ import annotations

from typing import Any, TypeGuard

LONGEST_NAME = 100  # characters of a worker's name, or a module's
LONGEST_SENTENCE = 500  # characters of a reason
LONGEST_TRACE = 10_000  # characters of an error with its trace; a worker of ours cuts it before that


def text(value: Any, most: int) -> str:
    """What somebody else says, cut, and without characters that a terminal obeys; lines stay."""
    return "".join(one if one.isprintable() or one in "\n\t" else "?" for one in str(value)[:most])


def sentence(value: Any, most: int = LONGEST_SENTENCE) -> str:
    """The same in one line."""
    return " ".join(text(value, most).split())


def is_name(value: Any) -> TypeGuard[str]:
    """Whether a worker may be called so: one printable word or several, not too long."""
    return isinstance(value, str) and 0 < len(value) <= LONGEST_NAME and value.isprintable() and value == value.strip()
