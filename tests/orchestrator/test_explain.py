"""For every situation that keeps a document from running, the true cause: pure, over facts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import batchjobs, designs, documents, reasons
from orchestrator import chain as chains
from orchestrator.control import Control
from orchestrator.documents import Claimant, Report, iso
from orchestrator.explain import Facts, explain

CHAIN = chains.loads("""
name: three
sites: {here: {}, lyon: {}}
farms: {centre: {scheduler: slurm, spool: /spool}}
steps:
  - {name: a, run: "x:y", retries: {count: 1, wait: 1 h, on: [transient]}}
  - {name: b, run: "x:y", site: lyon}
  - {name: c, run: "x:y", executor: farm, farm: centre}
""")
A, B, C = CHAIN.steps
NOW = 1_769_079_600.0
FARM = batchjobs.identity("here", "centre")
ME = Claimant("p1", "daq1", 1, "here")


def raw(**more: Any) -> dict[str, Any]:
    return {"_id": "d", "_rev": "1-a", "type": "daqdocument", "status": "closed", "file": "/raw/d", **more}


def done(*steps: chains.Step, **more: Any) -> dict[str, Any]:
    return raw(status="good", **{step.key: {"step": step.name, "state": "done"} for step in steps}, **more)


def beat(name: str, steps: tuple[str, ...], ago: float = 1.0, site: str = "here", **more: Any) -> dict[str, Any]:
    return {
        name: {
            "id": name, "host": "daq1", "site": site, "steps": list(steps), "workers": 2, "lease": 60.0, "held": 0,
            "backlog": 0, "at": iso(NOW - ago), **more,
        }
    }  # fmt: skip


def facts(*beats: dict[str, Any], **more: Any) -> Facts:
    return Facts(NOW, beats={name: one for each in beats for name, one in each.items()}, **more)


ALIVE = beat("p1", ("proc0",))
DAEMON = beat(FARM, ("proc2",), workers=0)


def queued(**more: Any) -> dict[str, Any]:
    place = batchjobs.Place("slurm", "centre", "job-1", 1)
    document = batchjobs.queue(done(A, B), C, Claimant(FARM, "daq1", 1, "here"), "t1", place, NOW)
    return {**document, "proc2": {**document["proc2"], **more}}


def submitted(**more: Any) -> dict[str, Any]:
    return batchjobs.submitted(queued(**more), "t1", "4711", {}, NOW)


def failed(error: str) -> dict[str, Any]:
    claimed = documents.claim(raw(), A, ME, "t", NOW - 10)
    report = Report("d", "proc0", "t", 1.0, 2.0, error_class=error, reason="the disk is full")
    return documents.fail(claimed, A, report, NOW - 5)[0]


STOPS = {"stops": {"step:a": {"mode": "pause", "by": "ann", "at": "x", "reason": "tea"}}}
PAUSED = {"here": Control.read("here", STOPS)}
OTHER = designs.summary(chains.loads("name: o\ntype: tar\nsteps: [{name: z, run: 'x:y'}]"))
AWAY = {"away": {"since": "2026-01-22T10:00:00Z", "why": "slurmctld does not answer"}}


@pytest.mark.parametrize(
    ("document", "known", "asked", "cause", "words", "then"),
    [
        (raw(type="tar"), facts(), None, "wrong-type", "of type 'tar'", ""),
        (raw(status="oops"), facts(), None, "unknown-status", "'oops'", "admin"),
        (raw(status="open"), facts(ALIVE), None, "open", "still writing", "DAQ"),
        (raw(status="bad", reason="no header"), facts(ALIVE), None, "bad", "no header", "mark-good d"),
        (failed("data"), facts(ALIVE), None, "failed", "the disk is full", "orchestrator retry d"),
        (raw(status="failed", reason="lost"), facts(), None, "given-up", "lost", "orchestrator retry d"),
        (failed("transient"), facts(ALIVE), None, "retry", "Attempt 2 of proc0", "by itself"),
        (raw(hold={"by": "ann", "reason": "tea", "at": "x"}), facts(ALIVE), None, "hold", "by ann", "release d"),
        (
            raw(hold={"by": "ann", "reason": "moving", "operation": "operation:1"}), facts(ALIVE), None, "hold",
            "moving", "--finish operation:1",
        ),
        (raw(), facts(ALIVE), B, "needs", "needs proc0 (a)", ""),
        (done(A), facts(ALIVE), None, "other-site", "belongs to site 'lyon'", "ask at site lyon"),
        (done(A), facts(beat("q", ("proc1",), 500.0, "lyon")), None, "poller-silent", "silent for 500 s", "lyon"),
        (raw(), facts(), None, "no-poller", "no poller that serves it", "orchestrator up"),
        (raw(), facts(beat("p1", ("proc0",), 300.0)), None, "poller-silent", "silent for 300 s", "orchestrator up"),
        (raw(), facts(beat("p1", ("proc0",), draining=True)), None, "draining", "draining", "orchestrator up"),
        (raw(), facts(beat("p1", ("proc0",), held=2, backlog=99)), None, "busy", "2 attempts in hand and 99", "wait"),
        (
            raw(), facts(beat("p1", ("proc0",), refused={"d": "forbidden: no role site:here", "e": "x"})), None,
            "refused-write", "no role site:here", "roles",
        ),
        (raw(), facts(beat("p1", ("proc0",), refused={"e": "x"})), None, "soon", "ready for proc0", ""),
        (raw(), facts(ALIVE, ahead=41), None, "soon", "ready for proc0", ""),
        (raw(), facts(ALIVE, controls=PAUSED), None, "paused", "by ann", "orchestrator resume --step a"),
        (raw(), facts(ALIVE, deployed=OTHER), None, "chain-changed", "another chain", "couchapp push"),
        (raw(), facts(ALIVE, deployed=designs.summary(CHAIN)), None, "soon", "ready for proc0", ""),
        (
            raw(status="good", proc0={"state": "odd", "step": "a"}), facts(ALIVE), None, "odd-entry", "'odd'",
            "reset --to a d",
        ),
        (
            raw(status="good", proc0={"state": "odd", "step": "old"}), facts(ALIVE), None, "chain-changed",
            "was 'old' when it was written", "reset --to a d",
        ),
        (raw(status="proc 7 in progress", proc7={"step": "x"}), facts(), None, "chain-changed", "has only", "abandon"),
        (documents.claim(raw(), A, ME, "t", NOW), facts(ALIVE), None, "running", "attempt 1, on daq1", ""),
        (
            documents.claim(raw(), A, ME, "t", NOW), facts(beat("p1", ("proc0",), 900.0), beat("p2", ("proc0",))), None,
            "poller-lost", "silent for 900 s", "another poller",
        ),
        (documents.claim(raw(), A, ME, "t", NOW), facts(), None, "poller-lost", "no heartbeat", "start a poller"),
        (done(A, B), facts(), None, "no-poller", "daemon of farm centre", "orchestrator farm centre"),
        (done(A, B), facts(beat(FARM, ("proc2",), **AWAY)), None, "farm-away", "slurmctld", "by itself"),
        (done(A, B), facts(beat(FARM, ("proc2",), room=0, limits={"jobs": 5})), None, "farm-full", "'jobs': 5", "lim"),
        (done(A, B), facts(DAEMON), None, "soon", "farm daemon (centre)", ""),
        (queued(), facts(DAEMON), None, "job-unsubmitted", "not known to be submitted", "log"),
        (submitted(), facts(DAEMON), None, "queued", "number 4711", ""),
        (submitted(says="JobHeldUser"), facts(DAEMON), None, "job-held", "JobHeldUser", "ask the farm about job 4711"),
        (submitted(), facts(beat(FARM, ("proc2",), **AWAY)), None, "farm-away", "slurmctld", "by itself"),
        (submitted(), facts(beat(FARM, ("proc2",), 900.0)), None, "farm-silent", "silent for 900 s", "farm centre"),
        (done(A, B, C), facts(ALIVE), None, "through", "Every step is done", ""),
        (done(A), facts(ALIVE), A, "through", "is done already", ""),
    ],
)  # fmt: skip
def test_each_situation_has_its_true_cause_and_what_to_do(
    document: dict[str, Any], known: Facts, asked: chains.Step | None, cause: str, words: str, then: str
) -> None:
    made = explain(CHAIN, document, known, asked)
    assert (made.cause, words in made.sentence, then in " ".join(made.next)) == (cause, True, True), made


@pytest.mark.parametrize("hours", [-3.0, 3.0])
def test_whether_a_daemon_lives_is_judged_by_the_database_s_clock(hours: float) -> None:
    """Neither the daemon's clock nor ours need be right."""
    seconds = 3600.0 * hours

    def beaten(ago: float) -> Facts:
        """A daemon whose clock is ahead of the database's, heard of so long ago; ours is behind it by 100 s."""
        return facts(beat("p1", ("proc0",), ago - seconds - 100.0, behind=-seconds), behind=100.0)

    made = explain(CHAIN, raw(), beaten(2.0))
    assert (made.cause, made.takers[0].quiet) == ("soon", pytest.approx(2.0, abs=0.01))
    assert f"its clock is 3.0 h {'ahead of' if hours > 0 else 'behind'} ours" in made.takers[0].words()
    assert explain(CHAIN, raw(), beaten(90.0)).cause == "poller-silent"
    claimed = documents.claim(raw(), A, ME, "t", NOW)
    assert explain(CHAIN, claimed, beaten(2.0)).cause == "running"
    assert explain(CHAIN, claimed, beaten(90.0)).cause == "poller-lost"
    assert explain(CHAIN, raw(), facts(beat("p1", ("proc0",), behind=seconds))).takers[0].ahead == 0.0, "ours unknown"
    assert explain(CHAIN, raw(), facts(beat("p1", ("proc0",), behind="x"), behind=0.0)).cause == "soon"


def test_what_stands_behind_the_first_cause_is_told_besides() -> None:
    hold = {"by": "ann", "reason": "tea", "at": "x"}
    all_at_once = facts(beat("p1", ("proc0",), 300.0), controls=PAUSED, deployed=OTHER)
    made = explain(CHAIN, {**failed("transient"), "hold": hold}, all_at_once)
    assert made.cause == "hold"
    told = " ".join(made.notes)
    for words in ("Attempt 2", "is paused", "another chain", "silent for 300 s"):
        assert words in told, made.notes
    assert [one.alive for one in made.takers] == [False]
    assert explain(CHAIN, raw(hold=hold), facts(ALIVE)).notes == [], "nothing else keeps it"
    paused = explain(CHAIN, raw(), facts(controls=PAUSED))
    assert paused.cause == "paused" and "no poller that serves it" in paused.notes[0]


def test_commands_can_be_pasted_into_a_shell_whatever_a_document_is_called() -> None:
    for name, words in (
        ("a b;rm -rf ~", "retry 'a b;rm -rf ~'"), ("$(id)", "retry '$(id)'"), ("-f", "retry -- -f"),
        ("--all", "retry -- --all"), ("it's", "retry 'it'\"'\"'s'"), ("r/1", "retry r/1"),
    ):  # fmt: skip
        said = {**failed("data"), "_id": name}
        assert explain(CHAIN, said, facts(ALIVE)).next == [f"mend the cause, then: orchestrator {words}"]
        assert f"orchestrator {words}" in reasons.why(CHAIN, said, NOW)
    odd = raw(status="good", proc0={"state": "odd", "step": "a"}, _id="-x y")
    assert explain(CHAIN, odd, facts(ALIVE)).next == ["orchestrator reset --to a -- '-x y'"]


def test_a_command_about_a_lane_names_it() -> None:
    whole = chains.loads("""
name: c
steps: [{name: a, run: 'x:y'}]
lanes: {tape: {steps: [{name: copy, run: 'x:y', needs: []}]}}
""")
    lane = whole.of("tape")
    broken = {"_id": "d", "type": lane.type, "status": "failed", "proc0": {"state": "failed", "reason": "full"}}
    assert "orchestrator retry --branch tape d" in explain(lane, broken, facts(branch="tape")).next[0]
    assert "orchestrator retry --branch tape d" in reasons.why(lane, broken, NOW)
    bad = {**broken, "status": "bad", "proc0": {"state": "refused"}}
    assert all("--branch tape d" in one for one in explain(lane, bad, facts(branch="tape")).next)


def test_the_step_that_is_needed_first_is_explained_too() -> None:
    made = explain(CHAIN, failed("data"), facts(ALIVE), B)
    assert made.cause == "failed", "what has failed keeps every later step"
    made = explain(CHAIN, raw(), facts(), C)
    assert made.cause == "needs" and made.because is not None
    assert made.because.cause == "no-poller"
    assert made.next == ["first: at site here: orchestrator up, or orchestrator poll"]


def test_owner_takers_attempts_and_what_a_person_did_are_told() -> None:
    record = {"step": "proc0", "number": 1, "state": "failed", "reason": "full", "log_tail": "one\ntwo\n" * 40}
    mark = {"what": "retry", "by": "ann", "at": "2026", "reason": "mended"}
    made = explain(CHAIN, raw(operation=mark), facts(beat("p2", ("proc0",), 99.0), ALIVE, attempts=(record,), ahead=3))
    assert made.owner == "proc0 (a) belongs to site here"
    assert [taker.id for taker in made.takers] == ["p1", "p2"] and "silent" in made.takers[1].words()
    assert made.attempts[0]["reason"] == "full" and len(made.log.splitlines()) == 15
    assert made.operation == "retry, by ann at 2026: mended"
    assert any("2 documents are ready for proc0 before it" in note for note in made.notes)
    assert made.to_json()["takers"][0]["id"] == "p1"
    running = documents.claim(raw(hold={"by": "ann", "reason": "tea"}), A, ME, "t", NOW)
    progress = {"running": [{"attempt": "t", "fraction": 0.25, "text": "events"}]}
    told = explain(CHAIN, running, facts(beat("p1", ("proc0",), **progress)), B)
    assert told.cause == "running" and "25 % done events" in told.notes
    assert any("no further step will begin" in note for note in told.notes)


anything = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8), st.lists, max_leaves=4)
entry = st.dictionaries(st.sampled_from(["state", "step", "poller", "farm", "attempt", "number"]), anything, max_size=3)
KEYS = ["type", "status", "proc0", "proc1", "proc2", "retry", "reason", "_id", "hold", "operation", "batchjob"]


@given(
    st.dictionaries(st.sampled_from(KEYS), anything | entry | st.sampled_from(["good", "proc 1 in progress"])),
    st.dictionaries(st.sampled_from(["at", "steps", "site", "lease", "held", "away", "states", "running"]), anything),
)
@settings(deadline=None)
def test_nothing_is_too_odd_to_be_explained(document: dict[str, Any], odd: dict[str, Any]) -> None:
    beats = {"p1": {**ALIVE["p1"], **odd}, FARM: {**DAEMON[FARM], **odd}, "None": odd}
    for step in (None, *CHAIN.steps):
        assert explain(CHAIN, {"type": "daqdocument", **document}, Facts(NOW, beats=beats), step).sentence
