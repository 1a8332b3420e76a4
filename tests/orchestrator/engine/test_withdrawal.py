"""Pausing, draining, limiting and cancelling at a farm, against the model of everything outside, crashes included."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_farm_engine import CHAIN, DONE, Crash, Farm, Model

from orchestrator import batchjobs, control, jobfiles
from orchestrator.control import Control, Scope
from orchestrator.schedulers.errors import SchedulerUnavailable
from orchestrator.transports import Answer

ONE_EACH = CHAIN.replace("documents_per_job: 2", "documents_per_job: 1")


class CancellingFarm(Farm):
    """A farm that can cancel, too: what waits is over at once, what runs has its end put on record."""

    def run(self, argv: Any, stdin: bytes = b"", timeout: float | None = None, **how: Any) -> Answer:
        words = list(argv)
        place = next((n for n, word in enumerate(words) if word.endswith("fsched.py")), None)
        if place is None or words[place + 1] != "cancel" or self.down:
            return super().run(argv, stdin, timeout, **how)
        due = self.fault.due()
        if due and not self.fault.after:
            raise Crash
        for key in words[place + 2 :]:
            number, _, task = key.partition(".")
            for job in self.jobs:
                if str(job["number"]) == number and (not task or str(job["task"]) == task) and not job["finished"]:
                    job |= {"state": "cancelled", "finished": 3, "reason": "cancelled before it began"}
        if due:
            raise Crash
        return Answer(0, "")

    def begin(self, name: str, task: int, attempt: str) -> None:
        """A node has started a task, and works at an attempt."""
        marker = {"number": "1", "host": "n1", "pid": 1, "started": 1.0, "attempt": attempt, "attempt_started": 1.0}
        folder = Path(self.spool) / "jobs" / name  # type: ignore[attr-defined]
        (folder / jobfiles.started_name(task)).write_text(json.dumps(marker))
        for job in self.jobs:
            if job["name"] == name and (job["task"] or 1) == task:
                job |= {"state": "running", "started": 2}


class Site(Model):
    """The model, with people."""

    def __init__(self, folder: Path, count: int, text: str = CHAIN) -> None:
        self.document = control.empty("here")
        super().__init__(folder, count, text)
        farm = CancellingFarm(folder, self.fault)
        farm.spool = str(folder)  # type: ignore[attr-defined]
        self.farm: CancellingFarm = farm
        self.restart()

    def restart(self) -> None:
        super().restart()
        self.engine.obey(Control.read("here", self.document))

    def round(self) -> None:
        for document in self.database.documents.values():
            if document.get("type") == "daqdocument" and not self.engine.stale:
                self.engine.held.note(document)
        super().round()

    def say(self, changed: dict[str, Any]) -> None:
        self.document = changed
        self.engine.obey(Control.read("here", changed))

    def drain(self) -> None:
        self.say(control.stop(self.document, Scope("farm", "centre"), control.DRAIN, "me", "power cut", self.now))

    def pause(self) -> None:
        self.say(control.stop(self.document, Scope("step", "s0"), control.PAUSE, "me", "look first", self.now))

    def resume(self) -> None:
        self.say(control.resume(self.document, None, "me", "", self.now))

    def cancel(self, name: str, then: str = batchjobs.FAILED) -> None:
        found = self.database.documents[name]
        changed = batchjobs.cancel(found, "me", "wrong calibration", then, self.now)
        head = int(found["_rev"].split("-")[0])
        self.database.documents[name] = {**changed, "_rev": f"{head + 1}-x"}

    def where(self, name: str) -> tuple[str, int, str]:
        entry = self.database.documents[name]["proc0"]
        return entry["job"], entry["task"], entry["attempt"]

    def attempts(self) -> list[dict[str, Any]]:
        return [d for d in self.database.documents.values() if d["type"] == "attempt"]


def test_a_paused_step_is_neither_intended_nor_submitted_and_what_is_there_goes_on(tmp_path: Path) -> None:
    site = Site(tmp_path, 3)
    site.pause()
    for _ in range(3):
        site.round()
    assert site.statuses() == {"closed": 3} and not site.farm.jobs
    site.resume()
    site.round()
    site.pause()
    site.farm.work()
    site.round()
    assert site.statuses() == {"good": 3} and not site.attempts()


def test_an_intended_job_waits_while_its_step_is_paused(tmp_path: Path) -> None:
    site = Site(tmp_path, 2)
    site.fault.left, site.fault.after = 1, False  # the intent is written, the first file is not
    with pytest.raises(Crash):
        site.round()
    site.restart()
    site.pause()
    site.round()
    assert site.statuses() == {"proc 0 queued": 2} and not site.farm.jobs
    site.resume()
    site.round()
    assert len(site.farm.jobs) == 1


def test_a_drain_takes_back_what_waits_and_leaves_what_has_begun(tmp_path: Path) -> None:
    site = Site(tmp_path, 5)
    site.round()
    job, task, attempt = site.where("d0")
    site.farm.begin(job, task, attempt)
    site.round()
    assert site.statuses() == {"proc 0 in progress": 1, "proc 0 queued": 4}
    site.drain()
    site.round()
    assert site.statuses() == {"proc 0 in progress": 1, "closed": 4}
    states = {job["task"]: job["state"] for job in site.farm.jobs}
    assert states == {1: "running", 2: "cancelled", 3: "cancelled"}
    told = json.loads((tmp_path / "jobs" / job / jobfiles.withdrawn_name(task)).read_text())
    assert len(told["attempts"]) == 1 and attempt not in told["attempts"], "the second document of the task in work"
    assert told["end"] == []
    given_back = site.database.documents["d4"]
    assert given_back["retry"]["number"] == 1, "no retry is used up"
    why = given_back["retry"]["reason"]
    assert "farm centre is drained" in why and "by me: power cut" in why
    assert not site.attempts()
    site.resume()
    for _ in range(3):
        site.farm.work()
        site.round()
    # The task in work was only marked in this model, so its one document is left; all others are through.
    assert site.statuses()["good"] == 4 and len(DONE) == len(set(DONE))


def test_an_attempt_that_begins_while_it_is_being_drained_is_not_ended(tmp_path: Path) -> None:
    site = Site(tmp_path, 2)
    site.round()
    job, task, attempt = site.where("d0")
    working = site.engine.world.withdraw

    def just_now(*words: Any) -> None:
        working(*words)
        site.farm.begin(job, task, attempt)  # the runner had looked a moment before

    site.engine.world.withdraw = just_now  # type: ignore[method-assign]
    site.engine.world.cancel = lambda keys: None  # type: ignore[method-assign,assignment]
    site.drain()
    site.round()
    site.round()
    assert site.statuses() == {"proc 0 in progress": 1, "closed": 1}
    assert json.loads((tmp_path / "jobs" / job / jobfiles.withdrawn_name(task)).read_text())["end"] == []


def test_a_drain_waits_for_the_batch_system_to_hear_it(tmp_path: Path) -> None:
    site = Site(tmp_path, 2)
    site.round()
    site.drain()
    site.farm.down = True
    site.round()
    assert site.statuses() == {"proc 0 queued": 2}
    site.farm.down = False
    site.round()
    assert site.statuses() == {"closed": 2} and {job["state"] for job in site.farm.jobs} == {"cancelled"}


def test_an_intent_that_was_never_submitted_is_drained_without_the_batch_system(tmp_path: Path) -> None:
    site = Site(tmp_path, 2)
    site.fault.left, site.fault.after = 1, False
    with pytest.raises(Crash):
        site.round()
    site.restart()
    site.farm.down = True
    site.drain()
    site.round()
    assert site.statuses() == {"closed": 2} and not site.farm.jobs


@pytest.mark.parametrize("then", [batchjobs.FAILED, batchjobs.HOLD])
def test_one_document_of_a_waiting_job_is_cancelled_and_its_fellow_goes_on(tmp_path: Path, then: str) -> None:
    site = Site(tmp_path, 2)
    site.round()
    site.cancel("d0", then)
    site.round()
    cancelled, fellow = (site.database.documents[name] for name in ("d0", "d1"))
    assert {job["state"] for job in site.farm.jobs} == {"waiting"}, "the job itself is still wanted"
    assert fellow["status"] == "proc 0 queued"
    (record,) = site.attempts()
    assert record["state"] == "cancelled" and record["error_class"] == "person"
    assert "cancelled by me: wrong calibration" in record["reason"]
    if then == batchjobs.FAILED:
        assert cancelled["status"] == "failed" and "cancelled by me: wrong calibration" in cancelled["proc0"]["reason"]
    else:
        assert cancelled["status"] == "closed" and cancelled["hold"]["by"] == "me"
        assert cancelled["retry"]["number"] == 2, "its first attempt has a record already"
    assert "cancel" not in cancelled.get("proc0", {})


def test_a_running_attempt_ends_by_the_batch_systems_hand_and_is_not_tried_again(tmp_path: Path) -> None:
    site = Site(tmp_path, 1)
    site.round()
    site.farm.begin(*site.where("d0"))
    site.round()
    site.cancel("d0")
    site.round()
    assert site.statuses() == {"proc 0 in progress": 1} and site.farm.jobs[0]["state"] == "cancelled"
    for _ in range(15):
        site.round()
    assert site.statuses() == {"failed": 1}
    reason = site.database.documents["d0"]["proc0"]["reason"]
    assert "cancelled by me: wrong calibration" in reason and "its job was cancelled" in reason


def test_what_was_done_before_the_word_came_counts_as_done(tmp_path: Path) -> None:
    site = Site(tmp_path, 2)
    site.round()
    site.farm.work()
    site.cancel("d0")
    site.round()
    assert site.statuses() == {"good": 2} and not site.attempts()


def test_limits_change_while_it_runs(tmp_path: Path) -> None:
    site = Site(tmp_path, 8, ONE_EACH.replace("10000}", "10000, jobs: 2}"))
    site.round()
    assert len(site.farm.jobs) == 2
    site.say(control.limit(site.document, "centre", {"jobs": 5, "array": 2}, "me", "", 1.0))
    site.round()
    assert len(site.farm.jobs) == 5 and max(job["task"] for job in site.farm.jobs) == 2
    site.say(control.limit(site.document, "centre", {"jobs": None}, "me", "", 1.0))
    site.round()
    assert len(site.farm.jobs) == 5


def test_a_whole_array_is_cancelled_by_its_number_and_a_part_of_it_task_by_task(tmp_path: Path) -> None:
    site = Site(tmp_path, 4, ONE_EACH)
    site.round()
    given: list[list[str]] = []
    site.engine.world.cancel = lambda keys: given.append(list(keys))  # type: ignore[method-assign,assignment]
    site.cancel("d1")
    site.round()
    site.drain()
    site.round()
    assert given == [["1.2"], ["1"]]


def test_a_cancel_that_was_not_heard_is_given_again(tmp_path: Path) -> None:
    site = Site(tmp_path, 1)
    site.round()
    working = site.engine.world.cancel

    def away(keys: Any) -> None:
        raise SchedulerUnavailable("fsched could not be asked to cancel jobs")

    site.engine.world.cancel = away  # type: ignore[method-assign]
    site.cancel("d0")
    site.round()
    assert site.statuses() == {"proc 0 queued": 1}
    site.engine.world.cancel = working  # type: ignore[method-assign]
    site.round()
    assert site.statuses() == {"failed": 1}


WORDS = st.lists(
    st.tuples(
        st.sampled_from(["drain", "resume", "pause", "cancel", "hold", "begin", "work", "away", "longer"]),
        st.integers(0, 14), st.booleans(), st.integers(1, 3), st.integers(0, 4),
    ),
    max_size=8,
)  # fmt: skip


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(WORDS)
def test_whatever_people_say_and_whenever_it_is_killed_nothing_is_lost_or_done_against_their_word(
    tmp_path_factory: pytest.TempPathFactory, words: list[tuple[str, int, bool, int, int]]
) -> None:
    site = Site(tmp_path_factory.mktemp("farm"), 5)
    asked: set[str] = set()
    for word, countdown, after, rounds, which in words:
        name = f"d{which}"
        held = site.database.documents[name]["status"].startswith("proc 0")
        if word in ("drain", "resume", "pause"):
            getattr(site, word)()
        elif word in ("cancel", "hold") and held:
            site.cancel(name, batchjobs.HOLD if word == "hold" else batchjobs.FAILED)
            asked.add(name)
        elif word == "begin" and held:
            job, task, attempt = site.where(name)
            folder = Path(site.farm.spool) / "jobs" / job  # type: ignore[attr-defined]
            if (folder / jobfiles.chunk_name(task)).exists() and not (folder / jobfiles.started_name(task)).exists():
                site.farm.begin(job, task, attempt)
        site.fault.left, site.fault.after = countdown, after
        site.farm.down = word == "away"
        try:
            for _ in range(rounds):
                site.round()
        except Crash:
            site.restart()
        site.fault.left, site.farm.down = None, False
        if word == "work":
            site.farm.work()
        if word == "longer":
            site.now += 60
    site.resume()
    for _ in range(60):
        site.farm.work()
        site.round()
        for document in site.database.documents.values():
            if document.get("hold"):  # a person releases it
                document.pop("hold")
                document["_rev"] = f"{int(document['_rev'].split('-')[0]) + 1}-x"
    statuses = site.statuses()
    assert set(statuses) <= {"good", "failed"}, statuses
    for name, document in site.database.documents.items():
        if document.get("status") == "failed":
            assert name in asked and document["proc0"]["error_class"] == "person"
    # Nothing but people's words used up attempts: what was drained was simply sent again. (A node of this model that
    # has begun a task never ends it: such an attempt is lost.)
    assert {d["state"] for d in site.attempts()} <= {"cancelled", "lost"}
    assert len(DONE) == len(set(DONE)), "no attempt was made twice"
