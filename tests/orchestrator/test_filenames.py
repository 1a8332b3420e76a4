"""Paths of raw files as documents have them."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import DataError
from orchestrator.filenames import path_of, path_text

PARTS = st.lists(st.sampled_from(["/", "//", ".", "..", "a", "b.root", " ", "é", "\0", "\n", "\ud800"]), max_size=6)


@given(PARTS.map("".join))
def test_the_quick_way_to_a_path_leads_to_the_same_text_or_the_same_error(file: str) -> None:
    document = {"_id": "d", "file": file}
    try:
        expected = str(path_of(document))
    except DataError:
        with pytest.raises(DataError):
            path_text(document)
        return
    assert path_text(document) == expected


def test_the_bytes_of_a_name_come_before_its_text() -> None:
    document = {"_id": "d", "file": "/raw/x\\xff", "file_bytes": base64.b64encode(b"/raw/x\xff").decode()}
    assert path_text(document) == "/raw/x\udcff"
