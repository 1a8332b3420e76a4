"""What the step ``convert`` has written, as an input: spills as they were decoded, or batches of Samba events.

``data["date"]`` and ``data["events"]`` are what ``procs.online.maps.date:Decode`` makes of the raw file, so the same
maps and reducers give the same histograms; ``data["samba"]`` is what ``SambaInput`` gives. In the configuration the map
``Decode`` may stay: it leaves such spills as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import awkward as ak
import numpy as np

from orchestrator.errors import FormatError
from orchestrator.online.spill import Item, Spill
from procs.formats import date_layout as layout
from procs.online.inputs import whole
from procs.rootio import opened, trees

SPILLS_AT_ONCE = 32  # DATE spills whose columns are in memory
DATE = {"events", "spills", "triggers", "hits", "waveforms", "scalers", "raw"}  # the trees of a converted DATE file
SAMBA = {"events", "pulses", "channels"}
PARTS = {"triggers": "trigger_", "hits": "hit_", "waveforms": "wave_", "scalers": "scaler_", "raw": "raw_"}
RENAMED = {"trigger_index": "trigger_index", "hit_index": "hit_trigger", "wave_index": "wave_trigger"}
OWN = ("event", "offset", "size", "type", "run", "spill", "number", "seconds", "microseconds", "triggers", "hits",
       "waveforms", "tdc_errors", "trigger_word")  # fmt: skip
TABLE = ("offset", "size", "type", "run", "spill", "number", "seconds", "microseconds", "sub_events")


class ConvertedInput(whole.WholeFiles):
    """Outputs of the step ``convert``, of DATE or Samba files, in the order of their names."""

    version: ClassVar[str] = "1"
    defaults: ClassVar[Mapping[str, Any]] = {**whole.WholeFiles.defaults, "events": 100}
    settings_help: ClassVar[Mapping[str, str]] = {
        **whole.WholeFiles.settings_help, "events": "Samba events of one batch at most",
    }  # fmt: skip

    def of_file(self, path: str, place: int) -> Iterator[Item]:
        """The items of one file; ``place`` is an entry of the tree ``spills``, or ``events`` of Samba."""
        with opened(Path(path)) as file:
            found = set(trees(file))
            if found >= DATE:
                yield from self._date(file, place)
            elif found >= SAMBA:
                yield from self._samba(file, path, place)
            else:
                raise FormatError("this is no output of the step convert: use RootInput for other trees", path=path)

    # -- DATE

    def _date(self, file: Any, place: int) -> Iterator[Item]:
        own = file["spills"].arrays(OWN, library="np")
        table = file["events"].arrays(TABLE, library="np")
        entries = {name: file[name]["spill_entry"].array(library="np") for name in PARTS}
        groups = _groups(own["run"], own["spill"])
        for block in range(0, len(groups), SPILLS_AT_ONCE):
            some = [group for group in groups[block : block + SPILLS_AT_ONCE] if group[1] > place]
            if not some:
                continue
            span = (some[0][0], some[-1][1])
            columns = {name: _read(file[name], _rows(entries[name], span)) for name in PARTS}
            for start, stop in some:
                run, number = str(int(own["run"][start])), int(own["spill"][start])
                rows = _table(table, int(own["run"][start]), number)
                begun = float(rows["seconds"][0]) + float(rows["microseconds"][0]) / 1e6 if len(rows["run"]) else None
                yield from self._marks.begin(run, begun, {"format": "ROOT", "converted": "DATE"})
                data = _batch(own, columns, entries, span, (start, stop))
                data["date"].update({f"table_{name}": values for name, values in rows.items()})
                number = self._marks.number(number)
                self._place = stop
                yield Spill(run, number, begun, None, data)
        if np.any(table["type"] == layout.END_OF_RUN):
            self._place = whole.ALL
            yield from self._marks.end("trailer")

    # -- Samba

    def _samba(self, file: Any, path: str, place: int) -> Iterator[Item]:
        channels = file["channels"].arrays(["name", "detector", "kind"], library="ak").to_list()
        events, pulses = file["events"], file["pulses"]
        total, step = int(events.num_entries), int(self.settings["events"])
        for first in range(place, total, step):
            stop = min(first + step, total)
            one = events.arrays(entry_start=first, entry_stop=stop, library="ak")
            begin = int(one["first_pulse"][0])
            end = int(one["first_pulse"][-1]) + int(one["pulses"][-1])
            parts = pulses.arrays(entry_start=begin, entry_stop=end, library="ak")
            data = _flat(one, ("run", "condition", "first_pulse", "pulses")) | _flat(parts, ("event", "stamp", "trace"))
            run = str(one["run"][0])
            data |= {
                "first": first, "counts": ak.to_numpy(one["pulses"]), "pulse_stamp": ak.to_numpy(parts["stamp"]),
                "stamp": ak.to_numpy(one["stamp"]), "lengths": ak.to_numpy(ak.num(parts["trace"])).astype(np.int32),
                "samples": ak.to_numpy(ak.flatten(parts["trace"])), "channels": [one["name"] for one in channels],
                "detectors": [one["detector"] for one in channels], "kinds": [one["kind"] for one in channels],
                "file": path, "file_number": int(one["file_number"][0]),
            }  # fmt: skip
            at = float(data["seconds"][0]) + float(data["microseconds"][0]) / 1e6
            yield from self._marks.begin(run, at, {"format": "ROOT", "converted": "Samba"})
            number = self._marks.number()
            self._place = stop
            yield Spill(run, number, at, None, {"samba": data})


def _groups(run: np.ndarray, spill: np.ndarray) -> list[tuple[int, int]]:
    """Where spills begin and end: entries with the same run and number that lie side by side."""
    if not len(run):
        return []
    edges = np.flatnonzero((np.diff(run) != 0) | (np.diff(spill) != 0)) + 1
    starts = [0, *edges.tolist()]
    return list(zip(starts, [*edges.tolist(), len(run)], strict=True))


def _rows(entries: np.ndarray, span: tuple[int, int]) -> tuple[int, int]:
    """The rows that belong to these entries of ``spills``; they are in that order."""
    return int(np.searchsorted(entries, span[0])), int(np.searchsorted(entries, span[1]))


def _read(tree: Any, rows: tuple[int, int]) -> dict[str, Any]:
    names = [name for name in tree.keys(recursive=False) if not name.startswith("n") or name[1:] not in tree]
    found = tree.arrays(names, entry_start=rows[0], entry_stop=rows[1], library="ak")
    return {name: found[name] for name in names}


def _table(table: dict[str, np.ndarray], run: int, spill: int) -> dict[str, np.ndarray]:
    kinds = np.isin(table["type"], list(layout.WITH_EQUIPMENT))
    mine = kinds & (table["run"] == run) & (table["spill"] == spill)
    return {name: values[mine] for name, values in table.items()}


def _batch(
    own: dict[str, np.ndarray], columns: dict[str, dict[str, Any]], entries: dict[str, np.ndarray],
    span: tuple[int, int], group: tuple[int, int],
) -> dict[str, Any]:  # fmt: skip
    """The columns of one spill, as ``Decode`` has them."""
    date: dict[str, Any] = {name: own[name][group[0] : group[1]] for name in OWN}
    for tree, prefix in PARTS.items():
        before = _rows(entries[tree], span)[0]
        start, stop = (row - before for row in _rows(entries[tree], group))
        for name, values in columns[tree].items():
            part = values[start:stop]
            if name in ("trace", "words") and part.ndim > 1:
                lengths, flat = ("lengths", "samples") if name == "trace" else ("raw_lengths", "raw_words")
                date[lengths] = ak.to_numpy(ak.num(part)).astype(np.int32)
                date[flat] = ak.to_numpy(ak.flatten(part))
            elif name == "spill_entry":
                date[f"{prefix}event"] = (ak.to_numpy(part) - group[0]).astype(np.int32)
            elif name != "trigger":
                key = f"{prefix}{name}"
                date[RENAMED.get(key, key)] = ak.to_numpy(part)
    date["hit_time_ns"] = date["hit_time"] * layout.NS_PER_COUNT
    seconds = date["seconds"] + date["microseconds"] * 1e-6
    events = {"seconds": seconds, "bytes": date["size"], "triggers": date["triggers"].astype(np.int64)}
    return {"date": date, "events": events, "problems": {}}


def _flat(arrays: Any, without: tuple[str, ...]) -> dict[str, Any]:
    """The plain columns."""
    names = [name for name in arrays.fields if name not in without and name != "ntrace"]
    return {name: ak.to_numpy(arrays[name]) for name in names}
