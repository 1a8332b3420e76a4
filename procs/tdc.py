"""The analysis of TDC files (DATE): time differences and hit maps; waveforms, where there are any.

- ``differences``: one entry per particle trigger and pair of channels that both have a leading edge in it:
  ``trigger``, ``spill``, ``pair`` (entry in ``pairs``), ``ns`` (second minus first, the first leading edge of
  each), ``residual_ns`` (the same minus the pair's mean in that spill).
- ``pairs``: one entry per pair: ``ldc_1``, ``board_1``, ``channel_1``, ``ldc_2``, ``board_2``, ``channel_2``,
  ``entries``.
- ``hitmap``: one entry per channel: ``ldc``, ``board``, ``channel``, ``leading``, ``trailing``, ``triggers`` (with
  a hit).
- ``waveform_amplitudes``: one entry per waveform: where it comes from, ``baseline`` and ``noise`` (of its first
  eighth), ``amplitude`` (largest deviation, with its sign), ``peak`` (point), ``integral`` (ADU * points).

A TDC's time runs over every 2**21 counts; differences are taken around zero, so they are right up to 26 us. Boards that
are not driven by one clock (those of the real file are not) differ by an amount of their own in every spill, and drift:
between two boards look at ``residual_ns``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import awkward as ak
import numpy as np

from orchestrator.step import Work
from procs.formats.date_layout import NS_PER_COUNT
from procs.rootio import tree, trees

TURN = 1 << 21  # counts after which a V1290's time begins again
BASELINE_PART = 8  # the first eighth of a waveform comes before its pulse
TRIGGERS_AT_ONCE = 50_000  # rows of the table of first hits in memory
ROWS_AT_ONCE = 400_000  # hits read at once

DIFFERENCES = {"trigger": "int64", "spill": "int64", "pair": "int32", "ns": "float64", "residual_ns": "float64"}
PAIRS = {
    **{f"{name}_{side}": "int32" for side in (1, 2) for name in ("ldc", "board", "channel")},
    "entries": "int64",
}
HITMAP = {
    **dict.fromkeys(("ldc", "board", "channel"), "int32"),
    **dict.fromkeys(("leading", "trailing", "triggers"), "int64"),
}
MEASURED = ("baseline", "noise", "amplitude", "peak", "integral")
WAVEFORMS = {
    **dict.fromkeys(("trigger", "spill"), "int64"),
    **dict.fromkeys(("ldc", "equipment", "kind", "board", "channel"), "int32"),
    **dict.fromkeys(MEASURED, "float32"),
}

Place = tuple[int, int, int]  # LDC, board, channel


def place_name(place: Place) -> str:
    """A TDC channel's name in results and titles."""
    return f"LDC {place[0]} board {place[1]} channel {place[2]}"


def analyse_tdc(
    file: Any, out: Any, path: Path, work: Work, chosen: SimpleNamespace
) -> tuple[dict[str, int], dict[str, Any]]:
    """Write the trees above from a converted DATE file; entries of each tree, and the numbers for the result."""
    hits = tree(file, "hits", path)
    leading, trailing, with_hit = _map(hits, work)
    places = sorted(set(leading) | set(trailing))
    active = [place for place in places if leading.get(place)]
    pairs = _pairs(active, chosen.tdc_pairs)
    index = {place: number for number, place in enumerate(active)}

    differences = out.mktree("differences", DIFFERENCES)
    counted = np.zeros(len(pairs), dtype=np.int64)
    sums = np.zeros((3, len(pairs)))  # of ns, ns squared, residual squared
    for triggers, spills, first in _first_hits(hits, index):
        for number, (one, two) in enumerate(pairs):
            both = (first[:, index[one]] >= 0) & (first[:, index[two]] >= 0)
            apart = first[both, index[two]] - first[both, index[one]]
            ns = ((apart + TURN // 2) % TURN - TURN // 2) * NS_PER_COUNT
            if not len(ns):
                continue
            _, spill = np.unique(spills[both], return_inverse=True)
            residual = ns - (np.bincount(spill, ns) / np.bincount(spill))[spill]
            differences.extend(
                {
                    "trigger": triggers[both],
                    "spill": spills[both],
                    "pair": np.full(len(ns), number, dtype=np.int32),
                    "ns": ns,
                    "residual_ns": residual,
                }
            )
            counted[number] += len(ns)
            sums[:, number] += ns.sum(), (ns**2).sum(), (residual**2).sum()
        work.progress(0.6, f"{int(counted.sum())} differences")
    entries = {"differences": int(counted.sum()), "pairs": len(pairs), "hitmap": len(places)}
    table = out.mktree("pairs", PAIRS)
    if pairs:
        columns = {
            f"{name}_{side}": np.array([pair[side - 1][part] for pair in pairs], dtype=np.int32)
            for side in (1, 2)
            for part, name in enumerate(("ldc", "board", "channel"))
        }
        table.extend({**columns, "entries": counted})
    hitmap = out.mktree("hitmap", HITMAP)
    if places:
        columns = {
            name: np.array([place[part] for place in places], dtype=np.int32)
            for part, name in enumerate(("ldc", "board", "channel"))
        }
        for name, numbers in (("leading", leading), ("trailing", trailing), ("triggers", with_hit)):
            columns[name] = np.array([numbers.get(place, 0) for place in places], dtype=np.int64)
        hitmap.extend(columns)
    if "waveforms" in trees(file):
        entries["waveform_amplitudes"] = _waveforms(file["waveforms"], out, chosen.step_size)
    means = sums[0] / np.maximum(counted, 1)
    spread = np.sqrt(np.maximum(sums[1] / np.maximum(counted, 1) - means**2, 0))
    inner = np.sqrt(sums[2] / np.maximum(counted, 1))
    wide = len(active) > chosen.tdc_pairs
    result = {
        "counts": {
            "hits": int(hits.num_entries),
            "leading": sum(leading.values()),
            "trailing": sum(trailing.values()),
            "channels": len(places),
            "pairs": len(pairs),
            "differences": entries["differences"],
            "waveforms": entries.get("waveform_amplitudes", 0),
        },
        "hitmap": {place_name(place): leading.get(place, 0) for place in places[:200]},
        "differences": {
            f"{place_name(two)} - {place_name(one)}": {
                "entries": int(counted[number]),
                "mean_ns": float(means[number]),
                "spread_ns": float(spread[number]),
                "spread_in_spill_ns": float(inner[number]),
            }
            for number, (one, two) in enumerate(pairs[:100])
        },
        "pairs_of": f"each channel and {place_name(active[0])}" if wide else "every two channels",
    }
    return entries, result


def _pairs(active: list[Place], most: int) -> list[tuple[Place, Place]]:
    if len(active) <= most:
        return [(one, two) for number, one in enumerate(active) for two in active[number + 1 :]]
    return [(active[0], two) for two in active[1:]]


def _chunks(hits: Any) -> Iterator[dict[str, np.ndarray]]:
    wanted = ["trigger", "spill", "ldc", "board", "channel", "edge", "time"]
    yield from hits.iterate(wanted, step_size=ROWS_AT_ONCE, library="np")


def _places(chunk: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    keys = np.stack([chunk["ldc"], chunk["board"], chunk["channel"]], axis=1)
    found, which = np.unique(keys, axis=0, return_inverse=True)
    return found, which.ravel()


def _map(hits: Any, work: Work) -> tuple[dict[Place, int], dict[Place, int], dict[Place, int]]:
    """Leading edges, trailing edges, and triggers with a leading edge, of each channel."""
    leading: dict[Place, int] = {}
    trailing: dict[Place, int] = {}
    with_hit: dict[Place, int] = {}
    last: dict[Place, int] = {}  # a trigger's hits may be parted between two chunks
    done = 0
    for chunk in _chunks(hits):
        found, which = _places(chunk)
        for number, row in enumerate(found):
            place = (int(row[0]), int(row[1]), int(row[2]))
            mine = which == number
            front = mine & (chunk["edge"] == 0)
            leading[place] = leading.get(place, 0) + int(front.sum())
            trailing[place] = trailing.get(place, 0) + int(mine.sum() - front.sum())
            seen = np.unique(chunk["trigger"][front])
            if len(seen):
                again = int(last.get(place) == int(seen[0]))
                with_hit[place] = with_hit.get(place, 0) + len(seen) - again
                last[place] = int(seen[-1])
        done += len(which)
        work.progress(0.3 * done / max(int(hits.num_entries), 1), f"{done} hits")
    return leading, trailing, with_hit


def _first_hits(hits: Any, index: dict[Place, int]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Blocks of (triggers, their spills, table of first leading times by trigger and channel; -1 without).

    Hits stand spill by spill, and in a spill board by board: a block ends where a spill ends.
    """
    held: list[dict[str, np.ndarray]] = []
    for chunk in _chunks(hits):
        held.append(chunk)
        joined = {name: np.concatenate([part[name] for part in held]) for name in chunk}
        last = joined["spill"][-1] if len(joined["spill"]) else 0
        ends = np.flatnonzero(joined["spill"] != last)
        complete = int(ends[-1]) + 1 if len(ends) else 0
        if complete:
            yield from _tables({name: values[:complete] for name, values in joined.items()}, index)
        held = [{name: values[complete:] for name, values in joined.items()}]
    if held:
        yield from _tables(held[0], index)


def _tables(
    rows: dict[str, np.ndarray], index: dict[Place, int]
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    front = rows["edge"] == 0
    rows = {name: values[front] for name, values in rows.items()}
    if not len(rows["trigger"]):
        return
    found, which = _places(rows)
    columns = np.array([index[(int(r[0]), int(r[1]), int(r[2]))] for r in found])[which]
    triggers, first_row, line = np.unique(rows["trigger"], return_index=True, return_inverse=True)
    spills = rows["spill"][first_row]
    for start in range(0, len(triggers), TRIGGERS_AT_ONCE):
        stop = min(start + TRIGGERS_AT_ONCE, len(triggers))
        table = np.full((stop - start, len(index)), -1, dtype=np.int64)
        inside = np.flatnonzero((line >= start) & (line < stop))[::-1]
        # Written from the back, so that the first leading edge of each stays.
        table[line[inside] - start, columns[inside]] = rows["time"][inside]
        yield triggers[start:stop], spills[start:stop], table


def _waveforms(waveforms: Any, out: Any, step_size: str) -> int:
    result = out.mktree("waveform_amplitudes", WAVEFORMS)
    keys = ["trigger", "spill", "ldc", "equipment", "kind", "board", "channel"]
    written = 0
    for chunk in waveforms.iterate([*keys, "trace"], step_size=step_size, library="ak"):
        lengths = ak.to_numpy(ak.num(chunk["trace"]))
        samples = ak.to_numpy(ak.flatten(chunk["trace"]))
        starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        columns = {name: np.full(len(lengths), np.nan) for name in MEASURED}
        for points in np.unique(lengths):
            if points < BASELINE_PART:
                continue
            mine = np.flatnonzero(lengths == points)
            traces = samples[starts[mine][:, None] + np.arange(points)].astype(float)
            region = traces[:, : points // BASELINE_PART]
            baseline = region.mean(axis=1)
            level = traces - baseline[:, None]
            peak = np.argmax(np.abs(level), axis=1)
            columns["baseline"][mine], columns["noise"][mine] = baseline, region.std(axis=1)
            columns["peak"][mine], columns["amplitude"][mine] = peak, level[np.arange(len(mine)), peak]
            columns["integral"][mine] = level.sum(axis=1)
        rows = {**{name: ak.to_numpy(chunk[name]) for name in keys}, **columns}
        if len(lengths):
            result.extend({name: rows[name].astype(kind) for name, kind in WAVEFORMS.items()})
        written += len(lengths)
    return written
