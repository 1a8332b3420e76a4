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
from orchestrator.transitions import HELD, TRANSITIONS, Kind

Verdict = Callable[..., dict[str, Any]]


def user(*roles: str, name: str | None = "somebody") -> dict[str, Any]:
    return {"db": "runs", "name": name, "roles": list(roles)}


HERE = user("site:here")
LYON = user("site:lyon")
BOTH = user("site:here", "site:lyon")
OPERATOR = user("operator")
ADMIN = user("admin")
SERVER_ADMIN = user("_admin", name="root")
REPLICATOR = user("replicator")
VIEWER = user("viewer")
NOBODY = user(name=None)
STATUSES = [
    *(kind.value for kind in Kind if transitions.parse(kind.value)),
    *(f"proc {n} {kind}" for n in (0, 1, 2) for kind in HELD),
]
#: The site of each step of the tests' chain.
SITES = {0: "here", 1: "lyon", 2: "here", 3: "here"}
DONE = {"state": "done", "attempt": "a" * 32, "result": {"n": 3}}


@pytest.fixture
def verdict(call: Any, built: Any) -> Verdict:
    """The guard's word on a write: ``{"value": None}``-like for yes, ``{"threw": {...}}`` for no.

    The old document gets a revision, and the new one names it, as in any write but a replicator's.
    """
    source = built["_design/guard"]["validate_doc_update"]

    def say(new: dict[str, Any], old: dict[str, Any] | None = None, user: dict[str, Any] = ADMIN) -> dict[str, Any]:
        if old is not None:
            new, old = {"_rev": "7-a", **new}, {"_rev": "7-a", **old}
        return call(source, [[new, old, user, {}]])[0]

    return say


def doc(status: Any, **more: Any) -> dict[str, Any]:
    return {"_id": "a", "type": "daqdocument", "site": "here", "file": "/raw/a", "status": status, **more}


def forbidden(said: dict[str, Any]) -> str:
    return said["threw"]["forbidden"]


def passes(said: dict[str, Any]) -> bool:
    return "threw" not in said


# --- which transitions there are ---


def test_the_guard_says_what_the_table_says(verdict: Verdict) -> None:
    seen = set()
    for before, after in itertools.product([None, *STATUSES], STATUSES):
        old = None if before is None else doc(before)
        said = verdict(doc(after), old)
        if before == after:
            assert passes(said)
            continue
        try:
            transitions.check(transitions.parse(before), transitions.parse(after))  # type: ignore[arg-type]
        except IllegalTransition as error:
            assert forbidden(said) == str(error)
            seen.add(False)
        else:
            assert passes(said), (before, after)
            seen.add(True)
    assert seen == {True, False}


def permitted(before: str | None, after: str, who: dict[str, Any]) -> bool:
    """What ``transitions.TRANSITIONS`` says of an account with these roles, worked out once more in Python."""
    old, new = transitions.parse(before), transitions.parse(after)
    assert new is not None
    kind = Kind.NEW if old is None else old.kind
    for one in TRANSITIONS:
        if kind not in one.before or one.after is not new.kind:
            continue
        if old is not None and old.step is not None and new.step is not None:
            moved = {"same": new.step == old.step, "later": new.step > old.step}
            if not moved.get(one.step, True):
                continue
        if one.by == "person":
            if "operator" in who["roles"]:
                return True
            continue
        steps = {status.step for status in (old, new) if status is not None and status.step is not None}
        if all(f"site:{site}" in who["roles"] for site in {SITES[step] for step in steps} or {"here"}):
            return True
    return False


@pytest.mark.parametrize("who", [HERE, LYON, BOTH, OPERATOR, user("operator", "site:lyon"), VIEWER])
def test_each_transition_is_for_those_whose_it_is(verdict: Verdict, who: dict[str, Any]) -> None:
    for before, after in itertools.product([None, *STATUSES], STATUSES):
        if before == after:
            continue
        old = None if before is None else doc(before)
        said = verdict(doc(after), old, who)
        assert passes(said) == permitted(before, after, who), (before, after, who["roles"], said)


def test_the_sentence_says_from_where_to_where_and_what_is_possible(verdict: Verdict) -> None:
    assert forbidden(verdict(doc("proc 0 in progress"), doc("bad"))) == (
        "the status cannot go from 'bad' to 'proc 0 in progress'; from here it can go to: closed, good"
    )


def test_the_sentence_says_which_role_is_wanting(verdict: Verdict) -> None:
    assert forbidden(verdict(doc("proc 1 in progress"), doc("good"), HERE)) == (
        "proc1 belongs to the site lyon: this account does not have the role site:lyon"
    )
    assert "operator or admin" in forbidden(verdict(doc("good"), doc("bad"), HERE))
    assert "daemons" in forbidden(verdict(doc("proc 0 in progress"), doc("good"), OPERATOR))
    assert "belongs to no step" in forbidden(verdict(doc("proc 9 in progress"), doc("good"), HERE))
    assert "may read only" in forbidden(verdict(doc("good", note=1), doc("good"), VIEWER))


def test_only_an_admin_forces_and_each_time_anew_with_a_reason(verdict: Verdict) -> None:
    forced = {"by": "root", "why": "restored from tape", "at": "2026-01-22T11:00:00Z"}
    for admin in (ADMIN, SERVER_ADMIN):
        assert forbidden(verdict(doc("proc 0 in progress"), doc("bad"), admin))
        assert passes(verdict(doc("proc 0 in progress", forced=forced), doc("bad"), admin))
        assert passes(verdict(doc("bad", file="/new", forced=forced), doc("bad"), admin))
        assert forbidden(verdict(doc("proc 0 in progress", forced=forced), doc("bad", forced=forced), admin))
        assert forbidden(verdict(doc("proc 0 in progress", forced={**forced, "why": ""}), doc("bad"), admin))
    for other in (BOTH, OPERATOR, VIEWER):
        assert forbidden(verdict(doc("proc 0 in progress", forced=forced), doc("bad"), other))
        assert forbidden(verdict(doc("good", forced=forced), doc("good"), other))


# --- what a document says ---


@pytest.mark.parametrize("status", [None, 7, "", "done", "proc in progress", "proc -1 queued", ["good"], {"a": 1},
                                    "good|bad", "|", "proc 1 queued|", "Good", " good", "proc 1 open", "proc  1 queued",
                                    "proc 1234567 queued", "proc 1 queued\n", "new"])  # fmt: skip
def test_an_unknown_status_is_refused(verdict: Verdict, status: Any) -> None:
    assert "is none that is known" in forbidden(verdict(doc(status)))


def test_older_forms_of_a_status_may_stay(verdict: Verdict) -> None:
    assert passes(verdict(doc("proc1 in progress", note=1), doc("proc1 in progress")))
    assert passes(verdict(doc("good"), doc("proc1 in progress"), LYON))
    assert passes(verdict(doc("good"), doc("proc1 failed"), OPERATOR))
    assert forbidden(verdict(doc("good"), doc("proc1 in progress"), HERE))


@pytest.mark.parametrize("entry", [None, "done", 1, True, [], [{}]])
def test_a_step_s_keyword_is_an_object(verdict: Verdict, entry: Any) -> None:
    assert forbidden(verdict(doc("closed", proc1=entry))) == "proc1 must be an object"
    assert passes(verdict(doc("closed", proc1={}, process=entry, proc=entry)))


def test_a_site_leaves_the_entries_of_other_sites_as_they_are(verdict: Verdict) -> None:
    old = doc("good", proc0=DONE, proc1=DONE)
    reordered = dict(reversed(DONE.items()))
    assert passes(verdict({**old, "proc0": {}, "note": 1}, old, HERE))
    assert passes(verdict({**old, "proc1": reordered}, old, HERE)), "the order of members says nothing"
    for changed in ({**DONE, "result": {"n": 4}}, {**DONE, "more": 1}, {}, {"state": "done"}):
        assert "site:lyon" in forbidden(verdict({**old, "proc1": changed}, old, HERE)), changed
    assert "site:lyon" in forbidden(verdict(doc("good", proc0=DONE), old, HERE)), "nor takes them away"
    assert "site:lyon" in forbidden(verdict(doc("good", proc1=DONE), doc("good"), HERE)), "nor makes them up"
    assert "site:lyon" in forbidden(verdict(doc("closed", proc1=DONE), None, HERE)), "at registration neither"
    assert "no step" in forbidden(verdict({**old, "proc7": {}}, old, HERE))


def test_a_person_takes_results_away_but_makes_none_up(verdict: Verdict) -> None:
    old = doc("proc 2 in progress", proc0=DONE, proc1=DONE, proc2={"state": "in progress"})
    assert passes(verdict(doc("good", proc0=DONE), old, OPERATOR)), "a reset"
    assert passes(verdict({**old, "status": "failed", "proc2": {"state": "failed", "reason": "x"}}, old, OPERATOR))
    assert "cannot say" in forbidden(verdict({**old, "status": "good", "proc2": DONE}, old, OPERATOR))
    assert "cannot say" in forbidden(verdict({**old, "proc0": {**DONE, "result": {}}}, old, OPERATOR))
    assert passes(verdict({**old, "hold": {"by": "x"}, "priority": 5, "note": "warm"}, old, OPERATOR))
    assert "registrar" in forbidden(verdict(doc("closed"), None, OPERATOR))


def test_a_person_accepts_what_a_gate_has_refused_and_changes_nothing_else_of_it(verdict: Verdict) -> None:
    entry = {"state": "refused", "gate": "size", "reason": "2 bytes", "file": "/out/a", "result": {"n": 3}}
    old = doc("bad", proc0=DONE, proc1=entry, reason="the gate refuses")
    word = {"by": "somebody@daq1", "at": "2026-01-22T11:00:00.000Z", "reason": "it will do"}
    taken = {**entry, "state": "done", "accepted": word}

    def new(**more: Any) -> dict[str, Any]:
        return doc("good", proc0=DONE, proc1={**taken, **more})

    assert passes(verdict(new(), old, OPERATOR))
    for wrong in (
        new(file="/etc/passwd"), new(result={"n": 4}), new(more=1), new(accepted={**word, "by": "another"}),
        new(accepted={**word, "reason": ""}), new(accepted=None), new(gate=None),
    ):  # fmt: skip
        assert "cannot say" in forbidden(verdict(wrong, old, OPERATOR)), wrong["proc1"]
    less = new()
    del less["proc1"]["reason"]
    assert "cannot say" in forbidden(verdict(less, old, OPERATOR))
    for state in ("failed", "in progress", "done"):
        was = doc("bad", proc0=DONE, proc1={**entry, "state": state})
        assert "cannot say" in forbidden(verdict(new(), was, OPERATOR)), state
    assert "cannot say" in forbidden(verdict(new(), doc("bad", proc0=DONE), OPERATOR))
    assert "is for people" in forbidden(verdict(new(), old, BOTH))
    assert "read only" in forbidden(verdict(new(), old, VIEWER))


@pytest.mark.parametrize("key", ["hold", "operation", "forced"])
def test_what_people_say_is_not_for_the_daemons(verdict: Verdict, key: str) -> None:
    old = doc("good", **{key: {"by": "ann"}})
    assert passes(verdict({**old, "status": "proc 0 in progress"}, old, HERE))
    assert f"'{key}'" in forbidden(verdict({**old, key: {"by": "bob"}}, old, HERE))
    assert f"'{key}'" in forbidden(verdict(doc("good"), old, HERE))
    assert f"'{key}'" in forbidden(verdict(old, doc("good"), HERE))


def test_which_file_a_document_is_about_never_changes(verdict: Verdict) -> None:
    old = doc("closed", size=5, checksum=None, run_name="r", file_number=3, hostname="daq1", file_bytes="YQ==")
    assert passes(verdict({**old, "checksum": "sha256:0"}, old, HERE)), "what was not known may become so"
    for who in (ADMIN, SERVER_ADMIN, OPERATOR, HERE, REPLICATOR):
        for key in ("file", "file_bytes", "site", "run_name", "file_number", "hostname", "size"):
            assert f"'{key}' says which file" in forbidden(verdict({**old, key: "other"}, old, who)), (key, who)
            assert forbidden(verdict({name: old[name] for name in old if name != key}, old, who))


def test_a_file_that_is_closed_tells_what_it_is(verdict: Verdict) -> None:
    old = doc("open", size=5, run_name="r")
    closed = {**old, "status": "closed", "size": 9, "run_name": "s", "checksum": "sha256:0"}
    assert passes(verdict(closed, old, HERE))
    assert "'file'" in forbidden(verdict({**closed, "file": "/other"}, old, HERE))


def test_the_type_of_a_document_never_changes(verdict: Verdict) -> None:
    for who in (ADMIN, HERE, OPERATOR, REPLICATOR):
        assert "cannot change" in forbidden(verdict({"_id": "a", "type": "other"}, doc("good"), who))
        assert "cannot change" in forbidden(verdict(doc("closed"), {"_id": "a", "type": "attempt"}, who))
    for kind in (None, 3, ""):
        assert "needs a type" in forbidden(verdict({"_id": "x", "type": kind}))
    assert "needs a type" in forbidden(verdict({"_id": "x"}))


# --- who ---


def test_nobody_writes_without_a_name(verdict: Verdict) -> None:
    for new in (doc("closed"), {"_id": "a", "_deleted": True}, {"_id": "x", "type": "control"}):
        assert "log in" in verdict(new, None, NOBODY)["threw"]["unauthorized"]
        assert "log in" in verdict(new, None, user("site:here", "operator", name=None))["threw"]["unauthorized"]


def test_who_may_delete(verdict: Verdict) -> None:
    gone = {"_id": "a", "_deleted": True}
    for who in (ADMIN, SERVER_ADMIN, REPLICATOR):
        assert passes(verdict(gone, doc("good"), who))
    for who in (HERE, OPERATOR, VIEWER):
        assert "only an admin may delete" in forbidden(verdict(gone, doc("good"), who))
        assert forbidden(verdict(gone, {"_id": "a", "type": "attempt", "step": "proc0"}, who))
    assert passes(verdict(gone, {"_id": "a", "type": "past"}, OPERATOR)), "of an operation that was not carried out"
    assert passes(verdict(doc("closed"), gone, HERE)), "a document may come back, as a new one"
    assert "from 'new'" in forbidden(verdict(doc("failed"), gone))
    assert "from 'new'" in forbidden(verdict(doc("failed"), doc("good", _deleted=True)))


def attempt(step: Any = "proc0", **more: Any) -> dict[str, Any]:
    return {"_id": "attempt:a:proc0:1", "type": "attempt", "step": step, "status": "whatever", **more}


def test_attempts_are_written_once_by_the_site_of_their_step(verdict: Verdict) -> None:
    assert passes(verdict(attempt(), None, HERE))
    assert passes(verdict(attempt(), None, OPERATOR)), "a person who calls a step off"
    assert "site:lyon" in forbidden(verdict(attempt("proc1"), None, HERE))
    assert passes(verdict(attempt("proc1"), None, LYON))
    for step in ("proc9", "convert", None, 1, "proc1x"):
        assert forbidden(verdict(attempt(step), None, BOTH))
    assert "to change" in forbidden(verdict(attempt(reason="x"), attempt(), HERE))
    assert "to change" in forbidden(verdict(attempt(reason="x"), attempt(), OPERATOR))
    assert passes(verdict(attempt(reason="x"), attempt(), ADMIN))


def test_only_the_record_of_an_end_goes_again_and_only_by_those_who_write_it(verdict: Verdict) -> None:
    """The result of an attempt may be found after another poller has given it up."""
    gone = {"_id": "attempt:a:proc0:1", "_deleted": True}
    lost = attempt(state="lost")
    assert passes(verdict(gone, lost, HERE))
    assert "site:here" in forbidden(verdict(gone, lost, LYON))
    for who in (OPERATOR, VIEWER):
        assert "to delete" in forbidden(verdict(gone, lost, who))
    assert passes(verdict(gone, attempt(state="called off"), OPERATOR))
    assert "to delete" in forbidden(verdict(gone, attempt(state="called off"), HERE))
    for state in ("failed", "cancelled", None):
        for who in (HERE, OPERATOR):
            assert "to delete" in forbidden(verdict(gone, attempt(state=state), who))


def record(kind: str, by: Any = "somebody", **more: Any) -> dict[str, Any]:
    """A record that a person writes, signed as each type is."""
    signature = {"past": {"operation": {"id": "operation:1", "by": by}, "document": "a"}, "operation": {"by": by}}
    return {"_id": f"{kind}:x", "type": kind, "site": "here", **signature.get(kind, {}), **more}


@pytest.mark.parametrize("kind", ["operation", "past", "control"])
def test_what_people_do_is_recorded_by_people(verdict: Verdict, kind: str) -> None:
    old = record(kind)
    assert passes(verdict(old, None, OPERATOR))
    assert passes(verdict({**old, "state": "done"}, old, OPERATOR))
    for who in (HERE, VIEWER):
        assert "operator or admin" in forbidden(verdict(old, None, who))
        assert "operator or admin" in forbidden(verdict({**old, "state": "done"}, old, who))


def test_people_sign_with_their_own_name(verdict: Verdict) -> None:
    old = doc("good", operation={"by": "bob", "at": "1"})
    for by in ("somebody", "somebody@daq1"):
        assert passes(verdict({**old, "operation": {"by": by, "at": "2"}}, old, OPERATOR))
        assert passes(verdict(record("operation", by), None, OPERATOR))
        assert passes(verdict(record("past", by), None, OPERATOR))
    for by in ("bob", "somebodyelse", "", None, 3, ["somebody"], {"a": 1}):
        assert "sign it with your own name" in forbidden(verdict({**old, "operation": {"by": by}}, old, OPERATOR))
        assert "not signed by you" in forbidden(verdict(record("operation", by), None, OPERATOR))
        assert "not signed by you" in forbidden(verdict(record("past", by), None, OPERATOR))
    for kind in ("operation", "past"):
        assert "not signed" in forbidden(verdict({"_id": f"{kind}:x", "type": kind}, None, OPERATOR)), "by nobody"
    assert passes(verdict({**old, "note": 1}, old, OPERATOR)), "another's signature may stay"
    assert "cannot be taken out" in forbidden(verdict(doc("good"), old, OPERATOR))


def test_a_record_may_be_ended_by_another_and_says_for_ever_who_did_what(verdict: Verdict) -> None:
    theirs = record("operation", "bob", what="hold", at="1", reason="x", state="begun")
    assert passes(verdict({**theirs, "state": "done", "counts": {}}, theirs, OPERATOR))
    for change in ({"by": "somebody"}, {"what": "release"}, {"at": "2"}, {"reason": "y"}, {"reason": None}):
        assert "cannot change" in forbidden(verdict({**theirs, **change}, theirs, OPERATOR))
    past = record("past", "bob", entries={"proc0": {"state": "done"}}, outputs={"state": "pending"})
    assert passes(verdict({**past, "outputs": {"state": "moved"}}, past, OPERATOR))
    assert "bob's record" in forbidden(verdict({**past, "entries": {}}, past, OPERATOR))
    assert "cannot change" in forbidden(verdict({**past, "document": "b"}, past, OPERATOR))
    mine = record("past", entries={"proc0": {"state": "done"}})
    assert passes(verdict({**mine, "entries": {}}, mine, OPERATOR)), "decided anew after a conflict"


def test_what_is_paused_and_limited_is_signed_by_who_does_it(verdict: Verdict) -> None:
    def control(stops: Any, limits: Any = None, history: Any = ()) -> dict[str, Any]:
        return record("control", stops=stops, limits=limits or {}, history=list(history))

    ours, bobs = {"mode": "pause", "by": "somebody@daq1", "at": "2"}, {"mode": "pause", "by": "bob", "at": "1"}
    old = control({"site": bobs}, {"lyon": {"queued": {"value": 1, "by": "bob"}}}, [bobs, {**bobs, "at": "0"}])
    assert passes(verdict(control({"site": ours}), None, OPERATOR))
    assert "signed by you" in forbidden(verdict(control({"site": bobs}), None, OPERATOR))
    assert passes(verdict({**old, "stops": {"step:a": ours, "site": bobs}}, old, OPERATOR))
    assert passes(verdict({**old, "stops": {}}, old, OPERATOR)), "who lets it go on stands in the history"
    assert passes(verdict({**old, "history": [*old["history"][1:], ours]}, old, OPERATOR)), "the list is kept short"
    for change in (
        {"stops": {"site": {**bobs, "mode": "drain"}}}, {"stops": {"site": bobs, "step:a": bobs}},
        {"limits": {"lyon": {"queued": {"value": 2, "by": "bob"}}}}, {"history": [{**bobs, "at": "3"}]},
    ):  # fmt: skip
        assert "signed by you" in forbidden(verdict({**old, **change}, old, OPERATOR))
        assert passes(verdict({**old, **change}, old, ADMIN))


@pytest.mark.parametrize("kind", ["attempt", "operation", "past", "control"])
def test_no_record_takes_the_name_of_a_file_and_no_file_that_of_a_record(verdict: Verdict, kind: str) -> None:
    """A document under another's name would keep the real one from ever being made."""
    step = {"step": "proc0"} if kind == "attempt" else {}
    another = "operation:x" if kind == "control" else "control:lyon"
    for name in ("ma22a000_000", another, kind, f"x{kind}:", f" {kind}:x"):
        for who in (HERE, OPERATOR):
            assert not passes(verdict({**record(kind), **step, "_id": name}, None, who))
        if kind == "attempt":
            assert "begins with 'attempt:'" in forbidden(verdict({**record(kind), **step, "_id": name}, None, HERE))
    file = {**doc("closed"), "_id": f"{kind}:x"}
    assert "is for documents of that type" in forbidden(verdict(file, None, HERE))
    assert passes(verdict(file, None, ADMIN)), "as an import may bring it"
    assert passes(verdict({**file, "note": 1}, file, HERE)), "one that is there lives on"
    assert passes(verdict({**file, "_id": "file:x"}, None, HERE))


def test_documents_of_a_type_that_is_not_ours_are_for_admins(verdict: Verdict) -> None:
    for kind in ("note", "toString", "__proto__", "hasOwnProperty"):
        for who in (HERE, OPERATOR, VIEWER):
            assert "is for admin" in forbidden(verdict({"_id": "x", "type": kind, "site": "here"}, None, who))
        assert passes(verdict({"_id": "x", "type": kind}, None, ADMIN))


def test_roles_that_only_look_like_roles(verdict: Verdict) -> None:
    for roles in (["site"], ["site:"], ["site:Here"], ["Site:here"], ["xsite:here"], ["site:here "], ["__proto__"]):
        assert forbidden(verdict(doc("proc 0 in progress"), doc("good"), user(*roles))), roles
        assert forbidden(verdict(doc("closed"), None, user(*roles))), roles
    odd = doc("closed", site="__proto__")
    assert forbidden(verdict(odd, None, user("site:here")))


# --- revisions made elsewhere ---


def made_elsewhere(call: Any, built: Any, new: Any, old: Any, who: Any) -> dict[str, Any]:
    [said] = call(built["_design/guard"]["validate_doc_update"], [[{**new, "_rev": "9-b"}, old, who, {}]])
    return said


def test_revisions_made_elsewhere_are_a_replicator_s(call: Any, built: Any) -> None:
    """With ``new_edits=false`` the new document names itself, not the revision that it follows."""
    ancestor = {**doc("closed"), "_rev": "2-a"}
    far = doc("failed", proc0=DONE, proc1={"state": "failed"})  # several transitions of two sites later
    for who in (REPLICATOR, SERVER_ADMIN):
        for old in (None, ancestor):
            assert passes(made_elsewhere(call, built, far, old, who))
            assert passes(made_elsewhere(call, built, {"_id": "a", "_deleted": True}, old, who))
            assert passes(made_elsewhere(call, built, {"_id": "x", "type": "whatever"}, None, who))
    for who in (HERE, BOTH, OPERATOR, ADMIN, VIEWER, user("site:here", "operator", "admin")):
        for new in (far, doc("proc 0 in progress"), {"_id": "a", "_deleted": True}, attempt()):
            for old in (None, ancestor):
                said = made_elsewhere(call, built, new, old, who)
                assert "new_edits=false" in forbidden(said), (new, old, who)


def test_what_no_guard_has_let_pass_no_replicator_brings(call: Any, built: Any) -> None:
    ancestor = {**doc("closed"), "_rev": "2-a"}
    for new in (doc("done"), doc("good", proc1=3), {"_id": "a"}, doc("good", type="other"), doc("good", file="/else")):
        assert forbidden(made_elsewhere(call, built, new, ancestor, REPLICATOR)), new
    forced = {"by": "root", "why": "moved", "at": "now"}
    assert passes(made_elsewhere(call, built, doc("good", file="/else", forced=forced), ancestor, REPLICATOR))


# --- whatever comes ---


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5) | st.sampled_from(STATUSES),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
ANY_DOCUMENT = st.builds(
    lambda fields: {"_id": "a", **fields},
    st.dictionaries(
        st.sampled_from(
            ["type", "status", "proc0", "proc1", "forced", "hold", "site", "step", "_rev", "_deleted", "__proto__"]
        ),
        JSON,
    )
    | st.builds(doc, st.sampled_from(STATUSES) | JSON),
)


@settings(max_examples=80, deadline=None)
@given(
    new=ANY_DOCUMENT,
    old=st.none() | ANY_DOCUMENT,
    who=st.sampled_from([HERE, BOTH, OPERATOR, ADMIN, SERVER_ADMIN, REPLICATOR, VIEWER, NOBODY]),
)
def test_no_document_makes_the_guard_stumble(call: Any, built: Any, new: Any, old: Any, who: Any) -> None:
    [said] = call(built["_design/guard"]["validate_doc_update"], [[new, old, who, {}]])
    if "threw" in said:
        assert isinstance(said["threw"], dict) and set(said["threw"]) <= {"forbidden", "unauthorized"}, said


def test_the_guard_is_quick(built: Any) -> None:
    """Every write pays for it: well below the 0.3 ms that CouchDB takes for a document of a bulk."""
    context = quickjs.Context()
    source = built["_design/guard"]["validate_doc_update"]
    entry = {"state": "done", "attempt": "a" * 32, "result": {"n": 3}}
    old = doc("proc 2 in progress", proc0=entry, proc1=entry, proc2=entry, header={f"k{n}": n for n in range(40)})
    run = context.eval(
        f"(function (old, doc, user) {{ var f = ({source}), i; old = JSON.parse(old); doc = JSON.parse(doc);"
        "user = JSON.parse(user); for (i = 0; i < 2000; i++) f(doc, old, user, {}); })"
    )
    began = time.perf_counter()
    run(json.dumps(old), json.dumps({**old, "status": "good"}), json.dumps(HERE))
    each = (time.perf_counter() - began) / 2000
    assert each < 200e-6, f"{each * 1e6:.0f} us a document"
