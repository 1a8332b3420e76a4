"""What overtakes what in the control room's pages: older data, answers that come late, drawings that never end."""

from __future__ import annotations

import contextlib
import socket
import sys
from pathlib import Path
from typing import Any

import hist
import httpx
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from control_room_browser import Open, entries, needs_jsroot, online_room, plot, zoom, zoomed

from orchestrator.online import rootjson, snapshot
from orchestrator.online.plot import Plot
from orchestrator.online.presenting import Contents, Presenter
from orchestrator.web.online import room as rooms
from tests.browsers import expect, marks

pytest_plugins = ["control_room_browser"]
pytestmark = marks

#: Everything that a plot's line of facts has said since.
RECORDED = """(name) => { window.said = []; const facts = window.room.cells.get(name).facts;
    new MutationObserver(() => window.said.push(facts.textContent)).observe(facts, { childList: true }); }"""


def held(page: Any, address: str) -> list[Any]:
    """The next request for an address, without an answer as yet."""
    found: list[Any] = []
    page.route(address, lambda route: route.continue_() if found else found.append(route))
    return found


def until(page: Any, done: Any) -> None:
    for _ in range(150):
        if done():
            return
        page.wait_for_timeout(100)
    raise AssertionError("waited in vain")


@needs_jsroot
def test_what_the_stream_brings_late_does_not_undo_what_was_asked_for(viewer: Open, room: Any) -> None:
    page = viewer("/?reload=0.2&at=p:hits/0")
    entries(page, "hits/0", 7)
    old = b""
    with httpx.stream("GET", room.url + "/events?plots=hits/0", headers={"Accept-Encoding": "identity"}) as stream:
        for piece in stream.iter_raw():
            old += piece
            if b"event: plot" in old and old.endswith(b"\n\n"):
                break
    streams = held(page, "**/events*")
    page.evaluate("window.room.reconnect()")
    until(page, lambda: streams)
    room.plot("6008", "hits/0", 18)
    room.wait(lambda: room.shown("6008", "hits/0") == 18, "the newer data")
    page.click("#reload")
    entries(page, "hits/0", 18)
    page.evaluate(RECORDED, "hits/0")
    streams[0].fulfill(body=old, content_type="text/event-stream")
    page.wait_for_function("() => window.said.length", timeout=15_000)
    page.wait_for_timeout(500)
    assert not [words for words in page.evaluate("window.said") if words.startswith("7 ")]


@needs_jsroot
def test_an_answer_for_the_run_before_is_not_shown_under_the_name_of_the_next(viewer: Open, room: Any) -> None:
    page = viewer("/?reload=3600&at=p:hits/0")
    entries(page, "hits/0", 7)
    page.evaluate("window.room.cells.get('hits/0').newest = null")  # as before its first data
    answers: list[Any] = []
    page.route("**/api/plots*", lambda route: answers.append((route, route.fetch())))
    page.click("#reload")
    until(page, lambda: answers)
    streams = held(page, "**/events*")
    plots = [{"name": "hits/0", "title": "Hits", "quality": "none"}]
    page.evaluate("(told) => window.room.told(told)", {"run": "6009", "canvases": [], "plots": plots})
    until(page, lambda: streams)
    route, answer = answers[0]
    route.fulfill(response=answer)
    page.wait_for_timeout(500)
    expect(plot(page, "hits/0").locator(".empty")).to_contain_text("No data yet")


@needs_jsroot
def test_a_reload_that_failed_is_forgotten_once_the_server_is_heard_of_again(viewer: Open, room: Any) -> None:
    page = viewer("/?reload=0.2")
    entries(page, "hits/0", 7)
    page.route("**/api/plots*", lambda route: route.abort())
    page.click("#reload")
    expect(page.locator("#sentence")).to_contain_text("lost its server")
    room.plot("6008", "hits/0", 8)
    entries(page, "hits/0", 8)
    expect(page.locator("#message")).to_be_hidden()


@needs_jsroot
def test_an_old_run_is_drawn_from_its_snapshot(viewer: Open, room: Any) -> None:
    made = hist.Hist(hist.axis.Regular(10, 0, 1)).fill([0.1, 0.5, 0.5])
    presenter = Presenter("hits", "", lambda plot: None, lambda: 1_700_000_000.0)
    shown = presenter.present([Plot("hits/0", "Hits", made)], Contents("5990", 3, 3), final=True)
    snapshot.write(room.folder / "runs", "5990", "hits", shown, {})
    record = {"begun": "2026-01-01T00:00:00Z", "ended": "2026-01-01T01:00:00Z", "spills": 3, "done": 3, "failed": 0}
    snapshot.unite(room.folder / "runs", "5990", ["hits"], record)
    page = viewer("/?run=5990")
    entries(page, "hits/0", 3)
    page.select_option("#which", "")
    entries(page, "hits/0", 7)
    page.select_option("#which", "5990")
    entries(page, "hits/0", 3)


@needs_jsroot
def test_a_drawing_that_never_ends_holds_up_no_other_and_becomes_a_picture(viewer: Open, room: Any) -> None:
    page = viewer("/?reload=0.2")
    entries(page, "hits/0", 7)
    entries(page, "hits/1", 7)
    page.evaluate("""() => { const draw = JSROOT.draw; window.mend = () => { JSROOT.draw = draw; };
        window.room.cells.get("hits/0").constructor.longest = 1000;
        JSROOT.draw = (field, ...more) =>
            (field.closest("[data-plot='hits/0']") ? new Promise(() => {}) : draw(field, ...more)); }""")
    page.click("#redraw")
    room.plot("6008", "hits/1", 9)
    entries(page, "hits/1", 9)
    expect(plot(page, "hits/0").locator(".draw img")).to_have_js_property("naturalWidth", 800)
    page.evaluate("window.mend()")
    page.click("#redraw")
    entries(page, "hits/0", 7)


@needs_jsroot
def test_a_plot_that_comes_to_a_canvas_leaves_the_others_axes_as_they_were_set(viewer: Open, room: Any) -> None:
    page = viewer("/?reload=0.2")
    entries(page, "hits/0", 7)
    page.evaluate("window.room.cells.get('hits/0').figure.dataset.mark = 'the same'")
    room.plot("6008", "hits/2", 5)
    entries(page, "hits/2", 5)
    entries(page, "hits/0", 7)
    assert plot(page, "hits/0").get_attribute("data-mark") == "the same"
    zoom(page, "hits/0")
    before = zoomed(page, "hits/0")
    room.plot("6008", "hits/0", 8)
    entries(page, "hits/0", 8)
    assert zoomed(page, "hits/0") == before


@needs_jsroot
def test_a_clock_that_is_set_right_under_the_page_breaks_no_connection(viewer: Open, room: Any) -> None:
    page = viewer("/?reload=0.2")
    entries(page, "hits/0", 7)
    page.evaluate("""() => { window.lost = 0; const link = window.room.hooks.link;
        window.room.hooks.link = (since) => { if (since) window.lost += 1; link(since); };
        const now = Date.now; Date.now = () => now() + 7200e3; }""")
    page.wait_for_timeout(1500)
    assert page.evaluate("window.lost") == 0
    room.plot("6008", "hits/0", 8)
    room.counts("6008", 8, 8, 0, 0)
    expect(page.locator("#counts")).to_contain_text("8 = 8 done")
    expect(page.locator("#newest")).not_to_contain_text("h")


def test_servers_of_two_versions_in_turn_make_a_page_load_itself_once(
    viewer: Open, room: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = viewer("/runs")
    page.add_init_script("Math.random = () => 0")
    page.goto(room.url)
    loads: list[str] = []
    page.on("load", lambda _: loads.append("load"))
    expect(page.locator("#counts")).to_contain_text("7 =")
    for number, version in enumerate(("other", "first", "other"), 20):
        monkeypatch.setattr(rooms, "VERSION", version)
        room.counts("6008", number, number, 0, 0)
        expect(page.locator("#counts")).to_contain_text(f"{number} =")
        page.wait_for_timeout(500)
    assert loads == ["load"]


def test_a_display_without_plots_is_not_asked_again_and_again(browser: Any, tmp_path: Path) -> None:
    with online_room.room(tmp_path, canvases="") as room:
        page = browser.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url) if "/events" in request.url else None)
        page.goto(room.url)
        expect(page.locator("#live")).to_have_attribute("data-state", "live")
        expect(page.locator("#remedy code")).to_have_text("orchestrator online status")
        page.wait_for_timeout(700)
        assert len(asked) == 1
        room.plot("6008", "hits/0", 7)
        expect(plot(page, "hits/0").locator(".facts-line")).to_contain_text("7 entries")
        page.close()


def test_a_search_that_is_answered_late_does_not_undo_what_was_typed_since(viewer: Open, room: Any) -> None:
    page = viewer("/search")
    expect(page.locator(".small li")).to_have_count(4)
    late: list[Any] = []
    page.route("**/search?q=hits", lambda route: late.append((route, route.fetch())))
    page.fill("#q", "hits")
    until(page, lambda: late)
    page.fill("#q", "time")
    expect(page.locator(".small li")).to_have_count(1)
    route, answer = late[0]
    with contextlib.suppress(Exception):  # the page does not wait for it any more
        route.fulfill(response=answer)
    page.wait_for_timeout(500)
    assert page.locator(".small li").count() == 1


def test_two_runs_that_cannot_be_had_are_said_and_asked_for_again(viewer: Open, room: Any) -> None:
    page = viewer("/runs")
    page.route("**/api/plots*", lambda route: route.abort())
    page.goto(room.url + "/compare?a=6008&b=6008&q=hits/0")
    expect(page.locator("[data-name='hits/0']")).to_contain_text("could not be had")
    page.unroute("**/api/plots*")
    page.get_by_role("button", name="Try again").first.click()
    expect(page.locator("[data-name='hits/0'] .plot")).to_have_count(2)


@needs_jsroot
def test_the_keyboard_stays_where_it_was_in_a_list_that_changes(viewer: Open, room: Any) -> None:
    page = viewer("/?reload=0.2")
    entries(page, "hits/0", 7)
    page.locator("#canvases button[data-key='c:Times']").focus()
    room.plot("6008", "hits/0", 9, quality="bad")
    expect(page.locator("#canvases .spot").first).to_have_attribute("title", "bad")
    assert page.evaluate("document.activeElement.dataset.key") == "c:Times"


@needs_jsroot
def test_a_plot_of_two_axes_stands_beside_its_reference_or_shows_their_difference(viewer: Open, room: Any) -> None:
    axes = [hist.axis.Regular(12, 0, 8, label="x"), hist.axis.Regular(10, 0, 8, label="y")]
    made, other = hist.Hist(*axes), hist.Hist(*axes)
    made.fill(np.full(100, 2.0), np.full(100, 2.0))
    other.fill(np.full(25, 6.0), np.full(25, 6.0))
    body = rootjson.dumps(made, "map", "Places", reference_body=rootjson.to_root(other * 4, "r", "run 1"))
    header = {"title": "Places", "entries": 100, "reference": "run 1", "quality": "bad"}
    room.publisher.publish("plot", "6008", "map", header, body)
    page = viewer("/?reload=0.2&at=p:map")
    entries(page, "map", 100)
    cell = "window.room.cells.get('map')"
    content = (f"(which) => {{ const h = {cell}.painters[which].getHisto();"
               " return [h.getBinContent(4, 3), h.getBinContent(10, 8)] }")  # fmt: skip
    expect(plot(page, "map").locator("svg g[objtype='TH2D']")).to_have_count(2)
    assert page.evaluate(content, "main") == [100, 0]
    assert page.evaluate(content, "below") == [0, 100]
    expect(plot(page, "map").locator(".facts-line")).to_contain_text("right: run 1, scaled")
    page.evaluate(f"{cell}.painters.main.getFramePainter().zoom('x', 1, 4)")
    page.wait_for_function(f"() => {cell}.painters.below.getFramePainter().zoom_xmax === 4")
    for plane, words, wanted in (
        ("data", "100 entries", [100, 0]), ("reference", "not this run: run 1", [0, 100]),
        ("difference", "standard deviations", [5, -5]),
    ):  # fmt: skip
        page.evaluate("(plane) => window.room.set({ plane })", plane)
        page.wait_for_function(f"() => !{cell}.busy && {cell}.painters && !{cell}.painters.below")
        assert np.allclose(page.evaluate(content, "main"), wanted, atol=0.01), plane
        expect(plot(page, "map").locator(".facts-line")).to_contain_text(words)
    page.keyboard.press("v")
    expect(page.locator("#plane")).to_have_value("data")


def test_a_viewer_that_never_reads_loses_its_place(room: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["orchestrator.web.serve"], "UNSENT_SECONDS", 1)
    room.stop()
    room.start()
    with socket.socket() as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect(("127.0.0.1", room.port))
        stuck.sendall(b"GET /events?period=0.1&plots=hits/0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        room.wait(lambda: room.json("/healthz")["viewers"] == 1, "the stuck viewer")
        wide = rootjson.dumps(hist.Hist(hist.axis.Regular(200_000, 0, 1)).fill(np.linspace(0, 1, 200_000)), "h", "t")
        for number in range(20):
            room.publisher.publish("plot", "6008", "hits/0", {"entries": number}, wide)
            if number % 5 == 0:
                room.wait(lambda number=number: room.shown("6008", "hits/0") == number, "a plot")
        room.wait(lambda: room.json("/healthz")["viewers"] == 0, "the end of the stuck viewer")
