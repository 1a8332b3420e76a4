"""What a student's reducer may do wrong: it is said clearly, and everything else goes on."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import Unauthorised
from orchestrator.online import reducer_status, snapshot
from orchestrator.online.reducing import LOOK, Places
from orchestrator.online.stores.memory import MemoryStores

from . import test_reducing as kit
from .test_reducing import Sent, begun, end, online, outcome, reducing

FAULTS: dict[str, Any] = {}  # what a method of the module raises, by its name


class Student(kit.Values):
    """Raises as FAULTS says."""

    def birth(self, configuration: Any) -> None:
        super().birth(configuration)
        self._perhaps(f"birth {configuration.run}")

    def process(self, spill: Any) -> None:
        self._perhaps("process")
        super().process(spill)

    def state(self) -> dict[str, Any]:
        self._perhaps("state")
        return super().state()

    @staticmethod
    def _perhaps(what: str) -> None:
        if what in FAULTS:
            raise FAULTS[what]


@pytest.fixture(autouse=True)
def module(monkeypatch: pytest.MonkeyPatch) -> None:
    FAULTS.clear()
    monkeypatch.setitem(sys.modules, "tests_online_reducer", kit)
    monkeypatch.setitem(sys.modules, "tests_online_student", sys.modules[__name__])


def two() -> Any:
    conf = online("one", "two")
    other = conf.reduce[1].model_copy(update={"module": "tests_online_student:Student"})
    return conf.model_copy(update={"reduce": (conf.reduce[0], other)})


class Time:
    """A clock that goes on by itself, far enough for the next try."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 60.0
        return self.now


def steps(daemon: Any, count: int = 12) -> None:
    for _ in range(count):
        daemon.step()


@pytest.mark.parametrize("error", [KeyError("beam"), OSError("no such file"), SystemExit(1)])
def test_a_birth_that_fails_is_kept_and_later_runs_and_other_reducers_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    stores, sent, conf = MemoryStores(), Sent(), two()
    for run in ("1", "2"):
        end(begun(stores, run, spills=3), 3)
    FAULTS["birth 1"] = error
    bad = reducing(stores, tmp_path, sent, name="two", conf=conf, now=Time())
    good = reducing(stores, tmp_path, sent, name="one", conf=conf)
    steps(bad)
    steps(good)
    assert [stores.of(run).record().state for run in ("1", "2")] == ["final", "final"]  # type: ignore[union-attr]
    assert sent.last("2", "all/values")[1].sum() == 6
    told = f"tests_online_student:Student: {type(error).__name__}"
    assert "cannot begin" in caplog.text and told.partition(":")[2] in caplog.text and "in _perhaps" in caplog.text
    part = snapshot.finished(Places.of(tmp_path).runs, "1", "two")
    assert part is not None and part["error"].startswith(told) and "_perhaps" in part["trace"] and part["shown"] == 0
    whole = snapshot.listed(Places.of(tmp_path).runs)
    assert whole["1"]["reducers_failed"]["two"].startswith(told) and whole["2"]["reducers_failed"] == {}
    assert whole["1"]["failed"] == 0
    final = [header for kind, run, _, header, _ in sent.messages if (kind, run) == ("run", "1")][-1]
    assert final["trouble"].startswith(f"the reducer two has failed: {told}")


def test_a_birth_that_works_later_misses_no_spill_and_is_told_meanwhile(tmp_path: Path) -> None:
    stores, sent, conf = MemoryStores(), Sent(), two()
    store = begun(stores, "1", spills=3)
    FAULTS["birth 1"] = RuntimeError("no calibration")
    daemon = reducing(stores, tmp_path, sent, name="two", conf=conf, now=Time())
    steps(daemon, 5)
    status = Places.of(tmp_path).status
    said = reducer_status.read(status, "two")
    assert said is not None and said.state == "cannot begin" and said.tries > 1
    told = reducer_status.troubles(status, ("one", "two"), "1")
    assert told.startswith("the reducer two cannot begin run 1: tests_online_student:Student: RuntimeError: no cal")
    FAULTS.clear()
    store.put([outcome("1", 3)])
    steps(daemon, 2)
    assert sent.last("1", "all/values")[1].sum() == 8 and reducer_status.troubles(status, ("two",), "1") == ""


def test_a_run_that_goes_on_is_not_given_up_however_often_a_birth_fails(tmp_path: Path) -> None:
    stores, conf = MemoryStores(), two()
    begun(stores, "1", spills=3)
    FAULTS["birth 1"] = RuntimeError("no calibration")
    steps(reducing(stores, tmp_path, Sent(), name="two", conf=conf, now=Time()), 30)
    assert snapshot.finished(Places.of(tmp_path).runs, "1", "two") is None


def test_between_two_births_it_waits(tmp_path: Path) -> None:
    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout)
            return bool(len(waits) > 3 and not self.set())  # then it is to end

    waits: list[float | None] = []
    stores = MemoryStores()
    begun(stores, "1")
    FAULTS["birth 1"] = RuntimeError("no calibration")
    reducing(stores, tmp_path, Sent(), name="two", conf=two()).run(Stop())
    assert waits == [LOOK] * 4


@pytest.mark.parametrize("error", [RuntimeError("odd"), SystemExit(3)])
def test_a_state_that_cannot_be_had_is_told_and_the_run_ends_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setattr("orchestrator.online.reducing.SAVE", 0.0)
    stores, sent, conf = MemoryStores(), Sent(), two()
    store = begun(stores, "1", spills=3)
    FAULTS["state"] = error
    daemon = reducing(stores, tmp_path, sent, name="two", conf=conf)
    daemon.step()
    end(store, 3)
    daemon.step()
    reducing(stores, tmp_path, sent, name="one", conf=conf).step()
    assert store.record().state == "final" and sent.last("1", "all/values")[1].sum() == 6
    assert caplog.text.count("what is counted cannot be saved") == 1


def test_spills_that_end_the_process_count_as_failed(tmp_path: Path) -> None:
    stores, conf = MemoryStores(), two()
    begun(stores, "1", spills=2)
    FAULTS["process"] = SystemExit(1)
    reducing(stores, tmp_path, Sent(), name="two", conf=conf).step()
    said = reducer_status.read(Places.of(tmp_path).status, "two")
    assert said is not None and (said.counted, said.shown, said.failed) == (2, 0, 2)
    assert said.trouble() == "the reducer two cannot count spills of run 1, such as 0: SystemExit: 1"


def test_a_login_that_is_refused_is_not_tried_again(tmp_path: Path) -> None:
    class Refusing(MemoryStores):
        def runs(self) -> Any:
            raise Unauthorised("the login is refused")

    with pytest.raises(Unauthorised):
        reducing(Refusing(), tmp_path, Sent()).run(threading.Event())


def test_what_is_no_status_counts_for_nothing(tmp_path: Path) -> None:
    for text in ("", "[]", "{", '{"name": 1}', '{"other": 1}'):
        (tmp_path / "reduce-x.json").write_text(text)
        assert reducer_status.read(tmp_path, "x") is None and reducer_status.troubles(tmp_path, ["x"], "1") == ""
    reducer_status.forget(tmp_path)
    assert not list(tmp_path.iterdir())
