"""Documents of another database brought in: nothing lost, nothing that does not hold, no login."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import documents, importing
from orchestrator.errors import DataError, SettingsError
from procs.edelweiss import translate

STEPS = {0: "transfer", 1: "convert"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
KEYS = st.sampled_from(
    ["run_name", "file_number", "file", "size_in_bytes", "date_uploaded", "proc0", "proc1", "proc12", "batchJob",
     "Bolo.nb", "hpss", "hpss_status", "updated", "imported", "forced", "header", "size", "reason", "exception"]
) | st.text(min_size=1, max_size=6).filter(lambda key: not key.startswith("_"))  # fmt: skip
STATUSES = st.sampled_from(
    ["closed", "good", "bad", "failed", "open", "proc0 failed", "proc1 in progress", "proc 1 queued",
     "hpss in progress"]
) | JSON  # fmt: skip
TYPES = st.sampled_from(["daqdocument", "daqmetadatadocuments", "hpsstarfiledocument", "other", "", None])


def _convert(old: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    return importing.convert(old, translate, STEPS, "daqdocument", "old", "me", 1_700_000_000.0)


@given(st.dictionaries(KEYS, JSON, max_size=8), STATUSES, TYPES)
def test_the_old_document_can_be_made_again_from_the_new_one(body: dict[str, Any], status: Any, kind: Any) -> None:
    old = {**body, "_id": "x", "_rev": "1-a", "status": status, "type": kind}
    try:
        new, _ = _convert(old)
    except DataError as error:
        assert status == "open", error
        return
    expected = {key: value for key, value in old.items() if key != "_rev"}
    assert json.dumps(importing.restore({**new, "_rev": "7-z"}), sort_keys=True) == json.dumps(expected, sort_keys=True)
    assert new["type"]
    if new["type"] == "daqdocument":
        found = documents.status_of(new)
        assert found is not None and str(found) in ("closed", "good", "bad", "failed")
        assert new["imported"]["from"] == "old"


def test_logins_are_left_out_and_where_they_were_is_said() -> None:
    old = {"_id": "x", "type": "daqdocument", "status": "good", "proc1": {"command": "run http://me:pw1@db:5984/x -a"},
           "sftp_password": "pw2", "batchJob": [{"message": "qsub x https://u:pw3@host/"}]}  # fmt: skip
    new, notes = _convert(old)
    text = json.dumps(new)
    assert "pw1" not in text and "pw2" not in text and "pw3" not in text
    assert new["imported"]["redacted"] == ["proc1.command", "sftp_password", "batchJob[0].message"]
    assert "run http://db:5984/x -a" in text
    assert "held a login, which is left out" in notes


def test_rules_that_leave_a_document_stuck_are_refused() -> None:
    def stuck(document: Any, steps: Any) -> tuple[dict[str, Any], list[str]]:
        return {**document, "status": "proc 1 in progress"}, []

    with pytest.raises(DataError, match="nobody has it"):
        importing.convert({"_id": "x", "type": "d", "status": "good"}, stuck, {}, "d", "old", "me", 0.0)


def test_a_file_of_lines_and_an_answer_of_all_docs_read_the_same(tmp_path: Path) -> None:
    found = [{"_id": f"d{n}", "type": "t", "text": "] \u2028 [{"} for n in range(250)]
    (tmp_path / "lines").write_text("\n".join(json.dumps(one) for one in found) + "\n")
    rows = [json.dumps({"id": one["_id"], "key": one["_id"], "value": {"rev": "1-a"}, "doc": one}) for one in found]
    (tmp_path / "answer").write_text('{"total_rows":250,"offset":0,"rows":[\n' + ",\n".join(rows) + "\n]}\n")
    (tmp_path / "one-line").write_text('{"total_rows":250,"offset":0,"rows":[' + ",".join(rows) + "]}")
    for name in ("lines", "answer", "one-line"):
        pages = list(importing.from_file(tmp_path / name))
        assert [one for page in pages for one in page] == found
        assert max(map(len, pages)) <= importing.PAGE


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b'{"_id": "a"', "line 1: no JSON"),
        (b"[1]", "without an _id"),
        (b"\xff\xfe", "UTF-8"),
        (b'{"a": 1}', "without an _id"),
    ],
)
def test_a_file_that_is_none_is_refused_with_its_line(tmp_path: Path, text: bytes, says: str) -> None:
    (tmp_path / "f").write_bytes(text)
    with pytest.raises(SettingsError, match=says):
        list(importing.from_file(tmp_path / "f"))
    with pytest.raises(SettingsError, match="No such file"):
        list(importing.from_file(tmp_path / "absent"))
