"""Forms that change something: who sends one, and that it is ours.

A form is guarded twice against pages elsewhere: by what browsers say of where a request comes from, and by a token that
only our own page knows. What it changes is for people with the role operator; the database's guard has the last word.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request

from orchestrator.web.roles import Person, from_elsewhere

#: Bytes of a form: the ids of some thousand documents.
MOST_BYTES = 1_000_000
#: Fields of a form.
MOST_FIELDS = 10_000


class Fields:
    """The fields of a form or of an address."""

    def __init__(self, sent: dict[str, list[str]]) -> None:
        self._sent = sent

    def one(self, name: str, default: str = "") -> str:
        """A field's value, the first where it was sent several times."""
        return next(iter(self._sent.get(name, ())), default)

    def all(self, name: str) -> tuple[str, ...]:
        """All values that are not empty."""
        return tuple(value for value in self._sent.get(name, ()) if value)


@dataclass(frozen=True)
class Hand:
    """Who would act, as the pages need it: for whom buttons are shown, and the token that their forms carry."""

    person: Person
    token: str

    @property
    def acts(self) -> bool:
        """Whether this person may change documents at all."""
        return self.person.may("operator")


def asked(request: Request) -> Fields:
    """The fields of an address."""
    found: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        found.setdefault(name, []).append(value)
    return Fields(found)


async def sent(request: Request, most: int = MOST_BYTES) -> Fields:
    """The fields of a form. Raises HTTPException for one that another page has sent, that is none, or is too large."""
    if from_elsewhere(request):
        raise HTTPException(403, "This request comes from a page elsewhere, which may do nothing here.")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise HTTPException(415, "Send the form of this page.")
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > most:
            raise HTTPException(413, "The form is too large: choose by run or status, or use the command line.")
    try:
        text = data.decode("ascii")
        return Fields(parse_qs(text, keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict"))
    except ValueError as error:
        raise HTTPException(400, "The form cannot be read.") from error


def way_back(wanted: str) -> str:
    """Where to go afterwards: a page of ours, whatever the address says."""
    ours = wanted.startswith("/") and not wanted.startswith("//") and "\\" not in wanted and wanted.isprintable()
    return wanted if ours else "/"


def hand(request: Request) -> Hand | None:
    """Who would act, as far as the page knows without asking the database; None where nobody may, or nothing can be."""
    login: Any = getattr(request.app.state, "login", None)
    if login is None or not getattr(request.app.state, "acting", False):
        return None
    found: Hand | None = login.hand(request)
    return found


async def acting(request: Request, fields: Fields, role: str = "operator") -> Person:
    """Who sends this form. Raises HTTPException: 401 for nobody, 403 without the role or the token."""
    login: Any = getattr(request.app.state, "login", None)
    person: Person | None = await run_in_threadpool(login.who, request) if login is not None else None
    known = hand(request)
    if person is None or known is None:
        raise HTTPException(401, "Log in first: this changes something.")
    if not hmac.compare_digest(fields.one("token").encode("utf-8", "replace"), known.token.encode()):
        raise HTTPException(403, "This request does not come from this page: nothing was done.")
    if not person.may(role):
        raise HTTPException(403, f"{person.name} may not do this: it needs the role {role}.")
    return person
