"""Which documents a person means: by id, run, range of runs, status, step, version of a step, or a Mango query.

Several words narrow each other: a document must fit all of them; several values of one word widen it. Pure; how the
database is asked stands in ``orchestrator.engine.choosing``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from orchestrator import documents
from orchestrator.chain import Chain, Step
from orchestrator.errors import SettingsError
from orchestrator.transitions import HELD, WAITING, Kind

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Selection:
    """What a person said.

    ``documents``: ids. ``runs``: names of runs. ``first_run``, ``last_run``: a range of runs, both ends included, in
    the database's order of names; either may be empty. ``statuses``: a status in full (``proc 1 in progress``) or its
    kind (``in progress``). ``step``: where the document stands: the step has it, failed, or is the next to be done.
    ``done``: a step that is done; ``version`` and ``not_version``: with, or not with, that version of it. ``query``: a
    Mango selector. ``everything``: all data documents, where nothing else is said.
    """

    documents: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    first_run: str = ""
    last_run: str = ""
    statuses: tuple[str, ...] = ()
    step: str = ""
    done: str = ""
    version: str = ""
    not_version: str = ""
    query: Mapping[str, Any] | None = None
    everything: bool = False

    @property
    def empty(self) -> bool:
        """Whether nothing was said that chooses documents."""
        words = (
            self.documents, self.runs, self.first_run, self.last_run, self.statuses, self.step, self.version,
            self.not_version,
        )  # fmt: skip
        return not any(words) and self.query is None and not self.everything

    def to_json(self) -> dict[str, Any]:
        """What was said, for the operation's record; of many ids the first."""
        said = {one.name: getattr(self, one.name) for one in fields(self)}
        said = {name: value for name, value in said.items() if value not in ((), "", None, False)}
        if len(self.documents) > SHOWN:
            said["documents"] = (*self.documents[:SHOWN], f"... {len(self.documents)} in all")
        return {name: list(value) if isinstance(value, tuple) else value for name, value in said.items()}


#: Statuses that an operation concerns where documents are not named and no status is said.
CONCERNS = {
    "retry": ("failed",), "mark-good": ("bad",), "accept": ("bad",), "fail": ("queued", "in progress"),
}  # fmt: skip


def usual(what: str, said: Selection, step: str) -> Selection:
    """What a person means by these words for this operation: the documents to which it applies at all.

    ``step`` is the keyword of the step that ``reprocess`` redoes.
    """
    if what == "reprocess":
        said = replace(said, done=step)
    if said.documents:
        return said
    if not said.statuses and what in CONCERNS and not said.empty:
        return replace(said, statuses=CONCERNS[what])
    if what == "release" and said.everything and said.query is None:
        return replace(said, query={"hold": {"$exists": True}})
    return said


#: Ids of documents that an operation's record names one by one.
SHOWN = 100


def run_range(text: str) -> tuple[str, str]:
    """``A..B`` taken apart; either end may be left out. Raises SettingsError for anything else."""
    first, dots, last = text.partition("..")
    if not dots or not (first or last):
        raise SettingsError(f"a range of runs is written FIRST..LAST (either may be left out), not {text!r}")
    return first, last


def fits(selection: Selection, chain: Chain, document: Document) -> bool:
    """Whether a document fits what can be judged from it alone: type, status, step, version.

    Ids, runs and the query are the database's part. Raises ChainError for a step that the chain does not have.
    """
    if document.get("type") != chain.type:
        return False
    if selection.statuses and not any(_has_status(document, status) for status in selection.statuses):
        return False
    if selection.step and not stands_at(chain, document, chain.step(selection.step)):
        return False
    if not selection.done:
        return True
    step = chain.step(selection.done)
    if not documents.is_done(document, step):
        return False
    software = document[step.key].get("software")
    version = str(software.get("step")) if isinstance(software, dict) else ""
    if selection.version and version != selection.version:
        return False
    return not (selection.not_version and version == selection.not_version)


def _has_status(document: Document, wanted: str) -> bool:
    status = documents.status_of(document)
    return document.get("status") == wanted or (status is not None and wanted in (str(status), status.kind.value))


def stands_at(chain: Chain, document: Document, step: Step) -> bool:
    """Whether the document is at a step: the step has it, it failed there, or it is the next to be done."""
    status = documents.status_of(document)
    if status is None or documents.is_done(document, step):
        return False
    if status.kind in HELD:
        return status.step == step.number
    if status.kind is Kind.FAILED:
        entry = document.get(step.key)
        return isinstance(entry, dict) and entry.get("state") == "failed"
    return status.kind in WAITING and all(documents.is_done(document, need) for need in chain.needs(step))


def from_json(said: Mapping[str, Any]) -> Selection:
    """The selection that a program asks for. Raises SettingsError, which names the word that is wrong."""
    known = {one.name: one for one in fields(Selection)}
    values: dict[str, Any] = {}
    for name, value in said.items():
        texts = [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)]
        if any("\ud800" <= letter <= "\udfff" for text in texts for letter in text):
            raise SettingsError(f"{name!r} holds text that is no Unicode: no document has such a name")
        if name not in known:
            raise SettingsError(f"a selection knows no {name!r}; it knows: {', '.join(known)}")
        if name in ("documents", "runs", "statuses"):
            if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
                raise SettingsError(f"{name!r} must be a list of texts")
            if not value:  # a program that found none must not be taken to mean all
                raise SettingsError(f"{name!r} is an empty list, which fits no document: leave it out to say nothing")
            value = tuple(value)
        elif name == "query":
            if not isinstance(value, dict):
                raise SettingsError("'query' must be a Mango selector: an object")
        elif name == "everything":
            if not isinstance(value, bool):
                raise SettingsError("'everything' must be true or false")
        elif not isinstance(value, str):
            raise SettingsError(f"{name!r} must be a text")
        values[name] = value
    return Selection(**values)
