"""The store's thread: few round trips, outages are waited for, and what no waiting mends is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from orchestrator.errors import DatabaseError, TransientError, Unauthorised, Unavailable
from orchestrator.online import keeper as module
from orchestrator.online.keeper import Keeper
from orchestrator.online.run import Run
from orchestrator.online.store import Outcome, RunRecord
from orchestrator.online.stores.memory import MemoryStore, MemoryStores


class Counted(MemoryStore):
    """Counts round trips, waits at a gate, and fails as long as it is told to."""

    def __init__(self, run: str) -> None:
        super().__init__(run)
        self.trips: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.fails: Exception | None = None
        self.refused = b""  # what it does not take

    def put(self, outcomes: Iterable[Outcome]) -> int:
        given = list(outcomes)
        self.gate.wait(10)
        if self.fails is not None:
            raise self.fails
        if self.refused and any(one.packed == self.refused for one in given):
            raise DatabaseError("the document is too large")
        self.trips.append(len(given))
        return super().put(given)


class OneStore(MemoryStores):
    def __init__(self) -> None:
        super().__init__()
        self.store = Counted("1")

    def of(self, run: str) -> Counted:
        return self.store


def until(what: Callable[[], Any]) -> Any:
    end = time.monotonic() + 10
    while not (found := what()):
        assert time.monotonic() < end
        time.sleep(0.002)
    return found


@pytest.fixture
def stores(monkeypatch: pytest.MonkeyPatch) -> OneStore:
    monkeypatch.setattr(module, "WAITS", (0.01, 0.02))
    return OneStore()


def outcomes(*numbers: int) -> list[Outcome]:
    return [Outcome(number, b"x") for number in numbers]


def stored(keeper: Keeper) -> list[int]:
    return [number for word, _, what in keeper.answers() if word == "stored" for number in what]


def test_what_waits_goes_in_one_round_trip(stores: OneStore) -> None:
    keeper, run = Keeper(stores, lambda: None), Run("1", 1)
    keeper.save(run, RunRecord("1"))
    until(lambda: keeper.answers())
    stores.store.gate.clear()
    for one in outcomes(*range(1200)):
        keeper.put(run, one)
    stores.store.gate.set()
    found: list[int] = []
    until(lambda: found.extend(stored(keeper)) or len(found) == 1200)
    assert sorted(found) == list(range(1200))
    assert len(stores.store.trips) <= 5 and max(stores.store.trips) == module.MOST
    assert keeper.close(5)


@pytest.mark.parametrize(
    "outage", [Unavailable("the database does not answer"), TransientError("no room on the disk for large spills")]
)
def test_an_outage_is_waited_for_and_nothing_is_lost(stores: OneStore, outage: Exception) -> None:
    keeper, run = Keeper(stores, lambda: None), Run("1", 1)
    keeper.save(run, RunRecord("1"))
    until(lambda: keeper.answers())
    stores.store.fails = outage
    for one in outcomes(1, 2, 3):
        keeper.put(run, one)
    until(lambda: keeper.away == str(outage))
    assert keeper.alive and not stored(keeper)
    stores.store.fails = None
    found: list[int] = []
    until(lambda: found.extend(stored(keeper)) or len(found) == 3)
    assert keeper.away == ""
    assert keeper.close(5)


def test_a_spill_that_the_store_refuses_has_failed_and_holds_up_no_other(stores: OneStore) -> None:
    keeper, run = Keeper(stores, lambda: None), Run("1", 1)
    keeper.save(run, RunRecord("1"))
    until(lambda: keeper.answers())
    stores.store.refused = b"odd"
    stores.store.gate.clear()
    for one in (*outcomes(1, 2), Outcome(3, b"odd"), *outcomes(4)):
        keeper.put(run, one)
    stores.store.gate.set()
    found: list[int] = []
    until(lambda: found.extend(stored(keeper)) or len(found) == 4)
    assert stores.store.numbers() == {1: False, 2: False, 3: True, 4: False}
    assert keeper.away == "" and keeper.close(5)


def test_a_refused_login_is_not_tried_again(stores: OneStore) -> None:
    keeper, run = Keeper(stores, lambda: None), Run("1", 1)
    stores.store.fails = Unauthorised("the login was refused")
    keeper.save(run, RunRecord("1"))
    keeper.put(run, outcomes(1)[0])
    until(lambda: keeper.error is not None)
    assert isinstance(keeper.error, Unauthorised) and not keeper.alive


def test_a_store_that_was_removed_meanwhile_is_made_again(stores: OneStore) -> None:
    keeper, run = Keeper(stores, lambda: None), Run("1", 1)
    keeper.save(run, RunRecord("1"))
    until(lambda: keeper.answers())
    stores.store.drop()
    keeper.put(run, outcomes(4)[0])
    until(lambda: stored(keeper) == [4])
    assert stores.store.numbers() == {4: False}
    assert keeper.close(5)


def test_it_ends_while_the_store_is_away(stores: OneStore) -> None:
    keeper, run = Keeper(stores, lambda: None), Run("1", 1)
    keeper.save(run, RunRecord("1"))
    stores.store.fails = Unavailable("the database does not answer")
    keeper.put(run, outcomes(1)[0])
    until(lambda: keeper.away)
    assert not keeper.close(0.05)
    until(lambda: not keeper.alive)


def test_a_run_is_opened_with_what_the_store_has_of_it(stores: OneStore) -> None:
    stores.store.save(RunRecord("1", header={"beam": "mu"}))
    stores.store.put([Outcome(0, b"x"), Outcome(1, None, error="bad")])
    keeper = Keeper(stores, lambda: None)
    run = Run("1", 1)
    keeper.open(run)
    (word, whose, (record, known)) = until(lambda: keeper.answers())[0]
    assert (word, whose, known) == ("open", run, {0: False, 1: True})
    assert record.header == {"beam": "mu"}
    assert keeper.close(5)
