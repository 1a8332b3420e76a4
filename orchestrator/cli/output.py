"""How results are shown: tables on a terminal, tab-free plain text in a pipe, JSON where asked.

Colours follow NO_COLOR and whether there is a terminal (rich does both). Words of documents come from outside:
nothing of them is read as markup, and control characters do not reach the terminal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

STYLES = {
    **dict.fromkeys(("done", "good", "ok", "running"), "green"),
    **dict.fromkeys(("failed", "refused", "bad", "problem", "given up"), "red"),
    **dict.fromkeys(("in progress", "queued"), "cyan"),
    "warning": "yellow",
}


class Output:
    """Prints tables, lines or JSON to standard output."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        from rich.console import Console

        self.as_json = as_json
        self.quiet = quiet
        self.console = Console(highlight=False, emoji=False, soft_wrap=not sys.stdout.isatty())

    def json(self, data: Any) -> None:
        """Print ``data`` as JSON."""
        sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False, default=str) + "\n")

    def line(self, text: str = "", style: str = "") -> None:
        """Print a line (not where JSON is wanted, nor with -q)."""
        if not self.as_json and not self.quiet:
            self.console.print(plain(text), style=style or None, markup=False)

    def table(self, headings: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Sequence[int] = ()) -> None:
        """Print a table; cells that are words of a state are coloured. ``right``: columns aligned to the right."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD if sys.stdout.isatty() else None, header_style="bold", pad_edge=False)
        for number, heading in enumerate(headings):
            table.add_column(heading, justify="right" if number in right else "left", overflow="fold")
        for row in rows:
            cells = [plain(str(cell)) for cell in row]
            table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in cells))
        self.console.print(table)


def plain(text: str) -> str:
    """Text without control characters, which could rewrite a terminal; tabs and newlines stay."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def age(seconds: float) -> str:
    """A span of time for people: ``12 s``, ``4 min``, ``3.5 h``, ``2.1 d``."""
    if seconds < 0:
        return "0 s"
    for limit, factor, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            value = seconds / factor
            return f"{value:.1f} {unit}" if value < 10 and unit != "min" else f"{value:.0f} {unit}"
    return f"{seconds / 86400:.1f} d"


def size(count: float) -> str:
    """An amount of bytes for people, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
