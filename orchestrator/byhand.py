"""One step on one document or file, in this process: for trying out a step, and for repairing by hand.

With the database it takes the same way as a poller: the claim is written before the step runs, a heartbeat keeps the
claim, and the same engine records the report. Without (``on_file``) nothing is recorded and any file will do.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator import documents
from orchestrator.capture import Capture
from orchestrator.documents import Claimant, Report
from orchestrator.engine.engine import Engine, Write
from orchestrator.engine.heartbeat import Heartbeat
from orchestrator.errors import Conflict, DatabaseError, IllegalTransition, SettingsError, Unavailable
from orchestrator.poller import BEATS
from orchestrator.runner import Places, Runner, Task
from orchestrator.settings import Settings
from orchestrator.step import Progress, no_progress

if TYPE_CHECKING:
    from orchestrator.chain import Chain, Step
    from orchestrator.couch import Database

PATIENCE = 120.0  # s for which a result waits for a database that has gone away
WAIT = 2.0  # s between two attempts to record it


def places(settings: Settings) -> Places:
    """The folders that a site's steps use. Raises SettingsError if they cannot be made."""
    found = Places(settings.data, settings.spool / "scratch", settings.logs / "steps")
    try:
        for path in (found.output, found.scratch, found.logs):
            path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"the folder {error.filename} cannot be made: {error.strerror}") from None
    return found


def why_not(chain: Chain, document: dict[str, Any], step: Step) -> str:
    """Why the step cannot be run on the document now, in a sentence; empty if it can."""
    if documents.ready(chain, document, step):
        return ""
    name, status = document.get("_id"), document.get("status")
    if document.get("type") != chain.type:
        return f"{name!r} is of type {document.get('type')!r}, and the chain {chain.name!r} is for {chain.type!r}"
    held = documents.holder(document)
    if held is not None:
        return f"{name!r} is {status} at {held[1].get('host')}: wait for it, or stop that poller"
    if documents.is_done(document, step):
        return f"{step.name} is done for {name!r} already"
    if status == "failed":
        return f"{name!r} has failed: `orchestrator retry {name}` sets it going again"
    missing = [need.name for need in chain.needs(step) if not documents.is_done(document, need)]
    if missing:
        return f"{step.name} needs {', '.join(missing)}, which {name!r} has not been through yet"
    return f"{name!r} has the status {status!r}, from which no step starts"


def on_document(
    chain: Chain, step: Step, database: Database, identity: str, settings: Settings, progress: Progress = no_progress
) -> Report:
    """Claim the document, run the step, record what became of it.

    Raises:
        NotFound: no such document.
        IllegalTransition: the document is not ready for the step; the sentence says why.
        Conflict: somebody took it in the same moment.
        Unavailable: the result could not be recorded; the claim is taken back when its lease is over.
    """
    found = database.get(identity)
    reason = why_not(chain, found, step)
    if reason:
        raise IllegalTransition(reason)
    host = socket.gethostname()
    claimant = Claimant(f"{host}-{os.getpid()}-byhand", host, os.getpid(), settings.site)
    engine = Engine(chain, (step,), claimant, database, lambda: uuid.uuid4().hex, random.Random())
    attempt = uuid.uuid4().hex
    with _beating(database, claimant, step, settings.lease):
        claimed = documents.claim(found, step, claimant, attempt, time.time())
        try:
            saved = {**claimed, "_rev": database.put(claimed)}
        except Conflict:
            raise Conflict(f"{identity!r} was taken or changed in this moment: look with `orchestrator show`") from None
        task = Task(saved, step.key, attempt, documents.input_file(chain, saved, step))
        engine.held[attempt] = Write(saved, step, attempt)
        try:
            report = _run(chain, task, places(settings), progress)
        except BaseException:
            engine.give_back(task, "the run by hand was interrupted", time.time())
            _commit(engine)
            raise
        engine.reported(report, time.time(), go_on=False)
        _commit(engine)
    return report


def on_file(
    chain: Chain,
    step: Step,
    document: dict[str, Any],
    source: str,
    settings: Settings,
    progress: Progress = no_progress,
) -> Report:
    """Run the step on a file, with ``document`` standing in for the database's; nothing is recorded."""
    return _run(chain, Task(document, step.key, uuid.uuid4().hex, source), places(settings), progress)


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


def _commit(engine: Engine) -> None:
    """Record; while the database is away, try again for a while."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            engine.commit(time.time())
            return
        except Unavailable:
            if time.monotonic() > end:
                raise
            threading.Event().wait(WAIT)


@contextlib.contextmanager
def _beating(database: Database, claimant: Claimant, step: Step, lease: float) -> Iterator[None]:
    """Keep the claim alive meanwhile, as a poller's heartbeat does."""
    heartbeat = Heartbeat(database, claimant, [step.key], time.time(), 1)
    heartbeat.write(time.time())
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(lease / BEATS):
            with contextlib.suppress(DatabaseError):  # away for a moment: the next beat comes
                heartbeat.write(time.time())

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        with contextlib.suppress(DatabaseError):
            heartbeat.stop(time.time())
