"""Everything the server refuses, in CouchDB's own shape: a status, an error word and a reason.

The words and reasons are CouchDB's, since clients compare them. What the server does not support is one more
problem, ``not_implemented``: it never approximates.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterable

from orchestrator.embedded import codec


class Problem(Exception):
    """An answer other than success. Raised anywhere below the HTTP layer, turned into a response by it."""

    def __init__(self, status: int, error: str, reason: str, headers: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__(f"{error}: {reason}")
        self.status = status
        self.error = error
        self.reason = reason
        self.headers = list(headers)

    def body(self) -> bytes:
        """The JSON of the answer, with the newline that CouchDB ends it with."""
        return codec.dumps({"error": self.error, "reason": self.reason}) + b"\n"


def bad_request(reason: str) -> Problem:
    """400: the request makes no sense."""
    return Problem(400, "bad_request", reason)


def query_parse_error(reason: str) -> Problem:
    """400: a query parameter has a value that does not fit."""
    return Problem(400, "query_parse_error", reason)


def doc_validation(reason: str) -> Problem:
    """400: a document with a special member that is unknown or malformed."""
    return Problem(400, "doc_validation", reason)


def unauthorized(reason: str) -> Problem:
    """401: log in first."""
    return Problem(401, "unauthorized", reason)


def forbidden(reason: str) -> Problem:
    """403: logged in, and not allowed."""
    return Problem(403, "forbidden", reason)


def missing(reason: str = "missing") -> Problem:
    """404: no such thing; the reason is ``missing`` or ``deleted`` for documents."""
    return Problem(404, "not_found", reason)


def no_database() -> Problem:
    """404 for a database, with the reason CouchDB gives."""
    return missing("Database does not exist.")


def method_not_allowed(allowed: str) -> Problem:
    """405 with the methods that are allowed, comma separated."""
    return Problem(405, "method_not_allowed", f"Only {allowed} allowed", [("Allow", allowed)])


def conflict() -> Problem:
    """409: the document has changed since it was read."""
    return Problem(409, "conflict", "Document update conflict.")


def file_exists() -> Problem:
    """412: the database is already there."""
    return Problem(412, "file_exists", "The database could not be created, the file already exists.")


def too_large(name: str) -> Problem:
    """413: a document over the limit; the reason names it."""
    return Problem(413, "document_too_large", name)


def wrong_type(expected: str = "application/json") -> Problem:
    """415: the body's Content-Type is not the one needed."""
    return Problem(415, "bad_content_type", f"Content-Type must be {expected}")


def not_implemented(what: str) -> Problem:
    """501: CouchDB has this and the embedded server does not."""
    return Problem(501, "not_implemented", f"{what} is not supported by the embedded database; use Apache CouchDB.")


def storage_problem(error: Exception) -> Exception:
    """What a client is told when a file cannot be written or read; any other error is given back as it is.

    The server stays up, and the next write is tried as if nothing had happened: a disk may have been tidied up.
    """
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or (isinstance(error, sqlite3.Error) and "full" in str(error)):
        return Problem(507, "insufficient_storage", "The disk is full: nothing was written. Free some space.")
    if isinstance(error, sqlite3.Error | OSError) and not isinstance(error, ConnectionError):
        return Problem(500, "internal_server_error", f"The database's files cannot be used: {error}.")
    return error
