"""The simulated DAQ: what it says it has put in is what a reader finds."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from orchestrator.errors import FormatError, SettingsError
from procs.formats import date, read_header, samba
from procs.formats.samba_batch import concatenate
from procs.simulate import SETTINGS_HELP, SimulationSettings, Written, simulate

SMALL = {"runs": 2, "partitions": 2, "events": 12, "points": 256, "date_spills": 2, "date_triggers": 5}


def test_the_files_and_what_is_in_them(tmp_path: Path) -> None:
    written = simulate(tmp_path / "daq", **SMALL)
    expected = [f"{run}_{number:03d}" for run in ("ma22a000", "ma23a000") for number in (0, 1)] + ["sim_00001.000"]
    assert [one.path.name for one in written] == expected
    found = sorted(path.name for path in (tmp_path / "daq").rglob("*") if path.is_file())
    assert found == sorted(expected)  # nothing but raw files where they are watched for
    for one in written[:-1]:
        assert one.truth_path is not None
        truth = json.loads(one.truth_path.read_text())
        header = read_header(one.path)
        assert (header["run_name"], header["file_number"]) == (one.run_name, one.file_number)
        assert header["notes"] == [] and header["run_type"] == "Calibration Gamma"
        file = samba.open(one.path)
        batch = concatenate(list(file.batches()))
        assert len(batch) == one.events == truth["events"] == 12 and batch.counts.tolist() == [4] * 12
        assert (file.end_of_run is not None) == (one.file_number == 1)
        assert np.repeat(batch.number, 4).tolist() == truth["pulses"]["event"]
        assert [file.channels[index].name for index in batch.channel] == truth["pulses"]["channel"]
        amplitude = np.array(truth["pulses"]["amplitude_adu"])
        large = np.abs(amplitude) > 300
        assert large.any() and np.allclose(batch.amplitude[large], amplitude[large], rtol=0.1)
        assert np.all(np.abs(batch.amplitude[amplitude == 0]) < 80)
        assert np.all(np.diff(batch.stamp) >= 0) and batch.temperature.max() < 0.02


def test_the_date_file(tmp_path: Path) -> None:
    one = simulate(tmp_path / "daq", **SMALL)[-1]
    assert one.truth_path is not None
    truth = json.loads(one.truth_path.read_text())
    file = date.open(one.path)
    batches = list(file.spills())
    assert file.counts == {1: 2, 5: 2, 7: 2, 6: 2, 2: 2} and sum(file.counts.values()) == one.events
    assert sum(batch.hits.sum() for batch in batches) == truth["hits"] == 80
    assert sum(batch.triggers.sum() for batch in batches) == truth["triggers"] == 10
    assert sum(batch.waveforms.sum() for batch in batches) == truth["waveforms"] and not file.undecoded
    batch = batches[0]
    for board, values in truth["time_difference_counts"].items():
        mine = batch.hit_board == int(board)
        difference = batch.hit_time[mine & (batch.hit_channel == 1)] - batch.hit_time[mine & (batch.hit_channel == 0)]
        assert difference.tolist() == values
        assert abs(np.mean(values) - truth["expected_difference_counts"][board]) < 3


def digest(written: list[Written]) -> str:
    return hashlib.sha256(b"".join(one.path.read_bytes() for one in written)).hexdigest()


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    first = simulate(tmp_path / "a", **SMALL)
    again = simulate(tmp_path / "b", SimulationSettings(**SMALL))
    other = simulate(tmp_path / "c", **SMALL, seed=2)
    assert digest(first) == digest(again) != digest(other)


def test_files_grow_and_are_marked_when_they_are_closed(tmp_path: Path) -> None:
    sizes: list[tuple[str, int, bool]] = []

    def wait(seconds: float) -> bool:
        assert seconds == 0.5
        for path in (tmp_path / "daq").rglob("ma22a000_000"):
            sizes.append((path.name, path.stat().st_size, path.with_name(path.name + ".done").exists()))
        return False

    closed: list[str] = []
    options = {**SMALL, "runs": 1, "partitions": 1, "date_runs": 0, "flush_events": 4, "pace": 0.5, "done_marker": True}
    simulate(tmp_path / "daq", wait=wait, on_written=lambda one: closed.append(one.path.name), **options)
    assert len(sizes) == 3 and sizes[0][1] < sizes[1][1] < sizes[2][1] and not any(marked for _, _, marked in sizes)
    assert closed == ["ma22a000_000"] and (tmp_path / "daq/ma22a000/ma22a000_000.done").exists()


def test_the_daq_stops_when_it_is_told(tmp_path: Path) -> None:
    written = simulate(tmp_path / "daq", wait=lambda seconds: True, **{**SMALL, "pace": 1.0})
    assert [one.path.name for one in written] == ["ma22a000_000"]
    assert len(concatenate(list(samba.open(written[0].path).batches()))) == 12


def test_broken_files(tmp_path: Path) -> None:
    written = simulate(tmp_path / "daq", **{**SMALL, "runs": 0, "date_runs": 0, "broken": 1})
    assert written[0].truth_path is None and written[0].path.name == "ma22b000_000"
    with pytest.raises(FormatError, match="ends inside its headers"):
        read_header(written[0].path)


def test_options_change_what_is_written(tmp_path: Path) -> None:
    options = {
        **SMALL,
        "runs": 1,
        "partitions": 1,
        "date_runs": 0,
        "byte_order": "big",
        "heat_polarity": -1,
        "pile_up": 0.5,
    }
    one = simulate(tmp_path / "daq", truth=tmp_path / "truth", **options)[0]
    assert one.truth_path is not None and one.truth_path.parent == tmp_path / "truth"
    truth = json.loads(one.truth_path.read_text())
    file = samba.open(one.path)
    heat = np.array([channel.kind == "heat" for channel in file.channels] * 12)
    assert file.header.order == ">" and np.all(np.array(truth["pulses"]["amplitude_adu"])[heat] <= 0)
    assert any(truth["pulses"]["pile_up"])


@pytest.mark.parametrize(
    "change",
    [
        {"points": 3},
        {"byte_order": "middle"},
        {"first_day": "2026-01-01"},
        {"first_day": "x"},
        {"rate_hz": 0},
        {"runs": -1},
    ],
)
def test_settings_that_cannot_be_used(tmp_path: Path, change: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=next(iter(change))):
        simulate(tmp_path / "daq", **change)
    assert not (tmp_path / "daq").exists()


def test_every_setting_has_a_help_text() -> None:
    assert all(SETTINGS_HELP.values()) and len(SETTINGS_HELP) > 20
