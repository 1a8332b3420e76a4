"""DATE files as an input: complete, growing, rotated, resumed, damaged."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.errors import FormatError, SettingsError, TransientError
from orchestrator.online.spill import EndOfRun, Item, Spill, StartOfRun
from procs.formats import date_layout as layout
from procs.formats.date_writer import EventId, equipment, super_event
from procs.online.inputs.date import DateInput
from procs.online.inputs.date_events import EventFile, head


def event(kind: int, run: int = 7, spill: int = 0, words: int = 3, seconds: int = 100) -> bytes:
    blocks = [equipment(layout.V1290, 1, range(words))] if kind in layout.WITH_EQUIPMENT else []
    return super_event(EventId(kind, run, spill, 1, seconds), [(1, blocks)])


def burst(run: int, spill: int, words: int = 3) -> list[bytes]:
    return [event(kind, run, spill, words) for kind in (layout.START_OF_BURST, layout.PHYSICS, layout.END_OF_BURST)]


def whole_run(run: int, spills: int, trailer: bool = True) -> list[bytes]:
    found = [event(layout.START_OF_RUN, run)] * 2
    for spill in range(spills):
        found += burst(run, spill)
    return found + ([event(layout.END_OF_RUN, run)] * 2 if trailer else [])


def content(item: Item) -> tuple[Any, ...]:
    """An item without what depends on the clock; a spill with its bytes."""
    if isinstance(item, Spill):
        raw = item.data["raw"]
        if "bytes" in raw:
            return "spill", item.run, item.number, raw["bytes"], bool(item.errors)
        with Path(raw["file"]).open("rb") as file:
            file.seek(raw["offset"])
            return "spill", item.run, item.number, file.read(raw["size"]), bool(item.errors)
    if isinstance(item, StartOfRun):
        return "start", item.run
    return "end", item.run, item.how


class Daq:
    """Time for an input that waits: each wait is a chance to write some more, and lasts as long as it says."""

    def __init__(self, steps: Iterator[Callable[[], Any]] | None = None) -> None:
        self.now = 1000.0
        self.steps = steps or iter(())
        self.idle = 0

    def clock(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds
        step = next(self.steps, None)
        if step is None:
            self.idle += 1
        else:
            step()

    def read(self, position: Any = None, patience: int = 40, **settings_: Any) -> list[Item]:
        """All that comes, until nothing was written for so many waits."""
        found: list[Item] = []
        given_ = DateInput({"grow": True, **settings_}, clock=self.clock, wait=self.wait)
        for item in given_.items(position):
            if item is not None:
                found.append(item)
            elif self.idle > patience:
                return found
        return found


def complete(path: Path | str, **settings_: Any) -> list[Item]:
    return [item for item in DateInput({"files": str(path), **settings_}).items() if item is not None]


def test_the_real_file_has_its_run_and_six_spills(shared_data: Path) -> None:
    items = complete(shared_data / "mice_06008.000")
    assert [type(item) for item in items] == [StartOfRun, *[Spill] * 6, EndOfRun]
    spills = [item for item in items if isinstance(item, Spill)]
    assert [spill.number for spill in spills] == list(range(6))
    assert {spill.run for spill in spills} == {"6008"} and not any(spill.errors for spill in spills)
    assert {spill.data["raw"]["size"] for spill in spills} == {640 + 398_128 + 640}
    assert spills[0].time == pytest.approx(1423848148.573028) and spills[0].taken is not None
    end = items[-1]
    assert isinstance(end, EndOfRun) and (end.how, end.trailer) == ("trailer", {})


def test_files_follow_each_other_by_the_numbers_in_their_names(tmp_path: Path) -> None:
    for run in (9, 10, 101):
        (tmp_path / f"run_{run}.000").write_bytes(b"".join(whole_run(run, 1)))
        (tmp_path / f"run_{run}.000.done").write_bytes(b"")
    items = complete(tmp_path / "*")
    assert [item.run for item in items if isinstance(item, StartOfRun)] == ["9", "10", "101"]


def test_a_run_without_trailer_ends_with_the_next_run_or_with_the_input(tmp_path: Path) -> None:
    (tmp_path / "a.000").write_bytes(b"".join(whole_run(1, 2, trailer=False) + whole_run(2, 1, trailer=False)))
    ends = [(item.run, item.how) for item in complete(tmp_path / "a.000") if isinstance(item, EndOfRun)]
    assert ends == [("1", "next run"), ("2", "end of input")]


def test_a_run_without_a_start_begins_with_its_first_event(tmp_path: Path) -> None:
    (tmp_path / "a.000").write_bytes(b"".join(burst(5, 3)))
    assert [content(item)[:3] for item in complete(tmp_path / "a.000")] == [
        ("start", "5"), ("spill", "5", 3), ("end", "5", "end of input"),
    ]  # fmt: skip


def test_a_spill_number_that_comes_again_hides_no_spill(tmp_path: Path) -> None:
    parts = [*burst(1, 0), *burst(1, 5), *burst(1, 5), *burst(1, 2), *burst(1, 8)]
    (tmp_path / "a.000").write_bytes(b"".join(parts))
    items = complete(tmp_path / "a.000")
    assert [item.number for item in items if isinstance(item, Spill)] == [0, 5, 6, 7, 8]
    end = items[-1]
    assert isinstance(end, EndOfRun) and "spill 5 comes again" in end.trailer["problems"][0]


def test_a_spill_that_lies_in_two_files_is_one(tmp_path: Path) -> None:
    first, second = burst(1, 0), burst(1, 1)
    (tmp_path / "r.000").write_bytes(b"".join([*first, second[0]]))
    (tmp_path / "r.001").write_bytes(b"".join([*second[1:], *burst(1, 2)]))
    spills = [content(item) for item in complete(tmp_path / "r.*") if isinstance(item, Spill)]
    assert spills == [("spill", "1", n, b"".join(burst(1, n)), False) for n in range(3)]


def test_events_after_the_end_of_burst_belong_to_the_spill_where_that_is_said(tmp_path: Path) -> None:
    parts = [*burst(1, 0), event(layout.CALIBRATION, 1, 0), *burst(1, 1)]
    (tmp_path / "a.000").write_bytes(b"".join(parts))
    spills = [content(item)[3] for item in complete(tmp_path / "a.000", whole="next spill") if isinstance(item, Spill)]
    assert spills == [b"".join(parts[:4]), b"".join(parts[4:])]


RUN = whole_run(7, 3)
BYTES = b"".join(RUN)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, len(BYTES)), max_size=8))
def test_a_file_that_grows_by_any_bytes_gives_the_same_spills_once(tmp_path: Path, cuts: list[int]) -> None:
    whole = tmp_path / "whole.000"
    whole.write_bytes(BYTES)
    growing = tmp_path / "growing.000"
    growing.write_bytes(b"")
    edges = [0, *sorted(cuts), len(BYTES)]

    def grow(start: int, stop: int) -> Callable[[], None]:
        def step() -> None:
            with growing.open("ab") as file:
                file.write(BYTES[start:stop])

        return step

    steps = iter([grow(start, stop) for start, stop in itertools.pairwise(edges)])
    found = Daq(steps).read(files=str(growing), patience=3)
    assert [content(item) for item in found] == [content(item) for item in complete(whole)]


def test_a_file_that_grows_byte_by_byte_never_gives_half_a_spill(tmp_path: Path) -> None:
    growing = tmp_path / "growing.000"
    growing.write_bytes(b"")
    steps: list[Callable[[], Any]] = []
    file = growing.open("ab", buffering=0)
    for place in range(len(BYTES)):
        steps.append(lambda place=place: file.write(BYTES[place : place + 1]))
    with file:
        found = Daq(iter(steps)).read(files=str(growing), patience=3, poll=0.01)
    assert [content(item)[3] for item in found if isinstance(item, Spill)] == [b"".join(burst(7, n)) for n in range(3)]


@pytest.mark.skipif(not os.environ.get("ORCHESTRATOR_LONG"), reason="some minutes: ORCHESTRATOR_LONG=1")
def test_the_real_file_growing_byte_by_byte_gives_its_six_spills(shared_data: Path, tmp_path: Path) -> None:
    data = (shared_data / "mice_06008.000").read_bytes()
    growing = tmp_path / "mice_06008.000"
    growing.write_bytes(b"")
    with growing.open("ab", buffering=0) as file:
        steps = ((lambda place=place: file.write(data[place : place + 1])) for place in range(len(data)))
        found = Daq(steps).read(files=str(growing), patience=3, poll=0.00001)
    assert [content(item)[:3] for item in found] == [content(item)[:3] for item in complete(growing)]
    assert sum(isinstance(item, Spill) for item in found) == 6


TWO = {"r_7.000": whole_run(7, 2, trailer=False)[:-2], "r_7.001": [*burst(7, 1)[1:], *burst(7, 2)],
       "r_8.000": whole_run(8, 2), "r_9.000": whole_run(9, 1, trailer=False)}  # fmt: skip


@pytest.mark.parametrize("grow", [False, True])
def test_from_each_position_come_all_that_was_not_yielded_before_it(tmp_path: Path, grow: bool) -> None:
    for name, parts in TWO.items():
        (tmp_path / name).write_bytes(b"".join(parts))

    def read(position: Any) -> Iterator[tuple[Item, Any]]:
        daq = Daq()
        source = DateInput(
            {"files": str(tmp_path / "r_*"), "grow": grow, "begin": "all"}, clock=daq.clock, wait=daq.wait
        )
        for item in source.items(position):
            if item is not None:
                yield item, json.loads(json.dumps(source.position))  # as it comes out of the database
            elif daq.idle > 60:
                return

    whole = list(read(None))
    assert [item.number for item, _ in whole if isinstance(item, Spill)] == [0, 1, 2, 0, 1, 0]
    for place, (_, position) in enumerate(whole):
        rest = [content(item) for item, _ in read(position)]
        assert rest == [content(item) for item, _ in whole[place + 1 :]], (place, position)


def test_the_next_file_is_taken_up_when_the_daq_has_begun_it(tmp_path: Path) -> None:
    first, second = tmp_path / "r_7.000", tmp_path / "r_8.000"
    first.write_bytes(b"".join(whole_run(7, 1, trailer=False)))
    late = b"".join([*burst(7, 1), event(layout.END_OF_RUN, 7)])

    def more() -> None:
        with first.open("ab") as file:
            file.write(late)

    idle = [lambda: None] * 15  # the last of 7 comes a second and a half after 8 began
    steps = iter([lambda: second.write_bytes(b"".join(whole_run(8, 1))), *idle, more])
    found = [content(item) for item in Daq(steps).read(files=str(tmp_path / "r_*"))]
    assert found == [
        ("start", "7"), ("spill", "7", 0, b"".join(burst(7, 0)), False),
        ("spill", "7", 1, b"".join(burst(7, 1)), False), ("end", "7", "trailer"),
        ("start", "8"), ("spill", "8", 0, b"".join(burst(8, 0)), False), ("end", "8", "trailer"),
    ]  # fmt: skip


def test_with_older_runs_there_reading_begins_with_the_newest_run(tmp_path: Path) -> None:
    for name, parts in TWO.items():
        (tmp_path / name).write_bytes(b"".join(parts))
    runs = {item.run for item in Daq().read(files=str(tmp_path / "r_*"))}
    assert runs == {"9"}
    runs = {item.run for item in Daq().read(files=str(tmp_path / "r_[78]*"), begin="newest")}
    assert runs == {"8"}


def test_a_spill_whose_end_never_comes_is_handed_on_after_a_while(tmp_path: Path) -> None:
    (tmp_path / "a.000").write_bytes(b"".join(burst(1, 0)[:2]))
    found = Daq().read(files=str(tmp_path / "a.000"), quiet=1.0, patience=20)
    assert [content(item)[:3] for item in found] == [("start", "1"), ("spill", "1", 0)]
    assert Daq().read(files=str(tmp_path / "a.000"), quiet=10.0, patience=20)[1:] == []


def test_a_file_that_was_made_larger_beforehand_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "a.000"
    path.write_bytes(b"".join(burst(1, 0)) + bytes(10_000))

    def write() -> None:
        with path.open("r+b") as file:
            file.seek(len(b"".join(burst(1, 0))))
            file.write(b"".join(burst(1, 1)))

    found = Daq(iter([lambda: None, write])).read(files=str(path), patience=3)
    assert [item.number for item in found if isinstance(item, Spill)] == [0, 1]


def test_a_file_that_is_replaced_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "a.000"
    path.write_bytes(b"".join(whole_run(1, 3, trailer=False)))

    def replace() -> None:
        new = tmp_path / "new.part"
        new.write_bytes(b"".join(whole_run(2, 1)))
        new.replace(path)

    found = [content(item)[:3] for item in Daq(iter([replace])).read(files=str(path), patience=5)]
    assert found[-3:] == [("start", "2"), ("spill", "2", 0), ("end", "2", "trailer")]


def test_a_position_of_another_file_of_the_same_name_counts_for_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.000"
    path.write_bytes(b"".join(whole_run(1, 3)))
    source = DateInput({"files": str(path)})
    list(source.items())
    position = source.position
    path.write_bytes(b"".join(whole_run(2, 3)))
    items = [item for item in DateInput({"files": str(path)}).items(position) if item is not None]
    assert content(items[0]) == ("start", "2") and len(items) == 5


@pytest.mark.parametrize("left", [1, 40, 100, 300])
def test_a_truncated_file_is_told_and_the_next_one_is_read(tmp_path: Path, left: int) -> None:
    (tmp_path / "r_1.000").write_bytes((b"".join(whole_run(1, 2, trailer=False)))[:-left])
    (tmp_path / "r_2.000").write_bytes(b"".join(whole_run(2, 1)))
    items = complete(tmp_path / "r_*")
    end = next(item for item in items if isinstance(item, EndOfRun))
    assert end.run == "1" and "nothing that can be read follows" in end.trailer["problems"][0]
    assert [item.number for item in items if isinstance(item, Spill) and item.run == "2"] == [0]
    assert all(bool(item.errors) == (item.run == "1" and item.number == 1)
               for item in items if isinstance(item, Spill))  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, len(BYTES) - 1), damage=st.binary(min_size=1, max_size=200))
def test_damaged_bytes_cost_no_spill_that_they_are_not_in(tmp_path: Path, place: int, damage: bytes) -> None:
    damage = damage[: len(BYTES) - place]
    bad = BYTES[:place] + damage + BYTES[place + len(damage) :]
    path = tmp_path / "a.000"
    path.write_bytes(bad)
    found = {content(item)[3] for item in complete(path) if isinstance(item, Spill)}
    start = len(b"".join(RUN[:2]))
    for number in range(3):
        good = b"".join(burst(7, number))
        stop = start + len(good)
        touched = place < stop and place + len(damage) > start and bad[start:stop] != good
        neighbour = place + len(damage) > start - len(good) and place < stop + len(good)
        if not touched and not neighbour:
            assert good in found, f"spill {number} is whole in the file and was not found"
        start = stop


@settings(max_examples=200, deadline=None)
@given(data=st.binary(min_size=80, max_size=80))
def test_a_header_is_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(FormatError):
        head(data, 0, 0, "x")


def test_a_disk_that_fails_is_a_passing_fault_and_reading_goes_on_from_the_position(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.000"
    path.write_bytes(b"".join(whole_run(1, 300)))  # more than is read at once
    source, found = DateInput({"files": str(path)}), []
    original = os.pread

    def failing(descriptor: int, size: int, place: int) -> bytes:
        if place > 50_000:
            raise OSError(errno.EIO, "Input/output error")
        return original(descriptor, size, place)

    monkeypatch.setattr(os, "pread", failing)
    with pytest.raises(TransientError, match="Input/output error"):
        for item in source.items():
            found.append(item)
    monkeypatch.setattr(os, "pread", original)
    found += list(DateInput({"files": str(path)}).items(source.position))
    assert [item.number for item in found if isinstance(item, Spill)] == list(range(300))


def test_only_headers_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.000"
    path.write_bytes(b"".join(event(layout.PHYSICS, 1, spill, words=500_000) for spill in range(5)))
    file = EventFile(str(path))
    read = 0
    offset = 0
    original = os.pread

    def counted(descriptor: int, size: int, place: int) -> bytes:
        nonlocal read
        data = original(descriptor, size, place)
        read += len(data)
        return data

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pread", counted)
        while (found := file.event(offset)) is not None:
            offset = found.stop
    file.close()
    assert offset == path.stat().st_size and read < offset / 10


def test_what_cannot_be_read_at_all_is_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="needs `files`"):
        DateInput({})
    with pytest.raises(SettingsError, match="there is no file"):
        DateInput({"files": str(tmp_path / "none.*")}).check()
    with pytest.raises(SettingsError, match="there is no folder"):
        DateInput({"files": str(tmp_path / "none" / "*" / "*.000"), "grow": True}).check()
    (tmp_path / "a.000").write_bytes(BYTES)
    assert "no files yet" in DateInput({"files": str(tmp_path / "none.*"), "grow": True}).check()
    assert DateInput({"files": str(tmp_path / "*.000")}).check() == str(tmp_path / "a.000")
    with pytest.raises(SettingsError, match="there is no file"):
        list(DateInput({"files": str(tmp_path / "none.*")}).items())
    with pytest.raises(SettingsError, match="whole is one of"):
        DateInput({"files": "a", "whole": "never"})
