"""Every store does the same: in this process's memory, in another one's, in the database.

The database is the embedded server, or, with COUCHDB_URL (and COUCHDB_USER, COUCHDB_PASSWORD), the one there.
"""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.couch import Credentials, Server
from orchestrator.errors import DataError, NotFound, SettingsError
from orchestrator.online.packing import packed
from orchestrator.online.spill import Spill
from orchestrator.online.store import Arrivals, Outcome, RunRecord, Store, Stores
from orchestrator.online.stores.couch import IN_DOCUMENT, CouchStores
from orchestrator.online.stores.files import SpillFiles
from orchestrator.online.stores.memory import MemoryStores
from orchestrator.online.stores.served import ServedStores, StoreServer
from tests.databases import couchdb

INLINE = 40_000  # bytes; above it spills are files
SIZES = (10, IN_DOCUMENT, INLINE - 2000, 400_000)  # in the document, at its edge, an attachment, a file


@pytest.fixture(scope="module")
def couch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with couchdb(tmp_path_factory.mktemp("embedded")) as (url, credentials):
        yield Server(url, Credentials(*credentials))


@pytest.fixture(params=["memory", "served", "couch"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    if request.param == "memory":
        yield MemoryStores()
    elif request.param == "served":
        with StoreServer(MemoryStores(SpillFiles(tmp_path / "large"), INLINE), tmp_path / "online" / "store.sock"):
            yield ServedStores(tmp_path / "online" / "store.sock")
    else:
        server = request.getfixturevalue("couch")
        found = CouchStores(server, f"t{uuid.uuid4().hex[:12]}", SpillFiles(tmp_path / "spills"), INLINE)
        yield found
        for record in found.runs():
            found.of(record.run).drop()


def begun(stores: Stores, run: str = "6008") -> Store:
    store = stores.of(run)
    store.save(RunRecord(run, begun="2026-01-01T00:00:00Z"))
    return store


def outcome(number: int, size: int = 10, run: str = "6008") -> Outcome:
    return Outcome(number, packed(Spill(run, number, data={"a": np.arange(size, dtype=np.uint8)})), worker="w1")


def all_of(store: Store, mark: str | None = None, most: int = 500, quiet: int = 1) -> list[Arrivals]:
    """What is there now: up to so many empty arrivals."""
    found = []
    for arrivals in store.follow(mark, wait=lambda _: False, most=most):
        if not arrivals.outcomes and arrivals.record is None:
            quiet -= 1
            if not quiet:
                return found
        found.append(arrivals)
    raise AssertionError("it ended by itself")


def came(arrivals: list[Arrivals]) -> list[int]:
    return [one.number for some in arrivals for one in some.outcomes]


def test_a_spill_comes_out_as_it_was_put_whatever_its_size(stores: Stores) -> None:
    store = begun(stores)
    given_ = [outcome(number, size) for number, size in enumerate(SIZES)]
    assert store.put(given_) == len(SIZES)
    arrived = {one.number: one for some in all_of(store) for one in some.outcomes}
    for one in given_:
        assert arrived[one.number] == one
        spill = stores.of("6008").spill(one.number)
        assert spill is not None and len(spill.data["a"]) == SIZES[one.number]
    assert store.spill(len(SIZES)) is None


def test_the_first_one_of_a_number_stays(stores: Stores) -> None:
    store = begun(stores)
    for size in SIZES:
        number = 10 + SIZES.index(size)
        assert store.put([outcome(number, size), outcome(number, size + 1)]) == 1
        assert store.put([outcome(number, size + 2), outcome(number + 100, 3)]) == 1
        spill = store.spill(number)
        assert spill is not None and len(spill.data["a"]) == size


def test_a_failed_spill_is_kept_with_its_error(stores: Stores) -> None:
    store = begun(stores)
    data = packed(Spill("6008", 1))
    failed = Outcome(1, data, "Traceback ...\nValueError: \udc80 no", "a.b:C", False, "host:12", 0.5)
    bare = Outcome(2, None, "its worker died 3 times")
    store.put([failed, bare, outcome(3)])
    arrived = {one.number: one for some in all_of(store) for one in some.outcomes}
    assert (arrived[1].module, arrived[1].worker, arrived[1].seconds, arrived[1].shown) == (
        "a.b:C", "host:12", 0.5, False,
    )  # fmt: skip
    assert arrived[1].failed and arrived[1].error.endswith(" no") and arrived[1].packed == data
    assert arrived[2].failed and arrived[2].packed is None and store.spill(2) is None
    assert store.numbers() == {1: True, 2: True, 3: False}


def test_followers_get_what_was_there_and_what_comes_from_their_mark_on(stores: Stores) -> None:
    store = begun(stores)
    store.put([outcome(number) for number in range(7)])
    first = all_of(store, most=3)
    assert sorted(came(first)) == list(range(7))
    assert all(len(some.outcomes) <= 3 for some in first)
    assert next(one.record for one in first if one.record is not None).run == "6008"
    store.put([outcome(7)])
    assert came(all_of(stores.of("6008"), first[-1].mark)) == [7]
    again = came(all_of(store, first[0].mark))
    assert set(again) >= set(range(8)) - set(came(first[:1]))


def test_large_spills_come_in_portions_that_fit_into_memory(stores: Stores) -> None:
    store = begun(stores)
    store.put([outcome(number, 3_000_000) for number in range(8)])
    found = all_of(store)
    assert sorted(came(found)) == list(range(8))
    assert max(len(some.outcomes) for some in found) <= 3
    assert set(came(all_of(store, found[1].mark))) | set(came(found[:2])) == set(range(8))


def test_what_comes_while_one_follows_arrives_soon_and_the_record_too(stores: Stores) -> None:
    store = begun(stores)
    stop = threading.Event()
    arrived: list[int] = []
    states: list[str] = []
    counted = threading.Event()
    ended = threading.Event()

    def follow() -> None:
        for arrivals in stores.of("6008").follow(None, wait=stop.wait):
            arrived.extend(one.number for one in arrivals.outcomes)
            states.extend([arrivals.record.state] if arrivals.record else [])
            if len(set(arrived)) == 20:
                counted.set()
            if "ended" in states:
                ended.set()

    thread = threading.Thread(target=follow)
    thread.start()
    for number in range(20):
        store.put([outcome(number)])
    assert counted.wait(20)
    store.save(RunRecord("6008", state="ended", done=20, spills=20))
    assert ended.wait(20)
    stop.set()
    thread.join(20)
    assert not thread.is_alive()
    assert sorted(set(arrived)) == list(range(20))


def test_with_nothing_new_whoever_follows_is_heard_of(stores: Stores) -> None:
    store = begun(stores)
    counter = itertools.count()
    quiet = list(store.follow(None, wait=lambda _: next(counter) >= 4))
    assert not quiet[-1].outcomes


def test_a_mark_of_another_life_of_the_store_begins_anew(stores: Stores) -> None:
    store = begun(stores)
    store.put([outcome(number) for number in range(5)])
    mark = all_of(store)[-1].mark
    store.drop()
    store = begun(stores)
    store.put([outcome(1), outcome(2)])
    assert set(came(all_of(store, "999999-nonsense", quiet=10))) == {1, 2}
    assert set(came(all_of(store, mark))) <= {1, 2}  # a sequence that another database knows may skip, never invent


def test_a_mark_of_an_earlier_process_hides_no_spill_that_came_in_another_order() -> None:
    before, after = begun(MemoryStores()), begun(MemoryStores())
    before.put([outcome(number) for number in range(5)])
    after.put([outcome(number) for number in (0, 1, 2, 3, 7, 4)])
    assert came(all_of(after, all_of(before)[-1].mark)) == [0, 1, 2, 3, 7, 4]


def test_the_longest_name_of_capitals_is_a_run_like_any_other(stores: Stores) -> None:
    first, second = "A" * 80, "A" * 79 + "B"
    begun(stores, first).put([outcome(1, run=first)])
    begun(stores, second).put([outcome(2, run=second)])
    assert stores.of(first).numbers() == {1: False} and stores.of(second).numbers() == {2: False}
    assert {record.run for record in stores.runs()} == {first, second}


def test_the_record_is_kept_and_a_final_run_stays_final(stores: Stores) -> None:
    store = stores.of("6008")
    assert store.record() is None
    record = RunRecord("6008", header={"magnets": "on", "_odd": [1, None]}, position={"file": "a", "offset": 17})
    store.save(record)
    assert stores.of("6008").record() == record
    other = stores.of("6008")
    other.save(RunRecord("6008", state="final", done=3, snapshot="2026-01-01T00:00:00Z"))
    found = store.record()
    assert found is not None and found.state == "final"
    store.save(RunRecord("6008", state="ended", done=3))
    found = other.record()
    assert found is not None and found.state == "final"


def test_a_run_that_begins_once_more_is_final_only_when_that_life_is_over(stores: Stores) -> None:
    store = stores.of("6008")
    store.save(RunRecord("6008", state="final", done=3))
    for record, state in (
        (RunRecord("6008", state="begun", done=3), "final"),  # late word of its first life
        (RunRecord("6008", state="begun", done=3, opened=2), "begun"),
        (RunRecord("6008", state="final", done=3, opened=1), "begun"),  # a reducer that has not heard of the second one
        (RunRecord("6008", state="ended", done=4, opened=2), "ended"),
        (RunRecord("6008", state="final", done=4, opened=2), "final"),
    ):
        store.save(record)
        found = stores.of("6008").record()
        assert found is not None and found.state == state, record


def test_runs_do_not_mix_and_are_listed_in_their_order(stores: Stores) -> None:
    names = ["6008", "6008.replay1", "Run_7", "6008-b", "6008+b", "a.b-c"]
    for index, run in enumerate(names):
        store = stores.of(run)
        store.save(RunRecord(run, begun=f"2026-01-01T00:00:0{index}Z"))
        store.put([outcome(index, run=run)])
    assert [one.run for one in stores.runs()] == names
    for index, run in enumerate(names):
        assert stores.of(run).numbers() == {index: False}
    stores.of("6008").drop()
    assert [one.run for one in stores.runs()] == names[1:]
    assert stores.of("6008.replay1").numbers() == {1: False}


def test_what_was_never_begun_or_was_dropped_is_said_so(stores: Stores) -> None:
    with pytest.raises(NotFound):
        stores.of("9").put([outcome(1)])
    with pytest.raises(NotFound):
        stores.of("9").numbers()
    with pytest.raises(NotFound):
        next(iter(stores.of("9").follow(None, wait=_forever())))
    store = begun(stores)
    store.drop()
    store.drop()
    assert store.record() is None and stores.runs() == []


def test_a_follower_of_a_run_that_is_dropped_ends_with_the_reason(stores: Stores) -> None:
    store = begun(stores)
    store.put([outcome(1)])
    with pytest.raises(NotFound):
        for arrivals in stores.of("6008").follow(None, wait=_forever()):
            if arrivals.outcomes:
                store.drop()


@pytest.mark.parametrize("run", ["", "../x", "a/b", "-x", ".x", "a b", "a" * 81, "a\n", "é"])
def test_names_that_would_lead_elsewhere_are_refused(stores: Stores, run: str) -> None:
    with pytest.raises(SettingsError):
        stores.of(run)


@pytest.mark.parametrize("number", [-1, 10**9])
def test_numbers_that_no_spill_has_are_refused(stores: Stores, number: int) -> None:
    with pytest.raises(DataError):
        begun(stores).put([Outcome(number)])


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    groups=st.lists(st.lists(st.integers(0, 30), max_size=12), max_size=6),
    failed=st.sets(st.integers(0, 30)),
    most=st.integers(1, 7),
)
def test_whatever_is_put_in_whatever_groups_each_spill_is_in_once(
    stores: Stores, groups: list[list[int]], failed: set[int], most: int
) -> None:
    run = f"h{uuid.uuid4().hex[:8]}"
    store = begun(stores, run)
    new = 0
    for group in groups:
        new += store.put([Outcome(n, packed(Spill(run, n)), "no" if n in failed else "") for n in group])
    expected = {number for group in groups for number in group}
    assert new == len(expected)
    assert store.numbers() == {number: number in failed for number in expected}
    assert sorted(came(all_of(store, most=most))) == sorted(expected)
    store.drop()


def _forever() -> Callable[[float], bool]:
    until = time.monotonic() + 30

    def wait(_: float) -> bool:
        assert time.monotonic() < until, "it goes on and on"
        return False

    return wait
