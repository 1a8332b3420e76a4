"""Attachments on their own: GET with ranges, PUT as a stream, DELETE."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

from orchestrator.embedded import attachments, codec, documents, revisions
from orchestrator.embedded.database import DatabaseStore, Row
from orchestrator.embedded.documents import Draft
from orchestrator.embedded.http_documents import check_reader, matches, outcome, saved, select, settle_revision
from orchestrator.embedded.http_request import Request, Response
from orchestrator.embedded.problems import Problem, conflict, method_not_allowed, missing, not_implemented
from orchestrator.embedded.security import require_database_admin

# A type comes from whoever wrote the document: it must not end the header it stands in.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")
_NOT_FOUND = "Document is missing attachment"


async def attachment(request: Request, database: DatabaseStore, identifier: str, name: str) -> Response:
    """``/{db}/{docid}/{attname}``."""
    if request.method in ("GET", "HEAD"):
        return await _get(request, database, identifier, name)
    if request.method not in ("PUT", "DELETE"):
        raise method_not_allowed("DELETE,GET,HEAD,PUT")
    if identifier.startswith("_design/"):
        require_database_admin(request.user, database.security())
    if request.method == "PUT":
        return await _put(request, database, identifier, name)
    return await _delete(request, database, identifier, name)


async def _get(request: Request, database: DatabaseStore, identifier: str, name: str) -> Response:
    entry = await request.app.thread(_entry, request, database, identifier, name)
    tag = str(entry["digest"]).removeprefix("md5-")
    length = int(entry["length"])
    kind = str(entry["content_type"])
    headers = [
        (b"content-type", _UNPRINTABLE.sub(" ", kind).encode("utf-8")),
        (b"content-security-policy", b"sandbox"),
        (b"etag", f'"{tag}"'.encode()),
        (b"cache-control", b"must-revalidate"),
        (b"content-md5", tag.encode()),
        (b"accept-ranges", b"none" if _is_text(kind) else b"bytes"),
    ]
    if matches(request, tag):
        return Response(304, b"", headers)
    span = None if _is_text(kind) else _range(request, length)
    start, stop = span or (0, length)
    headers.append((b"content-length", b"%d" % (stop - start)))
    if span is not None:
        headers.append((b"content-range", f"bytes {start}-{stop - 1}/{length}".encode()))
    status = 200 if span is None else 206
    if request.method == "HEAD":
        return Response(status, b"", headers, _nothing())
    return Response(status, b"", headers, _stream(request, database, str(entry["blob"]), start, stop))


def _is_text(kind: str) -> bool:
    # What CouchDB's default ``compressible_types`` stores zipped, and therefore without ranges.
    return kind.startswith("text/") or kind.split(";")[0] in (
        "application/javascript", "application/json", "application/xml",
    )  # fmt: skip


async def _nothing() -> AsyncIterator[bytes]:
    nothing: list[bytes] = []
    for piece in nothing:
        yield piece


async def _stream(
    request: Request, database: DatabaseStore, blob: str, start: int, stop: int
) -> AsyncIterator[bytes]:
    chunks = database.blobs.chunks(blob, start, stop)
    while (data := await request.app.thread(next, chunks, None)) is not None:
        yield data


def _range(request: Request, length: int) -> tuple[int, int] | None:
    """The one range that is asked for, or None for the whole."""
    header = request.header(b"range")
    if header is None or not header.startswith("bytes=") or "," in header:
        return None
    first, dash, last = header.removeprefix("bytes=").strip().partition("-")
    try:
        if not dash:
            return None
        if first == "0" and not last:
            return None
        if not first:
            start, stop = max(0, length - int(last)), length
        else:
            start, stop = int(first), min(length, int(last) + 1) if last else length
    except ValueError:
        return None
    if start >= length or start >= stop:
        raise Problem(416, "requested_range_not_satisfiable", "Requested range not satisfiable")
    return start, stop


def _entry(request: Request, database: DatabaseStore, identifier: str, name: str) -> dict[str, Any]:
    check_reader(request, database, identifier)
    row = database.row(identifier)
    if row is None:
        raise missing()
    found = select(request, database, row)
    entries = codec.loads(found.attachments) if found.attachments else {}
    if name not in entries:
        raise missing(_NOT_FOUND)
    entry: dict[str, Any] = entries[name]
    return entry


def _current(request: Request, database: DatabaseStore, identifier: str, draft: Draft) -> Row | None:
    """The revision that an attachment is put on or taken from: its body and other attachments go into the new one."""
    row = database.row(identifier)
    if row is None:
        if draft.revision is not None:
            raise Problem(409, "not_found", "missing_rev")
        return None
    if draft.revision is None:
        if not row.deleted:
            raise conflict()
        return None
    found = row if revisions.text(draft.revision) == row.rev else database.revision_row(row, draft.revision)
    if found is None:
        raise Problem(409, "not_found", "missing_rev")
    return found


async def _put(request: Request, database: DatabaseStore, identifier: str, name: str) -> Response:
    attachments.check_name(name)
    documents.check_id(identifier)
    draft = Draft(identifier, None, False, b"{}")
    settle_revision(request, draft)
    encoding = (request.header(b"content-encoding") or "identity").strip().lower()
    if encoding == "gzip":
        raise not_implemented("An attachment that is sent gzipped")
    if encoding != "identity":
        raise Problem(415, "bad_content_type", "Only gzip and identity content-encodings are supported")
    incoming = await request.app.thread(database.blobs.receive)
    try:
        async for data in request.chunks():
            await request.app.thread(incoming.write, data)
        stored = await request.app.thread(incoming.finish)
        expected = request.header(b"content-md5")
        if expected is not None and stored["digest"] != f"md5-{expected}":
            raise Problem(400, "content_md5_mismatch", "Possible message corruption.")
    except BaseException:
        incoming.abandon()
        raise
    current = await request.app.thread(_current, request, database, identifier, draft)
    kind = request.header(b"content-type") or "application/octet-stream"
    others = codec.loads(current.attachments) if current is not None and current.attachments else {}
    draft.body = (current.body or b"{}") if current is not None else b"{}"
    draft.attachments = {**others, name: {"content_type": kind, **stored}}
    made = await _write(request, database, draft, 201)
    made.headers = [pair for pair in made.headers if pair[0] not in (b"location", b"etag")]
    return made.with_header("Location", request.location(database.name, identifier, name))


async def _delete(request: Request, database: DatabaseStore, identifier: str, name: str) -> Response:
    draft = Draft(identifier, None, False, b"{}")
    settle_revision(request, draft)
    if draft.revision is None:
        # Without a revision the answer depends on what is there: nothing to delete, or a conflict.
        await request.app.thread(_entry, request, database, identifier, name)
    current = await request.app.thread(_current, request, database, identifier, draft)
    if current is None:
        raise missing()
    others = codec.loads(current.attachments) if current.attachments else {}
    if name not in others:
        raise missing(_NOT_FOUND)
    del others[name]
    draft.body = current.body or b"{}"
    draft.attachments = others
    return await _write(request, database, draft, 200)


async def _write(request: Request, database: DatabaseStore, draft: Draft, status: int) -> Response:
    results = await database.write_async([draft], user=request.user.context(database.name))
    return saved(request, database, outcome(results[0]), status)
