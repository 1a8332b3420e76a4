"""``show``: a single document, looked at."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.context import Context, SiteCommand, json_option, pass_site

if TYPE_CHECKING:
    from orchestrator.chain import Chain
    from orchestrator.cli.output import Output


@click.command(cls=SiteCommand, short_help="Show all about one document.")
@click.argument("document")
@click.option("--log", is_flag=True, help="Show the end of the last attempt's log too.")
@json_option
@pass_site
def show(site: Context, document: str, log: bool) -> None:
    """Show all about one document: its file, its steps, its attempts, and why it is not further."""
    from orchestrator.reasons import why

    found = site.database.get(document)
    rows = site.database.view("pages/attempts", startkey=[document], endkey=[document, {}], include_docs=True).rows
    attempts = [row.doc for row in rows if row.doc]
    if site.as_json:
        site.output.json({"document": found, "attempts": attempts, "why": why(site.chain, found, time.time())})
        return
    _head(site.output, found)
    site.output.line(f"  why      {why(site.chain, found, time.time())}")
    _steps(site.output, found, site.chain, site.settings.folder)
    if attempts:
        site.output.line("Attempts that did not succeed", style="bold")
        site.output.table(
            ("step", "no.", "class", "when", "host", "reason"),
            [
                (
                    a.get("step"),
                    a.get("number"),
                    a.get("error_class"),
                    a.get("finished"),
                    a.get("host"),
                    a.get("reason"),
                )
                for a in attempts
            ],
        )
        if log:
            site.output.line(str(attempts[-1].get("log_tail") or "(no log was kept)"))
    header = found.get("header")
    if isinstance(header, dict) and header:
        site.output.line(f"Header: {len(header)} values (`orchestrator show --json` prints them)")


def _head(out: Output, document: dict[str, Any]) -> None:
    from orchestrator.cli.output import STYLES, size

    status = str(document.get("status"))
    out.line(f"{document['_id']}: {status}", style=STYLES.get(status, "bold"))
    amount = f" ({size(document['size'])})" if isinstance(document.get("size"), int) else ""
    out.line(f"  file     {document.get('file')}{amount}")
    out.line(f"  run      {document.get('run_name')}, file number {document.get('file_number')}")
    out.line(f"  from     {document.get('hostname')}, registered {document.get('registered')}")


def _steps(out: Output, document: dict[str, Any], chain: Chain, folder: Path) -> None:
    from orchestrator.cli.output import age

    rows = []
    for step in chain.steps:
        entry = document.get(step.key)
        entry = entry if isinstance(entry, dict) else {}
        seconds = entry.get("seconds")
        rows.append(
            (
                step.key,
                step.name,
                entry.get("state", "-"),
                age(seconds) if isinstance(seconds, int | float) else "",
                entry.get("host", ""),
                entry.get("reason") or str(entry.get("file") or "").removeprefix(f"{folder}/"),
            )
        )
    out.table(("", "step", "state", "took", "host", "file or reason"), rows, right=(3,))
