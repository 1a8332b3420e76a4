"""The raw formats that registration knows: how to recognise a file, read its header, and see that its run has ended.

This is the plug-in point: a new format is one more ``RawFormat`` in the dict that ``default_formats`` returns, or in
one that is handed to the registrar. Recognising and the end of a run take the first or last bytes of the file only,
since both are asked of every file that appears.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

#: Bytes from a file's start that ``recognises`` is shown.
HEAD: Final = 4096

#: Bytes from a file's end in which a trailer is looked for: Samba's is a few hundred bytes, a DATE event of it below 2
#: kB.
TAIL: Final = 16 * 1024

DATE_MAGIC: Final = 0xDA1E5AFE
DATE_END_OF_RUN: Final = 2


@dataclass(frozen=True)
class RawFormat:
    """One raw format.

    Args:
        name: what stands in a document's ``format``.
        recognises: whether these first bytes of a file are of this format. Never raises.
        read_header: the header of the file at a path, with plain or numpy values. Raises FormatError where it is
        corrupt and OSError where the file cannot be read.
        ended: whether these last bytes of a file (and the file's size) are the end of a run; None where the format has
            no such trailer. Never raises.
    """

    name: str
    recognises: Callable[[bytes], bool]
    read_header: Callable[[Path], Mapping[str, Any]]
    ended: Callable[[bytes, int], bool] | None = None


Formats = Mapping[str, RawFormat]


def detect(head: bytes, formats: Formats) -> RawFormat | None:
    """The format whose files begin like ``head``, or None."""
    return next((one for one in formats.values() if one.recognises(head)), None)


def run_has_ended(path: str, formats: Formats) -> bool:
    """Whether the file at ``path`` ends with its format's end of run; False where that cannot be seen."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        form = detect(os.pread(descriptor, HEAD, 0), formats)
        if form is None or form.ended is None:
            return False
        size = os.fstat(descriptor).st_size
        return form.ended(os.pread(descriptor, TAIL, max(0, size - TAIL)), size)
    except OSError:
        return False
    finally:
        os.close(descriptor)


def is_samba(head: bytes) -> bool:
    """A Samba file begins with the block ``* Archive SAMBA``, after comments or blank lines at most.

    The same rule as the reader's own, which would bring numpy with it.
    """
    for line in head.removeprefix(b"\xef\xbb\xbf").replace(b"\r", b"\n").split(b"\n"):
        words = line.split()
        if words and not words[0].startswith(b"#"):
            return b" ".join(words[:3]).lower().startswith(b"* archive samba")
    return False


def samba_ended(tail: bytes, size: int) -> bool:
    """``# ===== Fin de run =====``, text, and the closing separator as the very last line."""
    at = tail.rfind(b"Fin de run")
    if at < 0:
        return False
    lines = tail[at:].replace(b"\r", b"\n").rstrip(b"\n").split(b"\n")
    return len(lines) > 1 and lines[-1].startswith(b"* ----") and tail.endswith((b"\n", b"\r"))


def is_date(head: bytes) -> bool:
    """A DATE file begins with an event header: its size, then the magic word, little-endian."""
    return len(head) >= 8 and int(struct.unpack_from("<I", head, 4)[0]) == DATE_MAGIC


def date_ended(tail: bytes, size: int) -> bool:
    """The last event of the file is of type end of run and ends where the file ends."""
    magic = struct.pack("<I", DATE_MAGIC)
    at = tail.rfind(magic)
    while at >= 0:
        # An event (or its last sub-event) whose size reaches exactly to the end of the file.
        if at >= 4 and at + 16 <= len(tail):
            length, _, _, _, kind = struct.unpack_from("<5I", tail, at - 4)
            if length == len(tail) - (at - 4):
                return bool(kind == DATE_END_OF_RUN)
        at = tail.rfind(magic, 0, at)
    return False


def is_root(head: bytes) -> bool:
    """A ROOT file begins with ``root``."""
    return head[:4] == b"root"


def _from_formats(path: Path) -> Mapping[str, Any]:
    from procs import formats  # brings numpy with it: only when there is a header to read

    return formats.read_header(path)


def default_formats() -> dict[str, RawFormat]:
    """The formats that come with this package, by name."""
    return {
        "samba": RawFormat("samba", is_samba, _from_formats, samba_ended),
        "date": RawFormat("date", is_date, _from_formats, date_ended),
        "root": RawFormat("root", is_root, _from_formats),
    }
