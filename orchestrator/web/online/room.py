"""What a control room is told besides plots: the run, counts and workers, canvases, and how things stand in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orchestrator.online.configuration import Online
from orchestrator.version import VERSION
from orchestrator.web import human
from orchestrator.web.online.board import Board, Run, Shown, ordered, pick, worst

#: Part of the time after which a run without spills counts as ended, after which silence is remarked on.
SILENT_PART = 0.5
#: And its bounds, in seconds.
SILENT = (10.0, 120.0)
#: Counts older than this are not those of now, in seconds; the transform sends them every second or so.
OLD_COUNTS = 10.0
#: Plots of one canvas where none is configured: more are hard to read together.
CANVAS_PLOTS = 9
STATUS_COMMAND = "orchestrator online status"


class Room:
    """Speaks of what the board holds, for one configuration.

    Args:
        connected: whether the broadcast is there.
        kept: the plots of a run that is no more in memory, from its snapshot; None where there is none.
    """

    def __init__(
        self, configuration: Online, board: Board, clock: Callable[[], float], connected: Callable[[], bool],
        kept: Callable[[str], Mapping[str, Shown] | None] = lambda run: None,
    ) -> None:  # fmt: skip
        self.configuration = configuration
        self.board = board
        self._clock, self._connected, self._kept = clock, connected, kept
        low, high = SILENT
        self.silent = min(high, max(low, configuration.end_of_run * SILENT_PART))

    def plots(self, run: str) -> Mapping[str, Shown]:
        """The plots of a run, by name, in memory or from its snapshot; none for a run that is not known."""
        found = self.board.run(run)
        if found is not None and (found.plots or not run):
            return found.plots
        return (self._kept(run) if run else None) or {}

    def canvases(self, plots: Mapping[str, Shown]) -> list[dict[str, Any]]:
        """The canvases with the names of their plots: as configured, or else one for each reducer."""
        names = ordered(plots)
        wanted: list[tuple[str, str, str, Sequence[str]]] = [
            (canvas.name, canvas.group, canvas.help, pick(names, canvas.plots))
            for canvas in self.configuration.canvases
        ]
        if not wanted:
            wanted = [(name, "shifter", "", members) for name, members in self._by_reducer(names, plots)]
        return [
            {"key": f"c:{name}", "name": name, "group": group, "help": words, "plots": members,
             "quality": worst(plots[one].header["quality"] for one in members)}
            for name, group, words, members in wanted
        ]  # fmt: skip

    def _by_reducer(self, names: list[str], plots: Mapping[str, Shown]) -> list[tuple[str, list[str]]]:
        """A canvas for each reducer; for one with many plots, one for each folder of their names."""
        reducers: dict[str, list[str]] = {}
        for name in names:
            reducers.setdefault(plots[name].header["reducer"] or "plots", []).append(name)
        made = []
        for reducer, members in sorted(reducers.items()):
            folders: dict[str, list[str]] = {}
            for name in members:
                folders.setdefault(name.rpartition("/")[0] or reducer, []).append(name)
            made += [(reducer, members)] if len(members) <= CANVAS_PLOTS else sorted(folders.items())
        return made

    def listing(self, run: str) -> dict[str, Any]:
        """The plots that there are, and the canvases. ``run`` empty: the current one."""
        plots = self.plots(run)
        return {
            "run": self._name(run),
            "plots": [
                {"name": name} | {key: plots[name].header[key] for key in ("title", "quality", "reducer", "keywords")}
                for name in ordered(plots)
            ],
            "canvases": self.canvases(plots),
        }

    def status(self, run: str) -> dict[str, Any]:
        """How a run stands just now. ``run`` empty: the current one."""
        now = self._clock()
        found = self.board.run(run)
        current = self.board.current()
        plots = self.plots(run)
        headers = [shown.header for shown in plots.values()]
        spills = [header["spill"] for header in headers if header["spill"] is not None]
        state = found.state if found is not None else "final" if plots else ""
        level, words, remedy = self._sentence(run, found, plots, now)
        return {
            "now": human.iso(now),
            "version": VERSION,
            "connected": self._connected(),
            "run": self._name(run),
            "current": current.name if current is not None else "",
            "follows": not run,
            "live": found is not None and found is current and state in ("", "begun"),
            "kept": found is None and bool(plots),
            "state": state,
            "how": str(found.said.get("how") or "") if found is not None else "",
            "counts": found.counts if found is not None else {},
            "counted": human.iso(found.counted) if found is not None else None,
            "spill": max(spills, default=None),
            "input_time": max((header["input_time"] or "" for header in headers), default="") or None,
            "output_time": max((header["output_time"] or "" for header in headers), default="") or None,
            "quality": worst(header["quality"] for header in headers),
            "qualities": {
                quality: count
                for quality in ("bad", "warning", "good", "none")
                if (count := sum(header["quality"] == quality for header in headers))
            },
            "worst": [header["name"] for quality in ("bad", "warning") for header in headers
                      if header["quality"] == quality][:20],
            "plots": len(plots),
            "level": level,
            "sentence": words,
            "remedy": remedy,
        }  # fmt: skip

    def _name(self, run: str) -> str:
        found = self.board.run(run)
        return found.name if found is not None else run

    def _sentence(self, asked: str, run: Run | None, plots: Mapping[str, Shown], now: float) -> tuple[str, str, str]:
        """How serious it is (``good``, ``wait``, ``warning``, ``bad``), what there is to see, and what to do."""
        if run is None and asked:
            if plots:
                return "wait", f"Run {asked} is an old one: these are its last plots.", ""
            return (
                "warning", f"Nothing is known of run {asked}: neither in memory nor as a snapshot.",
                "Choose another run; the page Runs has all that are kept.",
            )  # fmt: skip
        if not self._connected():
            since = "" if run is None else " What is shown is from before."
            return (
                "bad", f"The broadcast is away, so nothing new can come.{since}",
                f"It is tried again all the time. `{STATUS_COMMAND}` on the online system's machine says what runs; "
                "`orchestrator online start` starts what does not.",
            )  # fmt: skip
        if run is None:
            return (
                "wait", "No run is there yet. Plots appear here by themselves with the first spill.",
                f"If the DAQ takes data all the same: `{STATUS_COMMAND}` says whether its spills are read.",
            )  # fmt: skip
        if run.state in ("ended", "final"):
            how = str(run.said.get("how") or "")
            ended = f" ({how})" if how else ""
            what = "These are its last plots." if run.state == "final" else "Its last spills are being counted."
            next_ = "" if asked else "The next run appears here by itself."
            trouble = str((run.said if run.state == "final" else run.counts).get("trouble") or "")
            if trouble:
                return "bad", f"Run {run.name} has ended{ended}, and not all of its plots are there: {trouble}.", next_
            return "wait", f"Run {run.name} has ended{ended}. {what}", next_
        fresh = run.counted is not None and now - run.counted < OLD_COUNTS
        if fresh and run.counts.get("store_away"):
            return (
                "bad", f"The store of spills is away: {run.counts['store_away']}",
                "Nothing is lost: spills wait in memory, and then at the DAQ. It is tried again all the time; is the "
                "database running?",
            )  # fmt: skip
        if fresh and run.counts.get("waits_for"):
            return (
                "warning", f"No spill is being worked on: {run.counts['waits_for']}.",
                f"`{STATUS_COMMAND}` says what each worker is doing.",
            )  # fmt: skip
        if fresh and run.counts.get("trouble"):
            return (
                "bad", f"Some plots are not as they should be: {run.counts['trouble']}.",
                f"The others go on. `{STATUS_COMMAND}` says which log has the trace; tell the author of that reducer.",
            )  # fmt: skip
        if not plots:
            return (
                "wait", f"Run {run.name} has begun, and its first plots are on their way.",
                f"If they do not come within a minute: `{STATUS_COMMAND}` says which reducer does not run.",
            )  # fmt: skip
        return self._flowing(run, plots, now)

    def _flowing(self, run: Run, plots: Mapping[str, Shown], now: float) -> tuple[str, str, str]:
        counts = run.counts
        if counts.get("closed") is False:
            return (
                "bad", "The counts do not close: read is not done + failed + pending, so spills have been lost.",
                "Tell the expert of the online system, with this page's address and the time.",
            )  # fmt: skip
        newest = max(shown.arrived for shown in plots.values())
        if now - newest > self.silent:
            since = f"No plot has changed since {human.clock(human.iso(newest))[11:]}."
            fresh = run.counted is not None and now - run.counted < OLD_COUNTS
            if fresh and counts.get("pending"):
                return (
                    "bad", f"{since} Spills wait and are not worked on.",
                    f"`{STATUS_COMMAND}` says which workers and reducers run; those that died come back by themselves.",
                )  # fmt: skip
            return (
                "warning", f"{since} No spill has come since then.",
                f"Is the DAQ taking data? If it is: `{STATUS_COMMAND}` says whether its spills are read.",
            )  # fmt: skip
        if run.refused:
            return (
                "warning", f"Run {run.name} has more plots than are shown: {len(plots)}.",
                "Tell the expert of the online system: a reducer makes plots without end.",
            )  # fmt: skip
        bad = sum(shown.header["quality"] == "bad" for shown in plots.values())
        warning = sum(shown.header["quality"] == "warning" for shown in plots.values())
        if bad:
            return "bad", f"{_many(bad, 'plot')} of {len(plots)} {'is' if bad == 1 else 'are'} bad.", _HELP
        if warning:
            return "warning", f"{_many(warning, 'plot')} of {len(plots)} should be looked at.", _HELP
        return "good", "Data are flowing.", ""


_HELP = "Look at it, alone: its help says what you should see, and what to do when you do not."


def _many(count: int, word: str) -> str:
    return f"{count} {word}" + ("" if count == 1 else "s")
