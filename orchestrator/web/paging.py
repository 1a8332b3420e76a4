"""Pages of a view, by key and never by skip: page 10,000 costs what page 1 costs.

A cursor names the row that one has come from; the next page begins after it, the previous one ends before it. It stays
right when rows appear or vanish meanwhile.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import NotFound, OrchestratorError, SettingsError, Unauthorised, Unavailable
from orchestrator.web.source import RowLike, Setup

#: Rows looked at for one page, at most, where a filter has no index of its own; the next page goes on from there.
SCAN_ROWS = 1000
#: Rows asked for at once while looking.
CHUNK_ROWS = 200
#: Sorts after every string that begins with what stands before it, as CouchDB's own guide has it.
HIGH = "\ufff0"


LOST = "the list has no such position as the address names: go back to its first page"


class BadQuery(SettingsError):
    """The address asks for something that cannot be: the message says what is possible."""


@dataclass(frozen=True)
class Cursor:
    """A row that a page begins after (or, going back, ends before)."""

    key: Any
    id: str | None
    back: bool = False

    def __str__(self) -> str:
        text = json.dumps([self.key, self.id, int(self.back)], ensure_ascii=False, separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def cursor(text: str | None) -> Cursor | None:
    """The cursor that ``str(cursor)`` wrote; None for none. Raises NotFound for anything else."""
    if not text:
        return None
    try:
        raw = base64.b64decode(text.encode() + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        key, id, back = json.loads(raw, parse_constant=_no_number)
        json.dumps(key, allow_nan=False).encode()
        if not isinstance(id, str | None) or back not in (0, 1):
            raise ValueError(text)
    except (ValueError, TypeError, RecursionError, binascii.Error) as error:
        raise NotFound(LOST) from error
    return Cursor(key, id, bool(back))


def _no_number(word: str) -> None:
    raise ValueError(word)


@dataclass(frozen=True)
class Page:
    """Some rows, in the list's order; where to go on; and whether the search for them ended early."""

    rows: Sequence[RowLike]
    next: str | None
    previous: str | None
    cut: bool = False


def page(
    read: Callable[..., Sequence[RowLike]],
    *,
    low: Any = None,
    high: Any = None,
    at: Cursor | None = None,
    limit: int = 50,
    descending: bool = False,
    keep: Callable[[RowLike], bool] | None = None,
) -> Page:
    """One page of the rows between ``low`` and ``high`` (both None: of all).

    Args:
        read: a view's read: takes ``startkey``, ``startkey_docid``, ``endkey``, ``descending`` and ``limit``.
        keep: which rows belong to the list, where the view holds more; at most SCAN_ROWS are looked at.
    """
    back = at is not None and at.back
    downwards = descending != back
    start, end = (high, low) if downwards else (low, high)
    found: list[RowLike] = []
    position, scanned, more, cut = at, 0, False, False
    while True:
        chunk = limit + 1 if keep is None else CHUNK_ROWS
        params: dict[str, Any] = {"limit": chunk + (position is not None)}
        if position is not None:
            params |= {"startkey": position.key, "startkey_docid": position.id}
        elif start is not None:
            params["startkey"] = start
        if end is not None:
            params["endkey"] = end
        if downwards:
            params["descending"] = True
        try:
            rows = list(read(**params))
        except (Unavailable, Unauthorised, NotFound, Setup):
            raise
        except OrchestratorError as error:
            if position is None or position is not at:
                raise
            raise NotFound(LOST) from error  # a position outside of the list, which no page of ours has given out
        exhausted = len(rows) < params["limit"]
        if position is not None and rows and rows[0].id == position.id and rows[0].key == position.key:
            rows = rows[1:]
        for row in rows:
            scanned += 1
            if keep is None or keep(row):
                if len(found) == limit:
                    more = True
                    break
                found.append(row)
            position = Cursor(row.key, row.id)
        if more or exhausted:
            break
        if scanned >= SCAN_ROWS:
            more = cut = True
            break
    onward = str(Cursor(position.key, position.id, back)) if more and position is not None else None
    if back:
        found.reverse()
    came_from = at if not found else Cursor(*((found[-1].key, found[-1].id) if back else (found[0].key, found[0].id)))
    home = str(Cursor(came_from.key, came_from.id, not back)) if at is not None and came_from is not None else None
    return Page(found, home if back else onward, onward if back else home, cut)


def prefix(text: str) -> tuple[str, str]:
    """The key range of all strings that begin with ``text``."""
    return text, text + HIGH
