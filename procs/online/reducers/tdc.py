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

    defaults: ClassVar = {"hits": 64, "bins": 500, "low": 0.0, "high": FULL_NS}
    settings_help: ClassVar = {
        "hits": "the largest number of hits in one trigger that is shown",
        "bins": "bins of the hits' times",
        "low": "earliest time of a hit that is shown, ns",
        "high": "latest time, ns; as it stands, all that a V1290 can say",
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

    defaults: ClassVar = {"edge": "leading"}
    settings_help: ClassVar = {
        "edge": "which edges count: leading, trailing or both",
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


class HitTimeDifferences(Histograms):
    """How far apart the first leading edges of two channels are: within boards, and between boards.

    Boards that no common clock drives drift against each other, and begin anew with each spill; for two boards look at
    the residual, the difference without its mean in the spill.
    """

    defaults: ClassVar = {"within": 10.0, "residual": 100.0, "bins": 400, "most": 64}
    settings_help: ClassVar = {
        "within": "range of the differences of channels of one board, ns to both sides",
        "residual": "range of the differences between boards without the mean of the spill, ns to both sides",
        "bins": "bins of each axis",
        "most": "pairs of one spill; with more channels each is compared with the first one only",
    }
    families = (
        Family(
            "difference/within", "Time difference, {label}",
            lambda s: [regular(s["bins"], -s["within"], s["within"], "difference [ns]")],
            "First leading edges of two channels of one TDC board in the same trigger: second minus first.",
            "One narrow peak where the reference has it. A peak that has moved is a cable or a threshold that was "
            "changed; a wide one a noisy signal.",
            ("tdc", "time", "difference"),
        ),
        Family(
            "difference/boards", "Time between boards, {label}",
            lambda s: [regular(s["bins"], -FULL_NS / 2, FULL_NS / 2, "difference [ns]")],
            "First leading edges of one channel of two TDC boards in the same trigger: second minus first.",
            "A narrow peak for boards with one clock; anything for boards with clocks of their own.",
            ("tdc", "time", "difference", "board"),
        ),
        Family(
            "difference/residual", "Time between boards within a spill, {label}",
            lambda s: [regular(s["bins"], -s["residual"], s["residual"], "difference - mean of spill [ns]")],
            "The same without the mean of each spill: how far boards drift during a spill.",
            "Like the reference, around 0. If it becomes wide, a board has lost its clock.",
            ("tdc", "time", "difference", "board"),
        ),
    )  # fmt: skip

    def process(self, spill: Spill) -> None:
        """Needs ``data["date"]``."""
        places, table = _first_times(_date(spill, "HitTimeDifferences"))
        for one, two in self._pairs(places):
            both = (table[:, one] >= 0) & (table[:, two] >= 0)
            if not both.any():
                continue
            apart = table[both, two] - table[both, one]
            ns = ((apart + TURN // 2) % TURN - TURN // 2) * NS_PER_COUNT
            (ldc, board, channel), (other_ldc, other, second) = places[one], places[two]
            if (ldc, board) == (other_ldc, other):
                self.fill("difference/within", f"LDC {ldc} board {board} channels {channel} and {second}", ns)
            else:
                label = f"channel {channel} of LDC {ldc} board {board} and LDC {other_ldc} board {other}"
                self.fill("difference/boards", label, ns)
                self.fill("difference/residual", label, ns - ns.mean())

    def _pairs(self, places: list[tuple[int, int, int]]) -> list[tuple[int, int]]:
        """Channels of one board, and equal channels of two boards, as places in the list."""
        found = [
            (one, two)
            for one in range(len(places))
            for two in range(one + 1, len(places))
            if places[one][:2] == places[two][:2] or places[one][2] == places[two][2]
        ]
        return found if len(found) <= self.settings["most"] else [(0, two) for two in range(1, len(places))]


def _first_times(date: Any) -> tuple[list[tuple[int, int, int]], np.ndarray]:
    """Channels with leading edges, and a table of the first edge's time by trigger and channel; -1 without."""
    front = date["hit_edge"] == 0
    event, trigger, time = (date[f"hit_{name}"][front].astype(np.int64) for name in ("event", "trigger", "time"))
    ldc, board, channel = (date[f"hit_{name}"][front].astype(np.int64) for name in ("ldc", "board", "channel"))
    if not len(time):
        return [], np.zeros((0, 0), dtype=np.int64)
    places, column = np.unique((ldc * BOARDS + board) * CHANNELS + channel, return_inverse=True)
    triggers, row = np.unique(event * (int(trigger.max()) + 1) + trigger, return_inverse=True)
    table = np.full((len(triggers), len(places)), -1, dtype=np.int64)
    # Written from the back, so that the first leading edge of each stays.
    table[row.ravel()[::-1], column.ravel()[::-1]] = time[::-1]
    named = [(p // CHANNELS // BOARDS, p // CHANNELS % BOARDS, p % CHANNELS) for p in places.tolist()]
    return named, table
