"""``provenance``: where an output comes from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.context import Context, SiteCommand, json_option, pass_site

if TYPE_CHECKING:
    from orchestrator.chain import Chain
    from orchestrator.provenance import Provenance


@click.command(cls=SiteCommand, short_help="Say where an output comes from.")
@click.argument("what", metavar="FILE|DOCUMENT")
@click.option("--document", help="The document of FILE, where its name does not tell.")
@click.option("--no-checksum", is_flag=True, help="Do not read the whole FILE to compare its content.")
@json_option
@pass_site
def provenance(site: Context, what: str, document: str | None, no_checksum: bool) -> int:
    """Say where FILE comes from, or all outputs of DOCUMENT: steps, code versions, settings, inputs, hosts.

    Of a file, what it says of itself is compared with what the database says, and its content with its checksum. Ends
    with 1 where they differ.
    """
    from orchestrator import provenance as known
    from orchestrator.errors import NotFound

    path = Path(what)
    if document is None and not path.exists():
        try:
            found = site.database.get(what)
        except NotFound as error:
            raise NotFound(f"{what} is neither a file here nor a document") from error
        result = known.of_document(_chain(site, found), found)
    else:
        result = _of_file(site, path, document, no_checksum)
    if site.as_json:
        site.output.json(result.to_json())
    else:
        _show(site, result)
    return 1 if result.notes else 0


def _chain(site: Context, document: dict[str, Any]) -> Chain:
    """The chain of the document's type. Raises NotFound for a type that no chain is for."""
    from orchestrator.errors import NotFound

    for chain in (site.chain, *(site.chain.of(name) for name in site.chain.gathers)):
        if chain.type == document.get("type"):
            return chain
    raise NotFound(f"document {document['_id']!r} is of type {document.get('type')!r}: no chain here is for it")


def _of_file(site: Context, path: Path, name: str | None, no_checksum: bool) -> Provenance:
    from orchestrator import provenance as known
    from orchestrator.errors import DataError, NotFound
    from procs.outputs import checksum
    from procs.said import of_itself

    full = str(path.absolute())
    note, torn = None, ""
    try:
        note = of_itself(path)
    except DataError as error:
        if not path.is_file():
            raise
        torn = str(error)  # what the database knows of it can be told all the same
    content = None if no_checksum else checksum(path)
    said = note.get("document") if note else None
    if name:
        found = {name: site.database.get(name)}
    else:
        wanted = [said] if isinstance(said, str) and said else []
        found = {one: doc for one, doc in site.database.get_many(wanted).items() if doc is not None}
    for document in (*found.values(), *(() if name or found else _by_name(site, full))):
        chain = _chain(site, document)
        place = known.place_of(chain, document, full, content, note.get("attempt") if note else None)
        if place is None and not found:
            continue  # its name alone means nothing
        result = known.of_document(chain, document, place.step if place else None)
        if place is not None and place.raw:
            result.steps = []
        result.file, result.copy_of = full, (place.copy_of or None) if place else None
        result.notes = [f"its own note cannot be read: {torn}"] if torn else []
        if place is not None:
            result.notes += known.compare(result, note, content)
        if place is None or not (place.copy_of or place.raw or known.step_of_file(chain, document, full)):
            result.notes.append("no step of the document says that it left this file")
        return result
    why = f" ({torn})" if torn else ""
    raise NotFound(f"no document is known whose output {full} is{why}: name it with --document")


def _by_name(site: Context, path: str) -> Iterator[dict[str, Any]]:
    """Documents that a file's name may mean: by id, else by the words of the page's search."""
    from orchestrator import provenance as known

    types = {site.chain.type, *(gather.type for gather in site.chain.gathers.values())}
    for name in known.names(path):
        found = {one: doc for one, doc in site.database.get_many([name]).items() if doc is not None}
        if not found:
            rows = site.database.view("pages/search", key=[name.lower()], include_docs=True, limit=50, reduce=False)
            found = {str(row.id): row.doc for row in rows if row.doc is not None}
        yield from (document for document in found.values() if document.get("type") in types)


def _show(site: Context, result: Provenance) -> None:
    out = site.output
    out.line(f"{result.file or result.document}: of document {result.document}", style="bold")
    raw = result.raw
    if raw:
        out.line(f"  raw      {raw.get('file')} ({raw.get('size', '?')} bytes, {raw.get('checksum') or 'no checksum'})")
    for one in result.steps:
        code = one.software
        made = ", ".join(f"{key} {code[key]}" for key in ("orchestrator", "step", "git", "chain") if code.get(key))
        out.line(f"  {one.key:8} {one.step}, attempt {one.number} ({one.attempt}) on {one.host}, {one.finished}")
        out.line(f"           from {one.input.get('file')} ({one.input.get('checksum') or 'no checksum'})")
        if one.output.get("file"):
            out.line(f"           made {one.output['file']} ({one.output.get('checksum') or 'no checksum'})")
        out.line(f"           with {made or 'code of unknown version'}")
        if code.get("settings"):
            out.line(f"           set  {code['settings']}")
    if result.members:
        out.line(f"  members  {len(result.members)}: {', '.join(str(one.get('id')) for one in result.members[:10])}"
                 + (", ..." if len(result.members) > 10 else ""))  # fmt: skip
    if result.copy_of:
        out.line(f"  It has the content of {result.copy_of}.")
    for note in result.notes:
        click.echo(f"orchestrator: {note}", err=True)
    if result.file and not result.notes:
        out.line("The file and the database say the same.")
