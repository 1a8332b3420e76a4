"""Looking at all that is ready: for a feed is a doorbell, which may ring late or not at all, and state decides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from orchestrator.chain import Step
from orchestrator.documents import Document
from orchestrator.engine.backlog import Backlog
from orchestrator.engine.pages import pages

#: Documents that are read in one request.
PAGE = 500


def sweep(database: Any, steps: Sequence[Step], backlog: Backlog) -> Iterator[list[Document]]:
    """What is ready for each of the steps, later steps first, while the backlog has room for more.

    What comes out is to be offered to the backlog before the next is asked for. Pages are read on even if it keeps
    nothing of them: documents that wait for a retry, or were refused, must not hide those behind them. Where no room
    is left its ``more`` says so. Raises NotFound if the couchapp has not been pushed.
    """
    backlog.more = False
    for step in reversed(steps):
        found = pages(database, f"work/{step.key}", PAGE, include_docs=True, conflicts=True)
        while True:
            if backlog.room() <= 0:
                backlog.more = True
                return
            rows = next(found, None)
            if rows is None:
                break
            yield [row.doc for row in rows if row.doc is not None]
