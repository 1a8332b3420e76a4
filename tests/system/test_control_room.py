"""The control room in a real browser: every button, two viewers at once, and what goes away comes back by itself."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from control_room_browser import Open, entries, needs_jsroot, online_room, plot, zoom, zoomed

from tests.browsers import expect, marks

HOSTILE = "<img src=x onerror=alert(1)>'\"&{{7*7}}"

pytest_plugins = ["control_room_browser"]
pytestmark = marks


@needs_jsroot
def test_plots_are_drawn_and_follow_the_data_with_the_zoom_as_it_was_set(viewer: Open, room: Any) -> None:
    page = viewer("/?reload=0.2")
    expect(page.locator("#live")).to_have_attribute("data-state", "live")
    expect(page.locator("#run")).to_have_text("6008")
    expect(page.locator("#counts")).to_have_text("7 = 4 done + 1 failed + 2 pending")
    expect(page.locator("#workers")).to_have_text("2 busy")
    expect(page.locator("#quality")).to_contain_text("good")
    expect(page.locator("#worst")).to_be_hidden()
    entries(page, "hits/0", 7)
    entries(page, "hits/1", 7)
    assert plot(page, "hits/1").locator(".draw svg").count() >= 2  # with its ratio below
    assert plot(page, "hits/0").locator(".draw.ratio").is_hidden()
    zoom(page, "hits/0")
    before = zoomed(page, "hits/0")
    room.plot("6008", "hits/0", 25, quality="bad", verdict={"sentence": "probability 0.0001"})
    entries(page, "hits/0", 25)
    assert zoomed(page, "hits/0") == before
    expect(plot(page, "hits/0").locator(".chip")).to_have_text("bad")
    expect(page.locator("#canvas-quality")).to_have_text("bad")
    expect(page.locator("#canvases .canvas-entry").first.locator(".spot").first).to_have_attribute("title", "bad")
    expect(page.locator("#quality")).to_contain_text("1 bad")
    expect(page.locator("#message")).to_contain_text("1 plot of 4 is bad")
    room.plot("6008", "time/0", 26, quality="warning")
    expect(page.locator("#worst")).to_have_text("Show the bad plot")
    for name, count in (("hits/0", 25), ("time/0", 26), ("hits/0", 25)):
        page.click("#worst")
        expect(page.locator(".plot")).to_have_count(1)
        entries(page, name, count)
        expect(page.locator("#helps")).to_contain_text("Nobody has written yet")


@needs_jsroot
def test_redraw_resets_the_axes_of_the_same_data_and_reload_brings_the_newest_while_paused(
    viewer: Open, room: Any
) -> None:
    page = viewer("/?reload=0.2")
    entries(page, "hits/0", 7)
    page.click("#pause")
    expect(page.locator("#pause")).to_have_text("Play")
    zoom(page, "hits/0")
    room.plot("6008", "hits/0", 30)
    expect(page.locator("#held")).to_have_text("Paused · newer data are there")
    entries(page, "hits/0", 7)  # held
    page.click("#redraw")
    page.wait_for_function(
        "() => { const cell = window.room.cells.get('hits/0'); if (cell.busy || !cell.painters) return false;"
        " const frame = cell.painters.main.getFramePainter(); return frame.zoom_xmin === frame.zoom_xmax }"
    )
    entries(page, "hits/0", 7)  # the same data, axes as at first
    zoom(page, "hits/0")
    before = zoomed(page, "hits/0")
    page.click("#reload")
    entries(page, "hits/0", 30)  # the newest, though paused, the axes as they were
    assert zoomed(page, "hits/0") == before
    expect(page.locator("#held")).to_have_text("Paused")
    room.plot("6008", "hits/0", 31)
    expect(page.locator("#held")).to_have_text("Paused · newer data are there")
    entries(page, "hits/0", 30)
    page.click("#pause")
    entries(page, "hits/0", 31)
    expect(page.locator("#held")).to_be_hidden()


@needs_jsroot
def test_an_answer_to_reload_that_comes_late_does_not_undo_newer_data(viewer: Open, room: Any) -> None:
    page = viewer("/?reload=0.2")
    entries(page, "hits/0", 7)
    held: list[Any] = []
    page.route("**/api/plots*", lambda route: held.append((route, route.fetch())))
    page.click("#reload")
    for _ in range(150):
        if held:
            break
        page.wait_for_timeout(100)
    room.plot("6008", "hits/0", 18)
    entries(page, "hits/0", 18)
    (route, answer), *_ = held
    with page.expect_response("**/api/plots*") as late:
        route.fulfill(response=answer)
    late.value.finished()
    page.wait_for_timeout(500)
    entries(page, "hits/0", 18)


@needs_jsroot
def test_back_next_rotation_choice_and_the_link(viewer: Open, room: Any) -> None:
    page = viewer("/")
    title = page.locator("#canvas")
    expect(title).to_have_text("Hits")
    expect(page.locator("#place")).to_have_text("1 of 2")  # the expert's canvas is not in turn
    page.click("#after")
    expect(title).to_have_text("Times")
    page.click("#after")
    expect(title).to_have_text("Hits")
    page.click("#before")
    expect(title).to_have_text("Times")
    page.locator("#canvases input[data-key='c:Maps']").check()
    page.locator("#canvases input[data-key='c:Hits']").uncheck()
    expect(page.locator("#place")).to_have_text("1 of 2")
    page.locator("#canvases button[data-key='c:Maps']").click()
    expect(title).to_have_text("Maps")
    entries(page, "map", 7)
    page.locator(".plot .title").click()
    expect(title).to_have_text("map")
    page.keyboard.press("ArrowRight")
    expect(title).to_have_text("Times")
    page.select_option("#every", "1")
    page.evaluate("window.room.set({ rotate: '0.3' })")  # quicker than the list of the button offers
    for name in ("Maps", "Times", "Maps"):
        expect(title).to_have_text(name)
    page.click("#pause")
    here = title.inner_text()
    page.wait_for_timeout(700)
    assert title.inner_text() == here
    query = parse_qs(urlsplit(page.url).query)
    assert (query["show"], query["rotate"], query["reload"], query["paused"]) == (
        ["c:Times", "c:Maps"], ["0.3"], ["1"], ["1"],
    )  # fmt: skip
    again = viewer(page.url.removeprefix(room.url))
    expect(again.locator("#canvas")).to_have_text(here)
    expect(again.locator("#pause")).to_have_text("Play")
    assert again.url == page.url


@needs_jsroot
def test_two_viewers_show_what_each_has_chosen(viewer: Open, room: Any) -> None:
    one, two = viewer("/?reload=0.2"), viewer("/?at=c:Times&reload=0.2")
    entries(one, "hits/0", 7)
    entries(two, "time/0", 7)
    two.click("#pause")
    room.plot("6008", "hits/0", 12)
    room.plot("6008", "time/0", 12)
    entries(one, "hits/0", 12)
    entries(two, "time/0", 7)
    one.click("#after")
    entries(one, "time/0", 12)
    expect(two.locator("#canvas")).to_have_text("Times")
    assert room.json("/healthz")["viewers"] == 2


@needs_jsroot
def test_axes_statistics_styles_reference_and_ratio_are_the_viewers(viewer: Open, room: Any) -> None:
    page = viewer("/")
    entries(page, "hits/1", 7)
    pad = "window.room.cells.get('hits/1').painters.main.getPadPainter().getRootPad()"
    settled = "() => Array.from(window.room.cells.values()).every((cell) => !cell.busy && cell.painters)"
    page.click("#more summary")

    def press(knob: str) -> None:
        page.click(f"[data-knob={knob}]")
        page.wait_for_function(settled)

    press("logy")
    assert page.evaluate(f"{pad}.fLogy") == 1
    assert parse_qs(urlsplit(page.url).query)["logy"] == ["1"]
    press("logy")
    assert page.evaluate(f"{pad}.fLogy") == 0
    stats = plot(page, "hits/1").locator("g[objtype='TPaveStats']")
    expect(stats).to_have_count(1)
    press("stats")
    expect(stats).to_have_count(0)
    ratio = plot(page, "hits/1").locator(".draw.ratio")
    expect(ratio).to_be_visible()
    press("ratio")
    expect(ratio).to_be_hidden()
    curves = plot(page, "hits/1").locator("g[objtype='TH1D']")
    expect(curves).to_have_count(2)
    press("reference")
    expect(curves).to_have_count(1)
    page.locator("#canvases button[data-key='c:Maps']").click()
    entries(page, "map", 7)
    page.select_option("#style", "box")
    page.wait_for_function("() => { const c = window.room.cells.get('map'); return !c.busy && c.painters && "
                           "c.painters.main.getOptions().Box }")  # fmt: skip


@needs_jsroot
def test_help_full_screen_the_list_and_the_keys(viewer: Open, room: Any) -> None:
    page = viewer("/")
    entries(page, "hits/0", 7)
    page.click("#help-button")
    expect(page.locator("#helps")).to_contain_text("All boards alike.")
    expect(page.locator("#helps")).to_contain_text("flat within 10 %")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#helps")).to_contain_text("a peak at zero")
    page.keyboard.press("h")
    expect(page.locator("#helps")).to_be_hidden()
    page.fill("#filter", "hits 1")
    expect(page.locator("#canvases .canvas-entry")).to_have_count(1)
    page.fill("#filter", "")
    page.locator("#canvas").click()
    page.keyboard.press("l")
    expect(page.locator("#choice")).to_be_hidden()
    page.click("#full")
    expect(page.locator("#full")).to_have_text("Leave full screen")
    expect(page.locator(".top")).to_be_hidden()
    expect(page.locator(".standing")).to_be_visible()
    page.click("#full")
    expect(page.locator(".top")).to_be_visible()
    page.keyboard.press("?")
    expect(page.locator("#keys-help")).to_be_visible()


def test_a_set_is_saved_by_name_and_shown_by_another_viewer(viewer: Open, room: Any) -> None:
    page = viewer("/?at=c:Times&rotate=30&logy=1")
    expect(page.locator("#canvas")).to_have_text("Times")
    page.click("#more summary")
    page.fill("#set-name", "Night shift")
    page.select_option("#set-group", "expert")
    page.click("#save")
    expect(page.locator("#set-said")).to_have_text("Night shift is saved.")
    other = viewer("/")
    other.click("#more summary")
    expect(other.locator("#sets option[value='Night shift']")).to_have_count(1)
    other.select_option("#sets", "Night shift")
    expect(other.locator("#canvas")).to_have_text("Times")
    expect(other.locator("#rotate")).to_have_value("30")
    assert parse_qs(urlsplit(other.url).query)["logy"] == ["1"]
    page.fill("#set-name", "<b>")
    page.click("#save")
    expect(page.locator("#set-said")).to_contain_text("Not saved")
    other.on("dialog", lambda dialog: dialog.accept())
    other.click("#unsave")
    expect(other.locator("#set-said")).to_have_text("Night shift is forgotten.")


@needs_jsroot
def test_the_server_and_the_broadcast_go_and_come_back_under_the_viewers(viewer: Open, room: Any) -> None:
    one, two = viewer("/?reload=0.2"), viewer("/?at=c:Times&reload=0.2")
    entries(one, "hits/0", 7)
    entries(two, "time/0", 7)
    room.stop()
    for page in (one, two):
        expect(page.locator("#sentence")).to_contain_text("lost its server", timeout=15_000)
        expect(page.locator("#live")).to_have_attribute("data-state", "away")
    entries(one, "hits/0", 7)  # what was known stays, and its age goes on
    room.plot("6008", "hits/0", 15)
    room.plot("6008", "time/0", 16)
    room.start()
    entries(one, "hits/0", 15)
    entries(two, "time/0", 16)
    for page in (one, two):
        expect(page.locator("#live")).to_have_attribute("data-state", "live")
        expect(page.locator("#message")).to_be_hidden()
    room.stop_broker()
    expect(one.locator("#sentence")).to_contain_text("The broadcast is away", timeout=15_000)
    expect(one.locator("#remedy")).to_contain_text("orchestrator online status")
    room.plot("6008", "hits/0", 17)
    room.start_broker()
    entries(one, "hits/0", 17)
    one.evaluate("window.mark = 'the same page'")
    one.click("#reconnect")
    room.plot("6008", "hits/0", 18)
    entries(one, "hits/0", 18)
    assert one.evaluate("window.mark") == "the same page"


@needs_jsroot
def test_the_next_run_appears_by_itself_and_a_chosen_run_stays(viewer: Open, room: Any) -> None:
    follows, stays = viewer("/?reload=0.2"), viewer("/?reload=0.2&run=6008")
    entries(follows, "hits/0", 7)
    entries(stays, "hits/0", 7)
    room.begin("6009")
    expect(follows.locator("#run")).to_have_text("6009")
    expect(follows.locator("#sentence")).to_contain_text("its first plots are on their way")
    room.plot("6009", "hits/0", 1)
    entries(follows, "hits/0", 1)
    expect(stays.locator("#run")).to_have_text("6008")
    entries(stays, "hits/0", 7)
    stays.select_option("#which", "6009")
    entries(stays, "hits/0", 1)


def test_without_scripts_there_are_pictures_with_the_same_data_in_turn(viewer: Open, room: Any) -> None:
    page = viewer("/?rotate=20", java_script_enabled=False)
    image = page.locator("noscript img, .plots img").first
    expect(image).to_be_visible()
    assert page.evaluate("() => Array.from(document.images).every((image) => image.naturalWidth === 800)")
    refresh = page.locator("meta[http-equiv=refresh]").get_attribute("content")
    assert refresh.startswith("20; url=") and "at=c%3ATimes" in refresh
    page.locator("noscript a.button").nth(1).click()
    expect(page.get_by_role("heading", name="Times")).to_be_visible()
    expect(page.get_by_text("7 = 4 done + 1 failed + 2 pending")).to_be_visible()


def test_without_jsroot_plots_are_pictures_that_follow_the_data(browser: Any, tmp_path: Path) -> None:
    with online_room.room(tmp_path, jsroot=tmp_path / "missing.js") as room:
        room.plot("6008", "hits/0", 7)
        room.wait(lambda: room.json("/healthz")["plots"] == 1, "the plot")
        page = browser.new_page()
        page.goto(room.url + "/?reload=0.2")
        expect(page.get_by_text("python3 deploy/jsroot.py")).to_be_visible()
        image = plot(page, "hits/0").locator("img")
        expect(image).to_have_js_property("naturalWidth", 800)
        before = image.get_attribute("src")
        room.plot("6008", "hits/0", 9)
        expect(plot(page, "hits/0").locator(".facts-line")).to_contain_text("9 entries")
        assert image.get_attribute("src") != before
        page.close()


def test_search_refreshes_itself_and_finds_while_one_types(viewer: Open, room: Any) -> None:
    page = viewer("/search?q=hits")
    expect(page.locator(".small li")).to_have_count(2)
    page.wait_for_function("() => Array.from(document.querySelectorAll('.small img')).every((i) => i.naturalWidth)")
    page.evaluate("window.mark = 'the same page'")
    room.plot("6008", "hits/0", 99, quality="bad")
    expect(page.locator("#plot-hits\\/0, [id='plot-hits/0']")).to_contain_text("99 entries", timeout=15_000)
    page.fill("#q", "time")
    expect(page.locator(".small li")).to_have_count(1)
    assert page.evaluate("window.mark") == "the same page"
    assert page.url.endswith("q=time")
    page.locator(".small .what a").click()
    expect(page.locator("#canvas")).to_have_text("time/0")


@needs_jsroot
def test_two_runs_side_by_side_and_over_each_other(viewer: Open, room: Any) -> None:
    room.begin("6009")
    room.plot("6009", "hits/0", 70)
    room.wait(lambda: room.shown("6009", "hits/0") == 70, "the second run")
    page = viewer("/runs")
    page.get_by_text("beside 6009").click()
    sheets = page.locator("[data-name='hits/0'] .plot")
    expect(sheets).to_have_count(2)
    expect(sheets.nth(0).locator("svg g[objtype='TH1D']")).to_have_count(1)
    page.select_option("select[name=how]", "over")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("[data-name='hits/0'] .plot")).to_have_count(1)
    expect(page.locator("[data-name='hits/0'] .draw").first.locator("g[objtype='TH1D']")).to_have_count(2)


@needs_jsroot
def test_a_hostile_name_title_and_help_are_text_everywhere(viewer: Open, room: Any) -> None:
    room.begin(HOSTILE)
    room.plot(HOSTILE, "hits/0", 3, title=HOSTILE, help=HOSTILE, description=HOSTILE, keywords=(HOSTILE,),
              verdict={"sentence": HOSTILE}, quality="bad")  # fmt: skip
    page = viewer("/?help=1")
    expect(page.locator("#run")).to_have_text(HOSTILE)
    expect(plot(page, "hits/0").locator(".title")).to_have_text(HOSTILE)
    expect(page.locator("#helps h3")).to_have_text(HOSTILE)
    entries(page, "hits/0", 3)
    for path in ("/search", "/runs", "/compare"):
        page.goto(room.url + path)
        expect(page.locator("main")).to_contain_text(HOSTILE if path != "/compare" else "Run")
    assert page.locator("img[src='x']").count() == 0


@needs_jsroot
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_scrolling_sideways(viewer: Open, scheme: str) -> None:
    page = viewer("/", viewport={"width": 390, "height": 844}, color_scheme=scheme)
    entries(page, "hits/0", 7)
    for path in ("", "/search", "/runs", "/runs/6008"):
        if path:
            page.goto(page.url.split("/", 3)[0] + "//" + page.url.split("/", 3)[2] + path)
        assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 1
