"""What belongs together: each member in one document, whole runs, and only what is ready."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import chain as chains
from orchestrator import gathering
from orchestrator.chain import Gather
from orchestrator.errors import ChainError
from orchestrator.gathering import Group, Plan

NOW = 1_790_000_000.0  # 2026-09-21
STEP: dict[str, Any] = {"name": "bundle", "run": "procs.archive:bundle"}


def gather(**more: Any) -> Gather:
    return Gather.model_validate({"type": "tar", "after": ["transfer"], "steps": [STEP], "step": "tape", **more})


GROUPS = st.lists(
    st.tuples(st.sampled_from(["2026-07", "2026-08", "2026-09"]), st.sampled_from("abcdef"), st.integers(1, 4),
              st.integers(0, 4), st.integers(0, 100)),
    max_size=12, unique_by=lambda one: one[:2],
).map(lambda rows: [Group(p, r, n, min(n, k), float(size), 1.0) for p, r, n, k, size in rows])  # fmt: skip


@given(GROUPS, st.none() | st.integers(1, 150), st.none() | st.integers(1, 150))
def test_every_group_is_in_one_plan_at_most_and_only_when_ready(
    found: list[Group], own: int | None, largest: int | None
) -> None:
    plans = gathering.plans_claimed(found, gather(period="month", own=own, largest=largest), NOW)
    taken = [key for plan in plans for key in plan.groups]
    assert len(taken) == len(set(taken))
    by_key = {(one.period, one.run): one for one in found}
    sizes = {run: sum(one.size for one in found if one.run == run) for run in "abcdef"}
    for plan in plans:
        assert all(by_key[key].whole for key in plan.groups)
        if plan.run is not None:
            assert own is not None and sizes[plan.run] >= own
            assert {key for key in by_key if key[1] == plan.run} == set(plan.groups), "a large run is whole"
        else:
            assert all(period < "2026-09" for period, _ in plan.groups), "its month is over"
            total = sum(by_key[key].size for key in plan.groups)
            assert largest is None or total <= largest or len(plan.groups) == 1
            assert len({period for period, _ in plan.groups}) == 1
    for period in ("2026-07", "2026-08"):
        small = [one for one in found if one.period == period and (own is None or sizes[one.run] < own)]
        if small and all(one.whole for one in small):
            assert {(one.period, one.run) for one in small} <= set(taken), "what is ready is gathered"


@given(GROUPS)
def test_without_a_period_each_run_is_gathered_when_it_is_ready(found: list[Group]) -> None:
    runs = [Group("", run, 1, 1, 1.0, 1.0) for run in {one.run for one in found}]
    plans = gathering.plans_claimed(runs, gather(), NOW)
    assert sorted(str(plan.run) for plan in plans) == sorted(one.run for one in runs)


def test_the_id_follows_from_the_members_alone() -> None:
    plan = Plan("2026-01", "2026-01", None, ())
    one = gathering.identity("tars", plan, [("b", 1), ("a", 1)])
    assert one == gathering.identity("tars", plan, [("a", 1), ("b", 1)])
    assert one != gathering.identity("tars", plan, [("a", 1), ("c", 1)])
    assert one != gathering.identity("tars", plan, [("a", 1), ("b", 2)]), "what is gathered anew is another document"
    assert one.startswith("tars:2026-01:")


def _made(**more: Any) -> dict[str, Any]:
    plan = Plan("runs:r", "", "r", (("", "r"),), (2, 5.0, 1.0))
    made = gathering.new("runs", gather(), "runs:r", plan, [{"id": "a", "size": 2}], NOW)
    return {**made, "_rev": "1-a", **more}


def test_a_run_whose_members_have_changed_begins_again_and_keeps_what_was() -> None:
    plan = Plan("runs:r", "", "r", (("", "r"),), (2, 7.0, 2.0))
    old = _made(status="good", proc0={"state": "done", "number": 3, "file": "/x"}, retry={"x": 1})
    again = gathering.again(old, plan, [{"id": "a", "size": 2}, {"id": "b", "size": 5}], NOW + 9)
    assert again is not None
    assert (again["status"], again["bytes"], again["_rev"], again["of"]) == ("closed", 7, "1-a", [2, 7.0, 2.0])
    assert "proc0" not in again and "retry" not in again and again["numbers"] == {"proc0": 4}
    assert again["earlier"][0]["proc0"]["file"] == "/x" and again["earlier"][0]["members"] == 1


@pytest.mark.parametrize("status", ["proc 0 in progress", "proc 0 queued", "bad", "nonsense"])
def test_a_document_in_work_or_bad_is_left_alone(status: str) -> None:
    assert gathering.again(_made(status=status), Plan("runs:r", "", "r", (), ()), [], NOW) is None


def test_the_same_members_change_nothing_but_the_fingerprint() -> None:
    plan = Plan("runs:r", "", "r", (), (9, 9.0, 9.0))
    again = gathering.again(_made(status="good", proc0={"state": "done"}), plan, [{"id": "a", "size": 2}], NOW)
    assert again is not None and again["status"] == "good" and again["proc0"] == {"state": "done"}
    assert again["of"] == [9, 9.0, 9.0]


CHAIN = """
name: x
steps: [{name: transfer, run: 'procs.noop:noop'}, {name: convert, run: 'procs.noop:noop'%s}]
lanes: {archive: {steps: [{name: tape, executor: gather, needs: [%s]}]}}
gathers: {tars: {type: %s, after: [%s], period: month, step: %s, steps: [{name: bundle, run: 'procs.archive:bundle'}]}}
"""


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (("", "transfer", "tar", "transfer", "tape"), ""),
        ((", needs: [tape]", "transfer", "tar", "transfer", "tape"), ""),
        ((", needs: [tape]", "convert", "tar", "transfer", "tape"), "waits for"),
        (("", "trensfer", "tar", "transfer", "tape"), "did you mean 'transfer'"),
        (("", "transfer", "daqdocument", "transfer", "tape"), "is the type of other documents"),
        (("", "transfer", "tar", "nothing", "tape"), "gathers / tars / after: no step 'nothing'"),
        (("", "transfer", "tar", "transfer", "convert"), "no step of a lane with executor gather"),
        (("", "transfer", "tar", "transfer", "''"), "with a period, say which step"),
        ((", executor: gather", "transfer", "tar", "transfer", "tape"), "gather is for steps of a lane"),
    ],
)
def test_chains_with_lanes_and_gathers_say_what_is_wrong(values: tuple[str, ...], says: str) -> None:
    if not says:
        assert chains.loads(CHAIN % values).branches().keys() == {"archive", "tars"}
        return
    with pytest.raises(ChainError, match=says):
        chains.loads(CHAIN % values)
