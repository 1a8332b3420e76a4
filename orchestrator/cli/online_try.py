"""``online try``: one module alone on a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.context import Context, SiteCommand, pass_site

if TYPE_CHECKING:
    from orchestrator.online.configuration import Maps
    from orchestrator.online.module import Input

#: What is usually done with the spills of an input before anything else looks at them.
USUAL = {
    "procs.online.inputs.date:DateInput": ("procs.online.maps.date:Decode", "procs.online.maps.date:Waveforms"),
    "procs.online.inputs.samba:SambaInput": ("procs.online.maps.samba:Pulses",),
}


@click.command("try", cls=SiteCommand, short_help="Run one module alone on a file.")
@click.argument("module")
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@click.option("--input", "input_", metavar="MODULE", help="The input that reads FILE; default: by the file's form.")
@click.option("--map", "maps", multiple=True, metavar="MODULE",
              help="What is done with each spill before, in order; default: what is usual for the input.")  # fmt: skip
@click.option("--no-maps", is_flag=True, help="Nothing is done with the spills before.")
@click.option("--setting", "assignments", multiple=True, metavar="NAME=VALUE", help="A setting of MODULE, in YAML.")
@click.option("--spills", type=click.IntRange(min=1), help="So many and no more.")
@click.option("--to", "folder", type=click.Path(file_okay=False, path_type=Path),
              help="Folder for a reducer's ROOT file and pictures; default: try-CLASS.")  # fmt: skip
@pass_site
def try_(
    site: Context, module: str, file: Path, input_: str | None, maps: tuple[str, ...], no_maps: bool,
    assignments: tuple[str, ...], spills: int | None, folder: Path | None,
) -> int:  # fmt: skip
    """Run one module alone on FILE, without site, database or other processes.

    MODULE is a class, as package.module:Class; a file of yours in this folder is found, too (mine:MyMap for mine.py).
    A map says what it changes of each spill. A reducer's histograms are shown as text and saved as a ROOT file and
    pictures. An input says what it makes of FILE; an output gets the histograms of FILE, a ROOT file. Spills that fail
    are shown with where it happened, and the command ends with 1 then.
    """
    import sys

    from orchestrator.errors import SettingsError
    from orchestrator.online.module import Input, Map, Module, Output, Reduce, find
    from orchestrator.online.trying import as_text, save, try_input, try_map, try_output, try_reduce

    for one in (str(site.folder.absolute()), str(Path.cwd())):
        if one not in sys.path:
            sys.path.append(one)
    kind = find(module, Module)
    settings = _settings(assignments)
    if issubclass(kind, Input):
        settings = {name: str(file) for name in ("files", "file") if name in kind.defaults} | settings
    made = kind(settings)
    out = site.output
    if isinstance(made, Output):
        tried = try_output(made, file)
        out.line(f"{len(tried.plots)} plots were given to it; it took {1000 * tried.seconds:.1f} ms")
        return 0
    if isinstance(made, Map | Reduce):
        source, reader = _source(file, input_)
        before = () if no_maps else _before(maps, reader, module)
    if isinstance(made, Input):
        tried = try_input(made, spills, click.echo)
    elif isinstance(made, Map):
        tried = try_map(made, source, before, spills, click.echo)
    elif isinstance(made, Reduce):
        tried = try_reduce(made, source, before, spills, click.echo)
        for plot in tried.plots:
            for line in as_text(plot):
                click.echo(line)
        paths = save(tried, kind.__name__, folder or Path(f"try-{kind.__name__}"))
        out.line(f"saved: {paths[0]} and {len(paths) - 1} pictures")
    else:
        raise SettingsError(f"{module} is neither Input, Map, Reduce nor Output: let it inherit from one of these")
    for number, error in list(tried.errors.items())[:5]:
        click.echo(f"spill {number} failed: {error}", err=True)
    out.line(
        f"run {tried.run}: {tried.spills} spills, {tried.hidden} left out, {tried.failed} failed; "
        f"{1000 * tried.seconds / max(1, tried.spills):.2f} ms a spill"
    )
    return 1 if tried.failed else 0


def _settings(assignments: tuple[str, ...]) -> dict[str, Any]:
    import yaml

    found: dict[str, Any] = {}
    for one in assignments:
        name, equals, value = one.partition("=")
        if not equals:
            raise click.BadParameter(f"{one!r} must read NAME=VALUE", param_hint="--setting")
        try:
            found[name.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise click.BadParameter(f"{value!r} is not YAML", param_hint="--setting") from None
    return found


def _source(file: Path, input_: str | None) -> tuple[Input, str]:
    from procs.online.inputs.replay import reader_of, source

    reader = input_ or reader_of(file)
    return source([str(file)], reader), reader


def _before(maps: tuple[str, ...], reader: str, module: str) -> Maps:
    from orchestrator.online.configuration import ModuleEntry

    names = maps or USUAL.get(reader, ())
    if not maps and module in names:  # the usual ones up to it
        names = names[: names.index(module)]
    return tuple(ModuleEntry(module=name) for name in names)


#: Added to the group ``orchestrator online``.
COMMANDS: tuple[click.Command, ...] = (try_,)
