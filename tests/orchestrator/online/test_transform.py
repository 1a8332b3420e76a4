"""The transform's state machine: whatever the order of results, deaths, joins, run changes and restarts, each spill is
kept once and the counts close."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from orchestrator.online.commands import Begin, Birth, Command, Configure, Death, End, Give, Keep, Open, Refuse
from orchestrator.online.dispatch import AGAIN, GRACE, Dispatcher
from orchestrator.online.run import Run
from orchestrator.online.spill import EndOfRun, Item, Spill, StartOfRun
from orchestrator.online.store import Outcome
from orchestrator.online.transform import Transform

TRIES = 3


class World:
    """What is outside of the transform, done by hand: store and workers. The input is a list, read to a place."""

    def __init__(self, items: list[Item], expected: tuple[str, ...] = ("a",)) -> None:
        self.items, self.expected = items, expected
        self.now = 0.0
        self.place = 0  # of what was read
        self.safe: Any = 0  # as written down
        self.records: dict[str, str] = {}
        self.how: dict[str, list[str]] = {}
        self.store: dict[str, dict[int, Outcome]] = {}
        self.history: list[tuple[str, Any]] = []
        self.key = 0
        self.start()

    def start(self) -> None:
        """A first or a further life of the transform: it knows what is written down and nothing else."""
        self.machine = Transform(Dispatcher(tries=TRIES, timeout=10.0, expected=self.expected), position=self.safe)
        for run in [run for run, state in self.records.items() if state == "begun"]:
            self.machine.resume(run)
        self.place = self.safe
        self.given: dict[bytes, list[int]] = {}  # to workers, in their order
        self.births: dict[bytes, Run] = {}
        self.waiting: list[Command] = []  # commands to the store, done in their order
        self.configure: list[bytes] = []
        self.refused: list[str] = []

    def pump(self) -> None:
        for command in self.machine.pump(self.now):
            match command:
                case Configure(worker):
                    self.configure.append(worker)
                case Birth(worker, run):
                    self.births[worker] = run
                    self.history.append(("birth", run.name))
                case Death(worker):
                    assert not self.given.get(worker)
                case Give(worker, task):
                    assert self.machine.run is not None
                    self.given.setdefault(worker, []).append(task.order)
                    self.history.append(("give", self.machine.run.name))
                case Refuse(_, why):
                    self.refused.append(why)
                case _:
                    self.waiting.append(command)

    def read(self) -> None:
        if self.place < len(self.items) and self.machine.room:
            item = self.items[self.place]
            self.place += 1
            payload = f"{item.run}:{item.number}".encode() if isinstance(item, Spill) else b""
            self.machine.read(item, payload, self.place)
        elif self.place == len(self.items):
            self.machine.finished()
        self.pump()

    def join(self, name: str) -> bytes:
        self.key += 1
        key = f"{name}#{self.key}".encode()
        for old in [k for k in self.given if k.startswith(name.encode() + b"#")]:
            self.given.pop(old)
        self.machine.joined(key, name, "here", self.now)
        self.pump()
        return key

    def answer(self) -> None:
        """Every worker that was asked something answers."""
        for key in self.configure:
            self.machine.acknowledged(key, "")
        self.configure.clear()
        self.pump()
        for key, run in list(self.births.items()):
            self.machine.born(key, run.serial, "", self.now)
        self.births.clear()
        self.pump()

    def do(self, key: bytes, error: str = "") -> None:
        order = self.given[key].pop(0)
        task = self.machine.workers.workers[key].tasks[order]
        packed = None if error else task.payload + b" done"
        assert self.machine.result(key, order, Outcome(-1, packed, error=error, seconds=0.01), self.now)
        self.pump()

    def kill(self, key: bytes, fatal: bool = False) -> None:
        self.machine.gone(key, "was killed", fatal=fatal)
        for held in (self.given, self.births):
            held.pop(key, None)
        if key in self.configure:
            self.configure.remove(key)
        self.pump()

    def keep_one(self) -> None:
        """The store does the next thing that it was asked for."""
        command = self.waiting.pop(0)
        machine = self.machine
        match command:
            case Open(run):
                known = {number: one.failed for number, one in self.store.get(run.name, {}).items()}
                machine.opened(run, known, self.records.get(run.name, ""), {})
            case Begin(run, position):
                self.records[run.name] = "begun"
                self.safe = position
                self.history.append(("begun", run.name))
                machine.begun(run)
            case Keep(run, outcome):
                assert self.records[run.name] == "begun", "a spill after its run's end"
                held = self.store.setdefault(run.name, {})
                assert outcome.number not in held, "twice"
                if outcome.packed is not None:
                    assert outcome.packed.startswith(f"{run.name}:{outcome.number}".encode()), "of another spill"
                held[outcome.number] = outcome
                machine.stored(run, [outcome.number])
            case End(run, end, position):
                wanted = len(self.store.get(run.name, {}))
                assert run.counts == {"read": wanted, "done": run.done, "failed": run.failed, "pending": 0}
                self.records[run.name] = "ended"
                self.how.setdefault(run.name, []).append(end.how)
                self.safe = position
                self.history.append(("ended", run.name))
                machine.ended(run)
        self.pump()

    def save(self) -> None:
        """The position is written down, as is done now and then."""
        self.safe = self.machine.ledger.position

    def finish(self) -> None:
        """Everything goes well from here on."""
        self.pump()
        for _ in range(300):
            if self.machine.finished_all:
                return
            self.read()
            for name in self.machine.workers.missing() or self.expected[: not self.machine.workers.workers]:
                self.join(name)
            self.answer()
            for key in list(self.given):
                while self.given.get(key):
                    self.do(key)
            while self.waiting:
                self.keep_one()
            self.now += 1.0
        raise AssertionError(f"does not come to an end: {self.machine.waits_for()}")


def spills(run: str, *numbers: int) -> list[Item]:
    return [Spill(run, number) for number in numbers]


def test_a_run_goes_from_its_start_to_its_trailer() -> None:
    world = World([StartOfRun("1"), *spills("1", 0, 1, 2), EndOfRun("1", spills=3)])
    world.finish()
    assert sorted(world.store["1"]) == [0, 1, 2]
    assert (world.records, world.how) == ({"1": "ended"}, {"1": ["trailer"]})
    assert world.safe == 5


def test_the_next_run_ends_this_one_and_waits_for_its_last_spill() -> None:
    world = World([*spills("1", *range(9)), *spills("2", 0, 1)])
    world.join("a")
    while world.place < len(world.items):
        world.read()
    world.keep_one(), world.keep_one()
    world.answer()
    world.finish()
    assert world.how == {"1": ["next run"], "2": ["end of input"]}
    moments = [one for one in world.history if one[0] != "give"]
    assert moments == [("begun", "1"), ("birth", "1"), ("ended", "1"), ("begun", "2"), ("birth", "2"), ("ended", "2")]
    gives = [run for what, run in world.history if what == "give"]
    assert gives == ["1"] * 9 + ["2"] * 2


def test_a_run_without_trailer_ends_when_nothing_has_come_for_long() -> None:
    world = World([*spills("1", 0), *spills("1", 1)])
    world.join("a")
    world.read()
    for _ in range(4):
        world.answer()
        while world.waiting:
            world.keep_one()
        for key in list(world.given):
            while world.given[key]:
                world.do(key)
    world.machine.quiet()
    world.pump()
    world.keep_one()
    assert (world.records, world.how) == ({"1": "ended"}, {"1": ["time-out"]})
    world.finish()  # and a spill that comes all the same begins it once more: nothing is lost
    assert sorted(world.store["1"]) == [0, 1]
    assert world.how == {"1": ["time-out", "end of input"]}


def test_a_spill_that_kills_its_workers_fails_and_the_others_do_not() -> None:
    world = World(spills("1", *range(6)))
    while True:
        if not world.machine.workers.workers:
            world.join("a")
        world.read()
        world.answer()
        if world.waiting:
            world.keep_one()
        key = next(iter(world.machine.workers.workers))
        orders = world.given.get(key, [])
        if orders and world.machine.workers.workers[key].tasks[orders[0]].number == 3:
            world.kill(key)
        elif orders:
            world.do(key)
        if len(world.store.get("1", {})) == 6:
            break
    failed = {number: one.error for number, one in world.store["1"].items() if one.failed}
    assert failed == {3: "3 workers died of it, the last one: a was killed"}
    assert world.store["1"][3].packed == b"1:3"


def test_a_suspect_is_given_to_an_idle_worker_and_nothing_behind_it() -> None:
    world = World(spills("1", *range(40)), expected=("a", "b"))
    a, b = world.join("a"), world.join("b")
    for _ in range(45):
        world.read()
        world.answer()
        while world.waiting:
            world.keep_one()
    assert len(world.given[a]) > 1
    suspect = world.given[a][0]
    world.kill(a)
    while suspect not in world.given[b]:
        world.do(b)
    assert world.given[b] == [suspect]


def test_the_first_run_waits_for_every_worker_that_must_be_there() -> None:
    world = World(spills("1", 0), expected=("a", "lyon"))
    world.join("a")
    world.read()
    world.keep_one(), world.keep_one()
    world.answer()
    assert world.machine.waits_for() == "waiting for workers that have not reported: lyon"
    assert not world.given
    world.join("lyon")
    world.answer()
    assert world.machine.waits_for() == ""
    world.finish()


def test_workers_that_differ_are_named_all_in_one_sentence() -> None:
    world = World(spills("1", 0), expected=("a", "b", "c"))
    a, b, c = world.join("a"), world.join("b"), world.join("c")
    world.machine.acknowledged(a, "has numpy 1.26 instead of 2.1")
    world.machine.acknowledged(b, "")
    assert world.machine.workers.refusal() is None
    world.machine.acknowledged(c, "has Python 3.11 instead of 3.12")
    said = "no run may start: the worker a has numpy 1.26 instead of 2.1; the worker c has Python 3.11 instead of 3.12"
    assert world.machine.workers.refusal() == said
    world.pump()
    assert len(world.refused) == 2


def test_a_birth_that_fails_holds_the_run_and_is_tried_again() -> None:
    world = World(spills("1", 0))
    key = world.join("a")
    world.read()
    world.keep_one(), world.keep_one()
    world.machine.acknowledged(key, "")
    world.configure.clear()
    world.pump()
    world.machine.born(key, world.births.pop(key).serial, "no calibration for run 1", world.now)
    world.pump()
    assert world.machine.waits_for() == "run 1 cannot start: a: no calibration for run 1"
    world.now += AGAIN
    world.pump()
    world.answer()
    world.finish()
    assert sorted(world.store["1"]) == [0]


def test_a_spill_beyond_its_time_fails_at_once_with_the_reason() -> None:
    world = World(spills("1", 0, 1))
    key = world.join("a")
    world.read(), world.read()
    world.keep_one(), world.keep_one()
    world.answer()
    assert not world.machine.workers.overdue(world.now + 10.0)
    assert [one.key for one in world.machine.workers.overdue(world.now + 10.0 + GRACE + 0.1)] == [key]
    world.machine.gone(key, "took longer than 10 s for it", fatal=True)
    world.given.clear()
    world.pump()
    world.finish()
    assert world.store["1"][0].error == "the worker a took longer than 10 s for it"
    assert not world.store["1"][1].failed


def test_spills_that_the_store_has_are_not_done_again() -> None:
    world = World(spills("1", *range(5)))
    world.finish()
    world.safe = 0  # an input that cannot say where it stands begins anew
    world.start()
    world.finish()
    assert sorted(world.store["1"]) == list(range(5))
    assert world.how == {"1": ["end of input"]}, "nothing new, so the run has not begun once more"


def test_a_run_left_without_its_end_gets_one() -> None:
    world = World(spills("1", 0, 1))
    world.finish()
    world.records["1"] = "begun"  # killed before its end was written down
    world.start()
    world.finish()
    assert world.records == {"1": "ended"}


def test_the_input_is_held_back_when_much_is_on_its_way() -> None:
    world = World(spills("1", *range(100)))
    world.machine = Transform(Dispatcher(tries=1, timeout=1.0), position=0, most=10)
    for _ in range(50):
        world.read()
    assert world.place == 10
    world.machine = Transform(Dispatcher(tries=1, timeout=1.0), position=0, most_bytes=9)
    world.place = 0
    for _ in range(50):
        world.read()
    assert world.place == 3


def test_workers_get_nothing_new_while_large_results_wait_for_the_store() -> None:
    world = World(spills("1", *range(40)))
    world.machine = Transform(Dispatcher(tries=1, timeout=1.0), position=0, most_bytes=200)  # a result has 8 bytes
    key = world.join("a")
    for _ in range(40):
        world.read()
    world.answer()
    while not world.given.get(key):
        world.keep_one()
        world.answer()
    while world.given.get(key):
        world.do(key)
    assert 25 <= len(world.waiting) < 40 and all(isinstance(one, Keep) for one in world.waiting)
    while not world.given[key]:
        world.keep_one()
    assert world.waiting, "they wait until some are in, not until all are"
    world.finish()
    assert sorted(world.store["1"]) == list(range(40))


RUNS = st.lists(
    st.tuples(
        st.booleans(),  # has a start
        st.lists(st.integers(0, 12), max_size=10),  # numbers, some twice
        st.booleans(),  # has a trailer
    ),
    min_size=1,
    max_size=4,
)


class AnyOrder(RuleBasedStateMachine):
    """Everything that can happen, in any order; afterwards all goes well, and each spill must be there."""

    @initialize(runs=RUNS)
    def begin(self, runs: list[tuple[bool, list[int], bool]]) -> None:
        items: list[Item] = []
        for index, (start, numbers, trailer) in enumerate(runs):
            run = f"r{index}"
            items += [StartOfRun(run)] if start else []
            items += spills(run, *numbers)
            items += [EndOfRun(run)] if trailer else []
        self.world = World(items, expected=("a", "b"))
        self.deaths: dict[tuple[str, int], int] = {}

    @rule()
    def read(self) -> None:
        self.world.read()

    @rule(name=st.sampled_from("abc"))
    def join(self, name: str) -> None:
        self.world.join(name)

    @rule()
    def answer(self) -> None:
        self.world.answer()

    @precondition(lambda self: self.world.waiting)
    @rule(many=st.integers(1, 5))
    def keep(self, many: int) -> None:
        for _ in range(many):
            if self.world.waiting:
                self.world.keep_one()

    def _busy(self) -> list[bytes]:
        return sorted(key for key, orders in self.world.given.items() if orders)

    @precondition(lambda self: self._busy())
    @rule(pick=st.integers(0, 9), error=st.sampled_from(["", "", "", "it went wrong"]))
    def do(self, pick: int, error: str) -> None:
        busy = self._busy()
        self.world.do(busy[pick % len(busy)], error)

    @precondition(lambda self: self.world.machine.workers.workers)
    @rule(pick=st.integers(0, 9), fatal=st.booleans())
    def die(self, pick: int, fatal: bool) -> None:
        keys = sorted(self.world.machine.workers.workers)
        self.world.kill(keys[pick % len(keys)], fatal)

    @rule()
    def save(self) -> None:
        self.world.save()

    @rule()
    def quiet(self) -> None:
        self.world.machine.quiet()
        self.world.pump()

    @rule()
    def killed_and_started_again(self) -> None:
        self.world.start()

    @rule()
    def a_late_answer_is_left_alone(self) -> None:
        assert not self.world.machine.result(b"nobody", 0, Outcome(0), self.world.now)

    @invariant()
    def counts_close(self) -> None:
        run = self.world.machine.run if hasattr(self, "world") else None
        if run is None:
            return
        crew = self.world.machine.workers
        with_workers = sum(len(one.tasks) for one in crew.workers.values())
        on_the_way = len(crew.ready) + len(crew.suspects) + with_workers + len(run.keeping)
        assert run.pending == on_the_way
        assert run.read == run.done + run.failed + run.pending
        in_store = self.world.store.get(run.name, {})
        if run.state not in ("opening",):
            assert run.done == sum(not one.failed for one in in_store.values())
            assert run.failed == sum(one.failed for one in in_store.values())

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        self.world.finish()
        for item in self.world.items:
            if isinstance(item, Spill):
                assert item.number in self.world.store[item.run], "lost"
        assert set(self.world.records.values()) <= {"ended"}
        assert self.world.machine.ledger.open == 0


AnyOrder.TestCase.settings = settings(
    max_examples=100, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
)
TestAnyOrder = AnyOrder.TestCase


@pytest.mark.parametrize("held", [0.001, 1.0])
def test_short_spills_are_given_further_ahead_than_long_ones(held: float) -> None:
    world = World(spills("1", *range(200)))
    key = world.join("a")
    for _ in range(200):
        world.read()
    while world.waiting:
        world.keep_one()
    world.answer()
    for _ in range(30):
        order = world.given[key].pop(0)
        world.machine.result(key, order, Outcome(-1, b"", seconds=held), world.now)
        world.pump()
    assert len(world.given[key]) == (64 if held == 0.001 else 2)
