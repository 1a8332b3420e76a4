"""Which documents a person means: what is said, what it is narrowed to, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator import chain as chains
from orchestrator.errors import SettingsError
from orchestrator.selection import SHOWN, Selection, fits, from_json, run_range, stands_at, usual

CHAIN = chains.loads("name: two\nsteps: [{name: a, run: 'x:y'}, {name: b, run: 'x:y'}]")
A, B = CHAIN.steps


def raw(status: str = "closed", **more: Any) -> dict[str, Any]:
    return {"_id": "d", "type": "daqdocument", "status": status, **more}


DONE = {"state": "done", "step": "a", "software": {"step": "1.0"}}


@pytest.mark.parametrize(
    ("document", "at"),
    [
        (raw(), (True, False)),
        (raw(hold={"by": "ann"}), (True, False)),
        (raw("good", proc0=DONE), (False, True)),
        (raw("proc 1 in progress", proc0=DONE, proc1={}), (False, True)),
        (raw("failed", proc0={"state": "failed"}), (True, False)),
        (raw("failed"), (False, False)),
        (raw("bad"), (False, False)),
        (raw("good", proc0=DONE, proc1=DONE), (False, False)),
        (raw("odd"), (False, False)),
    ],
)
def test_where_a_document_stands(document: dict[str, Any], at: tuple[bool, bool]) -> None:
    assert (stands_at(CHAIN, document, A), stands_at(CHAIN, document, B)) == at


def test_status_step_and_version_narrow_and_several_statuses_widen() -> None:
    document = raw("good", proc0=DONE)
    for said, expected in (
        (Selection(statuses=("good",)), True),
        (Selection(statuses=("bad", "good")), True),
        (Selection(statuses=("failed",)), False),
        (Selection(statuses=("good",), step="a"), False),
        (Selection(step="b"), True),
        (Selection(done="a", version="1.0"), True),
        (Selection(done="a", version="2.0"), False),
        (Selection(done="a", not_version="1.0"), False),
        (Selection(done="a", not_version="2.0"), True),
        (Selection(done="b"), False),
    ):
        assert fits(said, CHAIN, document) is expected, said
    assert not fits(Selection(everything=True), CHAIN, {**document, "type": "tar"})
    assert fits(Selection(statuses=("in progress",)), CHAIN, raw("proc 1 in progress"))
    assert fits(Selection(statuses=("proc 1 in progress",)), CHAIN, raw("proc1 in progress"))


def test_an_operation_concerns_what_it_applies_to_unless_documents_are_named() -> None:
    assert usual("retry", Selection(runs=("r",)), "").statuses == ("failed",)
    assert usual("retry", Selection(documents=("d",)), "").statuses == ()
    assert usual("mark-good", Selection(runs=("r",), statuses=("closed",)), "").statuses == ("closed",)
    assert usual("release", Selection(everything=True), "").query == {"hold": {"$exists": True}}
    assert usual("reprocess", Selection(version="1"), "proc0").done == "proc0"
    assert usual("retry", Selection(), "").empty, "nothing said is nothing meant"


def test_what_cannot_be_meant_is_refused_and_what_is_recorded_stays_short() -> None:
    assert (run_range("a..b"), run_range("a.."), run_range("..b")) == (("a", "b"), ("a", ""), ("", "b"))
    for text in ("a", "..", "a.b"):
        with pytest.raises(SettingsError):
            run_range(text)
    empty = [{key: [], "statuses": ["failed"]} for key in ("documents", "runs")]
    for odd in ({"x": 1}, {"documents": "d"}, {"runs": [""]}, {"query": []}, {"everything": 1}, {"step": 3},
                {"documents": ["\ud800"]}, {"step": "\udcff"}, *empty):  # fmt: skip
        with pytest.raises(SettingsError):
            from_json(odd)
    many = Selection(documents=tuple(f"d{n}" for n in range(1000)))
    assert len(many.to_json()["documents"]) == SHOWN + 1
    said = {"runs": ["r"], "first_run": "a", "statuses": ["failed"], "everything": True}
    assert from_json(said).to_json() == said
