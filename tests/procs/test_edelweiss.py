"""The forms of an Edelweiss run database, each read into today's words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procs.edelweiss import translate, when

STEPS = {0: "transfer", 1: "convert"}
DATE = {"year": 2012, "month": 5, "day": 3, "hour": 10, "minute": 20, "second": 30, "microsecond": 123456}


def old(**more: Any) -> dict[str, Any]:
    return {
        "_id": "run_me03a001_005_kdatascript", "type": "daqdocument", "author": "Samba", "run_name": "me03a001",
        "file_number": 5, "file": "/data/me03a001_005", "size_in_bytes": 1000, "date_uploaded": {**DATE, "timezone": 0},
        "Hote": "s1", "Bolo.nb": 3.0, "Date": {"year": 2012, "month": 5, "day": 3}, "status": "closed", **more,
    }  # fmt: skip


def status_of(**more: Any) -> str:
    return str(translate(old(**more), STEPS)[0]["status"])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (DATE, "2012-05-03T10:20:30.123Z"),
        ({**DATE, "timezone": 2}, "2012-05-03T08:20:30.123Z"),
        (1336040430.5, "2012-05-03T10:20:30.500Z"),
        ("2012-05-03 10:20:30.123456", "2012-05-03T10:20:30.123Z"),
        ("2012-05-03 10:20:30", "2012-05-03T10:20:30.000Z"),
        ({"year": 2012, "month": 13, "day": 1}, None),
        ({"year": 2012}, None),
        (float("inf"), None),
        (True, None),
        ("yesterday", None),
        (None, None),
    ],
)
def test_times_in_every_old_form(value: Any, expected: str | None) -> None:
    assert when(value) == expected


SCALARS = st.none() | st.booleans() | st.floats() | st.integers() | st.text()


@given(SCALARS | st.dictionaries(st.sampled_from([*DATE, "timezone"]), SCALARS, max_size=8))
def test_no_time_whatever_it_holds_ends_in_an_error(value: Any) -> None:
    assert when(value) is None or str(when(value)).endswith("Z")


def test_what_a_step_returned_stays_and_gets_state_time_file_and_size() -> None:
    entry = {
        "file": "/sps/me03a001_005",
        "file_size": 1000,
        "date": DATE,
        "processname": "copySambaFileToSps",
        "scpErrs": "",
    }
    new, _ = translate(old(status="good", proc0=entry), STEPS)
    assert new["proc0"] == {
        **entry, "step": "transfer", "state": "done", "attempt": "imported", "number": 1, "size": 1000,
        "finished": "2012-05-03T10:20:30.123Z",
    }  # fmt: skip
    assert (new["status"], new["size"], new["registered"]) == ("good", 1000, "2012-05-03T10:20:30.123Z")


def test_header_keys_stay_where_old_views_look_and_stand_in_the_header_too() -> None:
    new, _ = translate(old(), STEPS)
    assert new["Bolo.nb"] == 3.0 and new["Hote"] == "s1"
    assert new["header"] == {"Bolo.nb": 3.0, "Hote": "s1", "Date": {"year": 2012, "month": 5, "day": 3}}


def test_a_step_that_had_failed_is_failed_with_what_it_said() -> None:
    new, _ = translate(old(status="proc1 failed", proc0={}, proc1={"exc": {"type": "KeyError", "print": "x"}}), STEPS)
    assert new["status"] == "failed"
    assert (new["proc1"]["state"], new["proc1"]["reason"]) == ("failed", "type: KeyError; print: x")
    assert new["proc0"]["state"] == "done"


def test_a_step_that_failed_without_a_word_is_failed_all_the_same() -> None:
    new, _ = translate(old(status="proc0 failed"), STEPS)
    assert (new["status"], new["proc0"]["state"], new["proc0"]["step"]) == ("failed", "failed", "transfer")


@pytest.mark.parametrize("what", ["proc1 queued", "proc1 in progress"])
def test_what_was_running_is_to_be_done_again(what: str) -> None:
    new, notes = translate(
        old(status=what, proc0={"file": "/x"}, proc1={"file": "/old"}, proc2={"file": "/older"}), STEPS
    )
    assert new["status"] == "good" and "proc0" in new
    assert "proc1" not in new and "proc2" not in new, "what stands of it is of an earlier try"
    assert any("done again" in note for note in notes)
    assert status_of(status="proc0 in progress") == "closed"


def test_the_tape_lane_in_the_status_becomes_a_lane_of_its_own() -> None:
    new, _ = translate(old(status="hpss in progress", proc0={"file": "/x"}), STEPS)
    assert (new["status"], new["hpss_status"]) == ("good", "hpss in progress")


def test_an_unknown_status_is_bad_with_the_old_word_in_the_reason() -> None:
    new, _ = translate(old(status="strange"), STEPS)
    assert new["status"] == "bad" and "'strange'" in new["reason"]
    assert status_of(status=None) == "bad"


def test_jobs_keep_their_number_time_and_kind() -> None:
    job = {"type": "proc1", "message": 'Your job 4711 ("runProc1.py") has been submitted', "number": 4711.0,
           "date": "2012-05-03 10:20:30.123456"}  # fmt: skip
    new, _ = translate(old(batchJob=[job, "nonsense"]), STEPS)
    assert new["batchJob"] == [job, "nonsense"]
    (made,) = new["batchjob"]
    assert (made["step"], made["scheduler"], made["number"]) == ("proc1", "gridengine", "4711")
    assert made["submitted"] == "2012-05-03T10:20:30.123Z"


def test_numbers_that_were_names_and_floats_that_were_counts() -> None:
    new, _ = translate(old(run_name=1234.0, file_number=5.0), STEPS)
    assert (new["run_name"], new["file_number"]) == ("1234", 5)
    assert isinstance(new["file_number"], int)


def test_meta_and_tar_documents_keep_their_type_and_members() -> None:
    meta, _ = translate({"_id": "me03a001_log", "type": "daqmetadatadocuments", "run_name": "/data/me03a001",
                         "file_size": 12.0, "date_uploaded": 1336040430.5, "status": "closed"}, STEPS)  # fmt: skip
    assert (meta["run_name"], meta["size"], meta["status"]) == ("me03a001", 12, "closed")
    assert meta["registered"] == "2012-05-03T10:20:30.500Z"
    tar = {
        "_id": "me_small.tar.gz",
        "type": "hpsstarfiledocument",
        "members": ["a", "b"],
        "date_unixtime": 1336040430.5,
    }
    assert translate(tar, STEPS)[0]["members"] == ["a", "b"]
    assert translate({"_id": "tracker", "samba": {}}, STEPS)[0]["type"] == "note"
