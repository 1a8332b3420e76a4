"""From a site's settings to its database. The one place that decides which login is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.couch import Credentials, Database, Server
    from orchestrator.settings import Settings


def credentials(settings: Settings, environ: Mapping[str, str]) -> Credentials | None:
    """The site's login: environment, else the credentials file, else none.

    The default file need not exist (a server without login, or one that is not there yet); a file that a setting
    names must.

    Raises:
        SettingsError: the file is missing, readable by others, or of no known form.
    """
    from orchestrator.couch import load_credentials

    path = settings.credentials
    missing = not path.exists() and settings.source("credentials") == "default"
    return load_credentials(None if missing else path, environ)


def server(settings: Settings, environ: Mapping[str, str], timeout: float = 30.0) -> Server:
    """The site's database server; nothing is sent yet. ``timeout`` in s for each answer."""
    from orchestrator.couch import Server

    return Server(settings.url, credentials(settings, environ), timeout=timeout)


def run_database(settings: Settings, environ: Mapping[str, str], timeout: float = 30.0) -> Database:
    """The site's run database, which must exist (``orchestrator couchapp push`` makes it)."""
    return server(settings, environ, timeout).database(settings.database)
