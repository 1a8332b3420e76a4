"""An engine knows its own echo, and what it was refused."""

from __future__ import annotations

import pytest

from orchestrator.engine import remembered
from orchestrator.engine.remembered import REFUSED_FOR, Remembered


def test_what_is_older_than_our_last_write_is_told_from_what_is_newer() -> None:
    memory = Remembered()
    memory.written({"_id": "d", "_rev": "3-x"})
    older, same, newer = ({"_id": "d", "_rev": rev} for rev in ("2-y", "3-x", "10-z"))
    assert [memory.is_older(one) for one in (older, same, newer)] == [True, False, False]
    assert [memory.is_newer(one) for one in (older, same, newer)] == [False, False, True]
    assert not memory.is_older({"_id": "another", "_rev": "1-a"})


def test_a_refusal_is_of_one_version_and_for_a_while_even_if_the_clock_is_put_back() -> None:
    memory = Remembered()
    document = {"_id": "d", "_rev": "1-a"}
    memory.refused(document, 1000.0)
    assert memory.is_refused(document, 1000.0) and memory.is_refused(document, 1000.0 + REFUSED_FOR - 1)
    assert not memory.is_refused(document, 1000.0 + REFUSED_FOR)
    assert not memory.is_refused({**document, "_rev": "2-b"}, 1000.0)
    assert not memory.is_refused(document, 999.0)


def test_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "REMEMBERED", 2)
    memory = Remembered()
    for name in ("a", "b", "a", "c"):
        memory.written({"_id": name, "_rev": "5-x"})
    assert [memory.is_older({"_id": name, "_rev": "1-x"}) for name in "abc"] == [True, False, True]


def test_what_was_refused_of_late_is_told_with_its_reason_for_as_long_as_it_holds() -> None:
    memory = Remembered()
    for number in range(30):
        memory.refused({"_id": f"d{number}", "_rev": "1-a"}, 1000.0 + number, f"no {number}")
    told = memory.refusals(1030.0)
    assert len(told) == 20 and told["d29"] == "no 29" and "d9" not in told
    assert memory.refusals(1029.0 + REFUSED_FOR) == {} == Remembered().refusals(0.0)
