"""A reducer at work: each spill once, whatever happens to it; runs apart; the end of a run as files."""

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import hist
import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator import faults
from orchestrator.errors import Unavailable
from orchestrator.online import configuration, rootjson, snapshot
from orchestrator.online.images import Files, Gallery
from orchestrator.online.module import Reduce
from orchestrator.online.packing import packed
from orchestrator.online.plot import Plot
from orchestrator.online.publication import parsed
from orchestrator.online.reducing import Places, Reducing
from orchestrator.online.references import References
from orchestrator.online.spill import Spill
from orchestrator.online.store import Outcome, RunRecord
from orchestrator.online.stores.memory import MemoryStores

MODULE = "tests_online_reducer:Values"


class Values(Reduce):
    """A histogram of the spills' numbers, and one for each value in them."""

    defaults = {"bins": 10}  # noqa: RUF012

    def birth(self, configuration: Any) -> None:
        axis = hist.axis.Regular(self.settings["bins"], 0, 100, label="number")
        self.all = hist.Hist(axis, storage=hist.storage.Int64())

    def process(self, spill: Spill) -> None:
        if "raise" in spill.data:
            raise RuntimeError("this spill is odd")
        self.all.fill(np.asarray(spill.data["values"]))

    def plots(self) -> list[Plot]:
        return [Plot("all/values", "All", self.all, "what there is", ("a", "b"), "look")]

    def state(self) -> dict[str, Any]:
        return {"all": self.all.view(flow=True).copy()}

    def merge(self, state: Any) -> None:
        self.all.view(flow=True)[...] += state["all"]


@pytest.fixture(autouse=True)
def module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tests_online_reducer", sys.modules[__name__])


class Sent:
    """In place of the broadcast."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, str, str, dict[str, Any], bytes]] = []

    def send(self, topic: bytes, header: bytes, body: bytes = b"") -> None:
        self.messages.append((*parsed(topic), orjson.loads(header), body))

    def last(self, run: str, name: str) -> tuple[dict[str, Any], hist.Hist]:
        found = [one for one in self.messages if one[1] == run and one[2] == name][-1]
        return found[3], rootjson.loads(found[4])

    def states(self) -> list[tuple[str, str]]:
        return [(run, header["state"]) for kind, run, _, header, _ in self.messages if kind == "run"]


def online(*names: str, **more: Any) -> configuration.Online:
    reduce = [{"name": name, "module": MODULE, "refresh": {"spills": 1, "seconds": 60}} for name in names or ("one",)]
    return configuration.Online.model_validate({"input": {"module": "x:Y"}, "reduce": reduce, "tag": "test", **more})


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        self.time += 0.01
        return self.time


def reducing(stores: Any, folder: Path, sent: Sent, name: str = "one", conf: Any = None, **more: Any) -> Reducing:
    conf = conf or online()
    entry = next(one for one in conf.reduce if one.name == name)
    given = {"compare": lambda plot: None, "gallery": Gallery(), "now": Clock(), "clock": Clock()} | more
    return Reducing(entry, conf, stores, sent, Places.of(folder), **given)


def outcome(run: str, number: int, **data: Any) -> Outcome:
    spill = Spill(run, number, taken=1000.0 + number, data=data or {"values": np.array([float(number), 1.0])})
    return Outcome(number, packed(spill))


def begun(stores: MemoryStores, run: str, spills: int = 0) -> Any:
    store = stores.of(run)
    store.save(RunRecord(run, begun=f"2026-01-01T00:00:{len(stores.runs()):02d}Z"))
    store.put(outcome(run, number) for number in range(spills))
    return store


def end(store: Any, spills: int, failed: int = 0) -> None:
    record = store.record()
    record.state, record.ended, record.how = "ended", "2026-01-01T01:00:00Z", "trailer"
    record.spills, record.done, record.failed = spills, spills - failed, failed
    store.save(record)


def test_spills_are_counted_and_published_while_they_come(tmp_path: Path) -> None:
    stores, sent = MemoryStores(), Sent()
    store = begun(stores, "7", spills=2)
    one = reducing(stores, tmp_path, sent)
    one.step()
    header, shown = sent.last("7", "all/values")
    assert shown.sum() == 4 and header["spills"] == 2 and header["spill"] == 1 and header["entries"] == 4
    assert header["input_time"] == "1970-01-01T00:16:41.000Z" and header["tag"] == "test" and not header["final"]
    store.put([outcome("7", 2)])
    one.step()
    assert sent.last("7", "all/values")[1].sum() == 6
    numbers = [message[3]["sequence"] for message in sent.messages]
    assert numbers == sorted(set(numbers))


def test_what_was_saved_of_another_run_of_this_name_counts_for_nothing(tmp_path: Path) -> None:
    def counted(begun: str, numbers: range) -> float:
        stores, sent = MemoryStores(), Sent()
        store = stores.of("7")
        store.save(RunRecord("7", begun=begun))
        store.put(outcome("7", number) for number in numbers)
        one = reducing(stores, tmp_path, sent)
        one.step()
        stop = threading.Event()
        stop.set()
        one.run(stop)  # saves what is counted
        return float(sent.last("7", "all/values")[1].sum())

    assert counted("2026-01-01T00:00:00Z", range(5)) == 10
    assert counted("2026-01-01T00:00:00Z", range(6)) == 12  # the first five from the saved state
    assert counted("2026-01-02T00:00:00Z", range(2)) == 4


def test_a_run_is_whole_before_the_next_one_begins_empty(tmp_path: Path) -> None:
    stores, sent = MemoryStores(), Sent()
    first = begun(stores, "1", spills=3)
    second = begun(stores, "2", spills=1)
    one = reducing(stores, tmp_path, sent)
    one.step()
    assert {message[1] for message in sent.messages} == {"1"}
    first.put([outcome("1", 3)])
    end(first, 4)
    one.step()
    one.step()
    header, shown = sent.last("1", "all/values")
    assert header["final"] and shown.sum() == 8
    assert sent.states() == [("1", "final")]
    record = first.record()
    assert record.state == "final" and record.snapshot
    of_second = [message for message in sent.messages if message[1] == "2"]
    assert of_second[0][3]["entries"] == 0 and of_second[-1][3]["entries"] == 2
    end(second, 1)
    one.step()
    assert second.record().state == "final" and not list((tmp_path / "online" / "state").glob("*.state"))


def test_a_run_of_an_old_name_is_counted_though_the_old_snapshot_is_there(tmp_path: Path) -> None:
    stores, sent = MemoryStores(), Sent()
    store = begun(stores, "1", spills=3)
    end(store, 3)
    reducing(stores, tmp_path, sent).step()
    assert store.record().state == "final"
    store.drop()  # or a store in the memory of a process that has ended
    store.save(RunRecord("1", begun="2026-02-02T00:00:00Z"))
    store.put([outcome("1", number) for number in range(5)])
    one = reducing(stores, tmp_path, sent)
    one.step()
    assert store.record().state == "begun", "it goes on"
    assert sent.last("1", "all/values")[1].sum() == 10
    end(store, 5)
    one.step()
    assert store.record().state == "final"
    said = snapshot.finished(tmp_path / "online" / "runs", "1", "one")
    assert said is not None and said["counted"] == 5


def test_failed_and_hidden_spills_close_the_run_and_are_in_no_plot(tmp_path: Path) -> None:
    stores, sent = MemoryStores(), Sent()
    store = begun(stores, "1", spills=1)
    hidden = outcome("1", 2)
    hidden.shown = False
    store.put([Outcome(1, None, error="broken"), hidden, outcome("1", 3, **{"raise": True})])
    end(store, 4, failed=1)
    reducing(stores, tmp_path, sent).step()
    assert sent.last("1", "all/values")[1].sum() == 2
    said = snapshot.finished(tmp_path / "online" / "runs", "1", "one")
    assert said is not None and (said["counted"], said["shown"], said["hidden"], said["failed"]) == (4, 1, 1, 2)
    assert said["wrong"] == {"3": "RuntimeError: this spill is odd"}


def test_the_snapshot_equals_the_last_live_plots(tmp_path: Path) -> None:
    stores, sent = MemoryStores(), Sent()
    end(begun(stores, "1", spills=5), 5)
    gallery = Gallery()
    reducing(stores, tmp_path, sent, gallery=gallery).step()
    gallery.close(60.0)
    header, shown = sent.last("1", "all/values")
    runs = tmp_path / "online" / "runs"
    for file in ("one.root", snapshot.WHOLE):
        stored = snapshot.read_root(runs / "1" / file)
        assert list(stored) == ["all/values"]
        assert np.array_equal(stored["all/values"].values(flow=True), shown.values(flow=True))
        assert stored["all/values"].axes[0].label == "number"
    ((kept, body),) = list(snapshot.plots(runs, "1"))
    assert kept == header and body == sent.messages[-2][4]
    assert (runs / "1" / "plots" / "all" / "values.png").read_bytes()[:4] == b"\x89PNG"
    listed = snapshot.listed(runs)["1"]
    assert (listed["state"], listed["quality"], listed["spills"]) == ("final", "none", 5)


def test_pictures_that_a_kill_has_prevented_are_drawn_after_the_next_start(tmp_path: Path) -> None:
    stores, sent = MemoryStores(), Sent()
    end(begun(stores, "1", spills=5), 5)

    class Dead(Gallery):
        def last(self, *_: Any) -> None: ...

    reducing(stores, tmp_path, sent, gallery=Dead()).step()
    picture = tmp_path / "online" / "runs" / "1" / "plots" / "all" / "values.png"
    assert not picture.exists()
    gallery, stop = Gallery(), threading.Event()
    stop.set()
    reducing(stores, tmp_path, sent, gallery=gallery).run(stop)
    gallery.close(60.0)
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert not list(snapshot.undrawn(tmp_path / "online" / "runs", "one"))


def test_a_run_is_final_when_the_last_reducer_has_finished(tmp_path: Path) -> None:
    stores, sent, conf = MemoryStores(), Sent(), online("one", "two")
    store = begun(stores, "1", spills=2)
    end(store, 2)
    reducing(stores, tmp_path, sent, "one", conf).step()
    assert store.record().state == "ended"
    reducing(stores, tmp_path, sent, "two", conf).step()
    assert store.record().state == "final"


def test_a_plot_that_looks_wrong_is_bad_live_and_in_the_runs_record(tmp_path: Path) -> None:
    stores, sent = MemoryStores(), Sent()
    store = begun(stores, "1", spills=90)
    flat = hist.Hist(hist.axis.Regular(10, 0, 100, label="number"), storage=hist.storage.Double())
    flat.view(flow=True)[...] = 100.0
    snapshot.write_root(tmp_path / "flat.root", {"all/values": flat})
    conf = online(references=[{"file": "flat.root", "entries": 10}])
    references = References(conf.references, tmp_path, tmp_path / "online" / "runs")
    one = reducing(stores, tmp_path, sent, conf=conf, compare=references.compare)
    one.step()
    header, _ = sent.last("1", "all/values")
    assert header["quality"] == "bad" and header["reference"] == "flat.root"  # half of all values are 1
    assert header["verdict"]["probability"] < 0.001 and header["verdict"]["sentence"].startswith("bad: probability")
    body = orjson.loads(sent.messages[-1][4])
    assert np.isclose(rootjson.loads(body["reference_body"]).values().sum(), 180)
    assert rootjson.loads(body["ratio_body"]).values()[0] > 1
    end(store, 90)
    one.step()
    record = store.record()
    assert record.quality == "bad" and record.verdicts == {"all/values": "bad"}
    assert sent.messages[-1][3]["quality"] == "bad"


class Away:
    """Stores that do not answer at first."""

    def __init__(self, stores: MemoryStores, times: int) -> None:
        self.stores, self.times = stores, times

    def runs(self) -> list[RunRecord]:
        if self.times:
            self.times -= 1
            raise Unavailable("the database does not answer")
        return self.stores.runs()

    def of(self, run: str) -> Any:
        return self.stores.of(run)


def test_a_database_that_is_away_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.online.reducing.PAUSE", 0.01)
    stores, sent = MemoryStores(), Sent()
    store = begun(stores, "1", spills=2)
    end(store, 2)
    stop = threading.Event()
    daemon = reducing(Away(stores, 3), tmp_path, sent)
    thread = threading.Thread(target=daemon.run, args=(stop,))
    thread.start()
    for _ in range(500):
        if store.record().state == "final":
            break
        stop.wait(0.02)
    stop.set()
    thread.join()
    assert store.record().state == "final" and sent.last("1", "all/values")[1].sum() == 4


class Killed(BaseException):
    """In place of SIGKILL: nothing in the code catches it, and whoever was at work is thrown away."""


POINTS = [name for name in faults.POINTS if name.startswith("reducer.")]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kills=st.lists(st.tuples(st.sampled_from(POINTS), st.integers(1, 3)), max_size=6),
    batches=st.lists(st.integers(0, 5), max_size=6),
)
def test_whatever_it_dies_of_each_spill_is_counted_once(
    kills: list[tuple[str, int]], batches: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, stores, sent = tmp_path_factory.mktemp("kill"), MemoryStores(), Sent()
    store = begun(stores, "1")
    total = 0
    patch = pytest.MonkeyPatch()
    patch.setattr("orchestrator.online.reducing.SAVE", 0.05)
    patch.setattr("orchestrator.online.images.draw", lambda *_, **__: b"")
    pending = list(kills)

    def point(name: str) -> None:
        if pending and pending[0][0] == name:
            where, times = pending.pop(0)
            if times > 1:
                pending.insert(0, (where, times - 1))
            else:
                raise Killed

    patch.setattr(faults, "point", point)
    daemon = reducing(stores, folder, sent)
    try:
        for size in [*batches, None]:
            if size is None:
                end(store, total)
            else:
                store.put(outcome("1", number) for number in range(total, total + size))
                total += size
            for _ in range(40):
                try:
                    daemon.step()
                    if size is None and store.record().state == "final":
                        break
                    if size is not None:
                        break
                except Killed:
                    daemon = reducing(stores, folder, sent)
        assert store.record().state == "final"
        assert sent.last("1", "all/values")[1].sum() == 2 * total
        assert snapshot.read_root(folder / "online/runs/1/snapshot.root")["all/values"].sum() == 2 * total
    finally:
        patch.undo()


def test_a_killed_process_goes_on_where_its_saved_state_is(tmp_path: Path) -> None:
    """With a real process and a real SIGKILL, of which the rehearsal above is only the shape."""
    script = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
import os, test_reducing as t
from pathlib import Path
from orchestrator import faults
sys.modules["tests_online_reducer"] = t
faults.arm(os.environ)
stores, sent = t.MemoryStores(), t.Sent()
store = t.begun(stores, "1", spills=9)
import orchestrator.online.reducing as r
r.SAVE = 0.0
r.AT_ONCE = 2
one = t.reducing(stores, Path({str(tmp_path)!r}), sent)
for _ in range(5): one.step()
t.end(store, 9)
one.step()
print(int(sent.last("1", "all/values")[1].sum()), store.record().state)
"""
    for point in ("reducer.saving:2", "reducer.counted:2", "reducer.snapshot", ""):
        environ = {"PATH": "/usr/bin:/bin"} | ({faults.VARIABLE: point} if point else {})
        done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True, timeout=60)
        assert done.returncode == (-9 if point else 0), done.stderr
    assert done.stdout.split() == ["18", "final"]


def test_a_state_of_other_settings_or_a_damaged_one_is_counted_anew(tmp_path: Path) -> None:
    stores, sent = MemoryStores(), Sent()
    begun(stores, "1", spills=3)
    first = reducing(stores, tmp_path, sent)
    first.step()
    assert first._work is not None
    first._work.save()
    saved = first._work.checkpoint.path
    other = online()
    other = other.model_copy(update={"reduce": (other.reduce[0].model_copy(update={"settings": {"bins": 20}}),)})
    reducing(stores, tmp_path, sent, conf=other).step()
    assert len(sent.last("1", "all/values")[1].axes[0]) == 20 and sent.last("1", "all/values")[1].sum() == 6
    saved.write_bytes(saved.read_bytes()[:-3])
    reducing(stores, tmp_path, sent).step()
    assert sent.last("1", "all/values")[1].sum() == 6


def test_pictures_are_written_while_a_run_goes_on(tmp_path: Path) -> None:
    stores, sent = MemoryStores(), Sent()
    begun(stores, "1", spills=3)
    conf = online(images={"directory": "pictures", "formats": ["png", "json"], "prefix": "x_", "number": True})
    gallery = Gallery([(Files(conf.images, tmp_path / "pictures"), 0.01)])
    reducing(stores, tmp_path, sent, conf=conf, gallery=gallery).step()
    path = tmp_path / "pictures" / "1" / "x_all.values_000000.json"
    for _ in range(500):
        if path.exists():
            break
        threading.Event().wait(0.02)
    gallery.close()
    assert orjson.loads(path.read_bytes())["spills"] == 3
    assert sorted(one.name for one in path.parent.iterdir()) == [
        "x_all.values_000000.hist.json", "x_all.values_000000.json", "x_all.values_000000.png",
    ]  # fmt: skip


def test_a_histogram_that_root_cannot_hold_keeps_no_run_from_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> None:
        raise TypeError("no such thing in ROOT")

    stores, sent = MemoryStores(), Sent()
    store = begun(stores, "1", spills=3)
    end(store, 3)
    monkeypatch.setattr(snapshot, "write_root", refuse)
    reducing(stores, tmp_path, sent).step()
    assert store.record().state == "final" and "cannot be written as a ROOT file: TypeError" in caplog.text
    part = snapshot.finished(Places.of(tmp_path).runs, "1", "one")
    assert part is not None and part["root"] == "TypeError: no such thing in ROOT"
    assert [header["entries"] for header, _ in snapshot.plots(Places.of(tmp_path).runs, "1")] == [6]


def test_a_root_file_is_written_of_whatever_plots_there_are(tmp_path: Path) -> None:
    one = hist.Hist(hist.axis.Regular(3, 0, 1)).fill([0.5])
    none = hist.Hist(hist.axis.StrCategory([], growth=True))
    names = ["hits", "hits/board", "hits_", "deep/er", "deep", "deep/er/still"]
    path = tmp_path / "run.root"
    snapshot.write_root(path, {"nothing": none, **dict.fromkeys(names, one)})
    found = snapshot.read_root(path)
    assert sorted(found) == ["deep/er/still", "deep/er_", "deep_", "hits/board", "hits_", "hits__"]
    assert all(made.sum() == 1 for made in found.values())
    snapshot.write_root(path, {})
    assert snapshot.read_root(path) == {}
