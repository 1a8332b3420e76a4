"""One document over HTTP: GET, HEAD, PUT, DELETE, COPY; also ``_local`` and design documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from orchestrator.embedded import attachment_parts, codec, documents, http_revisions, revisions, view_index
from orchestrator.embedded.database import DatabaseStore, Row
from orchestrator.embedded.documents import Draft
from orchestrator.embedded.http_request import JSON, MUST_REVALIDATE, Request, Response, etag_of
from orchestrator.embedded.problems import (
    Problem,
    bad_request,
    method_not_allowed,
    missing,
    not_implemented,
    too_large,
    wrong_type,
)
from orchestrator.embedded.revisions import Revision
from orchestrator.embedded.security import USER_PREFIX, hash_password, require_database_admin
from orchestrator.embedded.updates import Refusal, Saved

if TYPE_CHECKING:
    from orchestrator.embedded.http_app import Application

MAX_DOCUMENT = 8_000_000  # bytes of a document's JSON, attachments apart: CouchDB's max_document_size

_META = ("revs_info", "conflicts", "deleted_conflicts", "meta", "local_seq")


async def document(request: Request, database: DatabaseStore, identifier: str) -> Response:
    """``/{db}/{docid}``."""
    method = request.method
    if method in ("GET", "HEAD"):
        return await request.app.thread(read, request, database, identifier)
    if method == "PUT":
        documents.check_id(identifier)
        return await _put(request, database, identifier)
    if method == "DELETE":
        return await _delete(request, database, identifier)
    if method == "COPY":
        return await _copy(request, database, identifier)
    if method == "POST":
        kind = request.headers.get(b"content-type", b"").split(b";")[0].strip().lower()
        if kind != b"multipart/form-data":
            raise wrong_type("multipart/form-data")
        raise not_implemented("A document as a form")
    raise method_not_allowed("DELETE,GET,HEAD,POST,PUT,COPY")


# Reading


def read(request: Request, database: DatabaseStore, identifier: str) -> Response:
    """Answer a GET; runs in a thread."""
    if identifier.startswith("_local/"):
        stored = database.local(identifier)
        if stored is None:
            raise missing()
        return Response(200, documents.render(identifier, stored[0], False, stored[1]) + b"\n")
    check_reader(request, database, identifier)
    row = database.row(identifier)
    if "open_revs" in request.query:
        return http_revisions.open_revisions(request, database, row)
    if row is None:
        raise missing()
    found = select(request, database, row)
    headers = [JSON, MUST_REVALIDATE]
    if not any(request.query.get(name) == "true" for name in _META):
        headers.append(etag_of(found.rev))
        if matches(request, found.rev):
            return Response(304, b"", headers)
    extra = members(request, database, row, found)
    if found.attachments and "multipart/related" in (request.header(b"accept") or ""):
        after = attachment_parts.after(request, found)
        if after is not None:
            return attachment_parts.answer_related(request, database, found, extra, after)
    return Response(200, attachment_parts.whole(request, database, found, extra) + b"\n", headers)


def check_reader(request: Request, database: DatabaseStore, identifier: str) -> None:
    """In ``_users``, somebody may see only the document of their own.

    Raises:
        Problem: 404, as if there were none.
    """
    if database.name == "_users" and not request.user.is_admin and identifier != f"{USER_PREFIX}{request.user.name}":
        raise missing()


def select(request: Request, database: DatabaseStore, row: Row) -> Row:
    """The row at the revision that is asked for.

    Raises:
        Problem: 404 if that is not here, or if the document is deleted and none was named.
    """
    asked = request.query.get("rev")
    if asked is None:
        if row.deleted:
            raise missing("deleted")
        return row
    revision = revisions.parse(asked)
    if request.flag("latest"):
        tree = row.revision_tree()
        for leaf in tree.leaves():
            if revision in tree.path(leaf.revision):
                revision = leaf.revision
                break
    found = row if revisions.text(revision) == row.rev else database.revision_row(row, revision)
    if found is None:
        raise missing()
    return found


def matches(request: Request, tag: str) -> bool:
    """Whether If-None-Match names what would be sent."""
    given = request.header(b"if-none-match")
    if given is None:
        return False
    return any(piece.strip().removeprefix("W/").strip('"') in (tag, "*") for piece in given.split(","))


def members(request: Request, database: DatabaseStore, row: Row, found: Row) -> list[tuple[str, bytes]]:
    """The special members that the parameters ask for, encoded."""
    extra: list[tuple[str, bytes]] = []
    query = request.query
    if not query:
        return extra
    meta = request.flag("meta")
    revision = revisions.parse(found.rev)
    if request.flag("revs") or request.flag("revs_info") or meta:
        path = row.revision_tree().path(revision)
        if request.flag("revs"):
            extra.append(("_revisions", codec.dumps(documents.revisions_member(path))))
        if request.flag("revs_info") or meta:
            extra.append(("_revs_info", codec.dumps(_revisions_info(database, row, path))))
    if (request.flag("conflicts") or request.flag("deleted_conflicts") or meta) and row.leaves > 1:
        extra.extend(conflicts(row, request.flag("conflicts") or meta, request.flag("deleted_conflicts") or meta))
    if request.flag("local_seq"):
        extra.append(("_local_seq", codec.dumps(row.seq)))
    return extra


def conflicts(row: Row, live: bool = True, deleted: bool = False) -> list[tuple[str, bytes]]:
    """The members ``_conflicts`` and ``_deleted_conflicts``, left out where there are none."""
    losers = row.revision_tree().leaves()[1:]
    extra = []
    for name, wanted, state in (("_conflicts", live, False), ("_deleted_conflicts", deleted, True)):
        revs = [revisions.text(leaf.revision) for leaf in losers if bool(leaf.deleted) is state]
        if wanted and revs:
            extra.append((name, codec.dumps(revs)))
    return extra


def _revisions_info(database: DatabaseStore, row: Row, path: list[Revision]) -> list[dict[str, str]]:
    nodes = row.revision_tree().nodes
    with database.reading() as connection:
        info = []
        for revision in path:
            node = nodes[revision]
            here = connection.execute("SELECT 1 FROM bodies WHERE seq = ?", (node.body,)).fetchone()
            status = "missing" if not here else "deleted" if node.deleted else "available"
            info.append({"rev": revisions.text(revision), "status": status})
    return info


# Writing


async def prepare(request: Request, database: DatabaseStore, body: Any, identifier: str | None = None) -> Draft:
    """Make a draft of a request's document: form, size, rights, password hashing, inline attachments.

    Raises:
        Problem: as each of those checks says.
    """
    if database.name == "_users" and isinstance(body, dict):
        body = await _prepare_user(request, body, identifier)
    draft = documents.draft(body, identifier)
    if len(draft.body) > MAX_DOCUMENT:
        raise too_large(draft.id)
    if draft.id.startswith("_design/"):
        require_database_admin(request.user, database.security())
        if not draft.deleted:
            await request.app.thread(check_design, request.app, draft)
    if draft.attachments:
        draft.attachments = await request.app.thread(database.blobs.settle, draft.attachments)
    return draft


def check_design(app: Application, draft: Draft) -> None:
    """Refuse a design document whose parts have the wrong shape or whose functions do not compile.

    Raises:
        Problem: 400 ``invalid_design_doc`` or ``compilation_error``.
    """
    fields = codec.loads(draft.body)
    for name in ("views", "filters", "shows", "lists", "updates", "options"):
        if name in fields and not isinstance(fields[name], dict):
            raise Problem(400, "invalid_design_doc", f"`{name}` parameter must be an object.")
    if fields.get("views") and fields.get("language", "javascript") == "javascript":
        view_index.check_design({"_id": draft.id, **fields}, app.store.functions)


async def _prepare_user(request: Request, body: dict[str, Any], identifier: str | None) -> dict[str, Any]:
    name = identifier or body.get("_id")
    if not isinstance(name, str) or name.startswith(("_design/", "_local/")):
        return body
    if not request.user.is_admin and name != f"{USER_PREFIX}{request.user.name}":
        raise Problem(403, "forbidden", "You may only update your own user document.")
    made = await request.app.thread(hash_password, {**body, "_id": name})
    if not request.user.is_admin and sorted(made.get("roles", [])) != sorted(request.user.roles):
        raise Problem(403, "forbidden", "Only _admin may edit roles")
    return made


def outcome(result: Saved | Refusal) -> Saved:
    """The success of a single write.

    Raises:
        Problem: its refusal.
    """
    if isinstance(result, Refusal):
        raise result.problem
    return result


def saved(request: Request, database: DatabaseStore, result: Saved, status: int = 201) -> Response:
    """The answer to a successful write."""
    if request.query.get("batch") == "ok":
        return Response(202, codec.dumps({"ok": True, "id": result.id}) + b"\n")
    if database.name == "_users":
        request.app.accounts.forget()
    body = b'{"ok":true,"id":%b,"rev":"%b"}\n' % (codec.dumps(result.id), result.rev.encode())
    if status == 201 and result.deleted:
        status = 200
    made = Response(status, body, [JSON, MUST_REVALIDATE, etag_of(result.rev)])
    if status == 201:
        made.with_header("Location", request.location(database.name, result.id))
    return made


def settle_revision(request: Request, draft: Draft) -> None:
    """Take the revision from the body, the query or If-Match, which must not differ.

    Raises:
        Problem: 400 if they do.
    """
    asked = request.query.get("rev")
    if asked is not None:
        revision = revisions.parse(asked)
        if draft.revision is not None and draft.revision != revision:
            raise bad_request("Document rev from request body and query string have different values")
        draft.revision = revision
    matched = request.header(b"if-match")
    if matched is not None:
        revision = revisions.parse(matched.strip().strip('"'))
        if draft.revision is not None and draft.revision != revision:
            raise bad_request("Document rev and etag have different values")
        draft.revision = revision


async def _put(request: Request, database: DatabaseStore, identifier: str) -> Response:
    new_edits = request.flag("new_edits", True)
    kind = request.header(b"content-type") or ""
    if kind.lower().startswith("multipart/related"):
        body = await attachment_parts.receive(request, database, kind)
    elif kind.lower().startswith("multipart/"):
        raise wrong_type("multipart/related")
    else:
        body = await request.json()
    draft = await prepare(request, database, body, identifier)
    settle_revision(request, draft)
    if not new_edits:
        check_has_revision(draft)
    results = await database.write_async([draft], new_edits=new_edits, user=request.user.context(database.name))
    return saved(request, database, outcome(results[0]))


def check_has_revision(draft: Draft) -> None:
    """Refuse a draft that comes with ``new_edits=false`` and no revision.

    Raises:
        Problem: 400.
    """
    if draft.revision is None:
        raise bad_request("When `new_edits: false`, the document needs `_rev` or `_revisions` specified")


async def _delete(request: Request, database: DatabaseStore, identifier: str) -> Response:
    await request.app.thread(_must_exist, database, identifier)
    asked = request.query.get("rev")
    body: dict[str, Any] = {"_deleted": True}
    if asked is not None:
        body["_rev"] = asked
    draft = await prepare(request, database, body, identifier)
    settle_revision(request, draft)
    results = await database.write_async([draft], user=request.user.context(database.name))
    return saved(request, database, outcome(results[0]), 200)


def _must_exist(database: DatabaseStore, identifier: str) -> None:
    if identifier.startswith("_local/"):
        if database.local(identifier) is None:
            raise missing()
        return
    row = database.row(identifier)
    if row is None:
        raise missing()
    if row.deleted:
        raise missing("deleted")


async def _copy(request: Request, database: DatabaseStore, identifier: str) -> Response:
    header = request.header(b"destination")
    if not header:
        raise bad_request("Destination header is mandatory for COPY.")
    if header.startswith(("http://", "https://")):
        raise bad_request("Destination URL must be relative.")
    target, _, query = header.partition("?")
    revision = query.removeprefix("rev=") if query.startswith("rev=") else None
    target = documents.check_id(unquote(target))
    matched = request.header(b"if-match")
    if matched is not None and "rev" not in request.query:
        request.query["rev"] = matched.strip().strip('"')
    source = await request.app.thread(_source, request, database, identifier)
    draft = Draft(target, revisions.parse(revision) if revision else None, False, source.body or b"{}")
    if source.attachments:
        draft.attachments = codec.loads(source.attachments)
    if target.startswith("_design/"):
        require_database_admin(request.user, database.security())
        await request.app.thread(check_design, request.app, draft)
    results = await database.write_async([draft], user=request.user.context(database.name))
    return saved(request, database, outcome(results[0]))


def _source(request: Request, database: DatabaseStore, identifier: str) -> Row:
    if identifier.startswith("_local/"):
        stored = database.local(identifier)
        if stored is None:
            raise missing()
        return Row(0, identifier, stored[0], False, 0, 1, b"[]", stored[1], None)
    row = database.row(identifier)
    if row is None:
        raise missing()
    return select(request, database, row)


