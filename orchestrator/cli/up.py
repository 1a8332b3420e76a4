"""``up`` and ``down``: a whole site in one command, in the foreground or detached."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.context import Context, SiteCommand, json_option, pass_site

if TYPE_CHECKING:
    from orchestrator.settings import Settings
    from orchestrator.supervise import Supervisor

UP_WITHIN = 60.0  # s that a detached site may take to come up; building views of a large database goes on afterwards


@click.command(cls=SiteCommand, short_help="Start and supervise everything.")
@click.option("--detach", is_flag=True, help="Return once everything is up; `orchestrator down` stops it.")
@click.option("--status", "ask", is_flag=True, help="Say what is up, and end with 1 if anything is not.")
@click.option("--without", multiple=True, type=click.Choice(["database", "registrar", "poller", "replication", "page"]),
              help="Leave a daemon out (repeatable).")  # fmt: skip
@json_option
@pass_site
def up(site: Context, detach: bool, ask: bool, without: tuple[str, ...]) -> int:
    """Start and supervise everything: database, couchapp, registrar, pollers, status page.

    A daemon that dies is started again, it alone. Ctrl-C or SIGTERM lets running steps finish (setting `drain`) and
    stops all; a second Ctrl-C ends at once, and nothing is lost by it.
    """
    if ask:
        return _show(site)
    if detach:
        return _detach(site, without)
    return _foreground(site, without)


def _foreground(site: Context, without: tuple[str, ...]) -> int:
    from orchestrator.up import TICK, Signals, Site

    site.log_to_stderr()
    running = Site(site.settings, site.chain, os.environ, without=without)
    out = site.output
    with Signals() as signals:
        supervisor = running.start()
        for name in running.leftovers:
            out.line(f"ended a {name} that an earlier run had left behind")
        if not running.embedded:
            out.line(f"using the database at {site.settings.url}; the couchapp is up to date")
        told = False
        try:
            while not signals.wait(TICK):
                running.tick()
                while supervisor.news:
                    out.line(supervisor.news.pop(0))
                if not told:
                    _must_not_be_hopeless(supervisor)
                if supervisor.ready and not told:
                    told = True
                    out.line(f"The site in {site.settings.folder} is up.", style="bold")
                    if "page" not in without:
                        out.line(f"  page      {supervisor.status()['page']}")
                    out.line(f"  database  {site.settings.url}/{site.settings.database}")
                    out.line(f"  logs      {site.settings.logs}")
                    out.line("Ctrl-C stops it.")
            out.line("stopping: running steps may finish (Ctrl-C again ends at once)")
        finally:
            running.finish(signals)
        out.line("stopped")
    return 0


def _must_not_be_hopeless(supervisor: Supervisor) -> None:
    """Before the site has been up once, a daemon that cannot start ends the command with its words and code."""
    from orchestrator.errors import OrchestratorError

    for child in supervisor.children:
        if child.state == "given up":
            words = f"the {child.spec.name} {child.ended} (see {child.log})"
            raise _with_code(OrchestratorError(words), child.exit_code or 1)


def _detach(site: Context, without: tuple[str, ...]) -> int:
    import subprocess

    from orchestrator.errors import OrchestratorError
    from orchestrator.runtime import FOLDER, Lock, last_words, read_status

    settings = site.settings
    site.chain  # noqa: B018 - a chain that is wrong is said here, not in a log
    runtime = settings.folder / FOLDER
    lock = Lock(runtime)
    lock.take()  # says at once who is up already
    lock.release()
    settings.logs.mkdir(parents=True, exist_ok=True)
    log = settings.logs / "up.log"
    words = [sys.executable, "-P", "-m", "orchestrator.cli", *settings.arguments(), "up"]
    words += [word for name in without for word in ("--without", name)]
    with log.open("ab") as file:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True, cwd=settings.folder
        )
    end = time.monotonic() + UP_WITHIN
    while time.monotonic() < end:
        code = process.poll()
        if code is not None:
            raise _with_code(OrchestratorError(f"the site did not come up{last_words(log)} (see {log})"), code)
        status = read_status(runtime)
        if status and status.get("pid") == process.pid and _all_up(status):
            site.output.line(f"The site in {settings.folder} is up (process {process.pid}).", style="bold")
            site.output.line(f"  page      {status.get('page')}")
            site.output.line("`orchestrator down` stops it.")
            if site.as_json:
                site.output.json(status)
            return 0
        time.sleep(0.1)
    site.output.line(f"The site is not wholly up after {UP_WITHIN:.0f} s; see `orchestrator up --status` and {log}.")
    return 1


def _with_code(error: Any, code: int) -> Any:
    from orchestrator.errors import Exit

    error.exit_code = code if code in set(Exit) and code != 0 else Exit.FAILED
    return error


def _all_up(status: dict[str, Any]) -> bool:
    return bool(status.get("children")) and all(c.get("state") in ("running", "finished") for c in status["children"])


def _show(site: Context) -> int:
    from orchestrator.runtime import FOLDER, Lock, read_status

    runtime = site.settings.folder / FOLDER
    holder = Lock(runtime).holder()
    status = read_status(runtime)
    if holder is None or status is None:
        if site.as_json:
            site.output.json({"up": False, "children": []})
        site.output.line(f"The site in {site.settings.folder} is not up.")
        return 1
    fine = _all_up(status)
    if site.as_json:
        site.output.json({"up": True, "all_running": fine, **status})
        return 0 if fine else 1
    site.output.line(f"The site in {site.settings.folder} is up (process {holder}), page {status.get('page')}")
    site.output.table(
        ("daemon", "state", "process", "restarts", "last end"),
        [(c["name"], c["state"], c["pid"] or "-", c["restarts"], c["ended"] or "-") for c in status["children"]],
    )
    return 0 if fine else 1


@click.command(cls=SiteCommand, short_help="Stop a site that is up.")
@click.option("--now", is_flag=True, help="Do not wait for running steps; they are taken up again at the next start.")
@json_option
@pass_site
def down(site: Context, now: bool) -> int:
    """Stop a site that is up: running steps may finish, the database stops last."""
    from orchestrator.runtime import FOLDER, Lock

    lock = Lock(site.settings.folder / FOLDER)
    holder = lock.holder()
    if not holder:
        if site.as_json:
            site.output.json({"was_up": False, "down": True})
        site.output.line(f"The site in {site.settings.folder} is not up.")
        return 0
    stopped = _stop(lock, holder, site.settings, now)
    if site.as_json:
        site.output.json({"was_up": True, "down": stopped})
    site.output.line("stopped" if stopped else f"process {holder} is still stopping; see `orchestrator up --status`")
    return 0 if stopped else 1


def _stop(lock: Any, holder: int, settings: Settings, now: bool) -> bool:
    import signal

    from orchestrator.runtime import send
    from orchestrator.supervise import DATABASE_GRACE, GRACE

    send(holder, signal.SIGTERM)
    if now:
        time.sleep(0.5)
        send(holder, signal.SIGTERM)
    end = time.monotonic() + settings.drain + GRACE + DATABASE_GRACE + 5
    while time.monotonic() < end:
        if lock.holder() != holder:
            return True
        time.sleep(0.1)
    return False
