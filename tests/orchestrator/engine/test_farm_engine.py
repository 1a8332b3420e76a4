"""The farm's decisions against a model of everything outside: a crash between any two lines never submits twice."""

from __future__ import annotations

import copy
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator import chain as chains
from orchestrator import documents, jobfiles
from orchestrator.batchjobs import identity
from orchestrator.documents import Claimant, Report
from orchestrator.engine import submission, verdicts
from orchestrator.engine.farm import FarmEngine
from orchestrator.engine.farmworld import World
from orchestrator.engine.submission import Pace, Places
from orchestrator.errors import Unavailable
from orchestrator.schedulers import JobState, Query, get
from orchestrator.transports import Answer, LocalTransport

CHAIN = """
name: x
farms:
  centre:
    scheduler: fsched
    spool: /spool
    grace: {submission: 20 s, unknown: 30 s, result: 10 s}
    limits: {submissions_per_minute: 10000}
steps:
  - {name: s0, run: 'a.b:c', executor: farm, farm: centre, documents_per_job: 2, time_limit: 60, memory_limit: 1 GB,
     degrade: {time: 2, memory: 1.5, queue: long}, retries: {count: 3, wait: 1 s}}
"""
PREFIX = "orc-test-"


class Crash(BaseException):
    """The process ends here."""


class Fault:
    """Ends the process, or fails one operation, when the countdown reaches zero."""

    def __init__(self) -> None:
        self.left: int | None = None
        self.after = False

    def due(self) -> bool:
        if self.left is None:
            return False
        self.left -= 1
        return self.left < 0


class Database:
    """Documents with revisions; each request may be the last thing that happens, before or after its effect."""

    def __init__(self, fault: Fault) -> None:
        self.documents: dict[str, dict[str, Any]] = {}
        #: Versions behind those that are seen.
        self.behind: dict[str, dict[str, Any]] = {}
        self.fault = fault

    def bulk(self, docs: list[dict[str, Any]]) -> list[Any]:
        due = self.fault.due()
        if due and not self.fault.after:
            raise Crash
        outcomes = []
        for document in copy.deepcopy(docs):
            known = self.documents.get(document["_id"], {}).get("_rev")
            hidden = self.behind.get(document["_id"], {}).get("_rev")
            if hidden is not None and document.get("_rev") == hidden:
                self.behind[document["_id"]] = {**document, "_rev": f"{int(hidden.split('-')[0]) + 1}-x"}
                outcomes.append(SimpleNamespace(id=document["_id"], rev=self.behind[document["_id"]]["_rev"]))
                continue
            if document.get("_rev") != known:
                outcomes.append(SimpleNamespace(id=document["_id"], error="conflict", reason="x"))
                continue
            document["_rev"] = f"{int(str(known or '0').split('-')[0]) + 1}-x"
            self.documents[document["_id"]] = document
            outcomes.append(SimpleNamespace(id=document["_id"], rev=document["_rev"]))
        if due:
            raise Crash
        return outcomes

    def get_many(self, ids: list[str]) -> dict[str, Any]:
        found = {name: copy.deepcopy(self.documents.get(name)) for name in ids}
        for name in found.keys() & self.behind.keys():
            found[name] = {**(found[name] or {}), "_conflicts": [self.behind[name]["_rev"]]}
        return found

    def leaves(self, doc_id: str) -> list[dict[str, Any]]:
        return copy.deepcopy([self.documents[doc_id], self.behind[doc_id]])

    def view(self, name: str, **_: Any) -> list[Any]:
        if name == "conflicts/open":
            return [SimpleNamespace(id=one) for one in self.behind]
        kind = {"work/inqueue": "queued", "work/inprogress": "in progress"}[name]
        return [
            SimpleNamespace(id=d["_id"], key=[0, ""], value={"poller": d["proc0"]["poller"]})
            for d in self.documents.values()
            if d.get("status") == f"proc 0 {kind}"
        ]


class Farm(LocalTransport):
    """A farm in memory: files in a real folder, a batch system that starts what it is told."""

    def __init__(self, folder: Path, fault: Fault) -> None:
        super().__init__(folder)
        self.fault = fault
        self.jobs: list[dict[str, Any]] = []
        self.down = False
        self.visible = True

    def run(self, argv: Any, stdin: bytes = b"", timeout: float | None = None, **_: Any) -> Answer:
        words = list(argv)
        if words[0] in ("sh", "tail"):
            return super().run(argv)
        command = words[next(n for n, word in enumerate(words) if word.endswith("fsched.py")) + 1]
        if self.down:
            return Answer(1, "", "fsched: the daemon cannot be reached: connection refused")
        if command == "submit":
            due = self.fault.due()
            if due and not self.fault.after:
                raise Crash
            tasks = int(words[words.index("--array") + 1]) if "--array" in words else 0
            number = len({job["number"] for job in self.jobs}) + 1
            for task in range(1, tasks + 1) if tasks else [0]:
                self.jobs.append(
                    {"number": number, "task": task, "name": words[words.index("--name") + 1], "user": "me",
                     "state": "waiting", "reason": "", "submitted": 1, "started": None, "finished": None,
                     "exit_code": None, "signal": None}
                )  # fmt: skip
            if due:
                raise Crash
            return Answer(0, f"job {number}\n")
        ended = command == "history"
        shown = [job for job in self.jobs if (job["finished"] is not None) == ended and self.visible]
        return Answer(0, "".join(json.dumps(job) + "\n" for job in shown) + '{"end": true}\n')

    def write(self, path: Any, data: bytes, mode: int = 0o644) -> None:
        due = self.fault.due()
        if due and not self.fault.after:
            raise Crash
        super().write(path, data, mode)
        if due:
            raise Crash

    def work(self) -> None:
        """Every job that waits is done at once, as the farm-side runner would."""
        for job in self.jobs:
            if job["finished"] is not None:
                continue
            folder = Path(os_spool(self)) / "jobs" / job["name"]
            path = folder / jobfiles.chunk_name(job["task"] or 1)
            started = folder / jobfiles.started_name(job["task"] or 1)
            if path.exists() and not started.exists():
                started.write_text(json.dumps({"number": str(job["number"]), "host": "n1", "pid": 1, "started": 1.0}))
                for task in json.loads(path.read_text())["tasks"]:
                    DONE.append(task["attempt"])
                    report = Report(task["document"]["_id"], "proc0", task["attempt"], 1.0, 2.0)
                    content = jobfiles.result_to_json(report, "n1", str(job["number"]))
                    (folder / jobfiles.result_name(task["attempt"])).write_text(json.dumps(content))
            job |= {"state": "ended", "finished": 2, "exit_code": 0}


DONE: list[str] = []


def os_spool(farm: Farm) -> str:
    return farm.spool  # type: ignore[attr-defined,no-any-return]


class Model:
    """A farm, a database, and a daemon that may be made anew at any time."""

    def __init__(self, folder: Path, count: int, text: str = CHAIN) -> None:
        DONE.clear()
        self.fault = Fault()
        self.database = Database(self.fault)
        self.farm = Farm(folder, self.fault)
        self.farm.spool = str(folder)  # type: ignore[attr-defined]
        self.chain = chains.loads(text)
        self.now = 1000.0
        self.names = 0
        for n in range(count):
            self.database.documents[f"d{n}"] = {
                "_id": f"d{n}", "_rev": "1-x", "type": "daqdocument", "status": "closed", "file": f"/raw/{n} $(x)",
            }  # fmt: skip
        self.restart()

    def restart(self) -> None:
        """A new daemon: nothing of the old one's memory is left."""
        self.fault.left = None
        farm = self.chain.farms["centre"]
        self.names += 1000
        world = World(get("fsched"), self.farm, os_spool(self.farm), Query(PREFIX))
        places = Places(os_spool(self.farm), "/out", "", ("python3",))
        claimant = Claimant(identity("here", "centre"), "h", 1, "here")
        self.engine = FarmEngine(self.chain, farm, "centre", claimant, self.database, world, places, self.attempt)

    def attempt(self) -> str:
        self.names += 1
        return f"a{self.names}"

    def round(self) -> None:
        self.now += 1
        engine = self.engine
        if engine.stale:
            engine.load()
        for document in self.database.documents.values():
            if document.get("type") == "daqdocument":
                engine.backlog.offer(copy.deepcopy(document), self.now)
        listed = engine.watch(self.now)
        engine.submit(self.now, listed)
        engine.intend(self.now, lambda step: f"{PREFIX}{step.name}-{self.attempt()}")
        engine.submit(self.now, listed)

    def statuses(self) -> Counter[str]:
        return Counter(d["status"] for d in self.database.documents.values() if d["type"] == "daqdocument")

    def submissions(self) -> Counter[str]:
        return Counter(name for name, _ in {(job["name"], job["number"]) for job in self.farm.jobs})


EVENTS = st.lists(
    st.tuples(
        st.integers(0, 12), st.booleans(), st.sampled_from(["", "", "work", "away", "longer"]), st.integers(1, 3)
    ),
    max_size=8,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(EVENTS)
def test_a_crash_between_any_two_lines_submits_nothing_twice(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[int, bool, str, int]]
) -> None:
    model = Model(tmp_path_factory.mktemp("farm"), 7)
    for countdown, after, meanwhile, rounds in events:
        model.fault.left, model.fault.after = countdown, after
        model.farm.down = meanwhile == "away"
        try:
            for _ in range(rounds):
                model.round()
        except Crash:
            model.restart()
        model.fault.left = None
        model.farm.down = False
        if meanwhile == "work":
            model.farm.work()
        if meanwhile == "longer":
            model.now += 60
    for _ in range(60):
        model.farm.work()
        model.round()
    assert model.statuses() == {"good": 7}
    assert set(model.submissions().values()) == {1}
    recorded = [d["proc0"]["attempt"] for d in model.database.documents.values() if d["type"] == "daqdocument"]
    assert sorted(recorded) == sorted(DONE), "each document was done once, by the attempt that is recorded"
    assert all(d["batchjob"][-1]["number"] for d in model.database.documents.values())


def test_an_answer_that_never_came_is_looked_for_and_only_then_repeated(tmp_path: Path) -> None:
    model = Model(tmp_path, 2)
    model.fault.left, model.fault.after = 4, False  # documents, chunk, script, note, submit
    with pytest.raises(Crash):
        model.round()
    model.restart()
    for _ in range(15):
        model.round()
    assert not model.farm.jobs, "it may still appear"
    for _ in range(10):
        model.round()
    assert model.submissions().total() == 1


def test_a_submission_that_appears_late_is_found(tmp_path: Path) -> None:
    model = Model(tmp_path, 2)
    model.farm.visible = False
    model.fault.left, model.fault.after = 4, True
    with pytest.raises(Crash):
        model.round()
    model.restart()
    for _ in range(10):
        model.round()
    model.farm.visible = True
    for _ in range(20):
        model.round()
    assert model.submissions().total() == 1
    assert {d["batchjob"][-1]["number"] for d in model.database.documents.values()} == {"1"}


def test_a_job_that_nothing_knows_is_lost_after_the_grace_period_alone(tmp_path: Path) -> None:
    model = Model(tmp_path, 2)
    model.round()
    model.farm.jobs.clear()
    for _ in range(25):
        model.round()
    assert model.statuses() == {"proc 0 queued": 2}
    model.farm.down = True
    model.now += 1000
    model.round()
    assert model.statuses() == {"proc 0 queued": 2}, "who cannot be asked says nothing"
    model.farm.down = False
    for _ in range(25):
        model.round()
    assert model.statuses() == {"proc 0 queued": 2}, "the time in which nobody could be asked does not count"
    for _ in range(10):
        model.round()
    lost = [d for d in model.database.documents.values() if d["type"] == "attempt"]
    assert len(lost) == 2 and all(d["state"] == "lost" for d in lost)


def test_out_of_time_asks_for_more_the_next_time(tmp_path: Path) -> None:
    model = Model(tmp_path, 1)
    model.round()
    model.farm.jobs[0] |= {"state": "timeout", "finished": 5, "reason": "ran longer than 60 s"}
    for _ in range(20):
        model.round()
    document = model.database.documents["d0"]
    assert document["proc0"]["degrade"] == 1 and document["proc0"]["number"] == 2
    job = document["proc0"]["job"]
    chunk = json.loads((tmp_path / "jobs" / job / jobfiles.chunk_name(1)).read_text())
    step = chunk["chain"]["steps"][0]
    assert (step["time_limit"], step["memory_limit"]) == (120.0, 1_500_000_000)
    record = model.database.documents["attempt:d0:proc0:1"]
    assert record["error_class"] == "resources" and "ran longer than 60 s" in record["reason"]


def test_a_thousand_documents_in_one_call(tmp_path: Path) -> None:
    model = Model(tmp_path, 1000, CHAIN.replace("documents_per_job: 2", "documents_per_job: 1"))
    model.round()
    assert model.engine.world.submissions == 1 and len(model.farm.jobs) == 1000


def test_limits_hold(tmp_path: Path) -> None:
    text = CHAIN.replace("{submissions_per_minute: 10000}", "{submissions_per_minute: 2, jobs: 3, queued: 3, array: 1}")
    model = Model(tmp_path, 20, text)
    for _ in range(5):
        model.round()
    assert len(model.farm.jobs) == 2, "two submissions a minute"
    model.now += 60
    for _ in range(5):
        model.round()
    assert len(model.farm.jobs) == 3, "three jobs at once"


def test_a_person_may_take_a_document_away(tmp_path: Path) -> None:
    model = Model(tmp_path, 2)
    model.round()
    document = model.database.documents["d0"]
    document |= {"status": "bad", "reason": "a person says so", "_rev": "9-x"}
    model.farm.work()
    for _ in range(3):
        model.round()
    assert model.statuses() == {"bad": 1, "good": 1}
    assert not list((tmp_path / "jobs").iterdir())


def test_the_database_away_loses_nothing(tmp_path: Path) -> None:
    model = Model(tmp_path, 2)
    model.round()
    model.farm.work()
    working, model.database.get_many = model.database.get_many, _away  # type: ignore[method-assign,assignment]
    with pytest.raises(Unavailable):
        model.round()
    model.database.get_many = working  # type: ignore[method-assign]
    model.round()
    assert model.statuses() == {"good": 2}


def _away(ids: list[str]) -> dict[str, Any]:
    raise Unavailable("away")


def test_what_is_asked_for() -> None:
    chain = chains.loads(CHAIN)
    step, farm = chain.steps[0], chain.farms["centre"]
    places = Places("/spool", "/out", "", ("python3",), ("/code",))
    spec = submission.spec("orc-x", step, 1, 3, farm, places)
    assert spec.resources.time == 2 * 60 * 2 + 120 and spec.resources.memory == 1_500_000_000 + 300_000_000
    assert spec.resources.queue == "long" and spec.environment == {"PYTHONPATH": "/code"}
    assert len(spec.chunks) == 3 and spec.warning == 60
    assert submission.spec("orc-x", step, 0, 1, farm, places).resources.queue == ""


def test_pace() -> None:
    pace = Pace(2)
    assert pace.left(0) == 2
    pace.made(0)
    pace.made(1)
    assert pace.left(30) == 0 and pace.left(60.5) == 1 and pace.left(61.5) == 2
    assert pace.left(-100) == 2, "a clock that was put back blocks nothing"


def test_reasons_name_the_job(tmp_path: Path) -> None:
    from orchestrator import reasons

    model = Model(tmp_path, 1)
    model.round()
    document = model.database.documents["d0"]
    said = reasons.why(model.chain, document, model.now)
    assert document["proc0"]["job"] in said and "number 1" in said and "farm centre" in said and "waits" in said
    assert documents.holder(document) is not None


def test_a_task_that_counts_as_gone_loses_its_chunk_while_the_rest_of_its_array_goes_on(tmp_path: Path) -> None:
    model = Model(tmp_path, 4)
    model.round()
    folder = tmp_path / "jobs" / model.farm.jobs[0]["name"]
    model.farm.jobs[0] |= {"state": "node", "finished": 5}
    for _ in range(12):
        model.round()
    assert not (folder / jobfiles.chunk_name(1)).exists(), "what still runs of it is to end"
    assert (folder / jobfiles.chunk_name(2)).exists()
    lost = [d for d in model.database.documents.values() if d["type"] == "attempt"]
    assert len(lost) == 2 and {d["state"] for d in lost} == {"lost"}


def test_a_job_that_failed_is_judged_by_what_the_batch_system_wrote(tmp_path: Path) -> None:
    model = Model(tmp_path, 1)
    model.round()
    job = model.farm.jobs[0]
    job |= {"state": "ended", "finished": 5, "exit_code": 9}
    (tmp_path / "logs" / job["name"] / "err-1").write_text("x\nslurmstepd: error: Exceeded job memory limit\n")
    model.engine.world.scheduler.written = get("slurm").written  # type: ignore[misc]
    for _ in range(12):
        model.round()
    record = model.database.documents["attempt:d0:proc0:1"]
    assert record["error_class"] == "resources" and "Exceeded job memory limit" in record["reason"]


def test_a_document_that_was_deleted_at_the_farm_is_let_go_of(tmp_path: Path) -> None:
    model = Model(tmp_path, 2)
    model.round()
    del model.database.documents["d0"]
    model.farm.work()
    for _ in range(4):
        model.round()
    assert not model.engine.held and model.statuses() == {"good": 1}


def test_a_result_that_says_the_job_was_told_to_end_is_read_beside_what_the_batch_system_wrote() -> None:
    told = Report("d", "proc0", "a", 1.0, 2.0, exit_code=None, error_class="transient", reason="told to end")
    assert verdicts.why_told(told, None) is told
    assert verdicts.why_told(told, (JobState.NODE_FAILED, "node")) is told
    found = verdicts.why_told(told, (JobState.TIMEOUT, "CANCELLED DUE TO TIME LIMIT"))
    assert found.error_class == "resources" and "TIME LIMIT" in found.reason


def test_jobs_of_before_the_databases_address_changed_are_not_taken_for_lost(tmp_path: Path) -> None:
    model = Model(tmp_path, 2)
    model.round()
    job = model.farm.jobs[0]["name"]
    model.restart()
    model.engine.world.query = Query("orc-other-")  # as another address gives: the job is not asked after any more
    for _ in range(100):
        model.round()
    assert model.statuses() == {"proc 0 queued": 2}, "what was not asked after is not absent"
    model.farm.work()
    for _ in range(3):
        model.round()
    assert model.statuses() == {"good": 2}
    assert set(model.submissions()) == {job}


def test_a_lost_answer_is_not_repeated_where_the_databases_address_has_changed(tmp_path: Path) -> None:
    model = Model(tmp_path, 2)
    model.fault.left, model.fault.after = 4, True  # the submission has come through, its answer has not
    with pytest.raises(Crash):
        model.round()
    model.restart()
    model.engine.world.query = Query("orc-other-")
    for _ in range(100):
        model.round()
    assert model.submissions().total() == 1
    model.farm.work()
    for _ in range(3):
        model.round()
    assert model.statuses() == {"good": 2}


def test_what_a_farm_has_is_found_behind_another_sites_version(tmp_path: Path) -> None:
    model = Model(tmp_path, 2)
    model.round()
    theirs = {
        "_id": "d0", "_rev": "9-t", "type": "daqdocument", "status": "proc 1 in progress", "file": "/raw/0",
        "proc1": {"state": "in progress", "poller": "p", "attempt": "t"},
    }  # fmt: skip
    model.database.behind["d0"] = model.database.documents["d0"]
    model.database.documents["d0"] = theirs
    model.restart()
    model.engine.load()
    assert {at.document for at in model.engine.held.values()} == {"d0", "d1"}
    model.farm.work()
    for _ in range(3):
        model.round()
    assert model.database.behind["d0"]["proc0"]["state"] == "done", "recorded on the version that its attempt holds"
    assert model.database.documents["d0"] == theirs
    assert model.database.documents["d1"]["status"] == "good"
    assert not list((tmp_path / "jobs").iterdir())


def test_an_older_version_that_the_feed_shows_late_takes_nothing_away(tmp_path: Path) -> None:
    model = Model(tmp_path, 1)
    before = copy.deepcopy(model.database.documents["d0"])
    model.round()
    [at] = model.engine.held.values()
    model.engine.held.note(before)
    model.round()
    assert not at.cancelled and model.statuses() == {"proc 0 queued": 1}
    away = {**copy.deepcopy(model.database.documents["d0"]), "status": "bad", "_rev": "9-p"}
    del away["proc0"]
    model.engine.held.note(away)
    [at] = model.engine.held.values()
    assert at.cancelled, "a later one does"
