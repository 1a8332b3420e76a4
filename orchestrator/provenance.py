"""Where an output comes from: step by step back to the raw file, each with its code, settings, input and host. Pure.

The database knows it: a document's entries say what each step was, and what it left. An output may say so itself (a
ROOT file's ``provenance``, a bundle's ``members.json``); then the two are compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from orchestrator import documents
from orchestrator.chain import Chain, Step

#: Tries of a shorter name for the document that a file's name begins with.
SHORTER = 6

_PART = re.compile(r"[._][^._]*\Z")


@dataclass
class Origin:
    """One step on the way to an output."""

    step: str
    key: str
    state: str
    attempt: str | None
    number: int
    host: str | None
    started: str | None
    finished: str | None
    software: dict[str, Any]
    input: dict[str, Any]
    output: dict[str, Any]


@dataclass
class Provenance:
    """What is known of one document's outputs, or of one of them: ``file``, ``document``, the steps in their order."""

    document: str
    raw: dict[str, Any]
    steps: list[Origin]
    file: str | None = None
    members: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    copy_of: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "document": self.document, "file": self.file, "raw": self.raw, "steps": [vars(one) for one in self.steps],
            "members": self.members, "notes": self.notes, "copy_of": self.copy_of,
        }  # fmt: skip


def _file(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: entry[key] for key in ("file", "size", "checksum") if entry.get(key) is not None}


def of_document(chain: Chain, document: Mapping[str, Any], last: Step | None = None) -> Provenance:
    """What the document's entries say, up to the step ``last`` (default: all that are done)."""
    wanted = {step.key for step in chain.steps} if last is None else {last.key, *_above(chain, last)}
    steps = []
    for step in (*chain.elsewhere.values(), *chain.steps):
        entry = document.get(step.key)
        if not isinstance(entry, dict) or entry.get("state") != "done" or step.key not in wanted:
            continue
        steps.append(
            Origin(
                str(entry.get("step") or step.name), step.key, "done", entry.get("attempt"),
                documents.count(entry.get("number"), 1), entry.get("host"), entry.get("started"), entry.get("finished"),
                dict(entry["software"]) if isinstance(entry.get("software"), dict) else {},
                _input(chain, document, step), _file(entry),
            )
        )  # fmt: skip
    members = document.get("members")
    return Provenance(
        str(document.get("_id")), _file(document), steps, steps[-1].output.get("file") if last and steps else None,
        [dict(one) for one in members if isinstance(one, dict)] if isinstance(members, list) else [],
    )  # fmt: skip


def _above(chain: Chain, step: Step) -> set[str]:
    """The keywords of all steps that a step needs, and those that these need."""
    found: set[str] = set()
    for need in chain.needs(step):
        found |= {need.key} | (_above(chain, need) if not need.lane else set())
    return found


def _input(chain: Chain, document: Mapping[str, Any], step: Step) -> dict[str, Any]:
    """The file that the step read, its checksum and the attempt that left it, as `documents.input_file` decides."""
    for need in reversed(chain.needs(step) if not step.lane else ()):
        entry = document.get(need.key)
        if isinstance(entry, dict) and isinstance(entry.get("file"), str):
            return {**_file(entry), "of": need.name, "attempt": entry.get("attempt")}
    return {**_file(document), "of": "raw"}


def step_of_file(chain: Chain, document: Mapping[str, Any], path: str) -> Step | None:
    """The step that left ``path``, by the document's entries; None if none did."""
    for step in chain.steps:
        entry = document.get(step.key)
        if isinstance(entry, dict) and (entry.get("file") == path or path in _others(entry.get("result"))):
            return step
    return None


@dataclass(frozen=True)
class Place:
    """Where in a document's way a file stands: the step that made it, or the raw file; ``copy_of`` another file."""

    step: Step | None = None
    raw: bool = False
    copy_of: str = ""


def place_of(
    chain: Chain, document: Mapping[str, Any], path: str, checksum: str | None, attempt: Any = None
) -> Place | None:
    """What a file is in a document: by its name there, else by its content, else by the attempt that it names itself.

    None where it is nothing that the document knows. A copy, or a file that was moved, is known by its content alone.
    """
    if document.get("file") == path:
        return Place(raw=True)
    step = step_of_file(chain, document, path)
    if step is not None:
        return Place(step)
    entries = [(step, document.get(step.key)) for step in chain.steps]
    done = [(step, entry) for step, entry in entries if isinstance(entry, dict) and entry.get("state") == "done"]
    if checksum and document.get("checksum") == checksum:
        return Place(raw=True, copy_of=str(document.get("file")))
    for one, entry in reversed(done):
        if checksum and entry.get("checksum") == checksum:
            return Place(one, copy_of=str(entry.get("file")))
    for one, entry in done:
        if attempt and entry.get("attempt") == attempt:
            return Place(one)
    return None


def _others(result: Any) -> set[str]:
    """Further files that a result names: pictures, a run's sums."""
    found: set[str] = set()
    if isinstance(result, Mapping):
        for key, value in result.items():
            found |= {value} if key == "file" and isinstance(value, str) else _others(value)
    elif isinstance(result, list):
        for value in result:
            found |= _others(value)
    return found


def names(path: str) -> Iterable[str]:
    """Names by which an output's document may be found: outputs begin with its id or with the raw file's name."""
    name = PurePath(path).name
    for _ in range(SHORTER):
        yield name
        shorter = _PART.sub("", name)
        if shorter in ("", name):
            return
        name = shorter


def compare(found: Provenance, note: Mapping[str, Any] | None, checksum: str | None) -> list[str]:
    """What the file itself says against what the database says, in sentences; empty if they agree."""
    said = []
    last = found.steps[-1] if found.steps else None
    known = last.output.get("checksum") if last else found.raw.get("checksum")
    if checksum and known and checksum != known:
        said.append(f"the file's content is not what the database says: {checksum} instead of {known}")
    if note and last and note.get("attempt") and note["attempt"] != last.attempt:
        said.append(
            f"the file says that attempt {note['attempt']} made it, the database that attempt {last.attempt} did: it "
            "is of another try, perhaps one that was reset since (orchestrator show lists them)"
        )
    inside = note.get("input") if note else None
    read = inside.get("checksum") if isinstance(inside, Mapping) else None
    if read and last and last.input.get("checksum") not in (None, read):
        said.append("the file was made of another input than the one that the database has now")
    return said
