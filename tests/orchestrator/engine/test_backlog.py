"""The backlog: bounded, in order of priority, and nothing that fits is lost or kept from its turn."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.chain import Chain, Step
from orchestrator.documents import iso
from orchestrator.engine.backlog import SLACK, Backlog


def raw(name: str, **more: Any) -> dict[str, Any]:
    return {"_id": name, "_rev": "1-a", "type": "daqdocument", "status": "closed", **more}


def waiting(name: str, until: float) -> dict[str, Any]:
    return raw(name, retry={"step": "proc0", "number": 2, "not_before": iso(until)})


def cost(step: Step) -> float:
    return 1.0


def names(backlog: Backlog, now: float = 1000.0, budget: float = 1e9) -> list[str]:
    return [document["_id"] for document, _ in backlog.take(now, budget, cost)]


def test_the_higher_priority_first_then_the_one_further_on_then_the_earlier(chain: Chain) -> None:
    backlog = Backlog(chain, chain.steps)
    backlog.offer(raw("first"), 1000.0)
    backlog.offer(raw("second"), 1000.0)
    backlog.offer(raw("further", status="good", proc0={"state": "done"}), 1000.0)
    backlog.offer(raw("urgent", priority=5), 1000.0)
    backlog.offer(raw("least", priority=-1), 1000.0)
    assert names(backlog) == ["urgent", "further", "first", "second", "least"]


@pytest.mark.parametrize(
    "priority", [10**400, -(10**400), float("inf"), float("nan"), "9", None, True, [], {}, 1e308, 2**63]
)
def test_any_priority_that_somebody_may_write_is_survived(chain: Chain, priority: Any) -> None:
    backlog = Backlog(chain, chain.steps)
    backlog.offer(raw("odd", priority=priority), 1000.0)
    backlog.offer(raw("plain"), 1000.0)
    assert sorted(names(backlog)) == ["odd", "plain"]


def test_what_waits_for_a_retry_does_not_keep_ready_documents_out(chain: Chain) -> None:
    backlog = Backlog(chain, chain.steps, limit=3)
    for number in range(10):
        backlog.offer(waiting(f"w{number}", 1010.0), 1000.0)
    assert backlog.offer(raw("ready"), 1000.0)
    assert not backlog.more, "who waits is found by a later sweep and asks for none now"
    assert names(backlog) == ["ready"]
    assert len(backlog) == 3


def test_a_retry_is_taken_when_its_wait_is_over_and_not_before(chain: Chain) -> None:
    backlog = Backlog(chain, chain.steps)
    backlog.offer(waiting("w", 1010.0), 1000.0)
    assert backlog.next_due() == 1010.0
    assert names(backlog, 1009.0) == []
    assert names(backlog, 1010.5) == ["w"]
    assert backlog.next_due() is None


def test_a_wait_longer_than_the_longest_is_a_wrong_clocks_and_is_cut(chain: Chain) -> None:
    backlog = Backlog(chain, chain.steps)
    backlog.offer(waiting("w", 1000.0 + 10 * 365 * 86400), 1000.0)
    assert names(backlog, 1000.0 + chain.steps[0].retries.longest + 1) == ["w"]


def test_a_clock_set_back_makes_no_retry_wait_for_longer_than_its_policy(chain: Chain) -> None:
    backlog = Backlog(chain, chain.steps)
    backlog.clock(10_000.0, 1.0)
    backlog.offer(waiting("w", 10_010.0), 10_000.0)
    backlog.clock(10_005.0, 6.0)
    assert backlog.next_due() == 10_010.0
    backlog.clock(5_000.0, 7.0)
    due = backlog.next_due()
    assert due is not None and due <= 5_000.0 + chain.steps[0].retries.wait
    assert names(backlog, due + 0.1) == ["w"]


def test_the_due_time_of_a_document_that_is_gone_wakes_nobody(chain: Chain) -> None:
    backlog = Backlog(chain, chain.steps)
    backlog.offer(waiting("w", 1010.0), 1000.0)
    backlog.forget("w")
    assert backlog.next_due() is None


def test_a_document_seen_again_and_again_costs_nothing_and_keeps_its_place(chain: Chain) -> None:
    backlog = Backlog(chain, chain.steps)
    for _ in range(1000):
        for name in ("a", "b"):
            backlog.offer(raw(name), 1000.0)
            backlog.offer(waiting(name + "w", 1010.0), 1000.0)
    assert len(backlog._order) + len(backlog._waiting) == 4
    assert names(backlog) == ["a", "b"]


def test_documents_that_change_while_they_are_kept_do_not_make_it_grow(chain: Chain) -> None:
    backlog = Backlog(chain, chain.steps)
    for number in range(1000):
        backlog.offer(raw("a", _rev=f"{number}-a"), 1000.0)
        backlog.offer({**waiting("w", 1010.0), "_rev": f"{number}-a"}, 1000.0)
    assert len(backlog._order) <= 2 + SLACK + 1
    assert len(backlog._waiting) <= 2 + SLACK + 1
    assert names(backlog) == ["a"]


def test_what_does_not_fit_is_said(chain: Chain) -> None:
    backlog = Backlog(chain, chain.steps, limit=2)
    assert [backlog.offer(raw(f"d{n}"), 1000.0) for n in range(3)] == [True, True, False]
    assert backlog.more
    assert not backlog.short(), "there is no room yet"
    assert len(names(backlog)) == 2
    assert backlog.short()


def test_a_full_backlog_takes_what_is_urgent_and_lets_something_else_wait_in_the_database(chain: Chain) -> None:
    backlog = Backlog(chain, chain.steps, limit=3)
    assert all(backlog.offer(raw(f"d{n}"), 1000.0) for n in range(3))
    assert backlog.offer(raw("urgent", priority=9), 1000.0)
    assert not backlog.offer(raw("late"), 1000.0)
    assert not backlog.offer(raw("idle", priority=-1), 1000.0)
    assert backlog.more and len(backlog) == 3
    assert names(backlog)[0] == "urgent"


def test_a_draw_by_lot_never_goes_against_priority(chain: Chain) -> None:
    backlog = Backlog(chain, chain.steps)
    for number in range(40):
        backlog.offer(raw(f"d{number}", priority=number % 2), 1000.0)
    taken = backlog.take(1000.0, 10.0, cost, shuffle=Random(1))
    assert len(taken) == 10
    assert all(document["priority"] == 1 for document, _ in taken)


OFFERS = st.tuples(
    st.sampled_from([f"d{n}" for n in range(8)]),
    st.integers(0, 3),
    st.sampled_from(["ready", "waiting", "bad"]),
    st.sampled_from([0, 1, -2]),
)


@given(st.lists(st.one_of(OFFERS, st.floats(0.5, 5.0), st.just("later")), max_size=60), st.integers(1, 8))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_against_a_model_nothing_is_lost_doubled_or_kept_beyond_the_limit(
    chain: Chain, acts: list[Any], limit: int
) -> None:
    backlog, now = Backlog(chain, chain.steps, limit), 1000.0
    ready: dict[str, dict[str, Any]] = {}
    later: dict[str, tuple[dict[str, Any], float]] = {}
    for act in acts:
        if act == "later":
            now += 5.0
        elif isinstance(act, float):
            for name in [name for name, (_, due) in later.items() if due <= now]:
                ready[name] = later.pop(name)[0]
            taken = [document for document, _ in backlog.take(now, act, cost)]
            assert len({document["_id"] for document in taken}) == len(taken)
            assert len(taken) == min(len(ready), math.ceil(act))
            left = [d.get("priority", 0) for name, d in ready.items() if name not in {t["_id"] for t in taken}]
            assert not taken or not left or min(t.get("priority", 0) for t in taken) >= max(left)
            for document in taken:
                assert ready.pop(document["_id"]) == document
        else:
            name, rev, kind, priority = act
            document = raw(name, _rev=f"{rev}-x", priority=priority)
            due = now + 7.0
            if kind == "waiting":
                document = {**waiting(name, due), "_rev": f"{rev}-x", "priority": priority}
            elif kind == "bad":
                document["status"] = "bad"
            before = ready.get(name) or (later[name][0] if name in later else None)
            same = before is not None and before["_rev"] == document["_rev"]
            kept = backlog.offer(document, now)
            if kind == "bad":
                assert not kept
                ready.pop(name, None)
                later.pop(name, None)
            elif same:
                assert kept, "a revision that is known is the same document"
            else:
                place = len(ready) if kind == "ready" else len(later)
                there = name in (ready if kind == "ready" else later)
                ready.pop(name, None)
                later.pop(name, None)
                if kind == "ready" and kept and not there and place >= limit:
                    gone = [n for n in ready if n not in backlog._ready]
                    assert len(gone) == 1, "one makes way for one"
                    assert ready.pop(gone[0]).get("priority", 0) < priority
                else:
                    assert kept == (there or place < limit)
                if kept and kind == "ready":
                    ready[name] = document
                elif kept:
                    later[name] = (document, due)
        assert len(backlog) == len(ready) + len(later)
    assert len(later) <= limit
