"""``online``: check, start, stop and status of the whole."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.context import Context, SiteCommand, json_option, pass_site

if TYPE_CHECKING:
    from orchestrator.runtime import Lock

SILENT = 10.0  # s without a word of the transform after which it is told
SLACK = 30.0  # s beyond the system's own patience until the command gives up waiting for it


@click.command(cls=SiteCommand, short_help="Check everything that a start needs.")
@json_option
@pass_site
def check(site: Context) -> int:
    """Check everything that `orchestrator online start` needs: configuration, modules, keys, references, ports,
    database, disk. Says all that is wrong, and ends with 1 if anything is."""
    import os

    from orchestrator.online.checking import Checks

    os.chdir(site.settings.folder)
    found = list(Checks(site.settings, os.environ).all())
    bad = [one for one in found if one.error is not None]
    if site.as_json:
        site.output.json([{"check": one.name, "ok": one.error is None, "said": str(one.error or one.said)}
                          for one in found])  # fmt: skip
        return 1 if bad else 0
    site.output.table(
        ("check", "", "what it says"),
        [(one.name, "wrong" if one.error else "good", str(one.error or one.said)) for one in found],
    )
    return 1 if bad else 0


@click.command(cls=SiteCommand, short_help="Start the online system.")
@click.option("--foreground", is_flag=True, help="Stay until Ctrl-C, with news on the terminal.")
@json_option
@pass_site
def start(site: Context, foreground: bool) -> int:
    """Check, then start what online.yaml has: broadcast, transform with its workers, reducers, pages.

    What is wrong is said in one sentence, and nothing is started then. Afterwards a process that dies is started again,
    it alone. `orchestrator online stop` stops all; a later start goes on where this one was.
    """
    import os

    site.log_to_stderr()
    folder = site.settings.folder
    os.chdir(folder)
    return _foreground(site) if foreground else _background(site)


def _foreground(site: Context) -> int:
    import os

    from orchestrator.online.system import System
    from orchestrator.up import Signals

    with Signals() as signals:
        System(site.settings, os.environ).run(signals, site.output.line)
    site.output.line("stopped")
    return 0


def _background(site: Context) -> int:
    import os
    import subprocess

    from orchestrator.cli.up import _with_code
    from orchestrator.errors import OrchestratorError
    from orchestrator.online.checking import Checks
    from orchestrator.online.system import PATIENCE, page_of, take
    from orchestrator.runtime import Lock, last_words, read_status

    settings = site.settings
    runtime = settings.folder / "online"
    lock = Lock(runtime)
    take(lock, settings)
    lock.release()
    online = Checks(settings, os.environ).must_pass()
    settings.logs.mkdir(parents=True, exist_ok=True)
    log = settings.logs / "online.log"
    words = [sys.executable, "-P", "-m", "orchestrator.cli", *settings.arguments(), "online", "start", "--foreground"]
    with log.open("ab") as file:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True)
    end = time.monotonic() + PATIENCE + SLACK
    while time.monotonic() < end:
        code = process.poll()
        if code is not None:
            said = last_words(log, 2000).removeprefix(": ").removeprefix("orchestrator: ")
            raise _with_code(OrchestratorError(said or f"it did not start (see {log})"), code)
        status = read_status(runtime) or {}
        if status.get("pid") == process.pid and status.get("up"):
            site.output.line(f"The online system in {settings.folder} runs (process {process.pid}).", style="bold")
            site.output.line(f"  pages     {page_of(online)}")
            site.output.line(f"  logs      {settings.logs}/online-*.log")
            site.output.line("`orchestrator online status` shows how it is, `orchestrator online stop` stops it.")
            if site.as_json:
                site.output.json(status)
            return 0
        time.sleep(0.1)
    site.output.line(f"It is not wholly up yet; see `orchestrator online status` and {log}.")
    return 1


@click.command(cls=SiteCommand, short_help="Stop the online system.")
@json_option
@pass_site
def stop(site: Context) -> int:
    """Stop the online system: spills in hand are finished and stored, reducers save what they know, pages go last.

    Nothing is lost: a later start goes on where this one was. (With `store: {kind: memory}` runs that were not over
    are read anew.)
    """
    from orchestrator.runtime import Lock

    lock = Lock(site.settings.folder / "online")
    holder = lock.holder()
    if not holder:
        if site.as_json:
            site.output.json({"was_running": False, "stopped": True})
        site.output.line(f"The online system in {site.settings.folder} does not run.")
        return 0
    stopped = _stopped(lock, holder, site.settings.drain)
    if site.as_json:
        site.output.json({"was_running": True, "stopped": stopped})
    site.output.line("stopped" if stopped else f"process {holder} is still stopping; see `orchestrator online status`")
    return 0 if stopped else 1


def _stopped(lock: Lock, holder: int, drain: float) -> bool:
    import signal

    from orchestrator.runtime import send
    from orchestrator.supervise import DATABASE_GRACE, GRACE

    send(holder, signal.SIGTERM)
    end = time.monotonic() + drain + GRACE + DATABASE_GRACE + 5
    while time.monotonic() < end:
        if lock.holder() != holder:
            return True
        time.sleep(0.1)
    return False


@click.command(cls=SiteCommand, short_help="Show processes, run, counts, workers and reducers.")
@json_option
@pass_site
def status(site: Context) -> int:
    """Show how the online system is: its processes, the run, the counts (read = done + failed + pending), each worker,
    and how far each reducer has come. Ends with 1 if it does not run, or a process of it does not."""
    from orchestrator.online.system import state

    found = state(site.settings)
    if site.as_json:
        site.output.json(found)
    else:
        _show(site, found)
    children = (found["system"] or {}).get("children", [])
    fine = found["running"] and all(one["state"] in ("running", "finished") for one in children)
    return 0 if fine else 1


def _show(site: Context, found: dict[str, Any]) -> None:
    out = site.output
    system, said = found["system"], found["transform"]
    if not found["running"]:
        out.line(f"The online system in {found['folder']} does not run.")
    elif system:
        out.line(f"The online system in {found['folder']} runs (process {found['pid']}), pages {system.get('page')}")
        out.table(
            ("process", "state", "pid", "restarts", "last end"),
            [(one["name"], one["state"], one["pid"] or "-", one["restarts"], one["ended"] or "-")
             for one in system["children"]],
        )  # fmt: skip
    if not said or said.get("state") != "running":
        return
    if found["silent"] > SILENT:
        out.line(f"What follows is from {found['silent']:.0f} s ago: the transform hangs, or the disk is full.")
    out.line(_sentence(said), style="bold")
    for words in (said.get("waits_for"), said.get("store_away"), said.get("input_error")):
        if words:
            out.line(f"  {words}")
    out.table(
        ("worker", "state", "spills", "restarts", "where", "reason"),
        [(one["name"], one["state"], one["done"], one["restarts"], one["where"] or "-", one["reason"] or "-")
         for one in said["workers"]],
    )  # fmt: skip
    if found["reducers"]:
        out.table(
            ("reducer", "run", "spills counted", "of these failed", "behind", "snapshot"),
            [(one["name"], one["run"] or "-", _or(one["counted"]), _or(one["failed"]), _or(one["lag"]),
              "-" if not one["finished"] else "without it" if one["gave_up"] else "safe") for one in found["reducers"]],
        )  # fmt: skip
    for one in found["reducers"]:
        if one["trouble"]:
            out.line(f"  {one['trouble']}; the log online-reduce-{one['name']}.log has the trace")
    if found["running"]:
        _show_broadcast(site, found["broadcast"])


def _show_broadcast(site: Context, held: dict[str, Any] | None) -> None:
    if held is None:
        site.output.line("The broadcast does not answer; see the log online-broadcast.log")
        return
    runs = f"{held['runs']} run{'' if held['runs'] == 1 else 's'}"
    site.output.line(
        f"The broadcast keeps {held['topics']} plots and counts of {runs} for viewers that join: "
        f"{held['bytes'] / 1e6:.2f} of {held['most'] / 1e6:.0f} MB"
    )
    if held["dropped"]:
        site.output.line(f"  {held['dropped']} times a plot had no room: reducers make too many, or too large ones")


def _sentence(said: dict[str, Any]) -> str:
    if said.get("run") is not None:
        return f"Run {said['run']}: {_counts(said)} ({said.get('rate', 0):g} spills/s)"
    words = "No run is on: the input has ended." if said.get("input_over") else "No run is on."
    last = said.get("last")
    return f"{words} The last one was {last['run']}, ended by {last['how']}: {_counts(last)}." if last else words


def _counts(said: dict[str, Any]) -> str:
    return ", ".join(f"{said.get(name, 0)} {name}" for name in ("read", "done", "failed", "pending"))


def _or(value: Any) -> Any:
    return "-" if value is None else value


#: Added to the group ``orchestrator online``.
COMMANDS: tuple[click.Command, ...] = (check, start, stop, status)
