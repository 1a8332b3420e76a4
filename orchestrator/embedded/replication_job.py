"""One replication as the scheduler sees it: its thread, its state, its history, and when it is tried again.

States are CouchDB's: ``running``, ``pending`` (waiting for its turn), ``crashing`` (failed, and to be tried again after
a wait that doubles), ``completed`` and ``failed``, which are final.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from orchestrator.embedded.peer import Cut, PeerError
from orchestrator.embedded.replication import Progress, Replication
from orchestrator.embedded.replication_log import iso
from orchestrator.embedded.replication_request import Wanted

FIRST_WAIT = 0.5  # s after a first failure: most are a link that has just been cut and comes back
LONGEST_WAIT = 60.0  # s
DENIED_WAIT = 30.0  # s after a refused login: five wrong passwords in a row lock an account
HISTORY = 20  # events that are remembered, CouchDB's max_history

log = logging.getLogger(__name__)

Ended = Callable[["Job"], None]


def wait_after(errors: int, status: int, draw: float) -> float:
    """Seconds until the next try after so many failures in a row; ``draw`` (0 to 1) keeps many from trying at once."""
    wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(errors - 1, 20))
    if status in (401, 403):
        wait = max(wait, DENIED_WAIT)
    return wait * (0.75 + 0.5 * draw)


class Job:
    """A replication that runs, or waits to be tried again.

    Args:
        wanted: what to replicate.
        server: this server's uuid.
        user: who asked for it; None for a document.
        document: database and id of the document that asks for it, or None.
        ended: called on the job's thread when it has completed, or failed for good: one that was asked for over HTTP
            and is not continuous is tried once.
        known: called on the job's thread when the id is known; False ends the job (another has that id).
    """

    def __init__(
        self,
        wanted: Wanted,
        server: str,
        *,
        user: str | None,
        document: tuple[str, str] | None,
        ended: Ended,
        known: Callable[[Job], bool],
    ) -> None:
        self.wanted = wanted
        self.user = user
        self.document = document
        self.base = ""
        self.state = "initializing"
        self.errors = 0
        self.reason = ""
        self.result: dict[str, Any] | None = None
        self.failure: PeerError | None = None
        self.waiting: list[Ended] = []  # others who asked for the same, and want to hear of its end
        self.progress = Progress()
        self.started = self.updated = time.time()
        self.history: deque[dict[str, str]] = deque(maxlen=HISTORY)
        self._server = server
        self._ended = ended
        self._known = known
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._run: Replication | None = None
        self._thread = threading.Thread(target=self._live, name="replication", daemon=True)
        self._note("added")

    @property
    def id(self) -> str:
        """The id with its suffix, as answers give it; empty while it is not known."""
        return self.base + self.wanted.suffix if self.base else ""

    def start(self) -> None:
        """Begin, on a thread of its own."""
        self._thread.start()

    def cancel(self) -> None:
        """End it at once; from any thread. Nothing is written any more when :meth:`join` has returned."""
        with self._lock:
            self._stop.set()
            run = self._run
        if run is not None:
            run.cut()

    def join(self, seconds: float) -> None:
        """Wait for its thread."""
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(seconds)

    def _note(self, what: str, reason: str = "") -> None:
        self.updated = time.time()
        event = {"timestamp": iso(self.updated), "type": what}
        self.history.appendleft({**event, "reason": reason} if reason else event)

    def _live(self) -> None:
        try:
            while not self._stop.is_set():
                if self._once():
                    return
        except Exception:  # a fault of ours must not end the others, and must be seen
            log.exception("replication %s has ended", self.id)
            self._crashed(PeerError("internal_server_error", "the replicator failed; the server's log says where"))

    def _once(self) -> bool:
        """One run; True if there is none to follow."""
        with self._lock:
            if self._stop.is_set():
                return True
            run = self._run = Replication(self.wanted, self._server, self.progress, self._well)
        try:
            if not self.base:
                self.base = run.identity()
                if not self._known(self):
                    return True
            self._note("started")
            self.state = "running"
            self.result = run.run()
        except Cut:
            return True
        except PeerError as error:
            if self._stop.is_set():
                return True
            return self._crashed(error)
        finally:
            run.close()
            self._run = None
        self.state = "completed"
        self._note("completed")
        self._ended(self)
        return True

    def _crashed(self, error: PeerError) -> bool:
        self.errors += 1
        self.reason = f"{error.error}: {error.reason}"
        self.failure = error
        self.state = "crashing"
        self._note("crashed", self.reason)
        if self.document is None and not (self.wanted.continuous and self.base):
            self.state = "failed"
            self._ended(self)
            return True
        wait = wait_after(self.errors, error.status, random.random())
        log.warning("replication %s crashed and is tried again in %.1f s: %s", self.id, wait, self.reason)
        self._stop.wait(wait)
        return False

    def _well(self) -> None:
        if self.errors or self.state != "running":
            self.errors, self.reason, self.state = 0, "", "running"
            self.updated = time.time()

    # What is shown

    def as_job(self) -> dict[str, Any]:
        """The row of ``_scheduler/jobs``."""
        info: Any = self.progress.info() if self.state == "running" else {"error": self.reason} if self.reason else None
        return {
            "id": self.id,
            "database": self.document[0] if self.document else None,
            "doc_id": self.document[1] if self.document else None,
            "node": "nonode@nohost",
            "pid": f"<0.{self._thread.native_id or 0}.0>",
            "source": self.wanted.source.shown,
            "target": self.wanted.target.shown,
            "start_time": iso(self.started),
            "user": self.user,
            "info": info,
            "history": list(self.history),
        }

    def as_document(self) -> dict[str, Any]:
        """The row of ``_scheduler/docs``."""
        final = self.state in ("completed", "failed")
        info: Any = {"error": self.reason} if self.state in ("crashing", "failed") else self.progress.info()
        return {
            "database": self.document[0] if self.document else None,
            "doc_id": self.document[1] if self.document else None,
            "id": None if final else self.id or None,
            "node": "nonode@nohost",
            "source": self.wanted.source.shown,
            "target": self.wanted.target.shown,
            "source_proxy": None,
            "target_proxy": None,
            "state": self.state,
            "info": info,
            "error_count": self.errors,
            "last_updated": iso(self.updated),
            "start_time": iso(self.started),
        }

    def as_task(self) -> dict[str, Any]:
        """The row of ``_active_tasks``."""
        return {
            "type": "replication",
            "node": "nonode@nohost",
            "pid": f"<0.{self._thread.native_id or 0}.0>",
            "replication_id": self.id,
            "database": self.document[0] if self.document else None,
            "doc_id": self.document[1] if self.document else None,
            "user": self.user,
            "source": self.wanted.source.shown,
            "target": self.wanted.target.shown,
            "continuous": self.wanted.continuous,
            "checkpoint_interval": int(self.wanted.checkpoint * 1000),
            "started_on": int(self.started),
            "updated_on": int(self.updated),
            **self.progress.info(),
        }
