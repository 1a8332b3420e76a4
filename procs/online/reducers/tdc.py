"""TDC boards: triggers and hits, occupancy of channels, time differences between boards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from orchestrator.online.spill import Spill
from procs.formats.date_layout import NS_PER_COUNT
from procs.online.reducers.base import Family, Histograms, by_kind, numbers, regular, wanted
from procs.tdc import TURN

BOARDS = 32  # a VME board's geographical address has five bits
CHANNELS = 32  # of a V1290
NEEDS = "put procs.online.maps.date:Decode under `map`"
FULL_NS = TURN * NS_PER_COUNT


def _date(spill: Spill, reducer: str) -> Any:
    return wanted(spill.data, "date", reducer, NEEDS)


def _boards(columns: Any, prefix: str) -> Iterator[tuple[int, int, np.ndarray]]:
    """LDC, board, and the places of its rows."""
    keys = columns[f"{prefix}ldc"].astype(np.int64) * BOARDS + columns[f"{prefix}board"]
    for key, members in by_kind(keys):
        yield key // BOARDS, key % BOARDS, members


class TdcHits(Histograms):
    """Triggers and hits of each TDC board, hits per trigger, and when they come."""

    defaults: ClassVar = {
        "hits": 64,  # the largest number of hits in one trigger that is shown
        "bins": 500,  # of the hits' times
        "low": 0.0,  # ns, of the hits' times
        "high": FULL_NS,  # ns: all that a V1290 can say
    }
    families = (
        Family(
            "tdc/triggers", "TDC triggers, {label}", lambda s: [numbers(0, BOARDS, "board")],
            "Particle triggers that each TDC board has recorded.",
            "Every board should have the same number. A board with less has missed triggers: look at its busy light "
            "and cable; one with none is off or not read out.",
            ("tdc", "trigger", "board"),
        ),
        Family(
            "tdc/hits", "TDC hits, {label}", lambda s: [numbers(0, BOARDS, "board")],
            "Hits (leading and trailing edges) that each TDC board has recorded.",
            "Boards of one kind should have about the same number. A board with many more is noisy: look at its "
            "thresholds; one with none has lost its signals or its high voltage.",
            ("tdc", "hit", "board"),
        ),
        Family(
            "tdc/hits_per_trigger", "Hits per trigger, {label}", lambda s: [numbers(0, s["hits"], "hits")],
            "Hits of one TDC board in one trigger.",
            "One peak at the usual multiplicity. A tail upwards is noise or pile-up, a peak at 0 lost signals.",
            ("tdc", "hit", "trigger", "multiplicity"),
        ),
        Family(
            "tdc/times", "Hit times, {label}",
            lambda s: [regular(s["bins"], s["low"], s["high"], "time [ns]")],
            "Times of all hits of a TDC board, as it counts them (they run over every 52 us).",
            "Flat for a board whose clock is free; a peak where hits follow the trigger.",
            ("tdc", "hit", "time"),
        ),
    )  # fmt: skip

    def process(self, spill: Spill) -> None:
        """Needs ``data["date"]``."""
        date = _date(spill, "TdcHits")
        for ldc, board, members in _boards(date, "trigger_"):
            self.fill("tdc/triggers", f"LDC {ldc}", np.full(len(members), board))
            per_trigger = self._per_trigger(date, ldc, board, members)
            self.fill("tdc/hits_per_trigger", f"LDC {ldc} board {board}", per_trigger)
        for ldc, board, members in _boards(date, "hit_"):
            self.fill("tdc/hits", f"LDC {ldc}", np.full(len(members), board))
            self.fill("tdc/times", f"LDC {ldc} board {board}", date["hit_time"][members] * NS_PER_COUNT)

    @staticmethod
    def _per_trigger(date: Any, ldc: int, board: int, triggers: np.ndarray) -> np.ndarray:
        hits = (date["hit_ldc"] == ldc) & (date["hit_board"] == board)
        event, trigger = date["trigger_event"][triggers], date["trigger_index"][triggers]
        most = int(trigger.max(initial=0)) + 1
        events = int(event.max(initial=0)) + 1
        keys = date["hit_event"][hits].astype(np.int64) * most + date["hit_trigger"][hits]
        return np.bincount(keys, minlength=events * most)[event.astype(np.int64) * most + trigger]


class ChannelOccupancy(Histograms):
    """How often each TDC channel was hit."""

    defaults: ClassVar = {
        "edge": "leading",  # which edges count: leading, trailing or both
    }
    families = (
        Family(
            "occupancy/channels", "Occupancy, {label}", lambda s: [numbers(0, CHANNELS, "channel")],
            "Hits of each channel of a TDC board.",
            "Like the reference. A hole is a dead channel: tell the expert which; a spike is a noisy one.",
            ("tdc", "occupancy", "channel"),
        ),
        Family(
            "occupancy/map", "Occupancy of all channels, {label}",
            lambda s: [numbers(0, BOARDS, "board"), numbers(0, CHANNELS, "channel")],
            "Hits by board and channel.",
            "Every connected channel has a colour, and neighbours have similar ones.",
            ("tdc", "occupancy", "map"), {"draw": "colz"},
        ),
    )  # fmt: skip

    def process(self, spill: Spill) -> None:
        """Needs ``data["date"]``."""
        date = _date(spill, "ChannelOccupancy")
        edges = {"leading": (0,), "trailing": (1,)}.get(str(self.settings["edge"]), (0, 1))
        chosen = np.isin(date["hit_edge"], edges)
        columns = {name: date[name][chosen] for name in ("hit_ldc", "hit_board", "hit_channel")}
        for ldc, board, members in _boards(columns, "hit_"):
            channels = columns["hit_channel"][members]
            self.fill("occupancy/channels", f"LDC {ldc} board {board}", channels)
            self.fill("occupancy/map", f"LDC {ldc}", np.full(len(members), board), channels)
