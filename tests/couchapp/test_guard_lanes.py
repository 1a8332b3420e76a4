"""The guard where a chain has side lanes and gathers: each lane's steps are its own sites', and so are a gather's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from orchestrator import chain as chains
from orchestrator import designs

CHAIN = chains.loads("""
name: wide
sites: {here: {}, lyon: {}}
steps:
  - {name: transfer, run: "procs.noop:nothing"}
  - {name: convert, run: "procs.noop:nothing"}
lanes:
  archive:
    steps:
      - {name: tape, run: "procs.noop:nothing", site: lyon, needs: [transfer]}
gathers:
  runs:
    type: run
    site: lyon
    after: [convert]
    steps:
      - {name: merge, run: "procs.noop:nothing", site: lyon}
      - {name: pictures, run: "procs.noop:nothing"}
""")
DONE = {"state": "done", "attempt": "a" * 32}
HERE, LYON, OPERATOR, ADMIN = (
    {"db": "runs", "name": "somebody", "roles": [role]} for role in ("site:here", "site:lyon", "operator", "admin")
)
Verdict = Callable[..., str]


@pytest.fixture
def verdict(call: Any) -> Verdict:
    """Why a write is refused; "" if it is not."""
    built = designs.build(CHAIN)
    assert [name for name in built if "guard" in name] == ["_design/guard"], "one guard for all: each costs time"
    source = built["_design/guard"]["validate_doc_update"]

    def say(new: dict[str, Any], old: dict[str, Any] | None, user: dict[str, Any]) -> str:
        if old is not None:
            new, old = {"_rev": "7-a", **new}, {"_rev": "7-a", **old}
        [said] = call(source, [[new, old, user, {}]])
        if "threw" not in said:
            return ""
        [(kind, reason)] = said["threw"].items()
        assert kind in ("forbidden", "unauthorized")
        return str(reason)

    return say


def doc(status: str, **more: Any) -> dict[str, Any]:
    return {"_id": "a", "type": "daqdocument", "site": "here", "file": "/raw/a", "status": status, **more}


def run(status: str, **more: Any) -> dict[str, Any]:
    return {
        "_id": "runs:r1",
        "type": "run",
        "gather": "runs",
        "site": "lyon",
        "status": status,
        "run_name": "r1",
        **more,
    }


def test_a_lane_s_steps_are_for_their_site(verdict: Verdict) -> None:
    old = doc("proc 1 in progress", proc0=DONE, proc1={})
    claimed = {**old, "archive_status": "proc 0 in progress", "archive_proc0": {"state": "in progress"}}
    done = {**old, "archive_status": "good", "archive_proc0": DONE}
    assert verdict(claimed, old, LYON) == verdict(done, claimed, LYON) == ""
    assert "lane archive: proc0 belongs to the site lyon" in verdict(claimed, old, HERE)
    assert "site:lyon" in verdict({**done, "archive_proc0": {}}, done, HERE)
    assert verdict(old, done, HERE), "nor does it forget the lane"
    assert "site:lyon" in verdict({**old, "archive_status": "good"}, done, HERE)
    assert "daemons" in verdict(claimed, old, OPERATOR)
    assert "cannot say" in verdict({**claimed, "archive_proc0": DONE}, claimed, OPERATOR)
    assert verdict({**done, "status": "good", "proc1": DONE}, done, HERE) == "", "the main lane goes on beside it"
    assert "site:here" in verdict({**done, "status": "good", "proc1": DONE}, done, LYON)


def test_a_lane_has_the_same_table(verdict: Verdict) -> None:
    old = doc("good", archive_status="bad")
    for who in (LYON, OPERATOR, ADMIN):
        assert "cannot go from 'bad' to 'proc 0 in progress'" in verdict(
            {**old, "archive_status": "proc 0 in progress"}, old, who
        )
        assert "none that is known" in verdict({**old, "archive_status": "oddly"}, old, who)
    assert verdict({**old, "archive_status": "good"}, old, OPERATOR) == ""
    assert "must be an object" in verdict({**old, "archive_proc0": 3}, old, LYON)
    queued = {"archive_status": "proc 0 queued", "archive_proc0": {}, "archive_site": "here"}
    assert "site:lyon" in verdict({**doc("good"), **queued}, doc("good"), HERE)
    forced = {"by": "root", "why": "x", "at": "1"}
    assert verdict({**old, "archive_status": "proc 0 queued", "archive_forced": forced}, old, ADMIN) == ""


def test_what_happens_before_a_lane_begins_is_no_transition_of_it(verdict: Verdict) -> None:
    assert verdict(doc("open"), None, HERE) == verdict(doc("closed", size=5), doc("open", size=3), HERE) == ""
    assert verdict(doc("bad"), doc("open"), OPERATOR) == ""
    assert verdict(doc("failed"), doc("open"), OPERATOR) == ""


def test_a_gathered_document_is_its_gather_s_and_its_steps_are_their_sites(verdict: Verdict) -> None:
    assert verdict(run("closed"), None, LYON) == ""
    assert "is at the site" in verdict(run("closed"), None, HERE)
    merging = run("proc 0 in progress", proc0={})
    assert verdict(merging, run("closed"), LYON) == ""
    assert "site:lyon" in verdict(merging, run("closed"), HERE)
    assert verdict(run("proc 1 in progress", proc0=DONE, proc1={}), run("good", proc0=DONE), HERE) == ""
    assert "site:here" in verdict(run("proc 1 in progress", proc0=DONE, proc1={}), run("good", proc0=DONE), LYON)
    assert verdict(run("bad"), run("good"), OPERATOR) == ""
    assert "only an admin" in verdict({"_id": "runs:r1", "_deleted": True}, run("good"), LYON)
    assert "log in" in verdict(run("closed"), None, {"name": None, "roles": ["site:lyon"]})
    assert "cannot change" in verdict({**run("closed"), "_id": "a"}, doc("closed"), ADMIN)


def test_who_gathers_puts_it_back_when_members_have_come(verdict: Verdict) -> None:
    whole = run("good", proc0=DONE, proc1=DONE)
    for status in ("good", "failed"):
        assert verdict(run("closed", members=[1]), {**whole, "status": status}, LYON) == ""
        assert verdict(run("closed", members=[1]), {**whole, "status": status}, HERE)
    assert verdict(run("closed", proc0={}), whole, LYON), "nothing of its steps stays"
    assert verdict(run("closed"), run("bad"), LYON), "what a person has marked bad stays so"
    assert verdict(run("closed"), run("proc 1 in progress", proc1={}), LYON), "nor is a step's work taken away"
    assert verdict(doc("closed"), doc("good", proc0=DONE), HERE), "a file's document is not put back so"


def test_attempts_are_for_the_site_that_they_name(verdict: Verdict) -> None:
    for step in ("archive_proc0", "proc0"):
        record = {"_id": "attempt:x", "type": "attempt", "step": step, "site": "lyon"}
        assert verdict(record, None, LYON) == ""
        assert "site:lyon" in verdict(record, None, HERE)
