"""``couchapp push``, ``diff`` and ``show``: the design documents that come from the chain."""

from __future__ import annotations

import click

from orchestrator.cli.context import Context, SiteGroup, json_option, pass_site


@click.group(cls=SiteGroup, short_help="Push, compare or show the design documents.")
def couchapp() -> None:
    """Deploy the chain's design documents (filters, views, validation), or compare them."""


@couchapp.command(short_help="Put the design documents into the database.")
@json_option
@pass_site
def push(site: Context) -> None:
    """Make the database if need be and put the chain's design documents into it.

    What is unchanged is not written. New views are built under a staging name first, so that pollers and pages never
    wait.
    """
    from orchestrator.pushing import push as push_couchapp

    results = push_couchapp(site.server, site.settings, site.chain)
    if site.as_json:
        site.output.json(dict(results))
        return
    for name, what in results:
        site.output.line(f"{what:10} {name}")


@couchapp.command(short_help="Compare the database with the chain.")
@json_option
@pass_site
def diff(site: Context) -> int:
    """Show how the database's design documents differ from the chain's. Ends with 1 if they do."""
    from orchestrator.couch import deploy
    from orchestrator.designs import build

    text = deploy.diff(site.database, build(site.chain))
    if site.as_json:
        site.output.json({"differs": bool(text), "diff": text})
    site.output.line(text or "up to date")
    return 1 if text else 0


@couchapp.command(short_help="Print what would be pushed.")
@click.argument("names", nargs=-1)
@json_option
@pass_site
def show(site: Context, names: tuple[str, ...]) -> None:
    """Print the design documents that the chain gives (all, or those named), as they would be pushed."""
    from orchestrator.designs import build
    from orchestrator.errors import NotFound
    from orchestrator.settings import suggest

    designs = build(site.chain)
    wanted = [name if name.startswith("_design/") else f"_design/{name}" for name in names] or list(designs)
    for name in wanted:
        if name not in designs:
            raise NotFound(f"the chain has no design document {name!r}.{suggest(name, list(designs))}")
    if site.as_json:
        site.output.json({name: designs[name] for name in wanted})
        return
    for name in wanted:
        site.output.line(name, style="bold")
        for part in ("views", "filters"):
            for key, value in sorted(designs[name].get(part, {}).items()):
                site.output.line(f"  {part[:-1]} {key}")
                source = value if isinstance(value, str) else value.get("map", "")
                for line in str(source).strip().splitlines():
                    site.output.line(f"      {line}")
        if "validate_doc_update" in designs[name]:
            site.output.line("  validate_doc_update")
