"""A clock that is set lets no period end early, and none last for hours."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import gathering
from orchestrator.clock import JUMP, Jumps
from orchestrator.documents import iso
from orchestrator.engine.absence import Absence
from orchestrator.engine.submission import Pace

NOW = 1_790_000_000.0


@given(st.lists(st.tuples(st.floats(0.0, 100.0), st.sampled_from([0.0, 0.001, -0.001, 7200.0, -7200.0])), max_size=20))
def test_what_was_set_is_what_is_noticed(steps: list[tuple[float, float]]) -> None:
    jumps, wall, steady, total = Jumps(), NOW, 5.0, 0.0
    assert jumps.moved(wall, steady) == 0.0
    for passed, set_by in steps:
        wall, steady = wall + passed + set_by, steady + passed
        moved = jumps.moved(wall, steady)
        assert moved == pytest.approx(set_by, abs=0.01) if abs(set_by) >= JUMP else moved == 0.0
        total += moved
    assert abs(total - sum(by for _, by in steps if abs(by) >= JUMP)) < 0.2


@pytest.mark.parametrize("by", [7200.0, -7200.0])
def test_grace_periods_go_on_as_they_were(by: float) -> None:
    absence = Absence()
    absence.since("job", NOW, gone=True)
    absence.shift(by)
    assert absence.since("job", NOW + 10 + by, gone=True) == NOW + by
    pace = Pace(2)
    pace.made(NOW)
    pace.made(NOW)
    pace.shift(by)
    assert pace.left(NOW + 10 + by) == 0
    assert pace.left(NOW + 61 + by) == 2


@pytest.mark.parametrize(("ago", "moves"), [(5.0, True), (61.0, False), (-5.0, True), (-7200.0, False)])
def test_a_gather_does_not_wait_for_a_time_that_a_wrong_clock_wrote(ago: float, moves: bool) -> None:
    member: dict[str, Any] = {"_id": "a", "proc1": {"finished": iso(NOW - ago)}}
    assert gathering.moving([member], "proc1", 60.0, NOW) is moves
