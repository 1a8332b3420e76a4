"""Documents of another database brought in: nothing lost, nothing that does not hold, no login."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import documents, importing
from orchestrator.couch import Saved
from orchestrator.errors import DataError, Refused, SettingsError
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


class Shelf:
    """A database that takes documents, and refuses a bulk in which one of them has an odd name."""

    def __init__(self) -> None:
        self.documents: dict[str, Any] = {}
        self.bulks = 0

    def get_many(self, names: Any) -> dict[str, Any]:
        return {name: self.documents.get(name) for name in names}

    def bulk(self, docs: list[dict[str, Any]]) -> list[Any]:
        self.bulks += 1
        if any("odd" in one["_id"] for one in docs):
            raise Refused("the database does not take it")
        self.documents |= {one["_id"]: one for one in docs}
        return [Saved(one["_id"], "1-a") for one in docs]


def imported(shelf: Shelf, *docs: dict[str, Any], write: bool = True) -> importing.Report:
    return importing.run(
        [list(docs)], shelf, translate, {}, data_type="daqdocument", source="old", by="ann", now=1000.0, write=write
    )


ODD: list[tuple[dict[str, Any], str]] = [
    ({"_id": "_x"}, "database's own"), ({"_id": "d", "_foo": 1}, "_foo"), ({"_id": "d", "_deleted": True}, "deleted"),
    ({"_id": "d", "x": float("nan")}, "a number that is none"), ({"_id": "d", "x": [float("inf")]}, "a number"),
    ({"_id": "d", "x": {"\ud800": 1}}, "no Unicode"),
    ({"_id": "d", "_attachments": {"a": {"stub": True}}}, "only named"),
    ({"_id": "d", "_attachments": {"a": 3}}, "only named"),
]  # fmt: skip


@pytest.mark.parametrize(("odd", "why"), ODD)
@pytest.mark.parametrize("write", [False, True])
def test_one_document_that_no_database_takes_stops_no_other_and_a_dry_run_says_so(
    odd: dict[str, Any], why: str, write: bool
) -> None:
    shelf = Shelf()
    good = {"_id": "good", "type": "daqdocument", "status": "good", "_conflicts": ["1-a"], "_revisions": {}}
    report = imported(shelf, {"type": "daqdocument", "status": "good", **odd}, good, write=write)
    assert (report.imported, list(report.refused)) == (1, [odd["_id"]]) and why in report.refused[odd["_id"]]
    assert set(shelf.documents) == ({"good"} if write else set())


def test_what_the_database_refuses_with_all_that_travel_with_it_is_found_and_named() -> None:
    shelf = Shelf()
    docs = [{"_id": f"{'odd' if n in (3, 17) else 'd'}{n}", "type": "daqdocument", "status": "good"} for n in range(20)]
    report = imported(shelf, *docs)
    assert (report.imported, set(report.refused), len(shelf.documents)) == (18, {"odd3", "odd17"}, 18)


def test_twice_in_the_source_or_changed_there_since_is_said_and_nothing_is_written_over() -> None:
    shelf = Shelf()
    one = {"_id": "d", "type": "daqdocument", "status": "good", "_rev": "1-a", "n": 1}
    report = imported(shelf, one, {**one, "n": 2})
    assert "twice" in report.refused["d"] and report.imported == 0
    assert imported(shelf, one).imported == 1
    assert not imported(shelf, one).notes, "as it was"
    (note,) = imported(shelf, {**one, "_rev": "2-b", "n": 2}).notes
    assert "has changed at the source" in note and shelf.documents["d"]["n"] == 1


def test_rules_that_stumble_refuse_one_document() -> None:
    def rules(document: Any, steps: Any) -> Any:
        return {**document, "x": document["file"]["name"] + 1}, []

    with pytest.raises(DataError, match="cannot read it"):
        importing.convert({"_id": "d"}, rules, {}, "daqdocument", "old", "ann", 1000.0)


@pytest.mark.parametrize("said", ["1335873600", " 1335873600.0 "])
def test_seconds_as_text_are_a_time(said: str) -> None:
    new, _ = translate({"_id": "d", "type": "daqdocument", "status": "good", "date_uploaded": said}, {})
    assert new["registered"] == "2012-05-01T12:00:00.000Z"


def test_attempts_are_counted_on_from_those_that_the_old_system_made() -> None:
    old = {"_id": "d", "type": "daqdocument", "status": "proc1 failed", "proc0": {}, "proc1": {"scpErrs": "full"}}
    new, _ = _convert(old)
    assert (new["proc1"]["state"], new["numbers"]) == ("failed", {"proc1": 2})
    assert documents.retry(new, "ann", "", 2000.0)["retry"]["number"] == 2
    assert importing.restore(new) == old
    assert "numbers" not in _convert({**old, "status": "good", "proc1": {}})[0]
