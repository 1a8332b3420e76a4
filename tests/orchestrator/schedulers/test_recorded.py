"""The answers in ``recorded/``, read again: what the real programs printed, on machines that have none of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator import schedulers
from orchestrator.schedulers import (
    Answer,
    Command,
    HistoryUnavailable,
    Job,
    JobSpec,
    JobState,
    Listing,
    Query,
    SchedulerUnavailable,
    SubmissionRejected,
)

RECORDED = Path(__file__).parent / "recorded"
SYSTEMS = {"slurm": "slurm", "slurm-accounting": "slurm", "gridengine": "gridengine", "htcondor": "htcondor",
           "fsched": "fsched", "pbs-documented": "pbs"}  # fmt: skip
QUERY = Query("orch-t-")
OUTAGE = Query("orch-o-")


def answer(system: str, name: str) -> tuple[Command, Answer]:
    content = json.loads((RECORDED / system / f"{name}.json").read_text())
    command = Command(tuple(content["argv"]), way=content["way"])
    return command, Answer(content["exit_code"], content["stdout"], content["stderr"])


def queue(system: str, name: str = "queue", query: Query = QUERY) -> dict[str, Job]:
    listing = schedulers.get(SYSTEMS[system]).read_listing(answer(system, name)[1], query)
    assert listing.complete
    return by_name(listing, query)


def history(system: str, name: str, query: Query = QUERY) -> dict[str, Job]:
    listing = schedulers.get(SYSTEMS[system]).read_history(*answer(system, name), query)
    assert listing.complete
    return by_name(listing, query)


def by_name(listing: Listing, query: Query) -> dict[str, Job]:
    return {job.name.removeprefix(query.prefix) + (f"/{job.index}" if job.index else ""): job for job in listing.jobs}


def spec() -> JobSpec:
    return JobSpec("orch-t-a", ("true",), "/s/a.sh", "/s", "/s/a.out", "/s/a.err")


def all_with(name: str) -> list[str]:
    return [system for system in SYSTEMS if (RECORDED / system / f"{name}.json").exists()]


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_has_its_recorded_answers(system: str) -> None:
    assert {"queue", "queue-empty", "submit", "submit-array", "submit-rejected"} <= {
        path.stem for path in (RECORDED / system).glob("*.json")
    }


@pytest.mark.parametrize("system", SYSTEMS)
def test_submissions(system: str) -> None:
    scheduler = schedulers.get(SYSTEMS[system])
    one = scheduler.read_submit(answer(system, "submit")[1], spec())
    many = scheduler.read_submit(answer(system, "submit-array")[1], spec())
    assert one.number and many.number and one.number != many.number
    with pytest.raises(SubmissionRejected) as refused:
        scheduler.read_submit(answer(system, "submit-rejected")[1], spec())
    assert not refused.value.transient and refused.value.said


@pytest.mark.parametrize("system", SYSTEMS)
def test_states_in_the_queue(system: str) -> None:
    jobs = queue(system)
    assert jobs["held"].state is JobState.HELD
    assert jobs["waits"].state is (JobState.HELD if system == "fsched" else JobState.QUEUED)
    assert jobs["long"].state is JobState.RUNNING
    assert jobs["long"].user in ("batchtest", "root") and jobs["long"].started.endswith("Z")
    assert not any("tranger" in name for name in jobs)


@pytest.mark.parametrize("system", SYSTEMS)
def test_an_empty_queue(system: str) -> None:
    assert queue(system, "queue-empty") == {}


@pytest.mark.parametrize("system", all_with("queue-down"))
def test_down_is_unavailable_and_not_an_empty_queue(system: str) -> None:
    scheduler = schedulers.get(SYSTEMS[system])
    with pytest.raises(SchedulerUnavailable) as away:
        scheduler.read_listing(answer(system, "queue-down")[1], QUERY)
    assert away.value.transient and away.value.said in str(away.value)


@pytest.mark.parametrize("system", all_with("submit-down"))
def test_a_submission_that_met_nobody_is_no_refusal(system: str) -> None:
    scheduler = schedulers.get(SYSTEMS[system])
    with pytest.raises(SchedulerUnavailable):
        scheduler.read_submit(answer(system, "submit-down")[1], spec())
    with pytest.raises(SchedulerUnavailable):
        scheduler.read_cancel(answer(system, "cancel-down")[1])


@pytest.mark.parametrize("system", all_with("cancel-unknown"))
def test_cancelling_what_has_ended_is_no_error(system: str) -> None:
    scheduler = schedulers.get(SYSTEMS[system])
    scheduler.read_cancel(answer(system, "cancel")[1])
    scheduler.read_cancel(answer(system, "cancel-unknown")[1])


def test_slurm_tells_ends_by_its_queue_alone() -> None:
    jobs = queue("slurm", "queue-after")
    assert jobs["done"].state is JobState.DONE and jobs["done"].exit_code == 0
    assert jobs["three"].state is JobState.FAILED and jobs["three"].exit_code == 3
    assert jobs["segv"].signal == 11
    assert jobs["time"].state is JobState.TIMEOUT
    assert jobs["long"].state is JobState.CANCELLED
    assert "could not be opened" in jobs["bad"].reason
    assert jobs["longs/1"].state is JobState.RUNNING and jobs["longs/2"].state is JobState.CANCELLED
    assert queue("slurm", "queue-node-down", OUTAGE)["node"].state is JobState.NODE_FAILED


def test_slurm_with_accounting() -> None:
    jobs = history("slurm-accounting", "history-sacct")
    assert jobs["three"].exit_code == 3 and jobs["three"].state is JobState.FAILED
    assert jobs["segv"].signal == 11 and jobs["time"].state is JobState.TIMEOUT
    assert jobs["long"].state is JobState.CANCELLED and "by" in jobs["long"].reason
    with pytest.raises(SchedulerUnavailable):
        history("slurm-accounting", "history-down-sacct")


def test_slurm_without_accounting_has_its_completion_file() -> None:
    with pytest.raises(HistoryUnavailable):
        history("slurm", "history-sacct")
    jobs = history("slurm", "history-jobcomp")
    assert jobs["done"].state is JobState.DONE
    assert jobs["three"].state is JobState.FAILED and jobs["time"].state is JobState.TIMEOUT


def test_grid_engine_accounting() -> None:
    jobs = history("gridengine", "history-qacct")
    assert jobs["array/3"].state is JobState.DONE
    assert jobs["three"].exit_code == 3 and jobs["segv"].signal == 11
    assert jobs["time"].state is JobState.TIMEOUT and "h_rt" in jobs["time"].reason
    assert jobs["long"].state is JobState.CANCELLED
    assert "held" not in jobs  # deleted while it waited: in no accounting
    lost = history("gridengine", "history-shepherd-killed-qacct", OUTAGE)["node"]
    assert lost.state is JobState.NODE_FAILED and lost.exit_code == 0
    assert queue("gridengine", "queue-after")["bad"].state is JobState.HELD


def test_htcondor_history() -> None:
    jobs = history("htcondor", "history-condor_history")
    assert jobs["array/1"].state is JobState.DONE and jobs["three"].exit_code == 3
    assert jobs["segv"].state is JobState.FAILED and jobs["segv"].signal == 11
    assert jobs["memory"].state is JobState.OUT_OF_MEMORY
    assert jobs["long"].state is JobState.CANCELLED and "condor_rm" in jobs["long"].reason
    both = queue("htcondor", "queue-after") | jobs
    assert both["time"].state is JobState.TIMEOUT
    bad = queue("htcondor", "queue-after")["bad"]
    assert bad.state is JobState.HELD and "/nonexistent" in bad.reason


def test_pbs_as_documented() -> None:
    jobs = queue("pbs-documented")
    assert "array" not in jobs  # its tasks are there
    assert [jobs[f"array/{task}"].state for task in (1, 2, 3)] == [JobState.DONE, JobState.RUNNING, JobState.QUEUED]
    assert jobs["waits"].reason.endswith("resource: ncpus")
    assert jobs["array/2"].number == "4712[].server"
    assert schedulers.get("pbs").key("4712[].server", 2) == "4712[2].server"
    ended = history("pbs-documented", "history")
    assert {name: job.state.value for name, job in ended.items()} == {
        "done": "done", "three": "failed", "segv": "failed", "time": "timeout", "memory": "out_of_memory",
        "cancelled": "cancelled", "start": "failed", "retry": "node_failed", "deleted": "unknown",
    }  # fmt: skip
    assert ended["segv"].signal == 11 and ended["three"].exit_code == 3 and ended["done"].max_memory == 2**20
    with pytest.raises(SubmissionRejected) as refused:
        schedulers.get("pbs").read_submit(answer("pbs-documented", "submit-limit")[1], spec())
    assert refused.value.transient


def test_a_listing_cut_off_is_unavailable() -> None:
    for system in ("gridengine", "htcondor", "fsched"):
        _, whole = answer(system, "queue")
        cut = Answer(0, whole.stdout[: len(whole.stdout) // 2], "")
        with pytest.raises(SchedulerUnavailable, match="cut off"):
            schedulers.get(system).read_listing(cut, QUERY)
