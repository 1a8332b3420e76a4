"""Event trees: taken as they are, pairs selected, masses histogrammed; with the counts of the real files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot

from orchestrator.errors import DataError, SettingsError
from orchestrator.step import Work
from procs.trees import mass_histograms, peak, select, take

Make = Callable[..., Work]


def steps(path: Path, work: Make, **settings: Any) -> list[dict[str, Any]]:
    document = {"_id": path.stem, "run_name": "opendata", "file": str(path), "format": "root"}
    taken = take(document, work(path))
    selected = select(document, work(taken["file"], **settings))
    drawn = mass_histograms(document, work(selected["file"]))
    results = [taken, selected, drawn]
    json.dumps(results, allow_nan=False)
    return results


@pytest.mark.parametrize(
    ("name", "tree", "entries", "layout", "counts"),
    [
        ("uproot-Zmumu", "events", 2304, "pair", {"pair": 2147}),
        ("uproot-HZZ", "events", 2421, "cartesian", {"Muon": 1397, "Electron": 50, "Jet": 824}),
        ("nanoAOD_2015_CMS_Open_Data_ttbar", "Events", 200, "polar", {"Muon": 0, "Electron": 1, "Jet": 140}),
    ],
)
def test_the_real_files(
    shared_data: Path, work: Make, name: str, tree: str, entries: int, layout: str, counts: dict[str, int]
) -> None:
    path = shared_data / f"{name}.root"
    taken, selected, drawn = steps(path, work)
    assert (taken["file"], taken["size"]) == (str(path), path.stat().st_size)
    assert (taken["tree"], taken["entries"], taken["layout"]) == (tree, entries, layout)
    assert selected["entries"] == entries
    assert {key: value["selected"] for key, value in selected["counts"].items()} == counts
    assert all(value["events"] == entries for value in selected["counts"].values())
    assert {key: drawn["entries"][f"mass_{key}"] for key in counts} == counts
    with uproot.open(selected["file"]) as file:
        pairs = file["pairs"].arrays(library="np")
    assert len(pairs["mass"]) == sum(counts.values())
    if layout == "pair":
        assert selected["mass_difference"] < 1e-6
        assert abs(drawn["mass"]["pair"]["peak"] - 91.2) < 1.0
        assert np.all(pairs["charge1"] * pairs["charge2"] < 0)
    if layout == "cartesian":
        assert abs(drawn["mass"]["Muon"]["peak"] - 91.2) < 1.0
    assert all(Path(plot["file"]).read_bytes().startswith(b"\x89PNG") for plot in drawn["plots"])


def test_the_masses_are_those_of_a_loop(shared_data: Path, work: Make) -> None:
    path = shared_data / "uproot-HZZ.root"
    selected = steps(path, work, particles=["Muon"])[1]
    with uproot.open(path) as file:
        events = file["events"].arrays(["Muon_Px", "Muon_Py", "Muon_Pz", "Muon_E", "Muon_Charge"], library="np")
    masses = []
    for x, y, z, e, q in zip(*events.values(), strict=True):
        order = np.argsort(-np.hypot(x, y), kind="stable")[:2]
        if len(order) == 2 and q[order].prod() < 0:
            total = [float(part[order].astype(float).sum()) for part in (e, x, y, z)]
            masses.append(np.sqrt(total[0] ** 2 - total[1] ** 2 - total[2] ** 2 - total[3] ** 2))
    with uproot.open(selected["file"]) as file:
        assert np.allclose(file["pairs"]["mass"].array(library="np"), masses, rtol=1e-6)


def polar(path: Path, muons: list[list[tuple[float, float, float, float, int]]], prefix: str = "Muon") -> Path:
    columns = {
        f"{prefix}_{name}": ak.Array([[float(m[index]) for m in event] for event in muons])
        for index, name in enumerate(("pt", "eta", "phi", "mass", "charge"))
    }
    with uproot.recreate(path) as file:
        tree = file.mktree("Events", dict.fromkeys(columns, "var * float64"))
        tree.extend(columns)
    return path


EVENTS = [
    [(45.0, 0.0, 0.0, 0.0, 1), (45.0, 0.0, np.pi, 0.0, -1)],  # back to back: a mass of 90
    [(5.0, 0.0, 0.0, 0.0, 1), (50.0, 0.0, 0.0, 0.0, 1), (50.0, 0.0, np.pi, 0.0, 1)],  # same charge
    [(30.0, 0.0, 0.0, 0.0, 1)],
    [],
    [(10.0, 1.0, 1.0, 0.1, -1), (20.0, -1.0, 2.0, 0.1, 1)],
]


def test_the_selection_counts_what_it_leaves_out(work: Make, tmp_path: Path) -> None:
    path = polar(tmp_path / "in.root", EVENTS)
    selected = steps(path, work, min_pt=15.0)[1]
    assert selected["counts"]["Muon"] == {
        "events": 5,
        "with_two": 3,
        "above_min_pt": 2,
        "opposite_charge": 1,
        "selected": 1,
        "in_window": 1,
    }
    with uproot.open(selected["file"]) as file:
        pairs = file["pairs"].arrays(library="np")
    assert pairs["entry"].tolist() == [0]
    assert np.allclose(pairs["mass"], 90.0)
    assert steps(path, work, opposite_charge=False)[1]["pairs"] == 3


def test_small_chunks_give_the_same(shared_data: Path, work: Make) -> None:
    path = shared_data / "uproot-HZZ.root"
    rows = []
    for step_size in ("20 MB", "10 kB"):
        selected = steps(path, work, step_size=step_size)[1]
        with uproot.open(selected["file"]) as file:
            pairs = file["pairs"].arrays(library="np")
        order = np.lexsort((pairs["entry"], pairs["particle"]))
        rows.append({key: value[order] for key, value in pairs.items()})
    assert all(np.array_equal(rows[0][key], rows[1][key]) for key in rows[0])


def test_what_cannot_be_selected_is_a_data_error(work: Make, tmp_path: Path) -> None:
    path = polar(tmp_path / "in.root", EVENTS, prefix="Tau")
    document = {"_id": "x", "run_name": "r"}
    with pytest.raises(DataError, match="no pairs of Muon, Electron, Jet"):
        select(document, work(path))
    assert select(document, work(path, particles=["Tau"]))["pairs"] == 2
    with pytest.raises(DataError, match="no tree 'Muons' \\(it has Events\\)"):
        select(document, work(path, tree="Muons"))
    with pytest.raises(DataError, match="no tree 'pairs'"):
        mass_histograms(document, work(path))
    for bad in ({"particle": ["Muon"]}, {"mass_window": [1.0]}, {"mass_window": [2, 1]}, {"step_size": "x"}):
        with pytest.raises(SettingsError):
            select(document, work(path, **bad))


def test_a_file_cut_short_is_not_taken(shared_data: Path, work: Make, tmp_path: Path) -> None:
    data = (shared_data / "uproot-Zmumu.root").read_bytes()
    for size in (0, 50, 1000, len(data) // 2, len(data) - 5000):
        (tmp_path / "cut.root").write_bytes(data[:size])
        with pytest.raises(DataError):
            take({"_id": "x"}, work(tmp_path / "cut.root"))


def test_a_copy_is_made_where_one_is_asked_for(shared_data: Path, work: Make) -> None:
    path = shared_data / "uproot-Zmumu.root"
    taken = take({"_id": "z", "run_name": "r", "file": str(path)}, work(path, copy=True, output="taken"))
    assert Path(taken["file"]).parts[-3:] == ("taken", "r", "uproot-Zmumu.root")
    assert Path(taken["file"]).read_bytes() == path.read_bytes()
    assert taken["entries"] == 2304


def test_the_peak_is_found_without_a_fit() -> None:
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.normal(91, 2, 5000), rng.uniform(60, 120, 2000)])
    assert abs(peak(values) - 91) < 1
    assert peak(np.array([3.0])) == 3.0
