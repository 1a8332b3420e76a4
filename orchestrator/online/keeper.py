"""The store in a thread of its own: what waits is put together into few round trips, and an outage is waited for."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from orchestrator import faults
from orchestrator.errors import DatabaseError, NotFound, OrchestratorError, TransientError, Unauthorised
from orchestrator.online.run import Run
from orchestrator.online.store import Outcome, RunRecord, Stores

log = logging.getLogger(__name__)

MOST = 500  # outcomes in one round trip
MOST_BYTES = 16 * 2**20  # and bytes
WAITS = (0.2, 5.0)  # s until a store that is away is asked again: at first, and at most

#: ``word``: open, save, stored. What belongs to it: for open the record and the numbers; for stored the numbers.
Answer = tuple[str, Run, Any]


class Keeper:
    """Does everything that is to be done with the stores, in order.

    Args:
        stores: where.
        wake: called from the thread when there is an answer.
    """

    def __init__(self, stores: Stores, wake: Callable[[], None]) -> None:
        self._stores = stores
        self._wake = wake
        self._asked: queue.SimpleQueue[tuple[str, Run | None, Any]] = queue.SimpleQueue()
        self._answers: deque[Answer] = deque()
        self._next: tuple[str, Run | None, Any] | None = None
        self._stop = threading.Event()
        self._records: dict[str, RunRecord] = {}
        self.away = ""  # why the store cannot be used now, or nothing
        self.error: OrchestratorError | None = None  # one that no waiting mends
        self._thread = threading.Thread(target=self._work, name="store", daemon=True)
        self._thread.start()

    def open(self, run: Run) -> None:
        """Ask what the store has of a run; answered by ``open``."""
        self._asked.put(("open", run, None))

    def save(self, run: Run, record: RunRecord) -> None:
        """Write what is known of a run; answered by ``save``, with the record."""
        self._asked.put(("save", run, record))

    def put(self, run: Run, outcome: Outcome) -> None:
        """Keep an outcome; answered by ``stored``."""
        self._asked.put(("put", run, outcome))

    def answers(self) -> list[Answer]:
        """What was done since the last time."""
        found: list[Answer] = []
        while self._answers:
            found.append(self._answers.popleft())
        return found

    @property
    def alive(self) -> bool:
        """Whether it works."""
        return self._thread.is_alive()

    def close(self, patience: float) -> bool:
        """Do what was asked for, for so long at most. Returns whether all is done."""
        self._asked.put(("stop", None, None))
        self._thread.join(patience)
        done = not self._thread.is_alive()
        self._stop.set()
        return done

    def _work(self) -> None:
        try:
            while True:
                word, run, what = self._next or self._asked.get()
                self._next = None
                if word == "stop" or run is None:
                    return
                getattr(self, f"_{word}")(run, what)
                self._wake()
        except _Stopped:
            return
        except OrchestratorError as error:
            self.error = error
        except Exception as error:
            log.exception("the store")
            self.error = DatabaseError(f"the store cannot be used: {type(error).__name__}: {error}")
        self._wake()

    def _open(self, run: Run, _: Any) -> None:
        def ask() -> tuple[RunRecord | None, dict[int, bool]]:
            store = self._stores.of(run.name)
            record = store.record()
            return record, store.numbers() if record is not None else {}

        self._answers.append(("open", run, self._patiently(ask)))

    def _save(self, run: Run, record: RunRecord) -> None:
        self._patiently(lambda: self._stores.of(run.name).save(record))
        self._records[run.name] = record
        self._answers.append(("save", run, record))

    def _put(self, run: Run, first: Outcome) -> None:
        outcomes, size = [first], len(first.packed or b"")
        while len(outcomes) < MOST and size < MOST_BYTES:
            try:
                self._next = self._asked.get_nowait()
            except queue.Empty:
                break
            word, whose, what = self._next
            if word != "put" or whose is not run:
                break
            self._next = None
            outcomes.append(what)
            size += len(what.packed or b"")
        faults.point("transform.storing")
        self._patiently(lambda: self._put_what_goes(run, outcomes))
        faults.point("transform.stored")
        self._answers.append(("stored", run, [one.number for one in outcomes]))

    def _put_what_goes(self, run: Run, outcomes: list[Outcome]) -> None:
        """Keep outcomes; one that the store refuses for what it is must not hold up the others: it has failed."""
        try:
            self._put_all(run, outcomes)
            return
        except (Unauthorised, NotFound):
            raise
        except DatabaseError as error:
            if error.transient:
                raise
            log.warning("some spills of run %s are refused: %s; each is tried by itself", run.name, error)
        for one in outcomes:
            try:
                self._put_all(run, [one])
            except (Unauthorised, NotFound):
                raise
            except DatabaseError as error:
                if error.transient:
                    raise
                log.error("spill %d of run %s cannot be kept: %s", one.number, run.name, error)
                why = f"its result cannot be kept: {error}"
                self._put_all(run, [Outcome(one.number, None, why, "store", one.shown, one.worker, one.seconds)])

    def _put_all(self, run: Run, outcomes: list[Outcome]) -> None:
        store = self._stores.of(run.name)
        try:
            store.put(outcomes)
        except NotFound:
            if run.name not in self._records:
                raise
            log.error("the spills of run %s were removed while it went on; those that come are kept anew", run.name)
            store.save(self._records[run.name])
            store.put(outcomes)

    def _patiently(self, call: Callable[[], Any]) -> Any:
        """Try until it works. Raises what waiting does not mend."""
        wait, told = WAITS[0], 0.0
        while True:
            try:
                found = call()
            except Unauthorised:
                raise  # repeated attempts lock the account
            except (DatabaseError, TransientError) as error:  # the latter: a disk without room for large spills
                self.away = str(error)
                if time.monotonic() - told > 60.0:
                    log.warning("%s; nothing is lost, it is tried again", error)
                    told = time.monotonic()
            else:
                if self.away:
                    log.info("the store answers again")
                self.away = ""
                return found
            if self._stop.wait(wait):
                raise _Stopped
            wait = min(WAITS[1], 2 * wait)


class _Stopped(Exception):
    """The process ends while the store is away: what is not stored is read again by the next one."""
