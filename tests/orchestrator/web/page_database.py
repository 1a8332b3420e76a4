"""The embedded server for the tests of the page: connections to it, and databases in it."""

from __future__ import annotations

from typing import Any

from orchestrator import designs
from orchestrator.chain import Chain
from orchestrator.couch import Credentials, Database, Server, deploy
from orchestrator.embedded.testing import EmbeddedServer


def connection(server: EmbeddedServer) -> Server:
    """As the page's own, but quicker to give up."""
    return Server(server.url, Credentials(*server.credentials), timeout=10)


def populated(server: EmbeddedServer, name: str, chain: Chain, documents: list[dict[str, Any]]) -> Database:
    """A new database ``name``. Documents go in before the guard, for it would not take them as they are."""
    couch = connection(server)
    couch.create(name)
    database = couch.database(name)
    for saved in database.bulk([dict(d) for d in documents]):
        assert hasattr(saved, "rev"), saved
    deploy.push(database, designs.build(chain))
    return database
