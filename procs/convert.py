"""proc1: a raw file becomes a ROOT file. Samba and DATE are converted; ROOT files go on as they are.

What the trees hold is listed in :mod:`procs.convert_samba` and :mod:`procs.convert_date`. The file is written in
chunks, so that memory is bounded by a chunk; it is opened again and counted before it gets its last name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.errors import DataError, FormatError
from orchestrator.step import Work
from procs.convert_date import convert_date
from procs.convert_samba import convert_samba
from procs.formats.date_layout import MAGIC_BYTES
from procs.options import options
from procs.outputs import checksum, place, plain, storage
from procs.rootio import compression, counts

DEFAULTS: dict[str, Any] = {
    "output": "converted",  # folder, relative to the site's data folder
    "compression": "zstd-1",  # family and level: zstd-1, lz4-1, zlib-1, lzma-1, none
    "chunk_bytes": 8_000_000,  # bytes of samples written at once: one basket
    "keep_truncated": False,  # keep the complete events of a file that ends inside its last one
    "strict": True,  # DATE: an inconsistency inside a board's words is an error; else it is counted
}
WRITERS = {"samba": convert_samba, "date": convert_date}


def convert(document: dict[str, Any], work: Work) -> dict[str, Any]:
    """Convert ``work.input`` to ``<output>/<run>/<document>.root``.

    Returns:
        ``file``, ``size``, ``checksum``; ``format``, ``counts``, ``entries`` (of every tree), ``truncated`` (None, or
        the byte offset and the reason), ``notes``.

    Raises:
        DataError: the file is corrupt, or cut and ``keep_truncated`` is not set; with the byte offset.
        TransientError: reading or writing failed.
    """
    chosen = options(work.settings, "convert", DEFAULTS)
    squeeze = compression(chosen.compression)
    path = work.input
    with storage(path, "reading"):
        kind = str(document.get("format") or "") or detect(path)
        if kind == "root":
            return {**_as_it_is(path), "format": kind, "converted": False}
        if kind not in WRITERS:
            raise DataError(f"{path}: the format {kind!r} of the document is not known; it can be samba, date or root")
    target = place(work.output, work.settings, "converted", document, str(document["_id"]), ".root")
    try:
        result = WRITERS[kind](document, work, path, target, chosen, squeeze)
    except FormatError as error:
        raise DataError(f"{error}. {_remedy(error)}") from error
    size = target.stat().st_size
    return plain({"file": str(target), "size": size, "format": kind, "converted": True, **result})


def _remedy(error: FormatError) -> str:
    if "not complete" in str(error) or "is cut" in str(error):
        return "Compare its size with the DAQ's copy, or set keep_truncated: true to keep the complete events."
    return "Compare the file with the DAQ's copy."


def _as_it_is(path: Path) -> dict[str, Any]:
    entries = counts(path)
    with storage(path, "reading"):
        size = path.stat().st_size
    return {"file": str(path), "size": size, "checksum": checksum(path), "entries": entries}


def detect(path: Path) -> str:
    """The format of a file by its first bytes: ``root``, ``date`` or ``samba``. Raises DataError for any other."""
    with storage(path, "reading"), path.open("rb") as stream:
        head = stream.read(4096)
    if head.startswith(b"root"):
        return "root"
    if MAGIC_BYTES in (head[4:8], head[4:8][::-1]):
        return "date"
    if b"SAMBA" in head or b"* Archive" in head:
        return "samba"
    raise DataError(f"{path} is no Samba, DATE or ROOT file: its first bytes are {head[:16]!r}")
