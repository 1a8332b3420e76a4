"""From events to spills and runs: what belongs together, where a run begins and how it ends. Pure.

A spill is all events of one spill number that come one after the other; where a DAQ's number has been used in the run
already, the spill gets the next free one, so that none hides another. What comes out always has the form
(start of run, spills, end of run), repeated; a run that goes on after its trailer begins once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from orchestrator.online.spill import EndOfRun, Item, Spill, StartOfRun
from procs.formats import date_layout as layout
from procs.online.inputs.date_events import Head

MOST_PROBLEMS = 20  # of a run that are told; where one comes with each spill, the first ones say it all

#: Where a spill's bytes are: file, first byte, byte after the last.
Piece = tuple[str, int, int]


@dataclass(slots=True)
class _Pending:
    run: int
    spill: int
    time: float
    pieces: list[Piece] = field(default_factory=list)
    error: str = ""


@dataclass
class Runs:
    """Takes events one by one and gives out what they complete.

    Attributes:
        run: of the events last seen; None before the first.
        open: it has begun and not ended.
        last: the highest number that a spill of it has.
        at: file and byte up to which everything was given out.
    """

    run: str | None = None
    open: bool = False
    last: int = -1
    at: tuple[str, int] = ("", 0)
    whole_at_end_of_burst: bool = True
    said: Callable[[str], None] = lambda _: None
    problems: list[str] = field(default_factory=list)
    _pending: _Pending | None = None

    def event(self, event: Head, path: str, name: str = "") -> Iterator[Item]:
        """The event ``event`` of the file ``path`` is the next one; ``name``: of its run, if not its number."""
        name = name or str(event.run)
        if self.open and name != self.run:
            yield from self.flush()
            yield self._end("next run", event.time)
        if event.type in layout.WITH_EQUIPMENT or event.type > layout.CALIBRATION:
            yield from self._data(event, name, path)
            return
        yield from self.flush()
        self.at = (path, event.stop)
        if event.type in (layout.START_OF_RUN, layout.SOR_FILES) and not self.open:
            yield self._begin(event, name)
        elif event.type == layout.END_OF_RUN and self.open:
            yield self._end("trailer", event.time)

    def extends(self, event: Head, path: str) -> bool:
        """Whether an event is simply one more of the spill that has begun; it is taken in then. The quick way for files
        with many small events; for all others there is :meth:`event`."""
        pending = self._pending
        if pending is None or event.spill != pending.spill or event.type != layout.PHYSICS or event.run != pending.run:
            return False
        last = pending.pieces[-1]
        if last[0] != path:
            return False
        pending.pieces[-1] = (path, last[1], event.stop)
        return True

    def flush(self) -> Iterator[Item]:
        """What has come of a spill is all of it."""
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        number = pending.spill
        if number <= self.last:
            number = self.last + 1
            self.problem(
                f"run {self.run}: spill {pending.spill} comes again (at byte {pending.pieces[0][1]} of "
                f"{pending.pieces[0][0]}); it is taken as spill {number}"
            )
        self.last = number
        path, _, stop = pending.pieces[-1]
        self.at = (path, stop)
        data: dict[str, Any] = {"raw": {"pieces": pending.pieces}}
        errors = {"input": pending.error} if pending.error else {}
        yield Spill(str(self.run), number, pending.time, None, data, errors)

    def finish(self, how: str, time: float | None = None) -> Iterator[Item]:
        """Nothing more comes."""
        yield from self.flush()
        if self.open:
            yield self._end(how, time)

    def damaged(self, sentence: str) -> None:
        """Bytes that are no event lie before the next one; what has come of a spill may lack some of it."""
        self.problem(sentence)
        if self._pending is not None:
            self._pending.error = sentence

    def problem(self, sentence: str) -> None:
        """Something that a person should know; it also goes into the run's record, at its end."""
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(sentence)
            self.said(sentence)

    @property
    def waiting(self) -> bool:
        """Whether a spill has begun of which more may come."""
        return self._pending is not None

    def _data(self, event: Head, name: str, path: str) -> Iterator[Item]:
        if not self.open:
            self.at = (path, event.offset)
            yield self._begin(event, name)
        if self._pending is not None and self._pending.spill != event.spill:
            yield from self.flush()
        if self._pending is None:
            self._pending = _Pending(event.run, event.spill, event.time)
        pieces = self._pending.pieces
        if pieces and pieces[-1][0] == path:
            pieces[-1] = (path, pieces[-1][1], event.stop)  # with what may be damaged between the two
        else:
            pieces.append((path, event.offset, event.stop))
        if event.type == layout.END_OF_BURST and self.whole_at_end_of_burst:
            yield from self.flush()

    def _begin(self, event: Head, name: str) -> StartOfRun:
        if name != self.run:
            self.run, self.last, self.problems = name, -1, []
        self.open = True
        return StartOfRun(name, event.time, {"format": "DATE", "run_number": event.run})

    def _end(self, how: str, time: float | None) -> EndOfRun:
        self.open = False
        problems, self.problems = self.problems, []
        return EndOfRun(str(self.run), how, time, None, {"problems": problems} if problems else {})
