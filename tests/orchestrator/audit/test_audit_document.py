"""What the audit sees in one document: nothing in whatever the orchestrator itself can have written."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchestrator import chain as chains
from orchestrator import documents
from orchestrator.audit.disk import Names
from orchestrator.audit.document import Rules, attempts_expected, named_paths, outputs, step_entries
from orchestrator.audit.findings import KEPT, KINDS, Finding, Findings
from orchestrator.documents import Claimant, Report
from orchestrator.filenames import unfinished
from procs.outputs import atomic_output

CHAIN = chains.loads("""
name: c
steps:
  - {name: a, run: "x:y", retries: {count: 2, wait: 1 s}}
  - {name: b, run: "x:y", retries: {count: 0}}
""")
ME = Claimant("p-1-0", "h", 1, "here")
MOVES = st.lists(st.sampled_from(["claim", "done", "transient", "code", "lose", "release", "retry"]), max_size=30)


def moved(moves: list[str]) -> tuple[dict[str, Any], set[str]]:
    """A document after some of its moves (those that it can make), and the ids of its attempts' documents."""
    document: dict[str, Any] = {"_id": "d", "type": "daqdocument", "status": "closed", "file": "/raw/d"}
    records: set[str] = set()
    for now, move in enumerate(moves, 1_000):
        held = documents.holder(document)
        step = documents.ready_step(CHAIN, document) if held is None else CHAIN.step(held[0])
        if move == "claim" and held is None and step is not None:
            document = documents.claim(document, step, ME, f"a{now}", now)
        elif move == "retry" and document["status"] == "failed":
            document = documents.retry(document, "me", "", now)
        elif held is not None and step is not None:
            report = Report("d", step.key, held[1]["attempt"], now, now, result={"file": f"/out/{step.key}"})
            record = None
            if move == "done":
                document = documents.finish(document, step, report, now)
            elif move in ("transient", "code"):
                report.error_class = move
                document, record = documents.fail(document, step, report, now)
            elif move == "lose":
                document, record = documents.lose(document, step, "gone", now)
            elif move == "release":
                document = documents.release(document, step, "later", now)
            if record is not None:
                records.add(record["_id"])
    return document, records


@given(MOVES)
def test_what_the_orchestrator_writes_is_never_found_amiss(moves: list[str]) -> None:
    document, records = moved(moves)
    entries = step_entries(document)
    assert list(Rules(CHAIN, lambda _: True).look(document, entries)) == []
    assert set(attempts_expected(document, entries)) == records
    assert {output.path for output in outputs(CHAIN, document)} <= named_paths(document)


SCALARS = st.none() | st.booleans() | st.floats() | st.text()


@given(st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_a_document_of_any_kind_is_looked_at_without_harm(value: Any) -> None:
    for some in (
        {"status": "proc 0 in progress", "proc0": value, "retry": value},
        {"status": value, "proc0": {"state": value, "number": value, "file": value}},
        {"status": "good", "proc0": {"state": "done", "result": value}, "numbers": value},
    ):
        document = {"_id": "d", "type": "daqdocument", **some}
        entries = step_entries(document)
        for finding in Rules(CHAIN, lambda _: False).look(document, entries):
            assert finding.remedy and finding.kind in KINDS
        attempts_expected(document, entries)
        list(outputs(CHAIN, document))
        named_paths(document)


@given(st.lists(st.text()), st.lists(st.text()))
def test_names_know_what_is_missing_and_what_stands_twice(known: list[str], asked: list[str]) -> None:
    names = Names()
    names.add_all(known)
    assert names.missing(asked) == [name for name in asked if name not in known]
    assert names.doubles() == {hash(name) for name in known if known.count(name) > 1}


def test_an_unfinished_output_is_known_by_its_name(tmp_path: Any) -> None:
    with atomic_output(tmp_path / "a.b.root", "0123abcd") as temporary:
        assert unfinished(temporary.name) == ("a.b.root", "0123abcd")
        temporary.touch()
    assert unfinished("a.b.root") is None and unfinished(".bashrc") is None


def test_a_remedy_is_safe_to_paste() -> None:
    assert "'a; rm -rf ~'" in Finding("failure-unexplained", "a; rm -rf ~", "x").remedy


def test_of_a_million_of_one_kind_a_thousand_are_kept() -> None:
    findings = Findings()
    for number in range(KEPT + 500):
        findings.add(Finding("output-missing", str(number), "x"))
    assert len(findings) == KEPT + 500 and len(findings.kept) == KEPT


def test_what_another_system_has_failed_left_no_attempt_s_document_here() -> None:
    entry = {"state": "failed", "attempt": "imported", "number": 1}
    assert attempts_expected({"_id": "d"}, {"proc0": entry}) == []
    assert attempts_expected({"_id": "d"}, {"proc0": {**entry, "attempt": "a1"}}) == ["attempt:d:proc0:1"]
    again = {"proc0": {**entry, "attempt": "a2", "number": 2}}
    assert attempts_expected({"_id": "d", "numbers": {"proc0": 2}}, again) == ["attempt:d:proc0:2"]
