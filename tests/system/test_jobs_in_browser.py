"""The jobs' page in a real browser: what a person pauses appears without a reload, and nothing the policy refuses."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import uvicorn

from orchestrator import batchjobs, chain, designs, documents
from orchestrator.batchjobs import Place
from orchestrator.control import Scope
from orchestrator.couch import Credentials, Server, deploy
from orchestrator.documents import Claimant
from orchestrator.embedded.testing import EmbeddedServer
from orchestrator.engine import controls
from orchestrator.web import create_app
from orchestrator.web.serve import bind
from tests.browsers import chromium, expect, marks

pytestmark = marks
NAME = "orc-01234567-convert-00112233aa"


def test_a_pause_and_a_cancelled_job_appear_without_a_reload(tmp_path: Path) -> None:
    farmed = chain.loads(f"""
name: farmed
farms: {{centre: {{scheduler: slurm, spool: {tmp_path}/spool}}}}
steps: [{{name: convert, run: 'a.b:c', executor: farm, farm: centre, documents_per_job: 2}}]
""")
    (tmp_path / "spool" / "logs" / NAME).mkdir(parents=True)
    (tmp_path / "spool" / "logs" / NAME / "out-1").write_text("<b>working</b> at it\n")
    daemon, now = Claimant("farm:here:centre", "daq1", 1, "here"), time.time()
    found = []
    for number in range(12):
        name = f"ma22a000_{number:03d}"
        raw = {"_id": name, "type": "daqdocument", "status": "closed", "file": "/r", "run_name": "ma22a000"}
        place = Place("slurm", "centre", NAME if number < 8 else f"orc-01234567-convert-x{number}", 1 + number // 2)
        made = batchjobs.queue(raw, farmed.steps[0], daemon, f"a{number}", place, now - 900)
        made = batchjobs.submitted(made, f"a{number}", str(4711 + number // 8), {}, now - 890)
        found.append(
            batchjobs.begun(made, farmed.steps[0], f"node{number // 3}", now - 70, now) if number < 3 else made
        )
    with EmbeddedServer(tmp_path / "db") as server:
        couch = Server(server.url, Credentials(*server.credentials), timeout=5)
        couch.create("runs")
        database = couch.database("runs")
        database.bulk(found)
        deploy.push(database, designs.build(farmed))
        beat = {
            "id": "farm:here:centre", "farm": "centre", "host": "daq1", "pid": 5, "site": "here", "steps": ["proc0"],
            "started": documents.iso(now), "at": documents.iso(now), "beat": 3, "lease": 600,
            "away": {"since": documents.iso(now - 300), "why": "slurm could not be asked: no answer in time"},
        }  # fmt: skip
        database.put_local("poller:farm:here:centre", beat)
        app = create_app(lambda: couch.database("runs"), chain=farmed, title="MODANE")
        listener = bind("127.0.0.1", 0)
        page_server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=page_server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            with chromium() as browser:
                _look(browser, url, database, farmed)
        finally:
            app.state.hub.close()
            page_server.should_exit = True
            thread.join(10)


def _look(browser: Any, url: str, database: Any, farmed: chain.Chain) -> None:
    page = browser.new_context(viewport={"width": 1280, "height": 1000}).new_page()
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(url + "/jobs")
    expect(page.locator("#live")).to_have_attribute("data-state", "live")
    expect(page.locator(".warning")).to_contain_text("cannot be asked since")
    expect(page.locator("main")).to_contain_text("3 running")
    page.evaluate("window.mark = 'the same page'")
    time.sleep(0.5)  # the follower's first request, which says where "now" is
    controls.stop(database, farmed, "here", Scope("farm", "centre"), "drain", by="me@daq", reason="power cut at noon")
    expect(page.locator("main")).to_contain_text("farm centre is drained", timeout=10_000)
    controls.cancel(database, {"ma22a000_001": NAME}, by="me@daq", reason="wrong calibration")
    controls.limit(database, farmed, "here", "centre", {"jobs": 20}, by="me@daq", reason="be gentle")
    expect(page.locator("main")).to_contain_text("1 cancelling", timeout=10_000)
    expect(page.locator("main")).to_contain_text("be gentle")
    assert page.evaluate("window.mark") == "the same page"
    if "SCREENSHOTS" in os.environ:
        page.screenshot(path=f"{os.environ['SCREENSHOTS']}/jobs.png", full_page=True)
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url("**/jobs/orc-*")
    page.goto(f"{url}/jobs/{NAME}")
    expect(page.locator("pre.log").first).to_contain_text("<b>working</b> at it")
    expect(page.locator("main")).to_contain_text("cancelled by me@daq: wrong calibration")
    if "SCREENSHOTS" in os.environ:
        page.screenshot(path=f"{os.environ['SCREENSHOTS']}/job.png", full_page=True)
        page.set_viewport_size({"width": 400, "height": 800})
        page.goto(url + "/jobs")
        page.screenshot(path=f"{os.environ['SCREENSHOTS']}/narrow.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    page.goto(url + "/documents/ma22a000_001")
    page.locator(f"a[href='/jobs/{NAME}']").first.click()
    page.wait_for_url(f"**/jobs/{NAME}")
    assert not faults
