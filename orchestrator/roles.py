"""Who may write what into the run database, as data: from it come the guard, the accounts and the guide about them.

A role is a word in an account's ``_users`` document. ``site:X`` is one role for each site of the chain. What stands
here is what ``couchapp/guard/validate_doc_update.js`` enforces at every write.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from orchestrator.chain import Chain
from orchestrator.transitions import TRANSITIONS, Kind, parse

ADMIN = "admin"
OPERATOR = "operator"
REPLICATOR = "replicator"
VIEWER = "viewer"
SERVER_ADMIN = "_admin"  # CouchDB's own, of the server's admins; no account in _users can have it
SITE = "site:"


@dataclass(frozen=True)
class Role:
    """A role, for whom it is, and what it allows, in words for the guide."""

    name: str
    whom: str
    may: str


ROLES: tuple[Role, ...] = (
    Role(VIEWER, "the status page's account; whoever only looks", "read; write nothing but `_local` documents"),
    Role(
        "site:X",
        "the pollers, farm daemons and registrar of site X",
        "the transitions of registrar and poller for files and steps of site X; the `procN` entries of X's steps; "
        "the records of their attempts",
    ),
    Role(
        OPERATOR,
        "shift crew",
        "the transitions of people; hold, priority, notes; take away `procN` entries and call steps off; accept an "
        "output that a gate has refused, but never say otherwise that a step is done; control documents",
    ),
    Role(
        ADMIN,
        "whoever answers for the database",
        "every transition of the table; `forced` for what the table does not have; delete; documents of any type; "
        "design documents and `_security`",
    ),
    Role(
        REPLICATOR,
        "the account with which replication writes into this database",
        "whatever another database's guard has let pass: revisions made elsewhere, several transitions at once, "
        "deletions",
    ),
)


@dataclass(frozen=True)
class Type:
    """Documents of ours that are no data documents, and who may write them: ``site`` and ``person``, or neither.

    ``person`` is who has the role operator. A ``site`` writes what names a step of its own (``step``: ``proc1``) or,
    where none is named, itself (``site``). An admin may write any, and a replicator carry any.
    """

    name: str
    meaning: str
    create: tuple[str, ...] = ()
    change: tuple[str, ...] = ()
    delete: tuple[str, ...] = ()


#: A type that has no row here is for admins: it is a slip, or somebody's own affair in a database that is ours.
TYPES: tuple[Type, ...] = (
    Type(
        "attempt", "an attempt that did not succeed: written once; a loss (by its site) or an end (by a "
        "person) that was not true goes again",
        create=("site", "person"), delete=("site", "person"),
    ),
    Type(
        "operation", "what a person did, when and why, and what came of it", create=("person",), change=("person",)
    ),
    Type(
        "past", "what an operation took out of a document, and what became of its outputs",
        create=("person",), change=("person",), delete=("person",),
    ),
    Type("control", "what is paused or limited at a site", create=("person",), change=("person",)),
)  # fmt: skip

#: Of a data document, what it is about: these never change, once they have a value.
IDENTITY = ("file", "file_bytes", "site")
#: What the closed file is: fixed as soon as the file is no longer `open`.
CONTENT = ("run_name", "file_number", "hostname", "size", "checksum")
#: What people say about a data document: the accounts of sites leave it as it is.
PEOPLE = ("hold", "operation", "forced")


def site_role(site: str) -> str:
    """The role of a site's daemons."""
    return SITE + site


def moves() -> str:
    """The transitions as the guard reads them: for ``site`` and ``person``, how the step's number moves.

    ``|closed>good:person any|in progress>in progress:site later same|...|``
    """
    found: dict[str, set[str]] = {}
    for transition in TRANSITIONS:
        who = "person" if transition.by == "person" else "site"
        for before in transition.before:
            found.setdefault(f"{before.value}>{transition.after.value}:{who}", set()).add(transition.step)
    return "|" + "".join(f"{pair} {' '.join(sorted(steps))}|" for pair, steps in sorted(found.items()))


def plain_statuses() -> str:
    """The statuses that name no step, as the guard reads them: ``|open|closed|...|``."""
    return "|" + "".join(f"{kind.value}|" for kind in Kind if parse(kind.value) is not None)


def numbered_statuses() -> str:
    """What may stand behind ``proc N``, as the guard reads it: ``|queued|in progress|...|``."""
    return "|" + "".join(f"{kind.value}|" for kind in Kind if parse(f"proc 1 {kind.value}") is not None)


def types() -> dict[str, dict[str, list[str]]]:
    """``TYPES`` as the guard reads them."""
    return {
        one.name: {"create": list(one.create), "change": list(one.change), "delete": list(one.delete)} for one in TYPES
    }


def member_roles(sites: Iterable[str]) -> list[str]:
    """The roles whose accounts may read a run database, and write what the guard allows."""
    return [SERVER_ADMIN, ADMIN, OPERATOR, REPLICATOR, VIEWER, *sorted(site_role(site) for site in sites)]


def branches(chain: Chain) -> dict[str, dict[str, Any]]:
    """The types of documents that have a chain, with the sites of their steps, as the guard reads them.

    ``{"daqdocument": {"sites": ["here", ...], "lanes": {"archive": [...]}}, "run": {"sites": [...], "gather": true}}``
    """
    lanes = {name: sites_of(chain.of(name)) for name in chain.lanes}
    found: dict[str, dict[str, Any]] = {chain.type: {"sites": sites_of(chain), "lanes": lanes}}
    for name, gather in chain.gathers.items():
        found[gather.type] = {"sites": sites_of(chain.of(name)), "lanes": {}, "gather": True}
    return found


def sites_of(chain: Chain) -> list[str]:
    """The site of each step, by the step's number."""
    return [step.site for step in chain.steps]
