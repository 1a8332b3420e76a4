"""Runs' spills in the memory of one process: for trying things out, and where nothing may touch a database.

What it holds is gone when its process ends; results that are large wait in files meanwhile. Other processes reach it
through ``orchestrator.online.stores.served``.
"""

from __future__ import annotations

import copy
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from orchestrator.errors import DataError, NotFound
from orchestrator.online.packing import unpacked
from orchestrator.online.spill import Spill
from orchestrator.online.store import Arrivals, Outcome, RunRecord, kept_final
from orchestrator.online.stores.files import SpillFiles
from orchestrator.online.stores.names import MOST_BYTES, checked_number, checked_run

PAUSE = 0.05  # s between two looks at whether to stop; what comes is handed on at once


class MemoryStores:
    """All runs' stores. Thread-safe, as each store is.

    Args:
        files: for packed data of more than ``inline`` bytes; without it all are kept in memory. What an earlier process
            has left there is removed.
    """

    def __init__(self, files: SpillFiles | None = None, inline: int = 65536) -> None:
        self._files, self._inline = files, inline
        if files is not None:
            for run in files.runs():
                files.drop(run)
        self._stores: dict[str, MemoryStore] = {}
        self._lock = threading.Lock()

    def of(self, run: str) -> MemoryStore:
        """The store of a run, whether there or not. Raises SettingsError for a name that no run can have."""
        with self._lock:
            return self._stores.setdefault(checked_run(run), MemoryStore(run, self._files, self._inline))

    def runs(self) -> list[RunRecord]:
        """Every run that has a store, the newest last."""
        with self._lock:
            stores = list(self._stores.values())
        found = [record for store in stores if (record := store.record()) is not None]
        return sorted(found, key=lambda record: record.begun)  # sorts stably: as they were made, where times are equal


class MemoryStore:
    """The spills of one run, in the order of their coming. A mark: which life of the store, how many have come before.

    In another life they come in another order: who went on from a number alone would miss some for ever.
    """

    def __init__(self, run: str, files: SpillFiles | None = None, inline: int = 65536) -> None:
        self.run = run
        self._files, self._inline = files, inline
        self._life = secrets.token_hex(8)
        self._record: RunRecord | None = None
        self._saved = 0  # how often; tells followers that the record has changed
        self._arrived: list[Outcome] = []
        self._places: dict[int, int] = {}
        self._large: dict[int, dict[str, Any]] = {}  # references to files, by number
        self._news = threading.Condition()

    def record(self) -> RunRecord | None:
        """What is known of the run; None before the first ``save``."""
        with self._news:
            return copy.deepcopy(self._record)

    def save(self, record: RunRecord) -> None:
        """Write what is known of the run. A final run stays final."""
        with self._news:
            self._record = copy.deepcopy(kept_final(record, self._record))
            self._saved += 1
            self._news.notify_all()

    def put(self, outcomes: Iterable[Outcome]) -> int:
        """Keep outcomes. Returns how many were new. Raises NotFound before the first ``save``."""
        given = list(outcomes)
        for one in given:
            checked_number(one.number)
        with self._news:
            self._must_exist()
            before = len(self._arrived)
            try:
                for one in given:
                    if one.number not in self._places:
                        held = self._held(one)  # before it counts as there: the disk may be full
                        self._places[one.number] = len(self._arrived)
                        self._arrived.append(held)
            finally:
                self._news.notify_all()
            return len(self._arrived) - before

    def _held(self, outcome: Outcome) -> Outcome:
        """An outcome as it waits: large packed data in a file."""
        held = copy.copy(outcome)
        if self._files is not None and held.packed is not None and len(held.packed) > self._inline:
            results = [(held.number, held.packed)]
            self._large[held.number] = self._files.write(self.run, results, durable=False)[0]
            held.packed = None
        return held

    def _whole(self, held: Outcome) -> Outcome:
        """The outcome as it was put."""
        reference = self._large.get(held.number)
        if reference is None or self._files is None:
            return held
        whole = copy.copy(held)
        try:
            whole.packed = self._files.read(self.run, reference)
        except DataError as lost:
            whole.error = whole.error or str(lost)  # it must still be counted, or the run would never close
        return whole

    def numbers(self) -> dict[int, bool]:
        """The numbers of all spills that are in, with whether they failed."""
        with self._news:
            self._must_exist()
            return {one.number: one.failed for one in self._arrived}

    def follow(self, mark: str | None, *, wait: Callable[[float], bool], most: int = 500) -> Iterator[Arrivals]:
        """Outcomes from ``mark`` on, then new ones as they come. A mark of a store that is gone begins anew."""
        (life, place), seen = self._place(mark), -1
        while True:
            with self._news:
                self._must_exist()
                if place >= len(self._arrived) and seen == self._saved:
                    self._news.wait(PAUSE)
                    self._must_exist()
                some = self._some(place, most)
                place += len(some)
                record = copy.deepcopy(self._record) if seen != self._saved else None
                seen = self._saved
            yield Arrivals(f"{life}-{place}", tuple(self._whole(one) for one in some), record)
            if wait(0.0):
                return

    def _some(self, place: int, most: int) -> list[Outcome]:
        size, stop = 0, place
        while stop < len(self._arrived) and stop < place + most and (stop == place or size < MOST_BYTES):
            held = self._arrived[stop]
            reference = self._large.get(held.number)
            size += reference["size"] if reference else len(held.packed or b"")
            stop += 1
        return self._arrived[place:stop]

    def _place(self, mark: str | None) -> tuple[str, int]:
        with self._news:
            life, _, place = (mark or "").partition("-")
            known = life == self._life and place.isascii() and place.isdigit() and int(place) <= len(self._arrived)
            return self._life, int(place) if known else 0

    def spill(self, number: int) -> Spill | None:
        """One spill, unpacked; None where it is not in or failed without data."""
        with self._news:
            place = self._places.get(number)
            held = None if place is None else self._arrived[place]
        packed = None if held is None else self._whole(held).packed
        return None if packed is None else unpacked(packed)

    def drop(self) -> None:
        """Remove all of it; who follows it gets NotFound."""
        with self._news:
            self._record, self._life = None, secrets.token_hex(8)
            self._arrived, self._places, self._large = [], {}, {}
            self._news.notify_all()
        if self._files is not None:
            self._files.drop(self.run)

    def _must_exist(self) -> None:
        if self._record is None:
            raise NotFound(f"run {self.run!r} has no spills in memory: it was not begun here, or it was dropped")
