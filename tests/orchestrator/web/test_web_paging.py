"""Pages by key: every row once, there and back, whatever the size of a page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import NotFound
from orchestrator.web import paging
from orchestrator.web.paging import Cursor, cursor, page


@dataclass
class Row:
    id: str | None
    key: Any
    value: Any = None
    doc: Any = None


class View:
    """Rows in order, read as CouchDB reads a view."""

    def __init__(self, rows: list[tuple[int, str]]) -> None:
        self.rows = sorted(rows)
        self.asked: list[dict[str, Any]] = []

    def read(self, **params: Any) -> list[Row]:
        assert "skip" not in params
        self.asked.append(params)
        down = params.get("descending", False)
        rows = self.rows[::-1] if down else self.rows
        if "startkey" in params:
            start = (params["startkey"], params.get("startkey_docid", "\uffff" if down else ""))
            rows = [r for r in rows if (r <= start if down else r >= start)]
        if "endkey" in params:
            rows = [r for r in rows if (r[0] >= params["endkey"] if down else r[0] <= params["endkey"])]
        return [Row(id, key) for key, id in rows[: params["limit"]]]


ROWS = st.lists(st.tuples(st.integers(0, 5), st.text("ab/ü", min_size=1, max_size=3)), max_size=40, unique=True)


def walk(view: View, **how: Any) -> list[list[tuple[int, str]]]:
    pages, at = [], None
    while True:
        made = page(view.read, at=cursor(at), **how)
        pages.append([(r.key, r.id) for r in made.rows])
        if made.next is None:
            return pages
        at = made.next


@settings(max_examples=80, deadline=None)
@given(ROWS, st.integers(1, 9), st.booleans())
def test_walking_forwards_sees_every_row_once_in_order(rows: list[tuple[int, str]], limit: int, down: bool) -> None:
    pages = walk(View(rows), limit=limit, descending=down)
    assert [r for p in pages for r in p] == sorted(rows, reverse=down)
    assert all(len(p) == limit for p in pages[:-1])
    assert pages == [[]] or all(pages)


@settings(max_examples=80, deadline=None)
@given(ROWS, st.integers(1, 9), st.booleans())
def test_going_back_shows_what_was_shown_before(rows: list[tuple[int, str]], limit: int, down: bool) -> None:
    view, shown, at = View(rows), [], None
    while True:
        made = page(view.read, at=cursor(at), limit=limit, descending=down)
        shown.append([r.id for r in made.rows])
        if made.next is None:
            break
        at = made.next
    for before in reversed(shown[:-1]):
        assert made.previous is not None
        made = page(view.read, at=cursor(made.previous), limit=limit, descending=down)
        assert [r.id for r in made.rows] == before
    assert made.previous is None


@settings(max_examples=60, deadline=None)
@given(ROWS, st.integers(1, 9), st.integers(0, 5), st.integers(0, 5))
def test_a_range_and_a_filter(rows: list[tuple[int, str]], limit: int, low: int, high: int) -> None:
    pages = walk(View(rows), limit=limit, low=low, high=high, keep=lambda r: "a" in (r.id or ""))
    assert [r for p in pages for r in p] == [r for r in sorted(rows) if low <= r[0] <= high and "a" in r[1]]


def test_a_filter_without_an_index_stops_looking_and_says_so() -> None:
    view = View([(n, f"d{n:06d}") for n in range(5000)])
    made = page(view.read, limit=10, keep=lambda r: r.key == 4999)
    assert made.cut and not made.rows and made.next
    assert sum(p["limit"] for p in view.asked) <= paging.SCAN_ROWS + 2 * paging.CHUNK_ROWS
    while made.next and not made.rows:
        made = page(view.read, at=cursor(made.next), limit=10, keep=lambda r: r.key == 4999)
    assert [r.key for r in made.rows] == [4999]


@pytest.mark.parametrize("key", [None, 1, "ü/\n", ["ma22", 3, {"a": None}], "<script>"])
def test_a_cursor_survives_the_address(key: Any) -> None:
    there = Cursor(key, 'a"b\nü', True)
    assert cursor(str(there)) == there
    assert str(there).isascii()


@pytest.mark.parametrize("text", ["x", "!!!", "bnVsbA", "WzFd", "WzEsMiwzXQ", "W1tbW1tb", "é", "a" * 5000])
def test_a_cursor_that_nobody_made_is_refused(text: str) -> None:
    with pytest.raises(NotFound, match="first page"):
        cursor(text)
