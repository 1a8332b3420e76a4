"""The transform's end of the talk with workers: it does what it should with what is right, and survives all else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.errors import Conflict, SettingsError
from orchestrator.online import wire
from orchestrator.online.commands import Configure, Give, Open
from orchestrator.online.configuration import loads
from orchestrator.online.crew import Crew
from orchestrator.online.dispatch import REFUSED, Dispatcher
from orchestrator.online.spill import Spill
from orchestrator.online.store import Outcome
from orchestrator.online.talk import Talk
from orchestrator.online.transform import Transform

ONLINE = loads("input: {module: 'a:B'}\nworkers: {address: 'tcp://127.0.0.1:*'}\n")


class End:
    """A talk with its machine, and a worker's socket."""

    def __init__(self, context: Any, local: tuple[str, ...] = ()) -> None:
        self.machine = Transform(Dispatcher(tries=2, timeout=10.0))
        self.crew = Crew(list(local), lambda name: (), Path())
        self.talk = Talk(context, ONLINE, self.machine, self.crew)
        self.socket = context.socket(zmq.DEALER)
        wire.prepare(self.socket)
        self.socket.connect(self.talk.address)

    def say(self, *frames: bytes, wait: bool = True) -> None:
        self.socket.send_multipart(frames)
        if wait:
            assert self.talk.socket.poll(5000)
            self.talk.hear(0.0)

    def told(self) -> list[bytes]:
        assert self.socket.poll(5000)
        return list(self.socket.recv_multipart())

    def pump(self) -> list[Any]:
        found = self.machine.pump(0.0)
        for command in found:
            if isinstance(command, Configure):
                self.talk.configure(command)
        return found


@pytest.fixture(scope="module")
def context() -> Iterator[Any]:
    with zmq.Context() as made:
        yield made


@pytest.fixture
def end(context: Any) -> Iterator[End]:
    made = End(context)
    yield made
    made.socket.close(0)
    made.talk.socket.close(0)


def join(end: End, name: Any = "w") -> None:
    end.say(b"join", orjson.dumps({"name": name, "host": "h", "pid": 1}))
    end.pump()


def test_a_worker_joins_acknowledges_and_does_a_spill(end: End) -> None:
    join(end)
    word, said = end.told()
    assert word == b"configure"
    end.say(b"ready", orjson.dumps({"versions": end.talk.versions, "digest": end.talk.digest, "error": ""}))
    machine = end.machine
    machine.read(Spill("1", 0), b"bytes", 1)
    run = next(one.run for one in machine.pump(0.0) if isinstance(one, Open))
    machine.opened(run, {}, "", {})
    machine.pump(0.0)
    machine.begun(run)
    for command in machine.pump(0.0):
        end.talk.birth(command)  # type: ignore[arg-type]
    word, said = end.told()
    assert (word, orjson.loads(said)["run"]) == (b"birth", "1")
    end.say(b"born", orjson.dumps({"serial": orjson.loads(said)["serial"], "error": ""}))
    (give,) = machine.pump(0.0)
    assert isinstance(give, Give)
    end.talk.give(give)
    word, head, content = end.told()
    assert (word, content) == (b"spill", b"bytes")
    end.say(*wire.done(head, Outcome(0, b"result", seconds=0.5)))
    (keep,) = machine.pump(0.0)
    assert (keep.outcome.number, keep.outcome.packed, keep.outcome.worker) == (0, b"result", "w")  # type: ignore[union-attr]


def test_who_is_not_known_is_asked_to_join(end: End) -> None:
    end.say(*wire.done(wire.head(b"12345678", 3), Outcome(0, b"x")))
    assert end.told() == [b"who"]


def test_a_worker_that_differs_is_told_what(end: End) -> None:
    join(end)
    end.told()
    end.say(b"ready", orjson.dumps({"versions": end.talk.versions | {"numpy": "0.1"}, "digest": "other"}))
    assert end.machine.workers.refused["w"].startswith("has numpy 0.1 instead of ")


def test_a_second_worker_of_a_name_waits_while_the_first_one_lives(end: End, context: Any) -> None:
    join(end)
    other = context.socket(zmq.DEALER)
    wire.prepare(other)
    other.connect(end.talk.address)
    other.send_multipart([b"join", orjson.dumps({"name": "w", "host": "elsewhere", "pid": 2})])
    assert end.talk.socket.poll(5000)
    end.talk.hear(0.0)
    assert [one.where for one in end.machine.workers.workers.values()] == ["h, process 1"]
    other.close(0)


def test_nobody_takes_the_name_of_a_local_worker(context: Any) -> None:
    end = End(context, local=("local-1",))
    join(end, "local-1")
    assert end.told()[0] == b"refuse"
    assert not end.machine.workers.workers
    end.socket.close(0)
    end.talk.socket.close(0)


@pytest.mark.parametrize("name", ["", " w", "w\x1b[31m", "two\nlines", "\u202ew", "w" * 101, 7, None, ["w"]])
def test_a_name_that_is_none_is_refused(end: End, name: Any) -> None:
    join(end, name)
    word, why = end.told()
    assert word == b"refuse" and why.startswith(b"has a name that is none")
    assert not end.machine.workers.workers


def test_more_workers_than_can_be_of_use_are_refused(end: End, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.online.talk.MOST_WORKERS", 1)
    end.machine.joined(b"another", "v", "elsewhere", 0.0)
    join(end)
    assert end.told() == [b"refuse", b"is one too many: 1 are there"]


def test_what_a_worker_says_is_cut_and_no_terminal_obeys_it(end: End, caplog: pytest.LogCaptureFixture) -> None:
    bad = "\x1b]0;title\x07\n" + "x" * 10**6
    end.say(b"join", orjson.dumps({"name": "w", "host": bad, "pid": bad}))
    key, worker = next(iter(end.machine.workers.workers.items()))
    assert len(worker.where) < 200 and worker.where.isprintable()
    worker.state, worker.serial = "birth", 3
    end.say(b"born", orjson.dumps({"serial": 3, "error": bad}))
    assert worker.state == "unborn" and len(worker.reason) <= 500 and worker.reason.isprintable()
    said = wire.outcome_of([b"done", b"", orjson.dumps([bad, bad, True, 0.1]), b""], "w")
    assert said is not None and said.failed and len(said.error) <= 10_000 and "\x1b" not in said.error
    assert said.module.isprintable() and len(said.module) <= 200 and "\n" in said.error
    worker.state = "joined"
    end.say(b"ready", orjson.dumps({"error": bad}))
    assert len(end.machine.workers.refused["w"]) < 600 and end.machine.workers.refused["w"].isprintable()
    end.machine.joined(key, "w", "h", 0.0)
    end.say(b"ready", orjson.dumps({"digest": "other", "versions": {bad: bad, "numpy": bad}}))
    assert len(end.machine.workers.refused["w"]) < 600 and end.machine.workers.refused["w"].isprintable()
    assert "\x1b" not in caplog.text and max(len(line) for line in caplog.text.splitlines()) < 1000


def test_workers_with_ever_new_names_use_up_no_memory() -> None:
    dispatcher = Dispatcher(tries=2, timeout=10.0, expected=("local-1",))
    for number, name in enumerate(["local-1", *(f"w{number}" for number in range(2 * REFUSED))]):
        key = str(number).encode()
        dispatcher.joined(key, name, "there", 0.0)
        dispatcher.acknowledged(key, "differs")
        dispatcher.joined(key, name, "there", 0.0)
        dispatcher.gone(key, "is gone")
    assert len(dispatcher.refused) == REFUSED + 1 and "local-1" in dispatcher.refused
    assert list(dispatcher.useful) == ["local-1"]


def test_a_port_in_use_and_an_address_that_is_none_are_refused(end: End, context: Any) -> None:
    for address, error in ((end.talk.address, Conflict), ("tcp://nowhere.invalid:1", SettingsError)):
        online = loads(f"input: {{module: 'a:B'}}\nworkers: {{address: '{address}'}}\n")
        with pytest.raises(error, match=r"workers\.address"):
            Talk(context, online, end.machine, end.crew)


WORDS = st.sampled_from([b"join", b"ready", b"born", b"done", b"leave", b"spill", b""])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["name", "host", "pid", "versions", "digest", "error", "serial"]), inner, max_size=4),
    max_leaves=8,
).map(orjson.dumps)  # fmt: skip
FRAMES = st.lists(st.binary(max_size=20) | JSON, max_size=4)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(said=st.lists(st.tuples(st.sampled_from([b"k1", b"k2"]), WORDS, FRAMES), max_size=8))
def test_nothing_that_a_worker_may_say_hurts(context: Any, said: list[tuple[bytes, bytes, list[bytes]]]) -> None:
    end = End(context)
    try:
        for key, word, frames in said:
            end.talk._hear(key, [word, *frames], 0.0)
            for command in end.machine.pump(0.0):
                getattr(end.talk, type(command).__name__.lower())(command)
    finally:
        end.socket.close(0)
        end.talk.socket.close(0)
