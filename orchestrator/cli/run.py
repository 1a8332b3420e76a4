"""``run``: one step on one document, by hand."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.context import Context, SiteCommand, json_option, pass_site

if TYPE_CHECKING:
    from orchestrator.byhand import Outcome


@click.command(cls=SiteCommand, short_help="Run one step on one document, here and now.")
@click.argument("step")
@click.argument("document")
@click.option(
    "--no-record",
    "--dry-run",
    "no_record",
    is_flag=True,
    help="Use no database: DOCUMENT is a file (raw, or a document as JSON); nothing is recorded.",
)
@json_option
@pass_site
def run(site: Context, step: str, document: str, no_record: bool) -> int:
    """Run STEP on DOCUMENT here and now, as a poller would: claimed before, recorded after.

    With --no-record, DOCUMENT is a raw file, or a file with a document in JSON (`orchestrator show --json`): for
    trying out a step; its time and memory limits do not hold then. Ends with 1 if the step was not done.
    """
    from orchestrator import byhand

    found = site.chain.step(step)
    progress = _Progress(found.name, quiet=site.as_json or site.verbosity < 0)
    if no_record:
        path = Path(document).absolute()
        made = _from_json(path) if path.suffix == ".json" else byhand.document_of(path, site.settings, site.chain)
        source = str(made.get("file") or path) if path.suffix == ".json" else str(path)
        outcome = byhand.on_file(site.chain, found, made, source, site.settings, progress)
    else:
        outcome = byhand.on_document(site.chain, found, site.database, document, site.settings)
    progress.end()
    if site.as_json:
        site.output.json(asdict(outcome))
    else:
        _show(site, outcome)
    return 0 if outcome.ok else 1


def _from_json(path: Path) -> dict[str, object]:
    from orchestrator.errors import SettingsError

    try:
        made = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: no document can be read from it: {error}") from None
    if not isinstance(made, dict):
        raise SettingsError(f"{path}: a document is an object with names and values, this is not")
    inner = made.get("document")
    return inner if isinstance(inner, dict) else made  # as `show --json` prints it


def _show(site: Context, outcome: Outcome) -> None:
    from orchestrator.cli.output import age, size

    out, facts = site.output, outcome.facts
    took = ""
    if facts:
        took = f" ({age(facts['seconds'])}, at most {size(facts.get('max_rss') or 0)} of memory)"
    subject = f"{outcome.step} of {outcome.document}"
    if outcome.ok:
        out.line(f"{subject}: done{took}", style="green")
        for name, value in facts.get("result", {}).items():
            text = value if isinstance(value, str) else json.dumps(value)
            out.line(f"  {name:12} {text if len(text) < 100 else text[:97] + '...'}")
    else:
        kind = f", class {outcome.error_class}" if outcome.error_class else ""
        out.line(f"{subject}: {outcome.state}{kind}{took}", style="red")
        out.line(f"  {outcome.reason}")
    for name in ("file", "log"):
        if facts.get(name):
            out.line(f"  {name:12} {facts[name]}")


class _Progress:
    """Shows on one line of a terminal how far the step is; silent in a pipe."""

    def __init__(self, name: str, quiet: bool) -> None:
        self._name = name
        self._shows = not quiet and sys.stderr.isatty()
        self._next = 0.0
        self._used = False

    def __call__(self, fraction: float, text: str = "") -> None:
        if self._shows and time.monotonic() >= self._next:
            self._next = time.monotonic() + 0.1
            self._used = True
            click.echo(f"\r{self._name} {fraction:6.1%} {text:40.40}", nl=False, err=True)

    def end(self) -> None:
        """Leave a clean line."""
        if self._used:
            click.echo("\r" + " " * 70 + "\r", nl=False, err=True)
