"""The farm's daemon."""

from __future__ import annotations

import os
import time

import click

from orchestrator.cli.context import Context, SiteCommand, pass_site


@click.command(cls=SiteCommand, short_help="Run a farm's daemon.")
@click.argument("name", required=False)
@click.option("--until-idle", is_flag=True, help="End when nothing is at the farm or ready for it.")
@pass_site
def farm(site: Context, name: str | None, until_idle: bool) -> None:
    """Run the daemon of the farm NAME: send documents that are ready there as batch jobs, record what happened.

    NAME may be left out where this site uses one farm. There is one daemon for each farm of a site; jobs go on
    without it and are found again.
    """
    from orchestrator import lastwords
    from orchestrator.farmer import Farmer

    used = sorted({step.farm for step in site.chain.farmed(site.settings.site) if step.farm})
    if name is None and len(used) != 1:
        raise click.UsageError(f"Say which farm: {', '.join(used) or 'the chain sends no step of this site to any'}.")
    site.log_to_stderr()
    with lastwords.left(site.settings.spool, f"farm:{name or used[0]}", time.time):
        daemon = Farmer(site.chain, site.database_of("farm"), site.settings, name or used[0], os.environ)
        daemon.install_signals()
        daemon.run(until_idle=until_idle)
