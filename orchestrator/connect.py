"""From a site's settings to its database. The one place that decides which login is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.couch import Credentials, Database, Server
    from orchestrator.settings import Settings


def credentials(settings: Settings, environ: Mapping[str, str], daemon: str = "") -> Credentials | None:
    """The site's login: environment, else the file of the ``daemon``'s own, else the credentials file, else none.

    The default file need not exist (a server without login, or one that is not there yet); a file that a setting
    names must.

    Raises:
        SettingsError: the file is missing, readable by others, or of no known form.
    """
    from orchestrator.couch import load_credentials

    own = settings.accounts / f"{daemon}.json"
    if daemon and own.exists():
        return load_credentials(own, environ)
    path = settings.credentials
    missing = not path.exists() and settings.source("credentials") == "default"
    return load_credentials(None if missing else path, environ)


def server(settings: Settings, environ: Mapping[str, str], timeout: float = 30.0, daemon: str = "") -> Server:
    """The site's database server, as one of its daemons or as the site; nothing is sent yet. ``timeout`` in s."""
    from orchestrator.couch import Server

    return Server(settings.url, credentials(settings, environ, daemon), timeout=timeout)


def run_database(settings: Settings, environ: Mapping[str, str], timeout: float = 30.0, daemon: str = "") -> Database:
    """The site's run database, which must exist (``orchestrator couchapp push`` makes it)."""
    return server(settings, environ, timeout, daemon).database(settings.database)
