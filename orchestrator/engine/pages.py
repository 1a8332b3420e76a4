"""A view's rows, or all documents, read a page at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def pages(database: Any, view: str, size: int, **params: Any) -> Iterator[list[Any]]:
    """Every row of a view, up to ``size`` at once, each page from behind the last row of the one before.

    A document that moves within the view meanwhile may be met twice or not at all: who reads judges each by its state,
    and reads again some time. Raises what the database raises.

    Args:
        database: `orchestrator.couch.Database`, or one of its branches.
        params: of the view's request, but for ``reduce``, ``limit`` and where it begins.
    """
    while True:
        rows = list(database.view(view, reduce=False, limit=size, **params))
        if rows:
            yield rows
        if len(rows) < size:
            return
        params |= {"startkey": rows[-1].key, "startkey_docid": rows[-1].id, "skip": 1}


def pages_by_id(
    database: Any, size: int, first: str | None = None, last: str | None = None, **params: Any
) -> Iterator[list[Any]]:
    """Every row of ``_all_docs`` from the id ``first`` to ``last``, up to ``size`` at once, as `pages` does it."""
    while True:
        rows = list(database.all_docs(startkey=first, endkey=last, limit=size, **params))
        if rows:
            yield rows
        if len(rows) < size:
            return
        first = rows[-1].id
        params["skip"] = 1
