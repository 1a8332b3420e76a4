"""Real jobs on real batch systems: each end that a job can have, told apart from the others.

Everything is submitted at once and then watched, as the engine does it: one call for the queue, one for the history.
What a system does differently stands in one table, `SYSTEMS`, and is what ``docs/schedulers.md`` says about it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.schedulers import (
    INDEX,
    HistoryUnavailable,
    Job,
    JobSpec,
    JobState,
    Query,
    Resources,
    SchedulerUnavailable,
    SubmissionRejected,
    ask,
)
from orchestrator.schedulers.slurm import Slurm

NASTY = ("a b", "it's", '"', "$(touch pwned)", "`touch pwned`", "new\nline", "", "*", "-x", "\\", "ü%j$$")
PREFIX = "orch-t-"
MEBI = 2**20

# prints its arguments and copies its chunk, whatever they are called
PAYLOAD = """#!/bin/sh
for word in "$@"; do printf '<%s>\\n' "$word"; done
for chunk in "$@"; do :; done
cat -- "$chunk" > "result $ORCHESTRATOR_TASK"
env > "environment $ORCHESTRATOR_TASK"
"""

# notes that it was warned and hands back what it has, as the farm-side runner does
WARNED = """
import pathlib, signal, sys, time
def stop(*_):
    pathlib.Path("warned").touch()
    sys.exit(0)
signal.signal(signal.SIGUSR1, stop)
while True:
    time.sleep(0.1)
"""


@dataclass(frozen=True)
class System:
    """What is different here."""

    hold: tuple[str, ...]  # option: submit on hold
    wait: tuple[str, ...]  # option: stay in the queue
    reject: Resources  # what it refuses at once
    memory: JobState = JobState.OUT_OF_MEMORY
    bad_output: JobState = JobState.FAILED
    stranger: tuple[str, ...] = ()  # options that give a stranger's job a name to trip over
    limit: float = 4.0  # seconds
    warned: tuple[float, float] = (30.0, 27.0)  # limit and warning in seconds
    # Slurm's limits are minutes and it looks at them every 30 s: after the start the limit is set to the past
    hasten: bool = False


ODD = ("--job-name=odd|\n12|N/A|PENDING|x\n<b>",)

SYSTEMS = {
    "fsched": System(("--hold",), ("--hold",), Resources(options=("--nonsense",))),
    "slurm": System(
        ("--hold",),
        ("--begin=now+1hour",),
        Resources(queue="nonsense"),
        limit=60.0,
        warned=(120.0, 119.0),
        hasten=True,
        memory=JobState.FAILED,
    ),
    "slurm_accounting": System(
        ("--hold",),
        ("--begin=now+1hour",),
        Resources(queue="nonsense"),
        limit=60.0,
        warned=(120.0, 119.0),
        hasten=True,
        memory=JobState.FAILED,
    ),
    # h_vmem makes the program run out of memory by itself, and it says so by an exit code of its own
    "gridengine": System(
        ("-h",), ("-a", "203001010000"), Resources(queue="nonsense.q"), memory=JobState.FAILED, bad_output=JobState.HELD
    ),
    "htcondor": System(
        ("hold = true",),
        ("requirements = false",),
        Resources(options=("nonsense nonsense",)),
        bad_output=JobState.HELD,
        stranger=("batch_name = it's odd <b> &",),
    ),
}


@pytest.fixture(scope="module")
def stories(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Any]]]:
    """The farms that are asked for live through their jobs side by side: most of it is waiting."""
    wanted = {item.callspec.params.get("system") for item in request.session.items if hasattr(item, "callspec")}
    names = [name for name in SYSTEMS if name in wanted]
    with ThreadPoolExecutor(max_workers=len(SYSTEMS)) as pool:
        stories: dict[str, Future[Any]] = {}
        for name in names:
            try:
                farm = request.getfixturevalue(name)
            except (pytest.skip.Exception, AssertionError) as reason:
                stories[name] = Future()
                stories[name].set_exception(reason)
            else:
                stories[name] = pool.submit(Story, farm, SYSTEMS[name])
        yield stories


@pytest.fixture(scope="module", params=list(SYSTEMS))
def system(request: pytest.FixtureRequest, stories: dict[str, Future[Any]]) -> Any:
    """What became of all jobs at one farm."""
    return stories[request.param].result(timeout=120)


class Story:
    """Submits every kind of job to one farm and keeps what was answered on the way."""

    def __init__(self, farm: Any, system: System) -> None:
        self.farm, self.system = farm, system
        self.query = Query(PREFIX, farm.user)
        self.numbers: dict[str, str] = {}
        self.empty = farm.queue(self.query, "queue-empty")
        self.empty_history = self.history("history-empty")
        self.submit_all()
        self.early = farm.until(self.query, self.settled)
        self.listed = farm.queue(self.query, "queue")
        self.cancel()
        if system.hasten:
            farm.admin("scontrol", "update", f"jobid={self.numbers[PREFIX + 'time']}", "TimeLimit=0")
        self.end = farm.until(self.query, self.all_ended, seconds=45)
        # the accounting may know of an end while Slurm still calls the job completing
        deadline = time.monotonic() + 10
        while any(job.raw_state == "COMPLETING" for job in farm.queue(self.query, "queue-after").jobs):
            assert time.monotonic() < deadline
            time.sleep(0.3)
        self.history("history")

    def history(self, record: str) -> Any:
        try:
            return self.farm.history(self.query, record)
        except HistoryUnavailable:
            return None

    def spec(
        self, name: str, *command: str, array: int | None = None, chunks: tuple[str, ...] = (), **more: Any
    ) -> JobSpec:
        """A job of the account, in its folder with the awkward name."""
        home = more.pop("home", self.farm.home)
        outputs = more.pop("outputs", home)
        return JobSpec(
            name=name,
            command=command,
            script=f"{home}/{name}.sh",
            directory=str(home),
            stdout=f"{outputs}/{name}.{INDEX}.out" if array else f"{outputs}/{name}.out",
            stderr=f"{outputs}/{name}.{INDEX}.err" if array else f"{outputs}/{name}.err",
            array=array,
            chunks=chunks,
            **more,
        )

    def submit(self, spec: JobSpec, record: str = "") -> str:
        submitted = ask.submit(
            self.farm.scheduler, spec, lambda command: self.farm.run(command, record), self.farm.write
        )
        assert submitted.tasks == spec.tasks
        self.numbers[spec.name] = submitted.number
        return submitted.number

    def submit_all(self) -> None:
        home, system = self.farm.home, self.system
        payload = home / "payload"
        payload.write_text(PAYLOAD)
        payload.chmod(0o755)
        chunks = []
        for index, word in enumerate(("plain", 'it\'s "$(touch pwned)"', "new\nline"), 1):
            chunk = home / f"chunk {word}"
            chunk.write_text(f"documents of task {index}")
            chunks.append(str(chunk))
        submit, spec = self.submit, self.spec
        submit(spec(PREFIX + "array", str(payload), *NASTY, array=3, chunks=tuple(chunks)), "submit-array")
        submit(spec(PREFIX + "done", "true"), "submit")
        submit(spec(PREFIX + "three", "sh", "-c", "exit 3"))
        submit(spec(PREFIX + "segv", "sh", "-c", "ulimit -c 0; kill -SEGV $$"))
        submit(spec(PREFIX + "long", "sleep", "300"))
        submit(spec(PREFIX + "longs", "sleep", "300", array=2))
        submit(spec(PREFIX + "held", "true", resources=Resources(options=system.hold)))
        submit(spec(PREFIX + "waits", "true", resources=Resources(options=system.wait)))
        submit(spec(PREFIX + "bad", "true", outputs="/nonexistent/folder"))
        grab = "import time; x = bytearray(300 << 20); time.sleep(300)"
        submit(spec(PREFIX + "memory", "python3", "-c", grab, resources=Resources(memory=150 * MEBI)))
        limit, warning = system.warned
        submit(spec(PREFIX + "warned", "python3", "-c", WARNED, resources=Resources(time=limit), warning=warning))
        # goes on whatever it is told: only the limit ends it
        stubborn = "trap '' TERM USR1; while :; do sleep 0.2; done"
        submit(spec(PREFIX + "time", "sh", "-c", stubborn, resources=Resources(time=system.limit)))
        # a stranger's, under the same account, in states of their own
        submit(spec("stranger-orch-t-1", "sleep", "300"))
        submit(spec("Stranger", "true", resources=Resources(options=(*system.hold, *system.stranger))))

    def settled(self, jobs: dict[str, Job]) -> bool:
        """All have been seen where they are to be before anything is cancelled."""
        wanted = {"long": "running", "longs/1": "running", "longs/2": "running", "time": "running", "held": "held"}
        return all(
            PREFIX + name in jobs and jobs[PREFIX + name].state == state for name, state in wanted.items()
        ) and all(
            PREFIX + name in jobs and jobs[PREFIX + name].state.final for name in ("done", "three", "segv", "array/3")
        )

    def cancel(self) -> None:
        """One call for a running job, one task of an array, a held one and one that has ended already."""
        key, number = self.farm.scheduler.key, self.numbers
        keys = [key(number[PREFIX + name]) for name in ("long", "held", "waits", "done")]
        keys.append(key(number[PREFIX + "longs"], 2))
        ask.cancel(self.farm.scheduler, keys, lambda command: self.farm.run(command, "cancel"))

    def all_ended(self, jobs: dict[str, Job]) -> bool:
        open_ones = {name for name, job in jobs.items() if not job.state.final}
        return open_ones <= {PREFIX + "longs/1", PREFIX + "bad"} and PREFIX + "memory" in jobs


def state(story: Story, name: str) -> Job:
    return story.end[PREFIX + name]


def test_an_empty_queue_is_an_empty_listing(system: Story) -> None:
    assert system.empty.jobs == () and system.empty.complete


def test_each_task_of_an_array_runs_its_own_chunk_with_the_words_unharmed(system: Story) -> None:
    home: Path = system.farm.home
    for task in (1, 2, 3):
        assert state(system, f"array/{task}").state is JobState.DONE
        assert (home / f"result {task}").read_text() == f"documents of task {task}"
        output = next(home.glob(f"{PREFIX}array.*{task}.out")).read_text()
        assert output.startswith("".join(f"<{word}>\n" for word in NASTY))
    assert not list(home.rglob("pwned")) and not list(home.parent.glob("pwned"))


def test_the_job_knows_who_it_is_and_nothing_secret(system: Story) -> None:
    text = (system.farm.home / "environment 2").read_text()
    assert f"ORCHESTRATOR_JOB={PREFIX}array\n" in text
    assert f"ORCHESTRATOR_SCHEDULER={system.farm.scheduler.name}\n" in text
    assert re.search(rf"ORCHESTRATOR_JOB_NUMBER={re.escape(system.numbers[PREFIX + 'array'])}\n", text)
    assert "COUCH" not in text


def test_ends_are_told_apart(system: Story) -> None:
    story = system
    assert state(story, "done").state is JobState.DONE
    three = state(story, "three")
    assert three.state is JobState.FAILED and three.exit_code == 3
    segv = state(story, "segv")
    assert segv.state is JobState.FAILED and segv.signal == 11
    assert state(story, "memory").state is story.system.memory
    if isinstance(story.farm.scheduler, Slurm):
        stderr = (story.farm.home / f"{PREFIX}memory.err").read_text()
        assert story.farm.scheduler.read_stderr(stderr) == (JobState.OUT_OF_MEMORY, stderr.strip().split("\n")[-1])
    assert state(story, "time").state is JobState.TIMEOUT
    assert state(story, "bad").state is story.system.bad_output
    assert state(story, "long").state is JobState.CANCELLED


def test_the_warning_came_before_the_end(system: Story) -> None:
    assert (system.farm.home / "warned").exists()
    assert state(system, "warned").state is JobState.DONE


def test_one_task_is_cancelled_and_its_neighbour_goes_on(system: Story) -> None:
    assert state(system, "longs/2").state is JobState.CANCELLED
    assert state(system, "longs/1").state is JobState.RUNNING


def test_states_on_the_way(system: Story) -> None:
    listed = {f"{job.name}/{job.index}" if job.index else job.name: job for job in system.listed.jobs}
    assert listed[PREFIX + "held"].state is JobState.HELD
    assert listed[PREFIX + "long"].state is JobState.RUNNING
    assert listed[PREFIX + "long"].started.endswith("Z")
    expected = JobState.HELD if system.system.wait == system.system.hold else JobState.QUEUED
    assert listed[PREFIX + "waits"].state is expected
    assert all(job.raw_state for job in system.listed.jobs)


def test_a_strangers_jobs_are_not_there(system: Story) -> None:
    assert all(job.name.startswith(PREFIX) for job in system.listed.jobs)
    assert system.listed.complete
    others = system.farm.queue(Query("stranger", system.farm.user), "queue-stranger")
    assert [job.name for job in others.jobs] == ["stranger-orch-t-1"]


def test_times_are_of_now_in_utc(system: Story) -> None:
    job = state(system, "three")
    moment = time.strftime("%Y-%m-%dT%H", time.gmtime(time.time() - 300)), time.strftime("%Y-%m-%dT%H", time.gmtime())
    assert job.finished[:13] in moment


def test_a_job_is_found_again_by_its_name(system: Story) -> None:
    (found,) = ask.find(system.farm.scheduler, PREFIX + "three", system.farm.run, user=system.farm.user)
    assert found.number == system.numbers[PREFIX + "three"]
    assert len(ask.find(system.farm.scheduler, PREFIX + "longs", system.farm.run, user=system.farm.user)) >= 1
    assert ask.find(system.farm.scheduler, PREFIX + "never", system.farm.run, user=system.farm.user) == ()


def test_a_refusal_is_a_refusal(system: Story) -> None:
    spec = system.spec(PREFIX + "refused", "true", resources=system.system.reject)
    with pytest.raises(SubmissionRejected) as refused:
        system.submit(spec, "submit-rejected")
    assert not refused.value.transient and refused.value.said


def test_unknown_numbers_are_no_error_when_cancelling(system: Story) -> None:
    number = re.sub(r"[0-9]+", "987654", system.numbers[PREFIX + "done"], count=1)
    ask.cancel(system.farm.scheduler, [number], lambda command: system.farm.run(command, "cancel-unknown"))


def test_an_answer_that_does_not_come_in_time_is_unavailable(system: Story) -> None:
    scheduler = system.farm.scheduler
    slow = ("sleep", "5")

    def late(command: Any) -> Any:
        return system.farm.run(replace(command, argv=slow, timeout=0.05))

    with pytest.raises(SchedulerUnavailable) as away:
        ask.queue(scheduler, system.query, late)
    assert away.value.transient and away.value.perhaps_done
