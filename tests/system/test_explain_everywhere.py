"""Situations that keep a document from running, made with real daemons: command line and page name the true cause."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

import orchestrator
from orchestrator import chain as chains
from orchestrator import designs, documents
from orchestrator.cli import main
from orchestrator.couch import deploy
from orchestrator.schedulers.fsched import PROGRAM
from orchestrator.web import create_app
from orchestrator.web.operations import Acting
from tests.system.test_disk_full import fill, small_disk  # noqa: F401 - a fixture of its neighbour

pytestmark = pytest.mark.system
CODE = Path(orchestrator.__file__).parent.parent
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
    return {"n": 7 if what == "odd" else 1}
"""
CHAIN = """
name: why
sites: {here: {}, lyon: {}}
farms:
  centre:
    scheduler: fsched
    spool: %(folder)s/far
    every: 0.3
    environment: %(where)s
    path: [%(code)s]
    limits: {jobs: 1}
steps:
  - name: look
    run: "everywhere:step"
    retries: {count: 3, wait: 1 h, on: [transient]}
    gates: [{name: few, value: n, max: 5}]
  - {name: far, run: "everywhere:step", executor: farm, farm: centre, needs: []}
  - {name: there, run: "everywhere:step", site: lyon, needs: [look]}
lanes:
  archive:
    steps:
      - {name: tape, executor: gather, needs: [look]}
      - {name: verify, run: "everywhere:step", needs: [tape]}
gathers:
  tars:
    type: tar
    after: [look]
    period: month
    settle: 0 s
    every: 0.3 s
    step: tape
    steps: [{name: bundle, run: "everywhere:step"}]
"""


class Both:
    """A site, asked by the command line and by the page."""

    def __init__(self, site: Any, capture: pytest.CaptureFixture[str]) -> None:
        self.site, self._capture = site, capture
        self.queue = site.folder / "queue"
        self.queue.mkdir()
        self.environment = {"FSCHED_DIR": str(self.queue), "FSCHED_SLOTS": "1"}
        (site.folder / "everywhere.py").write_text(STEPS)
        text = CHAIN % {"folder": site.folder, "where": json.dumps(self.environment), "code": CODE}
        (site.folder / "chain.yaml").write_text(text)
        self.chain = site.chain = chains.loads(text)
        deploy.push(site.database, designs.build(site.chain))
        acting = Acting("here", site.folder / "data", lease=6.0, spool=site.folder / "spool")
        app = create_app(lambda: site.database, chain=site.chain, live=False, acting=acting)
        self.page = TestClient(app, base_url="http://localhost")

    def add(self, name: str, **more: Any) -> None:
        raw = {"_id": name, "type": "daqdocument", "run_name": name, "file_number": 0, "status": "closed"}
        self.site.database.put({**raw, "file": f"/raw/{name}", "registered": documents.iso(time.time()), **more})

    def say(self, *words: str) -> str:
        self._capture.readouterr()
        assert main(["-C", str(self.site.folder), *words]) == 0, self._capture.readouterr().err
        return self._capture.readouterr().out

    def ask(self, name: str, branch: str = "", step: str = "") -> dict[str, Any]:
        """The command line's answer; that of the page must be the same where it can be asked so."""
        more = [*([step] if step else []), *(["--branch", branch] if branch else [])]
        told: dict[str, Any] = json.loads(self.say("explain", name, "--json", *more))
        if not step:
            self.page.app.state.source.forget()  # type: ignore[attr-defined]
            data = self.page.get(f"/api/documents/{name}").json()
            lanes = {lane["name"]: lane for lane in data["lanes"]}
            shown = lanes.get(branch, data)["explanation"]
            assert (shown["cause"], shown["step"], shown["next"]) == (told["cause"], told["step"], told["next"])
            text = self.page.get(f"/documents/{name}", headers={"Accept": "text/html"}).text
            assert "Why it is not further" in text
        return told

    def until(self, cause: str, name: str, branch: str = "", step: str = "") -> dict[str, Any]:
        end = time.monotonic() + 40
        while (told := self._cause(name, branch, step)) != cause:
            assert time.monotonic() < end, f"{name} is {told}, not {cause}"
            time.sleep(0.2)
        return self.ask(name, branch, step)

    def _cause(self, name: str, branch: str, step: str) -> str:
        more = [*([step] if step else []), *(["--branch", branch] if branch else [])]
        return str(json.loads(self.say("explain", name, "--json", *more))["cause"])


@pytest.fixture
def both(
    make_site: Callable[..., Any], capsys: pytest.CaptureFixture[str], tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Both]:
    if "full" in request.node.name:
        request.getfixturevalue("small_disk")(tmp_path / "database", 8000)
    made = Both(make_site(), capsys)
    yield made
    subprocess.run([sys.executable, PROGRAM, "stop"], env={**os.environ, **made.environment}, capture_output=True)


def kill(daemon: subprocess.Popen[bytes]) -> None:
    os.killpg(daemon.pid, signal.SIGKILL)
    daemon.wait()


def test_lanes_and_gathers_and_what_people_and_gates_have_stopped(both: Both) -> None:
    both.add("plain")
    assert both.ask("plain")["cause"] == "no-poller"
    assert both.ask("plain", "archive")["cause"] == "needs"
    both.add("held")
    both.say("hold", "held", "--reason", "tea")
    for name in ("data", "disk", "odd"):
        both.add(name, do=name)
    both.add("old", registered="2026-01-03T10:00:00.000Z")
    both.add("older", run_name="old", registered="2026-01-03T10:00:00.000Z", status="good", proc0={"state": "done"})
    poller = both.site.start("poll", "--set", "workers=1")
    refused = both.until("refused", "odd")
    assert "few" in refused["sentence"] and "orchestrator accept odd look" in refused["next"][0]
    assert "upside down" in both.until("failed", "data")["sentence"]
    assert "no space left" in both.until("retry", "disk")["sentence"]
    assert "tea" in both.until("hold", "held")["sentence"]
    kill(poller)
    lane = both.until("needs", "data", "archive")
    assert lane["because"]["cause"] == "failed" and "main_proc0 (look)" in lane["sentence"]
    assert "orchestrator gather" in both.until("no-poller", "plain", "archive")["next"][0]
    gathering = both.site.start("gather")
    waits = both.until("gather", "plain", "archive")
    assert "the gather tars" in waits["sentence"] and "is not over" in waits["sentence"]
    taken = both.until("gathered", "old", "archive")
    of = str(both.site.database.get("old")["archive_proc0"]["gathered"])
    assert taken["next"] == [f"orchestrator explain --branch tars {of}"]
    assert both.ask(of, "tars")["cause"] == "no-poller"
    assert both.ask("old", "archive", "verify")["cause"] == "gathered"
    both.add("late", run_name="plain", do="disk")
    assert "1 of the 2 documents of run plain are not ready" in both.until("gather", "plain", "archive")["sentence"]
    kill(gathering)
    assert both.ask("plain", step="there")["cause"] == "other-site"
    both.say("pause", "--step", "verify", "--reason", "the robot is ill")
    assert both.ask("plain", "archive")["cause"] in ("gather", "poller-silent")


def test_a_farm_at_its_limit_and_drained_and_pollers_that_are_busy_or_dead(both: Both) -> None:
    site = both.site
    for name in ("first", "second"):
        both.add(name, do="sleep", status="good", proc0={"step": "look", "state": "done"})
    farm = site.start("farm", "centre")
    site.wait(lambda: "proc1" in site.database.get("first") or "proc1" in site.database.get("second"), 30, "a job")
    waits = "second" if "proc1" in site.database.get("first") else "first"
    full = both.until("farm-full", waits)
    assert "limits allow" in full["sentence"]
    both.say("drain", "--farm", "centre", "--reason", "power cut")
    drained = both.until("paused", waits)
    assert "drained" in drained["sentence"] and "power cut" in drained["sentence"]
    assert drained["next"] == ["orchestrator resume --farm centre"]
    kill(farm)
    both.add("long", do="sleep", proc1={"step": "far", "state": "done"})
    poller = site.start("poll", "--set", "workers=1")
    both.until("running", "long")
    both.add("starved", priority=-5)
    both.add("sooner", priority=9)
    for number in range(2):
        both.add(f"usual{number}")
    busy = both.until("busy", "starved", step="look")
    assert any("3 documents are ready for proc0 before it" in note for note in busy["notes"]), busy["notes"]
    kill(poller)
    lost = both.until("poller-lost", "long")
    assert "start a poller" in lost["next"][0]
    assert both.until("poller-silent", "starved", step="look")["takers"][0]["alive"] is False


def test_a_poller_that_stopped_because_its_login_is_refused(both: Both) -> None:
    both.add("plain")
    wrong = both.site.folder / "wrong.json"
    wrong.write_text('{"username": "nobody", "password": "sesame-open"}')
    wrong.chmod(0o600)
    assert both.site.start("poll", "--set", f"credentials={wrong}").wait(60) != 0
    told = both.ask("plain")
    assert told["cause"] == "daemon-ended" and "refus" in told["sentence"] and "sesame" not in json.dumps(told)
    poller = both.site.start("poll")
    both.until("through", "plain", step="look")
    kill(poller)
    both.add("next")
    assert both.ask("next")["cause"] in ("soon", "busy", "poller-silent"), "an earlier word is not the cause any more"


def test_a_database_whose_disk_is_full(both: Both, tmp_path: Path) -> None:
    both.add("plain")
    taken = fill(tmp_path / "database")
    told = json.loads(both.say("explain", "plain", "--json"))
    assert told["cause"] == "database" and "full" in told["sentence"], told
    page = both.page.get("/documents/plain", headers={"Accept": "text/html"})
    assert page.status_code == 503 and "disk is full" in page.text
    taken.unlink()
    time.sleep(1.1)  # the page leaves a database alone for a second that has just failed
    assert both.until("no-poller", "plain")["cause"] == "no-poller"
