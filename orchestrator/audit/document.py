"""What can be seen to be wrong with one data document by itself, and what it names. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator import documents
from orchestrator.audit.findings import Finding
from orchestrator.batchjobs import IDENTITY
from orchestrator.chain import Chain, Step
from orchestrator.errors import DataError
from orchestrator.filenames import path_of
from orchestrator.gathering import IDENTITY as GATHER
from orchestrator.transitions import HELD, WAITING, Kind, Status

_STEP_KEY = re.compile(r"proc(\d{1,6})\Z")
#: The attempt that an import's rules give to what another system has done.
IMPORTED = "imported"
#: States of a step's entry that are the end of an attempt which has a document of its own.
_RECORDED = ("failed", "refused")


@dataclass(frozen=True)
class Rules:
    """What is asked of each document. ``alive``: whether a poller lives, None where that cannot be known yet."""

    chain: Chain
    alive: Callable[[str], bool | None]

    def look(self, document: Mapping[str, Any], entries: Mapping[str, Any]) -> Iterator[Finding]:
        """Everything that is wrong with the document as it stands; ``entries`` are its `step_entries`."""
        name = str(document.get("_id"))
        status = documents.status_of(document)
        if status is None:
            yield Finding("status-unknown", name, f"its status is {document.get('status')!r}")
            return
        yield from self._claim(name, document, status, entries)
        yield from self._entries(name, document, status, entries)

    def _claim(
        self, name: str, document: Mapping[str, Any], status: Status, entries: Mapping[str, Any]
    ) -> Iterator[Finding]:
        if status.kind not in HELD:
            return
        key = f"proc{status.step}"
        entry = entries.get(key)
        if not self._known(key):
            yield Finding("step-unknown", name, f"its status is {str(status)!r}; the chain has no {key}")
            return
        state = status.kind.value
        if not isinstance(entry, dict) or not entry.get("attempt") or not entry.get("poller"):
            text = f"its status is {str(status)!r}; {key} says not with which attempt"
            yield Finding("claim-broken", name, text, step=key)
        elif entry.get("state") != state:
            text = f"its status is {str(status)!r}; {key} says {entry.get('state')!r}"
            yield Finding("claim-broken", name, text, step=key)
        elif not str(entry["poller"]).startswith((IDENTITY, GATHER)) and self.alive(str(entry["poller"])) is False:
            yield Finding("poller-gone", name, f"{key} ({entry.get('step')}) is held by poller {entry['poller']}")

    def _entries(
        self, name: str, document: Mapping[str, Any], status: Status, entries: Mapping[str, Any]
    ) -> Iterator[Finding]:
        failed = False
        for key, entry in entries.items():
            state = entry.get("state") if isinstance(entry, dict) else None
            if state in ("queued", "in progress") and not (status.kind in HELD and key == f"proc{status.step}"):
                yield Finding("claim-left", name, f"{key} says {state!r}; the status is {str(status)!r}", step=key)
            elif state == "failed":
                failed = True
                if status.kind in (*WAITING, Kind.OPEN):
                    yield Finding("failure-hidden", name, f"{key} says failed; the status is {str(status)!r}", step=key)
            if state in ("failed", "in progress", "queued") and not self._known(key):
                yield Finding("step-unknown", name, f"{key} says {state!r}; the chain has no {key}")
        if status.kind is Kind.FAILED and not failed and not document.get("reason"):
            yield Finding("failure-unexplained", name, "no step's entry says failed, and there is no reason")
        for step in self.chain.steps:
            if not documents.is_done(document, step):
                continue
            missing = [need.key for need in self.chain.needs(step) if not documents.is_done(document, need)]
            if missing:
                text = f"{step.key} ({step.name}) is done, {', '.join(missing)} is not"
                yield Finding("order-broken", name, text, step=missing[0])

    def _known(self, key: str) -> bool:
        return int(key[4:]) < len(self.chain.steps)


def step_entries(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document's ``procN``, by keyword."""
    return {key: value for key, value in document.items() if key[:4] == "proc" and _STEP_KEY.match(key)}


def attempts_expected(document: Mapping[str, Any], entries: Mapping[str, Any], lane: str = "") -> list[str]:
    """Ids of the documents that its attempts so far must have left: of all but the running and the successful ones.

    ``lane`` stands before the steps' keywords in them (``archive_``).

    Where people have reset a step (``numbers``), earlier attempts may have succeeded, which leaves none: only those
    since then are expected.
    """
    name, expected = str(document.get("_id")), []
    numbers = document.get("numbers")
    resets = numbers if isinstance(numbers, dict) else {}
    counted: dict[str, int] = {}
    for key, entry in entries.items():
        # One that was imported is of another system, and left no document here.
        if isinstance(entry, dict) and entry.get("attempt") not in (None, "", IMPORTED):
            number = documents.count(entry.get("number"), 1)
            counted[key] = number if entry.get("state") in _RECORDED else number - 1
    for key, retry in documents.retries(document).items():
        if _STEP_KEY.match(key):
            counted.setdefault(key, documents.count(retry.get("number"), 1) - 1)
    for key, last in counted.items():
        first = documents.count(resets.get(key), 1)
        expected += [documents.attempt_id(name, lane + key, number) for number in range(first, last + 1)]
    return expected


@dataclass(frozen=True)
class Output:
    """A file that a step which is done has left."""

    document: str
    step: Step
    path: str
    size: int | None
    checksum: str | None


def outputs(chain: Chain, document: Mapping[str, Any]) -> Iterator[Output]:
    """The outputs of the steps that are done, where they lie at the step's own site and nobody has removed them."""
    for step in chain.steps:
        entry = document.get(step.key)
        if not isinstance(entry, dict) or entry.get("state") != "done" or entry.get("removed"):
            continue
        path = entry.get("file")
        result = entry.get("result")
        if not isinstance(path, str) or not path.startswith("/") or (isinstance(result, dict) and "where" in result):
            continue  # a step that sends files elsewhere says where they are
        size, checksum = entry.get("size"), entry.get("checksum")
        yield Output(
            str(document.get("_id")), step, path, size if isinstance(size, int) else None,
            checksum if isinstance(checksum, str) else None,
        )  # fmt: skip


def own_paths(found: Iterable[Output]) -> set[str]:
    """The files that nobody else may name: not the one that a gather has made of many documents."""
    return {output.path for output in found if output.step.executor != "gather"}


def named_paths(value: Any) -> set[str]:
    """Every text in an entry that could be an absolute path: pictures, metadata and logs are outputs too."""
    found, left = set(), [value]
    while left:
        part = left.pop()
        if isinstance(part, str):
            if part[:1] == "/":
                found.add(part)
        elif isinstance(part, dict):
            left.extend(part.values())
        elif isinstance(part, list):
            left.extend(part)
    return found


def raw_file(document: Mapping[str, Any]) -> tuple[str, str] | None:
    """The machine and the path of the document's raw file; None where it names none."""
    text = document.get("file")
    if isinstance(text, str) and text and "file_bytes" not in document:
        return str(document.get("hostname") or ""), text
    try:
        return str(document.get("hostname") or ""), str(path_of(document))
    except DataError:
        return None
