"""Why a document is where it is, in sentences: what it waits for, who has it, what went wrong, what to do.

Pure: from the chain, the document and the time. The page, ``orchestrator show`` and a step run by hand say the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from orchestrator import batchjobs, documents
from orchestrator.chain import Chain, Step
from orchestrator.control import Control
from orchestrator.hints import command
from orchestrator.transitions import Kind

#: Where nobody asks, or nothing is said to be paused.
NONE_PAUSED: Mapping[str, Control] = MappingProxyType({})


def why(
    chain: Chain, document: Mapping[str, Any], now: float, controls: Mapping[str, Control] = NONE_PAUSED
) -> str:
    """One or two sentences on the document's state and what follows from it; ``controls``: what is paused, by site."""
    if document.get("type") != chain.type:
        return f"It is of type {document.get('type')!r}; the chain {chain.name!r} is for {chain.type!r}."
    status = documents.status_of(document)
    if status is None:
        return f"Its status {document.get('status')!r} is none that the chain knows: no step will take it."
    if status.kind is Kind.OPEN:
        return "The DAQ is still writing the file; it will be taken once it is closed."
    if status.kind is Kind.BAD:
        return _bad(chain, document)
    if status.kind is Kind.FAILED:
        return _failed(chain, document)
    held = documents.holder(document)
    if held is not None:
        return _held(held[0], held[1], document, status.kind)
    if documents.complete(chain, document):
        return "Every step is done."
    if document.get("hold") is not None:
        return on_hold(document)
    step = documents.ready_step(chain, document)
    if step is None:
        return _stuck(chain, document)
    return ready_because(document, step, now, controls)


def on_hold(document: Mapping[str, Any]) -> str:
    """Who has put it on hold, since when, and why."""
    hold = document.get("hold")
    if not isinstance(hold, dict):
        return "It is on hold; who put it there is not known."
    return f"It is on hold, by {hold.get('by')} since {hold.get('at')}: {_sentence(hold.get('reason'))}"


def ready_because(
    document: Mapping[str, Any], step: Step, now: float, controls: Mapping[str, Control] = NONE_PAUSED
) -> str:
    """Why a step that is ready has not begun."""
    paused = controls[step.site].why_not(step) if step.site in controls else ""
    if paused:
        return paused
    retry = documents.retry_of(document, step.key)
    if retry.get("reason"):
        wait = documents.not_before(document, step) - now
        when = f"in {wait:.0f} s" if wait > 0 else "as soon as a poller has room"
        return (
            f"Attempt {retry.get('number')} of {step.key} ({step.name}) begins {when}; "
            f"the one before ended with: {_sentence(retry['reason'])}"
        )
    if step.executor == "gather":
        return f"It is ready for {step.key} ({step.name}), which is done for many documents at once when all are ready."
    who = "poller" if step.executor == "local" else f"farm daemon ({step.farm})"
    return f"It is ready for {step.key} ({step.name}) and waits for a {who} of site {step.site!r} with room."


def why_not_ready(
    chain: Chain, document: Mapping[str, Any], step: Step, now: float, controls: Mapping[str, Control] = NONE_PAUSED
) -> str | None:
    """The condition that keeps one step from being claimed, or None if it is ready."""
    if documents.ready(chain, document, step):
        return None
    if documents.is_done(document, step):
        return f"{step.key} ({step.name}) is done already."
    missing = [need for need in chain.needs(step) if not documents.is_done(document, need)]
    if missing and documents.holder(document) is None and documents.status_of(document) is not None:
        names = ", ".join(f"{need.key} ({need.name})" for need in missing)
        return f"{step.key} ({step.name}) needs {names}, not done yet."
    return why(chain, document, now, controls)


def _bad(chain: Chain, document: Mapping[str, Any]) -> str:
    words = f"It is out of processing: {_sentence(document.get('reason'))}"
    for step in chain.steps:
        entry = document.get(step.key)
        if isinstance(entry, dict) and entry.get("state") == "refused":
            left = f" What it refuses is {entry['file']}." if entry.get("file") else ""
            name, branch = document.get("_id"), chain.branch.name
            return (
                f"{words}{left} To have {step.name} done again: {command('mark-good', name, branch=branch)}; to take "
                f"its output as it is: {command('accept', name, step.name, branch=branch)}"
            )
    return words


def _failed(chain: Chain, document: Mapping[str, Any]) -> str:
    for step in chain.steps:
        entry = document.get(step.key)
        if isinstance(entry, dict) and entry.get("state") == "failed":
            again = command("retry", document.get("_id"), branch=chain.branch.name)
            return (
                f"{step.key} ({step.name}) failed at attempt {entry.get('number')} ({entry.get('error_class')}): "
                f"{_sentence(entry.get('reason'))} Mend the cause, then: {again}"
            )
    return f"It is marked as failed: {document.get('reason') or 'no reason was given'}."


def _held(key: str, entry: Mapping[str, Any], document: Mapping[str, Any], kind: Kind) -> str:
    if entry.get("gathered"):
        return (
            f"{key} ({entry.get('step')}) is done by the document {entry['gathered']}, which gathers this one with "
            "others: look at that one."
        )
    if entry.get("farm"):
        return batchjobs.sentence(key, entry, document, kind)
    if kind is Kind.QUEUED:
        return f"A batch job for {key} has been submitted and waits at the farm."
    return (
        f"{key} ({entry.get('step')}) is running: attempt {entry.get('number')}, on {entry.get('host')}, "
        f"by poller {entry.get('poller')}, since {entry.get('started')}."
    )


def _stuck(chain: Chain, document: Mapping[str, Any]) -> str:
    for step in chain.steps:
        entry = document.get(step.key)
        if entry is not None and not documents.is_done(document, step):
            state = entry.get("state") if isinstance(entry, dict) else entry
            return f"{step.key} ({step.name}) stands in the document with state {state!r}, so no poller takes it."
    return "No step is ready."


def _sentence(text: Any) -> str:
    words = str(text or "no reason was given").strip()
    return words if words.endswith((".", "!", "?")) else words + "."
