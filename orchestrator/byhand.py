"""One step on one document or file, by hand: for trying out a step, and for repairs.

With the database it is a poller for one step of one document, so it claims, limits and records exactly as any other.
Without (``on_file``) the step runs in this process, any file will do, and nothing is recorded.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator import documents, reasons
from orchestrator.capture import Capture
from orchestrator.documents import Report
from orchestrator.errors import IllegalTransition, SettingsError
from orchestrator.poller import Poller, Terms
from orchestrator.runner import Places, Runner, Task
from orchestrator.settings import Settings
from orchestrator.step import Progress, no_progress

if TYPE_CHECKING:
    from orchestrator.chain import Chain, Step
    from orchestrator.couch import Database

ASIDE = "by-hand"  # folder in the spool for the outputs of trials


@dataclass
class Outcome:
    """What became of the step. ``state``: done, failed, waiting (another attempt will follow) or not begun.

    ``facts`` is the step's entry in the document, or that of the attempt: seconds, max_rss (bytes), result, log, ...
    """

    document: str
    step: str
    state: str
    reason: str = ""
    error_class: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the step is done."""
        return self.state == "done"


def places(settings: Settings) -> Places:
    """The folders that a site's steps use. Raises SettingsError if they cannot be made."""
    found = Places(settings.data, settings.spool / "scratch", settings.logs / "steps")
    try:
        for path in (found.output, found.scratch, found.logs):
            path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"the folder {error.filename} cannot be made: {error.strerror}") from None
    return found


def on_document(chain: Chain, step: Step, database: Database, identity: str, settings: Settings) -> Outcome:
    """Have the step done on the document as a poller does, and say what became of it. Ctrl-C drains.

    Raises:
        NotFound: no such document.
        IllegalTransition: the document is not ready for the step; the sentence says why.
        ChainError: the step belongs to another site.
    """
    found = database.get(identity)
    reason = reasons.why_not_ready(chain, found, step, time.time())
    if reason:
        raise IllegalTransition(f"{identity}: {reason}")
    terms = Terms(1, settings.lease, settings.sweep, settings.drain)
    poller = Poller(
        chain, database, places(settings), settings.spool, settings.site, terms, only=[step.key], documents=[identity]
    )
    poller.install_signals()
    poller.run(until_idle=True)
    now = database.get(identity)
    entry = now.get(step.key)
    if isinstance(entry, dict) and entry.get("state") in ("done", "failed"):
        return Outcome(
            identity, step.key, entry["state"], str(entry.get("reason") or ""), entry.get("error_class"), entry
        )
    retry = documents.retry_of(now, step.key)
    tried = bool(retry) and now.get("_rev") != found.get("_rev")
    error_class = retry.get("error_class")
    return Outcome(
        identity, step.key, "waiting" if tried else "not begun", reasons.why(chain, now, time.time()), error_class
    )


def on_file(
    chain: Chain,
    step: Step,
    document: dict[str, Any],
    source: str,
    settings: Settings,
    progress: Progress = no_progress,
) -> Outcome:
    """Run the step on a file, with ``document`` standing in for the database's.

    Nothing is recorded, and outputs go aside (``<spool>/by-hand``), where they replace nothing.
    """
    aside = settings.model_copy(update={"data": settings.spool / ASIDE})
    report = _run(chain, Task(document, step.key, uuid.uuid4().hex, source), places(aside), progress)
    state = "done" if report.ok else "failed"
    return Outcome(report.document, step.key, state, report.reason, report.error_class, report.to_json())


def document_of(path: Path, settings: Settings, chain: Chain) -> dict[str, Any]:
    """The document that registration would make of a file. Raises SettingsError if the file cannot be read."""
    from procs.register.closed import Look
    from procs.register.document import Maker
    from procs.register.found import Found
    from procs.register.readers import default_formats
    from procs.register.settings import RegisterSettings

    rules = RegisterSettings.model_validate(
        {**settings.register_settings, "type": chain.type, "site": settings.site, "unknown_format": "bad"}
    )
    try:
        found = Found(str(path), Look.of(path.stat()), True, "named by a person", False)
        made = Maker(rules, default_formats(), socket.gethostname()).make(found, time.time())
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}: name a document or a file that can be read") from None
    return made or {}


def _run(chain: Chain, task: Task, where: Places, progress: Progress) -> Report:
    capture = Capture(where.scratch, f"byhand-{os.getpid()}", redirect=False)
    runner = Runner(chain, where, capture)
    try:
        return runner.run(task, progress)
    finally:
        runner.close()
        capture.close()
