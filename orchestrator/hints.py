"""Commands that are shown to people for pasting into a shell, about a document whose id comes from outside.

An id may hold spaces, quotes, semicolons, or begin with a dash: it is quoted, and set behind ``--`` where it would be
taken for an option. Pure.
"""

from __future__ import annotations

import shlex
from typing import Any


def command(what: str, document: Any, *more: str, branch: str = "", options: str = "") -> str:
    """``orchestrator WHAT [--branch BRANCH] [OPTIONS] DOCUMENT [MORE...]``.

    ``branch`` is the lane or gather that it is about, empty for the main chain; ``options`` stand as they are.
    """
    words = ["orchestrator", what]
    if branch:
        words += ["--branch", shlex.quote(branch)]
    if options:
        words.append(options)
    return " ".join([*words, named(document), *(shlex.quote(one) for one in more)])


def named(document: Any) -> str:
    """A document's id as the last words of a command have it."""
    text = str(document)
    quoted = shlex.quote(text)
    return f"-- {quoted}" if text.startswith("-") else quoted
