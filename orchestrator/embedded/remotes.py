"""Logins for other servers, kept in a file of this server's instead of in documents.

``remotes.json`` in the folder of the databases, mode 0600, names each remote server or database:

    {"centre": {"url": "https://couch.centre.example", "username": "modane", "password": "..."}}

An endpoint of a replication that brings no login of its own, and whose URL lies at or below one of these, gets it. So
a document of ``_replicator`` needs no password in it; and as a login only ever goes to its own URL, whoever may write
such documents cannot send it elsewhere. The file is read anew whenever it has changed.
"""

from __future__ import annotations

import logging
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.embedded import codec

FILE = "remotes.json"

log = logging.getLogger(__name__)

_PORTS = {"http": 80, "https": 443}


class Remotes:
    """The logins of one file. Asking never raises: a file that cannot be used is told in the log, and gives none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._known: list[tuple[tuple[str, str, int, str], tuple[str, str]]] = []

    def login(self, url: str) -> tuple[str, str] | None:
        """The user and password for a database's URL, or None. Of several that fit, the longest URL's."""
        self._refresh()
        asked = _place(url)
        fitting = [
            (len(place[3]), login)
            for place, login in self._known
            if place[:3] == asked[:3] and (asked[3] == place[3] or asked[3].startswith(place[3].rstrip("/") + "/"))
        ]
        return max(fitting, key=lambda pair: pair[0])[1] if fitting else None

    def _refresh(self) -> None:
        try:
            state = self._path.stat()
        except OSError:
            self._stamp, self._known = None, []
            return
        stamp = (state.st_mtime_ns, state.st_ino)
        if stamp == self._stamp:
            return
        self._stamp, self._known = stamp, []
        if state.st_mode & 0o077:
            log.error("%s can be read by others and is not used: chmod 600 %s", self._path, self._path)
            return
        try:
            listed = codec.loads(self._path.read_bytes())
            self._known = [
                (_place(entry["url"]), (str(entry["username"]), str(entry["password"]))) for entry in listed.values()
            ]
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            # The error's own words could hold what stands in the file.
            log.error('%s is not used: write {"name": {"url": ..., "username": ..., "password": ...}}', self._path)


def _place(url: str) -> tuple[str, str, int, str]:
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    return scheme, (parts.hostname or "").lower(), parts.port or _PORTS.get(scheme, 0), parts.path.rstrip("/")
