"""Finding the documents that a person means, in the database, in pages: views by run, step or status, or ``_find``."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from orchestrator.chain import Chain
from orchestrator.engine.pages import pages
from orchestrator.errors import DatabaseError, SettingsError
from orchestrator.selection import Selection, fits
from orchestrator.transitions import Kind, parse

#: Documents read in one request.
PAGE = 500


class TooMany(SettingsError):
    """More documents fit than the asker can deal with."""


def choose(
    database: Any, chain: Chain, selection: Selection, whole: Any = None, most: int | None = None
) -> list[str]:
    """The ids of the documents that fit, in the order of the source that they are read from.

    Ids that a person named come back whatever stands there: what cannot be done to one is said of it, and not hidden.
    ``whole`` is the database itself where ``database`` is a lane's view of it: a query speaks of documents as they are.
    Raises SettingsError where nothing was said, TooMany where more than ``most`` fit, ChainError for an unknown step,
    and what the database raises.
    """
    if selection.empty:
        raise SettingsError("say which documents: their ids, or --run, --runs, --status, --step, --query, --all")
    _check(chain, selection)
    if selection.documents and not _narrowed(selection):
        return list(dict.fromkeys(selection.documents))
    found: dict[str, dict[str, Any]] = {}
    whole = whole or database
    for document in _source(database, chain, selection, whole):
        if fits(selection, chain, document):
            found.setdefault(str(document["_id"]), document)
        if most is not None and len(found) > most:
            raise TooMany(f"more than {most} documents fit")
    names = set(found)
    if selection.documents and (selection.query is not None or _by_run(selection)):
        names &= set(selection.documents)
    if selection.query is not None and _by_run(selection):
        names &= set(_asked(whole, chain, selection.query))
    return [name for name in found if name in names]


def _check(chain: Chain, selection: Selection) -> None:
    """Raise ChainError for a step that is none and SettingsError for such a status, before anything is read."""
    for name in (selection.step, selection.done):
        if name:
            chain.step(name)
    kinds = [kind.value for kind in Kind]
    for status in selection.statuses:
        if status not in kinds and parse(status) is None:
            near = difflib.get_close_matches(status.lower(), kinds, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(kinds)}, and 'proc 1 in progress'"
            raise SettingsError(f"there is no status {status!r}: {hint}")


def _by_run(selection: Selection) -> bool:
    return bool(selection.runs or selection.first_run or selection.last_run)


def _narrowed(selection: Selection) -> bool:
    """Whether more was said than ids."""
    return bool(_by_run(selection) or selection.statuses or selection.step or selection.done) or (
        selection.query is not None
    )


def _source(database: Any, chain: Chain, selection: Selection, whole: Any) -> Iterator[dict[str, Any]]:
    """Documents from the narrowest source there is."""
    if _by_run(selection):
        for run in selection.runs:
            yield from _rows(database, "pages/files", startkey=[run], endkey=[run, {}])
        if selection.first_run or selection.last_run:
            first = [selection.first_run] if selection.first_run else None
            last = [selection.last_run, {}] if selection.last_run else None
            try:
                yield from _rows(database, "pages/files", startkey=first, endkey=last)
            except DatabaseError as error:
                if "query_parse_error" not in str(error):
                    raise
                # Only the database knows its order of names: it refuses a range that ends before it begins.
                raise SettingsError(
                    f"the range of runs ends before it begins: {selection.first_run!r} comes after "
                    f"{selection.last_run!r}"
                ) from None
    elif selection.query is not None or selection.documents:
        found = selection.documents if selection.query is None else _asked(whole, chain, selection.query)
        names = list(dict.fromkeys(found))
        for start in range(0, len(names), PAGE):
            read = database.get_many(names[start : start + PAGE])
            yield from (document for document in read.values() if document is not None)
    elif selection.step or selection.done:
        number = chain.step(selection.step or selection.done).number
        states = ["ready", "waiting", "queued", "in progress", "failed"] if selection.step else ["done"]
        for state in states:
            yield from _rows(database, "pages/steps", startkey=[number, state], endkey=[number, state])
    else:
        yield from _rows(database, "pages/status")


def _rows(database: Any, view: str, **params: Any) -> Iterator[dict[str, Any]]:
    """The documents of a view's rows, page by page."""
    for rows in pages(database, view, PAGE, include_docs=True, **params):
        yield from (row.doc for row in rows if row.doc is not None)


def _asked(database: Any, chain: Chain, query: Any) -> Iterator[str]:
    """The ids that a Mango selector finds among the documents of the chain, page by page in their order."""
    last = ""
    while True:
        # A selector without a condition finds everything, but inside of another one nothing.
        selector = {"$and": [{"_id": {"$gt": last}}, {"type": chain.type}, *([query] if query else [])]}
        try:
            found = database.find(selector, fields=["_id"], sort=[{"_id": "asc"}], limit=PAGE)
        except DatabaseError as error:
            if "HTTP 400" not in str(error):
                raise
            raise SettingsError(f"the database does not understand the query: {error}") from None
        yield from (str(one["_id"]) for one in found)
        if len(found) < PAGE:
            return
        last = str(found[-1]["_id"])
