"""The database as the pages see it: lent connections, a short cache for all viewers, and since when it answers."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from orchestrator.errors import NotFound, OrchestratorError, Unauthorised, Unavailable

T = TypeVar("T")


class RowLike(Protocol):
    """A row of a view, as ``orchestrator.couch`` gives it."""

    @property
    def id(self) -> str | None: ...
    @property
    def key(self) -> Any: ...
    @property
    def value(self) -> Any: ...
    @property
    def doc(self) -> dict[str, Any] | None: ...


class DatabaseLike(Protocol):
    """The part of ``orchestrator.couch.Database`` that the pages use. None of it writes."""

    @property
    def name(self) -> str: ...
    def info(self) -> dict[str, Any]: ...
    def get(self, id: str, /) -> dict[str, Any]: ...
    def view(self, name: str, /, **params: Any) -> Any: ...
    def local_docs(self, startkey: str, endkey: str, /) -> list[dict[str, Any]]: ...


Factory = Callable[[], DatabaseLike]

#: How long an answer is given again, in seconds: a page that a hundred people watch costs the database one read.
CACHE_SECONDS = 1.0
#: After a failure the database is left alone for so long, or every request would wait for the time-out by itself.
AWAY_SECONDS = 1.0
#: ... and for so long after it refused the login: five wrong passwords within minutes lock an account.
REFUSED_SECONDS = 120.0
#: Answers kept at most. Enough for every page that is looked at within one second; bounds the memory.
CACHE_ENTRIES = 256
#: Up to so many documents a view is brought up to date on reading; it takes at most a second or two.
SMALL = 20_000
#: A fresh read is given up after so long, in seconds, and what the index has is taken instead.
FRESH_SECONDS = 2.0
#: A fresh read that took longer than this, in seconds, makes the next reads take what the index has.
SLOW_SECONDS = 0.7
#: ... for so long, in seconds, before a fresh read is tried again.
LAZY_SECONDS = 30.0


@dataclass(frozen=True)
class Health:
    """Whether the database answers, since when that is so (seconds since 1970), and in words what is wrong."""

    reachable: bool
    since: float
    sentence: str = ""


class Setup(OrchestratorError):
    """The database answers, but what the pages read is not there yet. The message says which command makes it."""


class Source:
    """Reads for the pages. Safe to use from many threads."""

    def __init__(self, factory: Factory, clock: Callable[[], float] = time.time) -> None:
        self._factory = factory
        self._clock = clock
        self._lock = threading.Lock()
        self._idle: list[DatabaseLike] = []
        self._health = Health(True, clock())
        self._failed_at: float | None = None
        self._failure: OrchestratorError | None = None
        self._answers: OrderedDict[Hashable, tuple[float, Any]] = OrderedDict()
        self._flights: dict[Hashable, list[Any]] = {}  # a lock, and how many hold it or wait for it
        self._parts: dict[Hashable, tuple[float, Any]] = {}
        self._changed_at = 0.0
        self._documents: tuple[float, int] | None = None
        self._lazy_until = 0.0

    @property
    def health(self) -> Health:
        """What was seen at the last read or by the follower of changes."""
        return self._health

    def now(self) -> float:
        """Seconds since 1970 by the clock that the pages go by."""
        return self._clock()

    def answered(self) -> None:
        """Note that the database has answered."""
        with self._lock:
            self._failed_at = self._failure = None
            if not self._health.reachable:
                self._health = Health(True, self._clock())

    def changed(self) -> None:
        """Note that documents have changed: what was read before is not given again."""
        self._changed_at = self._clock()

    def forget(self) -> None:
        """Give nothing again that was read before: for measurements."""
        with self._lock:
            self._answers.clear()
            self._parts.clear()
            self._documents = None

    def away(self, error: OrchestratorError) -> None:
        """Note that the database did not answer, or refused the page's account."""
        with self._lock:
            self._failed_at, self._failure = self._clock(), error
            since = self._clock() if self._health.reachable else self._health.since
            self._health = Health(False, since, str(error))

    @contextmanager
    def lend(self) -> Iterator[DatabaseLike]:
        """A connection for one read: connections are used by one thread at a time and used again.

        Raises Unavailable, Unauthorised as the database does, and Setup where the database or its views are not there.
        """
        with self._lock:
            pause = REFUSED_SECONDS if isinstance(self._failure, Unauthorised) else AWAY_SECONDS
            if self._failure is not None and self._clock() - (self._failed_at or 0.0) < pause:
                raise self._failure
            database = self._idle.pop() if self._idle else None
        try:
            if database is None:
                database = self._factory()
            yield database
        except (Unavailable, Unauthorised) as error:
            self.away(error)
            raise
        except OrchestratorError:
            self.answered()  # "no" is an answer too
            raise
        else:
            self.answered()
        finally:
            # A connection whose read failed is no worse than a new one: it opens its sockets when they are needed.
            if database is not None:
                with self._lock:
                    self._idle.append(database)

    def cached(self, key: Hashable, read: Callable[[DatabaseLike], T]) -> T:
        """``read(database)``, or the answer it gave within the last second. Of many who ask at once, one reads."""
        with self._lock:
            flight = self._flights.setdefault(key, [threading.Lock(), 0])
            flight[1] += 1
        try:
            with flight[0]:
                with self._lock:
                    kept = self._answers.get(key)
                    began = self._clock()  # what is read now may lack what changes from now on
                    if kept is not None and began - kept[0] < CACHE_SECONDS and kept[0] >= self._changed_at:
                        answer: T = kept[1]
                        return answer
                with self.lend() as database:
                    answer = read(database)
                with self._lock:
                    self._keep(key, began, answer)
                return answer
        finally:
            with self._lock:
                flight[1] -= 1
                if not flight[1]:
                    del self._flights[key]

    def _keep(self, key: Hashable, began: float, answer: Any) -> None:
        """Keep an answer, and none that is past its time: each may be a document of megabytes."""
        self._answers[key] = (began, answer)
        self._answers.move_to_end(key)
        while self._answers:
            oldest = next(iter(self._answers))
            if len(self._answers) <= CACHE_ENTRIES and 0 <= began - self._answers[oldest][0] < CACHE_SECONDS:
                break
            del self._answers[oldest]

    def kept(self, key: Hashable, seconds: float, database: DatabaseLike, read: Callable[[], T]) -> T:
        """``read()``; on a large database what it gave within the last ``seconds``, whatever has changed since.

        For sums over all documents, which are dear there and lag by a moment anyhow.
        """
        with self._lock:
            known = self._parts.get(key)
        if known is not None and 0 <= self._clock() - known[0] < seconds and self._lazy(database):
            value: T = known[1]
            return value
        began = self._clock()
        value = read()
        with self._lock:
            self._parts[key] = (began, value)
        return value

    def rows(self, database: DatabaseLike, view: str, **params: Any) -> list[RowLike]:
        """The rows of a view. On a small database they are up to date; on a large one they may lag by a moment.

        An index that is being built keeps the database silent: what it has is then shown, rather than nothing.
        Raises Setup where the database or the view is not there, with what to do.
        """
        lazy = self._lazy(database)
        began = time.monotonic()
        try:
            if lazy:
                return self._rows(database, view, "lazy", params)
            try:
                return self._rows(database, view, "true", params | {"timeout": FRESH_SECONDS})
            except Unavailable:
                if time.monotonic() - began < FRESH_SECONDS:
                    raise
                return self._rows(database, view, "lazy", params)
        except NotFound as error:
            raise self._explain(database, view) from error
        finally:
            if not lazy and time.monotonic() - began > SLOW_SECONDS:
                self._lazy_until = self._clock() + LAZY_SECONDS

    @staticmethod
    def _rows(database: DatabaseLike, view: str, update: str, params: dict[str, Any]) -> list[RowLike]:
        rows: list[RowLike] = database.view(view, update=update, **params).rows
        return rows

    def document_count(self, database: DatabaseLike) -> int:
        """How many documents the database has in all, design documents among them. Raises Setup without a database."""
        kept = self._documents
        if kept is not None and self._clock() - kept[0] < CACHE_SECONDS:
            return kept[1]
        try:
            count = int(database.info().get("doc_count", 0))
        except NotFound as error:
            raise Setup(
                f"There is no database {database.name!r} yet: 'orchestrator couchapp push' makes it and puts the "
                "couchapp into it, and 'orchestrator up' starts everything."
            ) from error
        self._documents = (self._clock(), count)
        return count

    def _lazy(self, database: DatabaseLike) -> bool:
        return self._clock() < self._lazy_until or self.document_count(database) > SMALL

    def _explain(self, database: DatabaseLike, view: str) -> Setup:
        self.document_count(database)
        return Setup(
            f"The database {database.name!r} has no view {view!r} yet: put the couchapp into it with "
            "'orchestrator couchapp push'."
        )
