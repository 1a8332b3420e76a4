"""Control through the page: pause, drain and resume steps, farms and sites, change a farm's limits, cancel batch jobs.

For programs ``POST /api/control/<what>`` with JSON, for people the form ``/control/<what>``; both for operators only,
in their own name, by the rules of the command line (``orchestrator.engine.controls``)::

    {"farm": "centre", "reason": "power cut", "dry_run": true}
    {"jobs": ["4711_3"], "documents": ["ma22a000_003"], "hold": true, "reason": "wrong calibration"}

``confirm`` must be true where more documents would be taken back or ended than the setting ``ask_above`` says.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from orchestrator import batchjobs, control, joblist
from orchestrator.chain import Chain
from orchestrator.control import Scope
from orchestrator.engine import controls
from orchestrator.errors import ChainError, Conflict, NotFound, Refused, SettingsError
from orchestrator.farms import Limits
from orchestrator.web import forms
from orchestrator.web.acts import to_login
from orchestrator.web.forms import Fields
from orchestrator.web.headers import problem
from orchestrator.web.links import Links
from orchestrator.web.operations import ANSWERS, Acting, Operations, body_of
from orchestrator.web.paging import BadQuery
from orchestrator.web.render import html, json_answer
from orchestrator.web.roles import Person, require

if TYPE_CHECKING:
    from orchestrator.web.pages import Pages

What = Literal["pause", "drain", "resume", "limits", "cancel"]
#: What each does, for forms and the list of calls.
HELP: dict[What, str] = {
    "pause": "Let nothing new begin; what runs goes on.",
    "drain": "Pause, and take back what waits at a farm.",
    "resume": "Let go on what was paused or drained.",
    "limits": "Change how much may be at a farm.",
    "cancel": "End batch jobs, or the attempts that farms make at documents.",
}
#: Documents of a job that a form names.
NAMED = 50


class Asked(BaseModel):
    """The body of a request. Without step and farm it is of the whole site; ``all``: everything stopped there."""

    model_config = ConfigDict(extra="forbid", strict=True)

    site: str = Field("", max_length=200)
    step: str = Field("", max_length=200)
    farm: str = Field("", max_length=200)
    all: bool = False
    values: dict[str, int | float | None] = Field(default_factory=dict)
    jobs: list[str] = Field(default_factory=list, max_length=1000)
    documents: list[str] = Field(default_factory=list, max_length=10_000)
    hold: bool = False
    reason: str = Field("", max_length=10_000)
    dry_run: bool = False
    confirm: bool = False


class Controlling:
    """The routes."""

    def __init__(self, pages: Pages, operations: Operations, chain: Chain, acting: Acting) -> None:
        self._pages, self._operations, self._chain, self._acting = pages, operations, chain, acting
        self.router = APIRouter()
        body = {"content": {"application/json": {"schema": Asked.model_json_schema()}}}
        for what, words in HELP.items():
            self.router.add_api_route(
                f"/api/control/{what}", self._route(what), methods=["POST"], summary=words,
                openapi_extra={"requestBody": body},
                responses=ANSWERS,
            )  # fmt: skip
        self.router.add_api_route("/control/{what}", self.form, methods=["GET"], include_in_schema=False)
        self.router.add_api_route("/control/{what}", self.sent, methods=["POST"], include_in_schema=False)

    # --- for programs ---

    def _route(self, what: What) -> Any:
        async def act(request: Request, person: Annotated[Person, Depends(require("operator"))]) -> Response:
            try:
                asked = Asked.model_validate(json.loads(await body_of(request)))
            except ValidationError as error:
                faults = [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()]
                raise BadQuery("; ".join(faults)) from error
            except (ValueError, RecursionError) as error:
                raise BadQuery(f"the request is no JSON: {error}") from error
            return await run_in_threadpool(self._answer, what, asked, person)

        return act

    def _answer(self, what: What, asked: Asked, person: Person) -> Response:
        try:
            with self._operations.database(person) as database:
                many = self._many(database, what, asked)
                if many > self._acting.ask_above and not asked.dry_run and not asked.confirm:
                    words = f"This takes {many} documents from farms, more than {self._acting.ask_above}: send confirm."
                    return json_answer(problem(409, "confirm", words) | {"documents": many}, 409)
                done = self._perform(database, what, asked, person)
        except (SettingsError, ChainError) as error:
            raise BadQuery(str(error)) from error
        except Refused as error:
            raise HTTPException(403, str(error)) from error
        self._pages.source.changed()
        return json_answer({"dry_run": asked.dry_run, **done})

    # --- for people ---

    async def form(self, request: Request, what: str) -> Response:
        """The form, with what would be done."""
        wanted = forms.asked(request)
        known = forms.hand(request)
        if what not in HELP:
            raise NotFound(f"there is no such control as {what!r}; there are: {', '.join(HELP)}")
        if known is None:
            return to_login(request)
        if not known.acts:
            raise HTTPException(403, f"{known.person.name} may not do this: it needs the role operator.")
        return await run_in_threadpool(self._look, request, what, wanted, known.person, "", 200)

    async def sent(self, request: Request, what: str) -> Response:
        """The form sent."""
        fields = await forms.sent(request)
        person = await forms.acting(request, fields)
        if what not in HELP:
            raise NotFound(f"there is no such control as {what!r}; there are: {', '.join(HELP)}")
        return await run_in_threadpool(self._act, request, what, fields, person)

    def _act(self, request: Request, what: What, fields: Fields, person: Person) -> Response:
        try:
            asked = _read(what, fields)
            if what == "cancel" and not asked.reason:
                raise SettingsError("say why: it is kept in the documents")
            with self._operations.database(person) as database:
                many = self._many(database, what, asked)
                if many > self._acting.ask_above and fields.one("confirm") != str(many):
                    words = f"This takes {many} documents from farms: say that you mean it."
                    return self._look(request, what, fields, person, words, 409)
                done = self._perform(database, what, asked, person)
        except (SettingsError, ChainError, Conflict) as error:
            return self._look(request, what, fields, person, f"{error}.", 400)
        except Refused as error:
            raise HTTPException(403, str(error)) from error
        if done.get("refused"):
            words = "; ".join(f"{name}: {why}" for name, why in list(done["refused"].items())[:5])
            return self._look(request, what, fields, person, words, 409)
        self._pages.source.changed()
        links = Links(request.scope.get("root_path", ""))
        return RedirectResponse(links.base + forms.way_back(fields.one("next")), 303)

    def _look(self, request: Request, what: What, fields: Fields, person: Person, sentence: str, status: int) -> Any:
        data: dict[str, Any] = {
            "what": what,
            "help": HELP[what],
            "sentence": sentence[:1].upper() + sentence[1:],
            "next": forms.way_back(fields.one("next")),
            "reason": fields.one("reason"),
            "hold": bool(fields.one("hold")),
            "chosen": [
                *((name, fields.one(name)) for name in ("site", "step", "farm", "all") if fields.one(name)),
                *((name, value) for name in ("jobs", "documents") for value in fields.all(name)),
            ],
            "subject": "", "limits": [], "stops": [], "documents": [], "unknown": [], "queued": None, "ask": False,
        }  # fmt: skip
        try:
            asked = _read(what, fields)
            with self._operations.database(person) as database:
                data |= self._shown(database, what, asked)
        except (SettingsError, ChainError) as error:
            data["sentence"] = data["sentence"] or f"{error}."
            status = 400 if status == 200 else status
        return html("control.html", request, {**self._pages.common(), "data": data}, status)

    def _shown(self, database: Any, what: What, asked: Asked) -> dict[str, Any]:
        """What would be done, in words and figures."""
        if what == "cancel":
            wanted, unknown = self._meant(database, asked)
            names = list(wanted)
            return {"subject": ", ".join(asked.jobs) or ", ".join(asked.documents[:3]), "count": len(names),
                    "documents": names[:NAMED], "unknown": unknown,
                    "ask": len(names) > self._acting.ask_above}  # fmt: skip
        site, scope = self._scope(asked)
        if what != "resume":
            controls.check(self._chain, site, scope)
        said = controls.read(database, site)
        found: dict[str, Any] = {"subject": scope.words(site), "site": site}
        if what == "limits":
            now = said.apply(asked.farm, self._chain.farms[asked.farm].limits).model_dump()
            in_chain = self._chain.farms[asked.farm].limits.model_dump()
            return found | {"limits": [{"name": n, "value": now[n], "in_chain": in_chain[n]} for n in now]}
        mine = [one for one in said.stops if asked.all or one.scope == scope]
        found["stops"] = [one.words(site) for one in mine]
        if asked.all:
            found["subject"] = f"everything at site {site}"
        queued, running = controls.left(database, self._chain, site, scope)
        ask = what == "drain" and queued > self._acting.ask_above
        return found | {"queued": queued, "running": running, "count": queued, "ask": ask}

    # --- both ---

    def _scope(self, asked: Asked) -> tuple[str, Scope]:
        if asked.step and asked.farm:
            raise SettingsError("say a step or a farm, not both")
        if asked.step:
            known = [s for one in (self._chain, *self._chain.branches().values()) for s in one.steps]
            step = next((one for one in known if asked.step in (one.name, one.key)), None)
            site = asked.site or (step.site if step else self._acting.site)
            return site, Scope("step", step.name if step else asked.step)
        return asked.site or self._acting.site, Scope("farm", asked.farm) if asked.farm else Scope()

    def _many(self, database: Any, what: What, asked: Asked) -> int:
        """How many documents are taken from farms."""
        if what == "cancel":
            return len(self._meant(database, asked)[0])
        if what == "drain":
            site, scope = self._scope(asked)
            controls.check(self._chain, site, scope)
            return controls.left(database, self._chain, site, scope)[0]
        return 0

    def _meant(self, database: Any, asked: Asked) -> tuple[dict[str, str], list[str]]:
        """Documents with the job that is meant, and the names of jobs that nobody waits for (any more)."""
        wanted = dict.fromkeys(asked.documents, "")
        known = joblist.jobs(database) if asked.jobs else []
        unknown = []
        for word in asked.jobs:
            found = joblist.find(known, word)
            if found is None:
                unknown.append(word)
                continue
            job, task = found
            some = [m for m in joblist.members_of(database, job.name) if m.state in joblist.STATES]
            wanted.update({m.document: job.name for m in some if task in (None, m.task)})
        return wanted, unknown

    def _perform(self, database: Any, what: What, asked: Asked, person: Person) -> dict[str, Any]:
        common: dict[str, Any] = {"by": person.name, "reason": asked.reason, "dry_run": asked.dry_run}
        if what == "cancel":
            wanted, unknown = self._meant(database, asked)
            then = batchjobs.HOLD if asked.hold else batchjobs.FAILED
            done = controls.cancel(database, wanted, then=then, **common)
            gone = dict.fromkeys(unknown, "no document waits for a job of that name")
            return {"cancelled": list(done.changed), "refused": {**done.refused, **gone}}
        site, scope = self._scope(asked)
        if what == "resume":
            changed = controls.resume(database, site, None if asked.all else scope, **common)
        elif what == "limits":
            unknown = [name for name in asked.values if name not in Limits.model_fields]
            if unknown or not asked.values:
                raise SettingsError(f"values: give some of {', '.join(Limits.model_fields)}")
            changed = controls.limit(database, self._chain, site, asked.farm, asked.values, **common)
        else:
            mode = control.DRAIN if what == "drain" else control.PAUSE
            changed = controls.stop(database, self._chain, site, scope, mode, **common)
        queued, running = controls.left(database, self._chain, site, scope)
        return {**changed.control.to_json(), "changed": changed.new, "queued": queued, "running": running}


def _read(what: What, fields: Fields) -> Asked:
    """What a form asks for. Raises SettingsError for a number that is none."""
    values: dict[str, int | float | None] = {}
    for name in Limits.model_fields if what == "limits" else ():
        text = fields.one(f"limit.{name}").strip()
        if fields.one(f"reset.{name}"):
            values[name] = None
        elif text:
            try:
                values[name] = float(text) if "." in text else int(text)
            except ValueError as error:
                raise SettingsError(f"{name.replace('_', ' ')}: {text!r} is no number") from error
    return Asked(
        site=fields.one("site"), step=fields.one("step"), farm=fields.one("farm"), all=bool(fields.one("all")),
        values=values, jobs=list(fields.all("jobs"))[:1000], documents=list(fields.all("documents"))[:10_000],
        hold=bool(fields.one("hold")), reason=fields.one("reason").strip()[:10_000],
    )  # fmt: skip
