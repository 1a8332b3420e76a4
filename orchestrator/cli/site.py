"""``init``, ``settings`` and ``version``: a site's folder and what it is set to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from orchestrator.cli.context import Context, SiteCommand, json_option, pass_site


@click.command(cls=SiteCommand, short_help="Make a site: its folder, settings and chain.")
@click.argument("folder", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.option("--chain", "chain_name", default="samba", show_default=True, metavar="NAME|FILE",
              help="Chain to begin with: an example's name, or a file. `--list` shows the examples.")  # fmt: skip
@click.option("--list", "list_", is_flag=True, help="List the example chains and end.")
@json_option
@pass_site
def init(site: Context, folder: Path | None, chain_name: str, list_: bool) -> None:
    """Make a site: a folder with orchestrator.yaml, chain.yaml and the directories that they name.

    What exists already is left as it is.
    """
    from orchestrator import newsite

    if list_:
        examples = newsite.examples()
        if site.as_json:
            site.output.json({name: str(path) for name, path in examples.items()})
            return
        site.output.table(("name", "what it does"), [(n, newsite.description(p)) for n, p in examples.items()])
        return
    made = newsite.make(folder or site.folder, chain_name)
    if site.as_json:
        site.output.json({"folder": str(made.folder), "made": made.made, "kept": made.kept})
        return
    out = site.output
    out.line(f"The site is in {made.folder}", style="bold")
    for name in made.made:
        out.line(f"  made  {name}")
    for name in made.kept:
        out.line(f"  kept  {name} (was there already)")
    where = "" if made.folder == Path.cwd() else f" -C '{made.folder}'"
    out.line(f"Next: `orchestrator{where} check`, then `orchestrator{where} up`.")


@click.command(cls=SiteCommand, short_help="Print every setting and where it comes from.")
@json_option
@pass_site
def settings(site: Context) -> None:
    """Print every setting with its value and where that came from. Secrets are never shown."""
    import os

    found = site.settings
    logins = [name for name in ("ORCHESTRATOR_COUCH_USER", "ORCHESTRATOR_COUCH_PASSWORD") if name in os.environ]
    if site.as_json:
        rows: dict[str, Any] = {
            row.name: {"value": value, "source": source, "unit": row.unit, "help": row.help}
            for row, value, source in found.rows()
        }
        site.output.json({"folder": str(found.folder), "settings": rows, "logins_in_environment": logins})
        return
    from orchestrator.cli.output import age

    def shown(value: Any, unit: str) -> str:
        if isinstance(value, list):
            return ", ".join(map(str, value)) or "none"
        if isinstance(value, dict):
            return ", ".join(f"{name}: {item}" for name, item in value.items()) or "-"
        return age(value) if unit == "s" else f"{value:g} {unit}" if unit else str(value)

    out = site.output
    out.line(f"The site in {found.folder}", style="bold")
    out.table(
        ("setting", "value", "source"),
        [(row.name, shown(value, row.unit), source) for row, value, source in found.rows()],
    )
    for name in logins:
        out.line(f"{name} is set (not shown)")


@click.command(cls=SiteCommand, short_help="Print the versions of what matters.")
@json_option
@pass_site
def version(site: Context) -> None:
    """Print the versions of the orchestrator, Python and the libraries that matter."""
    import platform
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    from orchestrator.version import VERSION

    versions = {"orchestrator": VERSION, "python": platform.python_version(), "system": platform.platform()}
    for name in ("CouchDB", "pydantic", "uproot", "numpy", "fastapi", "quickjs-ng"):
        try:
            versions[name] = installed(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    if site.as_json:
        site.output.json(versions)
        return
    for name, value in versions.items():
        site.output.line(f"{name:14} {value}")
