"""From files that are closed to documents in the database, a group at a time: one lookup and one write.

Knows no clock, no folder and no waiting; ``orchestrator.registrar`` has those. Ids come from names, so registering a
file twice meets its own document. Another file's document under that id is a collision: the newcomer gets an id of its
own and status bad, with the reason, and nothing is lost.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from orchestrator import faults
from orchestrator.couch.database import Refusal, Saved
from orchestrator.errors import DataError, Refused
from orchestrator.filenames import path_of, text_of
from procs.register.document import Changed, Document, Maker
from procs.register.found import Found
from procs.register.paths import collision_id

#: Pause before a file that could not be read, or a document that was refused, is tried again, s.
TROUBLE_PAUSE: Final = 60.0

#: Pause before a file that changed while it was read is looked at again, s.
CHANGED_PAUSE: Final = 1.0

#: Sentences kept in a summary; the log has them all.
MOST_PROBLEMS: Final = 200

#: Bytes of JSON in one write: well below what servers and proxies take.
MOST_BYTES: Final = 4 * 1024 * 1024


class Store(Protocol):
    """What the registrar needs of a database (``orchestrator.couch.Database`` has it)."""

    def get_many(self, ids: Iterable[str]) -> dict[str, dict[str, Any] | None]:
        """Documents by id, None for what is not there."""

    def bulk(self, docs: Iterable[dict[str, Any]]) -> list[Saved | Refusal]:
        """Write documents, each with its own result, in order."""


@dataclass
class Summary:
    """What a look at the files came to.

    ``registered`` new documents in order; ``closed`` documents that went from open to closed; ``opened`` new ones with
    status open; ``bad`` new or closed documents with status bad; ``known`` files that were registered before; ``moved``
    registered files found at another path; ``changed`` registered files that have another size now; ``ignored`` files
    of unknown format; ``waiting`` files that are not closed yet; ``errors`` files that could not be read or documents
    that were refused, which will be tried again. ``documents`` are the ids of all the files that are in the database
    now.
    """

    registered: int = 0
    closed: int = 0
    opened: int = 0
    bad: int = 0
    known: int = 0
    moved: int = 0
    changed: int = 0
    ignored: int = 0
    waiting: int = 0
    errors: int = 0
    documents: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def problem(self, sentence: str) -> None:
        """Keep ``sentence`` for whoever reads the summary."""
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(sentence)

    def __str__(self) -> str:
        counts = {
            name: getattr(self, name)
            for name in (
                "registered closed opened bad known moved changed ignored waiting errors".split()  # noqa: SIM905
            )
        }
        return ", ".join(f"{number} {name}" for name, number in counts.items() if number) or "nothing found"


@dataclass
class Handled:
    """One file of a group on its way, and what became of it.

    ``retry``: seconds after which to try again, None where it is dealt with; ``trouble``: counted as an error.
    """

    found: Found
    identity: str
    document: Document | None = None
    retry: float | None = None
    trouble: bool = False
    reason: str = ""


class Group:
    """Puts a group of files into the database. Knows no clock and no waiting: an Unavailable passes through it.

    Args:
        database: where to.
        maker: makes the documents.
        log: every file that is not simply registered is a line there.
    """

    def __init__(self, database: Store, maker: Maker, log: logging.Logger) -> None:
        self._database = database
        self._maker = maker
        self._log = log

    def register(self, found: list[Found], now: float, summary: Summary) -> list[Handled]:
        """Register ``found``; the answer says of each whether to try it again, and when.

        Raises:
            Unavailable: the database is away. Some may have been written: the same call again finds out which.
        """
        once = {one.path: one for one in found}
        group = [Handled(one, self._maker.id_of(path)) for path, one in sorted(once.items())]
        known: dict[str, dict[str, Any] | None] = {}
        asked = [one.identity for one in group if not one.found.rung or self._maker.settings.register_open]
        if asked:
            known = self._database.get_many(list(dict.fromkeys(asked)))
        self._make(group, known, now, summary)
        for _ in range(3):  # a conflict is answered by reading; a third can only come from another registrar's race
            conflicts = self._write(group, summary)
            if not conflicts:
                break
            existing = self._database.get_many(list(dict.fromkeys(one.identity for one in conflicts)))
            self._make(conflicts, existing, now, summary)
        for one in group:
            if one.document is not None:
                self._trouble(one, summary, "its document was changed by somebody else again and again")
        return group

    def _make(
        self, group: list[Handled], known: Mapping[str, dict[str, Any] | None], now: float, summary: Summary
    ) -> None:
        """Give each of ``group`` the document to write, or none where there is nothing to write."""
        elsewhere: dict[str, Handled] = {}
        for one in group:
            existing = known.get(one.identity)
            first = elsewhere.get(one.identity)
            try:
                if existing is not None:
                    self._again(one, existing, now, summary)
                else:
                    one.document = one.document or self._maker.make(one.found, now)
                    if one.document is None:
                        summary.ignored += 1
                        self._log.debug("%s: of no known format, left alone", text_of(one.found.path))
                    elif first is not None and first.document is not None:
                        self._collide(one, first.document, now, summary)
                    else:
                        elsewhere[one.identity] = one
            except Changed as error:
                one.document, one.retry, one.reason = None, CHANGED_PAUSE, str(error)
            except FileNotFoundError:
                one.document, one.retry, one.reason = None, CHANGED_PAUSE, "it is gone"
            except (OSError, ImportError, MemoryError) as error:
                cause = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
                self._trouble(one, summary, f"cannot be read: {cause or type(error).__name__}")

    def _again(self, one: Handled, existing: dict[str, Any], now: float, summary: Summary) -> None:
        """There is a document of that id already. Is it this file's?"""
        found, name = one.found, text_of(one.found.path)
        one.document, made = None, one.document
        theirs = _path_or_none(existing)
        if theirs != found.path:
            if self._same_file_moved(existing, theirs, made, found, now):
                self._log.info("%s: is %s, moved from %s", name, one.identity, text_of(theirs or "?"))
                summary.moved += 1
                summary.documents.append(one.identity)
                return
            taken = collision_id(found.path, self._maker.id_of(found.path))
            if taken != one.identity:
                one.document = made
                self._collide(one, existing, now, summary)
                return
        if existing.get("status") == "open" and found.closed:
            fresh = self._maker.make(found, now)
            if fresh is not None:
                # What a person has added stays, and so does the time at which it was first seen.
                first_seen = existing.get("registered", fresh["registered"])
                one.document = {**existing, **fresh, "_id": one.identity, "registered": first_seen}
            return
        summary.documents.append(one.identity)
        if found.closed and existing.get("size") != found.look.size:
            sentence = (
                f"{name}: has {found.look.size} bytes now, but {existing.get('size')} when it was registered as "
                f"{one.identity}; the document is left as it is: reset it if the new content is right"
            )
            self._log.warning("%s", sentence)
            summary.problem(sentence)
            summary.changed += 1
        else:
            summary.known += 1

    def _same_file_moved(
        self, existing: dict[str, Any], theirs: str | None, made: Document | None, found: Found, now: float
    ) -> bool:
        """Whether ``found`` is what ``existing`` speaks of, and its old path is gone: then it is not a second file."""
        if theirs is None or existing.get("size") != found.look.size or not found.closed:
            return False
        if existing.get("hostname") != self._maker.hostname or os.path.lexists(theirs):
            return False
        mine = made or self._maker.make(found, now)
        if mine is None:
            return False
        sums = existing.get("checksum"), mine["checksum"]
        return sums[0] == sums[1] if all(sums) else existing.get("header") == mine["header"]

    def _collide(self, one: Handled, existing: Mapping[str, Any], now: float, summary: Summary) -> None:
        """Another file has this id: an id of its own, and bad, so that a person decides. Nothing is lost."""
        found = one.found
        document = one.document or self._maker.make(found, now)
        if document is None:
            summary.ignored += 1
            return
        taken = self._maker.id_of(found.path)
        one.identity = collision_id(found.path, taken)
        same = existing.get("checksum") and existing.get("checksum") == document.get("checksum")
        reason = (
            f"another file has the same name: document {taken}, file {existing.get('file')}"
            f"{' (with the same content)' if same else ''}; remove one of the two, or set `id_from: path`"
        )
        one.document = self._maker.collision(document, one.identity, reason)
        self._log.warning("%s: %s", text_of(found.path), reason)

    def _write(self, group: list[Handled], summary: Summary) -> list[Handled]:
        """Write what is to be written; the conflicts come back."""
        conflicts: list[Handled] = []
        part: list[tuple[Handled, Document]] = []
        size = 0
        for one in group:
            if one.document is None:
                continue
            length = len(json.dumps(one.document))
            if part and size + length > MOST_BYTES:
                conflicts += self._send(part, summary)
                part, size = [], 0
            part.append((one, one.document))
            size += length
        return conflicts + (self._send(part, summary) if part else [])

    def _send(self, part: list[tuple[Handled, Document]], summary: Summary) -> list[Handled]:
        faults.point("register.writing")
        try:
            answers = self._database.bulk([document for _, document in part])
        except Refused as error:
            if len(part) == 1:
                self._trouble(part[0][0], summary, f"its document was refused: {error}")
                return []
            # One of them is no document to the database: each alone, so that it harms no other.
            return [conflict for one in part for conflict in self._send([one], summary)]
        faults.point("register.written")
        conflicts = []
        for (one, document), answer in zip(part, answers, strict=True):
            if isinstance(answer, Saved):
                self._count(document, summary)
                one.document = None
            elif answer.error == "conflict":
                conflicts.append(one)
            else:
                self._trouble(one, summary, f"its document was refused ({answer.error}: {answer.reason})")
        return conflicts

    def _count(self, document: Document, summary: Summary) -> None:
        summary.documents.append(document["_id"])
        if document["status"] == "bad":
            summary.bad += 1
            sentence = f"{document['file']}: bad: {document['reason']}"
            summary.problem(sentence)
            self._log.warning("%s", sentence)
        elif document["status"] == "open":
            summary.opened += 1
        elif "_rev" in document:
            summary.closed += 1
        else:
            summary.registered += 1

    def _trouble(self, one: Handled, summary: Summary, reason: str) -> None:
        one.document, one.retry, one.trouble, one.reason = None, TROUBLE_PAUSE, True, reason
        summary.errors += 1
        sentence = f"{text_of(one.found.path)}: {reason}; it will be tried again"
        summary.problem(sentence)
        self._log.error("%s", sentence)


def _path_or_none(document: Mapping[str, Any]) -> str | None:
    try:
        return str(path_of(document))
    except DataError:  # a document that names no file is not this file's
        return None
