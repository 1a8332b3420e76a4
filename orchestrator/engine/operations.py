"""What people do to documents, carried out: intent, act, record.

An operation is first written down as a document of its own, ``operation:<time>-<random>``, with who, why, what was
selected and how much; then the data documents are changed, in bulk, each on the version that was decided on; then the
operation gets its counts. One that was cut short stays ``begun``, for everybody to see. Giving the same command again
does what is left, and ``finish`` does what is left of its outputs.

Old outputs are touched between two writes of their document: it is reset and put on hold, the files are moved or
removed, and it is let go. So no step can write its new output while the old one is being cleared away.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from orchestrator import faults, people
from orchestrator.chain import Chain
from orchestrator.documents import Document, iso
from orchestrator.engine import untrue
from orchestrator.engine.flight import BULK, Database
from orchestrator.engine.outputs import OutputFault, Outputs
from orchestrator.engine.pages import pages_by_id
from orchestrator.errors import DatabaseError, IllegalTransition, NotFound, SettingsError
from orchestrator.people import OUTPUTS, Asked, Changed, Decide, Order
from orchestrator.selection import Selection, fits

#: So often a document is read and decided on again that somebody else keeps changing.
TRIES = 5
#: Refusals that an operation's record names one by one.
SHOWN = 100
#: Documents read in one request.
PAGE = 500
#: Between what is written to be kept and the change that it is kept of lies one bulk write, and less than this (s).
SETTLED = 3.0


#: A decision on a document as it is read: its next version (alone, or with what must be written before it), or in words
#: why there is nothing to do. Raises IllegalTransition where it cannot be done.
Decision = Callable[[Document], Changed | Document | str]


@dataclass
class Done:
    """What became of an operation on many documents.

    ``changed``: ids, with the status before and after; ``unchanged``: why there was nothing to do; ``refused``: why it
    could not be done. ``operation``: the id of its record; empty for a dry run.
    """

    changed: dict[str, tuple[str, str]] = field(default_factory=dict)
    unchanged: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    operation: str = ""

    def counts(self) -> dict[str, int]:
        """How many of each."""
        return {"changed": len(self.changed), "unchanged": len(self.unchanged), "refused": len(self.refused)}


@dataclass(frozen=True)
class Desk:
    """Where orders are carried out: a database, a chain and, for outputs, a site with its data folder."""

    database: Any
    chain: Chain
    site: str
    data: Any
    clock: Callable[[], float] = time.time
    wait: Callable[[float], Any] = time.sleep
    random: Callable[[], str] = lambda: uuid.uuid4().hex[:8]

    def perform(self, order: Order, ids: Iterable[str], selection: Selection, *, dry_run: bool = False) -> Done:
        """Carry out an order on documents. With ``dry_run`` nothing is written, and all is decided.

        Documents that no longer fit the selection when their turn comes are left alone. Raises ChainError for an
        unknown step, and what the database raises; what was done until then stays, and the operation stays ``begun``.
        """
        now = self.clock()
        moment = "".join(character for character in iso(now) if character.isalnum())
        asked = Asked(f"operation:{moment}-{self.random()}", order, now)
        wanted = list(dict.fromkeys(ids))
        outputs = self._outputs(order, asked.id)
        decide = self._decider(asked, selection, outputs)
        done = Done()
        if not wanted:
            return done
        if dry_run:
            change(self.database, wanted, decide, dry_run=True, done=done)
            return done
        done.operation = asked.id
        record = _record(asked, selection, self.site, len(wanted))
        if self.chain.branch.name:
            record["branch"] = self.chain.branch.name
        record["_rev"] = self.database.put(record)
        faults.point("people.begun")
        change(self.database, wanted, decide, done=done)
        if outputs is not None:
            self._clear(outputs, done)
        self._complete(record, done)
        return done

    def finish(self, operation: str) -> Done:
        """Do what is left of an operation's outputs, and let its documents go; forget what it never came to do.

        Raises NotFound for an operation that there is not, SettingsError for one that takes nothing out of documents.
        """
        record = record_of(self.database, operation)
        what = record.get("outputs")
        if what not in OUTPUTS:
            raise SettingsError(f"{operation} has no outputs to deal with: give its command again to do what is left")
        done = Done(operation=operation)
        self._clear(Outputs(self.site, self.data, what, operation), done)
        self._forget_untrue(operation)
        self._complete(record, done, finished=True)
        return done

    def _forget_untrue(self, operation: str) -> None:
        """Remove what was written to be kept of documents that the operation then never came to change."""
        untrue: dict[str, Document] = {}
        for look in range(2):
            found: dict[str, Document] = {}
            for pasts in self._pasts(operation):
                now = self.database.get_many(pasts)
                found |= {past["_id"]: past for name, past in pasts.items() if people.is_untrue(past, now.get(name))}
            untrue = found if look == 0 else {name: past for name, past in found.items() if name in untrue}
            if not untrue:
                return
            if look == 0:
                self.wait(SETTLED)  # an operation that runs still is about to change them
        _remove(self.database, list(untrue.values()))

    # --- parts ---

    def _pasts(self, operation: str) -> Iterator[dict[str, Document]]:
        """What the operation has kept of documents, by these, a page at a time."""
        first = people.past_id(operation, "")
        last = first[:-1] + ";"  # what follows the colon: ids are sorted by their bytes
        for rows in pages_by_id(self.database, PAGE, first, last, include_docs=True):
            yield {str(row.doc.get("document")): row.doc for row in rows if row.doc}

    def _outputs(self, order: Order, operation: str) -> Outputs | None:
        if order.what not in ("reset", "reprocess") or order.outputs == "kept":
            return None
        return Outputs(self.site, self.data, order.outputs, operation)

    def _decider(self, asked: Asked, selection: Selection, outputs: Outputs | None) -> Decide:
        made = people.decider(self.chain, asked, hold=outputs is not None)
        narrowed = bool(selection.statuses or selection.step or selection.done)

        def decide(document: Document) -> Changed | str:
            if narrowed and not fits(selection, self.chain, document):
                return "it has gone on since, and is none of those that were selected"
            changed = made(document)
            if asked.order.what == "accept" and isinstance(changed, Changed):
                self._there(document, asked.order.step)
            if outputs is not None and isinstance(changed, Changed):
                gone = next(one["entries"] for one in changed.records if one["type"] == "past")
                outputs.check(self.chain, document, gone)
                files = outputs.files(document, gone)
                for one in changed.records:
                    if one["type"] == "past":
                        one["outputs"]["files"] = files
            return changed

        return decide

    def _there(self, document: Document, key: str) -> None:
        """Raise IllegalTransition where the output that is to be accepted has gone meanwhile, as far as we can see."""
        entry = document[key]
        here = Outputs(self.site, self.data, "kept", "")
        file = entry.get("file")
        inner = here.relative(file) if isinstance(file, str) and file and entry.get("site") == self.site else None
        if inner is not None and not (here.data / inner).is_file():
            raise IllegalTransition(
                f"document {document.get('_id')!r}: {file!r}, which was refused, is not there any more; `mark-good` "
                "has it made again"
            )

    def _clear(self, outputs: Outputs, done: Done) -> None:
        """Deal with the files of every document that the operation has reset, and let these documents go."""
        for pasts in self._pasts(outputs.operation):
            # Only what this operation holds: a document that it never came to reset keeps its files.
            documents_now = {
                name: one for name, one in self.database.get_many(pasts).items()
                if one is not None and _holds(outputs.operation, one)
            }  # fmt: skip
            held = list(documents_now)
            cleared, fresh = {}, []
            for name in held:
                past = pasts[name]
                if (past.get("outputs") or {}).get("state") != "pending":
                    cleared[name] = past
                    continue
                try:
                    # A past document says what was planned; what may go is only what the entries name as their own.
                    entries = past.get("entries")
                    own = outputs.files(documents_now[name], entries if isinstance(entries, dict) else {})
                    named = past["outputs"].get("files", [])
                    files = outputs.carry_out([str(file) for file in named if file in own])
                except OutputFault as error:
                    done.refused[name] = f"{error}; it stays on hold until `operations --finish {outputs.operation}`"
                    done.changed.pop(name, None)
                    continue
                cleared[name] = {**past, "outputs": {"wanted": outputs.what, "state": outputs.what, "files": files}}
                fresh.append(cleared[name])
            faults.point("people.cleared")
            # What became of the files is known before the document is free: a crash in between only asks again.
            self.database.bulk(fresh)
            faults.point("people.freeing")
            let_go = change(self.database, list(cleared), _let_go(outputs.operation, cleared, self.clock()))
            done.refused.update(let_go.refused)
            for name, moves in let_go.changed.items():
                done.changed.setdefault(name, moves)

    def _complete(self, record: Document, done: Done, *, finished: bool = False) -> None:
        counts = {"counts": record.get("counts"), "cleared": done.counts()} if finished else {"counts": done.counts()}
        record = {
            **record, **counts, "state": "done" if not done.refused else "done in part",
            "finished": iso(self.clock()), "refused": dict(list(done.refused.items())[:SHOWN]),
        }  # fmt: skip
        faults.point("people.done")
        self.database.put(record)


def _record(asked: Asked, selection: Selection, site: str, selected: int) -> Document:
    order = asked.order
    redone = order.what in ("reset", "reprocess")
    said = {"step": order.step, "outputs": order.outputs if redone else ""}
    return {
        "_id": asked.id, "type": "operation", "what": order.what, "by": order.by, "at": iso(asked.at),
        "reason": asked.order.reason, "site": site, "selection": selection.to_json(), "selected": selected,
        "state": "begun", **{key: value for key, value in said.items() if value},
        **({"value": order.value} if order.what == "priority" else {}),
    }  # fmt: skip


def _holds(operation: str, document: Document | None) -> bool:
    """Whether a document is on hold by this operation."""
    hold = document.get("hold") if document is not None else None
    return isinstance(hold, dict) and hold.get("operation") == operation


def _let_go(operation: str, pasts: dict[str, Document], now: float) -> Decide:
    """The decision that ends an operation's own hold; a person's hold that was there before comes back."""

    def decide(document: Document) -> Changed | str:
        if not _holds(operation, document):
            return "it has been let go"
        changed = {**document, "updated": iso(now)}
        del changed["hold"]
        before = pasts[str(document["_id"])].get("hold")
        return Changed({**changed, "hold": before} if before is not None else changed)

    return decide


# --- reading what was done ---


def latest(database: Any, limit: int) -> list[Document]:
    """The records of the last operations, the newest first: their ids begin with the time."""
    rows = database.all_docs(
        startkey="operation:\ufff0", endkey="operation:", descending=True, include_docs=True, limit=limit
    ).rows
    return [row.doc for row in rows if row.doc and row.doc.get("type") == "operation"]


def unfinished(database: Any) -> list[Document]:
    """Of the last operations, those that deal with outputs and have not ended: at work still, or cut short."""
    return [
        one for one in latest(database, SHOWN)
        if one.get("state") == "begun" and one.get("outputs") in OUTPUTS and one["outputs"] != "kept"
    ]  # fmt: skip


def record_of(database: Any, operation: str) -> Document:
    """An operation's record. Raises NotFound for an id that is none of an operation."""
    try:
        found: Document = database.get(operation)
    except NotFound:
        found = {}
    if found.get("type") != "operation":
        raise NotFound(f"{operation!r} is no operation: `orchestrator operations` lists them")
    return found


def pasts(database: Any, document: str) -> list[Document]:
    """What operations took out of a document, the newest first."""
    rows = database.view("pages/past", startkey=[document, {}], endkey=[document], descending=True, include_docs=True)
    return [row.doc for row in rows.rows if row.doc]


# --- changing many documents ---


def change(
    database: Database, ids: Iterable[str], decide: Decision, *, dry_run: bool = False, done: Done | None = None
) -> Done:
    """Read documents in bulk, let ``decide`` make each one's next version, write them in bulk.

    The documents that must come first (attempts, past) are written before. A document that somebody changes in between
    is read and decided on again, at most TRIES times. Raises what the database raises.
    """
    done = done if done is not None else Done()
    wanted = list(dict.fromkeys(ids))
    for start in range(0, len(wanted), BULK):
        waiting, written, late = wanted[start : start + BULK], dict[str, list[Document]](), list[Document]()
        for _ in range(TRIES):
            waiting = _change_once(database, waiting, decide, done, written, late, dry_run=dry_run)
            if not waiting:
                break
        untrue.forget(database, late)
        for name in waiting:
            done.refused[name] = "it changes faster than it can be written: try again"
        # A past that was written for a change which then could not be made speaks of nothing.
        _remove(database, [past for name, pasts in written.items() if name not in done.changed for past in pasts])
    return done


def _change_once(
    database: Database, ids: list[str], decide: Decision, done: Done, written: dict[str, list[Document]],
    late: list[Document], *, dry_run: bool,
) -> list[str]:  # fmt: skip
    """One read and one write; the ids that met a conflict, of which ``late`` gets the attempts' records."""
    made: dict[str, Changed] = {}
    before: dict[str, str] = {}
    for name, document in database.get_many(ids).items():
        if document is None:
            done.refused[name] = "there is no such document"
            continue
        try:
            decided = decide(document)
        except IllegalTransition as error:
            done.refused[name] = str(error)
            continue
        if isinstance(decided, str):
            done.unchanged[name] = decided
        else:
            made[name] = Changed(decided) if isinstance(decided, dict) else decided
            before[name] = str(document.get("status"))
    if dry_run:
        done.changed.update({name: (before[name], str(one.document.get("status"))) for name, one in made.items()})
        return []
    made = _records_first(database, made, done, written)
    faults.point("people.prepared")
    again = []
    outcomes = database.bulk([one.document for one in made.values()]) if made else []
    faults.point("people.changed")
    for (name, one), outcome in zip(made.items(), outcomes, strict=True):
        if getattr(outcome, "rev", None) is not None:
            done.changed[name] = (before[name], str(one.document.get("status")))
        elif outcome.error == "conflict":
            again.append(name)
            late += [record for record in one.records if record["type"] == "attempt"]
        else:
            done.refused[name] = f"{outcome.error}: {outcome.reason}"
    return again


def _records_first(
    database: Database, made: dict[str, Changed], done: Done, written: dict[str, list[Document]]
) -> dict[str, Changed]:
    """Write what must be there before; those whose records are. An attempt's that is there already says the same."""
    records = []
    for name, one in made.items():
        known = {past["_id"]: past["_rev"] for past in written.get(name, ())}
        for record in one.records:
            records.append((name, {**record, "_rev": known[record["_id"]]} if record["_id"] in known else record))
    outcomes = database.bulk([record for _, record in records]) if records else []
    for (name, record), outcome in zip(records, outcomes, strict=True):
        rev = getattr(outcome, "rev", None)
        if rev is not None and record["type"] == "past":
            kept = [past for past in written.get(name, []) if past["_id"] != record["_id"]]
            written[name] = [*kept, {**record, "_rev": rev}]
        elif rev is None and not (outcome.error == "conflict" and record["type"] == "attempt"):
            done.refused[name] = f"its record {record['_id']} could not be written: {outcome.error}: {outcome.reason}"
    return {name: one for name, one in made.items() if name not in done.refused}


def _remove(database: Database, pasts: list[Document]) -> None:
    if pasts:
        try:
            database.bulk([{"_id": past["_id"], "_rev": past["_rev"], "_deleted": True} for past in pasts])
        except DatabaseError:
            return  # they say of themselves which operation they belong to, and that it was refused
