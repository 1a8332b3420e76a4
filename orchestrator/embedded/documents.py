"""One document on its way in or out: special members, revisions, and the bytes that are stored and answered.

The stored body is the JSON without its special members (those that begin with ``_``). Reading back is a splice of
bytes: ``_id`` and ``_rev`` in front, what was asked for behind.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from orchestrator.embedded import codec, revisions
from orchestrator.embedded.problems import Problem, bad_request, doc_validation
from orchestrator.embedded.revisions import Revision

# Members that a client may send back as it read them; they carry nothing to store.
_IGNORED = frozenset(
    {
        "_revs_info",
        "_conflicts",
        "_deleted_conflicts",
        "_local_seq",
        "_replication_id",
        "_replication_state",
        "_replication_state_time",
        "_replication_state_reason",
        "_replication_stats",
        "_replication_start_time",
    }
)
# Of those, the ones a replicator document keeps as data.
_KEPT = frozenset(name for name in _IGNORED if name.startswith("_replication_"))


@dataclass(slots=True)
class Draft:
    """A document that somebody wants to write, checked in form but not yet against the database."""

    id: str
    revision: Revision | None
    deleted: bool
    body: bytes
    history: list[Revision] = field(default_factory=list)
    attachments: dict[str, Any] | None = None

    @property
    def is_local(self) -> bool:
        """Whether this is a ``_local`` document."""
        return self.id.startswith("_local/")


def check_id(identifier: object) -> str:
    """Refuse an id that no document may have.

    Raises:
        Problem: 400 with CouchDB's error word and reason.
    """
    if not isinstance(identifier, str):
        raise Problem(400, "illegal_docid", "Document id must be a string")
    if identifier == "":
        raise Problem(400, "illegal_docid", "Document id must not be empty")
    if identifier.startswith("_"):
        if identifier in ("_design/", "_local/"):
            raise Problem(400, "illegal_docid", f"Illegal document id `{identifier}`")
        if not identifier.startswith(("_design/", "_local/")):
            raise Problem(400, "illegal_docid", "Only reserved document ids may start with underscore.")
    return identifier


def draft(document: object, identifier: str | None = None) -> Draft:
    """Take a decoded document apart.

    Args:
        document: the JSON of the request.
        identifier: the id of the URL, which outranks ``_id``.

    Raises:
        Problem: 400 for a document that is no object, or whose special members are unknown or malformed.
    """
    if not isinstance(document, dict):
        raise bad_request("Document must be a JSON object")
    given = document.get("_id")
    if identifier is None and given is not None:
        identifier = check_id(given)
    specials = [name for name in document if name.startswith("_")]
    if not specials:
        return Draft(identifier or "", None, False, codec.dumps(document))
    fields = dict(document)
    made = Draft(identifier or "", None, False, b"")
    for name in specials:
        value = fields[name]
        if name in _KEPT:
            continue
        del fields[name]
        if name == "_id":
            check_id(value)
        elif name == "_rev":
            made.revision = revisions.parse(value)
        elif name == "_deleted":
            if not isinstance(value, bool):
                raise doc_validation("Bad special document member: _deleted")
            made.deleted = value
        elif name == "_revisions":
            made.history = _history(value)
        elif name == "_attachments":
            if not isinstance(value, dict):
                raise bad_request("Attachments must be a JSON object")
            made.attachments = value
        elif name not in _IGNORED:
            raise doc_validation(f"Bad special document member: {name}")
    made.body = codec.dumps(fields)
    if made.history and made.revision is None:
        made.revision = made.history[0]
    return made


def _history(value: object) -> list[Revision]:
    if not isinstance(value, dict):
        raise doc_validation("_revisions must be an object")
    start, names = value.get("start"), value.get("ids")
    if not isinstance(start, int) or isinstance(start, bool):
        raise doc_validation("_revisions.start isn't an integer.")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise doc_validation("_revisions.ids isn't a array.")
    return [revisions.parse(f"{start - number}-{name}") for number, name in enumerate(names) if start - number > 0]


def render(identifier: str, rev: str, deleted: bool, body: bytes, extra: Iterable[tuple[str, bytes]] = ()) -> bytes:
    """The JSON a reader gets, spliced from stored bytes.

    Args:
        extra: further special members as (name, encoded JSON), such as ``_conflicts``.
    """
    parts = [b'{"_id":', codec.dumps(identifier), b',"_rev":"', rev.encode(), b'"']
    if len(body) > 2:
        parts.append(b",")
        parts.append(body[1:-1])
    if deleted:
        parts.append(b',"_deleted":true')
    for name, value in extra:
        parts.append(b',"%b":%b' % (name.encode(), value))
    parts.append(b"}")
    return b"".join(parts)


def shown(
    identifier: str, rev: str, deleted: bool, body: bytes, path: bytes, attachments: dict[str, Any] | None
) -> bytes:
    """The JSON that a validation function is shown, spliced.

    Args:
        rev: empty for a document that names none.
        path: the ``_revisions`` member, encoded.
        attachments: entries as a plain read shows them.
    """
    parts = [b'{"_id":', codec.dumps(identifier)]
    if rev:
        parts += (b',"_rev":', codec.dumps(rev))
    if deleted:
        parts.append(b',"_deleted":true')
    if len(body) > 2:
        parts += (b",", body[1:-1])
    parts += (b',"_revisions":', path)
    if attachments:
        parts += (b',"_attachments":', codec.dumps(attachments))
    parts.append(b"}")
    return b"".join(parts)


def stubs(stored: bytes) -> dict[str, dict[str, Any]]:
    """Attachment entries as a plain read shows them, from their stored form."""
    public = {}
    for name, entry in codec.loads(stored).items():
        public[name] = {key: value for key, value in entry.items() if key != "blob"} | {"stub": True}
    return public


def revisions_member(path: list[Revision]) -> dict[str, Any]:
    """The ``_revisions`` member of a path, newest first."""
    return {"start": path[0][0] if path else 0, "ids": [digest for _, digest in path]}
