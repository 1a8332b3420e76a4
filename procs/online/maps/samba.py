"""Samba batches as numbers: what each pulse is worth.

A "spill" is a batch of events of one file. Its input gives ``data["samba"]``: the columns of
:class:`procs.formats.samba_batch.SambaBatch` and ``channels``, each a name or a table with ``name``. ``Pulses`` makes
``events``, ``pulses`` and ``traces`` of it (see ``procs.online.maps.date``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from orchestrator.errors import DataError, SettingsError
from orchestrator.online.module import Map, RunConfiguration
from orchestrator.online.spill import Spill
from procs.analyser import LEAST_POINTS, Analyser, Recipe
from procs.online.maps.date import first_of_each, traces_of
from procs.templates import SHIPPED, TemplateDatabase

COLUMNS = ("baseline", "noise", "amplitude", "rise_ms")
SAMPLE = 2  # bytes


class Pulses(Map):
    """Amplitude, baseline, noise and rise time of every pulse with a trace, by the optimal filter.

    The noise spectrum of each channel is made of the batch's own traces, so the result depends on nothing but the
    batch, whichever worker has it. Templates are read once for each worker, sampled once for each trace length, and
    the transforms' plans are kept by scipy.
    """

    defaults: ClassVar = {"templates": "", "remove_slope": True, "search": 0.02, "traces": 8, "drop": True}
    settings_help: ClassVar = {
        "templates": "the template database, a YAML file; empty: the one that is shipped",
        "remove_slope": "fit a straight line along with the pulse, not only an offset",
        "search": "how far from the trigger the pulse is looked for, as a part of the trace's length",
        "traces": "traces of each channel and batch that are kept for the picture of traces; -1: all",
        "drop": "remove the samples from the batch afterwards",
    }

    def birth(self, configuration: RunConfiguration) -> None:
        """Read the templates. Raises SettingsError."""
        if not 0 <= float(self.settings["search"]) < 0.5:
            raise SettingsError("the setting `search` of Pulses must be from 0 to 0.5 (of a trace)")
        path = Path(self.settings["templates"]) if self.settings["templates"] else SHIPPED
        self._templates = TemplateDatabase.load(path)
        self._recipe = Recipe(bool(self.settings["remove_slope"]), float(self.settings["search"]))

    def process(self, spill: Spill) -> None:
        """Raises DataError for a spill without ``data["samba"]``."""
        samba = spill.data.get("samba")
        if not isinstance(samba, Mapping):
            raise DataError(f"spill {spill.number} of run {spill.run} is no batch of Samba events")
        names = [str(one["name"] if isinstance(one, Mapping) else one) for one in samba["channels"]]
        channel = np.asarray(samba["channel"], dtype=np.int32)
        lengths = np.asarray(samba["lengths"], dtype=np.int64)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        pulses = {name: np.full(len(channel), np.nan) for name in COLUMNS}
        problems: dict[str, str] = {}
        for (index, points, pretrigger, spacing), members in _groups(samba, channel, lengths):
            traces = samba["samples"][starts[members][:, None] + np.arange(points)]
            try:
                analyser = Analyser(self._templates.find(names[index]), traces, pretrigger, spacing, self._recipe)
            except ValueError as error:
                problems[names[index]] = str(error)
                continue
            except IndexError:
                raise DataError(f"a pulse names the channel {index}, but there are {len(names)}") from None
            found = analyser.analyse(traces)
            for name in COLUMNS:
                pulses[name][members] = found["optimal_amplitude" if name == "amplitude" else name]
        spill.data["pulses"] = {"names": names, "channel": channel, **pulses}
        there = np.flatnonzero(lengths > 0)
        kept = there[first_of_each(channel[there], int(self.settings["traces"]))]
        spill.data["traces"] = traces_of(samba["samples"], starts, lengths, kept, names, channel[kept])
        spill.data["traces"]["ns_per_point"] = np.asarray(samba["ns_per_point"], dtype=float)[kept]
        spill.data["events"] = _events(samba, lengths)
        if problems:
            spill.data["problems"] = problems
        if self.settings["drop"]:
            changed = dict(samba)
            changed["samples"], changed["lengths"] = samba["samples"][:0], np.zeros_like(lengths)
            spill.data["samba"] = changed


def _groups(
    samba: Mapping[str, Any], channel: np.ndarray, lengths: np.ndarray
) -> Iterator[tuple[tuple[int, int, int, float], np.ndarray]]:
    """Pulses that can be analysed together: channel, points, points before the trigger, ms per point."""
    spacing = np.nan_to_num(np.asarray(samba["ns_per_point"], dtype=float), nan=0.0, posinf=0.0, neginf=0.0) * 1e-6
    columns = (channel, lengths, np.asarray(samba["pretrigger"]), spacing)
    keys = np.stack([column.astype(float) for column in columns], axis=1)
    there = np.flatnonzero(lengths >= LEAST_POINTS)
    kinds, which = np.unique(keys[there], axis=0, return_inverse=True)
    for number, kind in enumerate(kinds.tolist()):
        yield (int(kind[0]), int(kind[1]), int(kind[2]), kind[3]), there[which.ravel() == number]


def _events(samba: Mapping[str, Any], lengths: np.ndarray) -> dict[str, Any]:
    counts = np.asarray(samba["counts"], dtype=np.int64)
    event = np.repeat(np.arange(len(counts)), counts)
    return {
        "seconds": np.asarray(samba["seconds"], float) + np.asarray(samba["microseconds"], float) * 1e-6,
        "bytes": np.bincount(event, lengths * SAMPLE, minlength=len(counts)).astype(np.int64),
        "triggers": np.ones(len(counts), dtype=np.int64),
    }
