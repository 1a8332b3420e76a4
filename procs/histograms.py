"""proc3: histograms of a file's amplitudes or hits, as ROOT and as pictures, and of the whole run.

For Samba files: per channel the amplitude, the energy (where the channel has a calibration), baseline, noise, rise
time and chi2. For DATE files: hits per TDC channel, time differences, and the amplitudes of waveforms. Each
document's histograms are a file of their own; those of the run are rebuilt from them (:mod:`procs.runfiles`), so
nothing is counted twice.
"""

from __future__ import annotations

import fnmatch
import math
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.errors import DataError, SettingsError
from orchestrator.step import Work
from procs.binning import Counts, key_name
from procs.options import choice, options
from procs.outputs import place, plain
from procs.rootio import PROVENANCE, opened, provenance, step_size, text, tree, trees
from procs.runfiles import MEMBER, Page, publish
from procs.tdc import Place, place_name

DEFAULTS: dict[str, Any] = {
    "output": "histograms",  # folder, relative to the site's data folder
    "method": "optimal",  # whose amplitude: optimal | trapezoid
    "calibration": {},  # keV per ADU by pattern of channel names, the first that fits: {"chal*": 0.05}
    "plots": True,
    "most_pairs": 64,  # DATE: pairs of TDC channels that get histograms of their differences
    "step_size": "20 MB",
    "lock_timeout": 300.0,  # s to wait for other documents of the run
}

#: quantity: (column, where METHOD stands for the method; title; unit)
QUANTITIES = {
    "amplitude": ("METHOD_amplitude", "amplitude", "ADU"),
    "baseline": ("baseline", "baseline", "ADU"),
    "noise": ("noise", "noise", "ADU"),
    "rise": ("rise_ms", "rise time", "ms"),
    "chi2": ("METHOD_chi2", "chi2 per degree of freedom", "1"),
}
FILE_PAGES = ("amplitude", "energy", "hits", "residual")
RUN_PAGES = ("amplitude", "energy", "baseline", "noise", "hits", "difference", "residual", "waveform")
PAGE_TITLES = {
    "amplitude": "amplitudes",
    "energy": "energies",
    "baseline": "baselines",
    "noise": "noise",
    "hits": "hits per TDC channel",
    "difference": "time differences",
    "residual": "time differences within a spill",
    "waveform": "waveform amplitudes",
}
LOGARITHMIC = ("amplitude", "energy", "waveform")


def histograms(document: dict[str, Any], work: Work) -> dict[str, Any]:
    """Histogram ``work.input``, a file made by the step amplitude.

    Returns:
        ``file``, ``size``, ``checksum`` of the document's histograms; ``entries`` by histogram, ``plots`` (list of
        file, title, scope), ``calibration`` (keV per ADU by channel), ``fallbacks`` (sentences), ``run`` (file and
        members).

    Raises:
        DataError: the input has no amplitudes.
        TransientError: reading, writing or the run's lock failed.
    """
    chosen = options(work.settings, "histograms", DEFAULTS)
    choice(chosen.method, ("optimal", "trapezoid"), "method", "histograms")
    _check_calibration(chosen.calibration)
    step_size(chosen.step_size)
    path = work.input
    target = place(work.output, work.settings, "histograms", document, str(document["_id"]), MEMBER)
    extra: dict[str, Any]
    with opened(path) as file:
        found = trees(file)
        if "amplitudes" in found:
            filled, extra = _amplitudes(file, path, chosen, work)
        elif "hitmap" in found:
            filled, extra = _hits(file, path, chosen, work)
        else:
            raise DataError(f"{path} has no tree 'amplitudes' or 'hitmap', as the step amplitude writes them")
    for sentence in extra["fallbacks"]:
        work.log.warning("%s", sentence)
    published = publish(
        target,
        str(document.get("run_name") or "no run"),
        work,
        filled,
        provenance("histograms", document, work, path, extra),
        _pages if chosen.plots else None,
        chosen.lock_timeout,
    )
    return plain({**published, **extra})


def _check_calibration(calibration: dict[str, Any]) -> None:
    for pattern, factor in calibration.items():
        good = isinstance(factor, (int, float)) and not isinstance(factor, bool)
        if not good or not math.isfinite(factor) or factor == 0:
            raise SettingsError(
                f"the calibration of {pattern!r} in the step histograms is {factor!r}: write a number, in keV per ADU"
            )


def _factor(calibration: dict[str, Any], channel: str) -> float | None:
    for pattern, factor in calibration.items():
        if fnmatch.fnmatchcase(channel.casefold(), str(pattern).casefold()):
            return float(factor)
    return None


def _pages(filled: dict[str, Counts], scope: str) -> list[Page]:
    return pages_of(filled, FILE_PAGES if scope == "file" else RUN_PAGES)


def pages_of(filled: dict[str, Counts], quantities: tuple[str, ...]) -> list[Page]:
    """One picture for each of ``quantities`` of which there are histograms."""
    pages = []
    for quantity in quantities:
        panels = [counts for name, counts in filled.items() if name.split("_")[0] == quantity]
        if panels:
            pages.append(Page(quantity, PAGE_TITLES[quantity], panels, log=quantity in LOGARITHMIC))
    return pages


def _amplitudes(file: Any, path: Path, chosen: Any, work: Work) -> tuple[dict[str, Counts], dict[str, Any]]:
    rows = tree(file, "amplitudes", path)
    note = text(file, PROVENANCE)
    per_channel = _inner(note, "analysis", "counts", "per_channel")
    if not isinstance(per_channel, dict):
        raise DataError(f"{path} does not say which channels it has: make it again with the step amplitude")
    names = [str(name) for name in per_channel]  # in the order of their indices
    columns = {quantity: column.replace("METHOD", chosen.method) for quantity, (column, _, _) in QUANTITIES.items()}
    factors: dict[int, float] = {}
    fallbacks = []
    for index, name in enumerate(names):
        factor = _factor(chosen.calibration, name)
        if factor is not None:
            factors[index] = factor
        elif per_channel[name]:
            fallbacks.append(f"channel {name}: no calibration, so no energies (setting 'calibration', in keV per ADU)")
    filled: dict[str, Counts] = {}

    def counts(quantity: str, channel: int, title: str, unit: str) -> Counts:
        name = key_name(quantity, names[channel])
        return filled.setdefault(name, Counts(name, f"{names[channel]}: {title}", unit))

    total, done = int(rows.num_entries), 0
    for chunk in rows.iterate(["channel", *columns.values()], step_size=chosen.step_size, library="np"):
        for channel in np.unique(chunk["channel"]).tolist():
            if not 0 <= channel < len(names):
                raise DataError(f"{path}: an amplitude names the channel {channel}, but there are {len(names)}")
            mine = chunk["channel"] == channel
            for quantity, (_, title, unit) in QUANTITIES.items():
                counts(quantity, channel, title, unit).fill(chunk[columns[quantity]][mine])
            if channel in factors:
                energies = chunk[columns["amplitude"]][mine].astype(float) * factors[channel]
                counts("energy", channel, "energy", "keV").fill(energies)
        done += len(chunk["channel"])
        work.progress(0.6 * done / max(total, 1), f"{done} of {total} pulses")
    return filled, {
        "method": chosen.method,
        "pulses": total,
        "calibration": {names[index]: factor for index, factor in factors.items()},
        "fallbacks": fallbacks,
    }


def _inner(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _hits(file: Any, path: Path, chosen: Any, work: Work) -> tuple[dict[str, Counts], dict[str, Any]]:
    filled: dict[str, Counts] = {}
    table = file["hitmap"].arrays(library="np")
    boards = sorted(set(zip(table["ldc"].tolist(), table["board"].tolist(), strict=True)))
    for ldc, board in boards:
        mine = (table["ldc"] == ldc) & (table["board"] == board)
        per_channel = np.bincount(table["channel"][mine], table["leading"][mine]).astype(np.int64)
        title = f"LDC {ldc} board {board}"
        name = key_name("hits", title)
        filled[name] = Counts(name, f"{title}: leading edges", "channel", 1.0, 0, per_channel)

    pairs = tree(file, "pairs", path).arrays(library="np")
    shown: dict[int, list[Counts]] = {}
    for number in range(min(len(pairs["entries"]), chosen.most_pairs)):
        one, two = (_place(pairs, number, side) for side in (1, 2))
        title = f"{place_name(two)} - {place_name(one)}"
        shown[number] = []
        for quantity, words in (("difference", "time"), ("residual", "time within its spill")):
            name = key_name(quantity, title)
            filled[name] = Counts(name, f"{_short(two)} - {_short(one)}: {words}", "ns")
            shown[number].append(filled[name])
    differences = tree(file, "differences", path)
    total, done = int(differences.num_entries), 0
    for chunk in differences.iterate(["pair", "ns", "residual_ns"], step_size=chosen.step_size, library="np"):
        order = np.argsort(chunk["pair"], kind="stable")
        kinds, starts = np.unique(chunk["pair"][order], return_index=True)
        for number, members in zip(kinds.tolist(), np.split(order, starts[1:]), strict=True):
            for column, counts in zip(("ns", "residual_ns"), shown.get(number, []), strict=False):
                counts.fill(chunk[column][members])
        done += len(order)
        work.progress(0.6 * done / max(total, 1), f"{done} of {total} differences")
    if "waveform_amplitudes" in trees(file):
        _waveforms(file["waveform_amplitudes"], filled, chosen.step_size)
    left_out = len(pairs["entries"]) - len(shown)
    fallbacks = [f"{left_out} pairs of TDC channels have no histograms (setting 'most_pairs')"] if left_out > 0 else []
    return filled, {"hits": int(table["leading"].sum()), "differences": total, "fallbacks": fallbacks}


def _place(pairs: dict[str, np.ndarray], number: int, side: int) -> Place:
    return tuple(int(pairs[f"{part}_{side}"][number]) for part in ("ldc", "board", "channel"))  # type: ignore[return-value]


def _short(place: Place) -> str:
    return f"{place[0]}.{place[1]}.{place[2]}"


def _waveforms(rows: Any, filled: dict[str, Counts], step_size: str) -> None:
    keys = ["ldc", "equipment", "board", "channel"]
    for chunk in rows.iterate([*keys, "amplitude"], step_size=step_size, library="np"):
        places, which = np.unique(np.stack([chunk[key] for key in keys], axis=1), axis=0, return_inverse=True)
        for number, (ldc, equipment, board, channel) in enumerate(places.tolist()):
            title = f"LDC {ldc} flash ADC {equipment}.{board} channel {channel}"
            name = key_name("waveform", title)
            counts = filled.setdefault(name, Counts(name, f"{title}: amplitude", "ADU"))
            counts.fill(chunk["amplitude"][which.ravel() == number])
