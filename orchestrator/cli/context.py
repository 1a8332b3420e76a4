"""What every command shares: the site it works on, and the options that choose it.

``-C``, ``--set``, ``-v`` and ``-q`` may stand before or after a command's name; the later one wins.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestrator.errors import SettingsError

if TYPE_CHECKING:
    from orchestrator.chain import Chain
    from orchestrator.cli.output import Output
    from orchestrator.couch import Credentials, Database, Server
    from orchestrator.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])


class Context:
    """The site of this command line, read when first asked for."""

    def __init__(self) -> None:
        self.folder = Path(os.environ.get("ORCHESTRATOR_FOLDER") or ".")
        self.overrides: dict[str, str] = {}
        self.verbosity = 0
        self.as_json = False

    @cached_property
    def settings(self) -> Settings:
        """The site's settings. Raises SettingsError."""
        from orchestrator.settings import Settings

        if not self.folder.is_dir():
            raise SettingsError(
                f"there is no folder {self.folder}; `orchestrator init {self.folder}` makes a site there"
            )
        settings = Settings.load(self.folder, os.environ, self.overrides)
        # A step may be a module in the site's folder. Last in the path, so that it cannot stand in for a library.
        if str(settings.folder) not in sys.path:
            sys.path.append(str(settings.folder))
        return settings

    @cached_property
    def chain(self) -> Chain:
        """The site's chain. Raises ChainError."""
        from orchestrator import chain

        return chain.load(self.settings.chain)

    def branch(self, name: str, daemon: str = "") -> tuple[Chain, Database, Path]:
        """A lane's or gather's chain, the database as it sees it, and its spool; of the empty name the main one's.

        ``daemon`` says whose account is used. Raises ChainError for a name that the chain does not have.
        """
        chain = self.chain.of(name)
        database = self.database_of(daemon) if daemon else self.database
        if not name:
            return chain, database, self.settings.spool
        from orchestrator.couch.branch import BranchDatabase

        # A spool of its own: procN of one lane is not that of another.
        return chain, BranchDatabase(database, chain.branch, self.chain.type), self.settings.spool / name

    @cached_property
    def credentials(self) -> Credentials | None:
        """The database's login. Raises SettingsError for a file that cannot be used."""
        from orchestrator.connect import credentials

        return credentials(self.settings, os.environ)

    @cached_property
    def server(self) -> Server:
        """The database server. Connects when used."""
        from orchestrator.connect import server

        return server(self.settings, os.environ)

    @cached_property
    def database(self) -> Database:
        """The run database, which must exist."""
        return self.server.database(self.settings.database)

    def database_of(self, daemon: str) -> Database:
        """The run database with a daemon's own account, if it has one."""
        from orchestrator.connect import run_database

        return run_database(self.settings, os.environ, daemon=daemon)

    @cached_property
    def output(self) -> Output:
        """Where results go: tables on a terminal, JSON where asked."""
        from orchestrator.cli.output import Output

        return Output(as_json=self.as_json, quiet=self.verbosity < 0)

    def log_to_stderr(self) -> None:
        """For the daemons: times in UTC, one line each; -v shows more, -q only warnings."""
        import logging
        import time

        level = {-1: logging.WARNING, 0: logging.INFO}.get(self.verbosity, logging.DEBUG)
        formatter = logging.Formatter(
            "%(asctime)s.%(msecs)03dZ %(levelname).1s %(name)s: %(message)s", datefmt="%Y-%m-%dT%H:%M:%S"
        )
        formatter.converter = time.gmtime
        handler = logging.StreamHandler()
        handler.setFormatter(formatter)
        root = logging.getLogger()
        root.handlers[:] = [handler]
        root.setLevel(level)
        for chatty in ("urllib3", "asyncio", "watchfiles", "matplotlib", "numba"):
            logging.getLogger(chatty).setLevel(max(level, logging.WARNING))


def _state(context: click.Context) -> Context:
    return context.ensure_object(Context)


def _take_folder(context: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        _state(context).folder = Path(value)


def _take_set(context: click.Context, _: click.Parameter, values: tuple[str, ...]) -> None:
    for word in values:
        name, equals, value = word.partition("=")
        if not equals:
            raise click.BadParameter(f"{word!r} must read NAME=VALUE", context)
        _state(context).overrides[name.strip().replace("-", "_")] = value


def _take_verbosity(step: int) -> Callable[[click.Context, click.Parameter, int], None]:
    def take(context: click.Context, _: click.Parameter, count: int) -> None:
        _state(context).verbosity += step * count

    return take


def _take_parent(context: click.Context, _: click.Parameter, value: int | None) -> None:
    if value is not None:
        from orchestrator.supervise import die_with

        die_with(value)


def shared_options(hidden: bool) -> list[click.Option]:
    """The options of every command; hidden in the help of single commands, where they would be noise."""
    return [
        click.Option(
            ["-C", "--site-folder", "site_folder"],
            metavar="DIR",
            expose_value=False,
            hidden=hidden,
            callback=_take_folder,
            help="The site's folder (also: ORCHESTRATOR_FOLDER; default: here).",
        ),
        click.Option(
            ["--set", "assignments"],
            metavar="NAME=VALUE",
            multiple=True,
            expose_value=False,
            hidden=hidden,
            callback=_take_set,
            help="Set any setting for this command; see `orchestrator settings`.",
        ),
        click.Option(
            ["-v", "--verbose"],
            count=True,
            expose_value=False,
            hidden=hidden,
            callback=_take_verbosity(1),
            help="Say more.",
        ),
        click.Option(
            ["-q", "--quiet"],
            count=True,
            expose_value=False,
            hidden=hidden,
            callback=_take_verbosity(-1),
            help="Say less.",
        ),
        click.Option(["--parent"], type=int, expose_value=False, hidden=True, is_eager=True, callback=_take_parent),
    ]


class SiteCommand(click.Command):
    """A command that takes the shared options too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += shared_options(hidden=True)


class SiteGroup(click.Group):
    """A group whose help shows its commands in sections, and whose errors suggest the nearest name."""

    command_class = SiteCommand
    sections: list[tuple[str, list[str]]]

    def __init__(self, *args: Any, hide_shared: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += shared_options(hidden=hide_shared)
        self.sections = []

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches

            near = get_close_matches(args[0], list(self.commands), n=1, cutoff=0.5) if args else []
            if near and "did you mean" not in error.message.lower():
                raise click.UsageError(f"{error.message} Did you mean '{near[0]}'?", ctx) from None
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if not self.sections:
            super().format_commands(ctx, formatter)
            return
        for title, names in self.sections:
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(70)) for name in names])


def branch_option(function: F) -> F:
    """Adds ``--branch``: which lane or gather of the chain is meant."""
    return click.option(
        "--branch", default="", metavar="NAME", help="A lane or a gather of the chain; without it, the main lane."
    )(function)


def json_option(function: F) -> F:
    """Adds ``--json``: the same facts for a program."""

    def take(context: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            _state(context).as_json = True

    return click.option("--json", is_flag=True, expose_value=False, callback=take, help="Print JSON, for programs.")(
        function
    )


def pass_site(function: F) -> F:
    """Hands the command its Context as the first argument."""

    @click.pass_context
    @functools.wraps(function)
    def wrapped(context: click.Context, /, *args: Any, **kwargs: Any) -> Any:
        return function(_state(context), *args, **kwargs)

    return wrapped  # type: ignore[return-value]
