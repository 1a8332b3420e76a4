"""The transform at work: one loop around the pure :mod:`transform`, with the input, the store and the workers outside.

A spill's bytes pass through as they are: packed by the input's thread, unpacked and packed again by a worker, handed to
the store's thread. The loop itself never waits for any of them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import zmq

from orchestrator import faults
from orchestrator.documents import iso
from orchestrator.errors import OrchestratorError, SettingsError
from orchestrator.online import wire
from orchestrator.online.commands import Begin, Birth, Command, Configure, Death, End, Give, Keep, Open, Refuse
from orchestrator.online.configuration import Online
from orchestrator.online.crew import Crew
from orchestrator.online.dispatch import Dispatcher
from orchestrator.online.keeper import Keeper
from orchestrator.online.keys import Secure
from orchestrator.online.module import Input
from orchestrator.online.progress import Progress, counts
from orchestrator.online.reader import Reader
from orchestrator.online.run import Run
from orchestrator.online.spill import EndOfRun
from orchestrator.online.store import RunRecord, Stores
from orchestrator.online.talk import Talk
from orchestrator.online.transform import Transform

log = logging.getLogger(__name__)

TICK = 0.1  # s between two looks at children, times and the signal to stop
SAVES = 1.0  # s between two saved positions; what is read again after a kill, and found to be there already
CLOSING = 20.0  # s that the store may take for what it was given, when the transform is stopped
WORKERS_END = 3.0  # s that local workers may take to end


@dataclass(frozen=True)
class Outside:
    """What the coordinator works with. ``publish(kind, run, header)`` sends to the broadcast and never waits.

    ``input_about``: a hash of the input and its settings; a position that was saved holds for the same one only.
    """

    online: Online
    stores: Stores
    input_: Input
    input_about: str
    publish: Callable[[str, str, dict[str, Any]], None]
    secure: Secure | None = None
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time


class Coordinator:
    """Runs the transform until it is told to stop.

    Args:
        outside: see there.
        crew: the local workers.
        progress: where it tells how it is.
        context: of ZeroMQ.
        drain: s that spills in hand may take when it is stopped.
        until_end: end when the input has ended and all is done, instead of waiting to be stopped.

    Raises:
        Conflict: the workers' port is taken.
        SettingsError: the address or a module cannot be used.
        DatabaseError: the store cannot be asked what is there.
    """

    def __init__(
        self, outside: Outside, crew: Crew, progress: Progress, context: Any, *, drain: float = 10.0,
        until_end: bool = False,
    ) -> None:  # fmt: skip
        online = outside.online
        self._outside, self._crew, self._progress = outside, crew, progress
        self._drain, self._until_end = drain, until_end
        known = outside.stores.runs()
        mine = [one.position for one in known if one.configuration.get("input") == outside.input_about]
        position = mine[-1] if mine else None
        expected = [place.name for place in crew.places] + list(online.workers.remote)
        self._workers = Dispatcher(tries=online.workers.tries, timeout=online.workers.timeout, expected=expected)
        self._machine = Transform(self._workers, position=position)
        self._talk = Talk(context, online, self._machine, crew, outside.secure)
        self.address = self._talk.address
        for record in known:
            if record.state == "begun":
                log.info("run %s was left without its end and goes on", record.run)
                self._machine.resume(record.run)
        self._read_end, self._write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._keeper = Keeper(outside.stores, self._wake)
        self._reader = Reader(outside.input_, position, self._wake, now=outside.now)
        self._records: dict[str, RunRecord] = {}
        self._saved = 0  # changes of the ledger that are written down, or told to the input
        self._saving = False
        self._idle: Any = None  # workers and trouble as they were told last while no run was on
        self._next_tick = self._next_save = self._next_ping = 0.0

    # -- the loop

    def run(self, stopping: Callable[[], bool]) -> None:
        """Work until ``stopping`` says so.

        Raises:
            SettingsError: workers that must be there differ; each is named.
            OrchestratorError: what the input or the store says, when no waiting mends it.
        """
        poller = zmq.Poller()
        poller.register(self._talk.socket, zmq.POLLIN)
        poller.register(self._read_end, zmq.POLLIN)
        self._reader.start()
        try:
            while not stopping() and not (self._until_end and self._machine.finished_all):
                poller.poll(int(TICK * 1000))
                self._step()
            self._finish(poller)
        finally:
            self._end()

    def _step(self) -> None:
        _drain(self._read_end)
        now = self._outside.clock()
        self._talk.hear(now)
        for word, run, what in self._keeper.answers():
            self._answered(word, run, what)
        self._read()
        self._pump(now)
        if now >= self._next_tick:
            self._next_tick = now + TICK
            self._tick(now)

    def _read(self) -> None:
        machine = self._machine
        while machine.room and (found := self._reader.take(64)):
            for one in found:
                machine.read(one.item, one.payload, one.position)
        if self._reader.over and self._reader.empty and self._reader.error is None:
            machine.finished()

    def _pump(self, now: float) -> None:
        while commands := self._machine.pump(now):
            for command in commands:
                self._do(command)

    def _do(self, command: Command) -> None:
        match command:
            case Give():
                self._talk.give(command)
            case Keep(run, outcome):
                self._keeper.put(run, outcome)
            case Configure():
                self._talk.configure(command)
            case Refuse():
                self._talk.refuse(command)
            case Birth():
                self._talk.birth(command)
            case Death():
                self._talk.death(command)
            case Open(run):
                self._keeper.open(run)
            case Begin(run, position):
                self._begin_run(run, position)
            case End(run, end, position):
                self._end_run(run, end, position)

    def _tick(self, now: float) -> None:
        self._look_after_workers(now)
        if now >= self._next_ping:
            self._next_ping = now + wire.PINGS
            self._talk.ping()
        if self._reader.silence() > self._outside.online.end_of_run:
            self._machine.quiet()
        self._save_position(now)
        self._tell(now)
        self._must_go_on()

    def _look_after_workers(self, now: float) -> None:
        overtime = f"took longer than {self._workers.timeout:g} s"
        for ended in self._crew.tick(now, self._workers.useful):
            why = overtime if ended.overtime else ended.how
            log.warning("the worker %s %s", ended.name, why)
            self._talk.lost(ended.name, why, fatal=ended.overtime)
            self._workers.useful.pop(ended.name, None)
        for worker in self._workers.overdue(now):
            log.warning("the worker %s %s and is replaced", worker.name, overtime)
            self._crew.kill(worker.name)
            self._machine.gone(worker.key, overtime, fatal=True)

    def _must_go_on(self) -> None:
        refusal = self._workers.refusal()
        if refusal and not self._machine.started:
            raise SettingsError(refusal)
        if self._keeper.error is not None:
            raise self._keeper.error
        error = self._reader.error
        if error is not None and self._reader.empty and self._machine.ledger.open == 0:
            if isinstance(error, OrchestratorError):
                raise error
            module = self._outside.online.input.module
            raise OrchestratorError(f"the input {module} has failed: {type(error).__name__}: {error}") from error

    # -- what is written down

    def _begin_run(self, run: Run, position: Any) -> None:
        old = self._records.get(run.name)
        record = RunRecord(run.name, "begun", begun=old.begun if old else "", header=dict(run.header))
        record.begun = record.begun or iso(self._outside.now())
        if old is not None:
            record.opened = old.opened + (old.state != "begun")
        record.configuration = {
            "input": self._outside.input_about, "digest": self._talk.digest, "versions": self._talk.versions,
            "map": [one.module for one in self._outside.online.maps()],
        }  # fmt: skip
        self._save(run, record, position)

    def _end_run(self, run: Run, end: EndOfRun, position: Any) -> None:
        record = replace(
            self._records[run.name], state="ended", how=end.how, ended=iso(self._outside.now()), spills=run.read
        )
        if end.trailer:
            record.header = {**record.header, "trailer": end.trailer}
        self._save(run, record, position)
        if end.spills is not None and end.spills != run.read:
            log.warning("run %s: the DAQ says it has %d spills, %d have come", run.name, end.spills, run.read)

    def _save(self, run: Run, record: RunRecord, position: Any) -> None:
        record.done, record.failed, record.position = run.done, run.failed, position
        run.begun, run.opened = record.begun, record.opened
        self._records[run.name] = record
        self._keeper.save(run, record)

    def _save_position(self, now: float) -> None:
        """Now and then write down how far all is in the store; an input without a run on is told at once."""
        run, ledger = self._machine.run, self._machine.ledger
        if self._saving or now < self._next_save or ledger.changes == self._saved:
            return
        if run is not None and run.state in ("running", "ending"):
            self._saved, self._saving = ledger.changes, True
            self._next_save = now + SAVES
            self._save(run, replace(self._records[run.name]), ledger.position)
        elif ledger.open == 0 and ledger.position is not None and (run is None or run.state == "dormant"):
            self._saved = ledger.changes
            self._reader.safe(ledger.position)

    def _answered(self, word: str, run: Run, what: Any) -> None:
        if word == "stored":
            self._machine.stored(run, what)
            return
        if word == "open":
            record, known = what
            if record is not None:
                self._records[run.name] = record
                run.begun, run.opened = record.begun, record.opened
            self._machine.opened(run, known, record.state if record else "", record.header if record else {})
            return
        self._saving = False
        faults.point("transform.placed")
        if what.position is not None:
            self._reader.safe(what.position)
        if what.state == "ended":
            faults.point("transform.ended")
            log.info("run %s has ended (%s): %d done, %d failed", run.name, what.how, what.done, what.failed)
            self._publish_run(run, what)
            self._machine.ended(run)
        elif run.state == "beginning":
            faults.point("transform.begun")
            log.info("run %s has begun%s", run.name, f" with {run.read} spills already in" if run.read else "")
            self._publish_run(run, what)
            self._machine.begun(run)

    # -- telling

    def _publish_run(self, run: Run, record: RunRecord) -> None:
        said: dict[str, Any] = {"state": record.state, "begun": record.begun, "header": record.header}
        if record.state == "ended":
            said |= {"ended": record.ended, "how": record.how, "spills": record.spills, **run.counts}
            self._outside.publish("counts", run.name, counts(self._machine, self._crew))
        self._outside.publish("run", run.name, said)

    def _tell(self, now: float) -> None:
        error = self._reader.error
        said = self._progress.say(
            now, self._machine, crew=self._crew, store_away=self._keeper.away, silence=self._reader.silence(),
            input_error="" if error is None else str(error),
        )  # fmt: skip
        if said is None:
            return
        run, last = self._machine.run, self._machine.last
        if run is not None:
            self._outside.publish("counts", run.name, said)
        elif last is not None and (said["workers"], said["trouble"]) != self._idle:
            # Pages show the last run until the next one, and the workers as they are now.
            self._idle = said["workers"], said["trouble"]
            self._outside.publish("counts", last.name, said | {"run": last.name, "run_state": "ended", **last.counts})

    # -- the end

    def _finish(self, poller: Any) -> None:
        """Take in what workers have in hand; the rest is read again by the next transform."""
        self._reader.stop()
        self._machine.stop()
        end = self._outside.clock() + self._drain
        while self._outside.clock() < end and any(one.tasks for one in self._workers.workers.values()):
            poller.poll(int(TICK * 1000))
            self._step()
        run = self._machine.run
        end = self._outside.clock() + CLOSING
        while run is not None and run.keeping and not self._keeper.away and self._outside.clock() < end:
            poller.poll(int(TICK * 1000))
            self._step()
        if run is not None and run.state in ("running", "ending") and not self._keeper.away:
            self._save(run, replace(self._records[run.name]), self._machine.ledger.position)
        self._talk.bye()

    def _end(self) -> None:
        """Whatever has happened: the store gets what it was given, and no worker is left."""
        self._reader.stop()
        self._keeper.close(CLOSING if not self._keeper.away else 1.0)
        end = self._outside.clock() + WORKERS_END
        while not self._crew.stop() and self._outside.clock() < end:
            time.sleep(0.05)
        self._crew.end()
        self._talk.socket.close(linger=200)
        os.close(self._read_end)
        self._write_end, closed = -1, self._write_end
        os.close(closed)
        self._progress.end(self._machine)

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it is awake; closed: it has ended
            os.write(self._write_end, b"!")


def _drain(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.read(descriptor, 65536)
