"""Many documents in one request: ``_bulk_docs``, ``_bulk_get``, ``_revs_diff``, ``_missing_revs``; POST of one."""

from __future__ import annotations

import uuid
from typing import Any

from orchestrator.embedded import codec, documents, revisions
from orchestrator.embedded.database import DatabaseStore
from orchestrator.embedded.documents import Draft
from orchestrator.embedded.http_documents import MAX_DOCUMENT, check_has_revision, outcome, prepare, saved, whole
from orchestrator.embedded.http_request import Request, Response, answer
from orchestrator.embedded.problems import Problem, bad_request, method_not_allowed, not_implemented, too_large
from orchestrator.embedded.updates import Refusal, Saved

_FEW = 200  # documents that are taken apart on the event loop: about a millisecond


async def post_document(request: Request, database: DatabaseStore) -> Response:
    """``POST /{db}``: a document whose id is in it, or is made here."""
    request.check_type()
    body = await request.json()
    draft = await prepare(request, database, body)
    if not draft.id:
        draft.id = new_id()
        draft.revision = None
    results = await database.write_async([draft], user=request.user.context(database.name))
    result = outcome(results[0])
    made = saved(request, database, result)
    made.status = max(201, made.status)
    made.headers = [pair for pair in made.headers if pair[0] != b"etag"]
    return made


def new_id() -> str:
    """A fresh document id."""
    return uuid.uuid4().hex


async def bulk_docs(request: Request, database: DatabaseStore) -> Response:
    """``POST /{db}/_bulk_docs``."""
    if request.method != "POST":
        raise method_not_allowed("POST")
    request.check_type()
    body = await request.json_object()
    listed: Any = body.get("docs")
    if listed is None:
        raise bad_request("POST body must include `docs` parameter.")
    if not isinstance(listed, list):
        raise bad_request("`docs` parameter must be an array.")
    if body.get("all_or_nothing"):
        raise Problem(417, "not_implemented", "all_or_nothing is not supported")
    new_edits = body.get("new_edits", True)
    if not isinstance(new_edits, bool):
        raise bad_request("`new_edits` parameter must be a boolean.")
    if database.name == "_users":
        drafts: list[Draft | None] = [None] * len(listed)
    elif len(listed) > _FEW:
        drafts = await request.app.thread(_plain, listed)
    else:
        drafts = _plain(listed)
    refused: dict[int, Refusal] = {}
    for index, found in enumerate(drafts):
        draft = found
        if draft is None:
            try:
                draft = drafts[index] = await prepare(request, database, listed[index])
            except Problem as problem:
                # A design document that may not be or cannot be stored is refused alone; what is no document at all
                # makes the whole request a bad one, as in CouchDB.
                alone = problem.status in (401, 403) or problem.error in ("invalid_design_doc", "compilation_error")
                if not alone:
                    raise
                refused[index] = Refusal(str(listed[index].get("_id")), None, problem)
                continue
        if not new_edits:
            check_has_revision(draft)
        if not draft.id:
            draft.id = new_id()
    sent = [draft for draft in drafts if draft is not None]
    results: list[Saved | Refusal] = []
    if sent:
        results = await database.write_async(sent, new_edits=new_edits, user=request.user.context(database.name))
    if refused:
        following = iter(results)
        results = [refused[index] if index in refused else next(following) for index in range(len(drafts))]
    if database.name == "_users":
        request.app.accounts.forget()
    return Response(201, _results(results, new_edits))


def _plain(listed: list[Any]) -> list[Draft | None]:
    """Drafts of those documents that need no more than a look at their form; None for the others."""
    drafts: list[Draft | None] = []
    for one in listed:
        draft = documents.draft(one)
        if len(draft.body) > MAX_DOCUMENT:
            raise too_large(draft.id)
        drafts.append(None if draft.id.startswith("_") or draft.attachments else draft)
    return drafts


def _results(results: list[Saved | Refusal], new_edits: bool) -> bytes:
    rows = []
    for result in results:
        if isinstance(result, Saved):
            if new_edits:
                rows.append(b'{"ok":true,"id":%b,"rev":"%b"}' % (codec.dumps(result.id), result.rev.encode()))
            continue
        row: dict[str, Any] = {"id": result.id}
        if not new_edits and result.rev:
            row["rev"] = result.rev
        row.update(error=result.problem.error, reason=result.problem.reason)
        rows.append(codec.dumps(row))
    return b"[" + b",".join(rows) + b"]\n"


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
    with_history = request.flag("revs")
    results = []
    for one in listed:
        identifier = one.get("id") if isinstance(one, dict) else None
        if not isinstance(identifier, str):
            results.append(
                b'{"id":null,"docs":[{"error":{"id":null,"rev":null,"error":"bad_request",'
                b'"reason":"document id missed"}}]}'
            )
            continue
        asked = one.get("rev")
        row = rows.get(identifier)
        shown = "undefined" if asked is None else str(asked)
        entries = []
        if row is None:
            entries.append(_absent(identifier, shown, "missing"))
        else:
            tree = row.revision_tree()
            try:
                wanted = [revisions.parse(asked)] if asked is not None else [revisions.parse(row.rev)]
            except Problem as problem:
                error = {"id": identifier, "rev": shown, "error": problem.error, "reason": problem.reason}
                wanted = []
                entries.append(codec.dumps({"error": error}))
            if request.flag("latest") and asked is not None:
                ends = [leaf.revision for leaf in tree.leaves() if wanted and wanted[0] in tree.path(leaf.revision)]
                wanted = ends or wanted
            for revision in wanted:
                found = row if revisions.text(revision) == row.rev else database.revision_row(row, revision)
                if found is None:
                    entries.append(_absent(identifier, shown, "missing"))
                    continue
                extra = []
                if with_history:
                    history = documents.revisions_member(tree.path(revision))
                    extra.append(("_revisions", codec.dumps(history)))
                entries.append(b'{"ok":' + whole(request, database, found, extra) + b"}")
        results.append(b'{"id":%b,"docs":[%b]}' % (codec.dumps(identifier), b",".join(entries)))
    return b'{"results":[' + b",".join(results) + b"]}\n"


def _absent(identifier: str, rev: str, reason: str) -> bytes:
    return codec.dumps({"error": {"id": identifier, "rev": rev, "error": "not_found", "reason": reason}})


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
    asked: dict[str, list[revisions.Revision]] = {}
    for identifier, revs in body.items():
        if not isinstance(revs, list):
            raise bad_request("Expected a list of revisions")
        asked[identifier] = [revisions.parse(rev) for rev in revs]
    rows = await request.app.thread(database.rows, list(asked), False)
    found = {}
    for identifier, wanted in asked.items():
        row = rows.get(identifier)
        unknown, ancestors = revisions.missing(row.revision_tree() if row else None, wanted)
        if unknown:
            found[identifier] = ([revisions.text(one) for one in unknown], [revisions.text(one) for one in ancestors])
    return found
