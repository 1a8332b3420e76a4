"""The embedded database: a small single-node server that speaks the part of CouchDB's HTTP API used here.

    http_*       the HTTP side: one module for each kind of endpoint
    security     logins, sessions, users, who may do what
    store        all databases of a folder; database: one of them
    writer       the thread that commits; updates: what one commit does; validation: the guards it asks
    revisions    the tree of one document; documents: one document on its way in or out
    changes      filters of the feed
    replicator   replications: replication_job, replication (one run), peer (one end of it), replication_log, remotes
    multipart    documents with their attachments, in and out: attachment_parts, replication_attachments
    collation, javascript, views, mango    design functions, indexes and queries
    server       starts it all; testing: a server process for tests
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.embedded.server import serve

__all__ = ["serve"]


def __getattr__(name: str) -> Any:
    # Imported when asked for: pollers import this package's neighbours and must not pay for a web server.
    if name == "serve":
        from orchestrator.embedded.server import serve

        return serve
    raise AttributeError(name)
