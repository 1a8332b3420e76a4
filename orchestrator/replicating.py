"""Watches over the replications of a site: asks for those that are missing, begins anew those that do not go on.

One loop: every few seconds it asks the database server here how its replications are doing, repairs them
(``orchestrator.replication``), settles conflicts (``orchestrator.settling``), and leaves what it found in the local
document ``_local/replication``, where the page and ``replicate status`` find it.

It needs the login of the database server's admin here, to ask for replications. The replications themselves write with
the account ``replicator``, where the site has one.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from orchestrator import connect, settling
from orchestrator.chain import Chain
from orchestrator.couch import Database, Server, load_credentials
from orchestrator.couch.answers import Subject
from orchestrator.documents import iso
from orchestrator.errors import DatabaseError, NotFound, SettingsError, Unauthorised, Unavailable
from orchestrator.replication import (
    LEAVE,
    PUSH,
    RESTART,
    START,
    STOP,
    End,
    Link,
    Memory,
    Remote,
    State,
    links,
    remotes,
    repair,
)
from orchestrator.settings import Settings

EVERY = 2.0  # s between two rounds
TELL = 10.0  # s at the most between two writes of what was found
PATIENCE = 5.0  # s that another site's server may take to answer
REFUSED = 300.0  # s that a server which refuses the login is left alone: five wrong passwords lock an account
SHOWN = 200  # conflicts that are listed in what is left for the page
JOBS = 10_000  # rows of _scheduler/jobs that are read

STATUS = "replication"  # the local document with what was found
PAUSED = "replication-paused"  # the local document that says which a person has stopped

log = logging.getLogger(__name__)


class Sites:
    """This site's database, and the others that it is replicated with.

    Raises:
        SettingsError: the setting ``replicate`` or a credentials file cannot be used.
    """

    def __init__(
        self, settings: Settings, environ: Mapping[str, str], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.settings = settings
        self.remotes: dict[str, Remote] = remotes(settings.replicate, settings.folder)
        self._server = connect.server(settings, environ)
        self.database: Database = self._server.database(settings.database)
        writer = connect.credentials(settings, environ, "replicator")
        self._writing = Server(settings.url, writer).database(settings.database)
        # The environment's login is for the database here: it must not be sent elsewhere.
        self._logins = {name: load_credentials(one.credentials, {}) for name, one in self.remotes.items()}
        here = End(f"{settings.url}/{settings.database}", (writer.username, writer.password) if writer else None)
        logins = {name: (one.username, one.password) if one else None for name, one in self._logins.items()}
        self.links = links(here, settings.database, self.remotes, logins)
        self._ids: dict[str, str] = {}
        self._refused: dict[str, tuple[float, str]] = {}
        self._monotonic = monotonic

    def named(self, name: str | None) -> list[Link]:
        """The links with one other database, or all. Raises SettingsError for a name that is not in the settings."""
        if name is not None and name not in self.remotes:
            known = ", ".join(self.remotes) or "none"
            raise SettingsError(f"the setting `replicate` has no {name!r}: it has {known}")
        return [link for link in self.links if name in (None, link.remote)]

    # Acting

    def start(self, link: Link) -> str:
        """Ask the server here for a replication; one that runs already just goes on. Its id."""
        answer = self._ask("POST", ("_replicate",), body=link.request())
        return str(answer.get("_local_id", ""))

    def stop(self, job: str) -> None:
        """End a replication by its id; one that has ended is well too."""
        try:
            self._ask("POST", ("_replicate",), body={"replication_id": job, "cancel": True})
        except NotFound:
            return

    def paused(self) -> set[str]:
        """Those that a person has stopped."""
        found = self.database.get_local(PAUSED) or {}
        return set(found.get("remotes", []))

    def pause(self, names: set[str]) -> None:
        """Keep these stopped until somebody starts them again; no others."""
        self.database.put_local(PAUSED, {"remotes": sorted(names)})

    # Looking

    def states(self) -> list[tuple[State, Any]]:
        """How each link is doing, with something that changes whenever it does anything.

        Raises:
            DatabaseError: the server here cannot be asked.
        """
        jobs = self._ask("GET", ("_scheduler", "jobs"), params={"limit": JOBS})["jobs"]
        paused = self.paused()
        there = {name: self._reach(name) for name in self.remotes}
        if not self._ids:
            told = (self.database.get_local(STATUS) or {}).get("links", [])
            self._ids = {f"{one['direction']} {one['remote']}": str(one.get("job", "")) for one in told}
        return [self._state(link, jobs, paused, there[link.remote]) for link in self.links]

    def _state(
        self, link: Link, jobs: list[dict[str, Any]], paused: set[str], trouble: str
    ) -> tuple[State, Any]:
        job = next((row for row in jobs if link.is_job(row) and "+continuous" in str(row.get("id", ""))), None)
        key = f"{link.direction} {link.remote}"
        state = State(link, "stopped", reachable=not trouble, reason=trouble)
        progress = None
        if job is not None:
            self._ids[key] = state.job = str(job["id"])
            info: dict[str, Any] = job.get("info") or {}
            last = (job.get("history") or [{}])[0]
            state.state = "crashing" if last.get("type") == "crashed" or "error" in info else "running"
            if state.state == "crashing":
                state.reason = trouble or str(last.get("reason") or info.get("error") or "")
            state.written, state.refused = int(info.get("docs_written") or 0), int(info.get("doc_write_failures") or 0)
            if state.state == "running" and isinstance(info.get("changes_pending"), int):
                state.behind = info["changes_pending"]
            progress = [info.get(name) for name in ("revisions_checked", "docs_read", "through_seq")]
        if link.remote in paused:
            state.state, state.reason = "paused", "stopped by a person: `orchestrator replicate start` goes on"
        if (state.behind is None or state.behind) and not (trouble and link.direction != PUSH):
            self._lag(link, state, self._ids.get(key, "").partition("+")[0])
        return state, progress

    def _lag(self, link: Link, state: State, name: str) -> None:
        """How many changes of the source lie after the last checkpoint, and when that was."""
        source = self.database if link.direction == PUSH else self._remote(link.remote)
        try:
            known = self.database.get_local(name) if name else None
            seq = known.get("source_last_seq", 0) if known else 0
            if state.behind is None:
                answer = source.connection.json(
                    "POST", (source.name, "_changes"), params={"since": seq, "limit": 1, "filter": "_selector"},
                    body={"selector": link.request()["selector"]}, subject=source.subject, safe=True,
                )  # fmt: skip
                state.behind = len(answer["results"]) + int(answer.get("pending") or 0)
            if state.behind and known and known.get("history"):
                state.since = iso(parsedate_to_datetime(known["history"][0]["end_time"]).timestamp())
        except (DatabaseError, LookupError, ValueError, TypeError) as error:
            log.debug("%s: how far it is behind cannot be told: %s", link.name, error)

    def _remote(self, name: str) -> Database:
        remote = self.remotes[name]
        server = Server(remote.url, self._logins[name], timeout=PATIENCE)
        return server.database(remote.database or self.settings.database)

    def _reach(self, name: str) -> str:
        """Why the other database cannot be used; empty if it can."""
        until, reason = self._refused.get(name, (0.0, ""))
        if self._monotonic() < until:
            return reason
        try:
            self._remote(name).info()
        except Unauthorised as error:
            self._refused[name] = (self._monotonic() + REFUSED, str(error))
            return str(error)
        except DatabaseError as error:
            return str(error)
        return ""

    def _ask(self, method: str, path: tuple[str, ...], **options: Any) -> Any:
        subject = Subject(self.settings.url)
        return self._server.connection.json(method, path, subject=subject, safe=True, **options)

    @property
    def writing(self) -> Database:
        """The database here, by the account that may store revisions made elsewhere."""
        return self._writing


class Watcher:
    """The loop.

    Args:
        chain: it says how documents in conflict are put together.
    """

    def __init__(
        self,
        sites: Sites,
        chain: Chain,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.sites = sites
        self._chain = chain
        self._clock = clock
        self._monotonic = monotonic
        self._memories: dict[str, Memory] = {}
        self._known: settling.Known = {}
        self._said: dict[str, str] = {}
        self._told: Any = None
        self._told_at = 0.0
        self._away = False

    def run(self, stop: threading.Event) -> None:
        """Watch until ``stop`` is set.

        Raises:
            Unauthorised: the login here is refused: it would only be refused again.
        """
        while not stop.is_set():
            try:
                self.round()
                if self._away:
                    log.info("the database is back")
                self._away = False
            except Unauthorised:
                raise
            except DatabaseError as error:
                if not self._away:
                    log.warning("the database cannot be asked: %s", error)
                self._away = True
            stop.wait(EVERY)

    def round(self) -> list[State]:
        """Look once, repair, settle, and say what was found.

        Raises:
            DatabaseError: the database here cannot be asked.
        """
        found = self.sites.states()
        for state, progress in found:
            memory = self._memories.setdefault(state.link.name, Memory(moved=self._monotonic()))
            self._act(state, repair(state, memory, progress, self._monotonic()))
        try:
            outcomes = settling.settle(self.sites.writing, self._chain, known=self._known)
        except NotFound:
            outcomes = []  # the couchapp is not there yet
        merged = sum(outcome.kind == settling.MERGED for outcome in outcomes)
        if merged:
            log.info("%d documents that two sites had changed were put together", merged)
        states = [state for state, _ in found]
        self._tell(states, [outcome for outcome in outcomes if outcome.kind != settling.MERGED])
        return states

    def _act(self, state: State, what: str) -> None:
        link = state.link
        try:
            if what == START:
                state.job = self.sites.start(link)
                state.state = "running"
                log.info("%s: started", link.name)
            elif what == RESTART:
                self.sites.stop(state.job)
                self.sites.start(link)
                log.warning("%s: begun anew (%s)", link.name, state.reason or "it stood still")
            elif what == STOP:
                self.sites.stop(state.job)
                log.info("%s: stopped, as a person wishes", link.name)
        except Unavailable:
            raise
        except DatabaseError as error:
            state.reason = str(error)
            if self._said.get(link.name) != state.reason:
                log.warning("%s: %s", link.name, error)
            self._said[link.name] = state.reason
        else:
            if what != LEAVE:
                self._said.pop(link.name, None)

    def _tell(self, states: list[State], outcomes: list[settling.Outcome]) -> None:
        found = {
            "links": [state.as_json() for state in states],
            "conflicts": [outcome.as_json() for outcome in outcomes[:SHOWN]],
            "conflicts_count": len(outcomes),
        }
        now = self._monotonic()
        if found == self._told and now - self._told_at < TELL:
            return
        self._told, self._told_at = found, now
        who = {"host": socket.gethostname(), "pid": os.getpid(), "site": self.sites.settings.site}
        self.sites.database.put_local(STATUS, {**found, "at": iso(self._clock()), "watcher": who})
