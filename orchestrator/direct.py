"""Results straight from a batch job to the run database, besides their files: for farms whose nodes can reach it.

The result file comes first and is what counts; this only makes the result known sooner. It is written as the farm's
daemon would write it, on the document as it is read, and only while the attempt holds it: whichever of the two
comes first records the result, and the other finds it recorded. Nothing that goes wrong here touches the job.

The login comes from a file at the farm that only its owner can read, or from the job's environment. It is in no chunk,
script or log, and the steps' processes do not get it.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from orchestrator import faults
from orchestrator.jobfiles import Chunk
from orchestrator.reports import Report

if TYPE_CHECKING:
    from orchestrator.chain import Chain

log = logging.getLogger(__name__)

#: For one answer of the database (s): the job does not wait for it, but its end does.
TIMEOUT = 5.0
#: Results that come so close together (s) are written together.
GATHER = 0.5
#: So many at once.
GROUP = 200
#: A database that did not answer is left alone so long (s).
PAUSE = 30.0

Writer = Callable[[list[tuple[Report, str]]], None]


class Direct:
    """Writes results as they are offered, in a thread of its own, until something shows that it cannot."""

    def __init__(self, open_writer: Callable[[], Writer], clock: Callable[[], float] = time.monotonic) -> None:
        """``open_writer`` is called in the thread; what it gives writes a group of results, each with its node."""
        self._open = open_writer
        self._clock = clock
        self._offered: queue.Queue[tuple[Report, str] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="direct results", daemon=True)
        self._thread.start()

    def offer(self, report: Report, host: str) -> None:
        """A result whose file has been written."""
        self._offered.put((report, host))

    def close(self, seconds: float) -> None:
        """Write what is left, if that takes no longer than ``seconds``."""
        self._offered.put(None)
        self._thread.join(seconds)

    def _work(self) -> None:
        try:
            write = self._open()
        except Exception as error:  # whatever it is, the files are there
            log.warning("results go by the spool alone: %s", error)
            return
        quiet_until = 0.0
        more = True
        while more:
            group, more = self._group()
            if not group or self._clock() < quiet_until:
                continue
            try:
                write(group)
            except Exception as error:
                if not getattr(error, "transient", False):
                    log.warning("results go by the spool alone from now on: %s", error)
                    return
                log.warning("%d results go by the spool alone: %s", len(group), error)
                quiet_until = self._clock() + PAUSE

    def _group(self) -> tuple[list[tuple[Report, str]], bool]:
        """The next results, and whether more may come."""
        first = self._offered.get()
        if first is None:
            return [], False
        group, until = [first], self._clock() + GATHER
        while len(group) < GROUP:
            try:
                one = self._offered.get(timeout=max(0.0, until - self._clock()))
            except queue.Empty:
                return group, True
            if one is None:
                return group, False
            group.append(one)
        return group, True


def direct(chunk: Chunk, environ: Mapping[str, str]) -> Direct | None:
    """What a chunk says of the database; None if its results go by the spool alone."""
    return None if chunk.direct is None else Direct(lambda: _writer(chunk, environ))


def _writer(chunk: Chunk, environ: Mapping[str, str]) -> Writer:
    """Connects. Raises SettingsError for a login that cannot be used, ImportError where a library is missing."""
    # Here, since a farm's plain Python has neither pydantic nor an HTTP client, and does without.
    from orchestrator.chain import Chain
    from orchestrator.couch import Server, load_credentials

    assert chunk.direct is not None
    parts = urlsplit(chunk.direct["database"])
    folder, _, name = parts.path.rstrip("/").rpartition("/")
    credentials = load_credentials(chunk.direct["credentials"] or None, environ)
    server = Server(urlunsplit((parts.scheme, parts.netloc, folder, "", "")), credentials, timeout=TIMEOUT)
    database = server.database(name)
    chain = Chain.model_validate(chunk.chain)

    def write(group: list[tuple[Report, str]]) -> None:
        _record(database, chain, chunk, group, time.time())

    return write


def _record(database: Any, chain: Chain, chunk: Chunk, group: list[tuple[Report, str]], now: float) -> None:
    """Write a group of results. Raises what the database raises."""
    from orchestrator.engine.edits import Decide, edit
    from orchestrator.engine.verdicts import AtFarm, reported

    decisions: dict[str, Decide] = {}
    for report, host in group:
        at = AtFarm(report.document, chain.step(report.step), report.attempt, chunk.job, chunk.task)
        decisions[report.document] = reported(at, report, host, now, set())
    faults.point("direct.recording")
    edit(database, decisions)
    faults.point("direct.recorded")
