"""The pool, with real worker processes: reports, limits, crashes, and nothing begun twice."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator import chain as chains
from orchestrator.documents import Report
from orchestrator.executors.events import BatchDone, Event, Progressed, Returned
from orchestrator.executors.pool import Pool
from orchestrator.executors.spool import Spool, read_reports
from orchestrator.runner import Places, Task

STEPS = """
import os, pathlib, signal, subprocess, sys, time
from orchestrator.errors import DataError

def plain(document, work):
    return {"twice": 2 * document["x"], "input": str(work.input), "pid": os.getpid()}

def noisy(document, work):
    print("printed"); os.write(2, b"written\\n"); work.log.info("logged"); subprocess.run(["echo", "echoed"])
    (work.directory / "scratch").write_text("x")
    work.progress(0.5, "half")
    return {}

def slow(document, work):
    time.sleep(60)

def naps(document, work):
    time.sleep(document["x"])
    return {}

def greedy(document, work):
    kept = bytearray(300_000_000); time.sleep(60); return {"n": len(kept)}

def crash(document, work):
    os.kill(os.getpid(), signal.SIGSEGV)

def leave(document, work):
    os._exit(7)

def wrong(document, work):
    raise DataError("the header is cut")

def bug(document, work):
    return {}["missing"]

def infinite(document, work):
    return {"x": float("inf")}

def surroundings(document, work):
    return {"environment": dict(os.environ)}

class Once:
    def __init__(self, settings, log):
        self.count = 0
        self.folder = pathlib.Path(settings["folder"])
        (self.folder / f"born-{os.getpid()}").touch()
    def process(self, document, work):
        self.count += 1
        return {"count": self.count}
    def close(self):
        (self.folder / f"dead-{os.getpid()}").touch()
"""


@pytest.fixture
def make_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Pool]]:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "poolsteps.py").write_text(STEPS)
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    made: list[tuple[Pool, Spool]] = []

    def make(*steps: str, size: int = 1, cost: float = 0.001) -> Pool:
        chain = chains.loads("name: t\nsteps:\n" + "".join(f"  - {step}\n" for step in steps))
        spool = Spool(tmp_path / "spool", "p")
        places = Places(tmp_path / "out", tmp_path / "scratch", tmp_path / "logs")
        pool = Pool(chain, places, spool, size, name="p", cost=lambda key: cost, depth=0.25)
        made.append((pool, spool))
        return pool

    yield make
    for pool, spool in made:
        if not pool._closing:
            pool.close()
        spool.close()


def tasks(count: int, step: str = "proc0") -> list[Task]:
    return [Task({"_id": f"d{n}", "x": n}, step, f"t{n}", f"/raw/{n}") for n in range(count)]


def collect(pool: Pool, enough: Callable[[list[Event]], bool], seconds: float = 30.0) -> list[Event]:
    events: list[Event] = []
    end = time.monotonic() + seconds
    while not enough(events):
        assert time.monotonic() < end, f"only {events}"
        events += pool.events(0.5)
    return events


def reports(events: list[Event]) -> list[Report]:
    return [event for event in events if isinstance(event, Report)]


def run(pool: Pool, count: int = 1) -> list[Report]:
    pool.submit(tasks(count))
    return reports(
        collect(pool, lambda events: sum(len(e.attempts) for e in events if isinstance(e, BatchDone)) == count)
    )


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


def test_many_births_and_deaths_leave_no_descriptor_open(hostile: Callable[..., Pool]) -> None:
    pool = hostile("exits")
    run(pool)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        run(pool)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


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
