"""The gathering daemon: makes the documents of a site's gathers as their members become ready.

There may be several: each member ends in one document all the same. ``kill -9`` at any line is survived by the next
round, whoever's it is.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

from orchestrator import gathering
from orchestrator.chain import Chain
from orchestrator.couch import Database
from orchestrator.documents import Claimant
from orchestrator.engine.gather import Counts, Gatherer
from orchestrator.engine.heartbeat import PREFIX, Heartbeat, beats
from orchestrator.errors import ChainError, NotFound, Refused, Unauthorised, Unavailable

log = logging.getLogger(__name__)

FIRST_WAIT, LONGEST_WAIT = 0.5, 15.0


class Daemon:
    """All gathers of one site."""

    def __init__(self, chain: Chain, database: Database, site: str) -> None:
        """Raises ChainError where the site gathers nothing."""
        names = [name for name, gather in chain.gathers.items() if gather.site == site]
        if not names:
            raise ChainError(f"the chain {chain.name!r} has no gather for site {site!r}")
        host = socket.gethostname()
        claimant = Claimant(f"{gathering.IDENTITY}{site}", host, os.getpid(), site)
        self.gatherers = [Gatherer(chain, name, database, claimant) for name in names]
        beating = Claimant(f"{gathering.IDENTITY}{site}:{host}:{os.getpid()}", host, os.getpid(), site)
        self._forget_the_dead(database, site, host)
        self.heartbeat = Heartbeat(database, beating, names, time.time(), 0)
        self._due = {gatherer.name: 0.0 for gatherer in self.gatherers}

    @staticmethod
    def _forget_the_dead(database: Database, site: str, host: str) -> None:
        """Heartbeats of earlier daemons of this machine that were killed."""
        head = f"{gathering.IDENTITY}{site}:{host}:"
        for identity in beats(database):
            pid = identity.removeprefix(head)
            if identity.startswith(head) and pid.isdecimal() and not Path(f"/proc/{pid}").exists():
                database.delete_local(PREFIX + identity)

    def run(self, stop: threading.Event, *, until_idle: bool = False) -> None:
        """Work until ``stop``; with ``until_idle`` until a round has nothing to do. Waits while the database is away.

        Raises Unauthorised and NotFound (no database, no couchapp).
        """
        wait = FIRST_WAIT
        log.info("gathering %s", ", ".join(self._due))
        try:
            while not stop.is_set():
                try:
                    busy = self.round(time.time(), time.monotonic())
                    wait = FIRST_WAIT
                    if until_idle and not busy:
                        return
                    pause = 0.0 if until_idle else max(0.0, min(self._due.values()) - time.monotonic())
                except Unavailable as error:
                    log.warning("the database is away; gathering goes on when it is back: %s", error)
                    pause, wait = wait, min(2 * wait, LONGEST_WAIT)
                stop.wait(pause)
        finally:
            try:
                self.heartbeat.stop()
            except Exception as error:
                log.warning("the database was not told that this daemon has ended: %s", error)

    def round(self, now: float, monotonic: float) -> bool:
        """Whatever is due; whether anything was done."""
        busy = False
        waiting: dict[str, Any] = {}
        for gatherer in self.gatherers:
            if monotonic >= self._due[gatherer.name]:
                try:
                    counts = gatherer.round(now)
                except (Unavailable, Unauthorised, NotFound):
                    raise
                except Refused as error:
                    log.error("gather %s: %s", gatherer.name, error)
                    waiting[gatherer.name], counts = {"": str(error)}, Counts()
                except Exception as error:
                    # One gather that cannot go on must not stop the others.
                    log.exception("gather %s cannot go on; it is tried again", gatherer.name)
                    waiting[gatherer.name], counts = {"": f"{type(error).__name__}: {error}"}, Counts()
                busy = busy or counts.any()
                if counts.any():
                    log.info(
                        "gather %s: %d made, %d again, %d members taken, %d members done", gatherer.name, counts.made,
                        counts.again, counts.claimed, counts.finished,
                    )  # fmt: skip
                self._due[gatherer.name] = monotonic + gatherer.gather.every
            if gatherer.waiting:
                waiting[gatherer.name] = dict(list(gatherer.waiting.items())[:20])
        self.heartbeat.write(now, gathers=list(self._due), waiting=waiting)
        return busy
