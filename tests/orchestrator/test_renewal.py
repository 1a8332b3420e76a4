"""The guard of a poller's claims: real processes, ended when no beat was written in time, and not before."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from orchestrator.renewal import HELD_FOR, Renewal, boottime


@pytest.fixture
def worker() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def renewal() -> Iterator[Renewal]:
    made = Renewal("p", lease=2.0 / HELD_FOR, watched=True)
    yield made
    made.close()


def test_workers_end_when_no_beat_comes_and_live_while_beats_come(
    renewal: Renewal, worker: subprocess.Popen[bytes]
) -> None:
    end = time.monotonic() + 3.0
    while time.monotonic() < end:
        renewal.renewed(boottime())
        renewal.tell([worker.pid])
        time.sleep(0.2)
    assert worker.poll() is None and not renewal.expired()
    assert worker.wait(30) == -9
    assert renewal.expired()


def test_where_nobody_watches_nothing_is_ended(renewal: Renewal, worker: subprocess.Popen[bytes]) -> None:
    renewal.renewed(boottime() - 100)
    renewal.watched = False
    renewal.tell([worker.pid])
    assert not renewal.expired()
    with pytest.raises(subprocess.TimeoutExpired):
        worker.wait(1.0)


def test_a_guard_that_was_killed_is_made_again(renewal: Renewal, worker: subprocess.Popen[bytes]) -> None:
    renewal.renewed(boottime())
    renewal.tell([worker.pid])
    assert renewal._guard is not None
    renewal._guard.kill()
    renewal._guard.wait()
    renewal.renewed(boottime() - 100)
    renewal.tell([worker.pid])
    assert worker.wait(30) == -9


def test_what_was_let_go_of_is_known() -> None:
    made = Renewal("p", lease=1.0, watched=True)
    made.renewed(boottime() - 5)
    assert made.expired()
    made.let_go(["a", "b"])
    assert made.void == {"a", "b"} and not made.expired(), "once; the next beat begins anew"
