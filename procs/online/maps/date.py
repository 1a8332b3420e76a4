"""DATE spills as numbers: decoding, and what the flash ADCs' waveforms are worth.

``Decode`` makes ``data["date"]``, the columns of :class:`procs.formats.date_spills.SpillBatch`, and ``data["events"]``.
``Waveforms`` makes ``data["pulses"]`` and ``data["traces"]`` of it. The last three are the same for every format:

- ``events``: ``seconds`` (unix, float64), ``bytes``, ``triggers`` (int64), an entry an event.
- ``pulses``: ``names`` of channels; an entry a pulse: ``channel`` (entry in ``names``), ``baseline``, ``noise``,
  ``amplitude`` (ADU), ``rise_ms`` (NaN where it is not known).
- ``traces``: ``names``; an entry a trace: ``channel``, ``lengths`` (points), ``ns_per_point``; and ``samples``, int16,
  one trace after the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from orchestrator.errors import DataError, FormatError, SettingsError
from orchestrator.online.module import Map
from orchestrator.online.spill import Spill
from procs.formats import date_layout as layout
from procs.formats.date_memory import DateMemory
from procs.formats.date_spills import SpillBatch

COLUMNS = tuple(field.name for field in fields(SpillBatch))
ALL = 1 << 30  # physics events of one spill at most in a batch: all of them
BASELINE_PART = 8  # the first eighth of a waveform comes before its pulse, as in the step amplitude
NS_PER_POINT = {layout.V1724: 10.0, layout.V1731: 2.0}  # 100 and 500 MS/s: CAEN's data sheets


class Decode(Map):
    """Raw DATE events become columns; the raw bytes go.

    ``data["raw"]`` is ``{"file", "offset", "size"}`` or ``{"bytes"}``. A spill that another module has decoded already
    is left as it is.
    """

    defaults: ClassVar = {"strict": False, "waveforms": True, "raw_words": False}
    settings_help: ClassVar = {
        "strict": "an inconsistency inside a board's words fails the spill; else it is counted in `problems`",
        "waveforms": "keep the flash ADCs' samples: most of a spill's bytes",
        "raw_words": "keep the words of boards that are not decoded",
    }

    def process(self, spill: Spill) -> None:
        """Raises FormatError for bytes that are no DATE events, DataError where there are none or the file is away."""
        if "date" in spill.data:
            return
        raw = spill.data.get("raw")
        if not isinstance(raw, Mapping):
            raise DataError(f"spill {spill.number} of run {spill.run} has no raw data: is its input one of DATE?")
        content, origin, base = raw_bytes(raw)
        file = DateMemory(content, origin, base, strict=bool(self.settings["strict"]))
        batches = list(file.spills(ALL))
        batch = batches[0]
        columns = {name: getattr(batch, name) for name in COLUMNS}
        if not self.settings["waveforms"]:
            columns["samples"] = columns["samples"][:0]
            columns["lengths"] = np.zeros_like(columns["lengths"])
        if not self.settings["raw_words"]:
            columns["raw_words"] = columns["raw_words"][:0]
            columns["raw_lengths"] = np.zeros_like(columns["raw_lengths"])
        del spill.data["raw"]
        spill.data["date"] = columns
        spill.data["problems"] = {str(key): count for key, count in file.problems.items()}
        spill.data["events"] = {
            "seconds": batch.seconds + batch.microseconds * 1e-6,
            "bytes": batch.size,
            "triggers": batch.triggers.astype(np.int64),
        }


def raw_bytes(raw: Mapping[str, Any]) -> tuple[bytes, str, int]:
    """A spill's raw bytes, where they are from, and their offset there. Raises DataError."""
    if isinstance(raw.get("bytes"), bytes):
        return raw["bytes"], str(raw.get("origin") or "the DAQ's connection"), 0
    try:
        path, offset, size = Path(str(raw["file"])), int(raw["offset"]), int(raw["size"])
    except (KeyError, TypeError, ValueError):
        raise DataError("raw data are named by file, offset and size, or are bytes") from None
    try:
        with path.open("rb") as file:
            file.seek(offset)
            content = file.read(size)
    except OSError as error:
        raise DataError(f"the raw file {path} cannot be read on this machine: {error.strerror}") from error
    if len(content) != size:
        raise FormatError(f"{size} bytes were to be there, found {len(content)}", path=str(path), offset=offset)
    return content, str(path), offset


class Waveforms(Map):
    """What each flash ADC waveform is worth: baseline, noise, amplitude; and some of the waveforms themselves."""

    defaults: ClassVar = {"traces": 8, "drop": True}
    settings_help: ClassVar = {
        "traces": "waveforms of each channel and spill that are kept for the picture of traces; -1: all",
        "drop": "remove the samples from the decoded columns afterwards",
    }

    def __init__(self, settings: Mapping[str, Any] | None = None, log: Any = None) -> None:
        super().__init__(settings, log)
        if not isinstance(self.settings["traces"], int) or self.settings["traces"] < -1:
            raise SettingsError("the setting `traces` of Waveforms is a number of waveforms, or -1 for all")

    def process(self, spill: Spill) -> None:
        """Raises DataError where the spill is not decoded."""
        date = spill.data.get("date")
        if date is None:
            raise DataError("Waveforms needs decoded spills: put procs.online.maps.date:Decode in front of it")
        lengths = date["lengths"]
        there = np.flatnonzero(lengths >= BASELINE_PART)
        place = ("ldc", "equipment", "board", "channel", "kind")
        keys = np.stack([date[f"wave_{name}"][there] for name in place], axis=1)
        places, which = np.unique(keys, axis=0, return_inverse=True)
        which = which.ravel().astype(np.int32)
        names = [f"LDC {p[0]} ADC {p[1]} board {p[2]} channel {p[3]}" for p in places.tolist()]
        starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        pulses = {name: np.zeros(len(there)) for name in ("baseline", "noise", "amplitude")}
        for points in np.unique(lengths[there]).tolist():
            mine = np.flatnonzero(lengths[there] == points)
            traces = date["samples"][starts[there[mine]][:, None] + np.arange(points)].astype(float)
            region = traces[:, : points // BASELINE_PART]
            baseline = region.mean(axis=1)
            level = traces - baseline[:, None]
            peak = np.argmax(np.abs(level), axis=1)
            pulses["baseline"][mine], pulses["noise"][mine] = baseline, region.std(axis=1)
            pulses["amplitude"][mine] = level[np.arange(len(mine)), peak]
        spill.data["pulses"] = {"names": names, "channel": which, **pulses, "rise_ms": np.full(len(there), np.nan)}
        kept = there[first_of_each(which, self.settings["traces"])]
        spacing = np.array([NS_PER_POINT.get(p[4], 0.0) for p in places.tolist()])
        spill.data["traces"] = traces_of(date["samples"], starts, lengths, kept, names, which[np.isin(there, kept)])
        spill.data["traces"]["ns_per_point"] = spacing[spill.data["traces"]["channel"]] if len(kept) else np.zeros(0)
        if self.settings["drop"]:
            date["samples"] = date["samples"][:0]
            date["lengths"] = np.zeros_like(lengths)


def first_of_each(which: np.ndarray, most: int) -> np.ndarray:
    """The places of the first ``most`` members of each kind, in order; all where it is -1."""
    if most < 0:
        return np.arange(len(which))
    order = np.argsort(which, kind="stable")
    rank = np.empty(len(which), dtype=np.int64)
    counts = np.bincount(which) if len(which) else np.zeros(0, dtype=np.int64)
    rank[order] = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.flatnonzero(rank < most)


def traces_of(
    samples: np.ndarray,
    starts: np.ndarray,
    lengths: np.ndarray,
    kept: np.ndarray,
    names: list[str],
    channel: np.ndarray,
) -> dict[str, Any]:
    """The traces with the places ``kept`` out of many, one after the other."""
    parts = [samples[starts[place] : starts[place + 1]] for place in kept.tolist()]
    return {
        "names": names,
        "channel": channel.astype(np.int32),
        "lengths": lengths[kept].astype(np.int32),
        "samples": np.concatenate(parts) if parts else np.zeros(0, dtype=np.int16),
    }
