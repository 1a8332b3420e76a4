"""The way of a file's path into a JSON document and back, without loss.

A POSIX path is bytes. JSON, and so CouchDB, holds Unicode text only. Nearly every path is valid UTF-8 and stands in the
document as it is, with spaces, quotes, newlines and all: JSON carries those. A path that is not valid UTF-8 (Latin-1
names of old disks) stands in ``file`` in a readable form with ``\\xNN`` for each byte that does not fit, and exactly,
as base64, in ``file_bytes``. Whoever opens a document's file asks ``path_of``, which knows about both.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.errors import DataError

_UNFINISHED = re.compile(r"\.(.+)\.([^./]+)\.part\Z", re.DOTALL)
#: An absolute path that `Path` leaves as it is: no segment is empty or a dot.
_USUAL = re.compile(r"(?:/(?!\.(?:/|\Z))[^/\0]+)+")


def unfinished(name: str) -> tuple[str, str] | None:
    """Of an output that is being written: the name that it is to get, and the attempt; None for any other name.

    ``.<name>.<attempt>.part`` is what steps call it (`procs.outputs.atomic_output`).
    """
    match = _UNFINISHED.match(name)
    return (match[1], match[2]) if match else None


def text_of(path: str | bytes | os.PathLike[str]) -> str:
    """``path`` as valid Unicode: itself where it is UTF-8, else with ``\\xNN`` for the bytes that are not."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def path_fields(path: str | os.PathLike[str]) -> dict[str, str]:
    """The keys of a document that carry ``path``: ``file``, and ``file_bytes`` where text cannot hold it."""
    raw = os.fsencode(path)
    fields = {"file": text_of(raw)}
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        fields["file_bytes"] = base64.b64encode(raw).decode("ascii")
    return fields


def path_text(document: Mapping[str, Any]) -> str:
    """The path of the raw file as text, as ``path_of`` has it, at less cost for usual names. Raises DataError."""
    text = document.get("file")
    usual = isinstance(text, str) and text.isascii() and _USUAL.fullmatch(text) is not None
    return str(text) if usual and "file_bytes" not in document else str(path_of(document))


def path_of(document: Mapping[str, Any]) -> Path:
    """The path of the raw file that ``document`` stands for.

    Raises:
        DataError: the document names no file, or what it names cannot be a path.
    """
    name = document.get("_id", "?")
    encoded, text = document.get("file_bytes"), document.get("file")
    try:
        raw = base64.b64decode(encoded, validate=True) if isinstance(encoded, str) else os.fsencode(text or "")
    except (binascii.Error, ValueError, TypeError) as error:
        raise DataError(f"document {name!r}: its file cannot be a path ({error}): correct the document") from error
    if not raw or b"\0" in raw:
        raise DataError(f"document {name!r}: its `file` names no file: correct the document or register it again")
    return Path(os.fsdecode(raw))
