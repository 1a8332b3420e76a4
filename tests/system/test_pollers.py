"""Pollers as users run them: several at once, killed at any time, with the database killed under them."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from orchestrator import documents

pytestmark = pytest.mark.system


def check_complete(site: Any, count: int) -> None:
    """Every document is through, and what is recorded is what lies on the disk."""
    found = site.everything()
    assert len(found) == count
    wrong = {name: d["status"] for name, d in found.items() if not documents.complete(site.chain, d)}
    assert not wrong
    for name, document in found.items():
        if document["status"] != "good":
            continue
        for step in site.chain.steps:
            entry = document[step.key]
            assert entry["state"] == "done", f"{name} {step.key}"
            assert (site.folder / "data" / "out" / f"{name}.{step.number}").is_file()
    leftovers = list((site.folder / "data" / "out").glob(".*.part"))
    assert len(leftovers) <= 64, "temporary outputs pile up"


def test_two_pollers_do_each_step_of_each_document_once(make_site: Callable[..., Any]) -> None:
    site = make_site()
    site.add(2000)
    for _ in range(2):
        site.start("poll")
    site.wait(site.finished, 180)
    check_complete(site, 2000)
    effects = Counter((name, step) for name, step, _ in site.effects())
    assert len(effects) == 6000
    assert set(effects.values()) == {1}
    recorded = {(name, step, attempt) for name, d in site.everything().items() for step, attempt in attempts(d)}
    assert recorded == set(site.effects())
    pollers = Counter(d["proc0"]["poller"] for d in site.everything().values())
    assert len(pollers) == 2, "both had a share"


def attempts(document: dict[str, Any]) -> list[tuple[str, str]]:
    return [(key[4:], value["attempt"]) for key, value in document.items() if key.startswith("proc")]


def test_documents_registered_while_pollers_run_ring_at_once(make_site: Callable[..., Any]) -> None:
    site = make_site()
    site.start("poll")
    site.wait(lambda: bool(site.database.local_docs("poller:", "poller:\uffff")), 30, "the poller's heartbeat")
    time.sleep(1.0)
    began = time.monotonic()
    site.add(1)
    site.wait(site.finished, 20)
    assert time.monotonic() - began < 4.0, "the sweep is every 5 s: the feed must have rung"


def test_killed_pollers_and_workers_lose_nothing(make_site: Callable[..., Any]) -> None:
    site = make_site(seconds=0.02, more=", retries: {wait: 0.5 s}")
    site.add(600)
    dice = random.Random(7)
    running = [site.start("poll") for _ in range(2)]
    end = time.monotonic() + 12.0
    while time.monotonic() < end:
        time.sleep(dice.uniform(0.5, 1.5))
        place = dice.randrange(2)
        victim = psutil.Process(running[place].pid)
        if dice.random() < 0.4:
            for worker in victim.children()[:1]:
                worker.kill()
        else:
            os.kill(victim.pid, signal.SIGKILL)
            running[place].wait()
            running[place] = site.start("poll")
    site.wait(site.finished, 120)
    check_complete(site, 600)
    failed = [d for d in site.everything().values() if d["status"] == "failed"]
    assert not failed, failed[:2]


def test_the_database_killed_under_a_poller_fails_nothing(make_site: Callable[..., Any]) -> None:
    site = make_site(seconds=0.01)
    site.add(400)
    site.start("poll")
    for _ in range(3):
        time.sleep(1.5)
        site.server.kill()
        time.sleep(1.0)
        site.server.restart()
    site.wait(site.finished, 120)
    check_complete(site, 400)
    assert all(d["status"] == "good" for d in site.everything().values())
    effects = Counter((name, step) for name, step, _ in site.effects())
    assert set(effects.values()) == {1}, "a database that is away is no reason to do anything twice"


def test_sigterm_lets_a_running_step_end_and_gives_the_rest_back(make_site: Callable[..., Any]) -> None:
    site = make_site(seconds=1.5, steps=1)
    site.add(6)
    poller = site.start("poll")
    site.wait(lambda: len(site.database.view("work/inprogress", reduce=False).rows) > 0, 30, "a claim")
    time.sleep(0.3)
    poller.send_signal(signal.SIGTERM)
    assert poller.wait(timeout=15) == 0
    found = site.everything()
    states = Counter(d["status"] for d in found.values())
    assert set(states) == {"good", "closed"}, states
    assert len(site.effects()) == states["good"], "what was begun was finished, and recorded"
    assert not list((site.folder / "spool" / "pollers").iterdir())
    site.start("poll")
    site.wait(site.finished, 60)
    check_complete(site, 6)


def test_a_poller_that_was_killed_is_found_out_at_once_on_its_own_machine(make_site: Callable[..., Any]) -> None:
    site = make_site(seconds=30.0, steps=1)
    site.add(1)
    poller = site.start("poll")
    site.wait(lambda: len(site.database.view("work/inprogress", reduce=False).rows) > 0, 30, "a claim")
    os.kill(poller.pid, signal.SIGKILL)
    poller.wait()
    first = site.everything()["r000_000"]["proc0"]["attempt"]
    site.start("poll")
    site.wait(
        lambda: site.everything()["r000_000"].get("proc0", {}).get("attempt") not in (None, first), 5, "a new claim"
    )
    record = site.database.get("attempt:r000_000:proc0:1")
    assert record["state"] == "lost"
    assert "is no more" in record["reason"]
