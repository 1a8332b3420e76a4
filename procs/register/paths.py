"""The way of a file's path into a JSON document and back, without loss.

A POSIX path is bytes. JSON, and so CouchDB, holds Unicode text only. Nearly every path is valid UTF-8 and stands in the
document as it is, with spaces, quotes, newlines and all: JSON carries those. A path that is not valid UTF-8 (Latin-1
names of old disks) stands in ``file`` in a readable form with ``\\xNN`` for each byte that does not fit, and exactly,
as base64, in ``file_bytes``. Whoever opens a document's file asks ``path_of``, which knows about both.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.errors import DataError

#: A name of these characters alone, not beginning with ``_`` (CouchDB keeps those ids), is a document id as it stands.
SAFE_NAME = re.compile(r"[A-Za-z0-9.\-][A-Za-z0-9._\-]*\Z")

#: Hexadecimal digits of SHA-256 that end an id made from an unsafe name: 48 bits, one chance in 28,000 of one clash
#: among 100,000 such files, and a clash is noticed (the paths differ) and resolved, never merged.
HASH_DIGITS = 12

#: Characters of a slug, so that ids stay readable in a table however long a file's name is.
SLUG_LENGTH = 60


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


def short_hash(path: str | os.PathLike[str]) -> str:
    """The first digits of the SHA-256 of ``path``'s bytes, lower-case hexadecimal."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:HASH_DIGITS]


def slug(name: str) -> str:
    """``name`` reduced to characters that are safe in an id, a shell word and a URL; never empty."""
    words = re.sub(r"[^A-Za-z0-9._]+", "-", text_of(name)).strip("-_.")
    return words[:SLUG_LENGTH].rstrip("-_.") or "file"


def document_id(path: str | os.PathLike[str]) -> str:
    """The id of the document of the file at ``path``, from its name alone: the same one wherever the file is.

    A safe name is the id (``ma22a000_003``). Any other gives a readable slug and a hash of the name's bytes.
    """
    name = os.path.basename(os.fspath(path))  # noqa: PTH119 - on text with surrogates, and on the hot path
    return name if SAFE_NAME.match(name) else f"{slug(name)}-{short_hash(name)}"


def path_id(path: str | os.PathLike[str], root: str | os.PathLike[str] | None) -> str:
    """An id from the path relative to ``root`` (from the absolute one for None): for names that repeat among folders.

    A disk mounted elsewhere gives the same ids, as long as ``root`` moves with it.
    """
    relative = os.path.relpath(path, root) if root is not None else os.path.abspath(path)  # noqa: PTH100
    return f"{slug(relative)}-{short_hash(relative)}"


def collision_id(path: str | os.PathLike[str], taken: str) -> str:
    """The id of a file whose own id ``taken`` belongs to a file elsewhere: it plus a hash of the absolute path."""
    return f"{taken}-{short_hash(os.path.abspath(path))}"  # noqa: PTH100 - no symlink may be resolved here
