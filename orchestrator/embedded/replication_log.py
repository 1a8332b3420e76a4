"""The log that a replication keeps on both of its ends, and what it says about where to begin.

Both ends hold a document ``_local/<replication id>`` of the form that CouchDB's replicator writes (*CouchDB Replication
Protocol*, version 3): ``session_id``, ``source_last_seq`` and a ``history`` of sessions, the newest first. Where both
name the same session, the sequence recorded in it has surely arrived. Pure data in, data out.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

HISTORY = 50  # sessions that are remembered, as in CouchDB
VERSION = 4  # of the replication id, as CouchDB 3 writes it


@dataclass(slots=True)
class Stats:
    """What one session has counted."""

    revisions_checked: int = 0
    missing_found: int = 0
    docs_read: int = 0
    docs_written: int = 0
    doc_write_failures: int = 0


@dataclass(slots=True)
class Session:
    """One run of a replication: from a start or restart until it ends."""

    id: str
    started: float
    start_seq: Any

    def entry(self, stats: Stats, seq: Any, now: float) -> dict[str, Any]:
        """The session as the log's history tells it; times are seconds since 1970."""
        return {
            "session_id": self.id,
            "start_time": formatdate(self.started, usegmt=True),
            "end_time": formatdate(now, usegmt=True),
            "start_last_seq": self.start_seq,
            "end_last_seq": seq,
            "recorded_seq": seq,
            "missing_checked": stats.revisions_checked,
            "missing_found": stats.missing_found,
            "docs_read": stats.docs_read,
            "docs_written": stats.docs_written,
            "doc_write_failures": stats.doc_write_failures,
        }


def common_sequence(source: Mapping[str, Any], target: Mapping[str, Any]) -> Any:
    """The sequence up to which both logs agree that everything has arrived; 0 where they have nothing in common."""
    if source.get("session_id") is not None and source.get("session_id") == target.get("session_id"):
        return source.get("source_last_seq", 0)
    theirs = {entry.get("session_id") for entry in _history(target)}
    for entry in _history(source):
        if entry.get("session_id") in theirs:
            return entry.get("recorded_seq", 0)
    return 0


def _history(log: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = log.get("history")
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def updated(log: Mapping[str, Any], session: Session, stats: Stats, seq: Any, now: float) -> dict[str, Any]:
    """The log with this session's entry in front, in place of the one it had before."""
    older = [entry for entry in _history(log) if entry.get("session_id") != session.id]
    return {
        "session_id": session.id,
        "source_last_seq": seq,
        "replication_id_version": VERSION,
        "history": [session.entry(stats, seq, now), *older][:HISTORY],
    }


def iso(now: float) -> str:
    """A time as the scheduler's answers give it: UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
