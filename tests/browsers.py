"""Debian's browser, without a window, for tests of pages. Who imports this is skipped where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path("/usr/bin/chromium")
#: It draws by the processor, and asks nobody outside for anything.
ARGUMENTS = ["--no-sandbox", "--headless", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip

marks = [
    pytest.mark.system,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's browser: apt-get install chromium"),
]
playwright = pytest.importorskip("playwright.sync_api", reason="needs the test extra: pip install -e '.[test]'")
expect = playwright.expect


@contextmanager
def chromium() -> Iterator[Any]:
    """The browser, as playwright has it."""
    with playwright.sync_playwright() as driver:
        made = driver.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield made
        made.close()
