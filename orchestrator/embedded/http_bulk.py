"""Many documents written in one request: ``_bulk_docs``; POST of one."""

from __future__ import annotations

import uuid
from typing import Any

from orchestrator.embedded import codec, documents
from orchestrator.embedded.database import DatabaseStore
from orchestrator.embedded.documents import Draft
from orchestrator.embedded.http_documents import MAX_DOCUMENT, check_has_revision, outcome, prepare, saved
from orchestrator.embedded.http_request import Request, Response
from orchestrator.embedded.problems import Problem, bad_request, method_not_allowed, too_large
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
