"""A shift at the page, in a real browser: who may, changes documents by its buttons; who may not, gets nothing."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from orchestrator import batchjobs, chain, designs
from orchestrator.batchjobs import Place
from orchestrator.couch import Credentials, Database, Server, deploy
from orchestrator.documents import Claimant
from orchestrator.embedded.testing import EmbeddedServer
from orchestrator.engine import controls
from orchestrator.errors import Refused
from orchestrator.pushing import admit
from orchestrator.users import Users
from orchestrator.web import create_app
from orchestrator.web.login import Login
from orchestrator.web.login_sessions import Sessions
from orchestrator.web.operations import Acting
from orchestrator.web.serve import bind
from tests.browsers import chromium, expect, marks

sys.path.insert(0, str(Path(__file__).parents[1] / "orchestrator" / "web"))
import page_sample as sample

PASSWORD = "a password for a test"
JOB = "orc-01234567-convert-00112233aa"

pytestmark = marks


def closed(run: str, number: int) -> dict[str, Any]:
    return {
        "_id": f"{run}_{number:03d}", "type": "daqdocument", "status": "closed", "file": f"/r/{run}_{number}",
        "site": "here", "run_name": run, "file_number": number, "hostname": "daq1",
        "registered": "2026-01-22T11:00:00.000Z",
    }  # fmt: skip


@dataclass
class Shift:
    """The page's address, the database as its admin sees it, and its server."""

    url: str
    database: Database
    server: EmbeddedServer
    chain: chain.Chain


def farmed(folder: Path) -> chain.Chain:
    """The sample's chain, with one more step that goes to a farm."""
    data = sample.chain().data()
    for step in data["steps"]:
        step.pop("farm", None)
    data["farms"] = {"centre": {"scheduler": "slurm", "spool": str(folder / "spool")}}
    data["lanes"] = {"archive": {"steps": [{"name": "tape", "run": "a.b:c", "executor": "local", "needs": []}]}}
    return chain.Chain.model_validate(data)


@pytest.fixture(scope="module")
def shift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shift]:
    folder = tmp_path_factory.mktemp("shift")
    whole = farmed(folder)
    with EmbeddedServer(folder / "db") as server:
        couch = Server(server.url, Credentials(*server.credentials), timeout=5)
        couch.create("runs")
        database = couch.database("runs")
        documents = sample.documents(time.time(), files=40)
        daemon = Claimant("farm:here:centre", "daq1", 1, "here")
        for number in range(3):
            place, now = Place("slurm", "centre", JOB, 1), time.time()
            made = batchjobs.queue(closed("ma22z000", number), whole.steps[0], daemon, f"z{number}", place, now)
            documents.append(batchjobs.submitted(made, f"z{number}", "4711", {}, now))
        database.bulk(documents)
        deploy.push(database, designs.build(whole))
        admit(database, whole.sites)
        users = Users(Server(server.url, Credentials(*server.credentials)))
        for name, role in (("ann", "operator"), ("vic", "viewer")):
            users.add(name, PASSWORD, [role])
        app = create_app(
            lambda: couch.database("runs"), chain=whole, title="MODANE",
            login=Login(Sessions(server.url, "runs", time.monotonic)), acting=Acting("here", folder, ask_above=5),
        )  # fmt: skip
        listener = bind("127.0.0.1", 0)
        page = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=page.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        yield Shift(f"http://127.0.0.1:{listener.getsockname()[1]}", database, server, whole)
        app.state.hub.close()
        page.should_exit = True
        thread.join(10)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as made:
        yield made


BOTH = pytest.mark.parametrize("page", [True, False], ids=["scripts", "no-scripts"], indirect=True)


@pytest.fixture
def page(request: pytest.FixtureRequest, browser: Any) -> Iterator[Any]:
    """A page that fails its test where it logs an error; without scripts where the test says so."""
    scripts = getattr(request, "param", True)
    context = browser.new_context(viewport={"width": 1280, "height": 900}, java_script_enabled=scripts)
    made = context.new_page()
    faults: list[str] = []
    made.on("console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None)
    made.on("pageerror", lambda error: faults.append(str(error)))
    yield made
    context.close()
    assert not faults


def log_in(page: Any, shift: Shift, name: str, at: str = "/") -> None:
    page.goto(f"{shift.url}/login?next={at}")
    page.fill("#name", name)
    page.fill("#password", PASSWORD)
    page.click(".login button")


def free(shift: Shift, number: int) -> str:
    """A document that waits, put back as it was if an earlier test has changed it."""
    name = f"ma22y000_{number:03d}"
    raw = closed("ma22y000", number)
    found = shift.database.get_many([name])[name]
    shift.database.put({**raw, "_rev": found["_rev"]} if found else raw)
    return name


@BOTH
def test_a_shifter_logs_in_holds_a_document_and_lets_it_go(page: Any, shift: Shift) -> None:
    name = free(shift, 0)
    page.goto(f"{shift.url}/documents/{name}")
    assert page.locator(".acts").count() == 0, "nobody has logged in"
    log_in(page, shift, "ann", f"/documents/{name}")
    assert page.url.endswith(f"/documents/{name}")
    page.click(".acts a:text-is('Hold')")
    expect(page.locator("#would + p")).to_contain_text("1 document would be changed")
    page.fill("#why", "the disk is <b>moved</b>")
    page.click("button.go")
    page.wait_for_url(f"**/documents/{name}")
    document = shift.database.get(name)
    assert document["hold"]["by"] == "ann" and document["hold"]["reason"] == "the disk is <b>moved</b>"
    expect(page.locator("#sentence")).to_contain_text("on hold, by ann")
    assert page.locator(".acts a:text-is('Hold')").count() == 0
    page.click(".acts a:text-is('Release')")
    page.click("button.go")
    page.wait_for_url(f"**/documents/{name}")
    assert "hold" not in shift.database.get(name)
    document = shift.database.get(name)
    shift.database.put({**document, "hold": {"by": "bob", "at": "2026-01-22T11:00:00.000Z", "reason": "<i>tea</i>"}})
    page.goto(f"{shift.url}/")
    page.click("a:has-text('on hold')")
    row = page.locator("tr", has_text=name)
    expect(row).to_contain_text("<i>tea</i>")
    row.locator("input").check()
    page.click("form .acts button:text-is('Release')")
    page.click("button.go")
    page.wait_for_url("**/held")
    assert "hold" not in shift.database.get(name)
    page.goto(f"{shift.url}/operations")
    expect(page.locator("table.operations tbody tr").first).to_contain_text("release")


def test_a_reason_is_asked_for_and_a_step_chosen_before_anything_is_done(page: Any, shift: Shift) -> None:
    name = next(d["_id"] for d in sample.documents(files=40) if d.get("proc0", {}).get("state") == "done")
    log_in(page, shift, "ann")
    page.goto(f"{shift.url}/act/reset?documents={name}&next=/documents/{name}")
    assert page.locator("button.go").count() == 0, "no step is chosen yet"
    page.select_option("#step", "proc0")
    page.click("button:text-is('Look what it would do')")
    expect(page.locator("#would + p")).to_contain_text("These steps are done again")
    before = shift.database.get(name)["_rev"]
    page.goto(f"{shift.url}/act/mark-bad?documents={name}")
    page.click("button.go")  # the field is required: the browser does not even send it
    assert "/act/mark-bad" in page.url
    assert shift.database.get(name)["_rev"] == before


def test_a_step_is_redone_by_version_and_runs(page: Any, shift: Shift) -> None:
    log_in(page, shift, "ann", "/chain")
    page.click("[aria-label='Change step convert'] a:text-is('Reprocess')")
    first = page.locator("#would + p")
    expect(first).to_contain_text("These steps are done again: convert, analyse, histogram")
    everything = int(first.locator("b").inner_text())
    page.fill("input[name='version']", "no such version")
    page.click("button:text-is('Look again')")
    expect(page.locator("#would + p")).to_contain_text("Nothing would be changed")
    page.fill("input[name='version']", "")
    page.fill("input[name='last_run']", "ma22b000")
    page.click("button:text-is('Look again')")
    assert 0 < int(page.locator("#would + p b").inner_text()) < everything
    assert page.locator("button.go").count() == 1 and shift.database.get("ma22a000_000").get("operation") is None


def test_many_documents_want_a_yes_and_those_ticked_are_those_changed(page: Any, shift: Shift) -> None:
    names = [free(shift, number) for number in range(8)]
    log_in(page, shift, "ann", "/runs/ma22y000")
    for name in names[:2]:
        page.check(f"input[value='{name}']")
    page.click("form .acts button:text-is('Hold')")
    expect(page.locator("#would + p")).to_contain_text("2 documents would be changed")
    page.fill("#why", "look")
    page.click("button.go")
    page.wait_for_url("**/runs/ma22y000")
    held = [name for name in names if "hold" in shift.database.get(name)]
    assert held == names[:2]
    page.click("[aria-label='Change the whole run'] a:text-is('Mark bad')")
    page.fill("#why", "a test run")
    page.click("button.go")
    assert "/act/mark-bad" in page.url, "without the tick it is not sent"
    page.check("input[name='confirm']")
    page.click("button.go")
    page.wait_for_url("**/runs/ma22y000")
    assert {shift.database.get(name)["status"] for name in names} == {"bad"}


@BOTH
def test_a_job_is_cancelled_and_a_step_and_a_farm_paused_and_resumed(page: Any, shift: Shift) -> None:
    log_in(page, shift, "ann", "/jobs")
    page.click("[aria-label='Change farm centre'] a:text-is('Pause')")
    page.fill("#why", "power cut")
    page.click("button.go")
    page.wait_for_url("**/jobs")
    expect(page.locator(".warning").first).to_contain_text("farm centre is paused since")
    stop = controls.read(shift.database, "here").stops[0]
    assert (stop.scope.key, stop.by, stop.reason) == ("farm:centre", "ann", "power cut")
    page.click("[aria-label='Change farm centre'] a:text-is('Resume')")
    page.click("button.go")
    page.wait_for_url("**/jobs")
    step = shift.chain.steps[-1].name
    page.click(f"[aria-label='Change step {step}'] a:text-is('Pause')")
    page.click("button.go")
    page.goto(f"{shift.url}/")
    page.click(f".acts a:text-is('Resume step {step}')")
    page.click("button.go")
    page.wait_for_url(f"{shift.url}/")
    assert controls.read(shift.database, "here").stops == ()
    page.goto(f"{shift.url}/jobs/{JOB}")
    page.click("a:text-is('Cancel it')")
    expect(page.locator("form.act")).to_contain_text("3 documents end")
    page.fill("#why", "it writes to the wrong disk")
    page.check("input[name='hold']")
    page.click("button.go")
    page.wait_for_url(f"**/jobs/{JOB}")
    entry = shift.database.get("ma22z000_001")["proc0"]
    assert (entry["cancel"]["by"], entry["cancel"]["reason"]) == ("ann", "it writes to the wrong disk")


def test_a_viewer_sees_no_buttons_and_a_forged_request_does_nothing(page: Any, shift: Shift) -> None:
    name = free(shift, 9)
    log_in(page, shift, "vic", f"/documents/{name}")
    for path in (f"/documents/{name}", "/files", "/failed", "/bad", "/jobs", "/", "/runs/ma22y000"):
        page.goto(shift.url + path)
        assert page.locator(".acts, main input[name='documents'], a[href*='/act/'], a[href*='/control/']").count() == 0
    token = page.locator("form.who input[name='token']").get_attribute("value")
    form = {"token": token, "documents": name, "reason": "x", "do": "yes", "site": "here"}
    headers = {"Origin": shift.url}
    for path in ("/act/hold", "/act/mark-bad", "/control/pause", "/control/cancel"):
        forged = page.request.post(shift.url + path, form=form, headers=headers)
        assert forged.status == 403 and "needs the role operator" in forged.text(), path
        assert page.request.get(f"{shift.url}{path}?documents={name}").status == 403
    page.context.clear_cookies()
    assert page.request.post(f"{shift.url}/act/hold", form=form, headers=headers).status == 401
    log_in(page, shift, "ann")
    for wrong in ({**form, "token": "guessed"}, {**form, "token": token}):
        forged = page.request.post(f"{shift.url}/act/hold", form=wrong, headers=headers)
        assert forged.status == 403 and "does not come from this page" in forged.text()
    own = page.locator("form.who input[name='token']").get_attribute("value")
    elsewhere = {"Origin": "http://evil.example"}
    assert page.request.post(f"{shift.url}/act/hold", form={**form, "token": own}, headers=elsewhere).status == 403
    document = shift.database.get(name)
    assert "hold" not in document and document["status"] == "closed"
    assert controls.read(shift.database, "here").stops == ()
    theirs = Server(shift.server.url, Credentials("vic", PASSWORD)).database("runs")
    with pytest.raises(Refused, match="read only"):  # whoever goes round the page meets the database's own guard
        theirs.put({**document, "hold": {"by": "vic", "reason": "x"}})
