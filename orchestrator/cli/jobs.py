"""The batch jobs: ``jobs`` lists them, ``job log`` shows what one writes, ``job run`` is one."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.context import Context, SiteCommand, SiteGroup, json_option, pass_site

if TYPE_CHECKING:
    from orchestrator.joblist import Listed, Member
    from orchestrator.joblog import Log

#: How often ``job log --follow`` looks at the file, and whether the attempt has ended (s).
LOOK = 1.0


@click.command(cls=SiteCommand, short_help="List the batch jobs.")
@click.argument("which", nargs=-1, metavar="[JOB]...")
@click.option("--farm", default="", help="Only jobs at this farm.")
@click.option("--step", default="", help="Only jobs of this step (name or keyword).")
@click.option("--state", default="", help="Only jobs with documents in this state: queued, running, held, ...")
@click.option("--documents", "documents_", is_flag=True, help="List the documents of each job too.")
@json_option
@pass_site
def jobs(site: Context, which: tuple[str, ...], farm: str, step: str, state: str, documents_: bool) -> None:
    """List the batch jobs that documents wait for: where each is, since when, on which nodes.

    With JOB (a name or number, of an ended job too) its documents. What is paused, and a farm that cannot be asked, is
    said first.
    """
    from orchestrator import joblist
    from orchestrator.cli.output import plain
    from orchestrator.engine import controls
    from orchestrator.errors import NotFound

    names = {one.key: one.name for one in site.chain.steps}
    wanted_step = site.chain.step(step).key if step else ""
    known = joblist.jobs(site.database)
    away = joblist.away_now(site.database)
    shown = [
        job
        for job in known
        if farm in ("", job.farm) and wanted_step in ("", job.step) and (not state or state in job.states)
    ]
    members: dict[str, list[Member]] = {}
    if which:
        shown = []
        for word in which:
            found = joblist.find(known, word)
            name = found[0].name if found else word
            members[name] = joblist.members_of(site.database, name)
            if found:
                shown.append(found[0])
            if not members[name]:
                raise NotFound(f"there is no batch job {word!r}: `orchestrator jobs` lists what documents wait for")
    elif documents_:
        members = {job.name: joblist.members_of(site.database, job.name) for job in shown}
    stopped = controls.read_all(site.database, site.chain)
    if site.as_json:
        listed = [{**job.to_json(), "step": names.get(job.step, job.step), "keyword": job.step} for job in shown]
        for job in listed:
            if job["name"] in members:
                job["members"] = [m.to_json() for m in members[job["name"]]]
        active = {one.name for one in shown}
        ended = {name: [m.to_json() for m in some] for name, some in members.items() if name not in active}
        controls_ = {name: one.to_json() for name, one in stopped.items()}
        site.output.json({"jobs": listed, "ended": ended, "away": away, "control": controls_})
        return
    for where, control in stopped.items():
        for stop in control.stops:
            click.echo(f"orchestrator: {plain(stop.words(where))}", err=True)
    for name, words in sorted(away.items()):
        since = f"farm {name} cannot be asked since {words.get('since')}"
        told = plain(f"{since}: {words.get('why')}")
        click.echo(f"orchestrator: {told}", err=True)
    if shown or not which:
        site.output.table(
            ("job", "number", "farm", "step", "state", "documents", "node", "since"),
            [
                (
                    job.name, job.number or "-", job.farm, names.get(job.step, job.step), job.state, job.documents,
                    _nodes(job), job.since,
                )
                for job in shown
            ],
        )  # fmt: skip
    for name, some in members.items():
        site.output.line(f"{name}:", style="bold")
        site.output.table(
            ("document", "task", "step", "state", "node", "since"),
            [
                (m.document, m.task, names.get(m.step, m.step), m.cancelled or m.state, m.node or "-", m.since)
                for m in some
            ],
        )


def _nodes(job: Listed) -> str:
    return ", ".join(job.nodes[:3]) + (f" and {len(job.nodes) - 3} more" if len(job.nodes) > 3 else "") or "-"


@click.group(cls=SiteGroup, short_help="One batch job: its log.")
def job() -> None:
    """One batch job: what it writes, and what it is."""


@job.command("run", short_help="Be a batch job.")
@click.argument("chunk", type=click.Path(path_type=Path, dir_okay=False))
def run(chunk: Path) -> int:
    """Do what the file CHUNK says, as a batch job: needs no database, leaves a result file for each document."""
    from orchestrator import job as runner

    return runner.main([str(chunk)])


@job.command("log", short_help="Show what a batch job has written.")
@click.argument("which", metavar="JOB|DOCUMENT")
@click.option("--stdout", "stream", flag_value="stdout", default=True, help="The job's standard output (the default).")
@click.option("--stderr", "stream", flag_value="stderr", help="Its standard error, with the runner's own log.")
@click.option("--step", "stream", flag_value="step", help="What the step printed; it is kept when the attempt ends.")
@click.option("--task", type=click.IntRange(1), help="Which task of an array (default: the first).")
@click.option("--follow", "-f", is_flag=True, help="Go on with what is written, until the attempt ends.")
@click.option("--all", "all_", is_flag=True, help="All of it, not only its end.")
@pass_site
def log(site: Context, which: str, stream: str, task: int | None, follow: bool, all_: bool) -> None:
    """Show what a batch job has written: by its name or number, or that of the last job of DOCUMENT.

    Read where it is, over the farm's transport, also while the job runs.
    """
    from orchestrator import joblog
    from orchestrator.errors import NotFound
    from orchestrator.transports import transport_to

    member = _member(site, which, task)
    farm = joblog.farm_of(site.chain, member.farm)
    if stream == joblog.STEP:
        path = joblog.step_path(farm, site.settings, member.document, member.step, member.attempt)
    else:
        path = joblog.path_of(farm, member.job, member.task, stream)
    with transport_to(farm.access) as transport:
        found = joblog.Log(transport, path)
        site.output.line(f"{path} on {transport.where}", style="dim") if sys.stdout.isatty() else None
        position = 0
        try:
            text, position = found.end(joblog.MOST if all_ else joblog.TAIL)
            _print(text)
        except NotFound:
            if not (follow and _alive(site, member)):
                raise
        if follow:
            _follow(site, found, position, member)


def _follow(site: Context, found: Log, position: int, member: Member) -> None:
    for text in found.follow(position, lambda: _alive(site, member), lambda: time.sleep(LOOK)):
        _print(text)


def _print(text: str) -> None:
    from orchestrator.cli.output import plain

    sys.stdout.write(plain(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def _alive(site: Context, member: Member) -> bool:
    from orchestrator import documents

    found = site.database.get_many([member.document]).get(member.document)
    return found is not None and documents.held_by(found, member.step, member.attempt)


def _member(site: Context, which: str, task: int | None) -> Member:
    """The attempt that ``which`` names. Raises NotFound."""
    from orchestrator import joblist
    from orchestrator.errors import NotFound

    found = joblist.find(joblist.jobs(site.database), which)
    name, wanted = (found[0].name, found[1]) if found else (which, None)
    wanted = task or wanted
    some = joblist.members_of(site.database, name) if joblist.NAME.match(name) else []
    chosen = [m for m in some if wanted in (None, m.task)]
    if some and not chosen:
        raise NotFound(f"job {name} has no task {wanted}: its tasks are 1 to {max(m.task for m in some)}")
    if chosen:
        # Of several documents the one in work is of most interest.
        return min(chosen, key=lambda m: (m.state != "running", m.task))
    last = joblist.last_of(site.database.get(which))
    if last is None:
        raise NotFound(f"no batch job has had document {which!r}")
    return last
