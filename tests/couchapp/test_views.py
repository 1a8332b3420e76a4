"""The views and filters: exactly the rows that the orchestrator counts on, and no document that makes one throw."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator import documents
from orchestrator.documents import Claimant, Report, claim, fail, finish

WHO = Claimant("poller-1", "host-1", 4711, "here")
START = 1_769_079_600.0  # 2026-01-22T11:00:00Z


def fresh(**more: Any) -> dict[str, Any]:
    return {
        "_id": "ma22a000_003",
        "type": "daqdocument",
        "run_name": "ma22a000",
        "file_number": 3,
        "file": "/data/ma22a000/ma22a000_003",
        "size": 123,
        "hostname": "daq1",
        "status": "closed",
        "registered": documents.iso(START),
        "updated": documents.iso(START),
        **more,
    }


def report(step: Any, **more: Any) -> Report:
    values: dict[str, Any] = {"started": START + 10, "finished": START + 20, "seconds": 9.5, **more}
    return Report(document="ma22a000_003", step=step.key, attempt="a1", **values)


def after(chain: Any, count: int, **more: Any) -> dict[str, Any]:
    """A document with the first ``count`` steps done."""
    doc = fresh(**more)
    for step in chain.steps[:count]:
        doc = finish(claim(doc, step, WHO, "a1", START + 10), step, report(step), START + 20)
    return doc


def failed(chain: Any, number: int, reason: str = "at byte 17") -> dict[str, Any]:
    step = chain.steps[number]
    doc = claim(after(chain, number), step, WHO, "a1", START + 10)
    return fail(doc, step, report(step, error_class="data", reason=reason), START + 30)[0]


def states(rows: list[tuple[Any, Any]]) -> list[str]:
    assert [key[0] for key, _ in rows] == [0, 1, 2, 3], "exactly one row a step"
    return [key[1] for key, _ in rows]


def test_ready_for_a_step_by_priority_then_run_then_file(map_rows: Any, chain: Any) -> None:
    docs = [fresh(), fresh(priority=5), after(chain, 1), after(chain, 4)]
    assert map_rows("work/proc0", docs) == [
        [([0, "ma22a000", 3], None)],
        [([-5, "ma22a000", 3], None)],
        [],
        [],
    ]
    assert [len(rows) for rows in map_rows("work/proc1", docs)] == [0, 0, 1, 0]


def test_a_step_waits_for_those_it_needs_and_no_others(map_rows: Any, chain: Any) -> None:
    [ready] = map_rows("work/proc3", [after(chain, 2)])
    assert len(ready) == 1, "pictures needs convert, not amplitude"
    assert len(map_rows("work/proc2", [after(chain, 2)])[0]) == 1


def test_views_and_filters_agree_with_python_on_what_is_ready(map_rows: Any, call: Any, built: Any, chain: Any) -> None:
    docs = [after(chain, n, **more) for n in range(5) for more in ({}, {"status": "bad"}, {"type": "run"})
            if not (n and more)]  # fmt: skip
    docs += [failed(chain, n) for n in range(4)]
    docs += [claim(after(chain, n), chain.steps[n], WHO, "a", START) for n in range(4)]
    docs += [{**after(chain, n), "hold": hold} for n in range(4) for hold in ({"by": "ann"}, True, False, None)]
    docs += [{**after(chain, 2), "proc2": None}, {**after(chain, 2), "proc1": "done"}, {**after(chain, 1), "status": 7}]
    for step in chain.steps:
        expected = [documents.ready(chain, doc, step) for doc in docs]
        assert any(expected) and not all(expected)
        assert [bool(rows) for rows in map_rows(f"work/{step.key}", docs)] == expected
        source = built["_design/filters"]["filters"][step.key]
        assert [said["value"] for said in call(source, [[doc, {}] for doc in docs])] == expected


def test_filters_for_the_first_step_and_for_good_documents(call: Any, built: Any, chain: Any) -> None:
    filters = built["_design/filters"]["filters"]
    docs = [fresh(), after(chain, 1), fresh(status="bad"), {**fresh(), "_deleted": True}, {"_id": "x"}]
    assert [one["value"] for one in call(filters["newproc0"], [[d, {}] for d in docs])] == [True] + [False] * 4
    assert [one["value"] for one in call(filters["statusgood"], [[d, {}] for d in docs])] == [False, True] + [False] * 3


def test_who_holds_what_since_when(map_rows: Any, chain: Any) -> None:
    doc = claim(after(chain, 1), chain.steps[1], WHO, "a2", START + 60)
    value = {"attempt": "a2", "host": "host-1", "pid": 4711, "poller": "poller-1"}
    assert map_rows("work/inprogress", [doc]) == [[([1, "2026-01-22T11:01:00.000Z"], value)]]
    assert map_rows("work/proc1inprogress", [doc]) == [[(["2026-01-22T11:01:00.000Z"], value)]]
    assert map_rows("work/proc0inprogress", [doc]) == [[]]
    older = {**doc, "status": "proc1 in progress"}
    assert map_rows("work/proc1inprogress", [older]) == [[(["2026-01-22T11:01:00.000Z"], value)]]
    queued = {**doc, "status": "proc 1 queued", "proc1": {**doc["proc1"], "queued": "2026-01-22T11:00:30.000Z"}}
    assert map_rows("work/inqueue", [queued]) == [[([1, "2026-01-22T11:00:30.000Z"], value)]]
    assert map_rows("work/inprogress", [queued]) == [[]]


def test_failed_says_step_class_and_reason(map_rows: Any, chain: Any) -> None:
    long = "x" * 199 + "\U0001f4a5" + "y" * 50
    [[(key, value)]] = map_rows("work/failed", [failed(chain, 2, long)])
    assert key == ["proc2", "data", "2026-01-22T11:00:20.000Z"]
    assert value == {"reason": "x" * 199}, "200 characters, and no half one"
    [[(key, value)]] = map_rows("work/failed", [fresh(status="failed", reason="lost disk")])
    assert key[0] is None and value == {"reason": "lost disk"}
    [[(key, _)]] = map_rows("work/failed", [fresh(status="proc1 failed", proc1={"state": "failed"})])
    assert key[0] == "proc1"
    both = fresh(status="failed", proc10={"state": "failed"}, proc2={"state": "failed"})
    assert map_rows("work/failed", [both])[0][0][0][0] == "proc2"


def test_what_operations_took_out_is_found_by_document(map_rows: Any) -> None:
    past = {"_id": "past:o:d", "type": "past", "document": "d", "at": "2026", "operation": {"id": "o", "what": "reset"}}
    odd = {"_id": "x", "type": "past", "operation": 3}
    assert map_rows("pages/past", [past, odd, fresh()]) == [
        [(["d", "2026"], {"operation": "o", "what": "reset"})],
        [([None, None], {})],
        [],
    ]


def test_documents_on_hold(map_rows: Any) -> None:
    hold = {"by": "ann", "at": "2026", "reason": "tea"}
    assert map_rows("pages/held", [fresh(hold=hold), fresh(hold=3), fresh(hold=None), fresh()]) == [
        [(["2026", "ma22a000", 3], {"by": "ann", "operation": None, "reason": "tea", "status": "closed"})],
        [([None, "ma22a000", 3], {"by": None, "operation": None, "reason": None, "status": "closed"})],
        [],
        [],
    ]


def test_bad_documents(map_rows: Any) -> None:
    assert map_rows("work/bad", [fresh(status="bad", reason="no header"), fresh()]) == [
        [(["ma22a000", 3], {"reason": "no header"})],
        [],
    ]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda chain: fresh(), ["ready", "waiting", "waiting", "waiting"]),
        (lambda chain: fresh(status="open"), ["waiting"] * 4),
        (lambda chain: {**after(chain, 1), "hold": {"by": "ann"}}, ["done", "waiting", "waiting", "waiting"]),
        (lambda chain: after(chain, 2), ["done", "done", "ready", "ready"]),
        (lambda chain: after(chain, 4), ["done"] * 4),
        (lambda chain: {**after(chain, 1), "status": "bad"}, ["done", "bad", "bad", "bad"]),
        (lambda chain: failed(chain, 1), ["done", "failed", "waiting", "waiting"]),
        (
            lambda chain: fresh(status="failed", proc2={"state": "failed"}),
            ["waiting", "waiting", "failed", "waiting"],
        ),
        (lambda chain: {**after(chain, 1), "status": "failed"}, ["done", "failed", "waiting", "waiting"]),
        (lambda chain: {**after(chain, 1), "status": "proc 1 queued"}, ["done", "queued", "waiting", "waiting"]),
        (
            lambda chain: claim(after(chain, 2), chain.steps[2], WHO, "a", START),
            ["done", "done", "in progress", "waiting"],
        ),
    ],
)
def test_each_step_of_a_document_is_in_one_state(map_rows: Any, chain: Any, make: Any, expected: list[str]) -> None:
    assert states(map_rows("pages/steps", [make(chain)])[0]) == expected


def test_a_step_is_ready_since_the_last_one_it_needs_was_done(map_rows: Any, chain: Any) -> None:
    doc = after(chain, 2)
    doc["proc0"]["finished"] = documents.iso(START + 500)
    [rows] = map_rows("pages/steps", [doc])
    assert [value for _, value in rows] == [
        (START + 500) * 1000,
        (START + 20) * 1000,
        (START + 500) * 1000,
        (START + 20) * 1000,
    ]


def test_pages(map_rows: Any, chain: Any) -> None:
    doc = after(chain, 1)
    assert map_rows("pages/status", [doc]) == [[(["good", "ma22a000", 3], 1)]]
    assert map_rows("pages/runs", [doc, fresh(size=None)]) == [[(["ma22a000", 3], 123)], [(["ma22a000", 3], 0)]]
    assert map_rows("pages/run_status", [doc]) == [[(["ma22a000", "good"], None)]]
    assert map_rows("pages/daq", [doc]) == [[(["daq1", "good"], None)]]
    assert map_rows("pages/files", [doc]) == [[(["ma22a000", 3], {"status": "good"})]]
    assert map_rows("pages/recent", [doc]) == [[([doc["updated"]], {"status": "good"})]]
    assert map_rows("pages/throughput", [doc]) == [[([0, 2026, 1, 22, 11], 9.5)]]


def test_search_words(map_rows: Any) -> None:
    doc = fresh(_id="Lyon:MA22a000_003", file="/data/Überlauf/ma22a000_003 (Kopie).ROOT")
    [rows] = map_rows("pages/search", [doc])
    words = [key[0] for key, _ in rows]
    assert words[:3] == ["lyon:ma22a000_003", "ma22a000", "ma22a000_003 (kopie).root"]
    assert set(words) == {*words[:3], "lyon", "003", "kopie", "root"} and len(words) == len(set(words))
    [many] = map_rows("pages/search", [fresh(run_name="-".join(f"w{n}" for n in range(40)))])
    assert len(many) == 12


def test_attempts_are_listed_and_counted_nowhere_else(map_rows: Any, built: Any, chain: Any) -> None:
    step = chain.steps[1]
    doc = claim(after(chain, 1), step, WHO, "a1", START)
    attempt = fail(doc, step, report(step, error_class="data", reason="r" * 300), START + 30)[1]
    assert map_rows("pages/attempts", [attempt]) == [
        [(["ma22a000_003", "proc1", 1], {"state": "failed", "error_class": "data", "reason": "r" * 200})]
    ]
    for design in ("work", "pages"):
        for view in built[f"_design/{design}"]["views"]:
            if view != "attempts":
                assert map_rows(f"{design}/{view}", [attempt, {"_id": "x"}]) == [[], []], view


ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(
        ["done", "failed", "closed", "good", "proc 1 in progress", "proc1 failed", "2026-01-22T11:00:00Z"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["state", "finished", "seconds", "reason", "length", "exec"]), inner, max_size=4
        )
    ),
    max_leaves=6,
)
STATUS = st.sampled_from(
    ["closed", "good", "bad", "failed", "open", "proc 0 queued", "proc 1 in progress", "proc2 failed",
     "proc 99999999999999999999 in progress", "__proto__"]
)  # fmt: skip
FIELDS = ["run_name", "file_number", "file", "size", "hostname", "registered", "updated", "priority", "reason", "proc0",
          "proc1", "proc2", "proc3", "retry", "batchjob", "constructor", "hasOwnProperty", "__proto__"]  # fmt: skip
ODD_DOCUMENTS = st.builds(
    lambda status, kind, fields: {"_id": "odd", "_rev": "1-a", "type": kind, "status": status, **fields},
    STATUS | ODD,
    st.sampled_from(["daqdocument"] * 5 + ["attempt", None, 3]),
    st.dictionaries(st.sampled_from(FIELDS), ODD, max_size=10),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(docs=st.lists(ODD_DOCUMENTS, min_size=1, max_size=12))
def test_no_document_makes_a_view_or_filter_throw(map_rows: Any, call: Any, built: Any, docs: Any) -> None:
    for name, design in built.items():
        for view, parts in design.get("views", {}).items():
            results = map_rows(f"{name.removeprefix('_design/')}/{view}", docs)
            for doc, rows in zip(docs, results, strict=True):
                if view == "steps" and doc["type"] == "daqdocument":
                    states(rows)
                for key, value in rows:
                    assert isinstance(key, list)
                    json.dumps([key, value], allow_nan=False).encode()
                    if parts.get("reduce") in ("_sum", "_stats"):
                        assert isinstance(value, int | float), "one odd value would spoil the whole view"
        for source in design.get("filters", {}).values():
            for said in call(source, [[doc, {}] for doc in docs]):
                assert isinstance(said.get("value"), bool), said
