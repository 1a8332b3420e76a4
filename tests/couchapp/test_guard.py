"""The guard: what the table of transitions allows passes, anything else is refused with the reason."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import quickjs
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import transitions
from orchestrator.errors import IllegalTransition

Verdict = Callable[..., dict[str, Any]]
POLLER = {"db": "runs", "name": "poller", "roles": []}
ADMIN = {"db": "runs", "name": "root", "roles": ["_admin"]}
STATUSES = [
    "open",
    "closed",
    "good",
    "bad",
    "failed",
    *(f"proc {n} {k}" for n in (0, 1, 2) for k in ("queued", "in progress")),
]


@pytest.fixture
def verdict(call: Any, built: Any) -> Verdict:
    """The guard's word on a write: ``{"value": None}``-like for yes, ``{"threw": {...}}`` for no."""
    source = built["_design/guard"]["validate_doc_update"]

    def say(new: dict[str, Any], old: dict[str, Any] | None = None, user: dict[str, Any] = POLLER) -> dict[str, Any]:
        return call(source, [[new, old, user, {}]])[0]

    return say


def doc(status: Any, **more: Any) -> dict[str, Any]:
    return {"_id": "a", "type": "daqdocument", "status": status, **more}


def forbidden(said: dict[str, Any]) -> str:
    return said["threw"]["forbidden"]


def test_the_guard_says_what_the_table_says(verdict: Verdict) -> None:
    seen = set()
    for before, after in itertools.product([None, *STATUSES], STATUSES):
        old = None if before is None else doc(before)
        said = verdict(doc(after), old)
        if before == after:
            assert "threw" not in said
            continue
        try:
            transitions.check(transitions.parse(before), transitions.parse(after))  # type: ignore[arg-type]
        except IllegalTransition as error:
            assert forbidden(said) == str(error)
            seen.add(False)
        else:
            assert "threw" not in said, (before, after)
            seen.add(True)
    assert seen == {True, False}


def test_the_sentence_says_from_where_to_where_and_what_is_possible(verdict: Verdict) -> None:
    assert forbidden(verdict(doc("proc 0 in progress"), doc("bad"))) == (
        "the status cannot go from 'bad' to 'proc 0 in progress'; from here it can go to: closed, good"
    )


def test_only_an_admin_forces_and_each_time_anew_with_a_reason(verdict: Verdict) -> None:
    forced = {"by": "root", "why": "restored from tape", "at": "2026-01-22T11:00:00Z"}
    assert forbidden(verdict(doc("proc 0 in progress"), doc("bad"), ADMIN))
    assert "threw" not in verdict(doc("proc 0 in progress", forced=forced), doc("bad"), ADMIN)
    assert forbidden(verdict(doc("proc 0 in progress", forced=forced), doc("bad"), POLLER))
    assert forbidden(verdict(doc("proc 0 in progress", forced=forced), doc("bad", forced=forced), ADMIN))
    assert forbidden(verdict(doc("proc 0 in progress", forced={**forced, "why": ""}), doc("bad"), ADMIN))


@pytest.mark.parametrize("status", [None, 7, "", "done", "proc in progress", "proc -1 queued", ["good"], {"a": 1}])
def test_an_unknown_status_is_refused(verdict: Verdict, status: Any) -> None:
    assert "is none that is known" in forbidden(verdict(doc(status)))


def test_older_forms_of_a_status_may_stay(verdict: Verdict) -> None:
    assert "threw" not in verdict(doc("proc1 in progress", note=1), doc("proc1 in progress"))
    assert "threw" not in verdict(doc("good"), doc("proc1 in progress"))
    assert "threw" not in verdict(doc("good"), doc("proc1 failed"))


@pytest.mark.parametrize("entry", [None, "done", 1, True, [], [{}]])
def test_a_step_s_keyword_is_an_object(verdict: Verdict, entry: Any) -> None:
    assert forbidden(verdict(doc("closed", proc1=entry))) == "proc1 must be an object"
    assert "threw" not in verdict(doc("closed", proc1={}, process=entry, proc=entry))


def test_who_may_write_and_delete(verdict: Verdict) -> None:
    nobody = {"db": "runs", "name": None, "roles": []}
    assert "log in" in verdict(doc("closed"), None, nobody)["threw"]["unauthorized"]
    gone = {"_id": "a", "_deleted": True}
    assert "may delete" in forbidden(verdict(gone, doc("good")))
    for roles in (["_admin"], ["admin"], ["operator"]):
        assert "threw" not in verdict(gone, doc("good"), {"name": "x", "roles": roles})
    assert "threw" not in verdict(doc("closed"), gone), "a document may come back, as a new one"
    assert "from 'new'" in forbidden(verdict(doc("failed"), gone))
    assert "from 'new'" in forbidden(verdict(doc("failed"), doc("good", _deleted=True)))


def test_documents_of_other_types_pass_if_they_have_one(verdict: Verdict) -> None:
    assert "threw" not in verdict({"_id": "attempt:a:proc0:1", "type": "attempt", "status": "whatever"})
    assert "type" in forbidden(verdict({"_id": "x"}))
    assert "type" in forbidden(verdict({"_id": "x", "type": 3}))
    assert "cannot change" in forbidden(verdict({"_id": "a", "type": "other"}, doc("good")))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5) | st.sampled_from(STATUSES),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
ANY_DOCUMENT = st.builds(
    lambda fields: {"_id": "a", **fields},
    st.dictionaries(st.sampled_from(["type", "status", "proc0", "forced", "_deleted", "__proto__", "toString"]), JSON)
    | st.builds(doc, st.sampled_from(STATUSES) | JSON),
)


@settings(max_examples=80, deadline=None)
@given(
    new=ANY_DOCUMENT, old=st.none() | ANY_DOCUMENT, user=st.sampled_from([POLLER, ADMIN, {"name": None, "roles": []}])
)
def test_no_document_makes_the_guard_stumble(call: Any, built: Any, new: Any, old: Any, user: Any) -> None:
    [said] = call(built["_design/guard"]["validate_doc_update"], [[new, old, user, {}]])
    if "threw" in said:
        assert isinstance(said["threw"], dict) and set(said["threw"]) <= {"forbidden", "unauthorized"}, said


def test_the_guard_is_quick(built: Any) -> None:
    """Every write pays for it: well below the 0.3 ms that CouchDB takes for a document of a bulk."""
    context = quickjs.Context()
    source = built["_design/guard"]["validate_doc_update"]
    entry = {"state": "done", "attempt": "a" * 32, "result": {"n": 3}}
    old = doc("proc 1 in progress", proc0=entry, proc1=entry, header={f"k{n}": n for n in range(40)})
    run = context.eval(
        f"(function (old, doc, user) {{ var f = ({source}), i; old = JSON.parse(old); doc = JSON.parse(doc);"
        "user = JSON.parse(user); for (i = 0; i < 2000; i++) f(doc, old, user, {}); })"
    )
    began = time.perf_counter()
    run(json.dumps(old), json.dumps({**old, "status": "good"}), json.dumps(POLLER))
    each = (time.perf_counter() - began) / 2000
    assert each < 200e-6, f"{each * 1e6:.0f} us a document"
