"""Attachments: bytes on the disk named by their digest, entries in the document.

A file is written under a temporary name, flushed and renamed before the document that names it is committed, so a
stored document never points at nothing. Equal contents are one file.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from orchestrator.embedded.problems import Problem, bad_request

MAX_INLINE = 512 * 1024 * 1024  # bytes that an attachment inside a document may unzip to
UPLOAD_SECONDS = 3600.0  # longer than any upload is expected to take
CHUNK = 256 * 1024  # bytes read from a file and sent at a time


class Incoming:
    """An attachment that is being received; feed it with :meth:`write`, then :meth:`finish`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._path = folder / f"incoming-{uuid.uuid4().hex}"
        self._stream: IO[bytes] = self._path.open("wb")
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha = hashlib.sha256()
        self.length = 0

    def write(self, data: bytes) -> None:
        """Take some more bytes."""
        self._stream.write(data)
        self._md5.update(data)
        self._sha.update(data)
        self.length += len(data)

    def finish(self) -> dict[str, Any]:
        """Make the file durable and give the entry's ``digest``, ``length`` and ``blob``."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        blob = self._sha.hexdigest()
        self._path.replace(self._folder / blob)
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        digest = "md5-" + base64.b64encode(self._md5.digest()).decode()
        return {"digest": digest, "length": self.length, "blob": blob}

    def abandon(self) -> None:
        """Throw away what came."""
        self._stream.close()
        self._path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Stored:
    """Stands in a document's ``_attachments`` for one whose contents came as a part of the request.

    An object of its own, which no JSON can be mistaken for: what it names is a file of ours.
    """

    kind: str
    revpos: Any
    entry: dict[str, Any]


class Blobs:
    """The folder of one database's attachments."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def receive(self) -> Incoming:
        """Begin to receive one."""
        return Incoming(self.folder)

    def put(self, data: bytes) -> dict[str, Any]:
        """Store one that is in memory."""
        incoming = self.receive()
        incoming.write(data)
        return incoming.finish()

    def read(self, blob: str) -> bytes:
        """All bytes of one."""
        return (self.folder / blob).read_bytes()

    def chunks(self, blob: str, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from ``start`` up to ``stop``, some at a time."""
        with (self.folder / blob).open("rb") as stream:
            stream.seek(start)
            left = stop - start
            while left > 0:
                data = stream.read(min(CHUNK, left))
                if not data:
                    return
                left -= len(data)
                yield data

    def settle(self, attachments: dict[str, Any]) -> dict[str, Any]:
        """Store what a document carries inline; stubs stay as they are, to be settled by the writer.

        ``told`` in an entry is the ``revpos`` that it came with, for the writer to judge.

        Raises:
            Problem: 400 for data that is not base64 or an entry that is no object.
        """
        settled: dict[str, Any] = {}
        for name, entry in attachments.items():
            check_name(name)
            if isinstance(entry, Stored):
                settled[name] = {"content_type": entry.kind, "told": entry.revpos, **entry.entry}
                continue
            if not isinstance(entry, dict):
                raise bad_request("Attachment must be a JSON object")
            if entry.get("stub") or entry.get("follows"):
                settled[name] = {"stub": True, "revpos": entry.get("revpos")}
                continue
            data = entry.get("data")
            if not isinstance(data, str):
                raise bad_request(f"Attachment {name} has neither data nor stub")
            try:
                if len(data) % 4:
                    raise ValueError("the length is no multiple of four")
                raw = base64.b64decode(data, validate=True)
            except (binascii.Error, ValueError) as error:
                raise bad_request(f"Invalid attachment data for {name}") from error
            kind = entry.get("content_type", "application/octet-stream")
            if not isinstance(kind, str):
                raise bad_request(f"The content_type of attachment {name} is no string")
            if entry.get("encoding", "identity") != "identity":
                raw = _unzipped(name, raw)
            settled[name] = {"content_type": kind, "told": entry.get("revpos"), **self.put(raw)}
        return settled

    def prune(self, used: set[str], now: float) -> int:
        """Remove files that no stored revision names; returns how many.

        Args:
            used: the names of those that are.
            now: seconds since 1970; what is younger than an hour may belong to a write under way.
        """
        removed = 0
        if self.folder.exists():
            for path in self.folder.iterdir():
                if path.name not in used and path.stat().st_mtime < now - UPLOAD_SECONDS:
                    path.unlink(missing_ok=True)
                    removed += 1
        return removed


def _unzipped(name: str, data: bytes) -> bytes:
    unzip = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        plain = unzip.decompress(data, MAX_INLINE)
    except zlib.error as error:
        raise bad_request(f"Attachment {name} is not gzipped, as its encoding says") from error
    if unzip.unconsumed_tail:
        raise Problem(413, "attachment_too_large", name)
    return plain


def check_name(name: str) -> None:
    """Refuse an attachment's name that CouchDB refuses.

    Raises:
        Problem: 400 for an empty name or one that begins with an underscore.
    """
    if not name or name.startswith("_"):
        raise Problem(400, "bad_request", f"Attachment name '{name}' starts with prohibited character '_'")
