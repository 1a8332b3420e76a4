"""Raw data formats: what a file is, what its header says, and readers and writers for Samba and DATE.

    detect(path)       "samba", "date", "root" or None, by the file's first bytes
    read_header(path)  the header as a dict that is valid JSON, for the file's document

    samba.open(path)   headers, then events in batches of columns   (writer: samba_writer)
    date.open(path)    events, or spills in batches of columns      (writer: date_writer)

A new format is one reader module, its magic in :func:`detect`, and its function in :func:`read_header`. Every
inconsistency is a :class:`~orchestrator.errors.FormatError` with the byte offset.
"""

from __future__ import annotations

import builtins
import os
from pathlib import Path
from typing import Any

from orchestrator.errors import FormatError
from procs.formats.date_layout import MAGIC_BYTES
from procs.formats.samba_header import looks_like_samba

HEAD = 65_536  # bytes that decide what a file is


def detect(path: str | os.PathLike[str]) -> str | None:
    """``"samba"``, ``"date"`` or ``"root"`` by the file's first bytes; None for anything else.

    Raises:
        OSError: the file cannot be read.
    """
    with builtins.open(path, "rb") as file:  # noqa: PTH123
        head = file.read(HEAD)
    if head.startswith(b"root"):
        return "root"
    if head[4:8] == MAGIC_BYTES:
        return "date"
    if looks_like_samba(head):
        return "samba"
    return None


def read_header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a file's header says, for its document: typed, flat where it is asked for often, and valid JSON.

    Always there: ``format``, ``run_name`` (str), ``file_number`` (int), ``notes`` (list of str: what is odd but
    harmless; numbers that JSON does not have, stored as null, are listed there). The rest depends on the format. Only
    the head of the file is read.

    Raises:
        FormatError: none of the known formats, or its header cannot be right; with the byte offset.
        OSError: the file cannot be read.
    """
    from procs.formats import headers  # the readers need numpy; detect() does not

    kind = detect(path)
    if kind == "samba":
        return headers.samba_document(path)
    if kind == "date":
        return headers.date_document(path)
    if kind == "root":
        return headers.root_document(path)
    size = Path(path).stat().st_size
    what = "the file is empty" if size == 0 else "no known format: neither Samba, DATE nor ROOT"
    raise FormatError(f"{what}. Is it a raw data file, and was it written to its end?", path=os.fspath(path), offset=0)


__all__ = ["detect", "read_header"]
