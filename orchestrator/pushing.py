"""Making the run database and bringing its couchapp up to date: what ``up``, ``demo`` and ``couchapp push`` share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from orchestrator import roles
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
    admit(database, chain.sites)
    return deploy.push(database, build(chain), progress=progress)


def admit(database: Database, sites: Iterable[str]) -> bool:
    """Let accounts with our roles into a database, and nobody else who has not been let in by somebody.

    A database that anybody may read and write (older CouchDBs make them so, and careless hands) is closed by this.
    Returns whether anything had to be changed. Raises Unauthorised where the account is no admin of the database.
    """
    found = database.security()
    wanted = dict(found)
    for group, granted in (("admins", [roles.SERVER_ADMIN, roles.ADMIN]), ("members", roles.member_roles(sites))):
        known = found.get(group) or {}
        there = list(known.get("roles") or [])
        missing = [role for role in granted if role not in there]
        wanted[group] = {**known, "names": list(known.get("names") or []), "roles": [*there, *missing]}
    return deploy.secure(database, wanted)
