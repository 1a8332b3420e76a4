"""The chain for event trees that are ROOT files already: take them as they are, select pairs, histogram their mass.

Three steps: :func:`take` (proc1 of that chain takes the file as it is), :func:`select` and :func:`mass_histograms`.
Which branches hold the particles is found from the branches' names, for three ways of writing them down, or set.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot

from orchestrator.errors import DataError, SettingsError
from orchestrator.step import Work
from procs.binning import Counts, key_name
from procs.options import options
from procs.outputs import atomic_output, checksum, describe, place, plain, storage
from procs.rootio import PROVENANCE, compression, opened, provenance, step_size, text, tree, trees, verified
from procs.runfiles import MEMBER, Page, publish
from procs.transfer import transfer

#: The ways in which trees hold particles: for each the branches of one particle, ``{p}`` being its name. The charge
#: comes last and may be missing (jets have none): then pairs are not asked for opposite charges.
LAYOUTS: dict[str, tuple[str, ...]] = {
    "pair": ("E1", "px1", "py1", "pz1", "E2", "px2", "py2", "pz2", "Q1", "Q2"),
    "cartesian": ("{p}_Px", "{p}_Py", "{p}_Pz", "{p}_E", "{p}_Charge"),
    "polar": ("{p}_pt", "{p}_eta", "{p}_phi", "{p}_mass", "{p}_charge"),
}

TAKE: dict[str, Any] = {"output": "raw", "tree": "", "copy": False, "algorithm": "sha256"}
SELECT: dict[str, Any] = {
    "output": "selected",  # folder, relative to the site's data folder
    "tree": "",  # which tree; empty: the one with the most entries
    "particles": ["Muon", "Electron", "Jet"],  # whose pairs are looked for, by the branches' prefix
    "layout": "auto",  # auto | pair | cartesian | polar
    "min_pt": 0.0,  # GeV, of each of the two
    "opposite_charge": True,
    "mass_window": [60.0, 120.0],  # GeV; only counted, nothing is cut away
    "step_size": "20 MB",  # memory for one chunk of branches
    "compression": "zstd-1",
}
MASS: dict[str, Any] = {
    "output": "histograms",
    "plots": True,
    "peak_window": [60.0, 120.0],  # GeV, in which the mean and the peak are looked for
    "lock_timeout": 300.0,  # s
}

QUANTITIES = {
    "mass": "invariant mass, {p}",
    "pt": "transverse momentum of the pair, {p}",
    "pt1": "transverse momentum, first {p}",
    "pt2": "transverse momentum, second {p}",
}
PARTICLES = "particles"  # key of the JSON list of particles, which the column ``particle`` counts through

PAIRS: dict[str, str] = {
    "entry": "int64",
    "particle": "int32",
    "mass": "float64",
    "pt": "float64",
    "pt1": "float64",
    "pt2": "float64",
    "eta1": "float64",
    "eta2": "float64",
    "charge1": "int32",
    "charge2": "int32",
    "in_window": "bool",
}


def take(document: dict[str, Any], work: Work) -> dict[str, Any]:
    """Open an event tree, count it and hand the file on as it is (or a verified copy, with ``copy: true``)."""
    chosen = options(work.settings, "take", TAKE)
    path = work.input
    with opened(path) as file:
        name = chosen.tree or _largest(file, path)
        events = tree(file, name, path)
        # The last basket of a file that was cut short is the one that is missing.
        entries, branches = int(events.num_entries), list(events.keys())
        if entries and branches:
            events[branches[-1]].array(entry_start=entries - 1, library="np")
        layout = _layout(branches, SELECT["particles"])
        found = {"tree": name, "entries": entries, "branches": len(branches), "layout": layout}
    if chosen.copy:
        inner = {key: value for key, value in work.settings.items() if key in ("output", "algorithm")}
        copied = transfer(document, Work(inner, work.output, work.directory, work.attempt, work.log, str(path)))
        return {**copied, **found}
    with storage(path, "reading"):
        size = path.stat().st_size
    return {"file": str(path), "size": size, "checksum": checksum(path, chosen.algorithm), **found}


def _window(value: list[Any], name: str, step: str) -> tuple[float, float]:
    if len(value) != 2 or not all(isinstance(edge, (int, float)) for edge in value) or not value[0] < value[1]:
        raise SettingsError(f"the setting {name!r} of the step {step} is {value!r}: write [low, high] in GeV")
    return float(value[0]), float(value[1])


def _largest(file: Any, path: Path) -> str:
    names = trees(file)
    if not names:
        raise DataError(f"{path} has no tree: this chain is for event trees")
    return max(names, key=lambda name: int(file[name].num_entries))


def _layout(branches: list[str], particles: list[str]) -> str | None:
    have = set(branches)
    for layout in LAYOUTS:
        if any(_held(layout, particle, have) for particle in particles):
            return layout
    return None


def _held(layout: str, particle: str, have: set[str]) -> list[str]:
    """The branches of a particle in a layout, with or without its charge; none if they are not all there."""
    names = [name.format(p=particle) for name in LAYOUTS[layout]]
    if set(names) <= have:
        return names
    return names[:4] if layout != "pair" and set(names[:4]) <= have else []


def select(document: dict[str, Any], work: Work) -> dict[str, Any]:
    """Write one row per event that has a pair: the two particles of highest pt and their invariant mass.

    Returns:
        ``file``, ``size``, ``checksum``; ``counts`` per particle (events, with two, of opposite charge, in the mass
        window), ``layout``, and where the input has a mass of its own, the largest difference to ours.
    """
    chosen = options(work.settings, "select", SELECT)
    path = work.input
    squeeze = compression(chosen.compression)
    step_size(chosen.step_size)
    _window(chosen.mass_window, "mass_window", "select")
    target = place(work.output, work.settings, "selected", document, str(document["_id"]), "_selected.root")
    numbers: dict[str, dict[str, int]] = {}
    written, difference = 0, None
    with opened(path) as file:
        name = chosen.tree or _largest(file, path)
        events = tree(file, name, path)
        layout = chosen.layout if chosen.layout != "auto" else _layout(events.keys(), chosen.particles)
        if layout not in LAYOUTS:
            raise DataError(
                f"{path}: no pairs of {', '.join(chosen.particles)} can be made from the branches of {name!r}; "
                "set 'particles' or 'layout'"
            )
        groups = ["pair"] if layout == "pair" else list(chosen.particles)
        present = {p: names for p in groups if (names := _held(layout, p, set(events.keys())))}
        if not present:
            raise DataError(f"{path}: the tree {name!r} lacks the branches of the layout {layout!r}")
        wanted = sorted({b for names in present.values() for b in names})
        own = "M" if layout == "pair" and "M" in events.keys() else None  # noqa: SIM118 - uproot's trees are no dicts
        total = int(events.num_entries)

        def check(temporary: Path) -> None:
            verified(temporary, {"pairs": written})

        with (
            atomic_output(target, work.attempt, check=check) as temporary,
            uproot.recreate(temporary, compression=squeeze) as out,
        ):
            out[PROVENANCE] = provenance("select", document, work, path, {"tree": name, "layout": layout})
            out[PARTICLES] = json.dumps(list(present), ensure_ascii=False)
            pairs = out.mktree("pairs", PAIRS)
            done = 0
            columns = [*wanted, own] if own else wanted
            for chunk in events.iterate(columns, step_size=chosen.step_size, library="ak"):
                for index, (particle, names) in enumerate(present.items()):
                    rows, seen = _pairs([chunk[b] for b in names], layout, chosen)
                    if own:
                        apart = np.abs(rows["mass"] - ak.to_numpy(chunk[own])[rows["entry"]])
                        difference = max(difference or 0.0, float(apart.max(initial=0.0)))
                    rows["entry"] = rows["entry"] + done
                    rows["particle"] = np.full(len(rows["mass"]), index)
                    count = numbers.setdefault(particle, dict.fromkeys(seen, 0))
                    for key, value in seen.items():
                        count[key] += value
                    if len(rows["mass"]):
                        pairs.extend({key: rows[key].astype(kind) for key, kind in PAIRS.items()})
                    written += len(rows["mass"])
                done += len(chunk)
                work.progress(done / max(total, 1), f"{done} of {total} events")
            if done != total:
                raise DataError(f"{path}: {done} of {total} events of the tree {name!r} could be read")
        result = {"tree": name, "layout": layout, "entries": total, "pairs": written, "counts": numbers}
        return plain({**describe(target), **result, "mass_difference": difference})


def _pairs(branches: list[Any], layout: str, chosen: Any) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """The pair of each event of a chunk that has one, and the counts at each stage of the selection."""
    if layout == "pair":
        flat = [ak.to_numpy(b).astype(float) for b in branches]
        first, second = [*flat[:4], flat[8]], [*flat[4:8], flat[9]]
        entry = np.arange(len(first[0]))
        with_two = len(entry)
    else:
        parts = [ak.values_astype(b, np.float64) for b in branches]
        if len(parts) == 4:
            parts.append(ak.zeros_like(parts[0]))
        if layout == "polar":
            parts = _cartesian(parts)
        energy_first = [parts[3], parts[0], parts[1], parts[2], parts[4]]
        pt = np.hypot(parts[0], parts[1])
        order = ak.argsort(pt, axis=1, ascending=False)
        enough = ak.to_numpy(ak.num(pt, axis=1) >= 2)
        entry = np.flatnonzero(enough)
        with_two = len(entry)
        ranked = [value[order][enough] for value in energy_first]
        first = [ak.to_numpy(value[:, 0]) for value in ranked]
        second = [ak.to_numpy(value[:, 1]) for value in ranked]
    e1, x1, y1, z1, q1 = first
    e2, x2, y2, z2, q2 = second
    square = (e1 + e2) ** 2 - (x1 + x2) ** 2 - (y1 + y2) ** 2 - (z1 + z2) ** 2
    rows = {
        "entry": entry,
        "mass": np.sqrt(np.clip(square, 0, None)),
        "pt": np.hypot(x1 + x2, y1 + y2),
        "pt1": np.hypot(x1, y1),
        "pt2": np.hypot(x2, y2),
        "charge1": q1,
        "charge2": q2,
    }
    for one, x, y, z in (("1", x1, y1, z1), ("2", x2, y2, z2)):
        with np.errstate(divide="ignore", invalid="ignore"):
            rows[f"eta{one}"] = np.arcsinh(z / np.hypot(x, y))
    low, high = _window(chosen.mass_window, "mass_window", "select")
    rows["in_window"] = (rows["mass"] >= low) & (rows["mass"] < high)
    hard = (rows["pt1"] >= chosen.min_pt) & (rows["pt2"] >= chosen.min_pt)
    opposite = hard & (q1 * q2 < 0)
    charged = layout == "pair" or len(branches) == 5
    keep = opposite if chosen.opposite_charge and charged else hard
    seen = {
        "events": len(branches[0]),
        "with_two": with_two,
        "above_min_pt": int(hard.sum()),
        **({"opposite_charge": int(opposite.sum())} if charged else {}),
        "selected": int(keep.sum()),
        "in_window": int((keep & rows["in_window"]).sum()),
    }
    return {key: value[keep] for key, value in rows.items()}, seen


def _cartesian(parts: list[Any]) -> list[Any]:
    pt, eta, phi, mass, charge = parts
    x, y, z = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
    return [x, y, z, np.sqrt(x**2 + y**2 + z**2 + mass**2), charge]


def mass_histograms(document: dict[str, Any], work: Work) -> dict[str, Any]:
    """Histogram the pairs of a file (mass, pt of the pair and of the two), as ROOT and PNG, and the run's sum.

    Returns:
        ``file``, ``size``, ``checksum`` of the file's histograms; ``entries``, ``plots``, ``mass`` (mean, median and
        peak in the window, without a fit) and ``run`` (the run's file and its members).
    """
    chosen = options(work.settings, "mass histograms", MASS)
    path = work.input
    target = place(work.output, work.settings, "histograms", document, str(document["_id"]), MEMBER)
    low, high = _window(chosen.peak_window, "peak_window", "mass histograms")
    with opened(path) as file:
        pairs = tree(file, "pairs", path)
        total = int(pairs.num_entries)
        particles = [str(name) for name in text(file, PARTICLES) or ["pair"]]
        filled = {
            key_name(quantity, name): Counts(key_name(quantity, name), title.format(p=name), "GeV")
            for name in particles
            for quantity, title in QUANTITIES.items()
        }
        inside: dict[str, list[np.ndarray]] = {name: [] for name in particles}
        for chunk in pairs.iterate(["particle", *QUANTITIES], step_size="20 MB", library="np"):
            for index, name in enumerate(particles):
                rows = chunk["particle"] == index
                for quantity in QUANTITIES:
                    filled[key_name(quantity, name)].fill(chunk[quantity][rows])
                mass = chunk["mass"][rows]
                inside[name].append(mass[(mass >= low) & (mass < high)])
    windows = {name: np.concatenate(found) if found else np.zeros(0) for name, found in inside.items()}
    summary = {
        name: {
            "window": [low, high],
            "entries": len(values),
            "mean": values.mean() if len(values) else None,
            "median": np.median(values) if len(values) else None,
            "peak": peak(values) if len(values) else None,
        }
        for name, values in windows.items()
    }
    work.log.info("%d pairs of %s histogrammed", total, path)
    published = publish(
        target,
        str(document.get("run_name") or "no run"),
        work,
        filled,
        provenance("mass histograms", document, work, path, {"mass": summary}),
        _pages if chosen.plots else None,
        chosen.lock_timeout,
    )
    return plain({**published, "mass": summary})


def _pages(histograms: dict[str, Counts], scope: str) -> list[Page]:
    return [Page("pairs", "invariant masses and transverse momenta", list(histograms.values()))]


def peak(values: np.ndarray) -> float:
    """The mode without a fit: the middle of the shortest interval that holds half of the values, again and again."""
    ordered = np.sort(values)
    while len(ordered) > 3:
        half = (len(ordered) + 1) // 2
        start = int(np.argmin(ordered[half - 1 :] - ordered[: len(ordered) - half + 1]))
        ordered = ordered[start : start + half]
    return float(ordered.mean())
