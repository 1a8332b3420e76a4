"""From a closed file to its document: a pure description of what is on disk, in valid JSON.

Whatever is wrong with a file's content becomes a document with status ``bad`` and the reason: nothing is lost, and the
next file goes on. What is wrong with reading it (permissions, a disk error) is raised: that may pass.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from orchestrator.errors import FormatError
from orchestrator.filenames import path_fields, text_of
from procs.register.closed import Look, Names
from procs.register.found import Found, outermost
from procs.register.paths import document_id, path_id
from procs.register.readers import HEAD, Formats, RawFormat, detect
from procs.register.settings import RegisterSettings

Document = dict[str, Any]

#: Largest header in a document, bytes of JSON. A real one has some 100 kB at most, and CouchDB takes documents to 8 MB.
HEADER_LIMIT: Final = 1024 * 1024

#: Characters of a reason that are kept.
REASON_LIMIT: Final = 2000

#: Levels of lists in lists that a header may have.
DEPTH_LIMIT: Final = 16

#: Largest integer that is kept as it is: beyond it JavaScript, and so a view, cannot hold it exactly.
EXACT: Final = 2**53

#: Bytes read at a time for a checksum: enough to keep a disk busy, small enough for a cache.
CHUNK: Final = 1 << 20


class Changed(Exception):
    """The file changed while it was read, so it was not closed after all. Wait, and look again."""


@dataclass
class Maker:
    """Makes documents.

    Args:
        settings: what goes into them.
        formats: the raw formats that are known.
        hostname: the machine's name, where the settings give none.
    """

    settings: RegisterSettings
    formats: Formats
    hostname: str
    _names: Names = field(init=False)
    _roots: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self._names = Names(self.settings)
        self._roots = outermost(self.settings.directories)
        self.hostname = self.settings.hostname or self.hostname

    def id_of(self, path: str) -> str:
        """The id of the document of the file at ``path``: from its path alone, whoever registers it."""
        if self.settings.id_from == "name":
            return document_id(path)
        root = next((one for one in self._roots if path.startswith(one.rstrip("/") + "/")), None)
        return path_id(path, root)

    def make(self, found: Found, now: float) -> Document | None:
        """The document of ``found``; None where its format is unknown and such files are to be ignored.

        Args:
            found: the file.
            now: seconds since 1970.

        Raises:
            Changed: it is not what it was when it was found closed.
            OSError, ImportError, MemoryError: it cannot be read (now), which is not its own fault.
        """
        path = Path(found.path)
        document = self._bare(found, now)
        head = _head(found.path)
        form = detect(head, self.formats)
        if form is not None:
            document["format"] = form.name
        if not found.closed:
            # A growing file: its header may be half there. It is read when the file is closed.
            if form is None and head and self.settings.unknown_format == "ignore":
                return None
            document["status"] = "open"
            return document
        if not found.look.size:
            self._bad(document, "the file is empty (0 bytes)")
        elif form is None:
            if self.settings.unknown_format == "ignore":
                return None
            known = ", ".join(sorted(self.formats))
            self._bad(document, f"the file is of no known format (known: {known}; it begins with {head[:16]!r})")
        else:
            self._header(document, form, path)
        if self.settings.checksum == "sha256" and found.look.size <= self.settings.checksum_limit:
            document["checksum"] = checksum(found.path)
        if not Look.of(os.lstat(found.path)).same_content(found.look):
            raise Changed(f"{text_of(found.path)}: changed while it was read")
        return document

    def collision(self, document: Document, identity: str, reason: str) -> Document:
        """``document`` under another id, as bad: its own id belongs to another file."""
        moved = {**document, "_id": identity}
        self._bad(moved, reason)
        return moved

    def _bare(self, found: Found, now: float) -> Document:
        settings = self.settings
        name = os.path.basename(found.path)  # noqa: PTH119 - text with surrogates
        partition = self._names.partition(name)
        time = iso(now)
        document: Document = {
            "_id": self.id_of(found.path),
            "type": settings.type,
            "run_name": text_of(partition[0] if partition else name),
            "file_number": partition[1] if partition else 0,
            **path_fields(found.path),
            "size": found.look.size,
            "mtime": iso(found.look.mtime_ns / 1e9),
            "checksum": None,
            "hostname": self.hostname,
            "site": settings.site,
            "registered": time,
            "updated": time,
            "format": None,
            "header": {},
            "status": settings.status,
        }
        if settings.priority is not None:
            document["priority"] = settings.priority
        return document

    def _header(self, document: Document, form: RawFormat, path: Path) -> None:
        try:
            raw = form.read_header(path)
            notes: list[str] = []
            header = plain(raw, notes)
            if not isinstance(header, dict):
                raise FormatError(f"the reader of {form.name} gave no table of values", path=text_of(path))
        except FormatError as error:
            self._bad(document, f"corrupt header: {error}")
            return
        except (OSError, ImportError, MemoryError):
            raise  # not the file's fault
        except Exception as error:  # a reader's fault must stop no other file; the document says which
            self._bad(document, f"the reader of {form.name} failed: {type(error).__name__}: {error}")
            return
        size = len(json.dumps(header))
        if size > HEADER_LIMIT:
            self._bad(document, f"the header is too large: {size} bytes as JSON, at most {HEADER_LIMIT}")
            return
        if notes:
            told = header.get("notes")
            header["notes"] = [*(told if isinstance(told, list) else []), *notes[:50]]
        document["header"] = header
        # The file itself knows best which run and partition it is.
        if isinstance(header.get("run_name"), str) and header["run_name"]:
            document["run_name"] = header["run_name"]
        if type(header.get("file_number")) is int:
            document["file_number"] = header["file_number"]

    @staticmethod
    def _bad(document: Document, reason: str) -> None:
        document["status"] = "bad"
        document["reason"] = text_of(reason)[:REASON_LIMIT]


def plain(value: Any, notes: list[str], where: str = "", depth: int = 0) -> Any:
    """``value`` as valid JSON: numbers and arrays of numpy as Python's, what is not finite as null, said in ``notes``.

    Raises:
        FormatError: it is nested too deeply.
    """
    if depth > DEPTH_LIMIT:
        raise FormatError(f"{where}: lists in lists more than {DEPTH_LIMIT} deep")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return text_of(value) if not value.isascii() else str(value)
    if isinstance(value, int):
        if abs(value) > EXACT:
            notes.append(f"{where}: {value} is beyond the integers of JSON, kept as text")
            return str(value)
        return int(value)
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        notes.append(f"{where}: {value} is no JSON number, stored as null")
        return None
    if isinstance(value, Mapping):
        return {
            text_of(str(key)): plain(item, notes, f"{where}.{key}" if where else text_of(str(key)), depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item, notes, f"{where}[{number}]", depth + 1) for number, item in enumerate(value)]
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if callable(getattr(value, "tolist", None)):  # numpy's scalars and arrays
        return plain(value.tolist(), notes, where, depth + 1)
    return text_of(str(value))


def checksum(path: str) -> str:
    """``sha256:`` and the hexadecimal SHA-256 of the file at ``path``. Raises OSError."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - text with surrogates, hot path
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def iso(time: float) -> str:
    """``time`` (s since 1970) as ISO 8601 in UTC with milliseconds: ``2026-01-22T11:00:00.123Z``."""
    try:
        moment = datetime.datetime.fromtimestamp(time, datetime.UTC)
    except (OverflowError, ValueError, OSError):  # a file's time can be anything
        moment = datetime.datetime.fromtimestamp(0, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def _head(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        return os.read(descriptor, HEAD)
    finally:
        os.close(descriptor)
