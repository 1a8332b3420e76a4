"""``site``: the other end of a farm, set up and tried from here."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.context import Context, SiteCommand, SiteGroup, json_option, pass_site

if TYPE_CHECKING:
    from orchestrator.remote.target import Target


@click.group("site", cls=SiteGroup, short_help="Set up a farm: install there, check it.")
def remote() -> None:
    """Set up the other end of a farm: put the runner and the steps there, try everything that it needs.

    FARM may be left out where this site uses one farm.
    """


def _target(site: Context, farm: str | None) -> Target:
    from orchestrator.remote.target import target_of

    return target_of(site.chain, site.settings, farm)


@remote.command(cls=SiteCommand, short_help="Put the runner and the steps at a farm.")
@click.argument("farm", required=False)
@click.option("--python", "words", metavar="WORDS",
              help="How Python is called there. Default: the first that is new enough.")  # fmt: skip
@click.option("--wheels", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Send the wheels in this folder along, and install them: for a farm without network.")  # fmt: skip
@click.option("--download", is_flag=True,
              help="Fetch into that folder first, by pip here, the wheels that fit the farm's Python.")  # fmt: skip
@click.option("--pip", "fetch", is_flag=True, help="Have pip there fetch what the steps use, as they use it here.")
@click.option("--require", multiple=True, metavar="NAME", help="One more package to fetch, such as numpy==2.1.")
@click.option("--force", is_flag=True, help="Switch to it even if a step cannot be loaded there.")
@click.option("--dry-run", is_flag=True, help="Only say what would be sent, and what the steps use.")
@json_option
@pass_site
def install(
    site: Context, farm: str | None, words: str | None, wheels: Path | None, download: bool, fetch: bool,
    require: tuple[str, ...], force: bool, dry_run: bool,
) -> int:  # fmt: skip
    """Put the runner, the steps and the site's own modules at FARM, beside the versions that are there.

    New jobs use it from then on; jobs that are there already go on with theirs. Versions that no job names any more are
    removed. Doing it twice changes nothing.
    """
    import shlex

    from orchestrator.errors import Exit
    from orchestrator.remote import far, package
    from orchestrator.remote import wheels as fetched
    from orchestrator.remote.install import as_json
    from orchestrator.remote.install import install as put

    if wheels and fetch:
        raise click.UsageError("Packages come either from --wheels or by --pip.")
    if download and not wheels:
        raise click.UsageError("--download needs --wheels DIR: the folder to fetch into.")
    if require and not (fetch or download):
        raise click.UsageError("--require goes with --pip or --download.")
    target, out = _target(site, farm), site.output
    needs = package.needs(site.settings.folder, target.steps)
    files = package.collect(site.settings.folder, target.steps)
    wanted = tuple(dict.fromkeys([*needs.requirements, *require]))
    if not site.as_json:
        out.line(f"{len(files)} files; the steps use: {' '.join(needs.requirements) or 'nothing besides Python'}")
        for name, why in needs.unknown.items():
            out.line(f"  what {name} uses is not known, since it cannot be loaded here: {why}")
    if dry_run:
        if site.as_json:
            out.json({"files": sorted(files), "requirements": needs.requirements, "unknown": dict(needs.unknown)})
        return 0
    try:
        given = shlex.split(words) if words else []
    except ValueError as error:
        raise click.UsageError(f"--python {words}: {error}") from None
    with target.transport:
        python = far.find(target.transport, given)
        out.line(f"{target.transport.where}: {python.about} ({' '.join(python.lasting)})")
        made = package.Package(files, (), wanted, "pip") if fetch else package.Package(files)
        if wheels:
            if download:
                out.line(f"fetching wheels into {wheels}")
                fetched.download(wheels, wanted, python)
            found, names = package.wheels_of(wheels)
            made = package.Package(files, found, wanted if download else names, "wheels")
        done = put(target, made, python, time.time(), force=force, say=out.line)
    if target.farm.python:
        done.advice.append(f"farms / {target.name} / python is set in the chain: jobs use that one until it is removed")
    if site.as_json:
        out.json(as_json(done))
    else:
        out.line(f"{done.done}: {done.folder}", style="bold")
        for name in done.removed:
            out.line(f"  removed {name}, which no job names any more")
        for name, fault in done.faults.items():
            out.line(f"  step {name} cannot be loaded there: {fault}", style="red")
        for line in done.advice:
            out.line(f"  {line}")
        out.line("New jobs use it." if done.current else "New jobs do not use it yet; --force switches all the same.")
    return int(Exit.OK if done.current and not done.faults else Exit.FAILED)


@remote.command(cls=SiteCommand, short_help="List what is installed at a farm.")
@click.argument("farm", required=False)
@click.option("--clean", is_flag=True, help="Remove versions that no job names and that were replaced a while ago.")
@json_option
@pass_site
def versions(site: Context, farm: str | None, clean: bool) -> int:
    """List the versions that are installed at FARM, and how many jobs name each."""
    from orchestrator.errors import Exit
    from orchestrator.remote import far, install

    target = _target(site, farm)
    with target.transport:
        now = install.current(target.transport, target.spool, target.prefix)
        python = now.python if now else far.find(target.transport).words
        found = install.versions(target, python, remove=clean)
    for one in found:
        one["used"] = now is not None and one["name"] == now.name
    if site.as_json:
        site.output.json({"farm": target.name, "current": now.name if now else None, "versions": found})
        return 0
    rows = [
        (
            one["name"], "used" if one["used"] else "removed" if one["removed"] else "another's" * one["current"],
            one["jobs"], one.get("installed") or "-", " ".join(one.get("requirements") or ()) or "-",
        )
        for one in found
    ]  # fmt: skip
    site.output.table(("version", "state", "jobs", "installed", "packages"), rows, right=(2,))
    return int(Exit.OK)


@remote.command(cls=SiteCommand, short_help="Try everything that a farm needs.")
@click.argument("farm", required=False)
@click.option("--job", is_flag=True, help="Submit one real job too: it proves that the nodes see what they need.")
@click.option("--wait", type=float, default=600.0, show_default=True, metavar="S", help="How long to wait for it.")
@json_option
@pass_site
def check(site: Context, farm: str | None, job: bool, wait: float) -> int:
    """Try everything that FARM needs, in turn, and say what to do about each fault.

    Host, host key, login, shell, folders, disk, clock, batch system, Python, runner and each step. Ends with 0 if there
    is no problem (warnings do not count), else with the first problem's exit code.
    """
    from dataclasses import asdict

    from rich.text import Text

    from orchestrator.cli.output import plain
    from orchestrator.remote.check import Checks

    target = _target(site, farm)
    styles = {"ok": "green", "warning": "yellow", "problem": "red", "not tried": "dim"}
    found = []
    with target.transport:
        for one in Checks(target, site.settings, job=max(1.0, wait) if job else 0.0).run():
            found.append(one)
            if site.as_json or (site.verbosity < 0 and one.level == "ok"):
                continue
            line = Text.assemble((f"{one.level:9}", styles[one.level]), f" {plain(one.check):12} {plain(one.text)}")
            site.output.console.print(line)
            if one.remedy:
                site.output.console.print(Text(f"{'':23}-> {plain(one.remedy)}", style="dim"))
    problems = [one for one in found if one.level == "problem"]
    code = int(problems[0].code) if problems else 0
    if site.as_json:
        rows = [asdict(one) for one in found]
        site.output.json({"farm": target.name, "ok": not problems, "exit_code": code, "findings": rows})
        return code
    counts = {level: sum(one.level == level for one in found) for level in ("problem", "warning", "not tried")}
    plural = {"problem": "s", "warning": "s", "not tried": ""}
    words = [f"{number} {level}{plural[level] if number != 1 else ''}" for level, number in counts.items()]
    site.output.line(", ".join(words) + "." if any(counts.values()) else "Everything is in order.")
    return code
