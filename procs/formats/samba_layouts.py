"""The layout of a Samba block (which keys on which lines) as a pattern that reads another such block in one match."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from procs.formats import samba_plans as plans
from procs.formats.samba_values import LIST_KEY

LINE_KEY = re.compile(rb"[ \t]*([^=#\r\n*][^=#\r\n]*?)[ \t]*:?=")


class Layout(NamedTuple):
    """A block's pattern: group 1 is what the tag names, then one group per key."""

    pattern: re.Pattern[bytes]
    keys: tuple[bytes, ...]


def make_layout(
    block: bytes,
    tag: bytes,
    wanted: frozenset[bytes],
    values: Mapping[bytes, bytes] | None = None,
    exact: bool = False,
) -> Layout | None:
    """The pattern of a block that was just read line by line, or None for one that is odd.

    ``values`` says what a key's value may be; by default anything that a value can be. With ``exact``, blanks and
    comments beside the values are those of this block: such a pattern matches in half the time.
    """
    if block.count(b"\r") != block.count(b"\r\n"):
        return None
    lines = block.split(b"\n")
    if lines[-1] != b"":
        return None
    if tag == b"Voie" and b'"' in lines[0]:
        pieces = [rb'\*[ \t]*Voie[ \t]+"([^"\r\n]+)"[ \t]*\r?\n']
    elif tag == b"Voie":
        pieces = [rb'\*[ \t]*Voie[ \t]+([^"#:\s][^"#:\r\n]*[^"#:\s])\r?\n']
    else:
        pieces = [rb"\*[ \t]*" + tag + rb"[ \t]+([0-9]+)[ \t]*\r?\n"]
    keys: list[bytes] = []
    for line in lines[1:-2]:
        stripped = line.strip()
        match = LINE_KEY.match(line)
        if not stripped:
            pieces.append(rb"[ \t]*\r?\n")
        elif stripped.startswith(b"#"):
            pieces.append(rb"[ \t]*#[^\r\n]*\r?\n")
        elif match is None or b":=" in line or match[1] in keys:
            return None
        elif match[1] in wanted or LIST_KEY.match(match[1]):
            keys.append(match[1])
            value = (values or {}).get(match[1], plans.VALUE)
            end = rb"(?:[ \t]+(?:#[^\r\n]*)?)?\r?\n"
            piece = rb"[ \t]*" + re.escape(match[1]) + rb"[ \t]*=[ \t]*(" + value + rb")" + end
            found = re.fullmatch(piece, line + b"\n") if exact else None
            if found is not None:
                piece = re.escape(line[: found.start(1)]) + b"(" + value + b")"
                piece += re.escape(line[found.end(1) :] + b"\n")
            pieces.append(piece)
        else:
            pieces.append(rb"[ \t]*" + re.escape(match[1]) + rb"[ \t]*=[^\r\n]*\r?\n")
    pieces.append(rb"\*[ \t]*-+[ \t]*\r?\n")
    pattern = re.compile(b"".join(pieces))
    return Layout(pattern, tuple(keys)) if pattern.fullmatch(block) else None
