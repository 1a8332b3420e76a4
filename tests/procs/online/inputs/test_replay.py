"""Recorded data once more: pace, names, and what is sent on."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import DataError, SettingsError
from orchestrator.online.module import Input, find
from orchestrator.online.spill import EndOfRun, Item, Spill, StartOfRun
from procs.online.inputs import replay
from procs.online.inputs.date import DateInput
from procs.online.inputs.replay import Renaming, ReplayInput, paced
from procs.simulate import simulate
from procs.simulation.replaying import to_file

SHARED = Path(os.environ.get("ORCHESTRATOR_SHARED_DATA", Path(__file__).parents[5] / "shared" / "data"))
real = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the folder of real files: set ORCHESTRATOR_SHARED_DATA")
MICE = SHARED / "mice_06008.000"
INPUTS = ("date:DateInput", "socket:SocketInput", "samba:SambaInput", "root:RootInput", "converted:ConvertedInput",
          "spill_json:SpillJsonInput", "replay:ReplayInput")  # fmt: skip


class Clock:
    """Time that passes when somebody waits."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


def times(items: list[Item], speed: float) -> list[float]:
    """When each item came, from the first."""
    clock = Clock()
    found = [clock.now for item in paced(iter(items), speed, clock=clock, wait=clock.wait) if item is not None]
    return [round(one - found[0], 6) for one in found]


def spills(*at: float | None) -> list[Item]:
    return [Spill("1", number, time) for number, time in enumerate(at)]


def test_items_come_at_the_pace_of_their_time_stamps() -> None:
    assert times(spills(1000, 1002.5, 1002.5, 1010), 1) == [0, 2.5, 2.5, 10]
    assert times(spills(1000, 1002.5, 1010), 10) == [0, 0.25, 1]
    assert times(spills(1000, 1002.5, 1010), 0) == [0, 0, 0]
    assert times(spills(1000, None, 1001), 1) == [0, 0, 1]
    assert times(spills(1000, 990, 1001), 1) == [0, 0, 1]  # a clock that went back
    assert times(spills(1000, 9000), 1) == [0, replay.LONGEST_PAUSE]  # a night between two runs


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats(0, 100)), max_size=8), st.floats(0.1, 100))
def test_whatever_the_time_stamps_all_items_come_in_order(at: list[float | None], speed: float) -> None:
    clock = Clock()
    found = [item for item in paced(iter(spills(*at)), speed, clock=clock, wait=clock.wait) if item is not None]
    assert [one.number for one in found if isinstance(one, Spill)] == list(range(len(at)))


def test_while_nothing_is_due_others_may_be_looked_after() -> None:
    clock = Clock()
    nones = [item for item in paced(iter(spills(0, 1)), 1, clock=clock, wait=clock.wait) if item is None]
    assert 5 <= len(nones) <= 11


def test_a_run_gets_another_name_and_two_cannot_get_the_same() -> None:
    assert Renaming("x")(Spill("1", 0)).run == "x"
    many = Renaming("", lambda run: f"{run}.replay1")
    assert [many(StartOfRun(run)).run for run in "121"] == ["1.replay1", "2.replay1", "1.replay1"]
    one = Renaming("x")
    one(StartOfRun("1"))
    with pytest.raises(SettingsError, match="run 1 and run 2"):
        one(StartOfRun("2"))


@real
def test_the_real_file_is_replayed_with_the_same_spills_and_from_each_position() -> None:
    source = ReplayInput({"files": str(MICE), "speed": 0})
    items = [(item, source.position) for item in source.items() if item is not None]
    plain = [item for item in DateInput({"files": str(MICE)}).items() if item is not None]
    assert [type(item) for item, _ in items] == [type(item) for item in plain]
    assert {item.run for item, _ in items} == {"6008.replay1"}
    assert [item.data for item, _ in items if isinstance(item, Spill)] == [
        item.data for item in plain if isinstance(item, Spill)
    ]
    for place, (_, position) in enumerate(items):
        again = ReplayInput({"files": str(MICE), "speed": 0})
        assert sum(item is not None for item in again.items(position)) == len(items) - place - 1


@real
def test_files_are_known_by_their_form(tmp_path: Path) -> None:
    daq = simulate(tmp_path / "daq", runs=1, partitions=1, events=2, points=32, date_spills=1, date_triggers=2)
    known = {
        daq[0].path: "SambaInput", daq[1].path: "DateInput", MICE: "DateInput", SHARED / "uproot-HZZ.root": "RootInput",
        SHARED / "mice_scifi_spills.json": "SpillJsonInput", SHARED / "mice_03407_tof_spill.json": "SpillJsonInput",
    }  # fmt: skip
    for path, kind in known.items():
        assert replay.reader_of(path).endswith(f":{kind}")
        assert any(isinstance(item, Spill) for item in ReplayInput({"files": str(path), "speed": 0}).items())
    (tmp_path / "text").write_text("nothing")
    for path in (tmp_path / "text", tmp_path / "none"):
        with pytest.raises(DataError):
            replay.reader_of(path)


def test_files_of_a_run_are_found_by_name_or_by_the_number_in_them(tmp_path: Path) -> None:
    simulate(tmp_path / "daq", runs=0, date_runs=3, date_spills=1, date_triggers=2)
    pattern = str(tmp_path / "daq" / "*" / "*")
    for word in ("sim_00002", "2"):
        assert [Path(one).name for one in replay.files_of_run(word, pattern)] == ["sim_00002.000"]
    assert replay.files_of_run("4", pattern) == [] and replay.files_of_run("2", "") == []


@real
def test_a_file_is_written_once_more_byte_by_byte_and_its_name_says_the_run(tmp_path: Path) -> None:
    source = DateInput({"files": str(MICE)})
    new = tmp_path / "mice_06009.as-6008.replay1.000"
    assert to_file(source.items(), source, lambda run: new) == {"6008": 6}
    assert new.read_bytes() == MICE.read_bytes()
    assert {item.run for item in DateInput({"files": str(new)}).items() if item} == {"6008.replay1"}
    with pytest.raises(SettingsError, match="is there already"):
        to_file(source.items(), source, lambda run: new)


def test_two_runs_of_one_file_become_two_files(tmp_path: Path) -> None:
    written = simulate(tmp_path / "daq", runs=0, date_runs=2, date_spills=2, date_triggers=2)
    both = tmp_path / "both.000"
    both.write_bytes(b"".join(one.path.read_bytes() for one in written))
    source = DateInput({"files": str(both)})
    assert to_file(source.items(), source, lambda run: tmp_path / f"n.as-{run}x.000") == {"1": 2, "2": 2}
    items = [item for item in DateInput({"files": str(tmp_path / "n.as-*")}).items() if item is not None]
    assert [(type(item), item.run) for item in items] == [
        (kind, run) for run in ("1x", "2x") for kind in (StartOfRun, Spill, Spill, EndOfRun)
    ]  # fmt: skip


@pytest.mark.parametrize("name", INPUTS)
def test_every_setting_of_every_input_is_explained(name: str) -> None:
    kind: Any = find(f"procs.online.inputs.{name}", Input)
    assert set(kind.defaults) == set(kind.settings_help)


def test_the_input_in_the_guide_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guide = (Path(__file__).parents[4] / "docs" / "online-inputs.md").read_text()
    example = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)[-1]
    (tmp_path / "guide_input.py").write_text(example)
    (tmp_path / "numbers").write_text("1.5\n2.5\n3.5\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    kind = find("guide_input:Lines", Input)

    def read(position: Any) -> Iterator[tuple[int, float, Any]]:
        source = kind({"file": str(tmp_path / "numbers")})
        assert isinstance(source, Input)
        for item in source.items(position):
            if isinstance(item, Spill):
                yield item.number, item.data["value"], json.loads(json.dumps(source.position))

    whole = list(read(None))
    assert [one[:2] for one in whole] == [(0, 1.5), (1, 2.5), (2, 3.5)]
    assert list(read(whole[0][2])) == whole[1:]
