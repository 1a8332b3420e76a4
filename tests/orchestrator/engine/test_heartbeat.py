"""Heartbeats: a counter that moves, facts for people, and no trace of a poller that has ended."""

from __future__ import annotations

from memory import Memory

from orchestrator.documents import Claimant
from orchestrator.engine.heartbeat import Heartbeat, beats


def test_each_beat_moves_the_counter_whatever_the_clock_says(memory: Memory) -> None:
    heart = Heartbeat(memory, Claimant("p1", "h", 7, "here"), ["proc0"], 1000.0, 2)
    heart.write(1000.0, held=3)
    first = beats(memory)["p1"]
    heart.write(900.0)  # the clock was set back
    second = beats(memory)["p1"]
    assert (first["beat"], second["beat"]) == (1, 2)
    assert (first["held"], first["pid"], first["steps"], first["workers"]) == (3, 7, ["proc0"], 2)
    assert first["started"] == second["started"]


def test_a_poller_that_has_ended_leaves_the_list(memory: Memory) -> None:
    heart = Heartbeat(memory, Claimant("p1", "h", 7, "here"), ["proc0"], 1000.0, 2)
    heart.write(1000.0)
    heart.stop()
    assert beats(memory) == {}
