"""``online``: the reducers and the broadcast."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.context import Context, SiteCommand, pass_site

if TYPE_CHECKING:
    from orchestrator.online.configuration import Online


def online_of(site: Context) -> Online:
    """The site's online.yaml. Raises SettingsError."""
    from orchestrator.online import configuration

    return configuration.load(site.settings.folder / "online.yaml")


@click.command(cls=SiteCommand, short_help="Carry plots to viewers.")
@pass_site
def broadcast(site: Context) -> None:
    """Carry plots from the reducers to all who watch, in memory, until SIGTERM or Ctrl-C.

    Keeps the last picture of every plot of the last runs for those who join. Its addresses stand in online.yaml under
    `broadcast`.
    """
    from orchestrator.cli.daemons import until_signal
    from orchestrator.online.broadcast import serve

    site.log_to_stderr()
    where = online_of(site)
    said = functools.partial(click.echo, err=True)
    until_signal(lambda stop: serve(where.broadcast, where.workers.key, stop, said))


@click.command(cls=SiteCommand, short_help="Run one reducer.")
@click.argument("name")
@click.option(
    "--image-directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write pictures there while a run goes on (`images.directory`).",
)
@pass_site
def reduce(site: Context, name: str, image_directory: Path | None) -> None:
    """Run the reducer NAME of online.yaml: follow the spills of each run, fill its histograms, publish them.

    It goes on where it was when it is started again, and counts each spill once. At the end of a run it writes the
    snapshot into online/runs/RUN.
    """
    import os

    from orchestrator.cli.daemons import until_signal
    from orchestrator.online.starting_reducer import reducing

    site.log_to_stderr()
    online = online_of(site)
    directory = image_directory.absolute() if image_directory else None
    os.chdir(site.settings.folder)  # settings of modules may hold paths; they are taken from there
    until_signal(reducing(site.settings, online, name, os.environ, directory))


#: Added to the group ``orchestrator online``.
COMMANDS: tuple[click.Command, ...] = (broadcast, reduce)
