"""DATE files through convert, amplitude and histograms, with the counts that are known of the real file."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import uproot

from orchestrator.errors import DataError
from orchestrator.step import Work
from procs.amplitude import Amplitude
from procs.convert import convert, detect
from procs.histograms import histograms
from procs.simulate import simulate
from procs.tdc import TURN, analyse_tdc

Make = Callable[..., Work]


def steps(path: Path, work: Make, run: str) -> list[dict[str, Any]]:
    document = {"_id": path.name, "run_name": run, "file_number": 0, "file": str(path), "format": "date"}
    converted = convert(document, work(path))
    analysed = Amplitude({}, logging.getLogger("step")).process(document, work(converted["file"]))
    drawn = histograms(document, work(analysed["file"]))
    results = [converted, analysed, drawn]
    json.dumps(results, allow_nan=False)
    return results


def test_the_real_file_has_its_known_counts(shared_data: Path, work: Make) -> None:
    path = shared_data / "mice_06008.000"
    converted, analysed, drawn = steps(path, work, "06008")
    counts = converted["counts"]
    assert counts["by_type"] == {
        "start of run": 2,
        "end of run": 2,
        "start of burst": 6,
        "end of burst": 6,
        "physics": 6,
    }
    assert (converted["run"], counts["events"], counts["triggers"]) == (6008, 22, 882)
    assert counts["triggers_per_spill"] == [147] * 6
    assert counts["tdc_errors"] == 0
    boards = {"triggers": 882, "leading": 1764, "trailing": 0, "channels": 2}
    assert counts["boards"] == {f"LDC 1 board {number}": boards for number in (1, 2, 3, 4)}
    assert converted["problems"] == {}
    with uproot.open(converted["file"]) as file:
        spills, hits = file["spills"].arrays(library="np"), file["hits"].arrays(library="np")
        triggers = file["triggers"].arrays(library="np")
        assert file["events"].num_entries == 22
    assert list(spills["spill"]) == list(range(6))
    assert list(spills["size"]) == [398_128] * 6
    assert list(spills["first_trigger"]) == [147 * number for number in range(6)]
    assert np.array_equal(np.unique(hits["trigger"]), np.arange(882))
    assert len(triggers["trigger"]) == 4 * 882
    assert np.array_equal(hits["spill_entry"], hits["spill"])

    assert analysed["counts"] | {"waveforms": 0} == {
        "hits": 7056,
        "leading": 7056,
        "trailing": 0,
        "channels": 8,
        "pairs": 28,
        "differences": 28 * 882,
        "waveforms": 0,
    }
    assert set(analysed["hitmap"].values()) == {882}
    # The two channels of a board see the same particle through the same clock: within a few counts of 25 ps.
    same = analysed["differences"]["LDC 1 board 1 channel 1 - LDC 1 board 1 channel 0"]
    assert same["entries"] == 882
    assert abs(same["mean_ns"] + 1.52) < 0.01
    assert same["spread_ns"] < 0.03
    # Two boards do not share a clock: only within a spill do they go together.
    other = analysed["differences"]["LDC 1 board 2 channel 0 - LDC 1 board 1 channel 0"]
    assert other["spread_in_spill_ns"] < 10 < 1000 < other["spread_ns"]
    assert drawn["hits"] == 7056
    assert drawn["entries"]["hits_LDC_1_board_3"] == 1764
    assert drawn["run"]["total"] == drawn["total"]
    assert len(drawn["plots"]) == 6


def test_the_real_file_cut_and_damaged(shared_data: Path, work: Make, tmp_path: Path) -> None:
    data = (shared_data / "mice_06008.000").read_bytes()
    document = {"_id": "x", "run_name": "r", "format": "date"}
    cut, bad = tmp_path / "cut", tmp_path / "bad"
    cut.write_bytes(data[: len(data) - 500_000])
    with pytest.raises(DataError, match=r"at byte \d+"):
        convert(document, work(cut))
    kept = convert(document, work(cut, keep_truncated=True))
    assert kept["counts"]["spills"] == 4
    assert kept["truncated"]["offset"] > 0
    place = data.index(b"\xfe\x5a\x1e\xda", 500_000)
    bad.write_bytes(data[:place] + b"\0\0\0\0" + data[place + 4 :])
    with pytest.raises(DataError, match=r"magic.*at byte \d+"):
        convert(document, work(bad))
    assert not list((tmp_path / "data").rglob("*.part"))


def test_a_simulated_date_file_goes_through(work: Make, tmp_path: Path) -> None:
    written = simulate(tmp_path / "daq", runs=0, date_runs=1, broken=0)
    assert len(written) == 1
    assert detect(written[0].path) == "date"
    converted, analysed, drawn = steps(written[0].path, work, written[0].run_name)
    assert converted["counts"]["hits"] > 0
    assert converted["counts"]["spills"] > 1
    with uproot.open(converted["file"]) as file:
        hits, triggers = file["hits"].arrays(library="np"), file["triggers"].arrays(library="np")
        spills = file["spills"].arrays(library="np")
    # Particle triggers are numbered through the file, spill by spill.
    for rows in (hits, triggers):
        first = spills["first_trigger"][rows["spill_entry"]]
        assert np.array_equal(rows["trigger"], first + rows["index"])
    assert np.array_equal(np.unique(triggers["trigger"]), np.arange(converted["counts"]["triggers"]))
    assert analysed["counts"]["hits"] == converted["counts"]["hits"]
    assert drawn["hits"] == analysed["counts"]["leading"]


def tdc_file(path: Path, rows: list[tuple[int, int, int, int, int, int]]) -> Path:
    """A converted file with hits only: rows of (trigger, spill, board, channel, edge, time)."""
    columns = np.array(rows, dtype=np.int64).reshape(-1, 6).T
    names = ("trigger", "spill", "board", "channel", "edge", "time")
    with uproot.recreate(path) as file:
        tree = file.mktree("hits", dict.fromkeys((*names, "ldc"), "int64"))
        if rows:
            tree.extend({**dict(zip(names, columns, strict=True)), "ldc": np.ones(len(rows), dtype=np.int64)})
    return path


def run_tdc(path: Path, work: Make, tmp_path: Path, pairs: int = 16) -> tuple[dict[str, Any], dict[str, Any]]:
    chosen = SimpleNamespace(tdc_pairs=pairs, step_size="1 MB")
    with uproot.open(path) as file, uproot.recreate(tmp_path / "out.root") as out:
        entries, result = analyse_tdc(file, out, path, work(path), chosen)
    with uproot.open(tmp_path / "out.root") as file:
        arrays = {name: file[name].arrays(library="np") for name in entries}
        assert {name: len(next(iter(rows.values()))) for name, rows in arrays.items()} == entries
    return arrays, result


def test_differences_use_the_first_leading_edge_and_turn_over(work: Make, tmp_path: Path) -> None:
    rows = [
        (0, 0, 1, 0, 0, 100),
        (0, 0, 1, 0, 0, 900),  # a second edge of the same channel
        (0, 0, 2, 5, 1, 50),  # a trailing edge
        (0, 0, 2, 5, 0, 140),
        (1, 0, 1, 0, 0, TURN - 10),
        (1, 0, 2, 5, 0, 30),  # the clock began again in between
        (2, 1, 1, 0, 0, 7),  # no partner
    ]
    arrays, result = run_tdc(tdc_file(tmp_path / "in.root", rows), work, tmp_path)
    assert np.allclose(arrays["differences"]["ns"], [1.0, 1.0])
    assert np.allclose(arrays["differences"]["residual_ns"], 0)
    assert list(arrays["differences"]["trigger"]) == [0, 1]
    hitmap = arrays["hitmap"]
    columns = ("board", "channel", "leading", "trailing", "triggers")
    assert np.stack([hitmap[name] for name in columns], axis=1).tolist() == [[1, 0, 4, 0, 3], [2, 5, 2, 1, 2]]
    assert result["pairs_of"] == "every two channels"


def test_many_channels_are_compared_with_the_first_only(work: Make, tmp_path: Path) -> None:
    rows = [(t, 0, 1, c, 0, 100 * c) for t in range(3) for c in range(6)]
    arrays, result = run_tdc(tdc_file(tmp_path / "in.root", rows), work, tmp_path, pairs=4)
    assert result["counts"]["pairs"] == 5
    assert set(arrays["pairs"]["channel_1"]) == {0}
    assert "LDC 1 board 1 channel 0" in result["pairs_of"]


def test_a_trigger_whose_hits_lie_in_two_chunks_is_one_trigger(
    work: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from procs import tdc

    rng = np.random.default_rng(7)
    rows = [
        (10 * spill + t, spill, b, c, 0, int(rng.integers(0, TURN)))
        for spill in range(3)
        for b in (1, 2)
        for t in range(10)
        for c in (0, 1)
    ]
    path = tdc_file(tmp_path / "in.root", rows)
    whole, _ = run_tdc(path, work, tmp_path)
    monkeypatch.setattr(tdc, "ROWS_AT_ONCE", 7)
    monkeypatch.setattr(tdc, "TRIGGERS_AT_ONCE", 1_000)
    parted, _ = run_tdc(path, work, tmp_path)

    def sorted_rows(arrays: dict[str, Any]) -> list[tuple[Any, ...]]:
        d = arrays["differences"]
        columns = [d["pair"], d["trigger"], d["spill"], d["ns"].round(6), d["residual_ns"].round(6)]
        return sorted(zip(*columns, strict=True))

    assert sorted_rows(parted) == sorted_rows(whole)
    for name in whole["hitmap"]:
        assert np.array_equal(parted["hitmap"][name], whole["hitmap"][name])


def test_a_file_without_hits(work: Make, tmp_path: Path) -> None:
    arrays, result = run_tdc(tdc_file(tmp_path / "in.root", []), work, tmp_path)
    assert result["counts"]["hits"] == 0
    assert len(arrays["pairs"]["entries"]) == 0
