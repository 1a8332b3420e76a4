"""Samba files through convert, amplitude and histograms: what was put in comes out, and bad files end in a sentence."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot

from orchestrator.errors import DataError, SettingsError
from orchestrator.step import Work
from procs.amplitude import DAQ, Amplitude
from procs.convert import convert, detect
from procs.formats import samba
from procs.formats.samba_batch import concatenate
from procs.histograms import histograms
from procs.simulate import Written, simulate

Make = Callable[..., Work]
#: The branches that the step amplitude reads.
PULSE_KINDS = {
    "event": "int64", "channel": "int32", "stamp": "int64", "pretrigger": "int32", "ns_per_point": "float64",
    **dict.fromkeys(DAQ, "float64"),
    "trace": "var * int16",
}
CALIBRATION = {"ionis*": 0.05, "chal*": 1 / 15}


@pytest.fixture(scope="module")
def daq(tmp_path_factory: pytest.TempPathFactory) -> list[Written]:
    """Two partitions of one run, 120 events of two detectors each."""
    folder = tmp_path_factory.mktemp("daq")
    return simulate(folder / "disk", runs=1, partitions=2, events=120, points=512, broken=1, date_runs=0, seed=11)


def document(written: Written, **more: Any) -> dict[str, Any]:
    return {
        "_id": written.path.name,
        "run_name": written.run_name,
        "file_number": written.file_number,
        "file": str(written.path),
        "format": "samba",
        **more,
    }


def amplitude(settings: dict[str, Any] | None = None) -> Amplitude:
    return Amplitude(settings or {}, logging.getLogger("step"))


def all_steps(written: Written, work: Make, plots: bool = True) -> list[dict[str, Any]]:
    record = document(written)
    converted = convert(record, work(written.path))
    analysed = amplitude().process(record, work(converted["file"]))
    drawn = histograms(record, work(analysed["file"], calibration=CALIBRATION, plots=plots))
    results = [converted, analysed, drawn]
    json.dumps(results, allow_nan=False)
    return results


def test_every_value_of_the_raw_file_is_in_the_converted_one(daq: list[Written], work: Make) -> None:
    result = convert(document(daq[1]), work(daq[1].path, chunk_bytes=100_000))
    raw = samba.open(daq[1].path)
    batch = concatenate(list(raw.batches(50)))
    with uproot.open(result["file"]) as file:
        events, pulses = file["events"].arrays(library="np"), file["pulses"].arrays(library="np")
        channels, header = file["channels"].arrays(library="np"), json.loads(str(file["header"]))
        note = json.loads(str(file["provenance"]))
    assert result["counts"]["events"] == len(batch) == 120
    assert result["entries"] == {"events": 120, "pulses": 480, "channels": 4}
    assert sum(result["counts"]["per_channel"].values()) == 480
    for name in ("number", "seconds", "microseconds", "stamp", "trigger_bits", "touched_channel"):
        assert np.array_equal(events[name], getattr(batch, name)), name
    assert np.allclose(events["temperature"], batch.temperature)
    assert set(events["run"]) == {daq[1].run_name}
    assert set(events["condition"]) == {raw.run["Condition"]}
    assert np.array_equal(np.repeat(np.arange(120), events["pulses"]), pulses["event"])
    assert np.array_equal(events["first_pulse"], np.arange(120) * 4)
    for name in ("channel", "pretrigger", "base", "noise", "amplitude", "rise", "ns_per_point"):
        assert np.array_equal(pulses[name], getattr(batch, name)), name
    assert np.array_equal(np.concatenate(pulses["trace"]), batch.samples)
    assert pulses["trace"][0].dtype == np.int16
    assert list(channels["name"]) == [c.name for c in raw.channels]
    assert list(channels["detector"]) == [c.detector for c in raw.channels]
    assert header["run"]["Condition"] == raw.run["Condition"]
    assert (note["document"], note["settings"]) == (daq[1].path.name, {"chunk_bytes": 100_000})
    assert "uproot" in note["software"]


def test_injected_amplitudes_come_back_within_their_resolution(daq: list[Written], work: Make) -> None:
    _, analysed, _ = all_steps(daq[0], work, plots=False)
    assert daq[0].truth_path is not None
    truth = json.loads(daq[0].truth_path.read_text())["pulses"]
    true, names = np.array(truth["amplitude_adu"]), np.array(truth["channel"])
    with uproot.open(analysed["file"]) as file:
        assert file.keys(cycle=False) == ["amplitudes", "provenance"]
        found = file["amplitudes"].arrays(library="np")
    assert len(found["pulse"]) == len(true) == 480
    assert np.array_equal(found["pulse"], np.arange(480))
    for kind in ("ionis", "chal"):
        mine = np.char.startswith(names, kind)
        for method in ("optimal", "trapezoid"):
            pull = ((found[f"{method}_fixed"] - true) / found[f"{method}_sigma"])[mine]
            assert abs(pull.mean()) < 0.2, (kind, method)
            assert 0.85 < pull.std() < 1.2, (kind, method)
            inner = (found[f"{method}_baseline_amplitude"] / found[f"{method}_baseline_sigma"])[mine]
            assert abs(inner.mean()) < 0.25
    assert analysed["fallbacks"] == []
    assert analysed["counts"] | {"per_channel": 0} == {
        "pulses": 480,
        "analysed": 480,
        "without_trace": 0,
        "skipped": 0,
        "per_channel": 0,
    }
    assert analysed["channels"]["chaleur FID802"]["template"] == "heat"


def test_histograms_of_file_and_run(daq: list[Written], work: Make) -> None:
    first, second = all_steps(daq[0], work)[2], all_steps(daq[1], work)[2]
    assert first["entries"]["amplitude_chaleur_FID802"] == 120
    assert (first["run"]["members"], second["run"]["members"]) == (1, 2)
    assert second["run"]["entries"]["energy_ionisA_FID803"] == 240
    assert first["calibration"]["ionisA FID802"] == 0.05
    for plot in second["plots"]:
        assert Path(plot["file"]).read_bytes().startswith(b"\x89PNG")
        assert plot["title"]
    assert {plot["scope"] for plot in second["plots"]} == {"file", "run"}
    with uproot.open(second["run"]["file"]) as file:
        assert file["amplitude_chaleur_FID802"].values().sum() == 240
        edges = file["energy_chaleur_FID802"].axis().edges()
        counts = file["energy_chaleur_FID802"].values()
        near = (edges[:-1] > 350) & (edges[1:] < 362)
        assert counts[near].sum() > 0.2 * counts[edges[:-1] > 20].sum()  # the simulated line at 356 keV


def test_done_twice_nothing_is_counted_twice(daq: list[Written], work: Make) -> None:
    for _ in range(2):
        results = [all_steps(written, work, plots=False)[2] for written in (daq[0], daq[1])]
    assert results[-1]["run"]["total"] == results[0]["total"] + results[1]["total"]
    assert results[-1]["run"]["members"] == 2


def test_without_calibration_there_are_no_energies_and_that_is_said(daq: list[Written], work: Make) -> None:
    record = document(daq[0])
    analysed = amplitude().process(record, work(convert(record, work(daq[0].path))["file"]))
    drawn = histograms(record, work(analysed["file"], plots=False, calibration={"ionis*": 0.05}, method="trapezoid"))
    assert len([s for s in drawn["fallbacks"] if "chaleur" in s and "no calibration" in s]) == 2
    assert "energy_ionisA_FID802" in drawn["entries"]
    assert "energy_chaleur_FID802" not in drawn["entries"]
    assert drawn["plots"] == []


def test_a_channel_without_template_gets_the_fallback_and_that_is_said(
    daq: list[Written], work: Make, tmp_path: Path
) -> None:
    base = tmp_path / "templates.yaml"
    step = "{match: 'ionis*', rise_ms: 0, decay_ms: 8}"
    base.write_text(f"{{fallback: any, templates: {{any: {{rise_ms: 5, decay_ms: 60}}, step: {step}}}}}")
    record = document(daq[0])
    analysed = amplitude({"templates": str(base)}).process(record, work(convert(record, work(daq[0].path))["file"]))
    assert [s for s in analysed["fallbacks"] if "chaleur FID802" in s and "'any' is used" in s]
    assert analysed["channels"]["chaleur FID802"]["fallback"]
    assert analysed["channels"]["ionisA FID802"]["fallback"] is None
    with uproot.open(analysed["file"]) as file:
        assert json.loads(str(file["provenance"]))["analysis"]["fallbacks"] == analysed["fallbacks"]


def test_a_file_cut_in_its_last_event(daq: list[Written], work: Make, tmp_path: Path) -> None:
    cut = tmp_path / "ma22a000_007"
    cut.write_bytes(daq[0].path.read_bytes()[:-700])
    record = document(daq[0], file=str(cut), _id="cut")
    with pytest.raises(DataError, match=r"not complete.*at byte \d+.*keep_truncated: true"):
        convert(record, work(cut))
    assert not list((tmp_path / "data").rglob("cut*"))
    result = convert(record, work(cut, keep_truncated=True))
    assert result["counts"]["events"] == 119
    assert result["truncated"]["offset"] > 0
    assert amplitude().process(record, work(result["file"]))["counts"]["analysed"] == 476


def test_corrupt_files_are_data_errors_with_the_offset(daq: list[Written], work: Make, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at byte"):
        convert(document(daq[2]), work(daq[2].path))
    bad = tmp_path / "bad"
    data = bytearray(daq[0].path.read_bytes())
    place = data.index(b"Dimension", len(data) // 2)
    data[place : place + 14] = b"Dimension = -7"
    bad.write_bytes(data)
    with pytest.raises(DataError, match=r"at byte \d+.*DAQ's copy"):
        convert(document(daq[0], file=str(bad)), work(bad))
    assert not list((tmp_path / "data").rglob("*.part"))


def test_a_file_without_events_goes_through(work: Make, tmp_path: Path) -> None:
    written = simulate(tmp_path / "daq", runs=1, partitions=1, events=0, broken=0, date_runs=0)[0]
    converted, analysed, drawn = all_steps(written, work)
    assert converted["counts"]["events"] == analysed["counts"]["pulses"] == drawn["total"] == 0


def test_the_format_is_seen_without_a_word_in_the_document(daq: list[Written], work: Make, tmp_path: Path) -> None:
    assert detect(daq[0].path) == "samba"
    record = document(daq[0])
    del record["format"]
    result = convert(record, work(daq[0].path))
    assert result["format"] == "samba"
    assert detect(Path(result["file"])) == "root"
    (tmp_path / "odd").write_bytes(b"hello")
    with pytest.raises(DataError, match="no Samba, DATE or ROOT file"):
        detect(tmp_path / "odd")
    with pytest.raises(DataError, match="format 'hdf5'"):
        convert({**record, "format": "hdf5"}, work(daq[0].path))


def test_root_files_go_on_as_they_are(daq: list[Written], work: Make) -> None:
    first = convert(document(daq[0]), work(daq[0].path))
    again = convert({"_id": "r", "format": "root"}, work(first["file"]))
    assert (again["file"], again["converted"]) == (first["file"], False)
    assert again["checksum"] == first["checksum"]
    assert again["entries"] == first["entries"]


def test_damaged_and_foreign_root_files_are_data_errors(daq: list[Written], work: Make, tmp_path: Path) -> None:
    record = document(daq[0])
    good = Path(convert(record, work(daq[0].path))["file"])
    damaged = tmp_path / "damaged.root"
    data = bytearray(good.read_bytes())
    data[len(data) // 4 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 4)
    damaged.write_bytes(data)
    text = tmp_path / "text.root"
    text.write_text("no ROOT file")
    for path in (damaged, text):
        with pytest.raises(DataError, match="cannot be read as a ROOT file"):
            amplitude().process(record, work(path))
    with pytest.raises(DataError, match="needs 'pulses' or 'hits'"):
        amplitude().process(record, work(amplitude().process(record, work(good))["file"]))
    with pytest.raises(DataError, match="no tree 'amplitudes' or 'hitmap'"):
        histograms(record, work(good))


@pytest.mark.parametrize(
    "bad",
    [
        {"template": "none"},
        {"search": 0.7},
        {"compression": "zip-1"},
        {"serach": 0.1},
        {"templates": "/nowhere.yaml"},
        {"step_size": "many"},
    ],
)
def test_settings_of_the_analysis_are_checked_at_birth(bad: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        amplitude(bad)


def test_settings_of_the_histograms_are_checked(work: Make) -> None:
    for bad in ({"calibration": {"a": "x"}}, {"calibration": {"a": 0}}, {"method": "best"}, {"step_size": "1"}):
        with pytest.raises(SettingsError):
            histograms({"_id": "x"}, work("nowhere", **bad))


@pytest.mark.parametrize("text", ["zstd-1", "lz4-1", "zlib-1", "none"])
def test_every_compression_can_be_read(daq: list[Written], work: Make, text: str) -> None:
    result = convert(document(daq[0]), work(daq[0].path, compression=text))
    with uproot.open(result["file"]) as file:
        assert len(file["pulses"]["trace"].array()) == 480


def test_channels_of_one_name_stay_apart(work: Make, tmp_path: Path) -> None:
    path = tmp_path / "two.root"
    rng = np.random.default_rng(1)
    traces = rng.normal(0, 5, (200, 256)).astype(np.int16)
    with uproot.recreate(path) as file:
        names = file.mktree("channels", {"name": "string"})
        names.extend({"name": ak.Array(["chaleur", "chaleur"])})
        pulses = file.mktree("pulses", PULSE_KINDS)
        columns = {name: np.zeros(200) for name in PULSE_KINDS if name != "trace"}
        columns["channel"] = np.arange(200) % 2
        columns["pretrigger"] += 64
        columns["ns_per_point"] += 5e5
        pulses.extend({**columns, "trace": ak.from_regular(ak.Array(traces))})
    record = {"_id": "two", "run_name": "r"}
    analysed = amplitude().process(record, work(path))
    assert analysed["counts"]["per_channel"] == {"chaleur": 100, "chaleur (2)": 100}
    drawn = histograms(record, work(analysed["file"], plots=False))
    assert len([name for name in drawn["entries"] if name.startswith("amplitude_")]) == 2


def test_pulses_that_cannot_be_analysed_are_counted_with_the_reason(work: Make, tmp_path: Path) -> None:
    path = tmp_path / "odd.root"
    lengths = [256] * 40 + [0, 32, 256]
    pretriggers = [64] * 42 + [2]
    with uproot.recreate(path) as file:
        file.mktree("channels", {"name": "string"}).extend({"name": ak.Array(["chaleur"])})
        pulses = file.mktree("pulses", PULSE_KINDS)
        columns = {name: np.zeros(len(lengths)) for name in PULSE_KINDS if name != "trace"}
        columns["pretrigger"] = np.array(pretriggers)
        columns["ns_per_point"] += 5e5
        pulses.extend({**columns, "trace": ak.unflatten(np.zeros(sum(lengths), dtype=np.int16), lengths)})
    result = amplitude().process({"_id": "odd", "run_name": "r"}, work(path))
    counts = {name: result["counts"][name] for name in ("pulses", "analysed", "without_trace", "skipped")}
    assert counts == {"pulses": 43, "analysed": 40, "without_trace": 1, "skipped": 2}
    reasons = " ".join(entry["reason"] for entry in result["skipped"])
    assert "too short" in reasons
    assert "leaves no baseline" in reasons
