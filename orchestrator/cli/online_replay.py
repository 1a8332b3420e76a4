"""``online``: recorded data once more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.context import Context, SiteCommand, json_option, pass_site

if TYPE_CHECKING:
    from orchestrator.online.configuration import Online
    from orchestrator.online.replaying import Plan
    from orchestrator.up import Signals


@click.command(cls=SiteCommand, short_help="Feed recorded data once more.")
@click.argument("what", nargs=-1, required=True)
@click.option("--speed", type=click.FloatRange(0), default=1.0, show_default=True,
              help="So many times faster than it was taken; 0: as fast as it goes.")  # fmt: skip
@click.option("--to", type=click.Choice(["auto", "socket", "file"]), default="auto", show_default=True,
              help="How a running system is fed; auto: as its input is.")  # fmt: skip
@click.option("--as", "name", default="", metavar="RUN", help="What the run is called this time.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until its plots are final.")
@json_option
@pass_site
def replay(site: Context, what: tuple[str, ...], speed: float, to: str, name: str, wait: bool) -> int:
    """Feed recorded raw data, WHAT being runs or files, at the pace at which they were taken, or faster.

    Into the online system of this site where it runs, by its socket or as a growing file. Where it does not, everything
    that online.yaml has is started for the time of the replay. The run gets a name of its own, such as 6008.replay1, so
    that what the first time has left stays as it is.
    """
    import os
    from pathlib import Path

    from orchestrator.cli.online_reduce import online_of
    from orchestrator.errors import SettingsError
    from orchestrator.online import replaying
    from orchestrator.online.stores import FOLDER, open_stores
    from orchestrator.runtime import Lock
    from orchestrator.up import Signals

    site.log_to_stderr()
    online = online_of(site)
    words = [str(Path(one).absolute()) if Path(one).exists() else one for one in what]
    os.chdir(site.settings.folder)
    made = replaying.plan(words, online, site.settings, os.environ, speed=speed, name=name)
    running = Lock(site.settings.folder / FOLDER).holder() is not None
    if not running and to != "auto":
        raise SettingsError(f"the online system does not run, so nothing can be fed to its {to}: start it first")
    with Signals() as signals:
        if running:
            runs = _feed(site, online, made, replaying.target(online, to), signals)
            stores = open_stores(online.store, site.settings, os.environ)
            records = None
            if wait and runs is not None:
                records = replaying.wait_for(stores, runs, bool(online.reduce), signals.wait)
        else:
            runs = replaying.runs_in(made)
            alone = replaying.Alone(made, online, site.settings, os.environ)
            records = alone.run(lambda: signals.count > 0, runs, site.output.line)
    return _say(site, runs, records, wait)


def _feed(site: Context, online: Online, made: Plan, way: str, signals: Signals) -> list[str] | None:
    """Into the running system. Returns the runs' names; None where it was interrupted."""
    import time

    from orchestrator.online import replaying
    from procs.simulation import replaying as sending
    from procs.simulation.socket_daq import Sender

    replaying.must_be_idle(site.settings.folder)
    source = made.source()

    def items() -> Any:
        for item in made.items(source, signals.wait):
            if signals.count:
                return
            yield item

    if way == "socket":
        settings = {**replaying.SocketInput.defaults, **online.input.settings}
        with Sender(settings["address"], key=settings["key"] or None) as sender:
            sender.connect()
            sent = sending.to_socket(items(), sender)
    else:
        sent = sending.to_file(items(), source, replaying.growing_path(online, time.time()))
    for run, spills in sent.items():
        site.output.line(f"run {run}: {spills} spills fed by {way}")
    return None if signals.count else list(sent)


def _say(site: Context, runs: list[str] | None, records: Any, wait: bool) -> int:
    for run, one in (records or {}).items():
        site.output.line(f"run {run}: {one.done} spills done, {one.failed} failed, {one.state}")
    if site.as_json:
        found = {run: {"done": one.done, "failed": one.failed, "state": one.state, "how": one.how}
                 for run, one in (records or {}).items()}  # fmt: skip
        site.output.json({"runs": runs or [], "records": found})
    if runs is None or (wait and not records):
        site.output.line("interrupted: what was fed so far is in the run")
        return 1
    return 0


#: Added to the group ``orchestrator online``.
COMMANDS: tuple[click.Command, ...] = (replay,)
