"""Real batch systems that are away: down, or a node of theirs gone. Unavailable is told apart from "not there"."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.schedulers import JobSpec, JobState, Query, SchedulerUnavailable, ask

QUERY = "orch-o-"
LONG = "200.0271828"  # seconds; a number by which no other process is mistaken for ours


def job(farm: Any, name: str, *command: str) -> JobSpec:
    home = farm.home
    return JobSpec(
        name=QUERY + name,
        command=command,
        script=f"{home}/{name}.sh",
        directory=str(home),
        stdout=f"{home}/{name}.out",
        stderr=f"{home}/{name}.err",
    )


def state(jobs: dict[str, Any], name: str) -> JobState:
    """Where a job is; between queue and accounting it is for a moment in neither."""
    job = jobs.get(QUERY + name)
    return job.state if job else JobState.UNKNOWN


def running(farm: Any, name: str) -> str:
    """Submits a long job and gives its number once it runs."""
    number = ask.submit(farm.scheduler, job(farm, name, "sleep", LONG), farm.run, farm.write).number
    farm.until(Query(QUERY), lambda jobs: state(jobs, name) is JobState.RUNNING)
    return number


def everything_is_unavailable(farm: Any) -> None:
    """No question is answered, each says so, and a submission says whether it may have arrived."""
    query = Query(QUERY, farm.user)
    with pytest.raises(SchedulerUnavailable) as away:
        farm.queue(query, "queue-down")
    assert away.value.transient and away.value.said
    with pytest.raises(SchedulerUnavailable):
        ask.submit(
            farm.scheduler, job(farm, "away", "true"), lambda command: farm.run(command, "submit-down"), farm.write
        )
    with pytest.raises(SchedulerUnavailable):
        ask.cancel(farm.scheduler, ["987654"], lambda command: farm.run(command, "cancel-down"))


def pid_of(path: Path) -> int:
    return int(path.read_text().strip())


def wait_until(true: Any, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_slurm_with_a_node_down(slurm: Any) -> None:
    number = running(slurm, "node")
    node = slurm.queue(Query(QUERY)).of(number).node
    slurm.admin("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    jobs = slurm.until(Query(QUERY), lambda jobs: state(jobs, "node").final)
    slurm.queue(Query(QUERY), "queue-node-down")
    slurm.admin("scontrol", "update", f"nodename={node}", "state=resume")
    assert jobs[f"{QUERY}node"].state is JobState.NODE_FAILED


def test_slurm_with_its_controller_down(slurm: Any) -> None:
    number = running(slurm, "over")
    os.kill(pid_of(slurm.folder / "slurmctld.pid"), signal.SIGTERM)
    wait_until(lambda: "UP" not in slurm.admin("scontrol", "ping"))
    try:
        everything_is_unavailable(slurm)
    finally:
        wait_until(lambda: not slurm.admin("/usr/sbin/slurmctld"))
    wait_until(lambda: "UP" in slurm.admin("scontrol", "ping"))
    jobs = slurm.until(Query(QUERY), lambda jobs: state(jobs, "over") is JobState.RUNNING)
    assert jobs[f"{QUERY}over"].number == number
    assert f"{QUERY}away" not in jobs


def test_slurm_whose_accounting_is_down(slurm_accounting: Any) -> None:
    farm = slurm_accounting
    farm.history(Query(QUERY))
    os.kill(pid_of(farm.folder / "slurmdbd.pid"), signal.SIGTERM)
    wait_until(lambda: not (farm.folder / "slurmdbd.pid").exists())
    with pytest.raises(SchedulerUnavailable):
        farm.history(Query(QUERY), "history-down")
    farm.queue(Query(QUERY))  # the queue is still there
    settings = os.environ | {"SLURM_CONF": str(farm.folder / "slurmdbd.conf")}
    subprocess.run(["/usr/sbin/slurmdbd"], env=settings, check=True, timeout=20)


def test_grid_engine_with_a_shepherd_killed(gridengine: Any) -> None:
    number = running(gridengine, "node")
    shepherds = [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if path.read_bytes().startswith(f"sge_shepherd-{number}".encode())
        and path.with_name("cwd").resolve().is_relative_to(gridengine.folder)
    ]
    assert len(shepherds) == 1
    # before it has noted its job's number, its death would count as a failed start, and the job be started again
    wait_until(lambda: list(gridengine.folder.glob(f"execd/*/active_jobs/{number}.1/job_pid")))
    time.sleep(0.5)
    payload = [int(word) for word in Path(f"/proc/{shepherds[0]}/task/{shepherds[0]}/children").read_text().split()]
    os.kill(shepherds[0], signal.SIGKILL)
    try:
        jobs = gridengine.until(Query(QUERY), lambda jobs: state(jobs, "node").final)
        gridengine.history(Query(QUERY), "history-shepherd-killed")
        assert jobs[f"{QUERY}node"].state is JobState.NODE_FAILED
        assert "still be running" in jobs[f"{QUERY}node"].reason
        assert payload and Path(f"/proc/{payload[0]}").exists()  # it is
    finally:
        for child in payload:
            os.kill(child, signal.SIGKILL)


def test_grid_engine_with_its_master_down(gridengine: Any) -> None:
    number = running(gridengine, "over")
    pid = pid_of(gridengine.folder / "qmaster" / "qmaster.pid")
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not Path(f"/proc/{pid}").exists())
    try:
        everything_is_unavailable(gridengine)
    finally:
        gridengine.admin("/usr/sbin/sge_qmaster")
    wait_until(lambda: gridengine.run(gridengine.scheduler.listing(Query(QUERY))).exit_code == 0)
    jobs = gridengine.until(Query(QUERY), lambda jobs: state(jobs, "over") is JobState.RUNNING)
    assert jobs[f"{QUERY}over"].number == number


def test_htcondor_with_its_schedd_down(htcondor: Any) -> None:
    stopped = [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if path.read_bytes().startswith(b"condor_schedd") and f"{htcondor.folder}/".encode() in environment(path.parent)
    ]
    assert len(stopped) == 1
    number = running(htcondor, "over")
    # the master starts a new one by itself after some seconds
    os.kill(stopped[0], signal.SIGKILL)
    everything_is_unavailable(htcondor)
    wait_until(lambda: htcondor.run(htcondor.scheduler.listing(Query(QUERY))).exit_code == 0, 40)
    time.sleep(3)  # the new schedd lists the job as idle first, and then finds it running
    jobs = htcondor.until(Query(QUERY), lambda jobs: state(jobs, "over") is JobState.RUNNING)
    assert jobs[f"{QUERY}over"].number == number


def test_htcondor_starts_no_job_a_second_time(htcondor: Any) -> None:
    number = running(htcondor, "node")
    starters = [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if path.read_bytes().startswith(b"condor_starter")
        and f"{htcondor.folder}/".encode() in environment(path.parent)
    ]
    for starter in starters:
        os.kill(starter, signal.SIGKILL)
    htcondor.until(Query(QUERY), lambda jobs: state(jobs, "node") is JobState.QUEUED)
    time.sleep(4)  # the negotiator looks every second
    left = htcondor.queue(Query(QUERY), "queue-starter-killed").of(number)
    assert left.state is JobState.QUEUED and "not started again" in left.reason
    ask.cancel(htcondor.scheduler, [number], htcondor.run)


def test_bringing_up_what_is_up_changes_nothing(slurm: Any) -> None:
    before = (slurm.folder / "slurmctld.pid").read_text()
    script = Path(__file__).parents[3] / "deploy" / "batch" / "slurm.sh"
    again = subprocess.run(
        [script, "up", slurm.folder],
        env=os.environ | {"PORT": str(slurm.port)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert again.returncode == 0 and "is up already" in again.stdout
    assert (slurm.folder / "slurmctld.pid").read_text() == before


def environment(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes()
    except OSError:
        return b""


def test_fsched_down_and_with_a_node_gone(fsched: Any) -> None:
    running(fsched, "over")
    fsched.run(fsched.scheduler._fsched("down"))
    everything_is_unavailable(fsched)
    fsched.run(fsched.scheduler._fsched("up"))
    fsched.run(fsched.scheduler._fsched("node-fails"))
    jobs = fsched.until(Query(QUERY), lambda jobs: state(jobs, "over").final)
    assert jobs[f"{QUERY}over"].state is JobState.NODE_FAILED


@pytest.fixture(autouse=True, scope="module")
def clean(farms: Any) -> Iterator[None]:
    """Of the modules that use the real systems this is the last; their programs must not outlive the tests either."""
    yield
    farms.close()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes() == f"sleep\0{LONG}\0".encode():
                os.kill(int(path.parent.name), signal.SIGKILL)
        except OSError:
            continue
