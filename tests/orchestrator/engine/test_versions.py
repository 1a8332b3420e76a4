"""A result finds the version that its attempt holds, where another site's version is the one that readers see."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from orchestrator import chain as chains
from orchestrator.engine import versions

CHAIN = chains.loads("name: two\nsteps: [{name: a, run: 'os:getcwd'}, {name: b, run: 'os:getcwd', needs: []}]")
OURS = {"_id": "d", "_rev": "2-a", "status": "proc 0 in progress", "proc0": {"state": "in progress", "attempt": "x"}}
THEIRS = {"_id": "d", "_rev": "2-b", "status": "proc 1 in progress", "proc1": {"state": "in progress", "attempt": "y"}}


class Database:
    """Two versions, of which ``winner`` is seen."""

    def __init__(self, winner: dict[str, Any], *others: dict[str, Any]) -> None:
        self.winner, self.others, self.asked = winner, others, 0

    def get_many(self, ids: list[str]) -> dict[str, Any]:
        more = {"_conflicts": [other["_rev"] for other in self.others]} if self.others else {}
        return {"d": {**self.winner, **more}}

    def leaves(self, doc_id: str) -> list[dict[str, Any]]:
        self.asked += 1
        return [self.winner, *self.others]


def write(attempt: str = "x", **more: Any) -> Any:
    given = {"document": OURS, "step": CHAIN.steps[0], "attempt": attempt, "report": None, "lost": None, "then": None}
    return SimpleNamespace(**{**given, **more})


def test_the_version_that_the_attempt_holds() -> None:
    assert versions.current(Database(THEIRS, OURS), [write()])["d"] == OURS


def test_the_version_that_the_write_has_made_already() -> None:
    done = {**OURS, "status": "good", "proc0": {"state": "done", "attempt": "x"}}
    report = SimpleNamespace(ok=True)
    assert versions.current(Database(THEIRS, done), [write(report=report)])["d"] == done


def test_where_none_is_ours_the_one_that_is_seen() -> None:
    found = versions.current(Database(THEIRS, OURS), [write("z")])["d"]
    assert found is not None
    assert found["_rev"] == "2-b"


def test_without_a_conflict_nothing_more_is_asked() -> None:
    database = Database(THEIRS)
    assert versions.current(database, [write()])["d"] == THEIRS
    assert database.asked == 0


def test_a_dead_pollers_version_is_found_behind_the_one_that_is_seen() -> None:
    ours = {**OURS, "proc0": {**OURS["proc0"], "poller": "dead"}}  # type: ignore[dict-item]
    database = Database(THEIRS, ours)
    seen = database.get_many(["d"])["d"]
    assert versions.of_poller(database, seen, "dead") == ours
    assert versions.of_poller(database, seen, "another") == seen
    assert versions.of_poller(Database(ours), ours, "another") == ours


def test_a_claim_whose_attempt_has_ended_by_another_version_holds_nothing() -> None:
    claimed = {**OURS, "proc0": {**OURS["proc0"], "poller": "me"}}  # type: ignore[dict-item]
    ended: list[dict[str, Any]] = [
        {"_id": "d", "_rev": "3-c", "status": "good", "proc0": {"state": "done", "attempt": "x"}},
        {"_id": "d", "_rev": "3-c", "status": "failed", "proc0": {"state": "failed", "attempt": "x"}},
        {"_id": "d", "_rev": "3-c", "status": "good", "retry": {"step": "proc0", "number": 2, "last": "x"}},
    ]
    for other in ended:
        for database in (Database(claimed, other), Database(other, claimed)):
            assert versions.of_poller(database, database.get_many(["d"])["d"], "me") == other
    later = {"_id": "d", "_rev": "3-c", "status": "good", "proc0": {"state": "done", "attempt": "another"}}
    database = Database(later, claimed)
    assert versions.of_poller(database, database.get_many(["d"])["d"], "me") == claimed
