"""The single daemons, as ``up`` starts them: ``db serve``, ``register``, ``poll``, ``web``; and the simulated DAQ."""

from __future__ import annotations

import functools
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.context import Context, SiteCommand, SiteGroup, branch_option, json_option, pass_site

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
        daemon = registrar.Registrar(site.database_of("registrar"), register_settings(site, directories))
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
@branch_option
@pass_site
def poll(site: Context, only: tuple[str, ...], until_idle: bool, branch: str) -> None:
    """Run a poller: take documents that are ready, have their steps done, record what happened.

    SIGTERM or Ctrl-C lets running steps finish (setting `drain`). Several pollers may run at once.
    """
    from orchestrator import lastwords
    from orchestrator.byhand import places
    from orchestrator.poller import Poller, Terms

    settings = site.settings
    site.log_to_stderr()
    terms = Terms(settings.workers, settings.lease, settings.sweep, settings.drain)
    chain, database, spool = site.branch(branch, "poller")
    with lastwords.left(settings.spool, f"poll:{branch}", time.time):
        poller = Poller(chain, database, places(settings), spool, settings.site, terms, only=list(only) or None)
        poller.install_signals()
        poller.run(until_idle=until_idle)


@click.command(cls=SiteCommand, short_help="Make documents of many.")
@click.option("--until-idle", is_flag=True, help="End when nothing is left to be gathered or told now.")
@pass_site
def gather(site: Context, until_idle: bool) -> None:
    """Make the documents of this site's gathers (a run, a bundle for tape) as their members become ready.

    `up` runs it where the chain has gathers. There may be several: a member ends in one document all the same.
    """
    from orchestrator import lastwords
    from orchestrator.gatherer import Daemon

    site.log_to_stderr()
    with lastwords.left(site.settings.spool, "gather", time.time):
        daemon = Daemon(site.chain, site.database_of("poller"), site.settings.site)
        until_signal(functools.partial(daemon.run, until_idle=until_idle))


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
    from orchestrator.connect import credentials, run_database
    from orchestrator.web.app import create_app
    from orchestrator.web.control_room import control_room
    from orchestrator.web.login import Login
    from orchestrator.web.login_sessions import Sessions
    from orchestrator.web.operations import Acting
    from orchestrator.web.roles import Who, anyone_here, nobody, signing

    settings = site.settings
    otherwise: Who = nobody
    if settings.web_changes == "anyone-here":
        own = credentials(settings, os.environ, "web")
        otherwise = signing(anyone_here, f"{own.username}@{socket.gethostname()}") if own else anyone_here
    factory: Any = functools.partial(run_database, settings, os.environ, timeout=PAGE_PATIENCE, daemon="web")
    return create_app(
        factory,
        chain=site.chain,
        files_root=settings.data,
        logs_root=settings.logs,
        title=site.chain.name,
        login=Login(Sessions(settings.url, settings.database, time.monotonic), otherwise),
        closed=settings.web_reading == "login",
        acting=Acting(settings.site, settings.data, settings.ask_above, settings.lease, settings.spool),
        control_room=control_room(settings.folder),
        allowed_hosts=[*settings.web_hosts, settings.web_host, socket.gethostname(), socket.getfqdn()],
    )


@click.command(cls=SiteCommand, short_help="Write raw files as a DAQ does.")
@click.argument("directory", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.option("--runs", type=click.IntRange(0), help="Samba runs to write (3).")
@click.option("--partitions", type=click.IntRange(1), help="Files of each run (3).")
@click.option("--events", type=click.IntRange(0), help="Events of each file (100).")
@click.option("--option", "options", multiple=True, metavar="NAME=VALUE", help="Any other option; see --list.")
@click.option("--list", "list_", is_flag=True, help="List all options with their defaults and end.")
@json_option
@pass_site
def simulate(
    site: Context,
    directory: Path | None,
    runs: int | None,
    partitions: int | None,
    events: int | None,
    options: tuple[str, ...],
    list_: bool,
) -> None:
    """Write raw files with known pulses into DIRECTORY, as a DAQ does (default: the first one that is watched).

    Runs of Samba files and a DATE file. What was put into each stands as JSON in DIRECTORY_truth. The same options
    give the same bytes. SIGTERM or Ctrl-C ends it after the file that is being written.
    """
    from procs.simulate import SETTINGS_HELP, SimulationSettings, Written
    from procs.simulate import simulate as write

    if list_:
        defaults = SimulationSettings()
        rows = [(name, getattr(defaults, name), text) for name, text in SETTINGS_HELP.items()]
        if site.as_json:
            site.output.json({name: {"default": default, "help": text} for name, default, text in rows})
        else:
            site.output.table(("option", "default", "what it is"), rows)
        return
    watched = site.settings.watch if directory is None else []
    if directory is None and not watched:
        raise click.UsageError("Name a directory: no directory is watched here.")
    changes: dict[str, Any] = {"runs": runs, "partitions": partitions, "events": events}
    changes = {name: value for name, value in changes.items() if value is not None} | _simulation(options)
    written: list[Written] = []

    def tell(one: Written) -> None:
        written.append(one)
        site.output.line(f"{one.path} ({one.events} events)")

    target = directory.absolute() if directory else watched[0]
    until_signal(lambda stop: write(target, wait=stop.wait, on_written=tell, **changes))
    if site.as_json:
        site.output.json([{"file": str(one.path), "run": one.run_name, "events": one.events} for one in written])


def _simulation(options: tuple[str, ...]) -> dict[str, Any]:
    """``NAME=VALUE`` words as values of the simulation's types. Raises SettingsError with the nearest name."""
    import yaml

    from orchestrator.errors import SettingsError
    from orchestrator.settings import suggest
    from procs.simulate import SimulationSettings

    defaults = SimulationSettings()
    known = list(vars(defaults)) if hasattr(defaults, "__dict__") else list(defaults.__dataclass_fields__)
    changes: dict[str, Any] = {}
    for word in options:
        name, equals, text = word.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or name not in known:
            raise SettingsError(f"the simulation has no option {word!r}.{suggest(name, known)} `--list` shows all")
        default = getattr(defaults, name)
        value = text if isinstance(default, str) else yaml.safe_load(text)
        fits = isinstance(value, int | float) if isinstance(default, float) else isinstance(value, type(default))
        if isinstance(default, tuple) and isinstance(value, list):
            value, fits = tuple(value), True
        if not fits or (isinstance(value, bool) and not isinstance(default, bool)):
            raise SettingsError(f"the simulation's option {name} is {type(default).__name__}, not {text!r}")
        changes[name] = value
    return changes
