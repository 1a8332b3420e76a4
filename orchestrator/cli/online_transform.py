"""``online``: the transform, its workers and their key."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli.context import Context, SiteCommand, pass_site


@click.command(cls=SiteCommand, short_help="Read the input and have workers transform it.")
@click.option("--until-end", is_flag=True, help="End when the input has ended and all is stored.")
@pass_site
def transform(site: Context, until_end: bool) -> None:
    """Read the input of online.yaml, have workers run the map modules over its spills, and store what they make.

    Starts the local workers (`workers.local`) and takes others that connect. SIGTERM or Ctrl-C ends it in good order;
    however it ends, the next one goes on where it was and does no spill twice.
    """
    import os

    from orchestrator.cli.online_reduce import online_of
    from orchestrator.online.starting_transform import transform as run
    from orchestrator.up import Signals

    site.log_to_stderr()
    online = online_of(site)
    os.chdir(site.settings.folder)  # settings of modules may hold paths; they are taken from there
    with Signals() as signals:
        run(
            site.settings, online, os.environ, lambda: signals.count > 0, until_end=until_end,
            ready=lambda address: click.echo(f"workers report at {address}", err=True),
        )  # fmt: skip


@click.command(cls=SiteCommand, short_help="Work for a transform, here or elsewhere.")
@click.option("--connect", "address", required=True, metavar="ADDRESS", help="Its address, as tcp://HOST:PORT.")
@click.option("--key", type=click.Path(path_type=Path, dir_okay=False),
              help="File with the secret; needed for another machine's transform.")  # fmt: skip
@click.option("--name", help="What the worker is called there, as in `workers.remote`; default: host and process.")
@click.option("--count", type=click.IntRange(1, 256), default=1, show_default=True,
              help="So many processes, called NAME-1, NAME-2 and so on.")  # fmt: skip
@click.option("--stay", is_flag=True, help="Wait for the next transform when one has ended.")
@click.option("--alone", is_flag=True, hidden=True, help="This very process is the worker.")
@pass_site
def worker(
    site: Context, address: str, key: Path | None, name: str | None, count: int, stay: bool, alone: bool
) -> int:
    """Run map modules over the spills of a transform, which says which modules; they must be installed here, too.

    A worker that dies, or takes too long for a spill, is replaced. It is refused if its versions differ from those of
    the transform. It ends with the transform.
    """
    import os
    import signal
    import socket
    import time

    from orchestrator.online.configuration import loads_address
    from orchestrator.online.keys import keys_for
    site.log_to_stderr()
    loads_address(address)
    keys = keys_for(key, address)
    folder = site.settings.folder
    name = name or f"{socket.gethostname()}-{os.getpid()}"
    if alone:
        from orchestrator.online.worker import Worker

        # Not orchestrator.up.Signals: with all that it imports, a worker that has died would be back half as fast.
        told: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, frame: told.append(number))
        os.chdir(folder)
        Worker(address, name, secure=keys.connecting if keys else None, stay=stay).run(lambda: bool(told))
        return 0
    from orchestrator.children import command
    from orchestrator.online.starting_transform import Team
    from orchestrator.up import Signals

    words = ["online", "worker", "--connect", address, "--alone", *(["--stay"] if stay else [])]
    words += ["--key", str(key.absolute())] if key else []
    names = [name] if count == 1 else [f"{name}-{number}" for number in range(1, count + 1)]
    team = Team(names, lambda one: command(site.settings, *words, "--name", one), site.settings.logs)
    click.echo(f"{', '.join(names)}: for {address}; logs in {site.settings.logs}", err=True)
    with Signals() as signals:
        return team.run(signals.wait, time.monotonic)


@click.command(cls=SiteCommand, short_help="Make a key for workers on other machines.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def key(file: Path) -> None:
    """Write a new secret into FILE, readable by its owner alone.

    Name it in `workers.key` of online.yaml, copy it to each machine with workers, and give it to them with --key.
    """
    from orchestrator.online.keys import make

    make(file)
    click.echo(f"{file} has the key; copy it to each machine with workers by a way that nobody else can read")


#: Added to the group ``orchestrator online``.
COMMANDS: tuple[click.Command, ...] = (transform, worker, key)
