"""Hosts whose clocks are hours apart, and a clock that is set while everything works: nothing twice, nothing stuck.

With Debian's libfaketime, which gives one process a time of day of its own; the steady clocks stay as they are, as when
a real clock is set.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.explain import Explanation
from orchestrator.facts import explained, gather
from orchestrator.takers import takers

LIBRARY = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)
pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(LIBRARY is None, reason="needs Debian's library of false clocks: apt-get install libfaketime"),
]

#: The second step fails in passing once for each document, and is tried again.
STEPS = '''
import os, select
def mark(document, work):
    select.select([], [], [], work.settings["seconds"])  # the library breaks the other way to sleep
    path = work.output_path("effects")
    line = f"{document['_id']} {work.settings['step']} {work.attempt}\\n".encode()
    failed = work.output_path("failed-" + document["_id"])
    if work.settings["step"] == 1 and not failed.exists():
        failed.touch()
        raise OSError(5, "in passing")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, line)
    os.close(descriptor)
    return {}
'''


def false_clock(by: str = "", file: Path | None = None) -> dict[str, str]:
    """The environment of a process whose time of day is false: by so much, or by what a file says at the moment."""
    environment = {"LD_PRELOAD": str(LIBRARY), "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1",
                   "FAKETIME_DONT_RESET": "1"}  # fmt: skip
    if file is not None:
        return {**environment, "FAKETIME_TIMESTAMP_FILE": str(file), "FAKETIME_NO_CACHE": "1"}
    return {**environment, "FAKETIME": by}


def poller(site: Any, name: str, clock: dict[str, str], lease: float = 20.0) -> Any:
    """A poller as on a machine of its own. ``lease`` in s: on a busy machine a short one runs out honestly."""
    return site.start("poll", "--set", f"spool={site.folder / name}", "--set", f"lease={lease}", environment=clock)


def make(make_site: Callable[..., Any], seconds: float) -> Any:
    site = make_site(seconds=seconds, steps=2, more=", retries: {count: 3, wait: 0.5 s}, time_limit: 20 s")
    (site.folder / "sitesteps.py").write_text(STEPS)
    return site


def check(site: Any, count: int) -> None:
    found = site.everything()
    assert Counter(d["status"] for d in found.values()) == {"good": count}
    effects = Counter((name, step) for name, step, _ in site.effects())
    assert len(effects) == 2 * count and set(effects.values()) == {1}, "an attempt that lived was taken from its poller"
    rows = site.database.all_docs(startkey="attempt:", endkey="attempt;", include_docs=True)
    records = Counter(row.doc["state"] for row in rows if row.doc)
    assert records == {"failed": count}, "the failures that the step makes, and nothing lost"


def explanation(site: Any) -> Explanation:
    """Why the first document does not go on: the one in progress, if there is one."""
    found = sorted(site.everything().values(), key=lambda one: "in progress" not in one["status"])[0]
    return explained(site.database, site.chain, found, "here", 20.0, time.time())


def test_pollers_whose_clocks_are_hours_apart_leave_each_other_alone(make_site: Callable[..., Any]) -> None:
    site = make(make_site, 0.4)
    for name, by in (("ahead", "+2h"), ("behind", "-2h"), ("right", "")):
        poller(site, name, false_clock(by) if by else {})
    site.wait(lambda: len(site.database.local_docs("poller:", "poller:\uffff")) == 3, 20, "the pollers' heartbeats")
    site.add(24)
    document = site.everything()[min(site.everything())]
    seen = takers(site.chain.steps[0], gather(site.database, site.chain, document, "here", 20.0, time.time()))
    assert [one.alive for one in seen] == [True] * 3, seen
    assert sorted(round(one.ahead / 3600) for one in seen) == [-2, 0, 2]
    site.wait(site.finished, 60)
    check(site, 24)
    dates = {d["proc0"]["finished"][:13] for d in site.everything().values()}
    assert len(dates) >= 2, "more than one of the clocks was at work"


def test_what_a_dead_poller_with_a_false_clock_held_is_taken_over(make_site: Callable[..., Any]) -> None:
    site = make(make_site, 1.0)
    ahead = poller(site, "ahead", false_clock("+2h"), 3.0)
    site.add(2)
    site.wait(lambda: any(d["status"] == "proc 0 in progress" for d in site.everything().values()), 20, "a claim")
    assert explanation(site).cause == "running"
    os.kill(ahead.pid, signal.SIGKILL)
    site.wait(lambda: explanation(site).cause == "poller-lost", 20, "the end of a lease, though its clock is ahead")
    poller(site, "behind", false_clock("-2h"), 3.0)
    site.wait(site.finished, 60)
    assert Counter(d["status"] for d in site.everything().values()) == {"good": 2}


def test_a_clock_that_is_set_while_a_poller_works_ends_and_delays_nothing(
    make_site: Callable[..., Any], tmp_path: Path
) -> None:
    site, clock = make(make_site, 0.3), tmp_path / "clock"
    clock.write_text("+0")
    for name in ("one", "two"):
        poller(site, name, false_clock(file=clock))
    for turn, by in enumerate(("+2h", "-3h", "+0")):
        site.add_more(turn, 8)
        time.sleep(1.5)
        beside = clock.with_suffix(".new")
        beside.write_text(by)
        beside.replace(clock)
        time.sleep(1.5)
    site.wait(site.finished, 60)
    check(site, 24)
