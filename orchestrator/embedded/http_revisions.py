"""What replication asks of a database's revisions: ``open_revs``, ``_bulk_get``, ``_revs_diff``, ``_missing_revs``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orchestrator.embedded import attachment_parts, codec, documents, multipart, revisions
from orchestrator.embedded.database import DatabaseStore, Row
from orchestrator.embedded.http_request import MUST_REVALIDATE, Request, Response, answer
from orchestrator.embedded.problems import Problem, bad_request, method_not_allowed, missing, not_implemented
from orchestrator.embedded.revisions import Revision, RevisionTree


def accepts_multipart(request: Request) -> bool:
    """Whether an answer as ``multipart/mixed`` may be sent: CouchDB prefers it to JSON wherever it may."""
    accept = request.header(b"accept") or "*/*"
    kinds = {piece.split(";")[0].strip().lower() for piece in accept.split(",")}
    return bool(kinds & {"multipart/mixed", "multipart/*", "*/*"})


def newest(tree: RevisionTree, revision: Revision) -> list[Revision]:
    """The leaves that a revision has grown to (itself, if it is one or is not known), for ``latest=true``."""
    ends = [leaf.revision for leaf in tree.leaves() if revision in tree.path(leaf.revision)]
    return ends or [revision]


def history(tree: RevisionTree, revision: Revision) -> tuple[str, bytes]:
    """The special member ``_revisions``."""
    return "_revisions", codec.dumps(documents.revisions_member(tree.path(revision)))


# open_revs


def open_revisions(request: Request, database: DatabaseStore, row: Row | None) -> Response:
    """``GET /{db}/{docid}?open_revs=``: several revisions at once. Runs in a thread.

    Raises:
        Problem: 404 for ``open_revs=all`` of a document that is not there; 400 for what is no list of revisions.
    """
    asked = request.query["open_revs"]
    if row is None and asked == "all":
        raise missing()
    tree = row.revision_tree() if row is not None else RevisionTree()
    if asked == "all":
        wanted = [leaf.revision for leaf in tree.leaves()]
    else:
        listed = request.parsed("open_revs")
        if not isinstance(listed, list):
            raise bad_request("open_revs must be `all` or a JSON array of revisions")
        wanted = [revisions.parse(one) for one in listed]
    if request.flag("latest"):
        wanted = list(dict.fromkeys(end for revision in wanted for end in newest(tree, revision)))
    found = [(revision, None if row is None else database.revision_row(row, revision)) for revision in wanted]
    with_history = request.flag("revs")
    if accepts_multipart(request):
        boundary = multipart.new_boundary()
        headers = [(b"content-type", f'multipart/mixed; boundary="{boundary}"'.encode()), MUST_REVALIDATE]
        pieces = _mixed(request, database, tree, found, with_history, boundary.encode())
        return Response(200, b"", headers, attachment_parts.streamed(request, pieces))
    lines = []
    for revision, one in found:
        if one is None:
            lines.append(codec.dumps({"missing": revisions.text(revision)}))
            continue
        extra = [history(tree, revision)] if with_history else []
        lines.append(b'{"ok":' + attachment_parts.whole(request, database, one, extra) + b"}")
    return Response(200, b"[" + b",".join(lines) + b"]\n")


def _mixed(
    request: Request,
    database: DatabaseStore,
    tree: RevisionTree,
    found: list[tuple[Revision, Row | None]],
    with_history: bool,
    boundary: bytes,
) -> Iterator[bytes]:
    """The revisions as parts: a document alone as JSON, one whose attachments go along as ``multipart/related``."""
    for number, (revision, row) in enumerate(found):
        yield b"%b--%b\r\n" % (b"\r\n" if number else b"", boundary)
        if row is None:
            told = codec.dumps({"missing": revisions.text(revision)})
            yield b'Content-Type: application/json; error="true"\r\n\r\n' + told
            continue
        extra = [history(tree, revision)] if with_history else []
        newer = attachment_parts.after(request, row) if row.attachments else None
        if newer is None:
            yield b"Content-Type: application/json\r\n\r\n" + row.render(extra)
            continue
        inner = multipart.new_boundary()
        yield f'Content-Type: multipart/related; boundary="{inner}"\r\n\r\n'.encode()
        yield from attachment_parts.related(database, row, extra, newer, inner)
    yield b"%b--%b--" % (b"\r\n" if found else b"", boundary)


# _bulk_get


async def bulk_get(request: Request, database: DatabaseStore) -> Response:
    """``POST /{db}/_bulk_get``."""
    if request.method != "POST":
        raise method_not_allowed("POST")
    request.check_type()
    accept = request.header(b"accept") or "*/*"
    if "multipart" in accept and "application/json" not in accept:
        raise not_implemented("_bulk_get as multipart")
    listed = (await request.json_object()).get("docs")
    if not isinstance(listed, list):
        raise bad_request("Missing JSON list of 'docs'.")
    return Response(200, await request.app.thread(_bulk_get, request, database, listed))


def _bulk_get(request: Request, database: DatabaseStore, listed: list[Any]) -> bytes:
    identifiers = [one["id"] for one in listed if isinstance(one, dict) and isinstance(one.get("id"), str)]
    rows = database.rows(list(dict.fromkeys(identifiers)))
    results = []
    for one in listed:
        identifier = one.get("id") if isinstance(one, dict) else None
        if not isinstance(identifier, str):
            results.append(
                b'{"id":null,"docs":[{"error":{"id":null,"rev":null,"error":"bad_request",'
                b'"reason":"document id missed"}}]}'
            )
            continue
        entries = _entries(request, database, rows.get(identifier), identifier, one.get("rev"))
        results.append(b'{"id":%b,"docs":[%b]}' % (codec.dumps(identifier), b",".join(entries)))
    return b'{"results":[' + b",".join(results) + b"]}\n"


def _entries(request: Request, database: DatabaseStore, row: Row | None, identifier: str, asked: Any) -> list[bytes]:
    """The documents or errors that answer one line of a ``_bulk_get``."""
    shown = "undefined" if asked is None else str(asked)
    if row is None:
        return [_absent(identifier, shown)]
    with_history = request.flag("revs")
    if asked is None or (asked == row.rev and row.leaves == 1):
        # The winner, or the only leaf: nothing to be looked for in its tree.
        extra = [history(row.revision_tree(), revisions.parse(row.rev))] if with_history else []
        return [b'{"ok":' + attachment_parts.whole(request, database, row, extra) + b"}"]
    try:
        revision = revisions.parse(asked)
    except Problem as problem:
        error = {"id": identifier, "rev": shown, "error": problem.error, "reason": problem.reason}
        return [codec.dumps({"error": error})]
    tree = row.revision_tree()
    entries = []
    for wanted in newest(tree, revision) if request.flag("latest") else [revision]:
        found = row if revisions.text(wanted) == row.rev else database.revision_row(row, wanted)
        if found is None:
            entries.append(_absent(identifier, shown))
            continue
        extra = [history(tree, wanted)] if with_history else []
        entries.append(b'{"ok":' + attachment_parts.whole(request, database, found, extra) + b"}")
    return entries


def _absent(identifier: str, rev: str) -> bytes:
    return codec.dumps({"error": {"id": identifier, "rev": rev, "error": "not_found", "reason": "missing"}})


# _revs_diff


async def revs_diff(request: Request, database: DatabaseStore) -> Response:
    """``POST /{db}/_revs_diff``: which revisions a peer has that are not here."""
    unknown = await _unknown(request, database)
    found: dict[str, Any] = {}
    for identifier, (revs, ancestors) in unknown.items():
        found[identifier] = {"missing": revs, **({"possible_ancestors": ancestors} if ancestors else {})}
    return answer(found)


async def missing_revs(request: Request, database: DatabaseStore) -> Response:
    """``POST /{db}/_missing_revs``: the older form of ``_revs_diff``."""
    unknown = await _unknown(request, database)
    return answer({"missing_revs": {identifier: revs for identifier, (revs, _) in unknown.items()}})


async def _unknown(request: Request, database: DatabaseStore) -> dict[str, tuple[list[str], list[str]]]:
    if request.method != "POST":
        raise method_not_allowed("POST")
    request.check_type()
    body = await request.json_object()
    asked: dict[str, list[Revision]] = {}
    for identifier, revs in body.items():
        if not isinstance(revs, list):
            raise bad_request("Expected a list of revisions")
        asked[identifier] = [revisions.parse(rev) for rev in revs]
    return await request.app.thread(_compare, database, asked)


def _compare(database: DatabaseStore, asked: dict[str, list[Revision]]) -> dict[str, tuple[list[str], list[str]]]:
    rows = database.rows(list(asked), False)
    found = {}
    for identifier, wanted in asked.items():
        row = rows.get(identifier)
        unknown, ancestors = revisions.missing(row.revision_tree() if row else None, wanted)
        if unknown:
            found[identifier] = ([revisions.text(one) for one in unknown], [revisions.text(one) for one in ancestors])
    return found
