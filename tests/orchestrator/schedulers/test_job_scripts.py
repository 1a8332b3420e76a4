"""What is said to a batch system: words that pass unharmed, and what is refused before anything is submitted."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import schedulers
from orchestrator.errors import SettingsError
from orchestrator.schedulers import INDEX, Job, JobSpec, JobState, Listing, Query, Resources, UnfitJob, ask

WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=12)
ALL = sorted(schedulers.SCHEDULERS)


def spec(**changes: Any) -> JobSpec:
    fields = {"name": "orch-a", "command": ("true",), "script": "/s/a.sh", "directory": "/s", "stdout": "/s/a.out",
              "stderr": "/s/a.err"} | changes  # fmt: skip
    return JobSpec(**fields)


def run(script: str, task: str = "1", **variables: str) -> subprocess.CompletedProcess[bytes]:
    environment = {"PATH": os.environ["PATH"], "SLURM_ARRAY_TASK_ID": task} | variables
    return subprocess.run(
        ["sh", "-s"], input=script.encode(), capture_output=True, env=environment, cwd="/", timeout=20
    )


@settings(max_examples=12, deadline=None)
@given(words=st.lists(WORDS, min_size=1, max_size=5), chunks=st.lists(WORDS, min_size=2, max_size=3))
def test_any_words_reach_the_program_as_they_are(words: list[str], chunks: list[str]) -> None:
    show = (
        "python3",
        "-S",
        "-c",
        "import os,sys; sys.stdout.buffer.write(b'\\0'.join(map(os.fsencode, sys.argv[1:])))",
    )
    job = spec(command=(*show, *words), chunks=tuple(chunks), array=len(chunks), directory="/")
    ended = run(schedulers.get("slurm").script(job), "2", PYTHONUTF8="1")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.decode().split("\0") == [*words, chunks[1]]


@pytest.mark.parametrize("name", ALL)
def test_the_script_becomes_the_program(name: str, tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s "$(touch pwned)" new\tline'
    folder.mkdir()
    job = spec(
        command=("sh", "-c", 'pwd; echo "$VALUE"; exit 7'), directory=str(folder), environment={"VALUE": "a 'b' $(c)"}
    )
    ended = run(schedulers.get(name).script(job))
    assert ended.returncode == 7
    assert ended.stdout.decode() == f"{folder}\na 'b' $(c)\n"
    assert not list(tmp_path.rglob("pwned"))


def test_a_missing_directory_and_a_task_without_a_chunk_have_their_exit_codes() -> None:
    slurm = schedulers.get("slurm")
    assert run(slurm.script(spec(directory="/nonexistent"))).returncode == 111
    assert run(slurm.script(spec(directory="/", chunks=("a", "b"), array=2)), "3").returncode == 112


@pytest.mark.parametrize("name", ALL)
def test_nothing_of_the_submitters_environment_is_in_what_is_submitted(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_COUCH_PASSWORD", "hunter2")
    scheduler = schedulers.get(name)
    texts = [file.text for file in scheduler.files(spec())] + list(scheduler.submit(spec()).argv)
    assert not any("hunter2" in text or "COUCH" in text for text in texts)
    assert "--export=NONE" in schedulers.get("slurm").submit(spec()).argv


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "a b"}, {"name": "1a"}, {"name": "-rf"}, {"name": "a;b"}, {"name": ""}, {"command": ()},
        {"command": ("a\0b",)}, {"array": 0}, {"array": 3, "chunks": ("one",)}, {"warning": 5.0},
        {"warning": 5.0, "resources": Resources(time=4.0)}, {"directory": "relative"}, {"stdout": "/a\nb"},
        {"stdout": f"/a{INDEX}"}, {"environment": {"A B": "c"}}, {"environment": {"COUCH_PASSWORD": "x"}},
        {"environment": {"TOKEN": "x"}}, {"command": ("x", "http://joe:secret@db:5984/")},
    ],
)  # fmt: skip
def test_what_cannot_be_a_job_is_refused_with_a_sentence(changes: dict[str, Any]) -> None:
    with pytest.raises(UnfitJob) as refused:
        spec(**changes)
    assert len(str(refused.value)) > 20 and "secret" not in str(refused.value)


def test_paths_that_a_system_cannot_carry_are_refused_before_it_misreads_them() -> None:
    for name, path in (
        ("gridengine", "/s/a,b"),
        ("gridengine", "/s/host:b"),
        ("slurm", "/s/a\\b"),
        ("pbs", "/s/$HOME"),
    ):
        with pytest.raises(UnfitJob, match="cannot write"):
            schedulers.get(name).submit(spec(stdout=path))
    with pytest.raises(UnfitJob):
        schedulers.get("htcondor").files(spec(directory="/s/a "))


def test_what_the_systems_give_a_meaning_to_is_escaped() -> None:
    job = spec(stdout=f"/s/%j $(touch x) {INDEX}", array=2)
    assert "--output=/s/%%j $(touch x) %a" in schedulers.get("slurm").submit(job).argv
    assert "/s/%j $$(touch x) $TASK_ID" in schedulers.get("gridengine").submit(job).argv
    description = schedulers.get("htcondor").files(job)[1].text
    assert "output = /s/%j $(DOLLAR)(touch x) $INT(orchestrator_task)\n" in description


@pytest.mark.parametrize("name", ALL)
def test_a_thousand_tasks_are_one_call_and_one_listing(name: str) -> None:
    chunks = tuple(f"/spool/chunk {index}.json" for index in range(1000))
    job = spec(array=1000, chunks=chunks)
    calls: list[tuple[str, ...]] = []

    def count(command: schedulers.Command) -> schedulers.Answer:
        calls.append(command.argv)
        return schedulers.Answer(None)

    with pytest.raises(schedulers.SchedulerUnavailable) as away:
        ask.submit(schedulers.get(name), job, count, lambda file: None)
    assert away.value.perhaps_done and len(calls) == 1
    assert sum(map(len, calls[0])) < 3000
    script = schedulers.get(name).script(job)
    assert script.count("chunk ") >= 1000 and len(script) < 200_000


@pytest.mark.parametrize("name", ALL)
def test_only_numbers_can_be_cancelled(name: str) -> None:
    scheduler = schedulers.get(name)
    for bad in ("-u", "all", "*", "", "1 2", "--user=root", "1;rm"):
        with pytest.raises(UnfitJob):
            scheduler.cancel(["12", bad])
    with pytest.raises(UnfitJob):
        scheduler.cancel([])
    number = "12[].server" if name == "pbs" else "12"
    assert scheduler.cancel([scheduler.key(number), scheduler.key(number, 3)]).argv[-1] == scheduler.key(number, 3)


def test_the_farms_environment_and_folder_are_used() -> None:
    slurm = schedulers.get("slurm", programs="/opt/slurm/bin/", environment={"SLURM_CONF": "/etc/s.conf"})
    argv = slurm.listing(Query("orch-", "joe")).argv
    assert argv[0] == "env" and "SLURM_CONF=/etc/s.conf" in argv and "/opt/slurm/bin/squeue" in argv
    assert "--user=joe" in argv and "--me" in schedulers.get("slurm").listing(Query("orch-")).argv


def test_names_and_settings_that_do_not_exist() -> None:
    with pytest.raises(SettingsError, match="slurm"):
        schedulers.get("slrum")
    with pytest.raises(SettingsError, match="memory"):
        schedulers.get("gridengine", settings={"memroy": "h_rss"})
    rss = schedulers.get("gridengine", settings={"memory": "h_rss"})
    assert "h_rss=10M" in rss.submit(spec(resources=Resources(memory=10 * 2**20))).argv


def test_the_order_of_states() -> None:
    for state in JobState:
        assert not state.before(state)
        assert not (state.final and state.active)
    assert JobState.QUEUED.before(JobState.RUNNING) and JobState.RUNNING.before(JobState.DONE)
    assert not JobState.DONE.before(JobState.FAILED) and not JobState.FAILED.before(JobState.DONE)
    assert not JobState.UNKNOWN.before(JobState.DONE) and not JobState.RUNNING.before(JobState.UNKNOWN)


def test_of_two_reports_the_later_news_is_kept() -> None:
    running = Job("1", None, "orch-a", JobState.RUNNING, "R")
    done, unknown = replace(running, state=JobState.DONE), replace(running, state=JobState.UNKNOWN)
    assert Listing((running,)).plus([Listing((done,))]).jobs == (done,)
    assert Listing((done,)).plus([Listing((running,))]).jobs == (done,)
    assert Listing((running,)).plus([Listing((unknown,))]).jobs == (running,)
    assert not Listing((running,)).plus([Listing((), ("?",))]).complete
    whole = Listing((replace(running, number="2"),))
    assert whole.of("2", 7) is whole.jobs[0] and whole.of("3") is None
