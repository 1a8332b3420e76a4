"""Since when something is gone."""

from orchestrator.engine.absence import Absence


def test_a_witness_that_could_not_be_asked_lets_no_time_pass() -> None:
    absence = Absence()
    assert absence.since("a", 10.0, gone=True) == 10.0
    assert absence.since("a", 20.0, gone=True) == 10.0
    assert absence.since("a", 30.0, gone=False) is None
    assert absence.since("a", 40.0, gone=True) == 40.0
    assert absence.since("b", 45.0, gone=True) == 45.0


def test_a_clock_that_is_put_back_makes_nobody_wait_for_hours() -> None:
    absence = Absence()
    absence.since("a", 5000.0, gone=True)
    assert absence.since("a", 1000.0, gone=True) == 1000.0
    absence.forget("a")
    assert absence.since("a", 1010.0, gone=True) == 1010.0
