"""``run``: one step on one document, by hand."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.context import Context, SiteCommand, json_option, pass_site

if TYPE_CHECKING:
    from orchestrator.documents import Report


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
    trying out a step. Time and memory limits hold only in pollers. Ends with 1 if the step failed.
    """
    from orchestrator import byhand

    found = site.chain.step(step)
    progress = _Progress(found.name, quiet=site.as_json or site.verbosity < 0)
    if no_record:
        path = Path(document).absolute()
        made = _from_json(path) if path.suffix == ".json" else byhand.document_of(path, site.settings, site.chain)
        source = str(made.get("file") or path) if path.suffix == ".json" else str(path)
        report = byhand.on_file(site.chain, found, made, source, site.settings, progress)
    else:
        report = byhand.on_document(site.chain, found, site.database, document, site.settings, progress)
    progress.end()
    if site.as_json:
        site.output.json(report.to_json())
    else:
        _show(site, report)
    return 0 if report.ok else 1


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


def _show(site: Context, report: Report) -> None:
    from orchestrator.cli.output import age, size

    out = site.output
    took = f"{age(report.seconds)}, {age(report.cpu_seconds)} of processor, {size(report.max_rss)} of memory at most"
    if report.ok:
        out.line(f"{report.step} of {report.document}: done ({took})", style="green")
        for name, value in report.result.items():
            text = value if isinstance(value, str) else json.dumps(value)
            out.line(f"  {name:12} {text if len(text) < 100 else text[:97] + '...'}")
        return
    out.line(f"{report.step} of {report.document}: failed, class {report.error_class} ({took})", style="red")
    out.line(f"  {report.reason}")
    if report.log:
        out.line(f"  log: {report.log}")


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
