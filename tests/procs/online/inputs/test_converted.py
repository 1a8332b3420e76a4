"""Outputs of the conversion as an input: the same spills as from the raw files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.online.packing import packed, unpacked
from orchestrator.online.spill import EndOfRun, Spill, StartOfRun
from orchestrator.step import Work
from procs.convert import convert
from procs.online.inputs.converted import ConvertedInput
from procs.online.inputs.date import DateInput
from procs.online.inputs.samba import SambaInput
from procs.online.maps.date import Decode, Waveforms
from procs.online.reducers.tdc import TdcHits
from procs.simulate import simulate

Make = Callable[..., Work]


def converted(path: Path, work: Make) -> Path:
    result = convert({"_id": path.name, "file": str(path)}, work(path))
    return Path(result["file"])


def same(one: Any, two: Any) -> bool:
    return np.array_equal(np.asarray(one), np.asarray(two), equal_nan=np.asarray(one).dtype.kind == "f")


def everywhere(source: dict[str, Any]) -> list[Any]:
    """All items; from a position come those that were not yielded before it."""
    made = ConvertedInput(source)
    whole = [(item, json.loads(json.dumps(made.position))) for item in made.items() if item is not None]
    for place, (_, position) in list(enumerate(whole))[:: max(1, len(whole) // 5)]:
        assert sum(item is not None for item in ConvertedInput(source).items(position)) == len(whole) - place - 1
    return [item for item, _ in whole]


def raw_spills(path: Path) -> list[Spill]:
    found = [item for item in DateInput({"files": str(path)}).items() if isinstance(item, Spill)]
    decode = Decode({"raw_words": True})
    for spill in found:
        decode.process(spill)
    return found


@pytest.mark.parametrize("real", [True, False])
def test_a_converted_date_file_gives_the_columns_that_decoding_gives(
    real: bool, work: Make, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if real:
        path = request.getfixturevalue("shared_data") / "mice_06008.000"
    else:
        path = simulate(tmp_path / "daq", runs=0, date_runs=1, date_spills=40, date_triggers=3)[0].path
    items = everywhere({"files": str(converted(path, work))})
    assert isinstance(items[0], StartOfRun) and isinstance(items[-1], EndOfRun) and items[-1].how == "trailer"
    expected = raw_spills(path)
    assert len(items) == len(expected) + 2
    for one, raw in zip(items[1:-1], expected, strict=True):
        assert (one.run, one.number) == (raw.run, raw.number)
        one = unpacked(packed(one))
        for name, column in raw.data["date"].items():
            if name in ("event", "table_event", "offset", "table_offset", "hit_time_ns"):
                continue  # counted in the spill there, in the file here
            assert same(column, one.data["date"][name]), name
        assert same(raw.data["events"]["seconds"], one.data["events"]["seconds"])
        assert same(raw.data["events"]["triggers"], one.data["events"]["triggers"])


def test_the_same_maps_and_reducers_see_the_same_hits(work: Make, shared_data: Path) -> None:
    path = converted(shared_data / "mice_06008.000", work)
    totals = {}
    for name, source in (("raw", DateInput({"files": str(shared_data / "mice_06008.000")})),
                         ("root", ConvertedInput({"files": str(path)}))):  # fmt: skip
        reducer, maps = TdcHits(), (Decode(), Waveforms())
        for item in source.items():
            if isinstance(item, Spill):
                for one in maps:
                    one.process(item)
                reducer.process(item)
        totals[name] = {plot.name: plot.histogram.values(flow=True) for plot in reducer.plots()}
    assert totals["raw"].keys() == totals["root"].keys()
    assert all(same(values, totals["root"][name]) for name, values in totals["raw"].items())
    assert totals["root"]["tdc/hits/LDC_1"].sum() == 7056


def test_a_converted_samba_file_gives_the_batches_that_the_raw_file_gives(work: Make, tmp_path: Path) -> None:
    path = simulate(tmp_path / "daq", runs=1, partitions=1, events=25, points=64, date_runs=0)[0].path
    items = everywhere({"files": str(converted(path, work)), "events": 10})
    expected = [item for item in SambaInput({"files": str(path), "events": 10}).items() if isinstance(item, Spill)]
    found = [item for item in items if isinstance(item, Spill)]
    assert [(one.run, one.number, one.time) for one in found] == [(one.run, one.number, one.time) for one in expected]
    for one, raw in zip(found, expected, strict=True):
        for name in ("number", "stamp", "dead_time", "counts", "channel", "lengths", "samples", "pretrigger",
                     "ns_per_point", "amplitude", "pulse_stamp", "channels", "kinds", "first"):  # fmt: skip
            assert same(raw.data["samba"][name], unpacked(packed(one)).data["samba"][name]), name
