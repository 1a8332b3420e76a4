"""Document ids made from the names and paths of files: readable, safe, and the same however often they are made."""

from __future__ import annotations

import hashlib
import os
import re

from orchestrator.filenames import text_of

#: A name of these characters alone, not beginning with ``_`` (CouchDB keeps those ids), is a document id as it stands.
SAFE_NAME = re.compile(r"[A-Za-z0-9.\-][A-Za-z0-9._\-]*\Z")

#: Hexadecimal digits of SHA-256 that end an id made from an unsafe name: 48 bits, one chance in 28,000 of one clash
#: among 100,000 such files, and a clash is noticed (the paths differ) and resolved, never merged.
HASH_DIGITS = 12

#: Characters of a slug, so that ids stay readable in a table however long a file's name is.
SLUG_LENGTH = 60


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
