"""``status``: how far everything is, by step and state."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.context import Context, SiteCommand, branch_option, json_option, pass_site

if TYPE_CHECKING:
    from rich.console import RenderableType

    from orchestrator.chain import Chain
    from orchestrator.overview import Overview


@click.command(cls=SiteCommand, short_help="Count documents by step and state.")
@click.option("--watch", is_flag=True, help="Show it anew until Ctrl-C.")
@click.option("--every", default=2.0, show_default=True, metavar="SECONDS", help="How often, with --watch.")
@branch_option
@json_option
@pass_site
def status(site: Context, watch: bool, every: float, branch: str) -> None:
    """Count the documents by step and state, with the age of the oldest that waits: of every lane and gather.

    With --branch only of that one.
    """
    from orchestrator.engine import controls

    chain = site.chain
    branches = [branch] if branch else ["", *chain.branches()]
    stopped = controls.read_all(site.database, chain)
    if site.as_json:
        site.output.json(_as_json(site, branches) | {"control": {name: one.to_json() for name, one in stopped.items()}})
        return
    for name, control in stopped.items():
        for stop in control.stops:
            click.echo(f"orchestrator: {stop.words(name)}", err=True)
    where = f"{site.settings.database} at {site.settings.url}"
    if not watch:
        site.output.console.print(_all(site, branches, where))
        return
    from rich.live import Live

    never = threading.Event()
    with Live(_all(site, branches, where), console=site.output.console, auto_refresh=False) as live:
        while not never.wait(max(0.1, every)):
            live.update(_all(site, branches, where), refresh=True)


def _as_json(site: Context, branches: list[str]) -> dict[str, Any]:
    """The first of them, and the others under ``branches``."""
    from orchestrator import overview

    found = {}
    for name in branches:
        chain, database, _ = site.branch(name)
        found[name] = overview.read(database, chain).to_json(chain)
    first, *others = branches
    return {**found[first], "branches": {name: found[name] for name in others}}


def _all(site: Context, branches: list[str], where: str) -> RenderableType:
    """A table for each lane and gather."""
    from rich.console import Group

    from orchestrator import overview

    parts = []
    for name in branches:
        chain, database, _ = site.branch(name)
        parts.append(picture(overview.read(database, chain), chain, where))
    return Group(*parts)


def picture(found: Overview, chain: Chain, where: str) -> RenderableType:
    """The overview as a table with a line above it."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from orchestrator.cli.output import STYLES, age
    from orchestrator.overview import STATES

    counts = ", ".join(f"{count} {name}" for name, count in found.statuses.items()) or "none yet"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("")
    table.add_column("step")
    for state in STATES:
        table.add_column("running" if state == "in progress" else state, justify="right", no_wrap=True)
    table.add_column("oldest", justify="right", no_wrap=True)
    now = time.time()
    for step in chain.steps:
        numbers = found.steps.get(step.key, {})
        cells = [
            Text(str(numbers.get(state, 0) or "."), style=STYLES.get(state, "") if numbers.get(state) else "dim")
            for state in STATES
        ]
        oldest = age(now - found.oldest[step.key]) if step.key in found.oldest else ""
        table.add_row(step.key, step.name, *cells, oldest)
    branch = chain.branch
    if branch.name:
        kind = "lane" if branch.lane else "gather"
        head = Text.assemble((f"{kind} {branch.name}", "bold"), f": {found.documents} documents ({counts})")
    else:
        head = Text.assemble((where, "bold"), f", chain {chain.name}: {found.documents} documents ({counts})")
    return Group(head, table)
