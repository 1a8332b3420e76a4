"""CouchDB, or the embedded server, as the rest of the orchestrator sees it: one adapter a module, typed errors.

``client`` connection and server, ``database`` documents and views, ``branch`` those of a lane or a gather, ``changes``
the feed, ``stream`` its connection, ``deploy`` design documents, ``credentials`` the account, ``answers`` from HTTP to
errors, ``wire`` JSON.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.couch.client import Server
from orchestrator.couch.credentials import Credentials, load_credentials
from orchestrator.couch.database import Database, Refusal, Row, Saved, ViewResult

if TYPE_CHECKING:
    from orchestrator.couch import deploy
    from orchestrator.couch.changes import Batch, Change, Follower

__all__ = [
    "Batch",
    "Change",
    "Credentials",
    "Database",
    "Follower",
    "Refusal",
    "Row",
    "Saved",
    "Server",
    "ViewResult",
    "deploy",
    "load_credentials",
]


def __getattr__(name: str) -> Any:
    # When asked for: the feed brings ``requests`` along (40 ms), which a command that reads a view need not wait for.
    if name in ("Batch", "Change", "Follower"):
        from orchestrator.couch import changes

        return getattr(changes, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
