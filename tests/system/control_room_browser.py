"""A display, a browser and viewers, for the tests of the control room in a real browser.

PYTEST_DONT_REWRITE: it is imported before it is a plugin.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "orchestrator" / "web" / "online"))
import online_room

from orchestrator.web.online.app import JSROOT
from orchestrator.web.serve import bind
from tests.browsers import chromium, expect

expect.set_options(timeout=20_000)  # a machine that is busy with other tests draws late

needs_jsroot = pytest.mark.skipif(not JSROOT.exists(), reason="needs JSROOT, by npm: python3 deploy/jsroot.py")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as made:
        yield made


@pytest.fixture(scope="module")
def port() -> int:
    """One for all tests, so that the browser keeps JSROOT, as it does for people."""
    with bind("127.0.0.1", 0) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def usual(browser: Any) -> Iterator[Any]:
    """What a viewer's browser is, unless a test wants another one."""
    made = browser.new_context(viewport={"width": 1400, "height": 900})
    yield made
    made.close()


@pytest.fixture
def room(tmp_path: Path, port: int) -> Iterator[online_room.Room]:
    with online_room.room(tmp_path, port=port) as made:
        made.begin("6008")
        made.counts("6008", 7, 4, 1, 2, workers={"w1": "busy", "w2": "busy"})
        for name in ("hits/0", "hits/1"):
            made.plot("6008", name, 7, quality="good", help="flat within 10 %", reference=name == "hits/1")
        made.plot("6008", "time/0", 7, help="a peak at zero")
        made.plot("6008", "map", 7, two=True)
        made.wait(lambda: made.json("/healthz")["plots"] == 4, "the plots")
        yield made


Open = Callable[..., Any]


@pytest.fixture
def viewer(browser: Any, usual: Any, room: online_room.Room) -> Iterator[Open]:
    """Opens pages; a page that logs an error fails its test, but for connections that a test cuts."""
    opened: list[Any] = []
    faults: list[str] = []

    def heard(text: str) -> None:
        if not any(word in text for word in ("ERR_", "GL Driver", "status of 400")):
            faults.append(text)

    def made(path: str = "/", **options: Any) -> Any:
        context = browser.new_context(**options) if options else usual
        page = context.new_page()
        opened.append(context if options else page)
        page.on("console", lambda said: heard(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(room.url + path)
        return page

    yield made
    for one in opened:
        one.close()
    assert not faults


def plot(page: Any, name: str) -> Any:
    return page.locator(f".plot[data-plot='{name}']")


def entries(page: Any, name: str, count: int) -> None:
    """Wait until a plot shows so many entries, and is drawn with them."""
    words = "1 entry" if count == 1 else f"{count} entries"
    expect(plot(page, name).locator(".facts-line")).to_contain_text(words, timeout=15_000)
    page.wait_for_function(
        "([name, count]) => { const cell = window.room.cells.get(name);"
        " return cell && !cell.busy && cell.painters && cell.painters.main.getHisto().fEntries === count }",
        arg=[name, count], timeout=15_000,
    )  # fmt: skip


def zoomed(page: Any, name: str) -> list[float]:
    frame = "window.room.cells.get(name).painters.main.getFramePainter()"
    return list(page.evaluate(f"(name) => [{frame}.zoom_xmin, {frame}.zoom_xmax]", name))


def zoom(page: Any, name: str) -> None:
    """As a person does: drag over a part of the axis."""
    box = plot(page, name).locator(".draw").first.bounding_box()
    x, y = box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.3
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y + 30, steps=4)
    page.mouse.move(x + 120, y + 60, steps=4)
    page.mouse.up()
    page.wait_for_function(
        "(name) => { const f = window.room.cells.get(name).painters.main.getFramePainter();"
        " return f.zoom_xmin !== f.zoom_xmax }", arg=name,
    )  # fmt: skip
