"""The farm-side runner as the batch system starts it: a process, a chunk file, signals, and what it leaves."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from orchestrator import chain as chains
from orchestrator import faults, jobfiles
from orchestrator.chain import Step
from orchestrator.engine.farmworld import Files
from orchestrator.engine.fate import ENDED, Verdict, Witness, fate
from orchestrator.engine.verdicts import AtFarm, result_of
from orchestrator.job import Job

STEPS = """
import os, time
def mark(document, work):
    if document["n"] in work.settings["slow"]:
        time.sleep(60)
    if document["n"] in work.settings["crash"]:
        os.abort()
    with open(work.output / "effects", "a") as file:
        file.write(document["_id"] + "\\n")
    return {"n": document["n"]}
"""


class Task:
    """A job's folder with one chunk, and the job as a process."""

    def __init__(self, folder: Path, count: int, **settings: Any) -> None:
        self.folder = folder
        (folder / "jobsteps.py").write_text(STEPS)
        (folder / "out").mkdir()
        numbers: dict[str, Any] = {"slow": [], "crash": [], **settings}
        step = f"{{name: s0, run: 'jobsteps:mark', settings: {json.dumps(numbers)}, time_limit: 30}}"
        chain = chains.loads(f"name: c\nsteps: [{step}]")
        tasks = [
            {"document": {"_id": f"d{n}", "n": n}, "step": "proc0", "attempt": f"a{n}", "source": None}
            for n in range(count)
        ]
        chunk = jobfiles.Chunk(
            "job", 1, str(folder), "proc0", chain.model_dump(mode="json"), "print", str(folder / "out"), str(folder),
            str(folder / "logs"), [str(folder)], tasks,
        )  # fmt: skip
        self.path = folder / jobfiles.chunk_name(1)
        self.path.write_text(json.dumps(asdict(chunk)))

    def start(self, number: str = "7", fault: str = "") -> subprocess.Popen[bytes]:
        """The job; ``fault`` is a place where it ends or stands still (`orchestrator.faults`)."""
        environment = {**os.environ, "ORCHESTRATOR_JOB_NUMBER": number, faults.VARIABLE: fault}
        return subprocess.Popen([sys.executable, "-m", "orchestrator.job", str(self.path)], env=environment)

    def results(self) -> dict[str, dict[str, Any]]:
        return {p.stem: json.loads(p.read_text())["report"] for p in self.folder.glob(f"*{jobfiles.RESULT}")}

    def marker(self) -> dict[str, Any]:
        path = self.folder / jobfiles.started_name(1)
        return json.loads(path.read_text()) if path.exists() else {}

    def returned(self) -> list[str]:
        path = self.folder / jobfiles.returned_name(1)
        return json.loads(path.read_text())["attempts"] if path.exists() else []

    def effects(self) -> list[str]:
        path = self.folder / "out" / "effects"
        return path.read_text().split() if path.exists() else []

    def wait_for(self, attempt: str) -> None:
        end = time.monotonic() + 30
        while self.marker().get("attempt") != attempt:
            assert time.monotonic() < end, "the job did not come to it"
            time.sleep(0.02)


def test_each_document_has_a_result_and_a_crash_takes_one(tmp_path: Path) -> None:
    task = Task(tmp_path, 4, crash=[1])
    assert task.start().wait(60) == 0
    reports = task.results()
    assert {name: report["error_class"] for name, report in reports.items()} == {
        "a0": None, "a1": "code", "a2": None, "a3": None,
    }  # fmt: skip
    assert reports["a2"]["result"] == {"n": 2} and reports["a2"]["software"]["chain"] == "print"
    assert reports["a2"]["seconds"] > 0 and reports["a2"]["max_rss"] > 1e6
    assert "signal" in reports["a1"]["reason"]
    assert not task.returned() and task.marker()["number"] == "7" and task.marker()["attempt"] is None
    assert not list(tmp_path.glob("job-1-*")), "its scratch is gone"


def test_a_second_job_of_the_same_name_does_nothing(tmp_path: Path) -> None:
    task = Task(tmp_path, 2)
    jobs = [task.start("7"), task.start("8"), task.start("9")]
    assert [job.wait(60) for job in jobs] == [0, 0, 0]
    assert task.effects() == ["d0", "d1"]


def test_a_job_that_is_started_again_skips_what_is_done(tmp_path: Path) -> None:
    task = Task(tmp_path, 3, slow=[1])
    first = task.start()
    task.wait_for("a1")
    first.kill()
    first.wait()
    (tmp_path / "jobsteps.py").write_text(STEPS.replace("sleep(60)", "sleep(0)"))
    assert task.start().wait(60) == 0
    assert task.effects() == ["d0", "d2"], "what was in work is not done twice under the same attempt"
    report = task.results()["a1"]
    assert report["error_class"] == "transient" and "started its job again" in report["reason"]


def test_a_job_started_again_knows_what_is_done_though_its_results_are_recorded_and_gone(tmp_path: Path) -> None:
    """As HTCondor does: the job had ended, and its schedd was killed before it had noted that down."""
    task = Task(tmp_path, 3, slow=[2])
    first = task.start()
    task.wait_for("a2")
    for name in ("a0", "a1"):
        (tmp_path / jobfiles.result_name(name)).unlink()
    first.kill()
    first.wait()
    assert task.start().wait(60) == 0
    assert task.effects() == ["d0", "d1"] and set(task.results()) == {"a2"}
    (tmp_path / jobfiles.result_name("a2")).unlink()
    assert task.start().wait(60) == 0
    assert task.effects() == ["d0", "d1"] and not task.results() and not task.returned()


def test_a_job_that_is_started_again_waits_for_its_first_start(tmp_path: Path) -> None:
    """As Grid Engine does after its node's daemon was gone for a moment: the first one had never ended."""
    task = Task(tmp_path, 3, slow=[1])
    (tmp_path / "jobsteps.py").write_text(STEPS.replace("sleep(60)", "sleep(2)"))
    first = task.start()
    task.wait_for("a1")
    second = task.start()
    assert first.wait(60) == 0 and second.wait(60) == 0
    assert task.effects() == ["d0", "d1", "d2"]
    assert all(report["error_class"] is None for report in task.results().values())


def test_a_withdrawn_chunk_is_not_done(tmp_path: Path) -> None:
    task = Task(tmp_path, 1)
    task.path.unlink()
    assert task.start().wait(60) == 0
    assert not task.effects() and not task.results()


@pytest.mark.parametrize(
    ("signals", "kind"),
    [([signal.SIGTERM], "transient"), ([signal.SIGXCPU], "resources"), ([signal.SIGUSR1, signal.SIGTERM], "resources")],
)
def test_the_end_is_recorded_and_the_rest_handed_back(tmp_path: Path, signals: list[signal.Signals], kind: str) -> None:
    task = Task(tmp_path, 4, slow=[1])
    job = task.start()
    task.wait_for("a1")
    for number in signals:
        job.send_signal(number)
        time.sleep(0.2)
    assert job.wait(30) == 0
    assert task.results()["a1"]["error_class"] == kind and task.results()["a0"]["error_class"] is None
    assert task.returned() == ["a2", "a3"]


def test_a_signal_to_all_processes_of_a_job_is_its_end_and_no_crash_of_the_step(tmp_path: Path) -> None:
    """As Slurm sends it; the worker may be dead before the job has heard of anything."""
    task = Task(tmp_path, 3, slow=[1])
    job = task.start()
    task.wait_for("a1")
    time.sleep(0.3)
    for process in [*psutil.Process(job.pid).children(recursive=True), job]:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
    assert job.wait(30) == 0
    assert task.results()["a1"]["error_class"] == "transient" and "SIGTERM" in task.results()["a1"]["reason"]
    assert task.returned() == ["a2"]


def test_the_warning_alone_lets_the_document_in_work_go_on(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    task = Task(tmp_path, 3, slow=[1])
    (tmp_path / "jobsteps.py").write_text(STEPS.replace("sleep(60)", "sleep(1)"))
    job = task.start()
    task.wait_for("a1")
    job.send_signal(signal.SIGUSR1)
    assert job.wait(30) == 0
    assert task.results()["a1"]["error_class"] is None and task.returned() == ["a2"]


def test_single_documents_are_withdrawn_and_the_others_are_done(tmp_path: Path) -> None:
    task = Task(tmp_path, 4, slow=[1])
    job = task.start()
    task.wait_for("a1")
    told = jobfiles.Withdrawn(["a1", "a2"], [], "drained")
    (tmp_path / jobfiles.withdrawn_name(1)).write_text(json.dumps(asdict(told)))
    time.sleep(1.0)
    assert task.marker()["attempt"] == "a1", "what has begun is not ended by a drain"
    told.end.append("a1")
    (tmp_path / jobfiles.withdrawn_name(1)).write_text(json.dumps(asdict(told)))
    assert job.wait(30) == 0
    assert task.results()["a1"]["reason"] == "its job was withdrawn"
    assert task.returned() == ["a2"] and task.effects() == ["d0", "d3"]


def test_a_chunk_of_another_version_is_refused(tmp_path: Path) -> None:
    task = Task(tmp_path, 1)
    task.path.write_text(json.dumps({"format": 99}))
    assert task.start().wait(60) == 65


PLACES = ["begun", "claimed", "marked", "ran", "leaving", "left", "ended"]


def stood_still(job: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 30
    while psutil.Process(job.pid).status() != psutil.STATUS_STOPPED:
        assert job.poll() is None and time.monotonic() < end, "the job did not come to the place"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("number", "place"),
    [
        *((signal.SIGTERM, place) for place in PLACES),
        *((one, place) for one in (signal.SIGXCPU, signal.SIGUSR1, signal.SIGUSR2) for place in ("claimed", "leaving")),
    ],
)
def test_a_signal_at_any_moment_and_again_leaves_each_document_done_ended_or_handed_back(
    tmp_path: Path, place: str, number: signal.Signals
) -> None:
    task = Task(tmp_path, 3)
    job = task.start(fault=f"job.{place}:1:stop")
    stood_still(job)
    job.send_signal(number)
    job.send_signal(signal.SIGCONT)
    job.send_signal(number)
    assert job.wait(30) == 0
    results, returned = task.results(), task.returned()
    assert sorted([*results, *returned]) == ["a0", "a1", "a2"] and task.marker()["attempt"] is None
    assert {f"d{name[1:]}" for name, report in results.items() if report["error_class"] is None} <= set(task.effects())
    if place in ("begun", "claimed"):
        assert returned == ["a0", "a1", "a2"] and not task.effects(), "nothing was begun"
    if place in ("ran", "leaving", "left"):
        assert results["a0"]["error_class"] is None and returned == ["a1", "a2"]
    if place == "ended":
        assert not returned
    assert not [name for name in tmp_path.iterdir() if name.name.startswith(".")], "half a file is left"


@pytest.mark.parametrize("place", PLACES)
def test_killed_at_any_moment_what_is_there_is_whole_and_the_next_start_goes_on(tmp_path: Path, place: str) -> None:
    task = Task(tmp_path, 3)
    assert task.start(fault=f"job.{place}:{1 if place in ('begun', 'claimed', 'ended') else 2}").wait(60) == -9
    found = Files(set(task.results()), {}, dict.fromkeys(task.returned(), ""))
    if task.marker():
        found.markers[1] = jobfiles.Marker.from_json(task.marker())
    for attempt in ("a0", "a1", "a2"):
        at = AtFarm("d", Step.model_construct(number=0), attempt, "job", 1)
        after = {"result": result_of(at, found), "since": 0.0, "now": 1e6, "grace": {"unknown": 1.0, "result": 1.0}}
        fates = {end: fate(queue=end, accounting=end, **after).verdict for end in ENDED}  # type: ignore[arg-type]
        fates[Witness.ABSENT] = fate(queue=Witness.ABSENT, accounting=Witness.ABSENT, **after).verdict  # type: ignore[arg-type]
        if attempt in task.results():
            assert set(fates.values()) == {Verdict.DONE}
        else:
            assert not {Verdict.DONE, Verdict.WAIT, Verdict.RUNNING} & set(fates.values()), "it would stay for ever"
    assert task.start().wait(60) == 0
    assert sorted([*task.results(), *task.returned()]) == ["a0", "a1", "a2"] and not task.returned()
    # how far the attempt that was in work had come is not known: it ends, and is not made twice under the same name
    assert sorted(task.effects()) == (["d0", "d2"] if place == "marked" else ["d0", "d1", "d2"])


def test_a_spool_that_is_full_for_a_moment_loses_no_result(tmp_path: Path) -> None:
    task = Task(tmp_path, 2)
    assert task.start(fault="job.leaving:1:full").wait(60) == 0
    assert set(task.results()) == {"a0", "a1"} and task.effects() == ["d0", "d1"]


def here(task: Task) -> Job:
    """The job in this process, before it does anything."""
    chunk = jobfiles.Chunk(**json.loads(task.path.read_text()))
    return Job(task.path, chunk, "7", task.folder / "scratch", SimpleNamespace(signals=[], wake=None))  # type: ignore[arg-type]


def test_no_two_marks_that_follow_each_other_are_of_one_size(tmp_path: Path) -> None:
    """Over SFTP a file's time is whole seconds: who reads again what has another time or size must see the second."""
    job = here(Task(tmp_path, 2))
    sizes = []
    for number in range(20):
        job._mark(job.tasks[number % 2])
        path = tmp_path / jobfiles.started_name(1)
        sizes.append(path.stat().st_size)
        assert jobfiles.Marker.from_json(json.loads(path.read_text())).attempt == f"a{number % 2}"
    assert all(one != other for one, other in itertools.pairwise(sizes))


def test_a_spool_that_is_away_for_a_moment_withdraws_nothing(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    job = here(Task(real, 1))
    link = tmp_path / "spool"
    link.symlink_to(real)
    job.path = link / job.path.name
    assert job._wanted()
    link.unlink()
    link.symlink_to(link)  # cannot be looked into: which is no certain absence
    with pytest.raises(OSError, match="symbolic links"):
        job.path.stat()
    assert job._wanted()
    job.folder = link
    assert job._ending() == []
    link.unlink()
    link.symlink_to(real)
    assert job._wanted()
    job.path.unlink()
    assert not job._wanted(), "this is"
