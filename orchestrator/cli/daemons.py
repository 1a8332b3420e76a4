"""The single daemons, as ``up`` starts them: ``db serve``, ``register``, ``poll``, ``web``; and the simulated DAQ."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.context import Context, SiteCommand, SiteGroup, json_option, pass_site

if TYPE_CHECKING:
    from procs.register.settings import RegisterSettings

PAGE_PATIENCE = 5.0  # s that the page waits for the database: somebody is looking


def until_signal(work: Callable[[threading.Event], Any]) -> None:
    """Run ``work(stop)`` in a thread until it ends or a signal says stop; its exception is raised here.

    The signal's handler only counts, and the event is set outside of it: setting an event inside a handler can
    deadlock with a wait on the same event.
    """
    from orchestrator.up import Signals

    stop = threading.Event()
    faults: list[BaseException] = []

    def body() -> None:
        try:
            work(stop)
        except BaseException as error:
            faults.append(error)

    with Signals() as signals:
        thread = threading.Thread(target=body, name="work")
        thread.start()
        while thread.is_alive():
            if signals.wait(0.2):
                stop.set()
                thread.join(0.2)
                if signals.count > 1:
                    os._exit(130)  # asked twice: what is not in the database is found again at the next start
        if faults:
            raise faults[0]


@click.group(cls=SiteGroup)
def db() -> None:
    """The embedded database."""


@db.command()
@click.option("--path", type=click.Path(path_type=Path, file_okay=False), help="Its folder (setting `embedded_path`).")
@click.option("--host", help="Address to listen at (default: from `url`).")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen at (default: from `url`).")
@click.option("--synchronous", type=click.Choice(["full", "normal"]), help="How writes are made safe (setting).")
@pass_site
def serve(site: Context, path: Path | None, host: str | None, port: int | None, synchronous: str | None) -> None:
    """Serve the embedded database until SIGTERM or Ctrl-C. Its login is made at the first start (`credentials`)."""
    from orchestrator.embedded import serve as serve_database

    settings = site.settings
    site.log_to_stderr()
    default_host, default_port = settings.url_address
    serve_database(
        path.absolute() if path else settings.embedded_path,
        host or default_host,
        default_port if port is None else port,
        synchronous=synchronous or settings.synchronous,
        credentials_file=settings.credentials,
        ready=lambda url: click.echo(f"the embedded database answers at {url}", err=True),
    )


def register_settings(site: Context, directories: list[Path]) -> RegisterSettings:
    """The registrar's settings of this site. Raises SettingsError naming each value that cannot be used."""
    from pydantic import ValidationError

    from orchestrator.errors import SettingsError
    from procs.register.settings import RegisterSettings

    settings = site.settings
    values: dict[str, Any] = {
        "type": site.chain.type,
        "site": settings.site,
        **settings.register_settings,
        "directories": [str(path) for path in directories],
    }
    try:
        return RegisterSettings.model_validate(values)
    except ValidationError as error:
        sentences = [f"register.{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        raise SettingsError(f"{settings.source('register')}: " + "; ".join(sentences)) from None


@click.command(cls=SiteCommand, short_help="Make the documents of raw files.")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("--watch", is_flag=True, help="Watch the directories of the setting `watch` (and PATHS) until stopped.")
@json_option
@pass_site
def register(site: Context, paths: tuple[Path, ...], watch: bool) -> int:
    """Make the documents of raw files: PATHS are files, or directories to be looked through once.

    A file that is in the database already is left alone. A file with a corrupt header gets a document with status
    bad and the reason; the next file goes on.
    """
    from orchestrator import registrar

    if watch:
        site.log_to_stderr()
        directories = [*site.settings.watch, *(path.absolute() for path in paths)]
        if not directories:
            raise click.UsageError("There is nothing to watch: name directories, or set `watch`.")
        daemon = registrar.Registrar(site.database, register_settings(site, directories))
        try:
            until_signal(daemon.run)
        finally:
            daemon.close()
        return 0
    if not paths:
        raise click.UsageError("Name files or directories, or say --watch.")
    found = registrar.register_paths(site.database, [path.absolute() for path in paths], register_settings(site, []))
    if site.as_json:
        site.output.json(dict(vars(found)))
    site.output.line(str(found))
    for sentence in found.problems:
        click.echo(f"orchestrator: {sentence}", err=True)
    return 1 if found.errors or found.bad or found.waiting else 0


@click.command(cls=SiteCommand, short_help="Run a poller.")
@click.option("--only", multiple=True, metavar="STEP", help="Serve only these steps of the site (repeatable).")
@click.option("--until-idle", is_flag=True, help="End when nothing is ready or running.")
@pass_site
def poll(site: Context, only: tuple[str, ...], until_idle: bool) -> None:
    """Run a poller: take documents that are ready, have their steps done, record what happened.

    SIGTERM or Ctrl-C lets running steps finish (setting `drain`). Several pollers may run at once.
    """
    from orchestrator.byhand import places
    from orchestrator.poller import Poller, Terms

    settings = site.settings
    site.log_to_stderr()
    terms = Terms(settings.workers, settings.lease, settings.sweep, settings.drain)
    poller = Poller(
        site.chain, site.database, places(settings), settings.spool, settings.site, terms, only=list(only) or None
    )
    poller.install_signals()
    poller.run(until_idle=until_idle)


@click.command(cls=SiteCommand)
@click.option("--host", help="Address to listen at (setting `web_host`).")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen at (setting `web_port`).")
@pass_site
def web(site: Context, host: str | None, port: int | None) -> None:
    """Serve the status page."""
    from orchestrator.web.serve import serve as serve_page

    site.log_to_stderr()
    settings = site.settings
    serve_page(
        page(site),
        host=host or settings.web_host,
        port=settings.web_port if port is None else port,
        ready=lambda url: click.echo(f"the status page is at {url}", err=True),
    )


def page(site: Context) -> Any:
    """The status page's application for this site."""
    from orchestrator.connect import run_database
    from orchestrator.web.app import create_app

    settings = site.settings
    factory: Any = functools.partial(run_database, settings, os.environ, timeout=PAGE_PATIENCE)
    return create_app(
        factory,
        chain=site.chain,
        files_root=settings.data,
        logs_root=settings.logs,
        title=site.chain.name,
    )


@click.command(cls=SiteCommand, short_help="Write raw files as a DAQ does.")
@pass_site
def simulate(site: Context) -> None:
    """Write raw files as a DAQ does."""
