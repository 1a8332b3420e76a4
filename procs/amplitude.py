"""proc2: what each pulse is worth. Traces go in, amplitudes, baselines, rise times and chi2 come out.

For Samba files the tree ``amplitudes`` has one entry per pulse with a trace, with the columns of
:data:`procs.analyser.COLUMNS`, by the optimal and the trapezoidal filter, for the signal and for the region before the
trigger. For DATE files see :mod:`procs.tdc`. Which template, noise spectrum and decay constant each channel got, and
every fallback, is in the result and in the file's provenance.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot

from orchestrator.errors import DataError, SettingsError
from orchestrator.step import Work
from procs.analyser import COLUMNS, Analyser, Recipe
from procs.options import choice, options
from procs.outputs import atomic_output, describe, place, plain
from procs.rootio import PROVENANCE, compression, distinct, opened, provenance, step_size, tree, trees, verified
from procs.tdc import analyse_tdc
from procs.templates import SHIPPED, TemplateDatabase

SAMPLE_BYTES = 8_000_000  # of traces kept per channel for the noise spectrum
MOST_GROUPS = 4096  # different (channel, points, pretrigger, spacing) in one file: more is a damaged file
POINTS_AT_ONCE = 1_000_000  # points analysed at once: 8 MB per intermediate array

DEFAULTS: dict[str, Any] = {
    "output": "amplitudes",  # folder, relative to the site's data folder
    "templates": "",  # the template database, a YAML file; empty: the one that is shipped
    "template": "database",  # or average: of each channel's own bright pulses in the file
    "remove_slope": True,  # fit a straight line along with the pulse, not only an offset
    "search": 0.02,  # how far from the trigger the pulse is looked for, as a part of the trace's length; 0: not at all
    "trapezoid_rise": 0.0,  # ms, each running mean; 0: a sixth of the time after the trigger
    "trapezoid_gap": 0.0,  # ms, flat top; 0: twice the template's time to peak
    "noise_traces": 500,  # traces per channel that the noise spectrum is made of, at most
    "step_size": "16 MB",  # memory for one chunk of traces
    "compression": "zstd-1",
    "tdc_pairs": 16,  # DATE: up to so many channels every pair's time difference, else those to the first channel
}

KEYS: dict[str, str] = {"pulse": "int64", "event": "int64", "channel": "int32", "stamp": "int64", "saturated": "bool"}
DAQ = ("base", "noise", "amplitude", "rise")  # the DAQ's own numbers, carried along as daq_base, ...

Group = tuple[int, int, int, float]  # channel, points, pretrigger, ms per point


@dataclass
class Channel:
    """What is known of a channel when the file is done."""

    name: str
    pulses: int = 0
    sums: dict[str, float] = field(default_factory=dict)


class Amplitude:
    """The step as a class: settings and the template database are read once per worker.

    Raises:
        SettingsError: a setting or the template database cannot be used.
    """

    def __init__(self, settings: dict[str, Any], log: logging.Logger) -> None:
        self.chosen = options(settings, "amplitude", DEFAULTS)
        choice(self.chosen.template, ("database", "average"), "template", "amplitude")
        if not 0 <= self.chosen.search < 0.5:
            raise SettingsError("the setting 'search' of the step amplitude must be from 0 to 0.5 (of a trace)")
        self.database = TemplateDatabase.load(Path(self.chosen.templates) if self.chosen.templates else SHIPPED)
        self.squeeze = compression(self.chosen.compression)
        step_size(self.chosen.step_size)
        self.recipe = Recipe(
            self.chosen.remove_slope,
            float(self.chosen.search),
            float(self.chosen.trapezoid_rise),
            float(self.chosen.trapezoid_gap),
            self.chosen.template,
        )
        log.info("%d templates from %s", len(self.database.templates), self.database.origin)

    def process(self, document: dict[str, Any], work: Work) -> dict[str, Any]:
        """Analyse ``work.input``, a file made by the step convert.

        Returns:
            ``file``, ``size``, ``checksum``; ``counts``, ``means``, ``channels`` (per channel: template, noise,
            resolution), ``fallbacks`` (sentences), ``skipped`` (what could not be analysed and why).
        """
        path = work.input
        target = place(work.output, work.settings, "amplitudes", document, str(document["_id"]), "_amplitudes.root")
        with opened(path) as file:
            found = trees(file)
            if "pulses" not in found and "hits" not in found:
                what = "a stream, which has no pulses" if "stream" in found else f"the trees {', '.join(found) or '-'}"
                raise DataError(f"{path} has {what}: this step needs 'pulses' or 'hits', made by the step convert")
            expected: dict[str, int] = {}

            def check(temporary: Path) -> None:
                verified(temporary, expected)

            with (
                atomic_output(target, work.attempt, check=check) as temporary,
                uproot.recreate(temporary, compression=self.squeeze) as out,
            ):
                if "pulses" in found:
                    entries, result = self._pulses(file, out, path, work)
                else:
                    entries, result = analyse_tdc(file, out, path, work, self.chosen)
                expected.update(entries)
                out[PROVENANCE] = provenance("amplitude", document, work, path, {"analysis": result})
        return plain({**describe(target), **result, "entries": expected})

    def _pulses(self, file: Any, out: Any, path: Path, work: Work) -> tuple[dict[str, int], dict[str, Any]]:
        pulses = tree(file, "pulses", path)
        names = distinct(str(name) for name in tree(file, "channels", path)["name"].array(library="np"))
        analysers, skipped, fallbacks = self._prepare(pulses, names, path)
        kinds = {**KEYS, **{f"daq_{name}": "float32" for name in DAQ}, **dict.fromkeys(COLUMNS, "float32")}
        rows_out = out.mktree("amplitudes", kinds)
        channels = {index: Channel(name) for index, name in enumerate(names)}
        total = int(pulses.num_entries)
        analysed = without = done = 0
        missed: dict[Group, int] = {}
        for chunk in _chunks(pulses, self.chosen.step_size):
            rows = np.zeros(chunk.count, dtype=bool)
            columns = {name: np.full(chunk.count, np.nan) for name in COLUMNS}
            saturated = np.zeros(chunk.count, dtype=bool)
            for group, members in chunk.groups():
                if group[1] == 0:
                    without += len(members)
                    continue
                analyser = analysers.get(group)
                if analyser is None:
                    missed[group] = missed.get(group, 0) + len(members)
                    continue
                step = max(1, POINTS_AT_ONCE // group[1])
                for start in range(0, len(members), step):
                    part = members[start : start + step]
                    traces = chunk.traces(part, group[1])
                    saturated[part] = (traces.max(axis=1) == 32767) | (traces.min(axis=1) == -32768)
                    for name, values in analyser.analyse(traces).items():
                        columns[name][part] = values
                rows[members] = True
                _count(channels[group[0]], columns, members)
            if rows.any():
                keys = {
                    "pulse": done + np.flatnonzero(rows),
                    "saturated": saturated[rows],
                    **{name: chunk.columns[name][rows] for name in ("event", "channel", "stamp")},
                    **{f"daq_{name}": chunk.columns[name][rows] for name in DAQ},
                    **{name: values[rows] for name, values in columns.items()},
                }
                rows_out.extend({name: keys[name].astype(kind) for name, kind in kinds.items()})
            analysed += int(rows.sum())
            done += chunk.count
            work.progress(0.2 + 0.8 * done / max(total, 1), f"{done} of {total} pulses")
        if done != total:
            raise DataError(f"{path}: {done} of {total} pulses could be read. Make the file again.")
        said: dict[str, Any] = {}
        for group, analyser in analysers.items():
            name = names[group[0]]
            said[name if name not in said else f"{name}, {group[1]} points, pretrigger {group[2]}"] = analyser.said()
        result = {
            "counts": {
                "pulses": total,
                "analysed": analysed,
                "without_trace": without,
                "skipped": sum(missed.values()),
                "per_channel": {channel.name: channel.pulses for channel in channels.values()},
            },
            "means": {c.name: {k: v / c.pulses for k, v in c.sums.items()} for c in channels.values() if c.pulses},
            "channels": said,
            "templates": {"file": self.database.origin, "version": self.database.version},
            "fallbacks": fallbacks,
            "skipped": [
                {
                    "channel": names[group[0]],
                    "points": group[1],
                    "pulses": count,
                    "reason": skipped.get(group, "the file has too many different kinds of traces"),
                }
                for group, count in list(missed.items())[:20]
            ],
        }
        for sentence in fallbacks:
            work.log.warning("%s", sentence)
        return {"amplitudes": analysed}, result

    def _prepare(
        self, pulses: Any, names: list[str], path: Path
    ) -> tuple[dict[Group, Analyser], dict[Group, str], list[str]]:
        """First pass: traces of each channel for its noise, then its analyser, or the reason why there is none."""
        samples: dict[Group, list[np.ndarray]] = {}
        room: dict[Group, int] = {}
        for chunk in _chunks(pulses, self.chosen.step_size):
            for group, members in chunk.groups():
                channel, points = group[0], group[1]
                if not 0 <= channel < len(names):
                    raise DataError(f"{path}: a pulse names the channel {channel}, but there are {len(names)}")
                if not points or (group not in samples and len(samples) >= MOST_GROUPS):
                    continue
                if group not in samples:
                    samples[group] = []
                    room[group] = max(32, min(self.chosen.noise_traces, SAMPLE_BYTES // (2 * points)))
                if room[group] > 0:
                    part = members[: room[group]]
                    samples[group].append(chunk.traces(part, points))
                    room[group] -= len(part)
            if len({group[0] for group in samples}) == len(names) and not any(left > 0 for left in room.values()):
                break
        analysers: dict[Group, Analyser] = {}
        skipped: dict[Group, str] = {}
        fallbacks: list[str] = []
        for group in list(samples):
            channel, _, pretrigger, spacing = group
            try:
                template = self.database.find(names[channel])
                analyser = Analyser(template, np.concatenate(samples.pop(group)), pretrigger, spacing, self.recipe)
            except ValueError as error:
                skipped[group] = str(error)
                continue
            analysers[group] = analyser
            if analyser.template.fallback:
                fallbacks.append(f"channel {names[channel]}: {analyser.template.fallback}")
        return analysers, skipped, fallbacks


@dataclass
class _Chunk:
    """Some pulses of a file: their numbers, and their samples one after the other."""

    columns: dict[str, np.ndarray]
    samples: np.ndarray
    lengths: np.ndarray

    @property
    def count(self) -> int:
        return len(self.lengths)

    def groups(self) -> Iterator[tuple[Group, np.ndarray]]:
        """The pulses that can be analysed together, as entries of the chunk."""
        keys = np.stack(
            [
                self.columns["channel"].astype(float),
                self.lengths.astype(float),
                self.columns["pretrigger"].astype(float),
                np.nan_to_num(self.columns["ns_per_point"], nan=0.0, posinf=0.0, neginf=0.0) * 1e-6,
            ],
            axis=1,
        )
        if not len(keys):
            return
        kinds, which = np.unique(keys, axis=0, return_inverse=True)
        order = np.argsort(which.ravel(), kind="stable")
        bounds = np.cumsum(np.bincount(which.ravel(), minlength=len(kinds)))[:-1]
        for kind, members in zip(kinds, np.split(order, bounds), strict=True):
            yield (int(kind[0]), int(kind[1]), int(kind[2]), float(kind[3])), members

    def traces(self, members: np.ndarray, points: int) -> np.ndarray:
        """The traces of pulses that all have ``points`` points, shape (len(members), points)."""
        starts = np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])[members]
        return self.samples[starts[:, None] + np.arange(points)]


def _chunks(pulses: Any, step_size: str) -> Iterator[_Chunk]:
    wanted = ["event", "channel", "stamp", "pretrigger", "ns_per_point", *DAQ]
    for chunk in pulses.iterate([*wanted, "trace"], step_size=step_size, library="ak"):
        columns = {name: ak.to_numpy(chunk[name]) for name in wanted}
        samples = ak.to_numpy(ak.flatten(chunk["trace"])).astype(np.int16, copy=False)
        yield _Chunk(columns, samples, ak.to_numpy(ak.num(chunk["trace"])))


def _count(channel: Channel, columns: dict[str, np.ndarray], members: np.ndarray) -> None:
    channel.pulses += len(members)
    for name in ("baseline", "slope", "noise", "optimal_amplitude", "trapezoid_amplitude"):
        channel.sums[name] = channel.sums.get(name, 0.0) + float(np.nansum(columns[name][members]))
