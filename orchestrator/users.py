"""Accounts in the database's ``_users``: people's, and one for each daemon of a site.

An account is a name, a password that only the server's hash of is kept, and roles (``orchestrator.roles``). Only the
server's admins may list, make and change accounts, as CouchDB 3 sets ``_users`` up.

Each daemon has an account and a credentials file of its own, ``<accounts>/poller.json`` and so on, mode 0600. `setup`
makes what is missing and can be called at every start: what is there and right is left alone.
"""

from __future__ import annotations

import difflib
import secrets
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from orchestrator import roles
from orchestrator.errors import Conflict, NotFound, SettingsError

if TYPE_CHECKING:
    from orchestrator.chain import Chain
    from orchestrator.couch import Server
    from orchestrator.settings import Settings

DATABASE: Final = "_users"
PREFIX: Final = "org.couchdb.user:"  # CouchDB's own, before each account's name
#: Letters of the shortest password that a person may choose.
SHORTEST: Final = 10
#: Bytes of chance in a password that is made here.
CHANCE: Final = 24


@dataclass(frozen=True)
class Account:
    """An account as ``_users`` has it, without its password."""

    name: str
    roles: tuple[str, ...] = ()


@dataclass(frozen=True)
class Daemon:
    """A daemon that logs in to the run database, and what for."""

    name: str
    does: str


#: The replicator is the database's own: its account is what `orchestrator replicate` gives it.
DAEMONS: Final = (
    Daemon("registrar", "makes the documents of raw files"),
    Daemon("poller", "claims documents and records what their steps did"),
    Daemon("farm", "the same for steps at a farm"),
    Daemon("web", "reads for the status page"),
    Daemon("replicator", "writes into this database what another site's has let pass"),
)


def roles_of(daemon: str, settings: Settings) -> tuple[str, ...]:
    """The roles that a daemon of this site needs, and no more."""
    if daemon == "web":
        # Where anybody at this machine may change documents without a login, the page does it in its own name.
        return (roles.VIEWER, roles.OPERATOR) if settings.web_changes == "anyone-here" else (roles.VIEWER,)
    return (roles.REPLICATOR,) if daemon == "replicator" else (roles.site_role(settings.site),)


def name_of(daemon: str, settings: Settings) -> str:
    """The name of a daemon's account: a server may hold several databases and sites."""
    return f"{settings.database}-{settings.site}-{daemon}"


def file_of(daemon: str, settings: Settings) -> Path:
    """A daemon's credentials file."""
    return settings.accounts / f"{daemon}.json"


class Users:
    """The accounts of one server."""

    def __init__(self, server: Server) -> None:
        self._database = server.database(DATABASE)

    def all(self) -> list[Account]:
        """Every account, by name. Raises Unauthorised for all but the server's admins."""
        rows = self._database.all_docs(startkey=PREFIX, endkey=PREFIX + "\ufff0", include_docs=True).rows
        return [_account(row.doc) for row in rows if row.doc]

    def find(self, names: Iterable[str]) -> dict[str, Account | None]:
        """Accounts by name; None for those that there are not."""
        wanted = list(names)
        found = self._database.get_many([PREFIX + name for name in wanted])
        documents = {name: found.get(PREFIX + name) for name in wanted}
        return {name: None if document is None else _account(document) for name, document in documents.items()}

    def add(self, name: str, password: str, granted: Iterable[str]) -> None:
        """Make an account. Raises Conflict if there is one of that name, SettingsError for a name that cannot be."""
        check_name(name)
        document = {"_id": PREFIX + name, "type": "user", "name": name, "roles": list(granted), "password": password}
        try:
            self._database.put(document)
        except Conflict:
            raise Conflict(f"there is an account {name!r} already: `orchestrator user roles` changes it") from None

    def remove(self, name: str) -> None:
        """Remove an account. What it has written stays. Raises NotFound."""
        self._database.delete(self._document(name))

    def set_roles(self, name: str, granted: Iterable[str]) -> None:
        """Give an account these roles and no others. Raises NotFound."""
        self._database.put({**self._document(name), "roles": list(granted)})

    def set_password(self, name: str, password: str) -> None:
        """Change an account's password; its sessions end. Raises NotFound."""
        self._database.put({**self._document(name), "password": password})

    def _document(self, name: str) -> dict[str, Any]:
        try:
            return self._database.get(PREFIX + name)
        except NotFound:
            raise NotFound(f"there is no account {name!r}: `orchestrator user list` shows those there are") from None


def _account(document: dict[str, Any]) -> Account:
    granted = document.get("roles")
    return Account(str(document.get("name")), tuple(map(str, granted)) if isinstance(granted, list) else ())


def new_password() -> str:
    """A password for a machine, of 192 random bits."""
    return secrets.token_urlsafe(CHANCE)


def check_name(name: str) -> None:
    """Raises SettingsError for a name that an account cannot have."""
    if not name or name.startswith("_") or ":" in name or not name.isprintable() or name != name.strip():
        raise SettingsError(f"{name!r} cannot be an account's name: printable, not empty, no ':', no '_' in front")


def check_password(password: str) -> None:
    """Raises SettingsError for a password that is too short, without repeating it."""
    if len(password) < SHORTEST:
        raise SettingsError(f"a password has at least {SHORTEST} letters")


def check_roles(granted: Iterable[str], sites: Collection[str]) -> tuple[str, ...]:
    """The roles without doubles, in order. Raises SettingsError for one that says nothing here, with the nearest."""
    known = [role for role in roles.member_roles(sites) if role != roles.SERVER_ADMIN]
    found = tuple(dict.fromkeys(granted))
    for role in found:
        if role not in known:
            near = difflib.get_close_matches(role, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"
            raise SettingsError(f"there is no role {role!r} here: {hint}")
    return found


@dataclass(frozen=True)
class Made:
    """What became of a daemon's account. ``what``: kept, made, mended (password or roles), or foreign (left alone)."""

    daemon: str
    name: str
    file: Path
    roles: tuple[str, ...]
    what: str


def setup(server: Server, settings: Settings, chain: Chain, *, renew: bool = False) -> list[Made]:
    """Make an account and a credentials file for each daemon of this site, where they are missing.

    A file whose account is gone gets it back with the file's password; an account whose file is gone gets a new
    password. A credentials file that names another account is a person's choice and is left alone.

    Args:
        renew: give each a new password; daemons that run go on until they log in anew.

    Raises:
        Unauthorised: the login is no server admin's.
        SettingsError: a file or the folder cannot be read or written.
    """
    from orchestrator.couch import load_credentials

    try:
        settings.accounts.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"the folder {settings.accounts} (accounts) cannot be made: {error.strerror}") from None
    users = Users(server)
    wanted = [daemon.name for daemon in DAEMONS if daemon.name != "farm" or chain.farmed(settings.site)]
    found = users.find(name_of(daemon, settings) for daemon in wanted)
    made = []
    for daemon in wanted:
        name, path, granted = name_of(daemon, settings), file_of(daemon, settings), roles_of(daemon, settings)
        login = load_credentials(path, {}) if path.exists() else None
        account = found[name]
        if login is not None and login.username != name:
            made.append(Made(daemon, login.username, path, granted, "foreign"))
            continue
        if account is None and login is not None and not renew:
            users.add(name, login.password, granted)
            what = "made"
        elif account is None or login is None or renew or _fresh(path).exists():
            _give(users, path, name, None if account is not None else granted)
            what = "made" if account is None else "mended"
        else:
            what = "kept"
        if account is not None and set(account.roles) != set(granted):
            users.set_roles(name, granted)
            what = "mended"
        made.append(Made(daemon, name, path, granted, what))
    return made


def _fresh(path: Path) -> Path:
    """Where a new login stands until the database knows it: a crash in between is made good by the next setup."""
    return path.with_name(path.name + ".new")


def _give(users: Users, path: Path, name: str, granted: tuple[str, ...] | None) -> None:
    """Give an account a new password, or make it with ``granted``, and put the login into its file."""
    from orchestrator.couch import load_credentials
    from orchestrator.embedded.security import write_credentials

    fresh = _fresh(path)
    login = load_credentials(fresh, {}) if fresh.exists() else None
    password = login.password if login is not None and login.username == name else new_password()
    write_credentials(fresh, {"username": name, "password": password})
    if granted is None:
        users.set_password(name, password)
    else:
        users.add(name, password, granted)
    try:
        fresh.replace(path)
    except OSError as error:
        raise SettingsError(f"The credentials file {path} cannot be written ({error.strerror}).") from error
