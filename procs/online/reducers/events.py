"""Events of any format: their sizes and rates, and what part of the time the DAQ was dead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import hist
import numpy as np

from orchestrator.errors import DataError, SettingsError
from orchestrator.online.plot import Plot
from orchestrator.online.spill import Spill
from procs.online.reducers.base import Family, Histograms, regular, wanted
from procs.online.reducers.trend import Trend

TAG_US = 0.8  # microseconds of one count of a V1290's trigger time tag (CAEN's manual: 32 periods of its 40 MHz clock)
TAG_TURN = 1 << 27  # counts after which it begins again
STAMP_US = 10  # microseconds of one count of a Samba stamp
TRENDS = "trends"  # key of their states


class WithTrends(Histograms):
    """The base of reducers that have plots against time, too.

    ``trends`` names them: title, unit, and what it is. ``sums_only`` names sums that have no plot of their own.
    """

    trends: ClassVar[Mapping[str, tuple[str, str, str]]] = {}
    sums_only: ClassVar[tuple[str, ...]] = ()

    def _begin(self) -> None:
        super()._begin()
        seconds = self.settings["seconds"]
        if isinstance(seconds, bool) or not isinstance(seconds, int) or not 1 <= seconds <= 86400:
            raise SettingsError(f"the setting `seconds` of {type(self).__name__} is a whole number from 1 to 86400")
        self.sums = {name: Trend(seconds) for name in (*self.trends, *self.sums_only)}

    def state(self) -> dict[str, Any]:
        """All counts and sums."""
        return {**super().state(), TRENDS: {name: trend.state() for name, trend in self.sums.items()}}

    def merge(self, state: Mapping[str, Any]) -> None:
        """Add those of another. Raises DataError for those that do not fit."""
        trends = dict(state.get(TRENDS, {}))
        if not set(trends) <= set(self.sums):
            raise DataError(f"{type(self).__name__} has not the trends of this state: it is another version's")
        for name, one in trends.items():
            if int(one["width"]) != self.sums[name].width:
                raise DataError(f"the state's trend {name} has bins of another width")
        super().merge({name: part for name, part in state.items() if name != TRENDS})
        for name, one in trends.items():
            self.sums[name].merge(one)

    def _plots(self) -> Iterator[Plot]:
        """The histograms, then the trends."""
        yield from super()._plots()
        for name, (title, unit, text) in self.trends.items():
            seconds = self.sums[name].width * self.sums[name].span()[2]
            style = {"y_title": f"{unit} in {seconds} s"}
            yield Plot(name, title, self.sums[name].histogram(), text, ("rate", "time"), RATE_HELP, style, False)


RATE_HELP = (
    "Steady while the beam or the source is steady. Gaps are spills or files that are missing: look at the DAQ and at "
    "the counts on this page; a fall to nothing is a DAQ that has stopped."
)


class EventSizeRate(WithTrends):
    """Sizes of events, triggers in them, and all against time."""

    defaults: ClassVar = {"bins": 200, "size": 1000.0, "triggers": 500, "seconds": 10}
    settings_help: ClassVar = {
        "bins": "bins of each axis",
        "size": "largest event that is shown, kB",
        "triggers": "most triggers in an event that are shown",
        "seconds": "width of the bins of time, s",
    }
    families = (
        Family(
            "events/size", "Event size", lambda s: [regular(s["bins"], 0, s["size"], "size [kB]")],
            "Sizes of the events as the DAQ has built them.",
            "The usual peaks. Many small events are boards that send nothing; many large ones noise.",
            ("event", "size"), {"logy": True},
        ),
        Family(
            "events/triggers", "Triggers in an event",
            lambda s: [regular(int(s["triggers"]), -0.5, s["triggers"] - 0.5, "triggers")],
            "Particle triggers in each event.",
            "A peak at the usual number. A peak at 0 is beam or trigger that is off.",
            ("event", "trigger"),
        ),
    )  # fmt: skip
    trends: ClassVar = {
        "events/rate": ("Events against time", "events", "How many events were taken."),
        "events/trigger_rate": ("Triggers against time", "triggers", "How many triggers were taken."),
        "events/volume": ("Data against time", "bytes", "How many bytes the events have."),
    }

    def process(self, spill: Spill) -> None:
        """Needs ``data["events"]``."""
        events = wanted(spill.data, "events", "EventSizeRate", "a Decode of procs.online.maps makes it")
        self.fill("events/size", "", events["bytes"] * 1e-3)
        self.fill("events/triggers", "", events["triggers"])
        self.sums["events/rate"].add(events["seconds"])
        self.sums["events/trigger_rate"].add(events["seconds"], events["triggers"])
        self.sums["events/volume"].add(events["seconds"], events["bytes"])


class DeadTime(WithTrends):
    """How much of the time the DAQ cannot take a trigger.

    Of DATE data the time between two triggers of each TDC board is shown: none is shorter than the dead time. Samba
    says how much dead time there was since the start: its increase from event to event is shown, and its share of the
    time.
    """

    defaults: ClassVar = {"bins": 500, "gap": 200.0, "dead": 200.0, "seconds": 60}
    settings_help: ClassVar = {
        "bins": "bins of each axis",
        "gap": "largest time between triggers that is shown, microseconds",
        "dead": "largest dead time of an event that is shown, ms",
        "seconds": "width of the bins of time, s",
    }
    families = (
        Family(
            "dead/gaps", "Time between triggers, {label}",
            lambda s: [regular(s["bins"], 0, s["gap"], "time since the trigger before [us]")],
            "Time between two triggers in one spill, by the time tags of a TDC board.",
            "Empty up to the dead time, then falling. Entries below the usual edge are double triggers; an edge that "
            "has moved to the right is a DAQ that has become slower.",
            ("dead time", "trigger"),
        ),
        Family(
            "dead/events", "Dead time of an event", lambda s: [regular(s["bins"], 0, s["dead"], "dead time [ms]")],
            "By how much the dead time has grown from one event to the next.",
            "A narrow peak. A tail to the right is a disk or a network that is slow.",
            ("dead time", "event"),
        ),
    )  # fmt: skip
    sums_only = ("dead/lost", "dead/all")  # microseconds
    derived: ClassVar = {
        "dead/fraction": (
            "Dead time over time, from event to event.",
            "Small and steady. If it rises, the rate has become too high or a disk too slow.",
        )
    }

    def process(self, spill: Spill) -> None:
        """Needs ``data["date"]`` or ``data["samba"]``."""
        if "date" in spill.data:
            self._gaps(spill.data["date"])
            return
        samba = wanted(spill.data, "samba", "DeadTime", "it is for spills of DATE or Samba")
        dead = np.diff(np.asarray(samba["dead_time"], dtype=float))
        between = np.diff(np.asarray(samba["stamp"], dtype=np.int64)) * STAMP_US
        fine = np.isfinite(dead) & (dead >= 0) & (between > 0)
        seconds = np.asarray(samba["seconds"], dtype=float)[1:][fine]
        self.fill("dead/events", "", dead[fine] * 1e3)
        self.sums["dead/lost"].add(seconds, np.rint(dead[fine] * 1e6).astype(np.int64))
        self.sums["dead/all"].add(seconds, between[fine])

    def _gaps(self, date: Mapping[str, Any]) -> None:
        keys = np.stack([date[f"trigger_{name}"].astype(np.int64) for name in ("ldc", "board", "event")], axis=1)
        boards, which = np.unique(keys[:, :2], axis=0, return_inverse=True)
        for number, (ldc, board) in enumerate(boards.tolist()):
            mine = np.flatnonzero(which.ravel() == number)
            tag = date["trigger_time_tag"][mine]
            same = (keys[mine[1:], 2] == keys[mine[:-1], 2]) & (tag[1:] >= 0) & (tag[:-1] >= 0)
            gaps = (tag[1:] - tag[:-1])[same] % TAG_TURN
            if len(gaps):
                self.fill("dead/gaps", f"LDC {ldc} board {board}", gaps * TAG_US)

    def _plots(self) -> Iterator[Plot]:
        """The histograms that have entries, and the dead part of the time."""
        yield from (plot for plot in Histograms._plots(self) if plot.histogram.sum(flow=True))
        lost, every = self.sums["dead/lost"], self.sums["dead/all"]
        if not len(every.bins):
            return
        span = every.span()
        made = hist.Hist(every.axis(span), storage=hist.storage.Double())
        total = every.values(span)
        made.view(flow=False)[:] = np.where(total > 0, lost.values(span) / np.maximum(total, 1), 0.0)
        text, advice = self.derived["dead/fraction"]
        style = {"y_title": "dead part"}
        yield Plot("dead/fraction", "Dead part of the time", made, text, ("dead time", "time"), advice, style, False)
