"""``user``: accounts in the database, people's and the daemons'. A password never stands on a command line."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from orchestrator.cli.context import Context, SiteGroup, json_option, pass_site

PASSWORD_BYTES = 1024  # of a file or of standard input; a longer one is not cut, but refused


@click.group(cls=SiteGroup)
def user() -> None:
    """Accounts: who may read and write the run database.

    All of this is for the server's admin. docs/users.md says what each role allows.
    """


_PASSWORD_FILE = click.option(
    "--password-file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="Take the password from this file (mode 0600), or from standard input: -",
)  # fmt: skip
_GENERATE = click.option(
    "--generate", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Make a password and write it with the name into this credentials file (mode 0600).",
)  # fmt: skip


@user.command("list")
@json_option
@pass_site
def list_(site: Context) -> None:
    """List the accounts with their roles."""
    from orchestrator.users import Users

    found = Users(site.server).all()
    if site.as_json:
        site.output.json([{"name": one.name, "roles": list(one.roles)} for one in found])
        return
    site.output.table(("account", "roles"), [(one.name, ", ".join(one.roles) or "-") for one in found])


@user.command()
@click.argument("name")
@click.option("--role", "granted", multiple=True, metavar="ROLE",
              help="viewer, operator, admin, replicator or site:NAME (repeatable).")  # fmt: skip
@_PASSWORD_FILE
@_GENERATE
@pass_site
def add(site: Context, name: str, granted: tuple[str, ...], password_file: Path | None, generate: Path | None) -> None:
    """Make the account NAME. Its password is asked for on the terminal unless an option says where it is."""
    from orchestrator.users import Users, check_name, check_roles

    check_name(name)
    wanted = check_roles(granted, site.chain.sites)
    users = Users(site.server)
    with _written(generate):
        users.add(name, _password(name, password_file, generate), wanted)
    site.output.line(f"made the account {name} with {_words(wanted)}")
    if generate is not None:
        site.output.line(f"its name and password are in {generate}")


@user.command()
@click.argument("name")
@pass_site
def remove(site: Context, name: str) -> None:
    """Remove the account NAME. What it has written stays, with its name."""
    from orchestrator.users import Users

    Users(site.server).remove(name)
    site.output.line(f"removed the account {name}")


@user.command(short_help="Show or set an account's roles.")
@click.argument("name")
@click.argument("granted", nargs=-1, metavar="[ROLE]...")
@click.option("--none", "nothing", is_flag=True, help="Take all roles away.")
@json_option
@pass_site
def roles(site: Context, name: str, granted: tuple[str, ...], nothing: bool) -> None:
    """Give the account NAME these roles and no others; without any, show those it has."""
    from orchestrator.errors import NotFound
    from orchestrator.users import Users, check_roles

    users = Users(site.server)
    if granted and nothing:
        raise click.UsageError("Name roles or say --none, not both.")
    if granted or nothing:
        users.set_roles(name, check_roles(granted, site.chain.sites))
    found = users.find([name])[name]
    if found is None:
        raise NotFound(f"there is no account {name!r}: `orchestrator user list` shows those there are")
    if site.as_json:
        site.output.json({"name": found.name, "roles": list(found.roles)})
    site.output.line(f"{found.name} has {_words(found.roles)}")


@user.command()
@click.argument("name")
@_PASSWORD_FILE
@_GENERATE
@pass_site
def password(site: Context, name: str, password_file: Path | None, generate: Path | None) -> None:
    """Change the password of the account NAME. Its sessions end; a daemon must be started again."""
    from orchestrator.users import Users

    users = Users(site.server)
    with _written(generate):
        users.set_password(name, _password(name, password_file, generate))
    site.output.line(f"the password of {name} is changed")
    if generate is not None:
        site.output.line(f"its name and password are in {generate}")


@user.command(short_help="Make the daemons' accounts.")
@click.option("--renew", is_flag=True, help="Give every daemon a new password; start the daemons again afterwards.")
@json_option
@pass_site
def setup(site: Context, renew: bool) -> None:
    """Make an account and a credentials file for each daemon of this site, where they are missing.

    `up` does this by itself with the embedded database.
    """
    from orchestrator import users

    made = users.setup(site.server, site.settings, site.chain, renew=renew)
    if site.as_json:
        site.output.json([{**vars(one), "file": str(one.file)} for one in made])
        return
    site.output.table(
        ("daemon", "account", "roles", "credentials file", ""),
        [(one.daemon, one.name, ", ".join(one.roles), one.file, one.what) for one in made],
    )


def _words(granted: tuple[str, ...]) -> str:
    return f"the roles {', '.join(granted)}" if granted else "no role"


@contextmanager
def _written(file: Path | None) -> Iterator[None]:
    """A credentials file that was written for what the database then refuses would only lead astray: it goes again."""
    from orchestrator.errors import Conflict, NotFound, Unauthorised

    there = file is not None and file.exists()
    try:
        yield
    except (Conflict, NotFound, Unauthorised):
        if file is not None and not there:
            file.unlink(missing_ok=True)
        raise


def _password(name: str, file: Path | None, generate: Path | None) -> str:
    """The password that is meant: from a file, from standard input, made here, or asked for twice."""
    from orchestrator.errors import SettingsError
    from orchestrator.users import check_password, new_password

    if file is not None and generate is not None:
        raise click.UsageError("Say --password-file or --generate, not both.")
    if generate is not None:
        from orchestrator.embedded.security import write_credentials

        if generate.exists():
            raise SettingsError(f"there is a file {generate} already: remove it, or name another")
        made = new_password()
        # Before the account: a file too much can be removed, a password that nobody knows is of no use.
        write_credentials(generate, {"username": name, "password": made})
        return made
    if file is not None:
        found = _read(file)
    elif sys.stdin.isatty():
        found = click.prompt(f"Password for {name}", hide_input=True, confirmation_prompt=True, err=True)
    else:
        raise click.UsageError("There is no terminal to ask for the password: say --password-file or --generate.")
    check_password(found)
    return found


def _read(file: Path) -> str:
    from orchestrator.errors import SettingsError

    try:
        if str(file) == "-":
            data = sys.stdin.buffer.read(PASSWORD_BYTES + 1)
        else:
            with file.open("rb") as stream:
                mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
                if mode & 0o077:
                    raise SettingsError(f"{file} can be read by others (mode {mode:04o}): chmod 600 '{file}'")
                data = stream.read(PASSWORD_BYTES + 1)
        found = data.decode("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the password cannot be read from {file}: {error}") from None
    if len(data) > PASSWORD_BYTES or not found.isprintable():
        most = f"{PASSWORD_BYTES} bytes at most"
        raise SettingsError(f"{file} holds no password: that is one line of printable letters, {most}")
    return found
