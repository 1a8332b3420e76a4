"""What people do to documents: ``retry``, ``hold``, ``release``, ``fail``, ``abandon``, ``mark-bad``, ``mark-good``,
``accept``, ``reset``, ``reprocess``, ``priority``, and ``operations``, which lists what has been done.

All choose their documents by the same words and show the same; only the decision differs (``orchestrator.people``).
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.context import Context, SiteCommand, branch_option, json_option, pass_site

if TYPE_CHECKING:
    from orchestrator.chain import Chain
    from orchestrator.engine.operations import Desk, Done
    from orchestrator.people import Order
    from orchestrator.selection import Selection

#: Documents that are named one by one in what a command prints; of more, the counts.
NAMED = 10

_CHOICE: tuple[Callable[[Any], Any], ...] = (
    click.argument("documents", nargs=-1),
    click.option("--run", "runs", multiple=True, metavar="RUN", help="Documents of this run (may be repeated)."),
    click.option("--runs", "run_range", default="", metavar="FIRST..LAST", help="Documents of these runs."),
    click.option("--status", "statuses", multiple=True, help="Documents of this status, such as 'failed'."),
    click.option("--step", default="", help="Documents that stand at this step (name or keyword)."),
    click.option("--query", default="", metavar="JSON", help="Documents that a Mango selector finds."),
    click.option("--all", "all_", is_flag=True, help="All documents to which it applies."),
    click.option("--reason", default="", help="Why; it is kept in the documents and in the operation's record."),
    click.option("--dry-run", is_flag=True, help="Only say what would be done."),
    click.option("--yes", is_flag=True, help="Do not ask (it is asked above the setting ask_above)."),
)


def choice(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the words by which documents are chosen, and those that every operation has."""
    for option in reversed(_CHOICE):
        function = option(function)
    return json_option(branch_option(function))


def _operation(
    what: str, more: tuple[Callable[[Any], Any], ...] = (), last: tuple[Callable[[Any], Any], ...] = ()
) -> Callable[..., click.Command]:
    """Makes a command of an operation; the function's docstring is its help. ``last`` are arguments behind the ids."""

    def make(function: Callable[..., Any]) -> click.Command:
        @functools.wraps(function)
        def run(site: Context, **words: Any) -> int:
            return _perform(site, what, **words)

        decorated: Any = pass_site(run)
        for argument in last:
            decorated = argument(decorated)
        decorated = choice(decorated)
        for option in reversed(more):
            decorated = option(decorated)
        short = (function.__doc__ or "").splitlines()[0]
        return click.command(what, cls=SiteCommand, short_help=short)(decorated)

    return make


_OUTPUTS = click.option(
    "--outputs",
    type=click.Choice(["kept", "moved", "removed"]),
    default="kept",
    show_default=True,
    help="What becomes of the old output files; moved: to past/<operation> in the data folder.",
)


@_operation("retry")
def retry() -> None:
    """Set failed documents going again.

    From the step that failed; earlier steps stay done.
    """


@_operation("hold")
def hold() -> None:
    """Keep documents from being taken by any step.

    Their status stays, and an attempt that is running goes on and is recorded.
    """


@_operation("release")
def release() -> None:
    """Let documents that are on hold go on."""


@_operation("fail")
def fail() -> None:
    """Take documents away from the step that has them.

    They count as failed there, with your reason. An attempt that runs here is ended within seconds; whatever one
    elsewhere reports later is dropped.
    """


@_operation("abandon")
def abandon() -> None:
    """Give up on documents, wherever they are.

    They count as failed, at no step, with your reason; `orchestrator retry` takes them up again.
    """


@_operation("mark-bad")
def mark_bad() -> None:
    """Take documents out of processing.

    Whoever works on one finds it gone on.
    """


@_operation("mark-good")
def mark_good() -> None:
    """Put bad documents back into processing.

    Closed ones are accepted: they become good.
    """


@_operation("accept", last=(click.argument("target", metavar="STEP"),))
def accept() -> None:
    """Take an output that a gate has refused as it is.

    STEP counts as done in these documents, and they go on; the gate's word stays beside yours.
    """


_TO = click.option("--to", "target", required=True, metavar="STEP", help="The first step to redo.")


@_operation("reset", (_TO, _OUTPUTS))
def reset() -> None:
    """Have a step, and all that depends on it, done again.

    What these steps had written into the documents is kept in documents of type past.
    """


@_operation(
    "reprocess",
    (
        click.argument("target", metavar="STEP"),
        click.option("--version", default="", help="Those done with this version of the step."),
        click.option("--not-version", default="", help="Those done with any other version of the step."),
        _OUTPUTS,
    ),
)
def reprocess() -> None:
    """Redo STEP in documents that have it done.

    With all that depends on it: by its version, by query, by runs. What these steps had written into the documents is
    kept in documents of type past.
    """


@_operation("priority", (click.option("--to", "value", type=int, required=True, help="Higher is sooner; 0 is usual."),))
def priority() -> None:
    """Say which documents are taken first."""


@click.command("operations", cls=SiteCommand, short_help="List what people have done to documents.")
@click.argument("operation", required=False)
@click.option("--document", default="", help="Those that took something out of this document, with what it was.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000), help="So many, the last ones.")
@click.option("--finish", is_flag=True, help="Do what is left of OPERATION's outputs, and let its documents go.")
@branch_option
@json_option
@pass_site
def operations(site: Context, operation: str | None, document: str, limit: int, finish: bool, branch: str) -> int:
    """List what people have done to documents, the last on top; of OPERATION, all that is known."""
    from orchestrator.engine import operations as engine

    if finish:
        if not operation:
            raise click.UsageError("Say which operation to finish.")
        return _show(site, "reset", desk(site, branch).finish(operation), False)
    if operation:
        site.output.json(engine.record_of(site.database, operation))
        return 0
    if document:
        pasts = engine.pasts(site.database, document)
        if site.as_json:
            site.output.json(pasts)
            return 0
        site.output.table(
            ("when", "operation", "by", "steps", "reason"),
            [
                (one["at"], *(one["operation"].get(key) for key in ("id", "by")), " ".join(one["entries"]),
                 one["operation"].get("reason"))
                for one in pasts
            ],
        )  # fmt: skip
        return 0
    rows = engine.latest(site.database, limit)
    if site.as_json:
        site.output.json(rows)
        return 0
    site.output.table(
        ("operation", "what", "by", "documents", "state", "reason"),
        [
            (one["_id"], one.get("what"), one.get("by"), (one.get("counts") or {}).get("changed", one.get("selected")),
             one.get("state"), one.get("reason"))
            for one in rows
        ],
    )  # fmt: skip
    return 0


COMMANDS = (retry, hold, release, fail, abandon, mark_bad, mark_good, accept, reset, reprocess, priority, operations)


# --- what they share ---


def desk(site: Context, branch: str = "") -> Desk:
    """Where this site's orders for a lane, a gather or the main chain are carried out."""
    from orchestrator.engine.operations import Desk

    chain, database, _ = site.branch(branch)
    return Desk(database, chain, site.settings.site, site.settings.data)


def _perform(site: Context, what: str, **words: Any) -> int:
    from orchestrator.engine.choosing import choose
    from orchestrator.engine.operations import unfinished
    from orchestrator.people import Order

    order = Order(
        what, who(), words["reason"], words.get("target") or "", words.get("outputs") or "kept", words.get("value") or 0
    )
    at = desk(site, words["branch"])
    if order.step:
        order = replace(order, step=at.chain.step(order.step).key)
    selection = _selection(at.chain, what, order, words)
    if selection.empty:
        raise click.UsageError("Say which: ids (- reads them), --run, --runs, --status, --step, --query or --all.")
    names = choose(at.database, at.chain, selection, site.database)
    if not names:
        site.output.line(_nothing(what))
        for one in unfinished(at.database) if what in ("reset", "reprocess") else ():
            site.output.line(
                f"{one['_id']} ({one.get('what')}, by {one.get('by')}) has not ended. If it was cut short, documents "
                f"are on hold for it: orchestrator operations --finish {one['_id']}"
            )
        if site.as_json:
            site.output.json({"operation": "", "changed": {}, "unchanged": {}, "refused": {}})
        return 0
    if not words["dry_run"]:
        _ask(site, what, len(names), words["yes"], stdin="-" in words["documents"])
    done = at.perform(order, names, selection, dry_run=words["dry_run"])
    return _show(site, what, done, words["dry_run"])


def _selection(chain: Chain, what: str, order: Order, words: dict[str, Any]) -> Selection:
    from orchestrator.errors import SettingsError
    from orchestrator.selection import Selection, run_range, usual

    names = tuple(name for name in words["documents"] if name != "-")
    if "-" in words["documents"]:
        names += tuple(line.rstrip("\r\n") for line in sys.stdin if line.strip())
        if not names:
            raise click.UsageError("No ids came from standard input.")
    first, last = run_range(words["run_range"]) if words["run_range"] else ("", "")
    query = None
    if words["query"]:
        try:
            query = json.loads(words["query"])
        except ValueError as error:
            raise SettingsError(f"--query is no JSON: {error}") from None
        if not isinstance(query, dict):
            raise SettingsError("--query must be a Mango selector: a JSON object")
    said = Selection(
        names, tuple(words["runs"]), first, last, tuple(words["statuses"]),
        chain.step(words["step"]).key if words["step"] else "", "",
        words.get("version") or "", words.get("not_version") or "", query, words["all_"],
    )  # fmt: skip
    return usual(what, said, order.step)


def _nothing(what: str) -> str:
    return "Nothing has failed." if what == "retry" else "No document fits."


def _ask(site: Context, what: str, count: int, yes: bool, *, stdin: bool) -> None:
    """Above the setting ask_above nothing is changed without a yes. Raises click.Abort and click.UsageError."""
    if count <= site.settings.ask_above or yes:
        return
    if stdin or not sys.stdin.isatty():
        raise click.UsageError(
            f"This concerns {count} documents, more than {site.settings.ask_above} (setting ask_above), and there is "
            "nobody to ask: look with --dry-run, then say --yes."
        )
    click.confirm(f"{what} {count} documents?", abort=True, err=True)


def _show(site: Context, what: str, done: Done, dry_run: bool) -> int:
    from orchestrator.people import NAMES, OPERATIONS

    said = OPERATIONS[NAMES.index(what)].said
    if site.as_json:
        site.output.json({"dry_run": dry_run, **vars(done)})
    elif len(done.changed) > NAMED:
        site.output.line(f"{len(done.changed)} documents: each {'would be changed' if dry_run else said}")
    for name, (before, after) in done.changed.items() if len(done.changed) <= NAMED else ():
        moved = f" ({before} -> {after})" if before != after else ""
        site.output.line(f"{name}: {'would be changed' if dry_run else said}{moved}")
    if len(done.unchanged) > NAMED:
        site.output.line(f"{len(done.unchanged)} documents: nothing to do")
    for name, why in done.unchanged.items() if len(done.unchanged) <= NAMED else ():
        site.output.line(f"{name}: nothing to do: {why}")
    for name, why in done.refused.items():
        click.echo(f"orchestrator: {name}: {why}", err=True)
    if done.operation:
        site.output.line(f"recorded as {done.operation}", style="dim")
    return 1 if done.refused else 0


def who() -> str:
    """The person at this terminal, for the record: the account at the database, by which its guard knows them."""
    import getpass
    import socket

    context = click.get_current_context(silent=True)
    site = context.find_object(Context) if context is not None else None
    login = site.credentials if site is not None else None
    try:
        return f"{login.username if login is not None else getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):  # an account without a name, as in a container
        return socket.gethostname()
