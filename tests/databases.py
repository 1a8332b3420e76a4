"""The CouchDB that tests ask: the embedded server, or, with ``COUCHDB_URL`` set, the one there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from orchestrator.embedded.testing import EmbeddedServer


@contextmanager
def couchdb(folder: Path) -> Iterator[tuple[str, tuple[str, str]]]:
    """Its URL, and name and password of its admin: from COUCHDB_USER and COUCHDB_PASSWORD, or from the URL itself.

    The embedded server keeps its data in ``folder``.
    """
    if given := os.environ.get("COUCHDB_URL"):
        parts = urlsplit(given)
        name = os.environ.get("COUCHDB_USER") or unquote(parts.username or "")
        password = os.environ.get("COUCHDB_PASSWORD") or unquote(parts.password or "")
        if not name:
            pytest.fail("COUCHDB_URL is set: give the admin in COUCHDB_USER and COUCHDB_PASSWORD as well")
        place = {"netloc": parts.netloc.rpartition("@")[2], "path": parts.path.rstrip("/"), "query": "", "fragment": ""}
        yield parts._replace(**place).geturl(), (name, password)
        return
    with EmbeddedServer(folder) as server:
        yield server.url, server.auth
