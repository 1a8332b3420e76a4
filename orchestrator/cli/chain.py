"""``chain check`` and ``chain show``: the chain file, validated and laid out."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli.context import Context, SiteGroup, json_option, pass_site

FILE = click.argument("file", required=False, type=click.Path(path_type=Path))


@click.group(cls=SiteGroup)
def chain() -> None:
    """Check or show the chain file."""


@chain.command(short_help="Check a chain file and its steps.")
@FILE
@json_option
@pass_site
def check(site: Context, file: Path | None) -> None:
    """Check a chain file (default: the site's) and that its steps can be loaded."""
    from orchestrator import chain as chains
    from orchestrator.checks import step_fault
    from orchestrator.errors import ChainError

    settings = site.settings  # puts the site's folder on the path that steps are loaded from
    path = file or settings.chain
    found = chains.load(path)
    faults = [fault for step in found.steps if (fault := step_fault(step))]
    if faults:
        raise ChainError("\n".join(f"{path}: {fault}" for fault in faults))
    if site.as_json:
        site.output.json({"ok": True, "file": str(path), "name": found.name, "steps": [s.name for s in found.steps]})
    site.output.line(f"{path}: in order ({found.name}: {', '.join(step.name for step in found.steps)})")


@chain.command(short_help="Show the steps of a chain file.")
@FILE
@json_option
@pass_site
def show(site: Context, file: Path | None) -> None:
    """Show the steps of a chain file (default: the site's) with what they run, need and may use."""
    from orchestrator import chain as chains
    from orchestrator.cli.output import age, size

    found = chains.load(file or site.settings.chain)
    if site.as_json:
        site.output.json(found.model_dump(mode="json") | {"fingerprint": found.fingerprint()})
        return
    out = site.output
    out.line(f"{found.name}: {found.description or 'no description'} (documents of type {found.type})", style="bold")
    rows = []
    for step in found.steps:
        limits = [age(step.time_limit)] if step.time_limit else []
        limits += [size(step.memory_limit)] if step.memory_limit else []
        rows.append(
            (
                step.key,
                step.name,
                step.run or " ".join(step.command or ()),
                step.site,
                ", ".join(need.name for need in found.needs(step)) or "-",
                ", ".join(limits) or "-",
                f"{step.retries.count} after {age(step.retries.wait)}",
            )
        )
    out.table(("keyword", "step", "runs", "site", "needs", "limits", "retries"), rows)
