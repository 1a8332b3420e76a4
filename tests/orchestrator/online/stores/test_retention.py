"""Which runs' spills go, and which stay whatever happens."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.online.store import RunRecord
from orchestrator.online.stores.memory import MemoryStores
from orchestrator.online.stores.retention import INPUTS, Pruning, expired, prune

NOW = datetime(2026, 1, 31, tzinfo=UTC)


def record(run: str, days: float, state: str = "final", **more: Any) -> RunRecord:
    at = (NOW - timedelta(days=days)).isoformat().replace("+00:00", "Z")
    return RunRecord(run, state, begun=at, ended=at, snapshot=at if state == "final" else "", **more)


def test_spills_go_some_time_after_the_snapshot_and_beyond_so_many_runs() -> None:
    records = [record(str(n), 10 - n) for n in range(10)]
    assert expired(records, now=NOW, keep=5 * 86400.0, most=100) == ["0", "1", "2", "3", "4", "5"]
    assert expired(records, now=NOW, keep=1e9, most=3) == ["0", "1", "2", "3", "4", "5", "6"]


def test_the_newest_run_stays_for_its_record_says_where_the_input_is() -> None:
    assert expired([record("1", 50)], now=NOW, keep=0, most=1) == []
    assert expired([record("1", 50), record("2", 40)], now=NOW, keep=0, most=1) == ["1"]


def test_the_newest_run_of_each_input_used_lately_stays_so_a_replay_costs_the_daq_no_place() -> None:
    live = [record(str(n), 50 - n, configuration={"input": "daq"}) for n in range(3)]
    replayed = [record(f"2.again-{n}", 20 - n, configuration={"input": "files"}) for n in range(4)]
    assert expired(live + replayed, now=NOW, keep=0, most=1) == ["0", "1", "2.again-0", "2.again-1", "2.again-2"]
    many = [record(f"other-{n}", 15 - n / 10, configuration={"input": str(n)}) for n in range(INPUTS)]
    assert "2" in expired(live + many, now=NOW, keep=0, most=1)


def test_a_run_whose_snapshot_has_no_time_goes_by_its_end() -> None:
    old = RunRecord("1", "final", begun="2025-01-01T00:00:00Z", ended="2025-01-01T01:00:00Z")
    assert expired([old, record("2", 1)], now=NOW, keep=86400.0, most=9) == ["1"]
    odd = RunRecord("0", "final", begun="?")
    assert expired([odd, record("2", 1)], now=NOW, keep=2 * 86400.0, most=9) == []


@settings(max_examples=60, deadline=None)
@given(
    runs=st.lists(st.tuples(st.sampled_from(["begun", "ended", "final"]), st.floats(0, 100)), max_size=12),
    keep=st.floats(0, 100),
    most=st.integers(1, 5),
)
def test_what_is_not_final_stays_whatever_is_asked_for(runs: list[tuple[str, float]], keep: float, most: int) -> None:
    records = [record(f"r{n}", days, state) for n, (state, days) in enumerate(runs)]
    gone = set(expired(records, now=NOW, keep=keep * 86400, most=most))
    assert all(one.state == "final" for one in records if one.run in gone)
    assert sum(one.state == "final" and one.run not in gone for one in records) <= most + 1


def test_only_what_may_go_is_dropped_and_what_is_read_is_spared() -> None:
    stores = MemoryStores()
    for n in range(5):
        stores.of(str(n)).save(record(str(n), 10 - n, "final" if n != 1 else "ended"))
    assert prune(stores, now=NOW, keep=0, most=1, spare=["2"]) == ["0", "3"]
    assert [one.run for one in stores.runs()] == ["1", "2", "4"]


def test_while_the_transform_runs_old_spills_go_by_themselves() -> None:
    stores = MemoryStores()
    for n in range(3):
        stores.of(str(n)).save(RunRecord(str(n), "final", f"200{n}-01-01T00:00:00Z", f"200{n}-01-01T00:00:00Z"))
    looks = iter([False, True])
    done = threading.Event()

    def wait(_: float) -> bool:
        last = next(looks)
        if last:
            done.set()
        return last

    with Pruning(stores, 86400.0, 20, wait=wait):
        assert done.wait(20)
    assert [one.run for one in stores.runs()] == ["2"]
