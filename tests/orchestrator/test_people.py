"""What people do to documents: legal from every state, never on top of somebody else's, and nothing of it lost."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import chain as chains
from orchestrator import documents, people
from orchestrator.documents import Claimant, Report
from orchestrator.errors import IllegalTransition, SettingsError
from orchestrator.people import Asked, Changed, Order
from orchestrator.transitions import parse

CHAIN = chains.loads("""
name: four
steps:
  - {name: a, run: "x:y", retries: {count: 1, wait: 10 s, on: [transient]}}
  - {name: b, run: "x:y"}
  - {name: c, run: "x:y", needs: [a]}
  - {name: d, run: "x:y", needs: [b]}
""")
A, B, C, D = CHAIN.steps
ME = Claimant("p1", "host", 1, "here")


def raw(**more: Any) -> dict[str, Any]:
    return {"_id": "d", "_rev": "1-a", "type": "daqdocument", "status": "closed", "file": "/raw/d", **more}


def done(document: dict[str, Any], *steps: chains.Step) -> dict[str, Any]:
    for step in steps:
        claimed = documents.claim(document, step, ME, f"t-{step.name}", 100.0)
        report = Report("d", step.key, f"t-{step.name}", 1.0, 2.0, 1.0, result={"file": f"/out/{step.name}", "n": 1})
        document = documents.finish(claimed, step, report, 101.0)
    return document


def running(step: chains.Step, document: dict[str, Any] | None = None) -> dict[str, Any]:
    return documents.claim(document or raw(), step, ME, "t-run", 100.0)


def failed(document: dict[str, Any] | None = None, step: chains.Step = A) -> dict[str, Any]:
    report = Report("d", step.key, "t-run", 1.0, 2.0, error_class="data", reason="no header")
    return documents.fail(running(step, document), step, report, 101.0)[0]


def do(what: str, document: dict[str, Any], reason: str = "because", **more: Any) -> Any:
    order = Order(what, "ann@daq1", reason, **more)
    return people.decider(CHAIN, Asked("operation:1", order, 200.0))(document)


def after(what: str, document: dict[str, Any], **more: Any) -> dict[str, Any]:
    made = do(what, document, **more)
    assert isinstance(made, Changed), made
    assert made.document["_rev"] == document["_rev"]
    return made.document


def test_every_change_says_who_what_why_and_what_was_before() -> None:
    held = after("hold", raw())
    assert held["operation"] == {
        "id": "operation:1", "what": "hold", "by": "ann@daq1", "at": documents.iso(200.0), "reason": "because",
        "was": {"status": "closed"},
    }  # fmt: skip
    bad = after("mark-bad", failed())
    assert after("mark-good", bad)["operation"]["was"] == {"status": "bad", "reason": "because"}


def test_a_hold_keeps_the_status_stops_every_claim_and_lets_the_running_attempt_end() -> None:
    held = after("hold", raw())
    assert held["status"] == "closed"
    assert held["hold"] == {"by": "ann@daq1", "reason": "because", "at": documents.iso(200.0)}
    assert not any(documents.ready(CHAIN, held, step) for step in CHAIN.steps)
    assert "on hold already, by ann@daq1: because" in do("hold", held)
    assert documents.ready(CHAIN, after("release", held), A)
    assert do("release", raw()) == "it is not on hold"
    busy = after("hold", running(A))
    assert documents.held_by(busy, "proc0", "t-run")
    ended = documents.finish(busy, A, Report("d", "proc0", "t-run", 1.0, 2.0), 300.0)
    assert ended["status"] == "good" and documents.ready_step(CHAIN, ended) is None


@pytest.mark.parametrize(("what", "status"), [("fail", "failed"), ("abandon", "failed"), ("mark-bad", "bad")])
def test_a_person_wins_over_the_attempt_that_runs_and_the_attempt_has_its_record(what: str, status: str) -> None:
    made = do(what, running(A))
    document, (record,) = made.document, made.records
    assert document["status"] == status
    assert not documents.held_by(document, "proc0", "t-run")
    assert (record["_id"], record["state"], record["error_class"]) == ("attempt:d:proc0:1", "called off", "person")
    assert record["reason"] == f"called off by ann@daq1 ({what}: because)"
    back = after("mark-good" if status == "bad" else "retry", document)
    again = documents.claim(back, A, ME, "t2", 300.0)
    assert again["proc0"]["number"] == 2, "the next attempt's document is another one"


def test_fail_is_for_a_step_that_has_the_document_and_abandon_for_any_other() -> None:
    failed_there = after("fail", running(B, done(raw(), A)))
    assert (failed_there["proc1"]["state"], failed_there["proc1"]["reason"]) == ("failed", "because")
    for document in (raw(), done(raw(), A), raw(status="bad"), raw(status="open")):
        with pytest.raises(IllegalTransition, match="no step has it that could fail"):
            do("fail", document)
    for document in (raw(), raw(status="open"), done(raw(), A)):
        given_up = after("abandon", document)
        assert (given_up["status"], given_up["reason"]) == ("failed", "because")
    assert do("abandon", failed()) == "it has failed already"
    assert "reason" not in after("retry", after("abandon", raw()))


def test_bad_and_good_again_tries_the_failed_step_anew() -> None:
    back = after("mark-good", after("mark-bad", failed(done(raw(), A), B)))
    assert (back["status"], back["proc0"]["state"], "proc1" in back) == ("good", "done", False)
    assert documents.claim(back, B, ME, "t", 300.0)["proc1"]["number"] == 2
    assert after("mark-good", raw())["status"] == "good", "a closed file is accepted"
    for document in (failed(), running(A), raw(status="open")):
        with pytest.raises(IllegalTransition):
            do("mark-good", document)


def refused() -> dict[str, Any]:
    result = {"file": "/out/convert", "size": 2}
    report = Report("d", "proc1", "t-run", 1.0, 2.0, error_class="refused", reason="2 bytes", gate="size")
    report.result = result
    return documents.fail(running(B, done(raw(), A)), B, report, 101.0)[0]


def test_what_a_gate_has_refused_is_taken_as_it_is_by_a_persons_word() -> None:
    taken = after("accept", refused(), step="proc1")
    assert (taken["status"], "reason" in taken) == ("good", False)
    assert taken["proc1"]["accepted"] == {"by": "ann@daq1", "at": documents.iso(200.0), "reason": "because"}
    assert {key: value for key, value in taken["proc1"].items() if key not in ("accepted", "state")} == {
        key: value for key, value in refused()["proc1"].items() if key != "state"
    }
    assert documents.is_done(taken, B) and documents.input_file(CHAIN, taken, D) == "/out/convert"
    assert "done already" in do("accept", taken, step="proc1")
    for document in (raw(), failed(done(raw(), A), B), after("mark-bad", done(raw(), A)), running(A)):
        with pytest.raises(IllegalTransition, match="no gate has refused"):
            do("accept", document, step="proc1")


def test_a_reset_takes_the_step_and_what_depends_on_it_and_keeps_it_all_in_the_past() -> None:
    whole = done(raw(), A, B, C, D)
    made = do("reset", whole, step="proc1")
    document, (past,) = made.document, made.records
    assert document["status"] == "good"
    assert [key for key in ("proc0", "proc1", "proc2", "proc3") if key in document] == ["proc0", "proc2"]
    assert past["entries"] == {"proc1": whole["proc1"], "proc3": whole["proc3"]}
    assert (past["_id"], past["type"], past["document"]) == ("past:operation:1:d", "past", "d")
    assert past["operation"]["by"] == "ann@daq1"
    assert documents.ready_step(CHAIN, document) is B
    assert documents.claim(document, B, ME, "t", 300.0)["proc1"]["number"] == 2
    first = after("reset", whole, step="proc0")
    assert first["status"] == "closed" and not any(step.key in first for step in CHAIN.steps)
    assert "nothing of proc1 (b)" in do("reset", done(raw(), A), step="proc1")


def test_a_reset_calls_off_what_runs_of_it_and_leaves_what_does_not_depend() -> None:
    busy = running(D, done(raw(), A, B, C))
    made = do("reset", busy, step="proc1")
    assert made.document["status"] == "good"
    assert [record["type"] for record in made.records] == ["attempt", "past"]
    other = running(C, done(raw(), A, B))
    kept = after("reset", other, step="proc1")
    assert kept["status"] == "proc 2 in progress" and documents.held_by(kept, "proc2", "t-run")


def test_a_reset_of_a_failed_document_and_of_one_that_waits_for_a_retry_keeps_the_numbers() -> None:
    document = after("reset", failed(done(raw(), A), B), step="proc0")
    assert document["status"] == "closed" and document["numbers"] == {"proc0": 2, "proc1": 2}
    waiting, _ = documents.fail(
        running(A), A, Report("d", "proc0", "t-run", 1.0, 2.0, error_class="transient", reason="full"), 101.0
    )
    assert "nothing of proc0" in do("reset", waiting, step="proc0")
    both = {**done(raw(), A), "retry": {"step": "proc1", "number": 4}}
    assert after("reset", both, step="proc0")["numbers"] == {"proc0": 2, "proc1": 4}
    for status in ("open", "bad"):
        with pytest.raises(IllegalTransition):
            do("reset", {**done(raw(), A), "status": status}, step="proc0")


def test_steps_that_the_chain_no_longer_has_go_with_the_rest() -> None:
    document = {**done(raw(), A), "proc7": {"state": "done", "step": "old"}}
    made = do("reset", document, step="proc1")
    assert made.records[-1]["entries"] == {"proc7": {"state": "done", "step": "old"}}
    assert made.document["status"] == "good" and "proc7" not in made.document


def test_priority_is_a_number_and_nothing_where_it_is_the_usual_one() -> None:
    assert after("priority", raw(), value=5)["priority"] == 5
    assert "priority" not in after("priority", raw(priority=5), value=0)
    assert do("priority", raw(priority=5), value=5) == "its priority is 5 already"
    assert do("priority", raw(), value=0) == "its priority is 0 already"
    for value in (10**7, True, 1.5):
        with pytest.raises(SettingsError):
            Order("priority", "ann", value=value)


def test_an_order_that_cannot_be_is_refused_in_words() -> None:
    for words, sentence in (
        ({"what": "explode"}, "there is no operation 'explode'"),
        ({"what": "hold"}, "hold needs a reason"),
        ({"what": "reset"}, "reset needs a step"),
        ({"what": "reset", "step": "proc0", "outputs": "burnt"}, "kept, moved, removed"),
    ):
        with pytest.raises(SettingsError, match=sentence):
            Order(by="ann", **words)  # type: ignore[arg-type]
    with pytest.raises(IllegalTransition, match="of type 'tar'"):
        do("hold", raw(type="tar"))


HAPPENINGS = ("ok", "transient", "data", "refused", "lose", "release-it", *people.NAMES)


@given(st.lists(st.sampled_from(HAPPENINGS), max_size=40), st.sampled_from(["proc0", "proc1", "proc3"]))
@settings(max_examples=150, deadline=None)
def test_whatever_people_and_pollers_do_the_document_stays_legal_and_no_record_is_written_twice(
    happenings: list[str], target: str
) -> None:
    document: dict[str, Any] = raw(header={"x": 1}, stranger="kept")
    now, seen, held = 1000.0, {}, None
    for number, what in enumerate(happenings):
        now += 1000.0
        if what in people.NAMES:
            order = Order(what, "ann", "why", target if what in ("reset", "reprocess", "accept") else "", value=number)
            try:
                made = people.decider(CHAIN, Asked(f"operation:{number}", order, now))(document)
            except IllegalTransition:
                continue
            if isinstance(made, str):
                continue
            document = made.document
            for record in made.records:
                assert record["_id"] not in seen, f"{record['_id']} was written twice"
                seen[record["_id"]] = record
        elif what == "ok" and documents.holder(document) is None:
            step = documents.ready_step(CHAIN, document)
            if step is not None:
                document, held = documents.claim(document, step, ME, f"t{number}", now), (step, f"t{number}")
                assert document[step.key]["number"] >= 1
        elif held is not None and documents.held_by(document, held[0].key, held[1]):
            step, attempt = held
            report = Report("d", step.key, attempt, 1.0, 2.0, error_class=None if what == "ok" else what, reason="r")
            report.gate = "g" if what == "refused" else ""
            if what == "ok":
                document = documents.finish(document, step, report, now)
            elif what == "release-it":
                document = documents.release(document, step, "stop", now)
            else:
                document, record = (
                    documents.lose(document, step, "gone", now)
                    if what == "lose"
                    else documents.fail(document, step, report, now)
                )
                assert record["_id"] not in seen, f"{record['_id']} was written twice"
                seen[record["_id"]] = record
        assert parse(document["status"]) is not None
        assert (document["stranger"], document["header"], document["file"]) == ("kept", {"x": 1}, "/raw/d")
        assert (documents.holder(document) is None) or document[documents.holder(document)[0]]["state"] == "in progress"
