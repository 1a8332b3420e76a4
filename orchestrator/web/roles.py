"""Who is asking, and what they may do: the one place that the page's writing routes ask.

A route that changes something depends on ``require("operator")``. It gets the Person, or the request ends before the
route begins: 401 where nobody is logged in, 403 where the person lacks the role, 415 or 403 for a request that a page
elsewhere could have made in this browser. How a person is known is decided by ``app.state.who``, a function from the
request to a Person or None; an application that sets none knows nobody, and nothing can be changed through it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request

from orchestrator.web.headers import host_name

if TYPE_CHECKING:
    from orchestrator.couch import Database

#: Roles of people. An admin may do whatever an operator may.
ROLES = ("operator", "admin")


@dataclass(frozen=True)
class Person:
    """Somebody who is known: the name is written into the documents that they change.

    ``database`` gives the run database in the person's own name, so that its guard sees who it is; None where the page
    acts in its own name (`anyone_here`).
    """

    name: str
    roles: frozenset[str] = field(default_factory=frozenset)
    database: Callable[[], Database] | None = field(default=None, compare=False, repr=False)

    def may(self, role: str) -> bool:
        """Whether the person has the role, or one above it."""
        return role in self.roles or "admin" in self.roles


Who = Callable[[Request], Person | None]


def nobody(request: Request) -> Person | None:
    """Who asks a page that knows no login: nobody."""
    return None


def anyone_here(request: Request) -> Person | None:
    """Who asks a page whose settings let everyone at this machine act without a login; nobody from elsewhere."""
    host = request.client.host if request.client else ""
    if host not in ("127.0.0.1", "::1") or "x-forwarded-for" in request.headers or "forwarded" in request.headers:
        return None
    return Person("somebody at the page", frozenset({"operator"}))


def signing(who: Who, name: str) -> Who:
    """As ``who``, but signing as ``name``: the database's guard lets an account sign with its own name only."""

    def found(request: Request) -> Person | None:
        person = who(request)
        return None if person is None else Person(name, person.roles, person.database)

    return found


def require(role: str) -> Callable[[Request], Person]:
    """The dependency of a route that only people with ``role`` may use: ``Depends(require("operator"))``."""

    def person(request: Request) -> Person:
        _ours(request)
        who: Any = getattr(request.app.state, "who", nobody)
        found = who(request)
        if found is None:
            raise HTTPException(401, "Log in first: this changes documents. On the command line it needs no page.")
        if not found.may(role):
            raise HTTPException(403, f"{found.name} may not do this: it needs the role {role}.")
        return found

    return person


def _ours(request: Request) -> None:
    """Refuse what a page elsewhere can make a visitor's browser send: forms, and requests that name another origin."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HTTPException(415, "Send the request as JSON, with Content-Type: application/json.")
    if from_elsewhere(request):
        raise HTTPException(403, "This request comes from a page elsewhere, which may change nothing here.")
    if host_name(request.headers.get("host", "")) is None:
        raise HTTPException(403, "This request names no host.")


def from_elsewhere(request: Request) -> bool:
    """Whether the browser says that another site's page has made this request."""
    origin = request.headers.get("origin")
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return True
    return origin is not None and urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower()
