"""How much work is claimed ahead follows what steps take."""

from __future__ import annotations

from orchestrator.documents import Report
from orchestrator.engine.costs import DEPTH, MOST, Costs


def took(seconds: float, step: str = "proc0") -> Report:
    return Report("d", step, "a", 0.0, seconds, seconds)


def test_a_step_that_has_not_reported_may_be_a_long_one() -> None:
    costs = Costs()
    assert costs.of("proc0") == DEPTH
    costs.learn(took(0.01, "proc1"))
    assert costs.of("proc0") == DEPTH


def test_it_stays_within_its_bounds() -> None:
    costs = Costs()
    costs.learn(took(0.0))
    assert costs.of("proc0") == DEPTH / MOST
    costs.learn(took(3600.0))
    assert costs.of("proc0") == DEPTH


def test_a_new_kind_of_file_changes_it_within_a_few_reports() -> None:
    costs = Costs()
    costs.learn(took(0.001))
    for _ in range(10):
        costs.learn(took(0.1))
    assert 0.08 < costs.of("proc0") < 0.1
    assert costs.total({"proc0": 3, "proc1": 1}) == 3 * costs.of("proc0") + DEPTH
