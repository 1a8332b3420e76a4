"""CouchDB, or the embedded server, as the rest of the orchestrator sees it: one adapter a module, typed errors.

``client`` connection and server, ``database`` documents and views, ``changes`` the feed, ``bulk`` grouped writes,
``deploy`` design documents, ``credentials`` the account, ``answers`` from HTTP to errors, ``wire`` JSON.
"""

from orchestrator.couch import deploy
from orchestrator.couch.bulk import BulkWriter
from orchestrator.couch.changes import Batch, Change, Follower
from orchestrator.couch.client import Server
from orchestrator.couch.credentials import Credentials, load_credentials
from orchestrator.couch.database import Database, Refusal, Row, Saved, ViewResult

__all__ = [
    "Batch",
    "BulkWriter",
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
