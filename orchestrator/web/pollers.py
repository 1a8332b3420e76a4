"""Who works: the heartbeats of the pollers, and what they say of the attempts in their hands.

A heartbeat is ``_local/poller:<id>``: ``{id, host, pid, site, steps, started, at, beat, lease, running}``. ``at`` is by
the poller's own clock, which may be wrong, so it is believed only where this page has not seen the *counter* move.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from orchestrator.web import human
from orchestrator.web.source import DatabaseLike, Source

#: A poller that is silent for so long, in seconds, counts as dead where its heartbeat does not name its lease.
LEASE_SECONDS = 60.0
#: Silent pollers shown, the last ones: each kill leaves one behind, and old ones tell nothing.
SILENT = 8
#: Attempts in progress shown on the overview, those that began last.
RUNNING = 20
#: Rows of the view they are chosen from.
LOOKED_AT = 200

PREFIX = "_local/poller:"


class Pollers:
    """What this page has seen of heartbeats so far."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[Any, float, float]] = {}  # id: its counter, when it last moved, when it was read

    def beats(self, database: DatabaseLike, now: float) -> list[dict[str, Any]]:
        """The pollers, the living first; of the silent ones the last. ``seen`` is by this page's clock."""
        made = [self._poller(beat, now) for beat in database.local_docs(PREFIX, PREFIX + "\ufff0")]
        with self._lock:  # a poller that has ended politely has taken its heartbeat with it
            ids = {p["id"] for p in made}
            self._seen = {id: seen for id, seen in self._seen.items() if id in ids}
        made.sort(key=lambda p: (not p["alive"], p["id"] if p["alive"] else -p["quiet"]))
        alive = [p for p in made if p["alive"]]
        silent = sorted((p for p in made if not p["alive"]), key=lambda p: (p["quiet"], p["id"]))
        return alive + silent[:SILENT]

    def progress(self, database: DatabaseLike, now: float) -> dict[str, dict[str, Any]]:
        """What living pollers say of each attempt in their hands: ``{attempt: {fraction, text, at, ...}}``."""
        return {entry["attempt"]: entry for beat in self.beats(database, now) for entry in beat["running"]}

    def _poller(self, beat: Mapping[str, Any], now: float) -> dict[str, Any]:
        id = str(beat.get("id") or str(beat.get("_id", "")).removeprefix(PREFIX))
        lease = beat.get("lease")
        patience = float(lease) if human.figure(lease) and lease > 0 else LEASE_SECONDS
        quiet = max(0.0, now - self._moved(id, (beat.get("beat"), beat.get("started")), beat.get("at"), now))
        alive = quiet < patience
        served, running = beat.get("steps"), beat.get("running")
        return {
            "id": id,
            "host": beat.get("host"),
            "pid": beat.get("pid"),
            "site": beat.get("site"),
            "steps": [str(s) for s in served] if isinstance(served, list) else [],
            "started": beat.get("started"),
            "seen": human.iso(now - quiet),
            "quiet": quiet,
            "lease": patience,
            "alive": alive,
            "draining": beat.get("draining") is True,
            "running": [_entry(id, beat, e) for e in running if isinstance(e, dict)]
            if alive and isinstance(running, list)
            else [],
        }

    def _moved(self, id: str, counter: Any, at: Any, now: float) -> float:
        """When a heartbeat last moved: never before this page last saw it stand still, never later than now."""
        with self._lock:
            before = self._seen.get(id)
            if before is not None and before[0] == counter:
                moved = before[1]
            else:
                said = human.parse_time(at)
                latest = now if said is None and before is not None else said if said is not None else 0.0
                moved = min(now, max(latest, before[2] if before is not None else 0.0))
            self._seen[id] = (counter, moved, now)
        return moved


def _entry(poller: str, beat: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    fraction = said.get("fraction")
    return {
        "document": str(said.get("document")),
        "step": str(said.get("step")),
        "attempt": str(said.get("attempt")),
        "fraction": min(1.0, max(0.0, float(fraction))) if human.figure(fraction) else None,
        "text": str(said.get("text") or "")[:200],
        "since": said.get("since") or said.get("started"),
        "host": beat.get("host"),
        "poller": poller,
        "alive": True,
    }


def running(
    source: Source, database: DatabaseLike, beats: list[dict[str, Any]], names: Mapping[str, str]
) -> dict[str, Any]:
    """What runs now: the attempts in progress by the database, with what their pollers say; the last to begin first.

    One whose poller is silent is listed too, without progress: it will be taken back, or its poller is busy.
    """
    said = {entry["attempt"]: entry for beat in beats for entry in beat["running"]}
    silent = {beat["id"] for beat in beats if not beat["alive"]}
    total = source.rows(database, "work/inprogress")
    found: dict[str, dict[str, Any]] = {}
    for row in source.rows(database, "work/inprogress", reduce=False, limit=LOOKED_AT):
        value = row.value if isinstance(row.value, dict) else {}
        attempt = str(value.get("attempt"))
        entry = said.get(attempt) or {
            "document": row.id, "step": f"proc{row.key[0]}", "attempt": attempt, "fraction": None, "text": "",
            "host": value.get("host"), "poller": value.get("poller"), "alive": str(value.get("poller")) not in silent,
        }  # fmt: skip
        found[attempt] = entry | {"since": row.key[1]}
    rows = [entry | {"name": names.get(entry["step"], entry["step"])} for entry in found.values()]
    rows.sort(key=lambda e: (e["alive"], -(human.parse_time(e["since"]) or 0)))
    return {"total": int(total[0].value) if total else len(rows), "shown": rows[:RUNNING]}
