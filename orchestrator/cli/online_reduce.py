"""``online``: the reducers and the broadcast."""

from __future__ import annotations

import click

from orchestrator.cli.context import Context, SiteCommand, pass_site


@click.command(cls=SiteCommand, short_help="Carry plots to viewers.")
@pass_site
def broadcast(site: Context) -> None:
    """Carry plots from the reducers to all who watch, in memory, until SIGTERM or Ctrl-C.

    Keeps the last picture of every plot of the last runs for those who join. Its addresses stand in online.yaml under
    `broadcast`.
    """
    from orchestrator.cli.daemons import until_signal
    from orchestrator.online import configuration
    from orchestrator.online.broadcast import Broker

    site.log_to_stderr()
    online = configuration.load(site.settings.folder / "online.yaml")
    broker = Broker(online.broadcast.publish, online.broadcast.subscribe)
    click.echo(f"the broadcast takes plots at {broker.addresses[0]} and gives them at {broker.addresses[1]}", err=True)
    until_signal(broker.run)


#: Added to the group ``orchestrator online``.
COMMANDS: tuple[click.Command, ...] = (broadcast,)
