"""``replicate`` and ``conflicts``: joining sites, keeping them joined, and what no rule could put together."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.context import Context, SiteCommand, SiteGroup, json_option, pass_site

if TYPE_CHECKING:
    from orchestrator.replicating import Sites


class ReplicationGroup(SiteGroup):
    """A group whose commands take the shared options."""

    command_class = SiteCommand


@click.group(cls=ReplicationGroup, short_help="Join this site's database with other sites'.")
def replicate() -> None:
    """Join this site's database with those of other sites, by CouchDB's replication.

    The setting `replicate` says which, and which way. `orchestrator up` keeps the replications going; where the
    database is run in another way, `replicate watch` does.
    """


def _sites(site: Context) -> Sites:
    from orchestrator.errors import SettingsError
    from orchestrator.replicating import Sites

    if not site.settings.replicate:
        raise SettingsError(
            "no other database is named: write `replicate: {NAME: {url: ..., credentials: FILE}}` into the site's "
            "orchestrator.yaml"
        )
    return Sites(site.settings, os.environ)


@replicate.command(short_help="Show state and lag of each replication.")
@json_option
@pass_site
def status(site: Context) -> int:
    """Show how each replication is doing and how many changes it is behind. Ends with 1 if one does not run.

    `behind` counts changes of the source since the last checkpoint; with a filter by type it can count too many.
    """
    states = [state for state, _ in _sites(site).states()]
    fine = all(state.state in ("running", "paused") and state.reachable for state in states)
    if site.as_json:
        site.output.json([state.as_json() for state in states])
        return 0 if fine else 1
    rows = [
        (
            state.link.name, state.state, "?" if state.behind is None else state.behind, state.since or "-",
            state.written, state.refused or "-", state.reason or "-",
        )
        for state in states
    ]  # fmt: skip
    site.output.table(("replication", "state", "behind", "since", "written", "refused", "why"), rows, right=(2, 4))
    return 0 if fine else 1


@replicate.command(short_help="Start what is stopped.")
@click.argument("remote", required=False)
@json_option
@pass_site
def start(site: Context, remote: str | None) -> None:
    """Start the replications with REMOTE, or all, and keep them going from now on."""
    sites = _sites(site)
    chosen = sites.named(remote)
    sites.pause(sites.paused() - {link.remote for link in chosen})
    started = {link.name: sites.start(link) for link in chosen}
    if site.as_json:
        site.output.json(started)
    for name in started:
        site.output.line(f"{name}: started")


@replicate.command(short_help="Stop until started again.")
@click.argument("remote", required=False)
@json_option
@pass_site
def stop(site: Context, remote: str | None) -> None:
    """Stop the replications with REMOTE, or all, until `replicate start`. Nothing is lost: they go on from there."""
    sites = _sites(site)
    chosen = sites.named(remote)
    sites.pause(sites.paused() | {link.remote for link in chosen})
    stopped = []
    for state, _ in sites.states():
        if state.link in chosen and state.job:
            sites.stop(state.job)
            stopped.append(state.link.name)
    if site.as_json:
        site.output.json(stopped)
    for name in stopped:
        site.output.line(f"{name}: stopped")


@replicate.command(short_help="Keep the replications going, and settle conflicts.")
@pass_site
def watch(site: Context) -> None:
    """Keep the replications going and settle conflicts, until Ctrl-C or SIGTERM. `orchestrator up` runs it."""
    import signal
    import threading

    from orchestrator.replicating import Watcher

    site.log_to_stderr()
    watcher = Watcher(_sites(site), site.chain)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    watcher.run(ended)


@click.group(cls=ReplicationGroup, invoke_without_command=True, short_help="Documents that have several versions.")
@json_option
@click.pass_context
def conflicts(context: click.Context) -> Any:
    """List documents that have several versions, and why no rule has put them together."""
    if context.invoked_subcommand is not None:
        return
    from orchestrator import settling

    site: Context = context.ensure_object(Context)
    found = settling.settle(site.database, site.chain, write=False)
    if site.as_json:
        site.output.json([outcome.as_json() for outcome in found])
        return
    if not found:
        site.output.line("Each document has one version.")
        return
    what = {settling.MERGED: "a rule puts it together"}
    site.output.table(
        ("document", "version", "status", "what to do"),
        [
            (outcome.document if number == 0 else "", rev, text or "-",
             (what.get(outcome.kind) or f"{outcome.kind}: {outcome.reason}") if number == 0 else "")
            for outcome in found
            for number, (rev, text) in enumerate(outcome.versions)
        ],
    )  # fmt: skip
    if any(outcome.kind == settling.PERSON for outcome in found):
        site.output.line("Choose a version: `orchestrator conflicts resolve DOCUMENT --take VERSION --reason WHY`.")


@conflicts.command(short_help="Put together by rule what can be.")
@json_option
@pass_site
def settle(site: Context) -> None:
    """Put together by rule what can be, once. `orchestrator up` does it all the time where `replicate` is set."""
    from orchestrator import connect, settling

    database = connect.server(site.settings, os.environ, daemon="replicator").database(site.settings.database)
    found = settling.settle(database, site.chain)
    if site.as_json:
        site.output.json([outcome.as_json() for outcome in found])
        return
    for outcome in found:
        site.output.line(f"{outcome.document}: {outcome.kind}: {outcome.reason}")
    if not found:
        site.output.line("Each document has one version.")


@conflicts.command(short_help="Keep one version of a document.")
@click.argument("document")
@click.option("--take", "rev", required=True, metavar="VERSION", help="The version to keep.")
@click.option("--reason", default="", help="Why, for the record.")
@json_option
@pass_site
def resolve(site: Context, document: str, rev: str, reason: str) -> None:
    """Keep one version of DOCUMENT and delete the others; who chose and why is kept with the deletion."""
    import time

    from orchestrator import settling
    from orchestrator.documents import iso

    by = site.credentials.username if site.credentials else ""
    gone = settling.take(site.database, document, rev, by, iso(time.time()), reason)
    if site.as_json:
        site.output.json({"document": document, "took": rev, "deleted": gone})
        return
    site.output.line(f"{document}: version {rev} is kept, {', '.join(gone) or 'no other'} deleted")
