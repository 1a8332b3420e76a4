"""What people do to farms and steps while everything runs, as one function each: pause, drain, resume, limits, cancel.

Each says who, why and when in the database and nothing else; the site's daemons see it there and act. So a function
that has returned has an effect even if every daemon was down, and one that was cut short is simply called again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from orchestrator import batchjobs, control, documents
from orchestrator.chain import Chain, Step
from orchestrator.control import Control, Scope
from orchestrator.documents import Document
from orchestrator.engine import operations
from orchestrator.engine.operations import Done
from orchestrator.errors import ChainError, Conflict, IllegalTransition

#: So often a control document is read and changed again that somebody else keeps changing.
TRIES = 5


class Database(Protocol):
    """What these functions need of a database (orchestrator.couch.Database has it)."""

    def bulk(self, docs: list[Document]) -> list[Any]: ...

    def get_many(self, ids: list[str]) -> dict[str, Document | None]: ...

    def put(self, doc: Document, /) -> str: ...


@dataclass(frozen=True)
class Changed:
    """What a site's control document says after an operation, and whether that is new."""

    control: Control
    new: bool


def read(database: Any, site: str) -> Control:
    """What is stopped and limited at a site. Raises what the database raises."""
    name = control.name_of(site)
    return Control.read(site, database.get_many([name]).get(name))


def read_all(database: Any, chain: Chain) -> dict[str, Control]:
    """The same for every site of the chain, by its name."""
    found = database.get_many([control.name_of(site) for site in chain.sites])
    return {site: Control.read(site, found.get(control.name_of(site))) for site in chain.sites}


def stop(
    database: Database, chain: Chain, site: str, scope: Scope, mode: str, *,
    by: str, reason: str = "", dry_run: bool = False, clock: Callable[[], float] = time.time,
) -> Changed:  # fmt: skip
    """Pause or drain (`control.PAUSE`, `control.DRAIN`) a step, a farm, or all of a site.

    Raises:
        ChainError: the chain has no such site, step or farm, or the step belongs to another site.
        Conflict: others change the control document all the time.
    """
    check(chain, site, scope)
    return _change(
        database, site, lambda document: control.stop(document, scope, mode, by, reason, clock()), dry_run
    )


def resume(
    database: Database, site: str, scope: Scope | None, *,
    by: str, reason: str = "", dry_run: bool = False, clock: Callable[[], float] = time.time,
) -> Changed:  # fmt: skip
    """Let something go on; None: everything that is stopped at the site. What the chain no longer has can be named too.

    Raises Conflict as `stop` does.
    """
    return _change(database, site, lambda document: control.resume(document, scope, by, reason, clock()), dry_run)


def limit(
    database: Database, chain: Chain, site: str, farm: str, values: Mapping[str, float | None], *,
    by: str, reason: str = "", dry_run: bool = False, clock: Callable[[], float] = time.time,
) -> Changed:  # fmt: skip
    """Change limits of a farm; a value of None brings back the chain's.

    Raises:
        ChainError: the chain has no such farm.
        SettingsError: there is no such limit, or it cannot have that value.
        Conflict: as `stop` does.
    """
    check(chain, site, Scope("farm", farm))
    return _change(
        database, site, lambda document: control.limit(document, farm, values, by, reason, clock()), dry_run
    )


def cancel(
    database: Database, jobs: Mapping[str, str], *,
    by: str, reason: str = "", then: str = batchjobs.FAILED, dry_run: bool = False,
    clock: Callable[[], float] = time.time,
) -> Done:  # fmt: skip
    """Have the attempts that farms make at documents ended; ``then`` the documents are failed, or wait with a hold.

    What is written here is the intent. The farm's daemon has the job cancelled and records the end; an attempt that is
    done before that counts as done.

    Args:
        jobs: documents, each with the name of the batch job that is meant, or nothing for whichever has it.
    """
    now = clock()

    def decide(document: Document) -> Document:
        name = str(document["_id"])
        held = documents.holder(document)
        if jobs[name] and (held is None or held[1].get("job") != jobs[name]):
            raise IllegalTransition(f"document {name!r} has gone on: job {jobs[name]} has it no more")
        return batchjobs.cancel(document, by, reason, then, now)

    return operations.change(database, jobs, decide, dry_run=dry_run)


def left(database: Any, chain: Chain, site: str, scope: Scope) -> tuple[int, int]:
    """How many documents wait at farms, and how many run, of what a scope covers. Raises what the database raises."""
    counts = [0, 0]
    for one in (chain, *chain.branches().values()):
        numbers = {
            step.number
            for step in one.at(site) + one.farmed(site)
            if scope.kind == "site" or scope.name == (step.name if scope.kind == "step" else step.farm)
        }
        for place, view in enumerate(("work/inqueue", "work/inprogress") if numbers else ()):
            rows = database.view(one.branch.view(view), group_level=1)
            counts[place] += sum(int(row.value) for row in rows if row.key[0] in numbers)
    return counts[0], counts[1]


def check(chain: Chain, site: str, scope: Scope) -> None:
    """Raises ChainError for a site, step or farm that the chain does not have, or a step of another site."""
    if site not in chain.sites:
        raise ChainError(f"the chain {chain.name!r} has no site {site!r}: its sites are {', '.join(chain.sites)}")
    if scope.kind == "step":
        step = step_of(chain, scope.name)
        if step.site != site:
            raise ChainError(f"step {step.name} belongs to site {step.site}, not to {site}: say --site {step.site}")
    if scope.kind == "farm" and scope.name not in chain.farms:
        known = ", ".join(sorted(chain.farms)) or "none"
        raise ChainError(f"the chain {chain.name!r} has no farm {scope.name!r}: its farms are {known}")


def step_of(chain: Chain, name: str) -> Step:
    """The step of that name or keyword, of the chain itself or of one of its lanes and gathers. Raises ChainError."""
    for one in (chain, *chain.branches().values()):
        with contextlib.suppress(ChainError):
            return one.step(name)
    return chain.step(name)


def _change(database: Database, site: str, decide: Callable[[Document], Document], dry_run: bool) -> Changed:
    name = control.name_of(site)
    for _ in range(TRIES):
        found = database.get_many([name]).get(name)
        before = found or control.empty(site)
        after = decide(before)
        if after is before:
            return Changed(Control.read(site, before), False)
        if dry_run:
            return Changed(Control.read(site, after), True)
        try:
            database.put(after)
        except Conflict:
            continue
        return Changed(Control.read(site, after), True)
    raise Conflict(f"the control document of site {site} changes faster than it can be written: try again")
