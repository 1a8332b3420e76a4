"""What steps do to the worker that makes them, and to each other: each task gets its own report all the same."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.executors.events import Event, Returned
from orchestrator.executors.pool import Pool
from orchestrator.runner import Task
from tests.orchestrator.executors.pools import collect, reports, run, tasks

HOSTILE = """
import os, signal, subprocess, sys, threading, time, pathlib

def closes(document, work):
    print("before"); sys.stdout.close(); os.close(2); os.close(1); return {}

def replaces(document, work):
    sys.stdout = None; sys.stderr = open(os.devnull, "w"); sys.stderr.close(); return {}

def wanders(document, work):
    os.chdir(work.directory); return {"input": str(pathlib.Path("x").resolve())}

def forks(document, work):
    pid = os.fork()
    if pid == 0:
        return {"who": "child"}
    os.waitpid(pid, 0)
    return {"who": "parent"}

def daemon(document, work):
    if os.fork() == 0:
        os.setsid(); time.sleep(20); os._exit(0)
    os._exit(3)

def system(document, work):
    os.system("setsid sleep 20 &"); os._exit(3)

def talks(document, work):
    os.write(int(sys.argv[1]), b"hello there\\n"); return {}

def stubborn(document, work):
    for number in range(1, 32):
        try: signal.signal(number, signal.SIG_IGN)
        except OSError: pass
    time.sleep(30)

def exits(document, work):
    print("my last words"); sys.stdout.flush(); sys.exit(5)

def interrupts(document, work):
    raise KeyboardInterrupt

def recurses(document, work):
    return recurses(document, work)

def mutates(document, work):
    document.clear(); document["_id"] = "somebody else"; return {}

def circular(document, work):
    document["x"] = document; return document

def lists(document, work):
    return [1]

def garbage(document, work):
    os.write(1, b"\\xff\\xfe\\x00 rubbish \\x1b[31m\\n"); raise ValueError("x" * 10_000_000)

def floods(document, work):
    for _ in range(40): os.write(1, b"y" * 1_000_000)
    return {}

def threads(document, work):
    threading.Thread(target=time.sleep, args=(2,)).start(); return {}

def nan(document, work):
    work.progress(float("nan"), "\\ud800"); work.progress(7, "x"); return {}

def sized(document, work):
    return {"size": len(document["text"])}

def mixed(document, work):
    time.sleep(2.5 if document["x"] == 3 else 0)
    return {}
"""


@pytest.fixture
def hostile(make_pool: Callable[..., Pool]) -> Callable[..., Pool]:
    Path(sys.path[0], "hostilesteps.py").write_text(HOSTILE)
    return lambda name, more="", **how: make_pool(f'{{name: f, run: "hostilesteps:{name}"{more}}}', **how)


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("closes", None, ""),
        ("replaces", None, ""),
        ("wanders", None, ""),
        ("mutates", None, ""),
        ("floods", None, ""),
        ("threads", None, ""),
        ("nan", None, ""),
        ("forks", None, ""),
        ("daemon", "code", "exit code 3"),
        ("system", "code", "exit code 3"),
        ("talks", None, ""),
        ("exits", "code", "exit code 5"),
        ("interrupts", "code", "signal 2"),
        ("recurses", "code", "RecursionError"),
        ("circular", "code", "cannot be written as JSON"),
        ("lists", "code", "returned list"),
        ("garbage", "code", "ValueError: xxx"),
    ],
)
def test_whatever_a_step_does_to_its_worker_each_task_gets_its_own_report(
    hostile: Callable[..., Pool], name: str, kind: str | None, words: str
) -> None:
    pool = hostile(name)
    pool.submit(tasks(3))
    events: list[Event] = []
    while len(reports(events)) < 3:
        again = collect(pool, bool)
        for event in again:
            if isinstance(event, Returned):
                pool.submit(event.tasks)
        events += again
    assert sorted(report.document for report in reports(events)) == ["d0", "d1", "d2"]
    for report in reports(events):
        assert report.error_class == kind, report.reason
        assert words in report.reason
        assert len(report.reason) < 30_000


def test_a_crashed_workers_last_words_are_kept_and_its_leftovers_are_not(
    hostile: Callable[..., Pool], tmp_path: Path
) -> None:
    pool = hostile("exits")
    (report,) = run(pool)
    assert "my last words" in report.log_tail
    assert report.log is not None
    assert "my last words" in Path(report.log).read_text()
    pool.close()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_step_that_ignores_every_signal_is_ended_at_its_limit(hostile: Callable[..., Pool]) -> None:
    (report,) = run(hostile("stubborn", ", time_limit: 1 s", cost=1.0))
    assert "its time limit is 1 s" in report.reason


def test_endless_printing_leaves_a_log_of_bounded_size(hostile: Callable[..., Pool]) -> None:
    (report,) = run(hostile("floods"))
    assert report.log is not None
    assert Path(report.log).stat().st_size < 17_000_000
    assert b"bytes are left out here" in Path(report.log).read_bytes()


def test_documents_larger_than_any_pipe_pass_through(hostile: Callable[..., Pool]) -> None:
    pool = hostile("sized", size=2)
    pool.submit([Task({"_id": f"d{n}", "text": "é" * 3_000_000}, "proc0", f"t{n}") for n in range(6)])
    found = reports(collect(pool, lambda events: len(reports(events)) == 6))
    assert {report.result.get("size") for report in found} == {3_000_000}, [r.reason for r in found]


def test_results_of_short_steps_are_not_held_up_by_a_long_one_behind_them(hostile: Callable[..., Pool]) -> None:
    pool = hostile("mixed", ", time_limit: 20 s")
    pool.submit(tasks(5))
    began = time.monotonic()
    early = reports(collect(pool, lambda events: len(reports(events)) >= 3))
    assert time.monotonic() - began < 2.4, "they are in the spool while the pipe is silent"
    late = reports(collect(pool, lambda events: len(reports(events)) + len(early) >= 5))
    assert [r.document for r in early + late] == [f"d{n}" for n in range(5)], "and none is heard twice"


def test_a_step_is_not_ended_for_the_limit_of_a_short_one_before_it(
    make_pool: Callable[..., Pool], hostile: Callable[..., Pool]
) -> None:
    pool = make_pool(
        '{name: a, run: "poolsteps:plain", time_limit: 1 s}', '{name: b, run: "hostilesteps:mixed", time_limit: 60 s}'
    )
    long = Task({"_id": "long", "x": 3}, "proc1", "tl", "/raw/3")
    pool.submit([*tasks(2), long])
    found = reports(collect(pool, lambda events: len(reports(events)) == 3))
    assert all(report.ok for report in found), [report.reason for report in found]


def test_many_births_and_deaths_leave_no_descriptor_open(hostile: Callable[..., Pool]) -> None:
    pool = hostile("exits")
    run(pool)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        run(pool)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
