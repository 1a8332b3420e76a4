"""The supervisor: order, restarts, back-off, giving up, stopping, and what real processes do to it."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from orchestrator.errors import Conflict, Unavailable
from orchestrator.runtime import Lock, end_leftovers, last_words, read_status, turn_over
from orchestrator.supervise import LONGEST_WAIT, Spec, Supervisor


class FakeProcess:
    """A process that lives until a test gives it an exit code."""

    numbers = iter(range(10**9, 2 * 10**9))  # no such process: signals go nowhere

    def __init__(self) -> None:
        self.pid = next(self.numbers)
        self.code: int | None = None

    def poll(self) -> int | None:
        return self.code


class World:
    """Starts fake processes and remembers them by name."""

    def __init__(self) -> None:
        self.started: list[tuple[str, FakeProcess]] = []

    def start(self, spec: Spec, log: Path) -> FakeProcess:
        process = FakeProcess()
        self.started.append((spec.name, process))
        return process

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.started]

    def last(self, name: str) -> FakeProcess:
        return next(process for found, process in reversed(self.started) if found == name)


def supervisor(folder: Path, world: World, *specs: Spec) -> Supervisor:
    return Supervisor(specs, logs=folder / "logs", runtime=folder / "run", drain=30, start=world.start)


def test_others_wait_until_the_database_is_ready(tmp_path: Path) -> None:
    answers = iter([False, True])
    done: list[str] = []
    world = World()
    database = Spec("database", ("db",), ready=lambda: next(answers), prepare=lambda: done.append("pushed"))
    it = supervisor(tmp_path, world, database, Spec("poller", ("p",)))
    it.tick(0)
    it.tick(1)
    assert world.names == ["database"]
    it.tick(2)
    assert world.names == ["database", "poller"]
    assert done == ["pushed"]
    assert it.ready


def test_a_passing_fault_while_preparing_is_tried_again(tmp_path: Path) -> None:
    faults: list[Exception] = [Unavailable("gone")]

    def prepare() -> None:
        if faults:
            raise faults.pop()

    world = World()
    it = supervisor(tmp_path, world, Spec("database", ("db",), ready=lambda: True, prepare=prepare))
    it.tick(0)
    it.tick(1)
    assert not it.ready
    it.tick(2)
    assert it.ready


def test_only_the_one_that_died_is_started_again(tmp_path: Path) -> None:
    world = World()
    it = supervisor(tmp_path, world, Spec("a", ("a",)), Spec("b", ("b",)))
    it.tick(0)
    world.last("a").code = -signal.SIGKILL
    it.tick(1)
    it.tick(1.4)
    assert world.names == ["a", "b"]
    it.tick(1.5)
    assert world.names == ["a", "b", "a"]
    assert it.child("a").restarts == 1
    assert "killed by SIGKILL" in it.news[0]


def test_the_wait_doubles_and_is_forgotten_after_a_long_life(tmp_path: Path) -> None:
    world = World()
    it = supervisor(tmp_path, world, Spec("a", ("a",)))
    now, waits = 0.0, []
    for _ in range(9):
        it.tick(now)
        world.last("a").code = 1
        it.tick(now)
        waits.append(it.child("a").not_before - now)
        now = it.child("a").not_before
    assert waits[:4] == [0.5, 1, 2, 4]
    assert max(waits) == LONGEST_WAIT
    it.tick(now)
    world.last("a").code = 1
    it.tick(now + 61)
    assert it.child("a").not_before == now + 61 + 0.5


def test_what_no_restart_can_mend_is_given_up(tmp_path: Path) -> None:
    world = World()
    it = supervisor(tmp_path, world, Spec("a", ("a",)), Spec("b", ("b",)))
    it.tick(0)
    (tmp_path / "logs" / "a.log").write_text("orchestrator: the login was refused\n")
    world.last("a").code = 5
    it.tick(1)
    it.tick(1000)
    assert world.names == ["a", "b"]
    assert it.child("a").state == "given up"
    assert "the login was refused" in it.child("a").ended


def test_work_that_ends_well_is_not_started_again(tmp_path: Path) -> None:
    world = World()
    it = supervisor(tmp_path, world, Spec("daq", ("d",), once=True))
    it.tick(0)
    world.last("daq").code = 0
    it.tick(1)
    it.tick(100)
    assert world.names == ["daq"]
    assert it.child("daq").state == "finished"
    assert it.ready


def test_the_database_stops_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    monkeypatch.setattr("orchestrator.supervise.send", lambda pid, number: sent.append(pid))
    world = World()
    it = supervisor(tmp_path, world, Spec("database", ("db",), last=True), Spec("poller", ("p",)))
    it.tick(0)
    it.stop(1)
    it.tick(2)
    assert sent == [world.last("poller").pid]
    world.last("poller").code = 0
    it.tick(3)
    assert sent == [world.last("poller").pid, world.last("database").pid]
    assert not it.over
    world.last("database").code = 0
    it.tick(4)
    assert it.over


def test_who_will_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[int] = []
    monkeypatch.setattr("orchestrator.supervise.end_group", killed.append)
    world = World()
    it = supervisor(tmp_path, world, Spec("poller", ("p",)))
    it.tick(0)
    it.stop(1)
    it.tick(40)
    assert killed == []
    it.tick(41)
    assert killed == [world.last("poller").pid]


def test_a_program_that_is_not_there_is_said(tmp_path: Path) -> None:
    runtime = tmp_path / "run"
    it = Supervisor([Spec("a", (str(tmp_path / "missing"),))], logs=tmp_path / "logs", runtime=runtime, drain=1)
    it.tick(0)
    status = read_status(runtime)
    assert status is not None
    assert "could not be started" in status["children"][0]["ended"]


def test_a_full_disk_does_not_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    world = World()
    it = supervisor(tmp_path, world, Spec("a", ("a",)))
    with monkeypatch.context() as patch:
        patch.setattr("orchestrator.supervise.write_atomically", full)
        it.tick(0)
    assert it.ready
    it.tick(1)
    assert read_status(tmp_path / "run") is not None


# -- real processes

CHILD = """
import os, sys, time
from orchestrator.supervise import die_with
die_with(int(sys.argv[1]))
print("armed", flush=True)
time.sleep(300)
"""
PARENT = f"""
import os, subprocess, sys, time
words = [sys.executable, "-c", {CHILD!r}, str(os.getpid())]
child = subprocess.Popen(words, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(300)
"""


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_children_end_with_a_killed_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert wait_for(lambda: not _lives(child))


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_kill_minus_nine_of_a_real_child(tmp_path: Path) -> None:
    specs = [Spec(name, (sys.executable, "-c", "import time; time.sleep(300)")) for name in ("a", "b")]
    it = Supervisor(specs, logs=tmp_path / "logs", runtime=tmp_path / "run", drain=1)
    it.tick(0)
    first = {child.spec.name: child.process.pid for child in it.children if child.process}
    os.kill(first["a"], signal.SIGKILL)

    def restarted() -> bool:
        it.tick(time.monotonic())
        return it.child("a").restarts == 1 and it.child("a").process is not None

    try:
        assert wait_for(restarted)
        second = {child.spec.name: child.process.pid for child in it.children if child.process}
        assert second["a"] != first["a"]
        assert second["b"] == first["b"]
    finally:
        it.stop(0)
        assert wait_for(lambda: it.tick(time.monotonic()) or it.over)
    assert not _lives(second["a"]) and not _lives(second["b"])


def test_leftovers_are_ended_and_strangers_are_not(tmp_path: Path) -> None:
    runtime = tmp_path / "run"
    it = Supervisor(
        [Spec(name, (sys.executable, "-c", "import time; time.sleep(300)")) for name in ("mine", "stranger")],
        logs=tmp_path / "logs",
        runtime=runtime,
        drain=1,
    )
    it.tick(0)
    it.child("stranger").created -= 100  # as if the number had belonged to another process
    it.tick(0)
    mine, stranger = (it.child(name).process for name in ("mine", "stranger"))
    assert mine is not None and stranger is not None
    try:
        assert end_leftovers(runtime) == ["mine"]
        assert mine.poll() is not None
        assert stranger.poll() is None
    finally:
        for process in (mine, stranger):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
            process.wait()  # type: ignore[attr-defined]


# -- files


def test_the_lock_admits_one(tmp_path: Path) -> None:
    first, second = Lock(tmp_path / "run"), Lock(tmp_path / "run")
    assert first.holder() is None
    first.take()
    assert second.holder() == os.getpid()
    with pytest.raises(Conflict, match=f"already up .process {os.getpid()}."):
        second.take()
    first.release()
    second.take()
    second.release()


def test_logs_are_turned_over(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    with log.open("ab", buffering=0) as writer:
        for number in range(8):
            writer.write(b"%d" % number * 100)
            turn_over(log, 50)
        writer.write(b"end\n")
    assert log.read_bytes() == b"end\n"
    assert (tmp_path / "a.log.1").read_bytes() == b"7" * 100
    assert (tmp_path / "a.log.5").read_bytes() == b"3" * 100
    assert not (tmp_path / "a.log.6").exists()


def test_last_words(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("one\ntwo \n\n")
    assert last_words(tmp_path / "a.log") == ": two"
    assert last_words(tmp_path / "none.log") == ""
