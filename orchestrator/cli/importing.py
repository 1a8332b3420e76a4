"""``import``: documents of another run database, brought into this one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.context import Context, SiteCommand, json_option, pass_site

if TYPE_CHECKING:
    from orchestrator.importing import Report


@click.command("import", cls=SiteCommand, short_help="Bring in the documents of an older run database.")
@click.argument("source")
@click.option("--database", "name", help="The database's name at the server SOURCE.")
@click.option(
    "--credentials",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File with the login for SOURCE, mode 0600. Default: none.",
)
@click.option("--rules", default="procs.edelweiss:translate", show_default=True, metavar="MODULE:FUNCTION",
              help="What an old document is in today's words.")  # fmt: skip
@click.option("--write", is_flag=True, help="Do it. Without this nothing is written, and all is said.")
@json_option
@pass_site
def import_(site: Context, source: str, name: str | None, credentials: Path | None, rules: str, write: bool) -> int:
    """Bring in the documents of an older run database.

    SOURCE is the URL of a CouchDB server (with --database), or a file: a document a line, or an answer of
    `_all_docs?include_docs=true`. The default rules read databases as Edelweiss kept them. Without --write this is a
    dry run. Nothing of a document is lost: what changes is kept in it under `imported`; only logins are left out.

    The source is not changed. It may be begun again: what is there already is passed over. Needs an admin's account.
    """
    from orchestrator import importing
    from orchestrator.documents import iso
    from orchestrator.step import find

    translate = find(rules)
    pages, told = _pages(source, name, credentials)
    chain = site.chain
    now = time.time()
    report = importing.run(
        pages, site.database, translate, {step.number: step.name for step in chain.steps}, data_type=chain.type,
        source=told, by=_who(site), now=now, write=write, progress=lambda count: _progress(site, count),
    )  # fmt: skip
    if site.as_json:
        site.output.json({**report.to_json(), "at": iso(now)})
    else:
        _show(site, report)
    return 1 if report.refused else 0


def _pages(source: str, name: str | None, credentials: Path | None) -> tuple[Iterator[list[dict[str, Any]]], str]:
    from orchestrator import importing
    from orchestrator.couch import Server, load_credentials

    if "://" not in source:
        if name or credentials:
            raise click.UsageError("--database and --credentials are for a server; SOURCE is a file.")
        path = Path(source)
        return importing.from_file(path), str(path.absolute())
    if not name:
        raise click.UsageError("Say which database of the server: --database NAME.")
    # The environment's login is that of this site's database: it is not shown to another server.
    login = load_credentials(credentials, {}) if credentials else None
    database = Server(source, login).database(name)
    database.info()
    return importing.from_database(database), f"{source.rstrip('/')}/{name}"


def _progress(site: Context, count: int) -> None:
    if site.verbosity > 0:
        click.echo(f"orchestrator: {count} documents read", err=True)


def _who(site: Context) -> str:
    login = site.credentials
    return login.username if login else os.environ.get("USER", "somebody")


def _show(site: Context, report: Report) -> None:
    out = site.output
    out.table(
        ("type", "status", "becomes", "documents"),
        [(kind, before, after, count) for (kind, before, after), count in sorted(report.moves.items())],
        right=(3,),
    )
    for text, count in sorted(report.notes.items()):
        out.line(f"{count} {'document' if count == 1 else 'documents'} {text} ({', '.join(report.examples[text])}, ...)"
                 if count > len(report.examples[text]) else f"{', '.join(report.examples[text])}: {text}")  # fmt: skip
    for name, why in list(report.refused.items())[:20]:
        click.echo(f"orchestrator: {name}: {why}", err=True)
    if len(report.refused) > 20:
        click.echo(f"orchestrator: and {len(report.refused) - 20} more are refused (--json names them)", err=True)
    did = "imported" if report.written else "would be imported"
    left = f", {report.there} are there already" if report.there else ""
    designs = f"; {report.designs} design documents are left where they are" if report.designs else ""
    out.line(f"{report.read} documents read, {report.imported} {did}, {len(report.refused)} refused{left}{designs}")
    if not report.written and report.imported:
        out.line("Nothing was written: the same with --write does it.")
