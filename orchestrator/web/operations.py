"""People's operations through the page: ``POST /api/operations/<name>``, JSON in and JSON out, for operators only.

The names, the selection and what comes back are those of the command line (``orchestrator.people``,
``orchestrator.selection``)::

    {"selection": {"runs": ["ma22a000"], "statuses": ["failed"]}, "reason": "the disk is mended", "dry_run": true}

``confirm`` must be true where more documents are concerned than the setting ``ask_above`` says; without it the answer
is 409 and says how many. Who has logged in writes in his own name, so that the database's guard sees who it is.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import Response

from orchestrator.chain import Chain
from orchestrator.couch.branch import BranchDatabase
from orchestrator.engine import operations
from orchestrator.engine.choosing import choose
from orchestrator.engine.operations import Desk, Done
from orchestrator.errors import Refused, SettingsError
from orchestrator.people import NAMES, OPERATIONS, Order
from orchestrator.selection import Selection, from_json, usual
from orchestrator.web.headers import problem
from orchestrator.web.paging import BadQuery
from orchestrator.web.render import json_answer
from orchestrator.web.roles import Person, require

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.web.source import Source

#: Bytes of a request: the ids of some ten thousand documents.
MOST_BYTES = 2_000_000


@dataclass(frozen=True)
class Acting:
    """What the page needs to act for its site: its name, its data folder, and above how many documents to ask.

    ``lease`` (s): a daemon that is silent for so long counts as dead, where it does not say itself. ``spool``: where
    daemons that have ended have left word.
    """

    site: str
    data: Path
    ask_above: int = 10
    lease: float = 60.0
    spool: Path | None = None


class Asked(BaseModel):
    """The body of a request."""

    model_config = ConfigDict(extra="forbid", strict=True)

    selection: dict[str, Any]
    reason: str = Field("", max_length=10_000)
    step: str = Field("", max_length=200)
    outputs: str = "kept"
    priority: int = 0
    branch: str = Field("", max_length=200)
    dry_run: bool = False
    confirm: bool = False


@dataclass(frozen=True)
class Job:
    """An order, and the documents that it is about."""

    desk: Desk
    order: Order
    names: list[str]
    selection: Selection

    def perform(self, *, dry_run: bool) -> Done:
        """Carry it out, or only decide. Raises what the database raises."""
        return self.desk.perform(self.order, self.names, self.selection, dry_run=dry_run)


#: What a call that changes something may answer, for the description of all calls.
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {"schema": {"type": "object"}}}},
    401: {"description": "nobody has logged in"},
    403: {"description": "the person may not do this"},
    409: {"description": "many documents, and no confirm"},
}


class Operations:
    """The routes that change documents."""

    def __init__(self, source: Source, chain: Chain, acting: Acting) -> None:
        self._source, self._chain, self._acting = source, chain, acting
        self.router = APIRouter()
        body = {"content": {"application/json": {"schema": Asked.model_json_schema()}}}
        for one in OPERATIONS:
            self.router.add_api_route(
                f"/api/operations/{one.name}", self._route(one.name), methods=["POST"], summary=one.help,
                openapi_extra={"requestBody": body},
                responses=ANSWERS,
            )  # fmt: skip
        self.router.add_api_route(
            "/api/operations", self.listed, methods=["GET"], summary="What people have done to documents",
            responses={200: {"content": {"application/json": {"schema": {"type": "object"}}}}},
        )  # fmt: skip

    def listed(self, limit: Annotated[int, Query(ge=1, le=200)] = 50) -> Response:
        """The records of the last operations."""
        found = self._source.cached(("operations", limit), lambda database: operations.latest(database, limit))
        return json_answer({"operations": found, "names": list(NAMES)})

    def _route(self, what: str) -> Any:
        async def act(request: Request, person: Annotated[Person, Depends(require("operator"))]) -> Response:
            asked = _read(await body_of(request))
            return await run_in_threadpool(self._act, what, asked, person)

        return act

    def _act(self, what: str, asked: Asked, person: Person) -> Response:
        try:
            with self.database(person) as database:
                return self._perform(database, what, asked, person)
        except SettingsError as error:
            raise BadQuery(str(error)) from error
        except Refused as error:
            raise HTTPException(403, str(error)) from error

    def _perform(self, database: Any, what: str, asked: Asked, person: Person) -> Response:
        job = self.job(database, what, asked, person)
        most = self._acting.ask_above
        if len(job.names) > most and not asked.dry_run and not asked.confirm:
            body = problem(
                409, "confirm", f"This concerns {len(job.names)} documents, more than {most}: look with dry_run, then "
                "send it again with confirm."
            )  # fmt: skip
            return json_answer(body | {"documents": len(job.names)}, 409)
        done = job.perform(dry_run=asked.dry_run)
        self._source.changed()
        return json_answer({"dry_run": asked.dry_run, "counts": done.counts(), **vars(done)})

    def job(self, database: Any, what: str, asked: Asked, person: Person, most: int | None = None) -> Job:
        """What is asked for, with the documents it is about. Raises SettingsError, TooMany, ChainError."""
        chain = self._chain.of(asked.branch)
        lane = BranchDatabase(database, chain.branch, self._chain.type) if asked.branch else database
        step = chain.step(asked.step).key if asked.step else ""
        order = Order(what, person.name, asked.reason, step, asked.outputs, asked.priority)
        selection = usual(what, from_json(asked.selection), order.step)
        names = choose(lane, chain, selection, database, most)
        return Job(Desk(lane, chain, self._acting.site, self._acting.data), order, names, selection)

    @contextmanager
    def database(self, person: Person) -> Iterator[Any]:
        """The database in the person's own name; in the page's, where its settings let anyone at this machine act."""
        if person.database is not None:
            yield person.database()
        else:
            with self._source.lend() as database:
                yield database


async def body_of(request: Request) -> bytes:
    """The request's body. Raises HTTPException 413 for one that is too large."""
    kept = bytearray()
    async for chunk in request.stream():
        kept += chunk
        if len(kept) > MOST_BYTES:
            raise HTTPException(413, f"The request has more than {MOST_BYTES} bytes: select by run or query.")
    return bytes(kept)


def _read(body: bytes) -> Asked:
    """What is asked for. Raises BadQuery, which names what is wrong."""
    try:
        return Asked.model_validate(json.loads(body))
    except ValidationError as error:
        faults = [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()]
        raise BadQuery("; ".join(faults)) from error
    except (ValueError, RecursionError) as error:
        raise BadQuery(f"the request is no JSON: {error}") from error
