"""MIME multipart (RFC 2046) as CouchDB's replication uses it: several documents, or a document and its attachments.

Reading is a parser without input or output: bytes go in as they arrive, events come out, so that the server (which
reads asynchronously) and the replicator (which reads in a thread) share it. Nothing is held that need not be: an
attachment of any size passes in pieces.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field

MAX_HEAD = 64 * 1024  # bytes of one part's headers

_BOUNDARY = re.compile(r'boundary=(?:"([^"]+)"|([^\s;"]+))', re.IGNORECASE)
_FILENAME = re.compile(r'filename="((?:[^"\\]|\\.)*)"', re.IGNORECASE)


class BadMultipart(ValueError):
    """The bytes are no multipart of this boundary, or they end too early."""


@dataclass(slots=True)
class Part:
    """A part begins; its headers, names in lower case."""

    headers: dict[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The part's Content-Type with its parameters."""
        return self.headers.get("content-type", "")

    @property
    def filename(self) -> str | None:
        """The name in Content-Disposition, or None."""
        found = _FILENAME.search(self.headers.get("content-disposition", ""))
        return None if found is None else re.sub(r"\\(.)", r"\1", found[1])


@dataclass(slots=True)
class Data:
    """Some bytes of the part that began last."""

    content: bytes


@dataclass(slots=True)
class PartEnd:
    """The part that began last is complete."""


Event = Part | Data | PartEnd


def boundary_of(content_type: str) -> bytes:
    """The boundary that a Content-Type names.

    Raises:
        BadMultipart: it names none.
    """
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise BadMultipart("the Content-Type names no boundary")
    return (found[1] or found[2]).encode("latin-1", "replace")


def new_boundary() -> str:
    """A boundary that no content holds but by a miracle."""
    return secrets.token_hex(16)


def quoted(name: str) -> str:
    """A file name as it may stand between the quotes of a header; what could end the header is left out."""
    plain = "".join(character for character in name if character.isprintable())
    return plain.replace("\\", "\\\\").replace('"', '\\"')


class Parser:
    """Takes a multipart body apart as it arrives.

    Args:
        boundary: without the dashes in front.
    """

    def __init__(self, boundary: bytes) -> None:
        self._mark = b"\r\n--" + boundary
        # The first boundary may stand at the very beginning, without the line end that belongs to all others.
        self._buffer = bytearray(b"\r\n")
        self._take = self._preamble
        self.ended = False

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events that these bytes complete.

        Raises:
            BadMultipart: headers without an end.
        """
        self._buffer += data
        while not self.ended:
            before = self._take
            event = self._take()
            if event is not None:
                yield event
            elif before == self._take:
                return

    def close(self) -> None:
        """No more bytes will come.

        Raises:
            BadMultipart: the closing boundary has not come.
        """
        if not self.ended:
            raise BadMultipart("the multipart body ended before its closing boundary")

    def _preamble(self) -> Event | None:
        place = self._buffer.find(self._mark)
        if place < 0:
            del self._buffer[: max(0, len(self._buffer) - len(self._mark) + 1)]
            return None
        del self._buffer[: place + len(self._mark)]
        self._take = self._line
        return None

    def _line(self) -> Event | None:
        """What follows a boundary: two dashes for the end, or the end of the line."""
        if len(self._buffer) < 2:
            return None
        if self._buffer[:2] == b"--":
            self.ended = True
            return None
        place = self._buffer.find(b"\r\n")
        if place < 0:
            if len(self._buffer) > MAX_HEAD:
                raise BadMultipart("a boundary's line has no end")
            return None
        del self._buffer[:place]  # the line end stays: it is the first half of an empty head
        self._take = self._head
        return None

    def _head(self) -> Event | None:
        place = self._buffer.find(b"\r\n\r\n")
        if place < 0:
            if len(self._buffer) > MAX_HEAD:
                raise BadMultipart("a part's headers have no end")
            return None
        part = Part()
        for line in bytes(self._buffer[:place]).decode("utf-8", "replace").split("\r\n"):
            name, colon, value = line.partition(":")
            if colon:
                part.headers[name.strip().lower()] = value.strip()
        # The second line end stays: the boundary of an empty part begins with it.
        del self._buffer[: place + 2]
        self._take = self._first
        return part

    def _first(self) -> Event | None:
        if len(self._buffer) < len(self._mark):
            return None
        if not self._buffer.startswith(self._mark):
            del self._buffer[:2]
        self._take = self._body
        return None

    def _body(self) -> Event | None:
        place = self._buffer.find(self._mark)
        if place == 0:
            del self._buffer[: len(self._mark)]
            self._take = self._line
            return PartEnd()
        # What could be the beginning of a boundary waits for its rest.
        stop = place if place > 0 else len(self._buffer) - len(self._mark) + 1
        if stop <= 0:
            return None
        found = Data(bytes(self._buffer[:stop]))
        del self._buffer[:stop]
        return found
