"""``show`` and ``explain``: a single document, looked at."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.context import Context, SiteCommand, branch_option, json_option, pass_site

if TYPE_CHECKING:
    from orchestrator.chain import Chain
    from orchestrator.cli.output import Output
    from orchestrator.explain import Explanation


@click.command(cls=SiteCommand, short_help="Show all about one document.")
@click.argument("document")
@click.option("--log", is_flag=True, help="Show the end of the last attempt's log too.")
@json_option
@pass_site
def show(site: Context, document: str, log: bool) -> None:
    """Show all about one document: its file, its steps, its attempts, and why it is not further."""
    from orchestrator.engine import controls
    from orchestrator.engine.gathered import gather_of, standing
    from orchestrator.reasons import why

    found = site.database.get(document)
    stopped, now = controls.read_all(site.database, site.chain), time.time()
    gather = gather_of(site.chain, found)
    chain = site.chain.of(gather)
    sentence = why(chain, found, now, stopped)
    lanes = {}
    for name in site.chain.lanes if found.get("type") == site.chain.type else ():
        lane = site.chain.of(name)
        lanes[name] = lane, lane.branch.inward(found, site.chain.type) or {}
    said = standing(site.database.view, site.chain, found) if gather else None
    rows = site.database.view("pages/attempts", startkey=[document], endkey=[document, {}], include_docs=True).rows
    attempts = [row.doc for row in rows if row.doc]
    if site.as_json:
        more = {"lanes": {name: why(lane, seen, now, stopped) for name, (lane, seen) in lanes.items()}} if lanes else {}
        more |= {"gathered": said.to_json()} if said is not None else {}
        site.output.json({"document": found, "attempts": attempts, "why": sentence, **more})
        return
    _head(site.output, found)
    if said is not None:
        members = found.get("members")
        count = len(members) if isinstance(members, list) else 0
        site.output.line(f"  made of  {count} documents, by the gather {gather}")
        if said.stale:
            site.output.line(f"  old      {said.stale}")
    site.output.line(f"  why      {sentence}")
    _steps(site.output, found, chain, site.settings.folder)
    for name, (lane, seen) in lanes.items():
        site.output.line(f"Lane {name}: {seen.get('status')}", style="bold")
        site.output.line(f"  why      {why(lane, seen, now, stopped)}")
        _steps(site.output, seen, lane, site.settings.folder)
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
    if document.get("file") is not None:
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


@click.command(cls=SiteCommand, short_help="Say why a document does not go on.")
@click.argument("document")
@click.argument("step", required=False)
@branch_option
@json_option
@pass_site
def explain(site: Context, document: str, step: str | None, branch: str) -> None:
    """Say why DOCUMENT does not go on, or why it is not at STEP: the condition that does not hold, and what to do.

    Who owns the step, who would take it and whether he is alive, what people have paused, what the farm says, and every
    attempt that did not succeed, with the end of the last one's log.
    """
    from orchestrator.facts import explained

    chain, database, _ = site.branch(branch)
    found = database.get(document)
    asked = chain.step(step) if step else None
    why = explained(database, chain, found, site.settings.site, site.settings.lease, time.time(), asked,
                    site.settings.spool)  # fmt: skip
    if site.as_json:
        site.output.json(why.to_json())
        return
    site.output.line(f"{why.document}: {why.status}", style="bold")
    _explain(site.output, why, "  ")


def _explain(out: Output, why: Explanation, indent: str) -> None:
    """Print an explanation, and below it that of the step which must come first."""
    out.line(f"{indent}why      {why.sentence} [{why.cause}]")
    if why.owner:
        out.line(f"{indent}owner    {why.owner}")
    for number, taker in enumerate(why.takers):
        out.line(f"{indent}{'served by' if not number else '         '} {taker.words()}")
    for note in why.notes:
        out.line(f"{indent}note     {note}")
    if why.operation:
        out.line(f"{indent}person   {why.operation}")
    for one in why.attempts:
        what = f"{one['step']} no. {one['number']}: {one['state']} ({one['error_class']})"
        out.line(f"{indent}attempt  {what} on {one['host']} at {one['finished']}: {one['reason']}")
    if why.log:
        out.line(f"{indent}the end of its log:")
        for line in why.log.splitlines():
            out.line(f"{indent}  | {line}")
    if why.because is not None:
        out.line(f"{indent}and {why.because.step or 'that one'}:")
        _explain(out, why.because, indent + "  ")
        return
    for advice in why.next:
        out.line(f"{indent}next     {advice}", style="bold")
