"""The real MICE file, through everything, to what a shifter sees in a browser."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from orchestrator.web.online.app import JSROOT
from tests.browsers import chromium, expect, marks

SHARED = Path(os.environ.get("ORCHESTRATOR_SHARED_DATA", Path(__file__).parents[4] / "shared" / "data"))
MICE = SHARED / "mice_06008.000"

pytestmark = [
    *marks,
    pytest.mark.skipif(not MICE.exists(), reason="needs the folder of real files: set ORCHESTRATOR_SHARED_DATA"),
    pytest.mark.skipif(not JSROOT.exists(), reason="needs JSROOT, by npm: python3 deploy/jsroot.py"),
]

#: Entries of what is drawn on the screen, by JSROOT's own count.
DRAWN = """(name) => { const cell = window.room.cells.get(name);
    return cell && !cell.busy && cell.painters ? cell.painters.main.getHisto().fEntries : -1 }"""


def test_its_hits_and_triggers_are_on_the_screen_and_stay_when_the_display_is_killed(online: Any) -> None:
    online.online |= {
        "input": {"module": "procs.online.inputs.date:DateInput", "settings": {"files": str(MICE)}},
        "map": [{"module": "procs.online.maps.date:Decode", "settings": {"waveforms": False}}],
        "reduce": [{"name": "tdc", "module": "procs.online.reducers.tdc:TdcHits"}],
        "canvases": [{"name": "TDC", "plots": ["tdc/hits/*", "tdc/triggers/*"]}],
    }
    online.online["workers"]["local"] = 1
    online.start()
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(60_000)
        page.goto(f"http://127.0.0.1:{online.online['web_port']}/")
        for name, count in (("tdc/hits/LDC_1", 7056), ("tdc/triggers/LDC_1", 4 * 882)):
            page.wait_for_function(f"([name, count]) => ({DRAWN})(name) === count", arg=[name, count])
        expect(page.locator("#run")).to_have_text("6008")
        expect(page.locator("#counts")).to_have_text("6 = 6 done + 0 failed + 0 pending", timeout=60_000)
        expect(page.locator("#sentence")).to_contain_text("Run 6008 has ended", timeout=60_000)
        assert online.kill("online", "display")
        expect(page.locator("#live")).to_have_attribute("data-state", "away")
        assert page.evaluate(DRAWN, "tdc/hits/LDC_1") == 7056
        expect(page.locator("#live")).to_have_attribute("data-state", "live", timeout=60_000)
        expect(page.locator("#counts")).to_have_text("6 = 6 done + 0 failed + 0 pending", timeout=60_000)
        page.click("#reload")
        page.wait_for_function(f"(name) => ({DRAWN})(name) === 7056", arg="tdc/hits/LDC_1")
    online.stop()
