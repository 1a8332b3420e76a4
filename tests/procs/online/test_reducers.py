"""The histograms: live, in a step, merged of parts and restored they are the same, and they are right."""

import fnmatch
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uproot
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.errors import DataError, SettingsError
from orchestrator.online import configuration, snapshot
from orchestrator.online.images import Gallery
from orchestrator.online.module import Input, Map, Reduce, RunConfiguration, find
from orchestrator.online.packing import pack, packed, unpack, unpacked
from orchestrator.online.reducing import Places, Reducing
from orchestrator.online.rehearsal import check_names
from orchestrator.online.spill import EndOfRun, Spill
from orchestrator.online.store import Outcome, RunRecord
from orchestrator.online.stores.memory import MemoryStores
from orchestrator.step import Work
from procs.formats import date
from procs.online import step
from procs.online.maps.date import Decode, Waveforms
from procs.online.reducers.base import by_kind
from procs.online.reducers.events import DeadTime, EventSizeRate
from procs.online.reducers.pulses import BaselineNoise, PulseAmplitude, TracePersistence
from procs.online.reducers.tdc import ChannelOccupancy, HitTimeDifferences, TdcHits
from procs.online.reducers.trend import Trend
from procs.simulate import simulate

MICE = "mice_06008.000"
EXAMPLES = Path(step.__file__).parent / "examples"
ALL = (
    TdcHits, ChannelOccupancy, HitTimeDifferences, EventSizeRate, DeadTime, PulseAmplitude, BaselineNoise,
    TracePersistence,
)  # fmt: skip


def example(name: str) -> configuration.Online:
    return configuration.load(EXAMPLES / f"{name}.yaml")


def items(online: configuration.Online, path: Path) -> Iterator[Any]:
    given = {**online.input.settings, "files": str(path), "grow": False}
    return iter(find(online.input.module, Input)(given).items())  # type: ignore[attr-defined]


def transformed(online: configuration.Online, path: Path) -> list[Spill]:
    """The spills of a file as the store has them."""
    maps: list[Any] = [find(entry.module, Map)(entry.settings) for entry in online.maps()]
    for module in maps:
        module.birth(RunConfiguration("x"))
    found = []
    for item in items(online, path):
        if isinstance(item, Spill):
            spill = unpacked(packed(item))
            for module in maps:
                module.process(spill)
            found.append(unpacked(packed(spill)))
    return found


def live(online: configuration.Online, path: Path, folder: Path) -> dict[str, Any]:
    """The histograms of the run's snapshot after its spills have gone through a store and all reducers."""
    stores = MemoryStores()
    spills = transformed(online, path)
    run = spills[0].run
    store = stores.of(run)
    store.save(RunRecord(run, begun="2026-01-01T00:00:00Z"))
    store.put(Outcome(spill.number, packed(spill)) for spill in reversed(spills))
    store.save(RunRecord(run, "ended", spills=len(spills), done=len(spills)))

    class Nowhere:
        def send(self, *_: Any) -> None: ...

    for entry in online.reduce:
        Reducing(
            entry, online, stores, Nowhere(), Places.of(folder), compare=lambda plot: None, gallery=Gallery(),
            now=lambda: 0.0, clock=lambda: 1e9,
        ).step()  # fmt: skip
    record = store.record()
    assert record is not None and record.state == "final"
    return snapshot.read_root(Places.of(folder).runs / run / snapshot.WHOLE)


def in_step(name: str, document: dict[str, Any], path: Path, folder: Path, what: Any = step.reduce) -> dict[str, Any]:
    work = Work(
        {"configuration": str(EXAMPLES / f"{name}.yaml")}, folder, folder / "scratch", "a" * 32,
        logging.getLogger("step"), str(path),
    )  # fmt: skip
    result: dict[str, Any] = what(document, work)
    return result


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert set(one) == set(other)
    for name in one:
        assert one[name].axes == other[name].axes, name
        assert np.array_equal(one[name].values(flow=True), other[name].values(flow=True)), name


def every_pattern_fits(online: configuration.Online, plots: dict[str, Any]) -> None:
    for canvas in online.canvases:
        for pattern in canvas.plots:
            assert any(fnmatch.fnmatchcase(name, pattern) for name in plots), f"{canvas.name}: {pattern}"


@pytest.fixture
def quick_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.online.images.draw", lambda *_, **__: b"")  # drawing is tested elsewhere


@pytest.mark.usefixtures("quick_pictures")
def test_the_mice_file_gives_the_same_histograms_live_and_in_a_step(tmp_path: Path, shared_data: Path) -> None:
    result = in_step("mice", {"_id": "06008_000", "run_name": "6008"}, shared_data / MICE, tmp_path / "data")
    assert result["spills"] == {"read": 6, "shown": 6, "hidden": 0, "failed": 0} and not result["errors"]
    offline = dict(step.plots_of(Path(result["file"])))
    same(offline, live(example("mice"), shared_data / MICE, tmp_path))
    assert offline["tdc/triggers/LDC_1"].values()[1:5].tolist() == [882] * 4
    assert offline["tdc/hits/LDC_1"].sum() == 7056
    assert offline["occupancy/channels/LDC_1_board_3"].values()[:3].tolist() == [882, 882, 0]
    assert offline["events/trigger_rate"].sum() == 882 and offline["events/triggers"].values()[147] == 6
    apart = offline["difference/within/LDC_1_board_1_channels_0_and_1"]
    assert apart.sum() == 882 and abs(float(np.average(apart.axes[0].centers, weights=apart.values())) + 1.5) < 0.1
    gaps = offline["dead/gaps/LDC_1_board_1"]
    assert gaps.sum() == 6 * 146 and gaps.values()[:99].sum() == 0  # 20 us at least
    assert offline["amplitude/all"].sum(flow=True) == 8 * 882
    every_pattern_fits(example("mice"), offline)


@pytest.mark.usefixtures("quick_pictures")
def test_samba_files_give_the_same_live_in_steps_and_merged(tmp_path: Path) -> None:
    written = simulate(tmp_path / "daq", runs=1, partitions=2, events=150, detectors=1, points=256, date_runs=0)
    paths = [one.path for one in written]
    members = []
    for number, path in enumerate(paths):
        result = in_step("samba", {"_id": f"x_{number:03d}", "run_name": "x"}, path, tmp_path / "data")
        assert result["spills"]["shown"] == 2 and not result["errors"]
        members.append({"id": f"x_{number:03d}", "file": result["file"], "checksum": result["checksum"]})
        same(dict(step.plots_of(Path(result["file"]))), live(example("samba"), path, tmp_path / f"live{number}"))
    document = {"_id": "run_x", "run_name": "x", "members": members}
    together = in_step("samba", document, paths[0], tmp_path / "data", step.merge)
    assert together["members"] == 2 and together["spills"]["read"] == 4
    both = dict(step.plots_of(Path(together["file"])))
    same(both, live(example("samba"), paths[0].parent / "*_00[01]", tmp_path / "all"))
    assert both["events/rate"].sum() == 300 and both["dead/events"].sum() == 4 * 99 - 2 * 50
    assert both["amplitude/all"].sum(flow=True) == 600
    every_pattern_fits(example("samba"), both)


def test_a_member_that_was_made_with_other_settings_is_not_merged(tmp_path: Path) -> None:
    written = simulate(tmp_path / "daq", runs=1, partitions=1, events=20, detectors=1, points=128, date_runs=0)
    result = in_step("samba", {"_id": "x_000", "run_name": "x"}, written[0].path, tmp_path / "data")
    members = [{"id": "x_000", "file": result["file"], "checksum": result["checksum"]}]
    run = {"_id": "r", "run_name": "x", "members": members}
    with pytest.raises(DataError, match="was made with other reducers or settings"):
        in_step("mice", run, written[0].path, tmp_path / "data", step.merge)
    members[0]["checksum"] = "sha256:0"
    with pytest.raises(DataError, match="not what its document says"):
        in_step("samba", run, written[0].path, tmp_path, step.merge)


def test_damaged_spills_are_counted_as_failed_and_too_many_fail_the_step(tmp_path: Path) -> None:
    written = simulate(tmp_path / "daq", runs=0, date_runs=1, date_spills=20, date_triggers=5)
    path = written[0].path
    content = bytearray(path.read_bytes())
    blocks = [event.blocks()[0].offset for event in date.open(path).events() if event.type == date.layout.PHYSICS]
    document = {"_id": "x", "run_name": "x"}
    content[blocks[3]] = 3  # the size of an equipment block
    path.write_bytes(content)
    result = in_step("mice", document, path, tmp_path / "data")
    assert result["spills"] == {"read": 20, "shown": 19, "hidden": 0, "failed": 1}
    assert "expected an equipment block" in result["errors"]["3"]
    for place in blocks[5:12]:
        content[place] = 3
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"8 of 20 spills of .* failed; spill 3: "):
        in_step("mice", document, path, tmp_path / "data")


def test_a_step_without_reducers_or_with_a_file_of_nothing_says_so(tmp_path: Path) -> None:
    work = Work({}, tmp_path, tmp_path, "a" * 32, logging.getLogger("step"), str(tmp_path / "none"))
    with pytest.raises(SettingsError, match="needs the setting `configuration`"):
        step.reduce({"_id": "x"}, work)


def made(kind: type[Reduce], spills: list[Spill]) -> Reduce:
    reducer = kind()
    reducer.birth(RunConfiguration("x"))
    for spill in spills:
        reducer.process(spill)
    return reducer


def pictures(reducer: Reduce) -> dict[str, tuple[Any, ...]]:
    return {
        plot.name: (plot.title, [axis.label for axis in plot.histogram.axes], plot.histogram.view(flow=True).tobytes())
        for plot in reducer.plots()
    }


@pytest.fixture(scope="module")
def date_spills(tmp_path_factory: pytest.TempPathFactory) -> list[Spill]:
    folder = tmp_path_factory.mktemp("date")
    written = simulate(folder / "daq", runs=0, date_runs=1, date_spills=7, date_triggers=20)
    return transformed(example("mice"), written[0].path)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(st.integers(0, 2), min_size=7, max_size=7), order=st.permutations(range(7)))
def test_parts_merged_in_any_order_are_the_whole(
    kind: type[Reduce], parts: list[int], order: list[int], date_spills: list[Spill]
) -> None:
    whole = made(kind, date_spills)
    total = made(kind, [])
    for part in range(3):
        some = made(kind, [date_spills[place] for place in order if parts[place] == part])
        total.merge(unpack(pack(some.state())))  # as it is saved and read back
    assert pictures(total) == pictures(whole)
    assert all(plot.histogram.sum(flow=True) >= 0 for plot in total.plots())


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_plot_says_what_it_shows_and_what_to_do(kind: type[Reduce], date_spills: list[Spill]) -> None:
    plots = list(made(kind, date_spills).plots())
    assert plots and set(kind.defaults) == set(kind.settings_help)  # type: ignore[attr-defined]
    for plot in plots:
        assert plot.title and plot.description.endswith(".") and plot.help.endswith(".") and plot.keywords
        assert all(axis.label for axis in plot.histogram.axes), plot.name


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_a_spill_that_lacks_what_is_needed_says_how_to_mend_it(kind: type[Reduce]) -> None:
    with pytest.raises(DataError, match="needs"):
        made(kind, [Spill("x", 0)])


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_a_new_run_is_empty(kind: type[Reduce], date_spills: list[Spill]) -> None:
    reducer = made(kind, date_spills)
    reducer.birth(RunConfiguration("y"))
    assert pictures(reducer) == pictures(made(kind, []))


@given(st.lists(st.integers(-3, 5) | st.sampled_from([0, 70_000, 2**40]), max_size=40))
def test_kinds_are_parted_as_they_stand(kinds: list[int]) -> None:
    found = {kind: members.tolist() for kind, members in by_kind(np.array(kinds, dtype=np.int64))}
    assert found == {kind: [place for place, one in enumerate(kinds) if one == kind] for kind in set(kinds)}
    assert list(found) == sorted(found)


def test_settings_that_make_no_axis_are_refused() -> None:
    for wrong in ({"bins": 0}, {"low": 5.0, "high": 5.0}, {"bins": 10**7}, {"low": "a"}):
        with pytest.raises(SettingsError, match="make no axes"):
            PulseAmplitude(wrong)
    with pytest.raises(SettingsError, match="no setting 'bin'"):
        PulseAmplitude({"bin": 3})
    with pytest.raises(SettingsError, match="`seconds`"):
        EventSizeRate({"seconds": 0.5})


def test_two_reducers_of_one_class_need_different_names() -> None:
    def online(**settings: Any) -> configuration.Online:
        module = "procs.online.reducers.events:EventSizeRate"
        reduce = [{"name": "a", "module": module}, {"name": "b", "module": module, "settings": settings}]
        return configuration.Online.model_validate({"input": {"module": "x:Y"}, "reduce": reduce})

    with pytest.raises(SettingsError, match="the reducers a and b both have plots called 'events/size'"):
        check_names(online(bins=20))
    check_names(online(bins=20, prefix="coarse"))
    with pytest.raises(SettingsError, match="`prefix` of EventSizeRate"):
        check_names(online(prefix="../x"))
    coarse = EventSizeRate({"prefix": "coarse", "bins": 20})
    assert {plot.name.split("/")[0] for plot in coarse.plots()} == {"coarse"}
    assert len(coarse.expected("coarse/events/size").axes[0]) == 20 and coarse.expected("events/size") is None


def test_a_state_of_other_bins_adds_nothing() -> None:
    one, other = PulseAmplitude({"bins": 10}), PulseAmplitude({"bins": 20})
    for reducer in (one, other):
        reducer.fill("amplitude/channel", "x", [1.0])
    with pytest.raises(DataError, match="other bins"):
        one.merge(other.state())
    assert [plot.histogram.sum(flow=True) for plot in one.plots()] == [1, 1]


@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 50)), max_size=30),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 50)), max_size=30),
)
def test_trends_add_up(one: list[tuple[int, int]], two: list[tuple[int, int]]) -> None:
    def of(entries: list[tuple[int, int]]) -> Trend:
        trend = Trend(10)
        trend.add(np.array([seconds for seconds, _ in entries], float), np.array([n for _, n in entries], np.int64))
        return trend

    both, parts = of(one + two), of(two)
    parts.merge(of(one).state())
    assert both.histogram() == parts.histogram() and both.histogram().sum() == sum(n for _, n in one + two)
    assert len(both.histogram().axes[0]) <= 500


def test_spills_by_reference_and_by_their_bytes_decode_alike(shared_data: Path) -> None:
    there = list(items(example("mice"), shared_data / MICE))
    assert isinstance(there[-1], EndOfRun)
    raws = [spill for spill in there if isinstance(spill, Spill)]
    for raw in raws[:2]:
        place = raw.data["raw"]
        with Path(place["file"]).open("rb") as file:
            file.seek(place["offset"])
            other = Spill(raw.run, raw.number, data={"raw": {"bytes": file.read(place["size"])}})
        Decode().process(raw)
        Decode().process(other)
        assert "raw" not in raw.data and len(raw.data["date"]["hit_time"]) == 1176
        for name, column in raw.data["date"].items():
            if name not in ("offset", "table_offset"):
                assert np.array_equal(column, other.data["date"][name]), name


@pytest.mark.parametrize(
    "raw", [None, {}, {"bytes": b"short"}, {"file": "/nowhere", "offset": 0, "size": 4}, {"file": "x", "offset": "a"}]
)
def test_raw_data_that_cannot_be_read_are_told(raw: Any) -> None:
    with pytest.raises(Exception, match=r"raw data|no event|cannot be read"):
        Decode().process(Spill("x", 0, data={} if raw is None else {"raw": raw}))


def test_waveforms_need_decoded_spills() -> None:
    with pytest.raises(DataError, match="Decode in front"):
        Waveforms().process(Spill("x", 0))


def test_a_file_of_the_step_is_root_for_others(tmp_path: Path) -> None:
    written = simulate(tmp_path / "daq", runs=0, date_runs=1, date_spills=2, date_triggers=5)
    result = in_step("mice", {"_id": "x", "run_name": "x"}, written[0].path, tmp_path / "data")
    with uproot.open(result["file"]) as file:
        assert file["tdc/hits/LDC_1"].classname == "TH1D" and file["occupancy/map/LDC_1"].classname == "TH2D"
        assert file["tdc/hits/LDC_1"].member("fXaxis").member("fTitle") == "board"
        assert file["tdc/hits/LDC_1"].title == "TDC hits, LDC 1"
        assert "LDC 1 ADC " in next(iter(file["amplitude/all"].to_hist().axes[0]))


def test_the_guides_example_is_a_reducer(date_spills: list[Spill]) -> None:
    guide = Path(__file__).parents[3] / "docs" / "online-histograms.md"
    (code,) = [part for part in guide.read_text("utf-8").split("```python\n")[1:] if "class Multiplicity" in part]
    found: dict[str, Any] = {}
    exec(compile(code.partition("```")[0], str(guide), "exec"), found)
    plots = pictures(made(found["Multiplicity"], date_spills))
    assert list(plots) == ["multiplicity/hits", *(f"multiplicity/board/board_{board}" for board in (1, 2, 3, 4))]
