"""A site's control document: what it stops and limits, who said so, and that nonsense in it stops nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import chain as chains
from orchestrator import control
from orchestrator.control import DRAIN, PAUSE, Control, Scope
from orchestrator.engine import controls
from orchestrator.errors import ChainError, SettingsError
from orchestrator.farms import Limits

CHAIN = chains.loads("""
name: x
farms: {centre: {scheduler: fsched, spool: /spool}}
steps:
  - {name: transfer, run: 'a.b:c'}
  - {name: convert, run: 'a.b:c', executor: farm, farm: centre}
""")
TRANSFER, CONVERT = CHAIN.steps
NOW = 1_769_079_600.0
FARM, STEP, SITE = Scope("farm", "centre"), Scope("step", "convert"), Scope()


def read(document: Any) -> Control:
    return Control.read("here", document)


def test_a_step_is_stopped_by_itself_its_farm_or_its_site() -> None:
    for scope, transfer, convert in ((STEP, True, False), (FARM, True, False), (SITE, False, False)):
        found = read(control.stop(control.empty("here"), scope, PAUSE, "me", "", NOW))
        assert found.may_start("transfer") is transfer and found.may_start("convert", "centre") is convert


def test_what_two_people_stop_goes_on_when_both_have_said_so() -> None:
    document = control.stop(control.empty("here"), STEP, PAUSE, "me", "look", NOW)
    document = control.stop(document, FARM, DRAIN, "you", "power cut", NOW)
    assert "drained" in read(document).drained("convert", "centre")
    document = control.resume(document, FARM, "you", "", NOW)
    assert not read(document).drained("convert", "centre") and not read(document).may_start("convert", "centre")
    assert read(control.resume(document, None, "me", "", NOW)).may_start("convert", "centre")
    assert control.resume(document, FARM, "you", "", NOW) is document, "nothing changes: the very same document"


def test_the_sentence_says_since_when_by_whom_and_why() -> None:
    document = control.stop(control.empty("here"), STEP, PAUSE, "me@daq", "calibration", NOW)
    assert read(document).why_not(CONVERT) == (
        "proc1 (convert) is paused since 2026-01-22T11:00:00.000Z by me@daq: calibration."
    )
    document = control.stop(control.empty("here"), FARM, DRAIN, "me@daq", "", NOW)
    assert read(document).why_not(CONVERT) == (
        "proc1 (convert) does not begin: farm centre is drained since 2026-01-22T11:00:00.000Z by me@daq: "
        "no reason was given."
    )
    assert read(document).why_not(TRANSFER) == ""


def test_limits_override_those_of_the_chain_until_they_are_reset() -> None:
    document = control.limit(control.empty("here"), "centre", {"queued": 3, "array": 7}, "me", "", NOW)
    assert read(document).apply("centre", Limits(jobs=9)) == Limits(queued=3, array=7, jobs=9)
    assert read(document).apply("other", Limits(jobs=9)) == Limits(jobs=9)
    document = control.limit(document, "centre", {"queued": None}, "me", "", NOW)
    assert read(document).apply("centre", Limits()) == Limits(array=7)


@pytest.mark.parametrize("values", [{"queued": 0}, {"queued": 1.5}, {"array": 10**6}, {"jobs": float("inf")}, {"x": 1}])
def test_a_limit_that_cannot_be_is_refused_with_what_can(values: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match=r"must be|no limit 'x'"):
        control.limit(control.empty("here"), "centre", values, "me", "", NOW)


def test_the_history_tells_who_did_what_and_is_bounded() -> None:
    document = control.empty("here")
    for n in range(control.HISTORY + 5):
        document = control.stop(document, STEP, PAUSE if n % 2 else DRAIN, f"p{n}", "why", NOW + n)
    history = read(document).history
    assert len(history) == control.HISTORY
    at = "2026-01-22T11:01:44.000Z"
    assert history[-1] == {"at": at, "by": "p104", "reason": "why", "what": "drain step:convert"}


ODD = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5) | st.just("pause"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["site", "step:convert", "farm:centre", "mode", "by", "at", "centre", "queued", "value", "x"]),
        inner, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@given(ODD, ODD, ODD)
def test_whatever_stands_in_it_is_read_and_can_be_changed(stops: Any, limits: Any, history: Any) -> None:
    document = {"_id": "control:here", "stops": stops, "limits": limits, "history": history}
    found = read(document)
    found.apply("centre", Limits())
    assert isinstance(found.why_not(CONVERT), str) and isinstance(found.to_json(), dict)
    changed = control.stop(document, STEP, DRAIN, "me", "", NOW)
    assert not read(changed).may_start("convert")
    changed = control.limit(changed, "centre", {"queued": 5}, "me", "", NOW)
    assert read(changed).apply("centre", Limits()).queued == 5
    assert read(control.resume(changed, None, "me", "", NOW)).stops == ()


def test_steps_of_lanes_and_gathers_can_be_named_too() -> None:
    lanes = chains.loads("""
name: x
steps: [{name: transfer, run: 'a.b:c'}]
lanes: {archive: {steps: [{name: tape, run: 'a.b:c', needs: [transfer]}]}}
""")
    controls.check(lanes, "here", Scope("step", "tape"))
    assert controls.step_of(lanes, "proc0").name == "transfer" and controls.step_of(lanes, "tape").name == "tape"
    with pytest.raises(ChainError, match=r"no step 'tap'"):
        controls.check(lanes, "here", Scope("step", "tap"))
