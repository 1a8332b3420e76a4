"""Documents with attachments on their way from one end of a replication to the other, one at a time, unpacked.

They come as ``multipart/mixed``, with only those attachments that the target cannot have (``atts_since``), and go as
``multipart/related``. An attachment passes through a temporary file once it is larger than a megabyte.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from tempfile import SpooledTemporaryFile
from typing import Any

from orchestrator.embedded import codec, multipart
from orchestrator.embedded.multipart import BadMultipart, Data, Parser, Part
from orchestrator.embedded.peer import BLOCK, Peer, PeerError
from orchestrator.embedded.replication_log import Stats

IN_MEMORY = 1024 * 1024  # bytes of an attachment that are held in memory
_ANCESTORS = 50  # revisions named in atts_since, so that the URL does not grow beyond what servers take
_REFUSED = (400, 401, 403, 404, 413, 415)


class _Carried:
    """One revision with the contents of its attachments."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.text = bytearray()
        self.files: list[tuple[Part, SpooledTemporaryFile[bytes]]] = []

    def begin(self, part: Part) -> None:
        if self.text:
            file = SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - the stack closes it
            self.files.append((part, self._stack.enter_context(file)))

    def more(self, content: bytes) -> None:
        if self.files:
            self.files[-1][1].write(content)
        else:
            self.text += content

    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = codec.loads(bytes(self.text))
        return found


def carry(
    source: Peer, target: Peer, name: str, revs: list[str], ancestors: list[str], stats: Stats
) -> Iterator[dict[str, Any]]:
    """Take revisions of one document over; those without contents of attachments are given back for a bulk write.

    Raises:
        PeerError: one end failed.
    """
    with ExitStack() as stack:
        for carried in _received(source, name, revs, ancestors, stack):
            try:
                document = carried.document()
            except codec.InvalidJson as error:
                raise PeerError("invalid_json", f"document {name!r} cannot be read") from error
            if "missing" in document and "_id" not in document:
                continue
            stats.docs_read += 1
            if not carried.files:
                yield document
                continue
            answer = _sent(target, name, carried)
            if answer.status == 412 and ancestors:
                # The target lacks what its ancestors seemed to promise: all contents, then.
                stats.docs_read -= 1
                yield from carry(source, target, name, [document["_rev"]], [], stats)
            elif answer.status in _REFUSED:
                stats.doc_write_failures += 1
            elif answer.status >= 300:
                raise answer.failure()
            else:
                stats.docs_written += 1


def _received(source: Peer, name: str, revs: list[str], ancestors: list[str], stack: ExitStack) -> list[_Carried]:
    query = {"revs": "true", "latest": "true", "open_revs": codec.dumps(revs).decode()}
    query["atts_since"] = codec.dumps(ancestors[-_ANCESTORS:]).decode()
    path = source.path(name, query=query)
    with source.open("GET", path, headers={"Accept": "multipart/mixed, application/json;q=0.5"}) as response:
        kind = response.headers.get("Content-Type", "")
        if response.status == 404:
            return []  # it is gone altogether
        if response.status >= 300:
            raise PeerError("unexpected_answer", f"document {name!r}: status {response.status}", response.status)
        if kind.startswith("multipart/"):
            try:
                return _from_parts(source.pieces(response), kind, stack)
            except BadMultipart as error:
                raise PeerError("cut", f"document {name!r}: {error}") from error
        content = b"".join(source.pieces(response))
    return [_fetched(source, name, one.get("ok", one), stack) for one in codec.loads(content)]


def _fetched(source: Peer, name: str, document: dict[str, Any], stack: ExitStack) -> _Carried:
    """A revision from a source that knows no multipart, as PouchDB's server: its attachments come one by one."""
    stubs = [key for key, entry in document.get("_attachments", {}).items() if "data" not in entry]
    for key in stubs:
        del document["_attachments"][key]["stub"]
        document["_attachments"][key]["follows"] = True
    carried = _Carried(stack)
    carried.text += codec.dumps(document)
    for key in stubs:
        path = source.path(name, key, query={"rev": document["_rev"]})
        with source.open("GET", path, headers={"Accept": "*/*"}) as response:
            if response.status >= 300:
                words = f"attachment {key!r} of document {name!r}: status {response.status}"
                raise PeerError("unexpected_answer", words, response.status)
            head = {"content-disposition": f'attachment; filename="{multipart.quoted(key)}"'}
            head["content-type"] = str(document["_attachments"][key].get("content_type", ""))
            carried.begin(Part(head))
            for piece in source.pieces(response):
                carried.more(piece)
    return carried


def _from_parts(pieces: Iterator[bytes], kind: str, stack: ExitStack) -> list[_Carried]:
    outer = Parser(multipart.boundary_of(kind))
    inner: Parser | None = None
    found: list[_Carried] = []
    for piece in pieces:
        for event in outer.feed(piece):
            if isinstance(event, Part):
                found.append(_Carried(stack))
                nested = event.kind.startswith("multipart/related")
                inner = Parser(multipart.boundary_of(event.kind)) if nested else None
            elif isinstance(event, Data):
                if inner is None:
                    found[-1].more(event.content)
                    continue
                for deeper in inner.feed(event.content):
                    if isinstance(deeper, Part):
                        found[-1].begin(deeper)
                    elif isinstance(deeper, Data):
                        found[-1].more(deeper.content)
            elif inner is not None:
                inner.close()
    outer.close()
    return found


def _sent(target: Peer, name: str, carried: _Carried) -> Any:
    """PUT one revision with its attachments; the answer, whatever its status."""
    boundary = multipart.new_boundary()
    mark = boundary.encode()
    document = carried.document()
    pieces: list[bytes | SpooledTemporaryFile[bytes]] = []
    following = [key for key, entry in document.get("_attachments", {}).items() if entry.get("follows")]
    pieces.append(b"--%b\r\nContent-Type: application/json\r\n\r\n%b" % (mark, bytes(carried.text)))
    length = len(pieces[0])  # type: ignore[arg-type]
    for number, (part, file) in enumerate(carried.files):
        size = file.seek(0, 2)
        shown = part.filename if part.filename is not None else following[number]
        head = f'\r\n--{boundary}\r\nContent-Disposition: attachment; filename="{multipart.quoted(shown)}"\r\n'
        for key in ("content-type", "content-encoding"):
            if key in part.headers:
                head += f"{key}: {multipart.quoted(part.headers[key])}\r\n"
        encoded = f"{head}Content-Length: {size}\r\n\r\n".encode()
        pieces += [encoded, file]
        length += len(encoded) + size
    end = b"\r\n--%b--" % mark
    pieces.append(end)
    length += len(end)

    def body() -> Iterator[bytes]:
        for piece in pieces:
            if isinstance(piece, bytes):
                yield piece
                continue
            piece.seek(0)
            while block := piece.read(BLOCK):
                yield block

    headers = {"Content-Type": f'multipart/related; boundary="{boundary}"', "Content-Length": str(length)}
    return target.send(name, query={"new_edits": "false"}, body=body, headers=headers)
