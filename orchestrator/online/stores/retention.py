"""Which runs' spills may go: only of runs that are final, so whose snapshot is safe."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from types import TracebackType

from orchestrator.errors import OrchestratorError
from orchestrator.online.store import RunRecord, Stores

log = logging.getLogger(__name__)

FIRST = 30.0  # s after the transform's start, which has more important things to do
EVERY = 600.0  # s between two looks
INPUTS = 16  # of which the newest run stays, the ones used last; each replay may be another one


def expired(records: Iterable[RunRecord], *, now: datetime, keep: float, most: int) -> list[str]:
    """The runs whose spills may be removed, the oldest first.

    Never the newest run, nor that of an input used lately: its record says where the input is, and a replay in
    between must not make the DAQ's files be read from their beginning.

    Args:
        records: of all runs.
        now: the time, aware.
        keep: seconds that spills stay after the run's snapshot.
        most: final runs that stay at most, the newest ones.
    """
    known = list(records)
    in_time = sorted(known, key=lambda one: (one.begun, one.run), reverse=True)
    newest: dict[str, str] = {}
    for one in in_time:
        if len(newest) < INPUTS:
            newest.setdefault(str(one.configuration.get("input")), one.run)
    stays = set(newest.values())
    final = sorted((one for one in known if one.state == "final"), key=lambda one: (_time(one), one.run))
    surplus = {one.run for one in final[: max(0, len(final) - most)]}
    late = {one.run for one in final if (now - _time(one)).total_seconds() >= keep}
    return [one.run for one in final if one.run not in stays and one.run in surplus | late]


def prune(stores: Stores, *, now: datetime, keep: float, most: int, spare: Iterable[str] = ()) -> list[str]:
    """Remove the spills of runs that may go; returns which. One that cannot be removed now is left for the next time.

    ``spare``: runs that are read at the moment, by a replay, say.
    """
    gone = []
    spared = set(spare)
    for run in expired(stores.runs(), now=now, keep=keep, most=most):
        if run in spared:
            continue
        try:
            stores.of(run).drop()
        except OrchestratorError as error:
            log.warning("the spills of run %s could not be removed now: %s", run, error)
            continue
        log.info("the spills of run %s are removed: its snapshot is safe", run)
        gone.append(run)
    return gone


class Pruning:
    """Looks now and then, in a thread of its own while it is entered, which runs' spills may go.

    ``keep`` in s and ``most`` as in ``online.yaml``. ``wait(seconds)`` says whether to stop; by default the real one.
    """

    def __init__(self, stores: Stores, keep: float, most: int, *, wait: Callable[[float], bool] | None = None) -> None:
        self._stores, self._keep, self._most = stores, keep, most
        self._stop = threading.Event()
        self._wait = wait or self._stop.wait
        self._thread = threading.Thread(target=self._work, name="retention", daemon=True)

    def __enter__(self) -> Pruning:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()

    def _work(self) -> None:
        pause = FIRST
        while not self._wait(pause):
            pause = EVERY
            try:
                prune(self._stores, now=datetime.now(UTC), keep=self._keep, most=self._most)
            except OrchestratorError as error:
                log.debug("which runs' spills may go cannot be seen now: %s", error)


def _time(record: RunRecord) -> datetime:
    """When the snapshot was safe; where that is not known, a time that is surely later than the run's end."""
    for text in (record.snapshot, record.ended, record.begun):
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            continue
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    return datetime.max.replace(tzinfo=UTC)
