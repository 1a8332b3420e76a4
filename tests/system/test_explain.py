"""Documents that do not go on, with real daemons, database and batch system: the true cause of each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import orchestrator
from orchestrator import chain as chains
from orchestrator import designs
from orchestrator.control import PAUSE, Scope
from orchestrator.couch import deploy
from orchestrator.engine import controls
from orchestrator.engine.operations import Desk
from orchestrator.explain import Explanation
from orchestrator.facts import explained
from orchestrator.people import Order
from orchestrator.schedulers.fsched import PROGRAM
from orchestrator.selection import Selection

pytestmark = pytest.mark.system
CODE = Path(orchestrator.__file__).parent.parent
LEASE = 6.0  # s; that of the site's settings
STEPS = """
import time
from orchestrator.errors import DataError
def step(document, work):
    what = document.get("do")
    if what == "sleep":
        time.sleep(600)
    if what == "data":
        raise DataError("the header is upside down")
    if what == "disk":
        raise OSError("no space left")
    return {}
"""
CHAIN = """
name: why
sites: {here: {}, lyon: {}}
farms:
  centre:
    scheduler: fsched
    spool: %(folder)s/far
    every: 0.5
    environment: %(where)s
    path: [%(code)s]
steps:
  - {name: look, run: "whysteps:step", retries: {count: 3, wait: 1 h, on: [transient]}}
  - {name: far, run: "whysteps:step", executor: farm, farm: centre, needs: []}
  - {name: there, run: "whysteps:step", site: lyon, needs: [look]}
"""


class Asking:
    """A site, and the question."""

    def __init__(self, site: Any) -> None:
        self.site = site
        self.queue = site.folder / "queue"
        self.queue.mkdir()
        self.environment = {"FSCHED_DIR": str(self.queue), "FSCHED_SLOTS": "1"}
        (site.folder / "whysteps.py").write_text(STEPS)
        text = CHAIN % {"folder": site.folder, "where": json.dumps(self.environment), "code": CODE}
        (site.folder / "chain.yaml").write_text(text)
        site.chain = chains.loads(text)
        deploy.push(site.database, designs.build(site.chain))
        self.desk = Desk(site.database, site.chain, "here", site.folder / "data")

    def add(self, name: str, **more: Any) -> None:
        base = {"_id": name, "type": "daqdocument", "run_name": "r", "file_number": 0, "status": "closed"}
        self.site.database.put({**base, "file": f"/raw/{name}", **more})

    def do(self, what: str, name: str, **more: Any) -> None:
        done = self.desk.perform(Order(what, "ann", "tea", **more), [name], Selection(documents=(name,)))
        assert list(done.changed) == [name], done

    def why(self, name: str, step: str = "look", later: float = 0.0) -> Explanation:
        """The explanation; ``later``: as if asked so many seconds later, when nobody has beaten since."""
        document = self.site.database.get(name)
        now = time.time() + later
        return explained(self.site.database, self.site.chain, document, "here", LEASE, now, self.site.chain.step(step))

    def cause(self, name: str, step: str = "look", later: float = 0.0) -> str:
        return self.why(name, step, later).cause

    def until(self, cause: str, name: str, step: str = "look") -> Explanation:
        self.site.wait(lambda: self.cause(name, step) == cause, 40, f"{name} to be {cause}")
        return self.why(name, step)

    def fsched(self, *words: str) -> str:
        environment = {**os.environ, **self.environment}
        return subprocess.run([sys.executable, PROGRAM, *words], env=environment, capture_output=True, text=True).stdout


@pytest.fixture
def asking(make_site: Callable[..., Any]) -> Asking:
    return Asking(make_site())


def test_behind_a_long_attempt_and_when_its_poller_dies(asking: Asking) -> None:
    site = asking.site
    asking.add("long", do="sleep")
    daemon = site.start("poll", "--set", "workers=1")
    asking.until("running", "long")
    asking.add("behind")
    assert "1 attempts in hand" in asking.until("busy", "behind").sentence
    os.killpg(daemon.pid, signal.SIGKILL)
    daemon.wait()
    assert asking.cause("long", later=LEASE + 1) == "poller-lost"
    assert asking.cause("behind", later=LEASE + 1) == "poller-silent"
    words = [sys.executable, "-m", "orchestrator.cli", "explain", "long", "look"]
    environment = {**os.environ, "PYTHONPATH": str(CODE)}
    shown = subprocess.run(words, cwd=site.folder, capture_output=True, text=True, env=environment)
    assert shown.returncode == 0 and "long: proc 0 in progress" in shown.stdout, shown.stderr
    assert "[running]" in shown.stdout or "[poller-lost]" in shown.stdout


def test_at_a_site_with_a_poller(asking: Asking) -> None:
    site = asking.site
    for name, more in {
        "open": {"status": "open"}, "bad": {"status": "bad", "reason": "no header"},
        "data": {"do": "data"}, "disk": {"do": "disk"}, "held": {}, "plain": {}, "paused": {},
        "moved": {"status": "good", "look": {}, "proc0": {"step": "peek", "state": "odd"}},
    }.items():  # fmt: skip
        asking.add(name, **more)
    site.database.put({"_id": "tar", "type": "attempt", "status": "closed"})
    assert asking.cause("plain") == "no-poller"
    asking.do("hold", "held")
    controls.stop(site.database, site.chain, "here", Scope("step", "look"), PAUSE, by="bob", reason="power cut")
    daemon = site.start("poll", "--set", "workers=1")
    site.wait(lambda: asking.why("plain").takers != [], 20, "a heartbeat")
    paused = asking.why("plain")
    assert paused.cause == "paused" and "bob" in paused.sentence and "power cut" in paused.sentence
    assert asking.cause("held") == "hold"
    controls.resume(site.database, "here", None, by="bob")
    assert "upside down" in asking.until("failed", "data").sentence
    assert "no space left" in asking.until("retry", "disk").sentence
    assert asking.why("disk").attempts[0]["error_class"] == "transient"
    assert asking.until("through", "plain").owner == "proc0 (look) belongs to site here"
    assert asking.cause("plain", "there") == "other-site"
    assert asking.cause("data", "there") == "failed"
    assert asking.cause("held", "there") == "needs"
    assert asking.why("held", "there").because.cause == "hold"  # type: ignore[union-attr]
    assert (asking.cause("open"), asking.cause("bad"), asking.cause("tar")) == ("open", "bad", "wrong-type")
    assert asking.cause("moved") == "chain-changed"
    asking.do("abandon", "disk")
    assert asking.cause("disk") == "given-up"
    os.killpg(daemon.pid, signal.SIGKILL)
    daemon.wait()
    other = chains.loads("name: other\nsteps: [{name: x, run: 'x:y'}, {name: y, run: 'x:y', needs: [x]}]")
    deploy.push(site.database, designs.build(other))
    asking.add("late")
    assert asking.cause("late", "far") == "chain-changed"


def test_at_a_site_with_a_farm(asking: Asking) -> None:
    site = asking.site
    asking.add("first", do="sleep", proc0={"step": "look", "state": "done"}, status="good")
    assert asking.cause("first", "far") == "no-poller"
    daemon = site.start("farm", "centre")
    try:
        assert "batch job" in asking.until("running", "first", "far").sentence
        asking.add("second", proc0={"step": "look", "state": "done"}, status="good")
        waiting = asking.until("queued", "second", "far")
        number = site.database.get("second")["batchjob"][-1]["number"]
        assert number in waiting.sentence
        site.wait(lambda: any("queued" in note for note in asking.why("second", "far").notes), 20, "the farm's word")
        asking.fsched("hold", number)
        assert "held by hand" in asking.until("job-held", "second", "far").sentence
        aside = asking.queue.with_name("aside")
        asking.queue.rename(aside)
        asking.queue.write_text("in the way")
        assert "cannot be asked" in asking.until("farm-away", "second", "far").sentence
        asking.add("third", proc0={"step": "look", "state": "done"}, status="good")
        asking.queue.unlink()
        aside.rename(asking.queue)
        asking.until("job-held", "second", "far")
        os.killpg(daemon.pid, signal.SIGKILL)
        daemon.wait()
        assert asking.cause("second", "far", later=LEASE + 1) == "farm-silent"
        asking.add("fourth", proc0={"step": "look", "state": "done"}, status="good")
        assert asking.cause("fourth", "far", later=LEASE + 1) == "poller-silent"
    finally:
        asking.fsched("stop")
