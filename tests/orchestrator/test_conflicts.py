"""Two sites' versions of one document become one: the same at both, and nothing that is done is lost."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import chain as chains
from orchestrator import conflicts, documents, people
from orchestrator.conflicts import Merge, Person, Version, Wait, decide, merge
from orchestrator.documents import Claimant, Report
from orchestrator.people import Asked, Order
from orchestrator.transitions import Kind, parse

CHAIN = chains.loads(
    """
name: sites
type: daqdocument
sites: {daq: {}, centre: {}}
steps:
  - {name: one, run: 'os:getcwd', site: daq, retries: {count: 2, on: [transient]}}
  - {name: two, run: 'os:getcwd', site: daq, needs: [one]}
  - {name: three, run: 'os:getcwd', site: centre, needs: []}
  - {name: four, run: 'os:getcwd', site: centre, needs: [three]}
lanes:
  archive:
    steps:
      - {name: tape, run: 'os:getcwd', site: daq, needs: [one], retries: {count: 2, on: [transient]}}
      - {name: verify, run: 'os:getcwd', site: daq, needs: [tape]}
  look:
    steps:
      - {name: draw, run: 'os:getcwd', site: centre, needs: []}
      - {name: publish, run: 'os:getcwd', site: daq, needs: [draw]}
"""
)
LANES = ("archive", "look")
TYPES = conflicts.types_of(CHAIN)
BASE: dict[str, Any] = {
    "type": "daqdocument", "status": "closed", "run_name": "r", "file_number": 1, "file": "/raw/1", "site": "daq",
}  # fmt: skip
MOVES = (
    *("work",) * 6, *("claim",) * 5, *("finish",) * 2,
    *("fail", "give up", "refuse", "release", "lose", "hold", "priority", "bad"),
)  # fmt: skip


def moved(site: str, document: dict[str, Any], lane: str, what: str, number: int) -> dict[str, Any]:
    """The document after something that a site's daemons or people do, as the orchestrator itself would write it."""
    chain = CHAIN.of(lane)
    document = chain.branch.inward({**document, "_id": "d"}, CHAIN.type) or {}
    mine = [step for step in chain.steps if step.site == site]
    now = 1_000_000.0 + number
    held = documents.holder(document)
    step = next((step for step in mine if held and step.key == held[0]), None)
    if what == "work":  # one step, begun and done
        for number_, one in ((number, "claim"), (number, "finish")):
            document = {**moved(site, chain.branch.outward(document, CHAIN.type), lane, one, number_), "_id": "d"}
            document = chain.branch.inward(document, CHAIN.type) or {}
    elif what == "claim":
        ready = documents.ready_step(chain, document, mine)
        if ready is not None:
            claimant = Claimant("p", site, 1, site)
            document = documents.claim(document, ready, claimant, f"{site}-{number}", now)
    elif what == "hold":
        asked = Asked(f"operation:{number}", Order("hold", site, "x"), now)
        done_ = people.put_on_hold(document, asked)
        document = document if isinstance(done_, str) else asked.mark(done_.document, document)
    elif what == "priority":
        asked = Asked(f"operation:{number}", Order("priority", site, "x", value=1 + number % 5), now)
        done_ = people.priority(document, asked)
        document = document if isinstance(done_, str) else asked.mark(done_.document, document)
    elif what == "bad" and parse(document["status"]).kind in (Kind.CLOSED, Kind.GOOD, Kind.FAILED):  # type: ignore[union-attr]
        document = {**document, "status": "bad", "reason": f"{site} {number}", "updated": documents.iso(now)}
    elif step is not None:
        attempt = document[step.key]["attempt"]
        report = Report(document="d", step=step.key, attempt=attempt, started=now - 1, finished=now)
        if what == "finish":
            document = documents.finish(document, step, report, now)
        elif what in ("fail", "give up"):
            report.error_class, report.reason = ("transient" if what == "fail" else "data"), "it broke"
            document, _ = documents.fail(document, step, report, now)
        elif what == "refuse":
            report.error_class, report.reason, report.gate = "data", "too small", "size"
            document, _ = documents.fail(document, step, report, now)
        elif what == "release":
            document = documents.release(document, step, "later", now)
        elif what == "lose":
            document, _ = documents.lose(document, step, "gone", now)
    document = json.loads(json.dumps(chain.branch.outward(document, CHAIN.type)))
    del document["_id"]
    return document


def lived(site: str, document: dict[str, Any], moves: list[tuple[str, str]], start: int) -> dict[str, Any]:
    for number, (lane, what) in enumerate(moves):
        document = moved(site, document, lane, what, start + number)
    return document


moves = st.lists(st.tuples(st.sampled_from(("", *LANES)), st.sampled_from(MOVES)), max_size=10)


@st.composite
def two(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """What two sites make of one document while they hear nothing of each other."""
    common = lived("daq", BASE, draw(moves), 0)
    common = lived("centre", common, draw(moves), 100)
    return lived("daq", common, draw(moves), 200), lived("centre", common, draw(moves), 300)


def done(document: dict[str, Any]) -> set[tuple[str, str]]:
    return {
        (key, entry["attempt"])
        for key, entry in document.items()
        if re.search(r"(^|_)proc\d+$", key) and entry.get("state") == "done"
    }


def order_free(document: Any) -> str:
    return json.dumps(document, sort_keys=True)


@settings(max_examples=150, deadline=None)
@given(two())
def test_both_sites_come_to_the_same(versions: tuple[dict[str, Any], dict[str, Any]]) -> None:
    here, there = merge(versions, LANES), merge(versions[::-1], LANES)
    assert here == there
    assert order_free(here if isinstance(here, dict) else 0) == order_free(there if isinstance(there, dict) else 0)


@settings(max_examples=150, deadline=None)
@given(two())
def test_nothing_done_is_lost(versions: tuple[dict[str, Any], dict[str, Any]]) -> None:
    merged = merge(versions, LANES)
    if isinstance(merged, dict):
        assert done(merged) == done(versions[0]) | done(versions[1])


@settings(max_examples=150, deadline=None)
@given(two())
def test_merged_once_more_it_stays_as_it_is(versions: tuple[dict[str, Any], dict[str, Any]]) -> None:
    merged = merge(versions, LANES)
    if isinstance(merged, dict):
        for again in ([merged], [merged, merged], [merged, versions[0]], [versions[1], merged], [*versions, merged]):
            assert merge(again, LANES) == merged


@settings(max_examples=150, deadline=None)
@given(two())
def test_what_people_marked_stays_marked(versions: tuple[dict[str, Any], dict[str, Any]]) -> None:
    merged = merge(versions, LANES)
    if isinstance(merged, dict):
        for key in ("status", "archive_status", "look_status"):
            assert (merged.get(key) == "bad") == any(version.get(key) == "bad" for version in versions)
            if merged.get(key) == "bad":
                assert merged[key.replace("status", "reason")]
        assert ("hold" in merged) == any("hold" in version for version in versions)
        last = max(versions, key=lambda version: str(version.get("operation", {}).get("at", "")))
        if "priority" in last:
            assert merged["priority"] == last["priority"]


@settings(max_examples=150, deadline=None)
@given(two())
def test_the_document_is_one_that_the_daemons_understand(versions: tuple[dict[str, Any], dict[str, Any]]) -> None:
    merged = merge(versions, LANES)
    if not isinstance(merged, dict):
        return
    for lane in ("", *LANES):
        branch = CHAIN.of(lane).branch
        inside = branch.inward(merged, CHAIN.type) or {}
        assert inside["status"] in [(branch.inward(version, CHAIN.type) or {})["status"] for version in versions]
        held = documents.holder(inside)
        if held is not None:
            assert held[1].get("state") == "in progress", "whoever holds it can go on"
    for key, value in BASE.items():
        if key != "status":
            assert merged[key] == value


@st.composite
def three(draw: st.DrawFn) -> list[dict[str, Any]]:
    """What is left where a document was changed at a third place too: a version that one of the two has made before."""
    common = lived("daq", BASE, draw(moves), 0)
    early = lived("centre", common, draw(moves), 100)
    return [lived("daq", common, draw(moves), 200), early, lived("centre", early, draw(moves), 300)]


@settings(max_examples=100, deadline=None)
@given(three())
def test_the_order_of_the_versions_does_not_matter(versions: list[dict[str, Any]]) -> None:
    found = [merge(list(order), LANES) for order in itertools.permutations(versions)]
    assert all(one == found[0] for one in found)


@settings(max_examples=100, deadline=None)
@given(two())
def test_lanes_are_judged_each_by_itself(versions: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """What one lane becomes does not hang on what goes on in another."""
    merged = merge(versions, LANES)
    if not isinstance(merged, dict):
        return
    for lane in ("", *LANES):
        head = f"{lane}_" if lane else ""

        def only(document: dict[str, Any], head: str = head) -> dict[str, Any]:
            return {key: value for key, value in document.items() if conflicts._own(key, head)}

        alone = merge([{**BASE, **only(version), "updated": version.get("updated")} for version in versions], LANES)
        assert isinstance(alone, dict)
        assert only(alone) == only(merged)


@settings(max_examples=100, deadline=None)
@given(two())
def test_two_sites_leave_nothing_to_persons(versions: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """As each step has one owner, what the daemons do to a document is always put together, now or a little later."""
    assert not isinstance(merge(versions, LANES), Person)


revs = st.integers(1, 4).flatmap(
    lambda n: st.lists(st.text("0123456789abcdef", min_size=32, max_size=32), min_size=n, max_size=n, unique=True)
)


@settings(max_examples=100, deadline=None)
@given(two(), revs, revs)
def test_both_sites_write_the_very_same_revisions(
    bodies: tuple[dict[str, Any], dict[str, Any]], first: list[str], second: list[str]
) -> None:
    def version(body: dict[str, Any], ids: list[str]) -> Version:
        return Version(body, tuple(f"{len(ids) - n}-{name}" for n, name in enumerate(ids)))

    if set(first) & set(second):
        return
    one, other = version(bodies[0], first), version(bodies[1], second)
    reordered = version(dict(reversed(bodies[0].items())), first)
    here, there = decide("d", [one, other], TYPES), decide("d", [other, reordered], TYPES)
    assert type(here) is type(there)
    if isinstance(here, Merge) and isinstance(there, Merge):
        assert order_free(here.writes) == order_free(there.writes)
        assert [write["_rev"] for write in here.writes] == [write["_rev"] for write in there.writes]
        alive = [write for write in here.writes if not write.get("_deleted")]
        assert len(alive) <= 1
        assert len(here.writes) - len(alive) == 1
        for write in here.writes:
            start = write["_revisions"]["start"]
            assert write["_rev"] == f"{start}-{write['_revisions']['ids'][0]}"


# Examples


def entry(state: str, attempt: str = "a", number: int = 1, **more: Any) -> dict[str, Any]:
    return {"state": state, "attempt": attempt, "number": number, **more}


def test_parallel_steps_are_put_together() -> None:
    one = {**BASE, "status": "good", "proc0": entry("done"), "updated": "2026-01-01T00:00:01.000Z"}
    other = {**BASE, "status": "proc 2 in progress", "proc2": entry("in progress", "b"), "updated": "2026-01-01"}
    merged = merge([one, other])
    assert merged == {**one, **other, "updated": one["updated"]}


def test_two_that_hold_it_at_once_wait() -> None:
    one = {**BASE, "status": "proc 0 in progress", "proc0": entry("in progress")}
    other = {**BASE, "status": "proc 2 in progress", "proc2": entry("in progress", "b")}
    found = merge([one, other])
    assert isinstance(found, Wait)
    assert "two steps hold" in found.reason


def test_two_lanes_at_work_at_once_are_put_together() -> None:
    one = {**BASE, "status": "proc 2 in progress", "proc2": entry("in progress", "a")}
    other = {**BASE, "archive_status": "proc 0 in progress", "archive_proc0": entry("in progress", "b")}
    assert merge([one, other], LANES) == {**one, **other, "status": "proc 2 in progress"}


def test_what_a_person_has_reset_before_a_new_attempt_hinders_nothing() -> None:
    one = {**BASE, "numbers": {"proc0": 2}, "operation": {"what": "reset", "at": "x"}}
    other = {**BASE, "proc0": entry("done", number=2), "status": "good"}
    merged = merge([one, other])
    assert isinstance(merged, dict)
    assert merged["proc0"] == other["proc0"]


def test_documents_of_a_gather_are_put_together_while_their_members_are_the_same() -> None:
    chain = chains.loads(
        "name: g\nsteps: [{name: s, run: 'm:f'}]\n"
        "gathers: {runs: {type: run, after: [s], steps: [{name: add, run: 'm:f'}, {name: see, run: 'm:f', needs: []}]}}"
    )
    made = {"type": "run", "status": "closed", "members": [{"id": "a"}], "gather": "runs"}
    one = Version({**made, "status": "good", "proc0": entry("done")}, ("2-b", "1-a"))
    other = Version({**made, "status": "good", "proc1": entry("done", "b")}, ("2-c", "1-a"))
    found = decide("runs:r", [one, other], conflicts.types_of(chain))
    assert isinstance(found, Merge)
    assert {"proc0", "proc1"} <= found.body.keys()
    again = Version({**made, "members": [{"id": "a"}, {"id": "b"}]}, ("2-d", "1-a"))
    assert isinstance(decide("runs:r", [one, again], conflicts.types_of(chain)), Person)


def test_a_retry_that_follows_an_attempt_outranks_it() -> None:
    failed = {**BASE, "status": "failed", "proc0": entry("failed"), "note": "seen"}
    retried = {**BASE, "status": "closed", "retry": {"step": "proc0", "number": 2, "last": "a", "by": "joe"}}
    assert merge([failed, retried]) == {**retried, "note": "seen"}


def test_batch_jobs_are_all_kept() -> None:
    jobs = [{"number": str(n), "submitted": f"2026-01-01T00:00:0{n}.000Z"} for n in range(3)]
    one, other = {**BASE, "batchjob": [jobs[0], jobs[2]]}, {**BASE, "batchjob": [jobs[1]]}
    assert merge([one, other]) == {**BASE, "batchjob": jobs}


def test_a_hold_that_was_lifted_at_one_site_is_lifted_and_one_that_was_put_there_anew_stays() -> None:
    hold = {"by": "ann", "reason": "tea", "at": "2026-01-01T00:00:00.000Z"}
    held = {**BASE, "status": "good", "hold": hold, "proc0": entry("done")}
    lifted = {key: value for key, value in held.items() if key != "hold"}
    lifted["operation"] = {"what": "release", "by": "bob", "at": "2026-01-01T00:01:00.000Z", "was": {"hold": hold}}
    elsewhere = {**held, "note": "seen", "operation": {"what": "priority", "at": "2026-01-01T00:02:00.000Z"}}
    merged = merge([lifted, elsewhere])
    assert isinstance(merged, dict) and "hold" not in merged and merged["note"] == "seen"
    again = {**held, "hold": {**hold, "by": "eve", "at": "2026-01-01T00:03:00.000Z"}}
    merged = merge([lifted, again])
    assert isinstance(merged, dict) and merged["hold"]["by"] == "eve", "she had a reason of her own"
    merged = merge([{**lifted, "operation": {"what": "priority", "at": "x"}}, held])
    assert isinstance(merged, dict) and merged["hold"] == hold, "nobody said that it is lifted"


def test_what_a_person_marked_bad_at_one_site_is_in_nobody_s_hands_at_the_other() -> None:
    bad = {**BASE, "status": "bad", "reason": "too warm", "proc0": entry("done")}
    work = {**BASE, "status": "proc 2 in progress", "proc0": entry("done"), "proc2": entry("in progress", "b")}
    assert merge([bad, work]) == bad
    done = {**work, "status": "good", "proc2": entry("done", "b")}
    assert merge([bad, done]) == {**bad, "proc2": done["proc2"]}, "what is done stays done"


def test_who_took_a_step_back_is_named_to_whom_it_is_left() -> None:
    mark = {"what": "reset", "by": "ann@daq1", "at": "2026-01-01T00:01:00.000Z", "reason": "a new calibration"}
    taken = {**BASE, "numbers": {"proc0": 2}, "operation": mark}
    found = merge([{**BASE, "proc0": entry("done"), "status": "good"}, taken])
    assert isinstance(found, Person)
    assert "ann@daq1 (reset at 2026-01-01T00:01:00.000Z: a new calibration) has taken it back" in found.reason


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ({"size": 1}, {"size": 2}, "different values of 'size'"),
        ({"status": "?"}, {}, "none of ours"),
        ({"proc0": entry("done", "a")}, {"proc0": entry("done", "b")}, "equally far"),
        ({"proc0": entry("done", "a", 1), "status": "good"},
         {"proc0": entry("in progress", "b", 2), "status": "proc 0 in progress"}, "begun anew"),
        ({"proc0": entry("done"), "status": "good"}, {"numbers": {"proc0": 2}}, "taken it back"),
        ({"archive_proc0": entry("done"), "archive_status": "good"}, {"archive_numbers": {"proc0": 2}}, "taken it"),
        ({"archive_proc0": entry("done", "a")}, {"archive_proc0": entry("done", "b")}, "archive_proc0: two attempts"),
        ({"proc0": 7}, {}, "no object"),
    ],
)  # fmt: skip
def test_what_is_for_a_person(one: dict[str, Any], other: dict[str, Any], words: str) -> None:
    found = merge([{**BASE, **one}, {**BASE, **other}], LANES)
    assert isinstance(found, Person), found
    assert words in found.reason


def test_other_documents_are_merged_only_where_they_say_the_same() -> None:
    one, other = Version({"type": "run", "n": 1}, ("1-b",)), Version({"n": 1, "type": "run"}, ("1-a",))
    found = decide("d", [other, one], TYPES)
    assert isinstance(found, Merge)
    (deleted,) = found.writes
    assert deleted["_deleted"] is True
    assert deleted["_revisions"]["ids"][1] == "a"
    assert isinstance(decide("d", [one, Version({"type": "run", "n": 2}, ("1-c",))], TYPES), Person)


def test_a_version_as_the_database_gives_it() -> None:
    found = conflicts.version_of(
        {"_id": "d", "_rev": "3-c", "_revisions": {"start": 3, "ids": ["c", "b"]}, "n": 1, "_attachments": {"x": {}}}
    )
    assert found == Version({"n": 1, "_attachments": {"x": {}}}, ("3-c", "2-b"))
