"""The farm: its daemon, the runner that a batch job is, and the list of jobs."""

from __future__ import annotations

import os
from pathlib import Path

import click

from orchestrator.cli.context import Context, SiteCommand, json_option, pass_site


@click.command(cls=SiteCommand, short_help="Run a farm's daemon.")
@click.argument("name", required=False)
@click.option("--until-idle", is_flag=True, help="End when nothing is at the farm or ready for it.")
@pass_site
def farm(site: Context, name: str | None, until_idle: bool) -> None:
    """Run the daemon of the farm NAME: send documents that are ready there as batch jobs, record what happened.

    NAME may be left out where this site uses one farm. There is one daemon for each farm of a site; jobs go on
    without it and are found again.
    """
    from orchestrator.farmer import Farmer

    used = sorted({step.farm for step in site.chain.farmed(site.settings.site) if step.farm})
    if name is None and len(used) != 1:
        raise click.UsageError(f"Say which farm: {', '.join(used) or 'the chain sends no step of this site to any'}.")
    site.log_to_stderr()
    daemon = Farmer(site.chain, site.database_of("farm"), site.settings, name or used[0], os.environ)
    daemon.install_signals()
    daemon.run(until_idle=until_idle)


@click.command(cls=SiteCommand, short_help="Be a batch job.")
@click.argument("chunk", type=click.Path(path_type=Path, dir_okay=False))
def job(chunk: Path) -> int:
    """Do what the file CHUNK says, as a batch job: needs no database, leaves a result file for each document."""
    from orchestrator import job as runner

    return runner.main([str(chunk)])


@click.command(cls=SiteCommand, short_help="List the batch jobs.")
@json_option
@pass_site
def jobs(site: Context) -> None:
    """List the batch jobs that documents wait for: name, number, farm, state, documents, since when."""
    from orchestrator.joblist import jobs as listed

    found, away = listed(site.database)
    if site.as_json:
        site.output.json({"jobs": [vars(one) for one in found], "away": away})
        return
    for name, words in sorted(away.items()):
        click.echo(f"orchestrator: farm {name} cannot be asked since {words['since']}: {words['why']}", err=True)
    site.output.table(
        ("job", "number", "farm", "step", "state", "documents", "since"),
        [(one.name, one.number or "-", one.farm, one.step, one.state, one.documents, one.since) for one in found],
    )
