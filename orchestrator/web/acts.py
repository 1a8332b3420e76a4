"""People's operations by forms, for people: what would be done is shown first, and done when they say so.

``/act/<operation>`` with a selection in the address shows the form and a dry run: how many documents, which, and what
would become of each. Sent with ``do=yes`` it is done, in the person's own name, and leads back to where they came from.
Plain forms and links: nothing here needs a script. ``/operations`` shows what has been done.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from orchestrator.engine import operations as engine
from orchestrator.engine.choosing import TooMany
from orchestrator.errors import ChainError, NotFound, Refused, SettingsError
from orchestrator.people import NAMES, OPERATIONS, OUTPUTS, Kindly
from orchestrator.web import forms
from orchestrator.web.forms import Fields
from orchestrator.web.links import Links
from orchestrator.web.operations import Asked, Job, Operations
from orchestrator.web.paging import BadQuery
from orchestrator.web.render import html
from orchestrator.web.roles import Person

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.chain import Chain
    from orchestrator.web.pages import Pages

#: Documents that a form deals with; more are for the command line, where nobody waits for a page.
MOST = 5000
#: Documents that a form names.
NAMED = 50
#: The fields of a form that choose documents; the first can stand there several times.
MANY = ("documents", "runs", "statuses")
ONE = ("first_run", "last_run", "at_step")
#: Those that the form of a reprocessing asks for.
VERSIONS = ("version", "not_version")
#: Operations on the page of what has been done.
LAST = 100


@dataclass(frozen=True)
class Wanted:
    """What a form asks for: the operation, and the fields."""

    kind: Kindly
    fields: Fields

    @property
    def next(self) -> str:
        """Where the person came from."""
        return forms.way_back(self.fields.one("next"))

    def chosen(self) -> list[tuple[str, str]]:
        """The fields that choose documents, to be sent again."""
        found = [(name, value) for name in MANY for value in self.fields.all(name)]
        asked = ("first_run", "last_run") if self.kind.name == "reprocess" else ()
        found += [(name, self.fields.one(name)) for name in ONE if self.fields.one(name) and name not in asked]
        return found + ([("everything", "1")] if self.fields.one("everything") else [])

    def asked(self, *, placeholder: str = "") -> Asked:
        """As a program would ask for it. ``placeholder`` stands for a reason that is not given yet."""
        selection: dict[str, Any] = {name: list(self.fields.all(name)) for name in MANY if self.fields.all(name)}
        single = (*ONE, *VERSIONS) if self.kind.name == "reprocess" else ONE
        selection |= {"step" if n == "at_step" else n: self.fields.one(n).strip() for n in single if self.fields.one(n)}
        if self.fields.one("everything"):
            selection["everything"] = True
        number = self.fields.one("priority", "0") or "0"
        try:
            priority = int(number)
        except ValueError as error:
            raise SettingsError(f"a priority is a whole number, not {number!r}") from error
        outputs = self.fields.one("outputs") or "kept"
        reason = self.fields.one("reason").strip()[:10_000] or placeholder
        step, branch = self.fields.one("step"), self.fields.one("branch")
        return Asked(
            selection=selection, reason=reason, step=step, outputs=outputs, priority=priority, branch=branch
        )  # fmt: skip


class Acts:
    """The routes."""

    def __init__(self, pages: Pages, operations: Operations, chain: Chain, ask_above: int) -> None:
        self._pages, self._operations, self._chain, self._ask_above = pages, operations, chain, ask_above
        self.router = APIRouter()
        for path, route in (("/operations", self.listed), ("/operations/{id:anything}", self.one)):
            self.router.add_api_route(path, route, methods=["GET", "HEAD"], include_in_schema=False)
        self.router.add_api_route(
            "/api/operations/{id:anything}", self.one, methods=["GET"], summary="What is known of one operation",
            responses={200: {"content": {"application/json": {"schema": {"type": "object"}}}}},
        )  # fmt: skip
        self.router.add_api_route("/api/operations/{id:anything}", _none, methods=["POST"], include_in_schema=False)
        self.router.add_api_route("/act/{what}", self.form, methods=["GET"], include_in_schema=False)
        self.router.add_api_route("/act/{what}", self.sent, methods=["POST"], include_in_schema=False)

    # --- reading ---

    def listed(self, request: Request) -> Response:
        """What people have done to documents, the last on top."""
        source = self._pages.source
        found = source.cached(("operations", LAST), lambda database: engine.latest(database, LAST))
        return self._pages.answer(request, "operations.html", {"operations": [_whole(one) for one in found]})

    def one(self, request: Request, id: str) -> Response:
        """One operation."""
        if not id.startswith("operation:"):
            raise NotFound(f"there is no operation {id!r}")
        found = self._pages.source.cached(("raw", id), lambda database: database.get(id))
        back = forms.way_back(request.query_params.get("next", ""))
        return self._pages.answer(request, "operation.html", _whole(found), back=back)

    # --- doing ---

    async def form(self, request: Request, what: str) -> Response:
        """The form, with what would be done."""
        wanted = _wanted(what, forms.asked(request))
        known = forms.hand(request)
        if known is None:
            return to_login(request)
        if not known.acts:
            raise HTTPException(403, f"{known.person.name} may not do this: it needs the role operator.")
        return await run_in_threadpool(self._look, request, wanted, known.person, "", 200)

    async def sent(self, request: Request, what: str) -> Response:
        """The form sent: look again, or do it."""
        fields = await forms.sent(request)
        person = await forms.acting(request, fields)
        wanted = _wanted(what, fields)
        if fields.one("do") != "yes":
            return await run_in_threadpool(self._look, request, wanted, person, "", 200)
        return await run_in_threadpool(self._act, request, wanted, person)

    def _act(self, request: Request, wanted: Wanted, person: Person) -> Response:
        with self._lent(person) as database:
            try:
                asked = wanted.asked()
                job = self._operations.job(database, wanted.kind.name, asked, person, MOST)
            except (SettingsError, ChainError) as error:
                return self._look(request, wanted, person, _sentence(error), 400)
            if len(job.names) > self._ask_above and wanted.fields.one("confirm") != str(len(job.names)):
                words = f"These are {len(job.names)} documents: say that you mean them all."
                return self._look(request, wanted, person, words, 409)
            if not job.names:
                return self._look(request, wanted, person, "No document fits (any more).", 400)
            try:
                done = job.perform(dry_run=False)
            except Refused as error:
                raise HTTPException(403, str(error)) from error
        self._pages.source.changed()
        links = Links(request.scope.get("root_path", ""))
        if done.refused:
            return RedirectResponse(links.to(f"/operations/{done.operation}", next=wanted.next), 303)
        return RedirectResponse(links.base + wanted.next, 303)

    def _look(self, request: Request, wanted: Wanted, person: Person, sentence: str, status: int) -> Response:
        """The form, with what it would do as far as that can be said yet."""
        chain = self._chain.of(wanted.fields.one("branch"))
        looked: dict[str, Any] = {}
        try:
            with self._lent(person) as database:
                looked = self._decided(database, wanted, person)
        except (SettingsError, ChainError) as error:
            sentence, status = sentence or _sentence(error), 400 if status == 200 else status
        data = {
            "what": wanted.kind.name,
            "kind": wanted.kind,
            "sentence": sentence,
            "chosen": wanted.chosen(),
            "branch": wanted.fields.one("branch"),
            "next": wanted.next,
            "reason": wanted.fields.one("reason"),
            "step": wanted.fields.one("step"),
            "steps": [{"key": step.key, "name": step.name} for step in chain.steps],
            "outputs": wanted.fields.one("outputs") or "kept",
            "every_output": OUTPUTS,
            "priority": wanted.fields.one("priority", "0"),
            "narrowed": {name: wanted.fields.one(name) for name in (*VERSIONS, "first_run", "last_run")},
            **looked,
        }
        return html("act.html", request, {**self._pages.common(), "data": data}, status)

    def _decided(self, database: Any, wanted: Wanted, person: Person) -> dict[str, Any]:
        """What would become of the documents; nothing is written."""
        if wanted.kind.needs_step and not wanted.fields.one("step"):
            return {}
        job = self._operations.job(database, wanted.kind.name, wanted.asked(placeholder="-"), person, MOST)
        done = job.perform(dry_run=True)
        return {
            "count": len(job.names),
            "ask": len(job.names) > self._ask_above,
            "counts": done.counts(),
            "changed": [
                {"id": name, "before": before, "after": after}
                for name, (before, after) in list(done.changed.items())[:NAMED]
            ],
            "unchanged": list(done.unchanged.items())[:NAMED],
            "refused": list(done.refused.items())[:NAMED],
            "redone": _redone(job),
        }

    @contextmanager
    def _lent(self, person: Person) -> Iterator[Any]:
        with self._operations.database(person) as database:
            yield database


def _whole(record: Mapping[str, Any]) -> dict[str, Any]:
    """An operation's record with all that a page asks of it."""
    known = ("_id", "what", "by", "at", "reason", "state", "branch", "step", "outputs", "value", "site", "selected")
    tables = {name: found if isinstance(found := record.get(name), dict) else {} for name in ("counts", "refused")}
    changed = tables["counts"].get("changed", record.get("selected"))
    return {**dict.fromkeys((*known, "selection")), **record, **tables, "changed": changed}


def _redone(job: Job) -> list[str]:
    """The steps that a reset takes out besides the one that is named."""
    from orchestrator.people import dependents

    if job.order.what not in ("reset", "reprocess"):
        return []
    chain = job.desk.chain
    return [step.name for steps in dependents(chain, chain.step(job.order.step)).values() for step in steps]


def _none(id: str) -> Response:
    """Asking a program's way for what is no operation."""
    raise NotFound(f"there is no operation {id!r}; there are: {', '.join(NAMES)}")


def _wanted(what: str, fields: Fields) -> Wanted:
    """Raises NotFound for an operation that there is not."""
    if what not in NAMES:
        raise NotFound(f"there is no operation {what!r}; there are: {', '.join(NAMES)}")
    return Wanted(OPERATIONS[NAMES.index(what)], fields)


def _sentence(error: Exception) -> str:
    if isinstance(error, TooMany):
        return f"More than {MOST} documents fit. So many are for the command line, which has the same operations."
    if isinstance(error, BadQuery):
        return str(error)
    words = str(error)
    return words[:1].upper() + words[1:] + ("" if words.endswith(".") else ".")


def to_login(request: Request) -> Response:
    """Lead to the login form, and back here afterwards; where there are no logins, say so. Raises HTTPException."""
    if getattr(request.app.state, "login", None) is None or not getattr(request.app.state, "acting", False):
        raise HTTPException(403, "This page was started without anything to change documents by.")
    links = Links(request.scope.get("root_path", ""))
    path = request.scope.get("path", "").removeprefix(links.base)
    wanted = path + (f"?{request.url.query}" if request.url.query else "")
    return RedirectResponse(links.to("/login", next=wanted), 303)
