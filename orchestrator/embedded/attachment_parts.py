"""Documents together with their attachments: inline as base64, or as ``multipart/related``, out and in.

``attachments=true`` asks for the contents of all, ``atts_since=[revisions]`` for those that are newer than the newest
of these revisions in the document's history: so a replicator fetches only what its target cannot have.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

from orchestrator.embedded import attachments, codec, documents, multipart, revisions
from orchestrator.embedded.attachments import Incoming, Stored
from orchestrator.embedded.database import DatabaseStore, Row
from orchestrator.embedded.http_request import MUST_REVALIDATE, Request, Response
from orchestrator.embedded.multipart import BadMultipart, Data, Parser, Part
from orchestrator.embedded.problems import Problem, bad_request


def after(request: Request, row: Row) -> int | None:
    """Which attachments' contents are asked for: those whose ``revpos`` is greater than this; None for none.

    Raises:
        Problem: 400 for an ``atts_since`` that is no list of revisions.
    """
    if "atts_since" in request.query:
        listed = request.parsed("atts_since")
        if not isinstance(listed, list):
            raise bad_request("atts_since must be a JSON array of revisions")
        known = {revisions.parse(one) for one in listed}
        path = row.revision_tree().path(revisions.parse(row.rev))
        return next((revision[0] for revision in path if revision in known), 0)
    return 0 if request.flag("attachments") else None


def with_data(database: DatabaseStore, row: Row, newer: int) -> dict[str, Any]:
    """The ``_attachments`` member: contents in base64 for the newer ones, stubs for the others."""
    shown = documents.stubs(row.attachments or b"{}")
    for name, entry in codec.loads(row.attachments or b"{}").items():
        if entry["revpos"] > newer:
            public = {key: value for key, value in shown[name].items() if key not in ("length", "stub")}
            public["data"] = base64.b64encode(database.blobs.read(entry["blob"])).decode()
            shown[name] = public
    return shown


def whole(request: Request, database: DatabaseStore, row: Row, extra: list[tuple[str, bytes]]) -> bytes:
    """The document as JSON, with the contents of those attachments that are asked for."""
    newer = after(request, row) if row.attachments else None
    if newer is None:
        return row.render(extra)
    shown = codec.dumps(with_data(database, row, newer))
    return row._replace(attachments=None).render([*extra, ("_attachments", shown)])


def related(
    database: DatabaseStore, row: Row, extra: list[tuple[str, bytes]], newer: int, boundary: str
) -> Iterator[bytes]:
    """The body of a ``multipart/related`` document: its JSON, then the contents of the newer attachments."""
    shown = documents.stubs(row.attachments or b"{}")
    sent = [(name, entry) for name, entry in codec.loads(row.attachments or b"{}").items() if entry["revpos"] > newer]
    for name, _ in sent:
        del shown[name]["stub"]
        shown[name]["follows"] = True
    # What follows comes in the order of its parts.
    ordered = {name: shown[name] for name, _ in sent} | shown
    plain = row._replace(attachments=None).render([*extra, ("_attachments", codec.dumps(ordered))])
    mark = boundary.encode()
    yield b"--%b\r\nContent-Type: application/json\r\n\r\n%b" % (mark, plain)
    for name, entry in sent:
        head = (
            f'Content-Disposition: attachment; filename="{multipart.quoted(name)}"\r\n'
            f"Content-Type: {multipart.quoted(str(entry['content_type']))}\r\n"
            f"Content-Length: {entry['length']}\r\n\r\n"
        )
        yield b"\r\n--%b\r\n%b" % (mark, head.encode())
        yield from database.blobs.chunks(entry["blob"], 0, int(entry["length"]))
    yield b"\r\n--%b--" % mark


def answer_related(
    request: Request, database: DatabaseStore, row: Row, extra: list[tuple[str, bytes]], newer: int
) -> Response:
    """The answer to a GET that wants the document and its attachments in one multipart body."""
    boundary = multipart.new_boundary()
    headers = [(b"content-type", f'multipart/related; boundary="{boundary}"'.encode()), MUST_REVALIDATE]
    return Response(200, b"", headers, streamed(request, related(database, row, extra, newer, boundary)))


async def streamed(request: Request, pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Pieces that are read from the disk, one after the other, in a thread."""
    while (data := await request.app.thread(next, pieces, None)) is not None:
        yield data


# Receiving


class _Receiver:
    """Turns the events of a request's body into a document whose attachments are stored."""

    def __init__(self, database: DatabaseStore) -> None:
        self._database = database
        self._json: bytearray | None = None
        self._document: dict[str, Any] | None = None
        self._waiting: list[str] = []
        self._name = ""
        self._incoming: Incoming | None = None
        self._unzip: Any = None

    def take(self, events: list[multipart.Event]) -> None:
        """Take what has come; writes to the disk, so it belongs into a thread."""
        for event in events:
            if isinstance(event, Part):
                self._begin(event)
            elif isinstance(event, Data):
                self._more(event.content)
            else:
                self._end()

    def _begin(self, part: Part) -> None:
        if self._document is None:
            self._json = bytearray()
            return
        if not self._waiting:
            raise bad_request("The multipart body has more parts than attachments that follow")
        name = part.filename
        self._name = name if name in self._waiting else self._waiting[0]
        self._waiting.remove(self._name)
        self._incoming = self._database.blobs.receive()
        zipped = self._entry().get("encoding", "identity") == "gzip"
        self._unzip = zlib.decompressobj(zlib.MAX_WBITS | 16) if zipped else None

    def _entry(self) -> dict[str, Any]:
        assert self._document is not None
        entry: dict[str, Any] = self._document["_attachments"][self._name]
        return entry

    def _more(self, content: bytes) -> None:
        if self._incoming is None:
            assert self._json is not None
            self._json += content
            if len(self._json) > attachments.MAX_INLINE:
                raise Problem(413, "too_large", "the request entity is too large")
            return
        try:
            self._incoming.write(self._unzip.decompress(content) if self._unzip else content)
        except zlib.error as error:
            raise bad_request(f"Attachment {self._name} is not gzipped, as its encoding says") from error

    def _end(self) -> None:
        if self._incoming is None:
            self._open(bytes(self._json or b""))
            return
        stored = self._incoming.finish()
        self._incoming = None
        entry = self._entry()
        told = entry.get("length")
        if isinstance(told, int) and told != stored["length"]:
            raise bad_request(f"Attachment {self._name} has {stored['length']} bytes where its length says {told}")
        digest = entry.get("digest")
        if self._unzip is None and isinstance(digest, str) and digest.startswith("md5-") and digest != stored["digest"]:
            raise Problem(400, "content_md5_mismatch", "Possible message corruption.")
        kind = entry.get("content_type", "application/octet-stream")
        assert self._document is not None
        self._document["_attachments"][self._name] = Stored(str(kind), entry.get("revpos"), stored)

    def _open(self, text: bytes) -> None:
        try:
            document = codec.loads(text)
        except codec.InvalidJson as error:
            raise bad_request("invalid UTF-8 JSON") from error
        if not isinstance(document, dict):
            raise bad_request("Document must be a JSON object")
        listed = document.get("_attachments", {})
        if isinstance(listed, dict):
            for name, entry in listed.items():
                if isinstance(entry, dict) and entry.get("follows") is True:
                    attachments.check_name(name)
                    self._waiting.append(name)
        self._document = document

    def document(self) -> dict[str, Any]:
        """The document, once all has come.

        Raises:
            Problem: 400 if it has not.
        """
        if self._document is None:
            raise bad_request("The multipart body holds no document")
        if self._waiting:
            raise bad_request(f"The multipart body ends before attachment {self._waiting[0]}")
        return self._document

    def abandon(self) -> None:
        """Throw away what was half received."""
        if self._incoming is not None:
            self._incoming.abandon()


async def receive(request: Request, database: DatabaseStore, kind: str) -> dict[str, Any]:
    """The document of a ``multipart/related`` request, its attachments stored and named in their entries.

    Raises:
        Problem: 400 for a body that is cut or does not fit the document; 413 for one that is too large.
    """
    receiver = _Receiver(database)
    try:
        parser = Parser(multipart.boundary_of(kind))
        async for data in request.chunks():
            if not parser.ended:
                await request.app.thread(receiver.take, list(parser.feed(data)))
        parser.close()
    except BadMultipart as error:
        receiver.abandon()
        raise bad_request(f"The multipart body cannot be read: {error}") from error
    except BaseException:
        receiver.abandon()
        raise
    return receiver.document()


