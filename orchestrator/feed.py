"""The run database's feed, followed by a thread of its own, which rings for the loop of a daemon.

A doorbell, not a queue: what it brings is looked at by its state, and what it loses a sweep finds.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

from orchestrator.couch import Database, Follower
from orchestrator.documents import Document
from orchestrator.errors import DatabaseError

log = logging.getLogger(__name__)

#: Batches (of up to 1,000 documents) that wait for the loop at most: the feed waits when the loop is behind.
QUEUE = 4
#: A fault of the thread is given so long (s) before it begins anew.
FAULT_WAIT = 5.0
#: A round of the feed in which nothing comes lasts so long (s).
ROUND = 50.0
#: The thread looks so often (s) whether it is to end, while the loop takes nothing.
LOOK = 1.0


class Feed:
    """Documents that match, as they change. One thread makes it, starts it and takes from it."""

    def __init__(
        self, database: Database, selectors: list[dict[str, Any]], steering: str, ring: Callable[[list[Document]], None]
    ) -> None:
        """Follow what matches one of the selectors, and the document ``steering``, whose changes set ``steered``.

        ``ring`` is called in the feed's thread with the documents that have come, and with none where it has ended.
        """
        self._database, self._steering, self._ring = database, steering, ring
        self._selector = {"$or": [*selectors, {"_id": steering}]}
        self._rung: queue.Queue[list[Document]] = queue.Queue(QUEUE)
        self._follower: Follower | None = None
        self._ended = threading.Event()
        self._since = ""
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
        #: Whether the steering document may have changed, until who heeds it says otherwise.
        self.steered = True
        #: Why the feed has ended for good: the database is gone, or the login is refused.
        self.fault: DatabaseError | None = None

    def start(self, since: str) -> None:
        """Follow from a sequence on. Once: later calls do nothing."""
        if self._thread.ident is None:
            self._since = since
            self._thread.start()

    @property
    def since(self) -> str | None:
        """The sequence where it stands; None before it has begun."""
        return self._follower.since if self._follower else None

    @property
    def connected(self) -> bool:
        """Whether its last round was answered."""
        return self._follower is not None and self._follower.connected

    def waits(self) -> bool:
        """Whether something has come that was not taken."""
        return not self._rung.empty()

    def take(self) -> list[list[Document]]:
        """The batches that have come."""
        return [self._rung.get_nowait() for _ in range(self._rung.qsize())]

    def close(self) -> None:
        """Follow no more."""
        self._ended.set()
        if self._follower is not None:
            self._follower.close()

    # --- the thread ---

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._follow()
            except DatabaseError as error:
                self.fault = error
                self._ring([])
                return
            except Exception:
                # A fault of ours must not leave the daemon deaf: sweeps alone would find new documents late.
                log.exception("following the feed failed; it begins anew in %.0f s", FAULT_WAIT)
                self._ended.wait(FAULT_WAIT)

    def _follow(self) -> None:
        self._follower = follower = Follower(
            self._database, since=self._since, selector=self._selector, params={"conflicts": True}, mode="continuous",
            timeout=ROUND,
        )  # fmt: skip
        if self._ended.is_set():
            return
        for batch in follower.batches():
            found = [change.doc for change in batch.changes if change.doc is not None and not change.deleted]
            steered = any(change.id == self._steering for change in batch.changes)
            if steered:
                self.steered = True
            self._put(found)
            if found or steered:
                self._ring(found)
            self._since = batch.last_seq

    def _put(self, found: list[Document]) -> None:
        """Let the loop have a batch; wait while it is behind."""
        while found and not self._ended.is_set():
            try:
                self._rung.put(found, timeout=LOOK)
            except queue.Full:
                continue
            return
