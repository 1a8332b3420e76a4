"""Lanes: nothing is lost between inward and outward, in Python and in the design functions alike."""

from __future__ import annotations

import json
from typing import Any

import quickjs
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.embedded.mango_selector import compile_selector
from orchestrator.lanes import OWN, Branch, wrapped

TYPE = "daqdocument"
LANE = Branch("archive", lane=True)
VALUES = st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["closed", "good", "bad", "open", "x"])
KEYS = st.sampled_from(
    [*OWN, *(f"archive_{key}" for key in OWN), "proc0", "proc12", "archive_proc0", "archive_proc3", "archive_other",
     "qc_status", "qc_proc0", "run_name", "hold", "archive", "processed", "proc", "proc1x"]
)  # fmt: skip
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=12).map(lambda body: {**body, "_id": "x", "type": TYPE})


@given(DOCUMENTS)
def test_what_goes_inward_comes_outward_the_same(document: dict[str, Any]) -> None:
    inward = LANE.inward(document, TYPE)
    assert inward is not None
    back = LANE.outward(inward, TYPE)
    if "archive_status" not in document:
        assert back.pop("archive_status") == inward["status"]
    assert back == document


@given(DOCUMENTS)
def test_the_design_functions_see_what_python_sees(document: dict[str, Any]) -> None:
    source = wrapped("function (doc) { return doc; }", "archive", TYPE, ("doc",))
    seen = json.loads(quickjs.Context().eval(f"JSON.stringify(({source})({json.dumps(document)}))"))
    assert seen == LANE.inward(document, TYPE)


def test_a_document_enters_a_lane_closed_unless_its_file_is_still_written() -> None:
    for main, begins in (("open", "open"), ("bad", "closed"), ("failed", "closed"), ("proc 1 queued", "closed")):
        found = LANE.inward({"_id": "x", "type": TYPE, "status": main}, TYPE)
        assert found is not None and found["status"] == begins and found["main_status"] == main


def test_documents_of_other_types_are_left_alone() -> None:
    other = {"_id": "run:1", "type": "run", "status": "good", "proc0": {}}
    assert LANE.inward(other, TYPE) == other and LANE.outward(other, TYPE) == other


def test_attempts_of_two_lanes_are_two_documents() -> None:
    record = {"_id": "attempt:x:proc0:1", "type": "attempt", "document": "x", "step": "proc0", "number": 1}
    written = LANE.outward(record, TYPE)
    assert written["_id"] == "attempt:x:archive_proc0:1" and written["step"] == "archive_proc0"
    assert (LANE.inward(written, TYPE) or {})["step"] == "proc0"


@given(DOCUMENTS)
def test_the_feeds_selector_lets_through_whatever_is_ready_in_the_lane(document: dict[str, Any]) -> None:
    selector = LANE.selector({"type": TYPE, "status": {"$in": ["closed", "good"]}})
    inward = LANE.inward(document, TYPE)
    assert inward is not None
    if inward["status"] in ("closed", "good"):
        assert compile_selector(selector)(document)


def test_the_main_lane_is_as_it_was() -> None:
    main = Branch()
    assert main.view("work/proc0") == "work/proc0" and main.selector({"status": 1}) == {"status": 1}
    assert LANE.view("work/proc0") == "work-archive/proc0" and LANE.view("mine/view") == "mine/view"
