"""Making the run database and bringing its couchapp up to date: what ``up``, ``demo`` and ``couchapp push`` share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from orchestrator.couch import deploy
from orchestrator.designs import build
from orchestrator.errors import NotFound

if TYPE_CHECKING:
    from orchestrator.chain import Chain
    from orchestrator.couch import Database, Server
    from orchestrator.settings import Settings


def push(
    server: Server,
    settings: Settings,
    chain: Chain,
    progress: Callable[[deploy.Progress], None] | None = None,
) -> list[tuple[str, str]]:
    """Make the database where it is missing and push the chain's design documents.

    Args:
        progress: is told how far the index of a new view is.

    Returns:
        (design document, "unchanged" | "created" | "replaced") for each.

    Raises:
        DatabaseError: as ``deploy.push``; Unauthorised where the account may not make databases.
    """
    database = server.database(settings.database)
    try:
        database.info()
    except NotFound:
        server.create(settings.database)
    close_to_strangers(database)
    return deploy.push(database, build(chain), progress=progress)


def close_to_strangers(database: Database) -> bool:
    """Put an admins-only ``_security`` on a database that anybody may read and write; returns whether it was needed.

    CouchDB 3 makes new databases so, older ones and careless hands do not. Members that somebody has chosen are kept.
    """
    members = database.security().get("members") or {}
    if members.get("names") or members.get("roles"):
        return False
    only = {"names": [], "roles": ["_admin"]}
    return deploy.secure(database, {"admins": only, "members": only})
