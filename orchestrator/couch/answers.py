"""From what the database answered to the error a person can act on. Pure: no connection is made here.

Statuses as Apache CouchDB 3.x uses them: 400 a document or a query it cannot take, 401 and 403 login and roles (or
the guard's word on a write), 404 absent, 409 and 412 changed in between, 413 too large, 429 and 5xx its own trouble.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.errors import Conflict, DatabaseError, NotFound, Refused, Unauthorised, Unavailable

PUSH = "push the couchapp: orchestrator couchapp push"

# CouchDB's own words when a 403 is about the account and not about the document (chttpd_auth, couch_db, 3.x).
_ACCOUNT_WORDS = (
    "not allowed to access",
    "not authorized",
    "you are not a",
    "only admins",
    "server admin",
    "db or server admin",
    "temporarily locked",
)


@dataclass(frozen=True, slots=True)
class Subject:
    """What a request was about, for the sentence: the server, a database, and inside it a document or a view."""

    server: str
    database: str = ""
    document: str = ""
    view: str = ""
    write: bool = False

    def __str__(self) -> str:
        where = f"database {self.database!r} at {self.server}" if self.database else self.server
        if self.view:
            return f"view {self.view!r} of {where}"
        if self.document:
            return f"document {self.document!r} in {where}"
        return where


def failure(status: int, error: str, reason: str, subject: Subject) -> DatabaseError:
    """The error for an answer of ``status`` with CouchDB's words ``error`` and ``reason``."""
    said = reason or error or f"HTTP {status}"
    if status == 401:
        return Unauthorised(
            f"{subject}: login refused ({said}). Check user and password in the credentials file; "
            "do not keep trying: five wrong passwords lock the account for minutes"
        )
    if status == 403:
        return _forbidden(said, subject)
    if status == 404:
        return _not_found(said, subject)
    if status in (409, 412):
        return Conflict(f"{subject}: changed by somebody else in between ({said}). Read it again and decide again")
    if status == 413:
        return Refused(f"{subject}: too large for the database ({said}). Put large data into a file or an attachment")
    if status == 429 or (status >= 500 and status != 501):
        return Unavailable(f"{subject}: the database is in trouble (HTTP {status}, {error}: {said}). Try again later")
    if status == 400 and subject.write:
        return Refused(f"{subject}: the database does not take it ({said})")
    return DatabaseError(f"{subject}: HTTP {status}, {error}: {said}")


def _forbidden(said: str, subject: Subject) -> DatabaseError:
    account = any(word in said.lower() for word in _ACCOUNT_WORDS)
    if subject.write and not account:
        return Refused(f"{subject}: refused: {said}")
    return Unauthorised(f"{subject}: this account may not do that ({said}). Use an account with the role it needs")


def _not_found(said: str, subject: Subject) -> NotFound:
    words = said.lower()
    if subject.database and ("database does not exist" in words or "no_db_file" in words):
        return NotFound(f"{subject.server} has no database {subject.database!r}: create it, or check its name")
    if subject.view:
        design, _, name = subject.view.partition("/")
        if "view" in words or "filter" in words or "missing_named" in words:
            return NotFound(f"_design/{design} of database {subject.database!r} has no view {name!r} ({said}): {PUSH}")
        return NotFound(f"Database {subject.database!r} has no _design/{design} ({said}): {PUSH}")
    return NotFound(f"There is no {subject} ({said})" if subject.document else f"{subject}: not found ({said})")


def refusal(error: str, reason: str, subject: Subject) -> DatabaseError:
    """The error for one line of a ``_bulk_docs`` answer."""
    if error == "conflict":
        return failure(409, error, reason, subject)
    if error == "unauthorized":
        return Unauthorised(f"{subject}: this account may not write it ({reason})")
    if error in ("forbidden", "doc_validation", "bad_request", "document_too_large", "attachment_too_large"):
        return Refused(f"{subject}: refused: {reason}")
    return Unavailable(f"{subject}: the database could not write it ({error}: {reason}). Try again later")
