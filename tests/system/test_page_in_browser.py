"""The status page in a real browser: live without a reload, by keyboard, on a phone, nothing the policy refuses."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from orchestrator.couch import Credentials, Database, Server, deploy
from orchestrator.designs import build
from orchestrator.embedded.testing import EmbeddedServer
from orchestrator.web import create_app
from orchestrator.web.serve import bind
from tests.browsers import chromium, expect, marks

sys.path.insert(0, str(Path(__file__).parents[1] / "orchestrator" / "web"))
import page_sample as sample

PLOT = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360f8cfc0000003010100"
    "c9fe92ef0000000049454e44ae426082"
)

pytestmark = marks


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("db")) as made:
        yield made


@pytest.fixture(scope="module")
def database(server: EmbeddedServer) -> Database:
    couch = Server(server.url, Credentials(*server.credentials), timeout=5)
    couch.create("runs")
    made = couch.database("runs")
    documents = sample.documents(time.time(), files=60)
    documents[0]["proc3"]["result"] = {"plots": [{"file": "heat.png", "title": "Heat"}], "counts": {"events": 1234}}
    documents[0]["proc3"]["log"] = "step.log"
    made.bulk(documents)
    deploy.push(made, build(sample.chain()))
    return made


@pytest.fixture(scope="module")
def url(server: EmbeddedServer, database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    files = tmp_path_factory.mktemp("files")
    (files / "heat.png").write_bytes(PLOT)
    (files / "step.log").write_text("began\nended\n")
    couch = Server(server.url, Credentials(*server.credentials), timeout=5)
    app = create_app(lambda: couch.database("runs"), chain=sample.chain(), files_root=files, title="MODANE")
    listener = bind("127.0.0.1", 0)
    page = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=page.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    app.state.hub.close()
    page.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as made:
        yield made


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that fails its test where it logs an error: a broken script, or something that the policy refused."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    made = context.new_page()
    faults: list[str] = []
    made.on("console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None)
    made.on("pageerror", lambda error: faults.append(str(error)))
    made.on("dialog", lambda dialog: (faults.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    made.faults = faults
    yield made
    context.close()
    assert not faults


def cell(page: Any, step: int, state: str) -> Any:
    return page.locator(f"#step-proc{step} td[data-label='{state}']")


def test_the_overview_follows_the_database_without_a_reload(page: Any, url: str, database: Database) -> None:
    page.goto(url + "/")
    expect(page.locator("#live")).to_have_attribute("data-state", "live")
    page.evaluate("window.mark = 'the same page'")
    before = int(cell(page, 0, "ready").inner_text())
    tile = page.locator(".tiles li").first.locator("b")
    documents = int(tile.inner_text())
    time.sleep(0.5)  # the follower's first request, which says where "now" is
    now = time.time()
    for number in range(100, 103):
        database.put(sample.document("ma22c002", number, now=now) | {"updated": sample.iso(now + number)})
    expect(cell(page, 0, "ready")).to_have_text(str(before + 3), timeout=10_000)
    expect(tile).to_have_text(str(documents + 3))
    expect(page.locator(".recent li").first).to_contain_text("ma22c002_102")
    assert page.evaluate("window.mark") == "the same page"


def test_a_documents_page_follows_it_and_keeps_focus_and_what_is_opened(
    page: Any, url: str, database: Database
) -> None:
    page.goto(url + "/documents/ma22b001_003")
    expect(page.locator("#live")).to_have_attribute("data-state", "live")
    page.locator("#raw summary").click()
    page.locator("#raw summary").focus()
    time.sleep(0.5)
    document = database.get("ma22b001_003")
    database.put(
        document
        | {"status": "proc 1 in progress", "proc1": sample.claimed(1, time.time()), "updated": sample.iso(time.time())}
    )
    expect(page.locator("#sentence")).to_contain_text("by poller node2-4711", timeout=10_000)
    expect(page.locator("#raw")).to_have_attribute("open", "")
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    assert page.locator(".picture.wide .box.s-in-progress").count() == 1


def test_the_keyboard(page: Any, url: str) -> None:
    page.goto(url + "/")
    page.keyboard.press("g")
    page.keyboard.press("f")
    page.wait_for_url("**/files")
    page.keyboard.press("j")
    page.keyboard.press("j")
    second = page.locator("tr[data-row] a").nth(2)  # the first row has two links: the document and its run
    assert page.evaluate("document.activeElement.href") == second.evaluate("e => e.href")
    page.keyboard.press("k")
    first = page.evaluate("document.activeElement.href")
    page.keyboard.press("n")
    page.wait_for_url("**/files?at=*")
    there = page.url
    page.keyboard.press("p")
    page.wait_for_url(lambda address: address != there)
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.href") == first
    page.keyboard.press("Enter")
    page.wait_for_url("**/documents/**")
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#help")).to_be_hidden()
    page.keyboard.press("/")
    page.keyboard.type("ma22b001_006 gj")
    expect(page.locator("#search")).to_have_value("ma22b001_006 gj")
    page.locator("#search").fill("ma22b001_006")
    page.keyboard.press("Enter")
    page.wait_for_url("**/files?q=ma22b001_006")
    expect(page.locator("tr[data-row]")).to_have_count(1)
    page.goto(url + "/")
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    assert page.locator(".skip").bounding_box()["x"] >= 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1000, 1280])
def test_nothing_scrolls_sideways(browser: Any, url: str, width: int, scheme: str) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    for path in (
        "/",
        "/runs",
        "/runs/ma22b001",
        "/files",
        "/failed",
        "/bad",
        "/chain",
        "/api",
        "/documents/ma22b001_009",
        "/no",
    ):
        page.goto(url + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        if path == "/chain" or path.startswith("/documents/"):  # the chain from left to right, or from top to bottom
            assert page.locator(".picture:visible").count() == 1, path
    context.close()


def test_documents_made_to_hurt_do_nothing(page: Any, url: str) -> None:
    page.goto(url + "/files?run=" + "%3Cscript%3Ealert('x')%3C/script%3E")
    page.locator("td.main a").click()
    page.wait_for_url("**/documents/**")
    assert page.locator("h1").inner_text().startswith('a/../b "><img src=x')
    assert page.locator("#main script, #main img").count() == 0
    for path in ("/", "/runs", "/failed"):
        page.goto(url + path)
        assert page.locator("#main script").count() == 0


def test_a_picture_and_a_log_are_shown(page: Any, url: str) -> None:
    page.goto(url + "/documents/ma22a000_000")
    image = page.locator(".plots img")
    image.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('.plots img').naturalWidth === 1")
    page.locator("#proc3 .folded > summary", has_text="Log").click()
    assert "began\nended" in page.locator("#proc3 pre.log").inner_text()
    assert "1\u202f234" in page.locator("#proc3 .nested").first.inner_text()


def test_without_scripts_all_is_there(browser: Any, url: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(url + "/")
    assert int(cell(page, 0, "done").inner_text()) > 60
    assert page.locator("#live").is_hidden()
    page.locator("nav.pages a", has_text="Files").click()
    assert page.locator("tr[data-row]").count() == 50
    page.locator("#next").click()
    assert page.locator("#previous").is_visible()
    context.close()


def test_the_database_going_away_is_said_and_its_coming_back_is_seen(
    browser: Any, url: str, server: EmbeddedServer
) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(url + "/")
    expect(page.locator("#live")).to_have_attribute("data-state", "live")
    counted = cell(page, 0, "done").inner_text()
    server.kill()
    expect(page.locator("#notice")).to_contain_text("does not answer", timeout=20_000)
    assert cell(page, 0, "done").inner_text() == counted
    other = context.new_page()
    other.goto(url + "/runs")
    expect(other.locator("h1")).to_have_text("The database does not answer")
    server.restart()
    expect(page.locator("#notice")).to_be_hidden(timeout=20_000)
    expect(page.locator("#live")).to_have_attribute("data-state", "live")
    expect(other.locator("h1")).to_have_text("Runs", timeout=20_000)
    context.close()


def test_a_stream_that_a_proxy_has_refused_is_tried_again(browser: Any, url: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    refused: list[Any] = []
    page.route("**/events", lambda route: route.continue_() if refused else _refuse(route, refused))
    page.goto(url + "/")
    expect(page.locator("#live")).to_have_attribute("data-state", "live", timeout=20_000)
    assert refused
    context.close()


def _refuse(route: Any, refused: list[Any]) -> None:
    refused.append(route)
    route.fulfill(status=502, body="no gateway")


def test_a_read_that_failed_or_never_ended_is_not_the_last_and_is_forgotten_after_a_good_one(
    browser: Any, url: str, database: Database
) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.add_init_script(
        "const late = AbortSignal.timeout; AbortSignal.timeout = () => late.call(AbortSignal, 500);"
    )
    page.goto(url + "/runs")
    lamp = page.locator("#live")
    expect(lamp).to_have_attribute("data-state", "live")
    page.wait_for_timeout(500)
    reads: list[Any] = []
    page.route("**/runs", lambda route: reads.append(route))  # without an answer
    database.put(sample.document("ma22c003", 1, now=time.time()))
    expect(lamp).to_have_text("page away", timeout=20_000)
    page.unroute("**/runs")
    database.put(sample.document("ma22c003", 2, now=time.time()))
    expect(lamp).to_have_attribute("data-state", "live", timeout=20_000)
    expect(page.locator("main")).to_contain_text("ma22c003")
    context.close()
