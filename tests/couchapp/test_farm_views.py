"""The views of what farms have in their hands."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator import batchjobs, control, documents
from orchestrator.batchjobs import Place
from orchestrator.documents import Claimant

DAEMON = Claimant("farm:here:centre", "daemon-host", 4711, "here")
START = 1_769_079_600.0
PLACE = Place("slurm", "centre", "orc-x-transfer-1", 2)


@pytest.fixture
def queued(chain: Any) -> dict[str, Any]:
    raw = {"_id": "r_001", "type": "daqdocument", "status": "closed", "file": "/raw/1", "run_name": "r"}
    return batchjobs.queue(raw, chain.steps[0], DAEMON, "a1", PLACE, START)


def key(state: str, *, number: str | None = "17", node: str | None = None) -> list[Any]:
    return ["here", "centre", "orc-x-transfer-1", "proc0", number, state, node]


def test_each_attempt_at_a_farm_is_counted_under_its_job_in_one_state(
    map_rows: Any, chain: Any, queued: dict[str, Any]
) -> None:
    step = chain.steps[0]
    paths = {"script": "/s", "stdout": "/o", "stderr": "/e"}
    known = batchjobs.submitted(queued, "a1", "17", paths, START + 5)
    held = batchjobs.says(known, step, "the job is held", START + 6)
    running = batchjobs.begun(known, step, "node7", START + 60, START + 61)
    cancelling = batchjobs.cancel(running, "me", "wrong", batchjobs.FAILED, START + 70)
    rows = map_rows("farm/jobs", [queued, known, held, running, cancelling])
    assert rows == [
        [(key("intended", number=None), START * 1000)],
        [(key("queued"), (START + 5) * 1000)],
        [(key("held"), (START + 5) * 1000)],
        [(key("running", node="node7"), (START + 60) * 1000)],
        [(key("cancelling", node="node7"), (START + 60) * 1000)],
    ]
    assert map_rows("farm/cancelled", [running, cancelling]) == [[], [(["here", "centre"], None)]]
    ended = documents.release(known, step, "given back", START + 80)
    assert map_rows("farm/jobs", [ended]) == [[]] and map_rows("farm/cancelled", [ended]) == [[]]


def test_the_documents_of_a_job_are_found_when_it_has_ended_too(
    map_rows: Any, chain: Any, queued: dict[str, Any]
) -> None:
    step = chain.steps[0]
    back = documents.release(queued, step, "given back", START + 80)
    again = batchjobs.queue(back, step, DAEMON, "a2", Place("slurm", "centre", "orc-x-transfer-2", 1), START + 90)
    ((first, second),) = map_rows("farm/documents", [again])
    assert first[0] == ["orc-x-transfer-1", 2, "a1"] and second[0] == ["orc-x-transfer-2", 1, "a2"]
    assert first[1] == {"step": "proc0", "farm": "centre", "scheduler": "slurm", "number": None, "submitted": None}


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**20) | st.text(max_size=5) | st.just("a1"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["attempt", "number", "farm", "job", "says", "cancel", "name", "started", "site"]), inner,
        max_size=4,
    ),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["proc 0 queued", "proc 0 in progress", "proc0 queued", "good"]), ANYTHING, ANYTHING)
def test_no_document_makes_them_throw(map_rows: Any, status: str, entry: Any, jobs: Any) -> None:
    document = {"_id": "x", "type": "daqdocument", "status": status, "proc0": entry, "batchjob": jobs}
    for view in ("farm/jobs", "farm/documents", "farm/cancelled"):
        for rows in map_rows(view, [document]):
            assert view != "farm/jobs" or all(isinstance(value, int | float) for _, value in rows)


@pytest.mark.parametrize("then", [batchjobs.FAILED, batchjobs.HOLD])
def test_the_guard_lets_an_operator_cancel_and_the_sites_daemon_end_it(
    call: Any, built: Any, chain: Any, queued: dict[str, Any], then: str
) -> None:
    guard = built["_design/guard"]["validate_doc_update"]
    operator, site = ({"db": "runs", "name": "me", "roles": [role]} for role in ("operator", "site:here"))

    def passes(new: dict[str, Any], old: dict[str, Any] | None, user: dict[str, Any]) -> bool:
        if old is not None:
            new, old = {**new, "_rev": "7-a"}, {**old, "_rev": "7-a"}
        return "threw" not in call(guard, [[new, old, user, {}]])[0]

    asked = batchjobs.cancel(queued, "me", "wrong", then, START + 10)
    assert passes(asked, queued, operator)
    report = documents.Report("r_001", "proc0", "a1", START, START + 20, error_class="transient", reason="it was ended")
    after, record = batchjobs.end_cancelled(asked, chain.steps[0], report, START + 20)
    assert passes(after, asked, site) and passes(record, None, site)
    assert after["status"] == ("failed" if then == batchjobs.FAILED else "closed")
    stopped = control.stop(control.empty("here"), control.Scope(), control.PAUSE, "me", "", START)
    assert passes(stopped, None, operator) and not passes(stopped, None, site)
