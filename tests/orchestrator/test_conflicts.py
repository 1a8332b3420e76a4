"""Two sites' versions of one document become one: the same at both, and nothing that is done is lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import chain as chains
from orchestrator import conflicts, documents
from orchestrator.conflicts import Merge, Person, Version, Wait, decide, merge
from orchestrator.documents import Claimant, Report
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
"""
)
BASE: dict[str, Any] = {
    "type": "daqdocument", "status": "closed", "run_name": "r", "file_number": 1, "file": "/raw/1", "site": "daq",
}  # fmt: skip
MOVES = ("claim", "finish", "fail", "give up", "release", "lose", "hold", "bad")


def moved(site: str, document: dict[str, Any], what: str, number: int) -> dict[str, Any]:
    """The document after something that a site's daemons or people do, as the orchestrator itself would write it."""
    document = {**document, "_id": "d"}
    mine = [step for step in CHAIN.steps if step.site == site]
    now = 1_000_000.0 + number
    held = documents.holder(document)
    step = next((step for step in mine if held and step.key == held[0]), None)
    if what == "claim":
        ready = documents.ready_step(CHAIN, document, mine)
        if ready is not None:
            claimant = Claimant("p", site, 1, site)
            document = documents.claim(document, ready, claimant, f"{site}-{number}", now)
    elif what == "hold":
        document = {**document, "hold": {"by": site, "at": documents.iso(now), "why": "x"}}
    elif what == "bad" and parse(document["status"]).kind in (Kind.CLOSED, Kind.GOOD, Kind.FAILED):  # type: ignore[union-attr]
        document = {**document, "status": "bad"}
    elif step is not None:
        attempt = document[step.key]["attempt"]
        report = Report(document="d", step=step.key, attempt=attempt, started=now - 1, finished=now)
        if what == "finish":
            document = documents.finish(document, step, report, now)
        elif what in ("fail", "give up"):
            report.error_class, report.reason = ("transient" if what == "fail" else "data"), "it broke"
            document, _ = documents.fail(document, step, report, now)
        elif what == "release":
            document = documents.release(document, step, "later", now)
        elif what == "lose":
            document, _ = documents.lose(document, step, "gone", now)
    document = json.loads(json.dumps(document))
    del document["_id"]
    return document


def lived(site: str, document: dict[str, Any], moves: list[str], start: int) -> dict[str, Any]:
    for number, what in enumerate(moves):
        document = moved(site, document, what, start + number)
    return document


moves = st.lists(st.sampled_from(MOVES), max_size=8)


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
        if key.startswith("proc") and entry.get("state") == "done"
    }


def order_free(document: Any) -> str:
    return json.dumps(document, sort_keys=True)


@settings(max_examples=600, deadline=None)
@given(two())
def test_both_sites_come_to_the_same(versions: tuple[dict[str, Any], dict[str, Any]]) -> None:
    here, there = merge(versions), merge(versions[::-1])
    assert here == there
    assert order_free(here if isinstance(here, dict) else 0) == order_free(there if isinstance(there, dict) else 0)


@settings(max_examples=600, deadline=None)
@given(two())
def test_nothing_done_is_lost(versions: tuple[dict[str, Any], dict[str, Any]]) -> None:
    merged = merge(versions)
    if isinstance(merged, dict):
        assert done(merged) == done(versions[0]) | done(versions[1])


@settings(max_examples=600, deadline=None)
@given(two())
def test_merged_once_more_it_stays_as_it_is(versions: tuple[dict[str, Any], dict[str, Any]]) -> None:
    merged = merge(versions)
    if isinstance(merged, dict):
        for again in ([merged], [merged, merged], [merged, versions[0]], [versions[1], merged], [*versions, merged]):
            assert merge(again) == merged


@settings(max_examples=600, deadline=None)
@given(two())
def test_what_people_marked_stays_marked(versions: tuple[dict[str, Any], dict[str, Any]]) -> None:
    merged = merge(versions)
    if isinstance(merged, dict):
        assert (merged["status"] == "bad") == any(version["status"] == "bad" for version in versions)
        assert ("hold" in merged) == any("hold" in version for version in versions)


@settings(max_examples=600, deadline=None)
@given(two())
def test_the_document_is_one_that_the_daemons_understand(versions: tuple[dict[str, Any], dict[str, Any]]) -> None:
    merged = merge(versions)
    if not isinstance(merged, dict):
        return
    assert merged["status"] in [version["status"] for version in versions]
    held = documents.holder(merged)
    if held is not None:
        assert held[1].get("state") == "in progress", "whoever holds it can go on"
    for key, value in BASE.items():
        if key != "status":
            assert merged[key] == value


@settings(max_examples=300, deadline=None)
@given(two())
def test_two_sites_leave_nothing_to_persons(versions: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """As each step has one owner, what the daemons do to a document is always put together, now or a little later."""
    assert not isinstance(merge(versions), Person)


revs = st.integers(1, 4).flatmap(
    lambda n: st.lists(st.text("0123456789abcdef", min_size=32, max_size=32), min_size=n, max_size=n, unique=True)
)


@settings(max_examples=300, deadline=None)
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
    here, there = decide("d", [one, other], "daqdocument"), decide("d", [other, reordered], "daqdocument")
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


def test_a_retry_that_follows_an_attempt_outranks_it() -> None:
    failed = {**BASE, "status": "failed", "proc0": entry("failed"), "note": "seen"}
    retried = {**BASE, "status": "closed", "retry": {"step": "proc0", "number": 2, "last": "a", "by": "joe"}}
    assert merge([failed, retried]) == {**retried, "note": "seen"}


def test_batch_jobs_are_all_kept() -> None:
    jobs = [{"number": str(n), "submitted": f"2026-01-01T00:00:0{n}.000Z"} for n in range(3)]
    one, other = {**BASE, "batchjob": [jobs[0], jobs[2]]}, {**BASE, "batchjob": [jobs[1]]}
    assert merge([one, other]) == {**BASE, "batchjob": jobs}


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ({"size": 1}, {"size": 2}, "different values of 'size'"),
        ({"status": "?"}, {}, "none of ours"),
        ({"proc0": entry("done", "a")}, {"proc0": entry("done", "b")}, "equally far"),
        ({"proc0": entry("done", "a", 1), "status": "good"},
         {"proc0": entry("in progress", "b", 2), "status": "proc 0 in progress"}, "begun anew"),
        ({"proc0": entry("done"), "status": "good"}, {"operation": {"what": "reset", "at": "x"}}, "taken it back"),
        ({"proc0": 7}, {}, "no object"),
    ],
)  # fmt: skip
def test_what_is_for_a_person(one: dict[str, Any], other: dict[str, Any], words: str) -> None:
    found = merge([{**BASE, **one}, {**BASE, **other}])
    assert isinstance(found, Person), found
    assert words in found.reason


def test_other_documents_are_merged_only_where_they_say_the_same() -> None:
    one, other = Version({"type": "run", "n": 1}, ("1-b",)), Version({"n": 1, "type": "run"}, ("1-a",))
    found = decide("d", [other, one], "daqdocument")
    assert isinstance(found, Merge)
    (deleted,) = found.writes
    assert deleted["_deleted"] is True
    assert deleted["_revisions"]["ids"][1] == "a"
    assert isinstance(decide("d", [one, Version({"type": "run", "n": 2}, ("1-c",))], "daqdocument"), Person)


def test_a_version_as_the_database_gives_it() -> None:
    found = conflicts.version_of(
        {"_id": "d", "_rev": "3-c", "_revisions": {"start": 3, "ids": ["c", "b"]}, "n": 1, "_attachments": {"x": {}}}
    )
    assert found == Version({"n": 1, "_attachments": {"x": {}}}, ("3-c", "2-b"))
