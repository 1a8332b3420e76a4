"""The changes feed, followed for ever: a doorbell, not a queue.

What rings is a hint to look at a document's state: only its newest change is sure to arrive, order is partial, and
after a server's restart changes come again. So the caller acts on state, and sweeps the work views at its start and now
and then; no sequence is kept for it from one start to the next.

Two ways to listen. *longpoll* rounds end with the first changes or after ``timeout``, always with a ``last_seq``:
the place moves even when a filter lets nothing through. *continuous* with ``timeout`` holds one connection while
rows flow and ends with a ``last_seq`` line when none came for so long; it saves a request for each ring. No
``heartbeat`` is asked for: it would override ``timeout``, and a quiet filtered feed would never tell its sequence.

Sequences are opaque text: compared for equality and sent back, nothing else.
"""

from __future__ import annotations

import logging
import random as random_module
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

from orchestrator.couch import wire
from orchestrator.couch.answers import Subject, failure
from orchestrator.couch.database import Database, encoded
from orchestrator.couch.stream import Broken, Stream
from orchestrator.errors import NotFound, SettingsError, Unavailable

log = logging.getLogger(__name__)

TIMEOUT = 50.0  # s a round may last; below the 60 s at which CouchDB itself ends one
MARGIN = 10.0  # s that the client waits beyond that before the server counts as gone
FIRST_WAIT = 0.25  # s before the first reconnection, doubled each time
LONGEST_WAIT = 30.0  # s between two attempts at most
MOST_ROWS = 1000  # rows in one batch: bounds memory when a feed starts from the beginning


@dataclass(frozen=True, slots=True)
class Change:
    """One row of the feed. ``revs`` are the leaf revisions, the winner first; ``doc`` is there with include_docs."""

    seq: str
    id: str
    revs: tuple[str, ...]
    deleted: bool = False
    doc: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes that arrived together, and the sequence after them. Empty when a quiet round ended."""

    changes: list[Change] = field(default_factory=list)
    last_seq: str = ""


class Follower:
    """Follows one database's feed through restarts, broken connections and servers that fall silent.

    Args:
        database: what to follow.
        since: where to begin: "0" (all), "now", or a sequence.
        selector: a Mango selector; only documents that match ring.
        filter: a design document's filter, ``"filters/newproc0"`` (slow on a large database: see COUCHDB docs).
        params: further parameters, for the filter.
        include_docs: carry the documents along (reading them again costs more than this).
        mode: "longpoll" or "continuous".
        timeout: seconds that a quiet round lasts.
        clock: seconds, monotonic.
        random: a number in [0, 1), for the jitter.
        wait: waits so many seconds, or less; returns whether the follower was closed. Default: the real one.
        margin: seconds beyond ``timeout`` before silence counts as a broken connection.

    ``connected`` says whether the last round was answered, ``since`` where it stands, ``problem`` why it is not
    connected. One thread iterates; ``close`` may be called from any.
    """

    def __init__(
        self,
        database: Database,
        *,
        since: str | int = "0",
        selector: dict[str, Any] | None = None,
        filter: str | None = None,
        params: dict[str, Any] | None = None,
        include_docs: bool = True,
        mode: Literal["longpoll", "continuous"] = "longpoll",
        timeout: float = TIMEOUT,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random_module.random,
        wait: Callable[[float], bool] | None = None,
        margin: float = MARGIN,
        most_rows: int = MOST_ROWS,
    ) -> None:
        if selector is not None and filter is not None:
            raise SettingsError("A feed takes a selector or a filter, not both")
        if mode not in ("longpoll", "continuous"):
            raise SettingsError(f"A feed's mode is longpoll or continuous, not {mode!r}")
        self.database = database
        self.since = str(since)
        self.mode = mode
        self.timeout = timeout
        self.connected = False
        self.problem = ""
        self._selector = database.feed_selector(selector) if selector is not None else None
        self._query: dict[str, Any] = encoded(dict(params or {}))
        if include_docs:
            self._query["include_docs"] = "true"
        if selector is not None:
            self._query["filter"] = "_selector"
        elif filter is not None:
            self._query["filter"] = filter
        self._closed = threading.Event()
        self._clock = clock
        self._random = random
        self._wait = wait or self._closed.wait
        self._most_rows = most_rows
        self._resolved = False
        self._subject = Subject(database.connection.url, database.name)
        self._stream = Stream(database.connection.login, read_timeout=timeout + margin)

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Batch]:
        return self.batches()

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed.is_set()

    def close(self) -> None:
        """End the iteration, at once, from whichever thread: the connection is cut."""
        self._closed.set()
        self._stream.close()

    def batches(self) -> Iterator[Batch]:
        """Batches for ever, until ``close``. ``since`` moves when the caller asks for the next one.

        Raises:
            Unauthorised: login or role refused. It is not tried again: that would lock the account.
            NotFound: the database, or the filter, is not there (any more).
            DatabaseError: the database does not take the request (a selector that is none, say).
        """
        failures = 0
        while not self._closed.is_set():
            began = self._clock()
            rows = 0
            try:
                self._resolve()
                for batch in self._round():
                    rows += len(batch.changes)
                    failures = 0 if rows else failures
                    yield batch
                    self._move(batch)
                    if self._closed.is_set():
                        return
                # A server or a proxy that ends quiet rounds at once would be asked without end: slow down.
                hasty = not rows and self._clock() - began < self.timeout / 2
                problem = "the server ends each round at once" if hasty else ""
                failures = failures if hasty else 0
            except Unavailable as error:
                problem = str(error)
            if self._closed.is_set():
                return
            if problem:
                failures += 1
                self._pause(failures, problem)

    def _pause(self, failures: int, problem: str) -> None:
        """Wait before the next attempt: doubled each time, bounded, and jittered so that pollers do not march."""
        longest = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(failures - 1, 20))
        seconds = longest * (0.5 + self._random() / 2)
        self.connected, self.problem = False, problem
        level = logging.WARNING if failures in (1, 10) else logging.DEBUG
        log.log(level, "Changes of %s: %s; next attempt in %.1f s", self.database.name, problem, seconds)
        self._wait(seconds)

    def _resolve(self) -> None:
        """Turn "now" into a sequence, so that a failed first round misses nothing."""
        if self._resolved:
            return
        if self.since == "now":
            answer = self.database.connection.json(
                "GET",
                (self.database.name, "_changes"),
                subject=self._subject,
                params={"since": "now", "limit": 1},
            )
            self.since = str(answer["last_seq"])
        self._resolved = True

    def _move(self, batch: Batch) -> None:
        if _position(batch.last_seq) < _position(self.since):
            log.info(
                "Changes of %s went back from %s to %s: some come again, which is harmless",
                self.database.name,
                _short(self.since),
                _short(batch.last_seq),
            )
        self.since = batch.last_seq

    def _round(self) -> Iterator[Batch]:
        """One request and what it brings."""
        query = {
            **self._query,
            "feed": self.mode,
            "since": self.since,
            "timeout": str(int(self.timeout * 1000)),
        }
        if self.mode == "longpoll":
            query["limit"] = str(self._most_rows)
        body = None if self._selector is None else wire.dumps({"selector": self._selector}, "the selector")
        try:
            with self._stream.open(self.database.connection.url, self.database.name, query, body) as status:
                if status != 200:
                    self._refused(status)
                self.connected, self.problem = True, ""
                if self.mode == "continuous":
                    yield from self._lines()
                else:
                    yield _batch(self._stream.json(), self.since, self.database.seen)
        except Broken as error:
            raise Unavailable(f"{self._subject}: {error}") from error

    def _refused(self, status: int) -> NoReturn:
        """The server said no. A sequence that it does not know is given up, anything else raised."""
        answer = self._stream.words()
        error, reason = str(answer.get("error", "")), str(answer.get("reason", ""))
        if status == 400 and self.since != "0" and _about_sequence(reason):
            log.warning(
                "Changes of %s: the server does not know %s (%s); from the beginning, which is harmless",
                self.database.name,
                _short(self.since),
                reason,
            )
            self.since = "0"
            raise Unavailable(f"{self._subject}: the sequence was not known")
        problem = failure(status, error, reason, self._subject)
        if isinstance(problem, NotFound) and "filter" in self._query and not _about_database(reason):
            raise NotFound(
                f"Database {self.database.name!r} has no filter {self._query['filter']!r} ({reason}): "
                "push the couchapp: orchestrator couchapp push"
            )
        raise problem

    def _lines(self) -> Iterator[Batch]:
        """Batches of a continuous feed: a row is handed on at once, rows that are here already go with it."""
        changes: list[Change] = []
        broken: Broken | None = None
        try:
            for line in self._stream.lines():
                if line is None or len(changes) >= self._most_rows:  # None: nothing more is here now
                    if changes:
                        yield Batch(changes, changes[-1].seq)
                        changes = []
                    if line is None:
                        continue
                row = _row(line)
                if "last_seq" in row:
                    yield Batch(changes, _seq(row["last_seq"]))
                    return
                if "error" in row and "id" not in row:
                    raise Broken(f"the feed ended with {row.get('error')}: {row.get('reason')}")
                changes.append(_change(row, self.database.seen))
        except Broken as error:
            broken = error
        if changes:  # whole rows that came before the connection was cut
            yield Batch(changes, changes[-1].seq)
        if broken is not None:
            raise broken


def _row(line: bytes) -> dict[str, Any]:
    try:
        row = wire.loads(line)
    except ValueError as error:
        raise Broken("a line of the feed is not JSON") from error
    if not isinstance(row, dict):
        raise Broken("a line of the feed is no object")
    return row


def _seq(value: Any) -> str:
    """A sequence as text. Clusters of old sent arrays: these go back as the JSON they came as."""
    return value if isinstance(value, str) else wire.dumps(value).decode()


def _change(row: dict[str, Any], seen: Callable[[dict[str, Any]], dict[str, Any]]) -> Change:
    try:
        revs = tuple(leaf["rev"] for leaf in row["changes"])
        doc = row.get("doc")
        found = seen(doc) if isinstance(doc, dict) else None
        return Change(_seq(row["seq"]), row["id"], revs, bool(row.get("deleted")), found)
    except (KeyError, TypeError) as error:
        raise Broken(f"a row of the feed lacks {error}") from error


def _batch(answer: Any, since: str, seen: Callable[[dict[str, Any]], dict[str, Any]]) -> Batch:
    """A long-poll round's answer."""
    if not isinstance(answer, dict) or "results" not in answer:
        raise Broken("the answer is no feed. Is it CouchDB?")
    changes = [_change(row, seen) for row in answer["results"]]
    last = answer.get("last_seq", changes[-1].seq if changes else since)
    return Batch(changes, _seq(last))


def _position(seq: str) -> int:
    """The number that a sequence begins with. A hint for the log alone: sequences cannot be ordered."""
    head = seq.partition("-")[0]
    return int(head) if head.isascii() and head.isdigit() else 0


def _short(seq: str) -> str:
    return seq if len(seq) <= 24 else seq[:24] + "..."


def _about_sequence(reason: str) -> bool:
    return any(word in reason.lower() for word in ("since", "seq", "malformed", "badmatch"))


def _about_database(reason: str) -> bool:
    return "database" in reason.lower() or "no_db_file" in reason.lower()
