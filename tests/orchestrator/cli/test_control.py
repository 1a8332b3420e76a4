"""pause, drain, resume, limits, cancel, jobs and job log on the command line: what they write, say and refuse."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator import batchjobs, chain
from orchestrator.batchjobs import Place
from orchestrator.couch import Database
from orchestrator.documents import Claimant

Commands = Callable[..., Any]  # see conftest.py
FARMED = """
name: noop
farms:
  centre: {{scheduler: fsched, spool: {folder}/far, limits: {{queued: 9}}}}
steps:
  - {{name: first, run: 'procs.noop:nothing', executor: farm, farm: centre}}
  - {{name: second, run: 'procs.noop:nothing'}}
"""


def a_document(name: str) -> dict[str, Any]:
    """A document as registration makes it."""
    fields = {"_id": name, "type": "daqdocument", "run_name": "r", "file": f"/daq/{name}", "site": "here"}
    return {**fields, "status": "closed"}


@pytest.fixture
def farm(site: Any, database: Database) -> Any:
    """A site with a farm that has two documents in one job, and one that waits."""
    text = FARMED.format(folder=site.folder)
    (site.folder / "chain.yaml").write_text(text)
    assert site("couchapp", "push").code == 0
    step, daemon, now = chain.loads(text).steps[0], Claimant("farm:here:centre", "h", 1, "here"), time.time()

    def write(document: dict[str, Any]) -> dict[str, Any]:
        (saved,) = database.bulk([document])
        return {**document, "_rev": saved.rev}

    write(a_document("waits"))
    for n in (1, 2):  # one transition after the other, as the guard wants it
        place = Place("fsched", "centre", "orc-0-first-1", n)
        found = batchjobs.queue(write(a_document(f"far{n}")), step, daemon, f"a{n}", place, now)
        found = write(batchjobs.submitted(found, f"a{n}", "4711", {}, now))
        if n == 2:
            write(batchjobs.begun(found, step, "node7", now, now))
    return site


def test_what_is_paused_is_said_by_every_command_that_is_asked(farm: Commands, database: Database) -> None:
    dry = farm("pause", "--step", "proc0", "--reason", "no disk", "--dry-run")
    assert dry.code == 0 and "would be: step first is paused" in dry.out
    assert database.get_many(["control:here"]) == {"control:here": None}
    assert "step first is paused" in farm("pause", "--step", "first", "--reason", "no disk").out
    assert "proc0 (first) is paused since" in farm("show", "waits").out
    assert "no disk" in farm("status").err and "no disk" in farm("jobs").err
    assert farm("status", "--json").json["control"]["here"]["stops"][0]["scope"] == "step:first"
    assert farm("resume").code == 1, "the site itself is not paused"
    said = farm("drain", "--farm", "centre", "--json").json
    assert (said["queued"], said["running"]) == (1, 1)
    left = farm("resume", "--step", "first")
    assert left.code == 0 and "still: farm centre is drained" in left.out
    assert farm("resume", "--all").code == 0 and database.get("control:here")["stops"] == {}
    assert [entry["what"] for entry in database.get("control:here")["history"]] == [
        "pause step:first", "drain farm:centre", "resume step:first", "resume farm:centre",
    ]  # fmt: skip


def test_what_there_is_not_is_refused_with_what_there_is(farm: Commands) -> None:
    assert "first" in farm("pause", "--step", "frist").err and farm("pause", "--step", "frist").code == 3
    assert "its farms are centre" in farm("drain", "--farm", "center").err
    assert "its sites are here" in farm("pause", "--site", "there").err
    assert farm("pause", "--step", "first", "--farm", "centre").code == 2
    assert "at least 1" in farm("limits", "queued=0").err and farm("limits", "queued=0").code == 3
    assert "no limit 'qeued'" in farm("limits", "qeued=3").err
    assert farm("limits", "queued").code == 2 and farm("limits", "queued=x").code == 2
    assert farm("cancel", "waits").code == 1 and "no batch job has it" in farm("cancel", "waits").err
    assert "there is no such document" in farm("cancel", "nothing").err
    assert farm("jobs", "orc-9").code == 6 and farm("job", "log", "nothing").code == 6
    assert "no batch job has had" in farm("job", "log", "waits").err


def test_limits_are_shown_changed_and_reset(farm: Commands) -> None:
    assert farm("limits", "queued=3", "--reason", "be gentle", "--dry-run").code == 0
    assert "be gentle" not in farm("limits").out
    assert farm("limits", "queued=3", "submissions_per_minute=0.5", "--reason", "be gentle").code == 0
    rows = {row["limit"]: row for row in farm("limits", "--json").json["limits"]}
    assert rows["queued"]["value"] == "3" and rows["queued"]["in_chain"] == "9" and rows["queued"]["by"]
    assert rows["jobs"]["value"] == "2000" and rows["submissions_per_minute"]["value"] == "0.5"
    assert farm("limits", "--farm", "centre", "--reset", "queued").code == 0
    assert "be gentle" in farm("limits", "--show").out
    assert farm("limits", "--reset").code == 0 and "be gentle" not in farm("limits").out


@pytest.mark.parametrize("word", ["far1", "4711_1", "4711.1"])
def test_one_document_of_a_job_is_cancelled_by_its_id_or_its_task(
    farm: Commands, database: Database, word: str
) -> None:
    assert farm("cancel", word, "--reason", "wrong").code == 0
    asked = database.get("far1")["proc0"]["cancel"]
    assert asked["reason"] == "wrong" and asked["then"] == "failed" and "cancel" not in database.get("far2")["proc0"]
    assert "cancelled by" in farm("show", "far1").out


def test_a_whole_job_is_cancelled_after_a_question(
    farm: Commands, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert farm("--set", "ask_above=1", "cancel", "4711").code == 130
    assert farm("--set", "ask_above=1", "cancel", "4711", "--dry-run", "--json").json["cancelled"] == ["far1", "far2"]
    assert "cancel" not in database.get("far1")["proc0"]
    done = farm("--set", "ask_above=1", "cancel", "4711", "--hold", "--yes", "--json").json
    assert done["cancelled"] == ["far1", "far2"] and database.get("far2")["hold"]["by"]


def test_jobs_are_filtered_and_show_their_documents(farm: Commands) -> None:
    (job,) = farm("jobs", "--json").json["jobs"]
    assert job["states"] == {"queued": 1, "running": 1} and job["nodes"] == ["node7"] and job["step"] == "first"
    assert farm("jobs", "--farm", "other", "--json").json["jobs"] == []
    assert farm("jobs", "--state", "held", "--json").json["jobs"] == []
    assert len(farm("jobs", "--step", "first", "--state", "running", "--json").json["jobs"]) == 1
    text = farm("jobs", "4711").out
    assert "far1" in text and "far2" in text and "node7" in text


def test_a_jobs_log_is_found_by_job_task_and_document(farm: Any) -> None:
    logs = farm.folder / "far" / "logs" / "orc-0-first-1"
    logs.mkdir(parents=True)
    (logs / "out-1").write_text("of the first task\n")
    (logs / "out-2").write_text("of the second task\n")
    (logs / "err-2").write_text("grumble\n")
    assert farm("job", "log", "far1").out == "of the first task\n"
    assert farm("job", "log", "4711_2").out == "of the second task\n"
    assert farm("job", "log", "orc-0-first-1").out == "of the second task\n", "the one that runs"
    assert farm("job", "log", "orc-0-first-1", "--task", "2", "--stderr").out == "grumble\n"
    assert "has no task 3" in farm("job", "log", "4711", "--task", "3").err
    missing = farm("job", "log", "far1", "--stderr")
    assert missing.code == 6 and "there is no file" in missing.err
    steps = farm.folder / "logs" / "steps" / "proc0"
    steps.mkdir(parents=True)
    (steps / "far1.a1.log").write_text("what the step printed\n")
    assert farm("job", "log", "far1", "--step").out == "what the step printed\n"
