"""How the transform is: a file for ``orchestrator online status`` and the counts for the broadcast."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.documents import iso
from orchestrator.online import reducer_status
from orchestrator.online.crew import Crew
from orchestrator.online.run import Run
from orchestrator.online.transform import Transform
from orchestrator.runtime import write_atomically

FILE = "transform.json"
EVERY = 0.5  # s between two words
WINDOW = 10.0  # s over which the rate is taken


class Progress:
    """Writes the file, and makes the header of ``counts/<run>``.

    Args:
        path: the file.
        about: what stands in it besides.
        reducers: names of those that may say, beside the file, what is wrong with them.
    """

    def __init__(self, path: Path, about: dict[str, Any] | None = None, reducers: Sequence[str] = ()) -> None:
        self._path = path
        self._reducers = reducers
        self._about = {"pid": os.getpid(), "started": iso(time.time()), **(about or {})}
        self._next = float("-inf")
        self._done: deque[tuple[float, int]] = deque()
        path.parent.mkdir(parents=True, exist_ok=True)

    def say(
        self, now: float, machine: Transform, *, crew: Crew, store_away: str, input_error: str, silence: float
    ) -> dict[str, Any] | None:
        """Write how things are, if it is time; the header for the broadcast then."""
        if now < self._next:
            return None
        self._next = now + EVERY
        run = machine.run or machine.last
        trouble = reducer_status.troubles(self._path.parent, self._reducers, run.name) if run else ""
        header = counts(machine, crew, store_away, trouble)
        said = {
            **self._about, "state": "running", "time": iso(time.time()), **header,
            "rate": self._rate(now, machine.workers.results),
            "last": _last(machine), "input_error": input_error, "input_silent": round(silence, 1),
            "on_the_way": machine.ledger.open,
        }  # fmt: skip
        self._write(said)
        return header

    def end(self, machine: Transform) -> None:
        """The transform has ended."""
        run = machine.run
        self._write({**self._about, "state": "ended", "time": iso(time.time()), "run": run.name if run else None,
                     **(_which(run) | run.counts if run else {}), "last": _last(machine), "workers": []})  # fmt: skip

    def _rate(self, now: float, done: int) -> float:
        self._done.append((now, done))
        while now - self._done[0][0] > WINDOW:
            self._done.popleft()
        (then, before), seconds = self._done[0], now - self._done[0][0]
        return round(max(0, done - before) / seconds, 1) if seconds > 0 and now > then else 0.0

    def _write(self, said: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # a full disk must not end the transform
            write_atomically(self._path, json.dumps(said, default=str))


def _last(machine: Transform) -> dict[str, Any] | None:
    run = machine.last
    if run is None:
        return None
    return {"run": run.name, "how": run.end.how if run.end else "", **_which(run), **run.counts}


def _which(run: Run) -> dict[str, Any]:
    """What tells a run from an older one of its name."""
    return {"begun": run.begun, "opened": run.opened}


def counts(machine: Transform, crew: Crew, store_away: str = "", trouble: str = "") -> dict[str, Any]:
    """The header of ``counts/<run>``: the counts, what is waited for, what is wrong with reducers, and each worker."""
    run: Run | None = machine.run
    restarts = {place.name: place.restarts for place in crew.places}
    there = {one.name: one for one in machine.workers.workers.values()}
    workers = []
    for name in sorted({*restarts, *there, *machine.workers.expected, *machine.workers.refused}):
        one = there.get(name)
        refused = machine.workers.refused.get(name, "")
        state = STATES[one.state] if one else "refused" if refused else "not there"
        workers.append(
            {
                "name": name, "state": "working" if one and one.tasks else state, "where": one.where if one else "",
                "done": one.done if one else 0, "restarts": restarts.get(name, 0),
                "reason": refused or (one.reason if one else ""),
            }
        )  # fmt: skip
    return {
        "run": run.name if run else None, "run_state": run.state if run else "", **(_which(run) if run else {}),
        **(run.counts if run else {}), "again": run.again if run else 0,
        "waits_for": machine.waits_for(), "store_away": store_away, "trouble": trouble, "input_over": machine.over,
        "deaths": machine.workers.deaths, "workers": workers,
    }  # fmt: skip


STATES = {
    "joined": "gets its modules", "configured": "ready", "birth": "prepares for the run", "unborn": "cannot prepare",
    "born": "ready for spills",
}  # fmt: skip


def read(path: Path) -> dict[str, Any] | None:
    """What the transform has written last; None where there is nothing."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
