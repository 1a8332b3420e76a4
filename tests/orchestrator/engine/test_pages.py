"""A view is read whole, page by page, also where many rows have one key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.engine.pages import pages, pages_by_id


@dataclass
class Row:
    key: Any
    id: str


class View:
    """Rows by key and id, as a view has them."""

    def __init__(self, keys: list[int]) -> None:
        self.rows = sorted((Row(key, f"d{n:03d}") for n, key in enumerate(keys)), key=lambda row: (row.key, row.id))
        self.requests = 0

    def view(self, name: str, *, reduce: bool, limit: int, skip: int = 0, **place: Any) -> list[Row]:
        assert name == "work/proc0" and not reduce
        self.requests += 1
        if "startkey" in place:
            first = (place["startkey"], place.get("startkey_docid", ""))
            return [row for row in self.rows if (row.key, row.id) >= first][skip : skip + limit]
        return self.rows[:limit]


@given(st.lists(st.integers(0, 3), max_size=30), st.integers(1, 7))
def test_every_row_comes_once_and_in_order(keys: list[int], size: int) -> None:
    view = View(keys)
    found = list(pages(view, "work/proc0", size))
    assert [row for page in found for row in page] == view.rows
    assert all(0 < len(page) <= size for page in found)


@pytest.mark.parametrize(("count", "requests"), [(0, 1), (4, 1), (5, 2), (9, 2), (10, 3)])
def test_a_page_that_is_not_full_is_the_last(count: int, requests: int) -> None:
    view = View([0] * count)
    list(pages(view, "work/proc0", 5))
    assert view.requests == requests


def test_where_it_begins_can_be_said() -> None:
    assert [row.key for page in pages(View([1, 2, 2, 3]), "work/proc0", 2, startkey=2) for row in page] == [2, 2, 3]


class Documents:
    """Ids, as ``_all_docs`` has them."""

    def __init__(self, count: int) -> None:
        self.ids = [f"d{n:03d}" for n in range(count)]

    def all_docs(
        self, *, startkey: str | None, endkey: str | None, limit: int, skip: int = 0, include_docs: bool = False
    ) -> list[Row]:
        found = [one for one in self.ids if (startkey is None or one >= startkey) and (endkey is None or one <= endkey)]
        return [Row(one, one) for one in found[skip : skip + limit]]


@given(st.integers(0, 30), st.integers(1, 7), st.integers(0, 30), st.integers(0, 30))
def test_all_documents_of_a_range_come_once(count: int, size: int, low: int, high: int) -> None:
    stored = Documents(count)
    first, last = f"d{low:03d}", f"d{high:03d}"
    found = [row.id for page in pages_by_id(stored, size, first, last, include_docs=True) for row in page]
    assert found == [one for one in stored.ids if first <= one <= last]
    assert [row.id for page in pages_by_id(stored, size) for row in page] == stored.ids
