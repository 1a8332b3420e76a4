"""Runs that are over, from the snapshots that reducers wrote at their ends: read when asked for, the last few kept."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.errors import SettingsError
from orchestrator.online import snapshot
from orchestrator.web.online.board import Shown, counts, sane, worst

#: Runs whose plots are kept in memory after they were asked for.
RUNS = 6
#: Bytes of one run's plots; the rest of a larger one is left out.
MEMORY = 32 * 1024 * 1024
#: How long the list of runs is good, in seconds; reading it costs a file each.
LISTED = 5.0
#: Runs in the list, the newest.
MOST = 500


class Kept:
    """The folder of snapshots. ``load`` and ``runs`` read it and belong into a thread; ``held`` is memory alone."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._clock = folder, clock
        self._held: OrderedDict[str, tuple[int, dict[str, Shown]]] = OrderedDict()  # with the snapshot's time
        self._runs: tuple[float, dict[str, dict[str, Any]]] = (float("-inf"), {})
        self._lock = threading.Lock()

    def held(self, run: str) -> Mapping[str, Shown] | None:
        """The plots of a run that was loaded; None for another."""
        with self._lock:
            found = self._held.get(run)
            if found is None:
                return None
            self._held.move_to_end(run)
            return found[1]

    def load(self, run: str) -> None:
        """Read a run's snapshot, where there is one that was not read yet, or was not whole, or is another one now."""
        made = self._made(run)
        with self._lock:
            before = self._held.get(run)
        if before is not None and made and before[0] == made:
            return
        plots: dict[str, Shown] = {}
        size = 0
        with contextlib.suppress(SettingsError, OSError):  # no such name, no such run: there is nothing to show then
            for header, body in snapshot.plots(self._folder, run):
                name = str(header.get("name", ""))
                size += len(body)
                if size > MEMORY:
                    break
                plots[name] = Shown(run, name, sane(header, run, name), body, len(plots) + 1, 0.0,
                                    f"snapshot {made}")  # fmt: skip
        if plots:
            with self._lock:
                self._held[run] = (made, plots)
                while len(self._held) > RUNS:
                    self._held.popitem(last=False)

    def _made(self, run: str) -> int:
        """When the snapshot was finished, in ns; 0 for one that is not."""
        with contextlib.suppress(SettingsError, OSError):
            return (snapshot.run_folder(self._folder, run) / snapshot.RECORD).stat().st_mtime_ns
        return 0

    def runs(self) -> dict[str, dict[str, Any]]:
        """What is known of each run that has a whole snapshot, the newest first."""
        when, found = self._runs
        if self._clock() - when > LISTED:
            listed = snapshot.listed(self._folder)
            newest = sorted(listed.items(), key=lambda item: str(item[1].get("begun") or ""), reverse=True)[:MOST]
            found = {run: _row(run, record) for run, record in newest}
            self._runs = (self._clock(), found)
        return found


def _row(run: str, record: Mapping[str, Any]) -> dict[str, Any]:
    verdicts = record.get("verdicts")
    said = {**record, "read": record.get("spills"), "pending": 0}
    return {
        "run": run, "state": "final", "live": False, "how": str(record.get("how") or "")[:60],
        "quality": worst([quality]) if (quality := record.get("quality")) in ("good", "warning", "bad") else "none",
        "plots": len(verdicts) if isinstance(verdicts, dict) and verdicts else None,
        "counts": counts(said), "output_time": sane({"output_time": record.get("ended")}, run, "")["output_time"],
    }  # fmt: skip
