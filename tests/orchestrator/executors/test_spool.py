"""The spool: reports survive, the dead are known from the living, and one alone adopts."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from orchestrator.documents import Report
from orchestrator.errors import SettingsError
from orchestrator.executors.spool import Spool, read_reports


def line(attempt: str) -> str:
    return json.dumps(Report("d", "proc0", attempt, 1.0, 2.0).to_json()) + "\n"


def test_a_living_poller_is_known_by_its_lock_and_a_dead_one_by_the_lack_of_it(tmp_path: Path) -> None:
    me, other = Spool(tmp_path, "me"), Spool(tmp_path, "other")
    assert me.alive("me") is True
    assert me.alive("other") is True
    assert me.adopt("other") is None
    os.close(other._lock or -1)
    assert me.alive("other") is False
    assert me.alive("stranger") is None


def test_a_poller_is_never_seen_before_it_holds_its_lock(tmp_path: Path) -> None:
    me = Spool(tmp_path, "me")
    stop, dead = threading.Event(), []

    def watch() -> None:
        while not stop.is_set():
            dead.extend(name for name in me.others() if me.alive(name) is False)

    watcher = threading.Thread(target=watch)
    watcher.start()
    born = [Spool(tmp_path, f"newborn-{number}") for number in range(300)]
    stop.set()
    watcher.join()
    assert dead == []
    assert all(me.alive(f"newborn-{number}") for number in range(len(born)))


def test_reports_of_a_dead_poller_are_read_by_one_alone(tmp_path: Path) -> None:
    one, two, dead = Spool(tmp_path, "one"), Spool(tmp_path, "two"), Spool(tmp_path, "dead")
    dead.new_batch()[1].write_text(line("t1") + line("t2"))
    dead.close()
    assert [report.attempt for report in one.adopt("dead") or []] == ["t1", "t2"]
    assert two.adopt("dead") is None
    one.let_go("dead")
    assert not (tmp_path / "pollers" / "dead").exists()
    assert one.others() == ["two"]


@pytest.mark.parametrize("broken", ["{", "[]", "5", "null", '{"document": "d"}', "\x00", '"text"'])
def test_a_broken_line_costs_only_itself(tmp_path: Path, broken: str) -> None:
    path = tmp_path / "batch.jsonl"
    path.write_text(line("t1") + broken + "\n" + line("t2") + line("half")[:-1])
    assert [report.attempt for report in read_reports(path)] == ["t1", "t2"]


def test_an_empty_spool_leaves_nothing_and_a_full_one_stays(tmp_path: Path) -> None:
    empty, full = Spool(tmp_path, "empty"), Spool(tmp_path, "full")
    name, path = full.new_batch()
    path.write_text(line("t"))
    empty.close()
    full.close()
    assert sorted(path.name for path in (tmp_path / "pollers").iterdir()) == ["full", "full.lock"]
    again = Spool(tmp_path, "full")
    again.done(name)
    again.close()
    assert list((tmp_path / "pollers").iterdir()) == []


def test_a_spool_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="correct the setting 'spool'"):
        Spool(tmp_path / "file", "p")
