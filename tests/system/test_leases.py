"""Claims over several machines: a poller that cannot renew its claims stops its workers before others take over."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.system

#: Says when it begins and when it has done its work, and whether another that began before it is still alive.
STEPS = """
import os, time

def mark(document, work):
    book = work.output / "book"
    me = f"{document['_id']} {work.attempt} {os.getpid()}"
    earlier = book.read_text().splitlines() if book.exists() else []
    begun = [line.split() for line in earlier if line.startswith("begin " + document["_id"] + " ")]
    for _, _, _, pid in begun:
        try:
            state = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            continue
        if state not in "ZX":
            with open(book, "a") as file:
                file.write(f"overlap {me}\\n")
    with open(book, "a") as file:
        file.write(f"begin {me}\\n")
    end = time.monotonic() + work.settings["seconds"]
    while time.monotonic() < end:
        time.sleep(0.05)
    with open(book, "a") as file:
        file.write(f"end {me}\\n")
    return {}
"""


def elsewhere(site: Any, name: str) -> Any:
    """A poller as on another machine: it shares the database and the data, and nothing of the spool."""
    return site.start("poll", "--set", f"spool={site.folder / name}", "--set", "lease=3", "--set", "workers=1")


def book(site: Any) -> Counter[str]:
    path = Path(site.folder / "data" / "book")
    return Counter(line.split()[0] for line in path.read_text().splitlines()) if path.exists() else Counter()


def beating(site: Any) -> int:
    return len(site.database.local_docs("poller:", "poller:\uffff"))


@pytest.fixture
def two(make_site: Callable[..., Any]) -> tuple[Any, Any, Any]:
    """A site with two pollers that know of each other by heartbeat alone; the first has begun the only document."""
    site = make_site(seconds=6.0, steps=1, more=", retries: {count: 0}")
    (site.folder / "sitesteps.py").write_text(STEPS)
    first = elsewhere(site, "one")
    site.wait(lambda: beating(site) == 1, 20, "the first poller's heartbeat")
    second = elsewhere(site, "two")
    site.wait(lambda: beating(site) == 2, 20, "the second poller's heartbeat")
    time.sleep(1.0)  # each has looked at the other
    os.kill(second.pid, signal.SIGSTOP)
    site.add(1)
    site.wait(lambda: book(site)["begin"] == 1, 20, "the step to begin")
    os.kill(second.pid, signal.SIGCONT)
    return site, first, second


def check(site: Any) -> None:
    site.wait(site.finished, 40)
    assert site.everything()["r000_000"]["status"] == "good"
    said = book(site)
    assert said["overlap"] == 0, "the second attempt began while the first one was at work"
    assert (said["begin"], said["end"]) == (2, 1)
    record = site.database.get("attempt:r000_000:proc0:1")
    assert record["state"] == "lost", "a loss, which uses up no retry"


def test_a_poller_that_hangs_longer_than_its_lease_has_stopped_its_workers(two: tuple[Any, Any, Any]) -> None:
    site, first, _ = two
    os.kill(first.pid, signal.SIGSTOP)
    site.wait(lambda: book(site)["begin"] == 2, 30, "the second poller to take over")
    os.kill(first.pid, signal.SIGCONT)
    check(site)
    site.add_more(1, 2)
    site.wait(lambda: site.finished() and len(site.everything()) == 3, 40)
    assert first.poll() is None, "it goes on working"


def test_its_workers_are_stopped_before_the_lease_is_over(two: tuple[Any, Any, Any]) -> None:
    site, first, _ = two
    children = psutil.Process(first.pid).children()
    workers = [child for child in children if "orchestrator.worker" in " ".join(child.cmdline())]
    os.kill(first.pid, signal.SIGSTOP)
    time.sleep(2.6)  # beyond three quarters of the lease, before its end
    assert workers and all(one.status() == psutil.STATUS_ZOMBIE for one in workers)
    os.kill(first.pid, signal.SIGCONT)
    check(site)


def test_where_nobody_else_watches_a_database_that_is_away_ends_no_step(make_site: Callable[..., Any]) -> None:
    site = make_site(seconds=6.0, steps=1, more=", retries: {count: 0}")
    (site.folder / "sitesteps.py").write_text(STEPS)
    site.add(1)
    elsewhere(site, "one")
    site.wait(lambda: book(site)["begin"] == 1, 20, "the step to begin")
    site.server.kill()
    time.sleep(4.0)
    site.server.restart()
    site.wait(site.finished, 40)
    assert (book(site)["begin"], book(site)["end"]) == (1, 1)
