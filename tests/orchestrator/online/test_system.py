"""What ``online status`` says of reducers."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import main
from orchestrator.online import snapshot, system
from orchestrator.online.reducer_status import Said, Teller
from orchestrator.runtime import STATUS, Lock
from orchestrator.settings import Settings

BEGUN = "2026-01-02T00:00:00Z"


@pytest.fixture
def settings(tmp_path: Path) -> Any:
    """A site whose system runs, with one reducer, and a run 7 of which 5 spills are stored."""
    folder = tmp_path / "online"
    folder.mkdir()
    lock = Lock(folder)
    lock.take()
    children = [{"name": "online-reduce-one", "state": "running", "pid": 1, "restarts": 0, "ended": ""}]
    (folder / STATUS).write_text(json.dumps({"pid": os.getpid(), "children": children}))
    said = {"state": "running", "run": "7", "begun": BEGUN, "opened": 2, "done": 4, "failed": 1, "workers": []}
    (folder / "transform.json").write_text(json.dumps(said))
    yield Settings.load(tmp_path, {})
    lock.release()


def test_a_transform_that_says_nothing_any_more_is_told(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    path = settings.folder / "online" / "transform.json"
    said = json.loads(path.read_text())
    for seconds, told in ((0, False), (60, True)):
        then = datetime.now(UTC) - timedelta(seconds=seconds)
        path.write_text(json.dumps(said | {"time": then.isoformat(timespec="milliseconds")}))
        main(["-C", str(settings.folder), "online", "status"])
        assert ("s ago: the transform hangs, or the disk is full" in capsys.readouterr().out) == told


def one(settings: Settings) -> dict[str, Any]:
    return dict(system.state(settings)["reducers"][0])


@pytest.mark.parametrize(
    ("begun", "opened", "finished"), [(BEGUN, 2, True), (BEGUN, 1, False), ("2026-01-01T00:00:00Z", 2, False)]
)
def test_a_snapshot_of_an_older_run_of_that_name_finishes_nothing(
    settings: Settings, begun: str, opened: int, finished: bool
) -> None:
    snapshot.write(settings.folder / "online" / "runs", "7", "one", [], {"begun": begun, "opened": opened})
    found = one(settings)
    assert (found["finished"], found["counted"]) == (finished, 5 if finished else None)


@pytest.mark.parametrize(("begun", "counted", "lag"), [(BEGUN, 3, 2), ("2026-01-01T00:00:00Z", None, None)])
def test_what_a_reducer_says_of_an_older_run_is_not_taken_for_this_one(
    settings: Settings, begun: str, counted: int | None, lag: int | None
) -> None:
    Teller(settings.folder / "online", lambda: 0.0).say(Said("one", "counting", "7", begun, 2, counted=3, failed=1))
    found = one(settings)
    assert (found["counted"], found["lag"], found["finished"]) == (counted, lag, False)


def test_a_reducer_that_has_failed_is_told_while_it_tries_and_afterwards(settings: Settings) -> None:
    folder = settings.folder / "online"
    Teller(folder, lambda: 0.0).say(Said("one", "cannot begin", "7", BEGUN, 2, error="a:B: KeyError: 'x'"))
    assert one(settings)["trouble"] == "the reducer one cannot begin run 7: a:B: KeyError: 'x'"
    (folder / "reduce-one.json").unlink()
    snapshot.write(folder / "runs", "7", "one", [], {"begun": BEGUN, "opened": 2, "error": "a:B: KeyError: 'x'"})
    found = one(settings)
    assert found["trouble"] == "a:B: KeyError: 'x'" and found["finished"] and found["gave_up"]


def test_a_start_waits_for_no_stranger_but_a_refused_worker_that_must_be_there_is_not_ready() -> None:
    said = {
        "workers": [
            {"name": "w1", "state": "ready"}, {"name": "lyon", "state": "refused"},
            {"name": "oxford", "state": "not there"}, {"name": "stranger", "state": "refused"},
        ]
    }  # fmt: skip
    assert system.unready(said, ["lyon", "oxford"]) == ["lyon", "oxford"]
