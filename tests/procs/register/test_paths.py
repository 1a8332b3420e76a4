"""File names of any bytes go into JSON and come back the same."""

from __future__ import annotations

import json
import os
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.errors import DataError
from orchestrator.filenames import path_fields, path_of, text_of
from procs.register.paths import collision_id, document_id, path_id

NAMES = st.binary(min_size=1, max_size=80).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)
TEXTS = st.text(min_size=1, max_size=40).filter(lambda name: "/" not in name and "\0" not in name)


@given(NAMES)
@example(b"a b\n\"';$(rm -rf ~)`")
@example("é\u2028".encode())
@example(b"\xff\xfe latin \xe9")
@example(b"_design")
@example(b"\\xff")
def test_any_name_goes_through_json_and_comes_back(name: bytes) -> None:
    path = os.fsdecode(b"/data/" + name)
    text = json.dumps(path_fields(path), ensure_ascii=False)
    text.encode("utf-8")  # lone surrogates would raise
    assert os.fsencode(path_of(json.loads(text))) == os.fsencode(path)


@given(NAMES)
@example(b"_local")
@example(b"..x")
@example(b"ma22a000_003")
def test_an_id_is_safe_and_says_the_same_again(name: bytes) -> None:
    path = os.fsdecode(b"/data/" + name)
    identity = document_id(path)
    assert re.fullmatch(r"[A-Za-z0-9.\-][A-Za-z0-9._\-]*", identity)
    assert identity == document_id(os.fsdecode(b"/elsewhere/" + name))
    assert collision_id(path, identity) != identity


@given(TEXTS, TEXTS)
def test_two_names_have_two_ids(first: str, second: str) -> None:
    assert (document_id(f"/d/{first}") == document_id(f"/d/{second}")) == (first == second)


def test_a_safe_name_is_the_id() -> None:
    assert document_id("/data/ma22a000/ma22a000_003") == "ma22a000_003"
    assert document_id("/data/mice_06008.000") == "mice_06008.000"
    assert document_id("/data/_design") != "_design"
    assert document_id("/data/a b") == document_id("/other/a b")
    assert document_id("/data/a b").startswith("a-b-")
    assert not document_id("/data/name\n").endswith("\n")


def test_ids_from_paths_follow_the_root_and_tell_folders_apart() -> None:
    assert path_id("/mnt/a/run1/data.root", "/mnt/a") == path_id("/mnt/b/run1/data.root", "/mnt/b")
    assert path_id("/mnt/a/run1/data.root", "/mnt/a") != path_id("/mnt/a/run2/data.root", "/mnt/a")


@pytest.mark.parametrize(
    "document", [{}, {"file": ""}, {"file": 3}, {"file": "a\0b"}, {"file_bytes": "%%"}, {"file": None}]
)
def test_a_document_without_a_path_is_a_data_error(document: dict[str, object]) -> None:
    with pytest.raises(DataError, match="file"):
        path_of(document)


def test_the_readable_form_of_bytes_that_are_no_text() -> None:
    assert text_of(b"caf\xe9") == "caf\\xe9"
    assert text_of("café") == "café"
