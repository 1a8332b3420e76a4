"""The pool, with real worker processes: reports, limits, crashes, and nothing begun twice."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.executors.events import Progressed, Returned
from orchestrator.executors.pool import Pool
from orchestrator.executors.spool import read_reports
from orchestrator.runner import Task
from tests.orchestrator.executors.pools import STEPS, collect, reports, run, tasks


def test_every_task_is_reported_once(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool('{name: plain, run: "poolsteps:plain"}', size=2)
    found = run(pool, 100)
    assert sorted(r.document for r in found) == sorted(f"d{n}" for n in range(100))
    assert all(r.ok and r.result["twice"] == 2 * int(r.document[1:]) for r in found)
    assert found[0].result["input"] == f"/raw/{found[0].document[1:]}"
    assert len({r.result["pid"] for r in found}) == 2
    assert all(r.max_rss > 1_000_000 and r.software["orchestrator"] for r in found)


def test_a_report_is_in_the_spool_before_it_is_heard(make_pool: Callable[..., Pool], tmp_path: Path) -> None:
    pool = make_pool('{name: plain, run: "poolsteps:plain"}')
    found = run(pool, 3)
    spooled = [r for path in (tmp_path / "spool").rglob("*.jsonl") for r in read_reports(path)]
    assert {r.attempt for r in spooled} == {r.attempt for r in found}


def test_everything_written_lands_in_the_attempts_log(make_pool: Callable[..., Pool], tmp_path: Path) -> None:
    pool = make_pool('{name: noisy, run: "poolsteps:noisy"}')
    (report,) = run(pool)
    assert report.log is not None
    text = Path(report.log).read_text()
    assert all(word in text for word in ("printed", "written", "logged", "echoed"))
    assert Path(report.log).is_relative_to(tmp_path / "logs" / "proc0")
    assert not (tmp_path / "scratch" / report.attempt).exists(), "the scratch directory is removed"


def test_a_silent_step_leaves_no_log(make_pool: Callable[..., Pool], tmp_path: Path) -> None:
    (report,) = run(make_pool('{name: plain, run: "poolsteps:plain"}'))
    assert report.log is None
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize(
    ("function", "kind", "words"),
    [
        ("wrong", "data", "the header is cut"),
        ("bug", "code", "KeyError: 'missing'"),
        ("infinite", "code", "cannot be written as JSON"),
        ("crash", "code", "signal 11"),
        ("leave", "code", "exit code 7"),
        ("absent", "code", "has no 'absent'"),
    ],
)
def test_a_failure_has_a_class_and_a_reason(
    make_pool: Callable[..., Pool], function: str, kind: str, words: str
) -> None:
    (report,) = run(make_pool(f'{{name: f, run: "poolsteps:{function}"}}'))
    assert report.error_class == kind
    assert words in report.reason


def test_after_a_crash_the_others_of_the_batch_are_handed_back_untouched(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool('{name: f, run: "poolsteps:crash"}')
    pool.submit(tasks(5))
    events = collect(pool, lambda events: any(isinstance(e, Returned) for e in events))
    (blamed,) = reports(events)
    (returned,) = [e for e in events if isinstance(e, Returned)]
    assert [blamed.document, *(t.document["_id"] for t in returned.tasks)] == [f"d{n}" for n in range(5)]
    assert pool.outstanding() == 0


def test_a_clock_that_is_set_ahead_ends_no_attempt(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool('{name: naps, run: "poolsteps:naps", time_limit: 20 s}')
    pool._clock = lambda: time.time() + 7200.0
    found = run(pool, 3)  # the reports of the first two are read from the spool while the third one runs
    assert [report.error_class for report in found] == [None] * 3


def test_a_time_limit_ends_the_attempt(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool('{name: slow, run: "poolsteps:slow", time_limit: 1 s}', cost=1.0)
    (report,) = run(pool)
    assert report.error_class == "resources"
    assert "its time limit is 1 s" in report.reason


def test_a_memory_limit_ends_the_attempt(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool('{name: greedy, run: "poolsteps:greedy", memory_limit: 150 MB}', cost=1.0)
    (report,) = run(pool)
    assert report.error_class == "resources"
    assert "its limit is 150 MB" in report.reason


def test_birth_once_a_worker_and_death_at_the_end(make_pool: Callable[..., Pool], tmp_path: Path) -> None:
    pool = make_pool(f'{{name: once, run: "poolsteps:Once", settings: {{folder: "{tmp_path}"}}}}')
    assert [r.result["count"] for r in run(pool, 3)] == [1, 2, 3]
    pool.close()
    assert len(list(tmp_path.glob("born-*"))) == 1
    assert len(list(tmp_path.glob("dead-*"))) == 1


def test_progress_is_heard(make_pool: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch) -> None:
    pool = make_pool('{name: f, run: "poolprogress:f"}')
    Path(sys.path[0], "poolprogress.py").write_text(
        "import time\ndef f(document, work):\n    time.sleep(0.6)\n    work.progress(0.5, 'half')\n    return {}\n"
    )
    pool.submit(tasks(1))
    events = collect(pool, lambda events: bool(reports(events)))
    assert [(e.fraction, e.text) for e in events if isinstance(e, Progressed)] == [(0.5, "half")]


def test_an_executable_gets_its_words_one_by_one_whatever_a_name_holds(
    make_pool: Callable[..., Pool], tmp_path: Path
) -> None:
    script = tmp_path / "step.py"
    script.write_text(
        "import json, sys\ndocument = json.load(open(sys.argv[1]))\n"
        "json.dump({'input': sys.argv[3], 'x': document['x']}, open(sys.argv[2], 'w'))\nprint('said')\n"
    )
    pool = make_pool(
        f'{{name: f, command: ["{sys.executable}", "{script}", "{{document}}", "{{result}}", "{{input}}"]}}'
    )
    hostile = "/raw/$(touch pwned) ;'\"\n{attempt} é"
    pool.submit([Task({"_id": "d", "x": 5}, "proc0", "t", hostile)])
    (report,) = reports(collect(pool, lambda events: bool(reports(events))))
    assert report.reason == ""
    assert report.result == {"input": hostile, "x": 5}
    assert report.command is not None
    assert report.command[4] == hostile


@pytest.mark.parametrize(("code", "kind"), [(65, "data"), (75, "transient"), (1, "code")])
def test_an_executables_exit_code_is_its_class(make_pool: Callable[..., Pool], code: int, kind: str) -> None:
    pool = make_pool(f'{{name: f, command: ["{sys.executable}", "-c", "import sys; sys.exit({code})"]}}')
    (report,) = run(pool)
    assert (report.error_class, report.exit_code) == (kind, code)


def test_an_executable_that_is_not_there_is_named(make_pool: Callable[..., Pool]) -> None:
    (report,) = run(make_pool("{name: f, command: [/no/such/program]}"))
    assert "'/no/such/program' cannot be started" in report.reason


def test_closing_returns_what_was_not_finished_and_leaves_no_process(make_pool: Callable[..., Pool]) -> None:
    others = psutil.Process().children(recursive=True)  # servers that serve a whole session of tests
    pool = make_pool('{name: slow, run: "poolsteps:slow"}', size=2, cost=1.0)
    pool.submit(tasks(2))
    pool.events(0.5)
    children = [child for child in psutil.Process().children(recursive=True) if child not in others]
    events = pool.close()
    assert sorted(t.attempt for e in events if isinstance(e, Returned) for t in e.tasks) == ["t0", "t1"]
    assert not reports(events)
    psutil.wait_procs(children, timeout=5)
    assert not [p for p in children if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def test_a_worker_dies_with_its_poller(tmp_path: Path) -> None:
    (tmp_path / "poolsteps.py").write_text(STEPS)
    script = tmp_path / "poller.py"
    script.write_text(
        "import sys, pathlib\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "from orchestrator import chain as chains\n"
        "from orchestrator.executors.pool import Pool\n"
        "from orchestrator.executors.spool import Spool\n"
        "from orchestrator.runner import Places, Task\n"
        f"root = pathlib.Path({str(tmp_path)!r})\n"
        "chain = chains.loads('name: t\\nsteps:\\n  - {name: slow, run: \"poolsteps:slow\"}')\n"
        "pool = Pool(chain, Places(root, root / 's', root / 'l'), Spool(root / 'spool', 'p'), 1, name='p',\n"
        "            cost=lambda key: 1.0, depth=0.25)\n"
        "pool.submit([Task({'_id': 'd'}, 'proc0', 't')])\n"
        "pool.events(1.0)\n"
        "print('ready', flush=True)\n"
        "while True: pool.events(1.0)\n"
    )
    import subprocess

    poller = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE)
    assert poller.stdout is not None
    assert poller.stdout.readline() == b"ready\n"
    workers = psutil.Process(poller.pid).children()
    assert len(workers) == 1
    os.kill(poller.pid, signal.SIGKILL)
    poller.wait()
    gone: Any = psutil.wait_procs(workers, timeout=5)[0]
    assert len(gone) == 1


def test_a_name_that_is_not_unicode_reaches_the_step_and_comes_back_readable(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool('{name: plain, run: "poolsteps:plain"}')
    pool.submit([Task({"_id": "d", "x": 1}, "proc0", "t", os.fsdecode(b"/raw/\xe9t\xe9"))])
    (report,) = reports(collect(pool, lambda events: bool(reports(events))))
    assert report.ok
    assert report.result["input"] == "/raw/\\xe9t\\xe9"


def test_where_no_worker_can_be_made_tasks_are_given_back_with_the_reason_and_births_become_rare(
    make_pool: Callable[..., Pool], tmp_path: Path
) -> None:
    pool = make_pool('{name: plain, run: "poolsteps:plain"}')
    (tmp_path / "scratch").touch()  # the workers cannot make their folder
    pool.submit(tasks(2))
    (returned,) = [e for e in collect(pool, bool) if isinstance(e, Returned)]
    assert [task.attempt for task in returned.tasks] == ["t0", "t1"]
    assert "no worker could be started" in returned.unborn
    assert pool.budget() == 0.0
    assert 0.0 < pool.next_birth() <= 2.0


def test_a_spool_that_cannot_be_written_loses_no_report(make_pool: Callable[..., Pool], tmp_path: Path) -> None:
    pool = make_pool('{name: plain, run: "poolsteps:plain"}')
    folder = tmp_path / "spool" / "pollers" / "p"
    folder.rmdir()
    folder.touch()
    assert all(report.ok for report in run(pool, 3))
    folder.unlink()
    folder.mkdir()


def test_waking_a_closed_pool_touches_no_other_file(make_pool: Callable[..., Pool], tmp_path: Path) -> None:
    pool = make_pool('{name: plain, run: "poolsteps:plain"}')
    pool.close()
    taken = [os.open(tmp_path / f"f{n}", os.O_RDWR | os.O_CREAT) for n in range(10)]
    pool.wake()
    for descriptor in taken:
        assert os.fstat(descriptor).st_size == 0
        os.close(descriptor)


def test_a_step_sees_no_login_of_the_database(make_pool: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_COUCH_USER", "admin")
    monkeypatch.setenv("ORCHESTRATOR_COUCH_PASSWORD", "a-secret")
    monkeypatch.setenv("SOMETHING_ELSE", "kept")
    (report,) = run(make_pool('{name: s, run: "poolsteps:surroundings"}'))
    seen = report.result["environment"]
    assert "a-secret" not in seen.values()
    assert "ORCHESTRATOR_COUCH_USER" not in seen
    assert seen["SOMETHING_ELSE"] == "kept"
    assert seen["OMP_NUM_THREADS"] == "1"
