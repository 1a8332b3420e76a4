"""What people do to farms and steps while everything runs: ``pause``, ``drain``, ``resume``, ``limits``, ``cancel``."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.context import Context, SiteCommand, json_option, pass_site
from orchestrator.cli.operations import NAMED, who

if TYPE_CHECKING:
    from orchestrator.control import Scope
    from orchestrator.engine.controls import Changed

#: How often ``drain --wait`` looks (s).
LOOK = 2.0

_SCOPE: tuple[Callable[[Any], Any], ...] = (
    click.option("--step", default="", help="This step alone (name or keyword)."),
    click.option("--farm", default="", help="What is sent to this farm alone."),
    click.option("--site", "site_name", default="", metavar="SITE", help="Of this site (default: of this one)."),
    click.option("--reason", default="", help="Why; it is kept, and shown wherever somebody asks why nothing moves."),
    click.option("--dry-run", is_flag=True, help="Only say what would be done."),
)


def _scoped(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_SCOPE):
        function = option(function)
    return json_option(function)


def _scope(site: Context, step: str, farm: str, site_name: str) -> tuple[str, Scope]:
    """The site and the scope that the options name. Raises ChainError."""
    from orchestrator.control import Scope
    from orchestrator.engine.controls import step_of

    if step and farm:
        raise click.UsageError("Say --step or --farm, not both.")
    if step:
        found = step_of(site.chain, step)
        return site_name or found.site, Scope("step", found.name)
    return site_name or site.settings.site, Scope("farm", farm) if farm else Scope()


@click.command(cls=SiteCommand, short_help="Let no step begin, at a step, a farm or a site.")
@_scoped
@pass_site
def pause(site: Context, step: str, farm: str, site_name: str, reason: str, dry_run: bool) -> None:
    """Let nothing new begin at a step, at a farm, or (without either) at the whole site, until `resume`.

    What runs goes on, and what waits at a farm stays in its queue. The daemons heed it within seconds.
    """
    from orchestrator.control import PAUSE

    _stop(site, PAUSE, step, farm, site_name, reason, dry_run)


@click.command(cls=SiteCommand, short_help="Pause, and take back what waits at a farm.")
@_scoped
@click.option("--wait", is_flag=True, help="Wait until nothing is left there; Ctrl-C leaves the drain on.")
@click.option("--yes", is_flag=True, help="Do not ask (it is asked where many documents are taken back: ask_above).")
@pass_site
def drain(
    site: Context, step: str, farm: str, site_name: str, reason: str, dry_run: bool, wait: bool, yes: bool
) -> None:
    """Pause, and take back what waits at a farm without having begun, until `resume`.

    Documents that are taken back use up no retry. What has begun ends as usual. The daemons heed it within seconds.
    """
    from orchestrator.control import DRAIN
    from orchestrator.engine import controls

    where, scope = _scope(site, step, farm, site_name)
    controls.check(site.chain, where, scope)
    queued, _ = controls.left(site.database, site.chain, where, scope)
    if queued > site.settings.ask_above and not yes and not dry_run:
        click.confirm(f"Take back {queued} documents that wait at farms?", abort=True, err=True)
    _stop(site, DRAIN, step, farm, site_name, reason, dry_run)
    if wait and not dry_run:
        _wait(site, where, scope)


def _stop(site: Context, mode: str, step: str, farm: str, site_name: str, reason: str, dry_run: bool) -> None:
    from orchestrator.engine import controls

    where, scope = _scope(site, step, farm, site_name)
    done = controls.stop(
        site.database, site.chain, where, scope, mode, by=who(), reason=reason, dry_run=dry_run
    )  # fmt: skip
    queued, running = controls.left(site.database, site.chain, where, scope)
    (stop,) = [one for one in done.control.stops if one.scope == scope]
    if site.as_json:
        site.output.json({**done.control.to_json(), "queued": queued, "running": running, "dry_run": dry_run})
        return
    site.output.line(f"{'would be: ' if dry_run else ''}{stop.words(where)}")
    fate = "will be taken back" if mode == "drain" else "stay there"
    site.output.line(f"documents that wait at farms: {queued} ({fate}); running: {running} (go on)")


def _wait(site: Context, where: str, scope: Scope) -> None:
    from orchestrator.engine import controls

    told = (-1, -1)
    while True:
        now = controls.left(site.database, site.chain, where, scope)
        if now == (0, 0):
            site.output.line("nothing is left")
            return
        if now != told:
            site.output.line(f"left: {now[0]} wait, {now[1]} run")
            told = now
        time.sleep(LOOK)


@click.command(cls=SiteCommand, short_help="Let go on what was paused or drained.")
@_scoped
@click.option("--all", "all_", is_flag=True, help="Everything that is paused or drained at the site.")
@pass_site
def resume(
    site: Context, step: str, farm: str, site_name: str, reason: str, dry_run: bool, all_: bool
) -> int:
    """Let go on what was paused or drained: a step, a farm, or (without either) the whole site.

    What is also stopped by somebody else's word stays so; what is left is said.
    """
    from orchestrator.control import Scope
    from orchestrator.engine import controls

    if all_ and (step or farm):
        raise click.UsageError("Say --all, or which.")
    every = [one for chain in (site.chain, *site.chain.branches().values()) for one in chain.steps]
    known = next((one for one in every if step and step in (one.name, one.key)), None)
    where = site_name or (known.site if known else site.settings.site)
    scope = Scope("step", known.name if known else step) if step else Scope("farm", farm) if farm else Scope()
    done = controls.resume(
        site.database, where, None if all_ else scope, by=who(), reason=reason, dry_run=dry_run
    )  # fmt: skip
    if site.as_json:
        site.output.json({**done.control.to_json(), "changed": done.new, "dry_run": dry_run})
        return 0 if done.new else 1
    what = "everything" if all_ else scope.words(where)
    if done.new:
        site.output.line(f"{what} {'would go' if dry_run else 'goes'} on")
    else:
        click.echo(f"orchestrator: {what} is neither paused nor drained", err=True)
    for stop in done.control.stops:
        site.output.line(f"still: {stop.words(where)}")
    return 0 if done.new else 1


@click.command(cls=SiteCommand, short_help="Show or change how much may be at a farm.")
@click.argument("changes", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--farm", default="", help="Which farm (may be left out where this site uses one).")
@click.option("--site", "site_name", default="", metavar="SITE", help="Of this site (default: of this one).")
@click.option("--show", is_flag=True, help="Only show them (the default where nothing is changed).")
@click.option("--reset", is_flag=True, help="Back to the chain's; with names, these alone.")
@click.option("--reason", default="", help="Why; it is kept and shown.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@json_option
@pass_site
def limits(
    site: Context, changes: tuple[str, ...], farm: str, site_name: str, show: bool, reset: bool, reason: str,
    dry_run: bool,
) -> None:  # fmt: skip
    """Show or change how much may be at a farm: queued, jobs, submissions_per_minute, array.

    `limits --farm centre queued=10` holds from now on, for running daemons too, and until it is reset; the chain file
    stays as it is. To send nothing at all, pause the farm.
    """
    from orchestrator.engine import controls
    from orchestrator.farms import Limits

    where = site_name or site.settings.site
    used = sorted({step.farm for step in site.chain.farmed(where) if step.farm})
    if show or not (changes or reset):
        _show(site, controls.Changed(controls.read(site.database, where), False), [farm] if farm else used, dry_run)
        return
    if not farm and len(used) != 1:
        raise click.UsageError(f"Say which farm: --farm {' or --farm '.join(used) or 'NAME'}.")
    values: dict[str, float | None] = {}
    for word in changes if changes else tuple(Limits.model_fields):
        name, equals, value = word.partition("=")
        if reset == bool(equals):
            raise click.UsageError(f"{word!r}: write NAME=VALUE to change a limit, NAME with --reset to reset it.")
        try:
            values[name] = None if reset else float(value) if "." in value else int(value)
        except ValueError:
            raise click.UsageError(f"{word!r}: {value!r} is no number.") from None
    done = controls.limit(
        site.database, site.chain, where, farm or used[0], values, by=who(), reason=reason, dry_run=dry_run
    )  # fmt: skip
    _show(site, done, [farm or used[0]], dry_run)


def _show(site: Context, done: Changed, farms: list[str], dry_run: bool) -> None:
    known = {(limit.farm, limit.name): limit for limit in done.control.limits}
    rows = []
    for farm in farms:
        if farm not in site.chain.farms:
            from orchestrator.errors import ChainError

            raise ChainError(f"the chain has no farm {farm!r}: its farms are {', '.join(site.chain.farms) or 'none'}")
        in_chain = site.chain.farms[farm].limits
        for name, value in done.control.apply(farm, in_chain).model_dump().items():
            limit = known.get((farm, name))
            why = (limit.by, limit.at, limit.reason) if limit else ("", "", "")
            rows.append((farm, name, f"{value:g}", f"{getattr(in_chain, name):g}", *why))
    if site.as_json:
        keys = ("farm", "limit", "value", "in_chain", "by", "at", "reason")
        site.output.json(
            {"limits": [dict(zip(keys, row, strict=True)) for row in rows], "new": done.new, "dry_run": dry_run}
        )
        return
    if dry_run:
        site.output.line("they would be:")
    site.output.table(("farm", "limit", "now", "in the chain", "by", "since", "reason"), rows, right=(2, 3))


@click.command(cls=SiteCommand, short_help="End batch jobs, or single documents' attempts at a farm.")
@click.argument("which", nargs=-1, required=True, metavar="JOB|DOCUMENT...")
@click.option("--hold", is_flag=True, help="The documents then wait on hold, instead of being failed.")
@click.option("--reason", default="", help="Why; it is kept in the documents and in the attempts' records.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--yes", is_flag=True, help="Do not ask (it is asked above the setting ask_above).")
@json_option
@pass_site
def cancel(site: Context, which: tuple[str, ...], hold: bool, reason: str, dry_run: bool, yes: bool) -> int:
    """End batch jobs (by name, number, or number and task: 4711_3), or the attempts that farms make at DOCUMENTs.

    The farm's daemon ends them, and the documents are failed with your reason and not tried again by themselves;
    `orchestrator retry` takes them up. An attempt that is done before that counts as done.
    """
    from orchestrator import batchjobs, joblist
    from orchestrator.cli.output import plain
    from orchestrator.engine import controls

    known = joblist.jobs(site.database)
    wanted: dict[str, str] = {}
    for word in which:
        found = joblist.find(known, word)
        if found is None:
            wanted.setdefault(word, "")
            continue
        job, task = found
        some = [m for m in joblist.members_of(site.database, job.name) if m.state in joblist.STATES]
        wanted.update({m.document: job.name for m in some if task in (None, m.task)})
    if len(wanted) > site.settings.ask_above and not yes and not dry_run:
        click.confirm(f"End the attempts at {len(wanted)} documents?", abort=True, err=True)
    done = controls.cancel(
        site.database, wanted, by=who(), reason=reason, then=batchjobs.HOLD if hold else batchjobs.FAILED,
        dry_run=dry_run,
    )  # fmt: skip
    if site.as_json:
        site.output.json({"cancelled": list(done.changed), "refused": done.refused, "dry_run": dry_run})
        return 1 if done.refused else 0
    fate = "wait on hold" if hold else "are failed"
    if done.changed:
        head = "would be ended" if dry_run else "the farm's daemon ends the attempts"
        site.output.line(f"{len(done.changed)} documents: {head}, and the documents then {fate}")
    for name in list(done.changed)[:NAMED]:
        site.output.line(f"  {name}")
    for name, why in done.refused.items():
        click.echo(f"orchestrator: {plain(f'{name}: {why}')}", err=True)
    return 1 if done.refused else 0


COMMANDS = (pause, drain, resume, limits, cancel)
