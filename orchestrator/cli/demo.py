"""``demo``: everything at once, in a folder of its own."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestrator.cli.context import Context, SiteCommand, json_option, pass_site

if TYPE_CHECKING:
    from orchestrator.demo import Summary
    from orchestrator.overview import Overview
    from orchestrator.settings import Settings
    from orchestrator.up import Signals, Site

T = TypeVar("T")

LOOK = 0.5  # s between two looks at the views; each costs the database some milliseconds
PATIENCE = 120.0  # s for which the daemons may take to come up, or the database to come back
STILL = 30.0  # s without any change after which that is said


@click.command(cls=SiteCommand, short_help="Show everything at work, on simulated files or yours.")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("--directory", type=click.Path(path_type=Path, file_okay=False),
              help="Where it works (default: orchestrator-demo here). Used again, it goes on from there.")  # fmt: skip
@click.option("--end", is_flag=True, help="End when all is done, instead of leaving the page up.")
@click.option("--chain", "chain_name", metavar="NAME|FILE", help="The chain (default: by the files' format).")
@click.option("--runs", default=3, show_default=True, type=click.IntRange(0, 1000), help="Simulated Samba runs.")
@click.option("--partitions", default=3, show_default=True, type=click.IntRange(1, 1000), help="Files in each run.")
@click.option("--events", default=200, show_default=True, type=click.IntRange(1, 10**6), help="Events in each file.")
@click.option("--port", type=click.IntRange(1, 65535), help="The status page's port (default: 8080, or a free one).")
@click.option("--workers", type=click.IntRange(1, 1024), help="Steps that run at once (default: one for each core).")
@json_option
@pass_site
def demo(
    site: Context,
    paths: tuple[Path, ...],
    directory: Path | None,
    end: bool,
    chain_name: str | None,
    runs: int,
    partitions: int,
    events: int,
    port: int | None,
    workers: int | None,
) -> int:
    """Show everything at work: database, simulated DAQ, chain, status page. Needs nothing but this command.

    Starts the embedded database, deploys the couchapp, starts registrar, poller and status page, lets a simulated
    DAQ write runs of raw files, carries each through the chain, and says what came of it. With PATHS it processes
    those files (raw Samba or DATE files, or ROOT event trees) instead of simulated ones. Ends with 1 if any file
    failed.
    """
    from orchestrator import chain as chains
    from orchestrator import demo as demos
    from orchestrator.up import Signals, Site

    files = [path.absolute() for path in paths]
    name = chain_name or (demos.chain_for(files) if files else "samba")
    folder = demos.folder_for(name, directory)
    overrides: dict[str, Any] = {**site.overrides, **({"workers": workers} if workers else {})}
    settings = demos.make_site(folder, name, os.environ, overrides, port=port)
    daq = None if files else {"runs": runs, "partitions": partitions, "events": events}
    run = Run(site, settings, files, daq)
    out = site.output
    out.line(f"Working in {settings.folder}", style="bold")
    with Signals() as signals:
        running = Site(settings, chains.load(settings.chain), os.environ)
        running.start()
        try:
            summary = run.carry_through(running, signals)
            if summary is None:
                out.line("stopped before the end; the same command goes on from here")
                return 130
            show(site, summary, stays=not end)
            if not end and not signals.count:
                out.line()
                out.line(f"The status page stays up at {summary.page} until Ctrl-C.", style="bold")
                while not signals.wait(0.2):
                    running.tick()
        finally:
            running.finish(signals)
    return 1 if summary.failed or run.refused else 0


class Run:
    """One demo from start to summary."""

    def __init__(self, site: Context, settings: Settings, files: list[Path], daq: dict[str, int] | None) -> None:
        self._site = site
        self._settings = settings
        self._files = files
        self._daq = daq
        self._folder = settings.watch[0] if settings.watch else settings.folder / "incoming"
        self._planned = 0
        self.refused = 0

    def _start_daq(self, running: Site) -> None:
        """The simulated DAQ as one more child, which works to its end."""
        from orchestrator.children import command
        from orchestrator.demo import daq_options
        from orchestrator.supervise import Spec

        assert self._daq is not None and running.supervisor is not None
        words = [word for name, value in self._daq.items() for word in (f"--{name}", str(value))]
        options = daq_options(self._folder)
        for option in options:
            words += ["--option", option]
        self._planned = self._daq["runs"] * self._daq["partitions"] + ("date_runs=0" not in options)
        running.supervisor.add(Spec("daq", command(self._settings, "simulate", str(self._folder), *words), once=True))

    def carry_through(self, running: Site, signals: Signals) -> Summary | None:
        """Wait until every file is through, showing how far it is. None if a signal came first."""
        from orchestrator import demo as demos
        from orchestrator import overview
        from orchestrator.children import page_url
        from orchestrator.connect import run_database
        from orchestrator.errors import OrchestratorError, Unavailable

        if not _until(running, signals, lambda: _daemons_up(running)):
            if signals.count:
                return None
            raise OrchestratorError(f"the daemons did not come up within {PATIENCE:.0f} s (see {self._settings.logs})")
        database = run_database(self._settings, os.environ)
        before = _insistently(lambda: overview.read(database, running.chain), running, signals)
        if before is None:
            return None
        if self._files:
            expected = self._register(database, running)
        else:
            self._start_daq(running)
            expected = before.documents + self._planned
        clock = demos.Clock()
        told = 0.0
        with progress_display(self._site, running.chain) as display:
            while True:
                if _until(running, signals, lambda: False, LOOK):
                    continue
                if signals.count:
                    return None
                try:
                    found = overview.read(database, running.chain)
                except Unavailable:
                    continue  # the database is being started again
                daq_done = self._daq is None or self._daq_ended(running)
                if self._daq is not None and daq_done:
                    expected = demos.raw_files(self._folder)  # fewer than planned if it was interrupted before
                clock.see(found, before)
                display.update(found, max(expected, found.documents))
                if daq_done and demos.over(found, expected, clock.quiet):
                    break
                if clock.quiet > STILL and time.monotonic() > told + STILL:
                    told = time.monotonic()
                    self._say_still(clock.quiet)
        return demos.summarise(database, running.chain, self._settings, before, clock.seconds, page_url(self._settings))

    def _say_still(self, seconds: float) -> None:
        """Nothing moves: say so, with what is likely to be the cause."""
        from orchestrator.checks import folders

        causes = [f"{finding.subject}: {finding.text}" for finding in folders(self._settings) if finding.level != "ok"]
        hint = "; ".join(causes) or f"the logs in {self._settings.logs} may say why"
        click.echo(f"orchestrator: nothing has changed for {seconds:.0f} s: {hint}", err=True)

    def _register(self, database: Any, running: Site) -> int:
        """Register the user's files; how many documents there must be then."""
        from orchestrator import overview, registrar
        from procs.register.settings import RegisterSettings

        rules = RegisterSettings.model_validate(
            {**self._settings.register_settings, "type": running.chain.type, "site": self._settings.site}
        )
        found = registrar.register_paths(database, self._files, rules)
        self._site.output.line(f"registration: {found}")
        for sentence in found.problems:
            click.echo(f"orchestrator: {sentence}", err=True)
        self.refused = found.errors + found.waiting
        return overview.read(database, running.chain).documents

    def _daq_ended(self, running: Site) -> bool:
        from orchestrator.errors import OrchestratorError

        assert running.supervisor is not None
        daq = running.supervisor.child("daq")
        if daq.state == "given up" or daq.restarts > 2:
            raise OrchestratorError(f"the simulated DAQ {daq.ended} (see {daq.log})")
        return daq.state == "finished"


def _daemons_up(running: Site) -> bool:
    """Whether everything but the DAQ is up; raises if something never will be."""
    from orchestrator.children import page_answers
    from orchestrator.errors import OrchestratorError

    assert running.supervisor is not None
    for child in running.supervisor.children:
        if child.state == "given up" or child.restarts > 5:
            raise OrchestratorError(f"the {child.spec.name} {child.ended} (see {child.log})")
    states = [child.state for child in running.supervisor.children if child.spec.name != "daq"]
    return all(state == "running" for state in states) and page_answers(running.settings)


def _insistently(ask: Callable[[], T], running: Site, signals: Signals) -> T | None:
    """What ``ask`` says, asked again while the database is away; None if a signal comes first."""
    from orchestrator.errors import Unavailable

    end = time.monotonic() + PATIENCE
    while not signals.count:
        try:
            return ask()
        except Unavailable:
            if time.monotonic() > end:
                raise
        _until(running, signals, lambda: False, LOOK)
    return None


def _until(running: Site, signals: Signals, condition: Any, seconds: float = PATIENCE) -> bool:
    """Tick until the condition holds (True), or a signal comes or the time is over (False)."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not signals.wait(0.05):
        running.tick()
        if condition():
            return True
    return False


def progress_display(site: Context, chain: Any) -> Any:
    """Bars on a terminal; a line now and then in a pipe; nothing where JSON is wanted."""
    quiet = site.as_json or site.verbosity < 0
    return Bars(site, chain) if sys.stdout.isatty() and not quiet else Lines(site, chain, quiet)


class Lines:
    """Progress in a pipe or a log: a line whenever a twentieth more is done, or ten seconds have passed."""

    def __init__(self, site: Context, chain: Any, quiet: bool) -> None:
        self._site = site
        self._chain = chain
        self._quiet = quiet
        self._last = (-1, 0.0)

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def update(self, found: Overview, files: int) -> None:
        """Print a line if there is news."""
        total = max(1, files * len(self._chain.steps))
        part, now = 20 * found.done // total, time.monotonic()
        if self._quiet or (part == self._last[0] and now < self._last[1] + 10):
            return
        self._last = (part, now)
        counts = [f"{step.name} {found.steps.get(step.key, {}).get('done', 0)}" for step in self._chain.steps]
        failed = f", {found.failed} failed" if found.failed else ""
        of = f"{found.documents} of {files} file{'' if files == 1 else 's'}"
        self._site.output.line(f"{of}: {', '.join(counts)}{failed}")


class Bars:
    """Progress on a terminal: a bar for each step."""

    def __init__(self, site: Context, chain: Any) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._chain = chain
        self._began = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description:12}"),
            BarColumn(bar_width=36),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(),
            console=site.output.console,
            refresh_per_second=8,
        )
        self._tasks = {step.key: self._progress.add_task(step.name, total=None, note="") for step in chain.steps}

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, found: Overview, files: int) -> None:
        """Move the bars."""
        for step in self._chain.steps:
            counts = found.steps.get(step.key, {})
            lost = counts.get("failed", 0) + counts.get("bad", 0)
            rate = counts.get("done", 0) / max(0.5, time.monotonic() - self._began)
            notes = [f"{rate:.1f}/s"] + ([f"{counts['in progress']} running"] if counts.get("in progress") else [])
            notes += [f"{lost} failed"] if lost else []
            self._progress.update(
                self._tasks[step.key], total=files or None, completed=counts.get("done", 0), note=", ".join(notes)
            )


def show(site: Context, summary: Summary, stays: bool) -> None:
    """Print the summary; ``stays``: the page will be up, else how to have it again."""
    from orchestrator.cli.output import age

    if site.as_json:
        site.output.json(summary.to_json())
        return
    out = site.output
    out.line()
    good = "all good" if not summary.failed else f"{summary.failed} failed"
    took = f"{age(summary.seconds)} ({summary.rate:.1f} steps/s)"
    style = "red" if summary.failed else "green"
    files = f"{summary.files} file{'' if summary.files == 1 else 's'}"
    out.line(f"{files}, {summary.steps} steps done in {took}: {good}", style=style)
    out.line(f"  outputs   {summary.outputs}")
    if stays:
        out.line(f"  page      {summary.page}")
        out.line(f"  look      orchestrator -C '{site_folder(summary)}' status")
    else:
        out.line(f"  look      orchestrator -C '{site_folder(summary)}' up")
    for document, step, reason in summary.failures:
        out.line(f"  {document}: {step}: {reason}", style="red")


def site_folder(summary: Summary) -> Path:
    """The demo's folder, from where its outputs are."""
    return summary.outputs.parent
