"""DATE files (ALICE's DAQ, MICE): open one, walk its events, take its spills in batches.

    file = date.open("mice_06008.000")
    for event in file.events():
        event.type, event.spill, event.blocks()
    for batch in file.spills(chunk=8):
        batch.hit_board, batch.hit_time_ns, batch.samples, ...

What is an error and what is counted:

- Sizes, magic words and nesting (events, sub-events, equipment blocks) that cannot be right are always a
  :class:`~orchestrator.errors.FormatError` with the byte offset.
- Inconsistencies inside a board's words (word counts, event counts, unknown words) are the same error by default. With
  ``strict=False`` they are counted in :attr:`DateFile.problems`, with the first ones' offsets, and decoding goes on.
- A file that ends inside its last event is an error after all complete events were yielded, or, with
  ``keep_truncated=True``, the end of the events with :attr:`DateFile.truncated` set.
- Flash ADC blocks that are no plain samples stay raw words; :attr:`DateFile.undecoded` says which and why.

Memory is bounded by an event (``events``) or by ``chunk`` physics events (``spills``).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import FormatError
from procs.formats import date_layout as layout
from procs.formats import names
from procs.formats.window import CHUNK, Truncation, Window

if TYPE_CHECKING:
    from procs.formats.date_spills import SpillBatch

Words = NDArray[np.uint32]
MAX_EXAMPLES = 20  # problems kept with their offsets


@dataclass(slots=True)
class Equipment:
    """An equipment block. ``offset`` is that of its header in the file; ``words`` are its payload."""

    offset: int
    ldc: int
    kind: int
    id: int
    attributes: tuple[int, int, int]
    element_size: int
    words: Words

    @property
    def name(self) -> str:
        """What the equipment is, for people."""
        return layout.EQUIPMENT_NAMES.get(self.kind, f"equipment type {self.kind}")


@dataclass(slots=True)
class SubEvent:
    """A sub-event of one LDC: its header's words, and its equipment blocks (none where the payload is something else,
    as in start-of-run files; then ``payload`` holds its bytes)."""

    offset: int
    header: Words
    blocks: list[Equipment] = field(default_factory=list)
    payload: bytes = b""


@dataclass(slots=True)
class DateEvent:
    """An event: ``header`` is its header's words, ``offset`` its first byte in the file, ``index`` counts from 0.
    An event that no GDC assembled is its own and only sub-event."""

    index: int
    offset: int
    header: Words
    sub_events: list[SubEvent]

    @property
    def size(self) -> int:
        """Bytes of the whole event."""
        return int(self.header[layout.SIZE])

    @property
    def type(self) -> int:
        """See :data:`date_layout.EVENT_TYPES`."""
        return int(self.header[layout.TYPE])

    @property
    def run(self) -> int:
        """Run number."""
        return int(self.header[layout.RUN])

    @property
    def spill(self) -> int:
        """The spill's number in the run, from 0."""
        return int(self.header[layout.SPILL])

    @property
    def number(self) -> int:
        """The event's number in its spill."""
        return int(self.header[layout.NUMBER]) & layout.NUMBER_MASK

    @property
    def seconds(self) -> int:
        """Unix time."""
        return int(self.header[layout.SECONDS])

    @property
    def microseconds(self) -> int:
        """Microseconds of the time."""
        return int(self.header[layout.MICROSECONDS])

    def blocks(self) -> list[Equipment]:
        """The equipment blocks of all sub-events."""
        return [block for sub_event in self.sub_events for block in sub_event.blocks]


class DateFile:
    """A DATE file that was opened.

    Attributes:
        run: the run number of the first event; ``run_name``, ``file_number`` from the file's name where it is of the
            form ``<run>.<NNN>`` or ``<run>_<NNN>``, else from the run number.
        truncated: set by :meth:`events` and :meth:`spills` if the file ends inside an event.
        problems: how often each inconsistency was met (``strict=False``); ``examples``: the first ones with offsets.
        undecoded: how many blocks stayed raw words, by equipment and reason.
        counts: events by type, once they were read.
    """

    def __init__(self, path: Path, size: int, first: Words, strict: bool) -> None:
        self.path = path
        self.size = size
        self.strict = strict
        self.chunk = CHUNK  # bytes read at once
        self.first_header = first
        self.run = int(first[layout.RUN])
        name = names.from_dotted_name(path) or names.from_samba_name(path)
        self.run_name = name.run_name if name else str(self.run)
        self.file_number = name.file_number if name else 0
        self.truncated: Truncation | None = None
        self.problems: Counter[str] = Counter()
        self.examples: list[str] = []
        self.undecoded: Counter[str] = Counter()
        self.counts: Counter[int] = Counter()

    def problem(self, sentence: str, offset: int) -> None:
        """Raise an inconsistency (strict), or count it."""
        if self.strict:
            raise FormatError(sentence, path=str(self.path), offset=offset)
        self.problems[sentence] += 1
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(f"{sentence} (at byte {offset})")

    def events(self, *, keep_truncated: bool = False) -> Iterator[DateEvent]:
        """The events in file order.

        Raises:
            FormatError: with the byte offset, after all complete events before it were yielded.
        """
        self.truncated = None
        self.problems, self.undecoded, self.counts = Counter(), Counter(), Counter()
        self.examples = []
        with self._window() as window:
            position = window.move(0)
            index = 0
            while window.base + position < window.size:
                left = window.size - window.base - position
                position = self._hold(window, position, min(layout.HEADER, left))
                reason = self._cut(window, position, left)
                if reason:
                    offset = window.base + position
                    self.truncated = Truncation(offset, reason)
                    if not keep_truncated:
                        raise FormatError(
                            f"the last event is not complete: {reason}", path=str(self.path), offset=offset
                        )
                    return
                size = int.from_bytes(window.data[position : position + 4], "little")
                position = self._hold(window, position, size)
                event = self._event(window, position, size, index)
                self.counts[event.type] += 1
                yield event
                position += size
                index += 1

    def spills(
        self, chunk: int = 8, *, keep_truncated: bool = False, max_bytes: int | None = None
    ) -> Iterator[SpillBatch]:
        """The physics and calibration events, decoded, with a table of all events on the way.

        A batch ends with its ``chunk``-th event, or with the one that reaches ``max_bytes`` of raw data.
        """
        from procs.formats.date_spills import batches  # it needs this module's classes

        return batches(self, chunk, keep_truncated, max_bytes)

    def _window(self) -> Window:
        return Window(self.path, min(self.chunk, max(self.size, 1)))

    @staticmethod
    def _hold(window: Window, position: int, size: int) -> int:
        return position if position + size <= len(window.data) else window.advance(position, size)

    def _error(self, message: str, offset: int) -> FormatError:
        return FormatError(message, path=str(self.path), offset=offset)

    def _cut(self, window: Window, position: int, left: int) -> str:
        """Why the event at ``position`` is not complete, or nothing; an error where it is not even an event."""
        offset = window.base + position
        data = window.data[position : position + layout.HEADER]
        if left >= 8:
            check_magic(data[4:8], str(self.path), offset + 4)
        if left < layout.HEADER:
            return f"{left} bytes are left, a header has {layout.HEADER}"
        size = int.from_bytes(data[:4], "little")
        check_sizes(size, int.from_bytes(data[8:12], "little"), str(self.path), offset, "event")
        if size > layout.MAX_EVENT:
            raise self._error(
                f"an event of {size} bytes is declared; more than {layout.MAX_EVENT} is a size gone wrong", offset
            )
        if size <= left:
            return ""
        if self._another_event(window, position, data):
            raise self._error(
                f"an event of {size} bytes is declared, {left} are left in the file, and other events begin among "
                "them: its size is wrong",
                offset,
            )
        return f"the event says it has {size} bytes, and {left} are left"

    @staticmethod
    def _another_event(window: Window, position: int, header: bytes) -> bool:
        """Whether a header of the same kind (run, LDC id) begins at a later word of the file."""
        start, stop = window.base + position + layout.HEADER, window.size
        base, data = window.base, window.data
        try:
            while start + layout.HEADER <= stop:
                window.move(start, layout.HEADER)
                words = np.frombuffer(window.data, "<u4", len(window.data) // 4)
                for place in np.flatnonzero(words == layout.MAGIC):
                    found = words[place - 1 : place - 1 + layout.HEADER // 4] if place > 0 else words[:0]
                    head = found.tobytes()
                    if len(head) == layout.HEADER and head[64:68] == header[64:68] and head[20:24] == header[20:24]:
                        return True
                if window.at_end:
                    break
                start += max(4, len(words) * 4 - layout.HEADER)
            return False
        finally:
            window.base, window.data = base, data

    def _event(self, window: Window, position: int, size: int, index: int) -> DateEvent:
        """The event of ``size`` bytes at ``position``, its structure checked down to the equipment blocks."""
        words = np.frombuffer(window.data, "<u4", size // 4, position)
        offset = window.base + position
        head = int(words[layout.HEAD_SIZE]) // 4
        event = DateEvent(index, offset, words[:head], [])
        if words[layout.LDC] != layout.SUPER:
            event.sub_events.append(self._sub_event(words, offset, event.type))
            return event
        start = head
        while start < len(words):
            here = offset + 4 * start
            rest = words[start:]
            if len(rest) < layout.HEADER // 4:
                raise self._error(
                    f"{4 * len(rest)} bytes are left in the event: no room for a sub-event's header", here
                )
            check_magic(rest[1:2].tobytes(), str(self.path), here + 4)
            part = int(rest[0])
            check_sizes(part, int(rest[layout.HEAD_SIZE]), str(self.path), here, "sub-event")
            if part > 4 * len(rest):
                raise self._error(
                    f"a sub-event of {part} bytes runs past its event, which has {4 * len(rest)} left", here
                )
            if rest[layout.LDC] == layout.SUPER:
                raise self._error("a super event inside a super event", here)
            for word, what in (
                (layout.RUN, "run number"),
                (layout.TYPE, "event type"),
                (layout.SPILL, "spill number"),
                (layout.NUMBER, "event id"),
            ):
                if rest[word] != words[word]:
                    self.problem(f"a sub-event has another {what} than its event", here + 4 * word)
            event.sub_events.append(self._sub_event(rest[: part // 4], here, event.type))
            start += part // 4
        return event

    def _sub_event(self, words: Words, offset: int, kind: int) -> SubEvent:
        head = int(words[layout.HEAD_SIZE]) // 4
        sub_event = SubEvent(offset, words[:head])
        if kind not in layout.WITH_EQUIPMENT:
            sub_event.payload = words[head:].tobytes()
            return sub_event
        ldc = int(words[layout.LDC])
        fixed = layout.EQUIPMENT_HEADER // 4
        start = head
        while start < len(words):
            here = offset + 4 * start
            left = 4 * (len(words) - start)
            first = words[start : start + fixed].tolist()
            size = first[0]
            if size < layout.EQUIPMENT_HEADER or size % 4:
                raise self._error(
                    f"expected an equipment block of 28 bytes or more in whole words, found size {size}", here
                )
            if size > left:
                raise self._error(
                    f"an equipment block of {size} bytes runs past its sub-event, which has {left} left", here
                )
            if first[1] == layout.MAGIC:
                raise self._error("expected an equipment block, found a sub-event's header (LDC id wrong above?)", here)
            sub_event.blocks.append(
                Equipment(
                    offset=here,
                    ldc=ldc,
                    kind=first[1],
                    id=first[2],
                    attributes=(first[3], first[4], first[5]),
                    element_size=first[6],
                    words=words[start + fixed : start + size // 4],
                )
            )
            start += size // 4
        return sub_event


def check_magic(found: bytes, path: str, offset: int) -> None:
    """Raise unless these four bytes are the magic word."""
    if found == layout.MAGIC_BYTES:
        return
    hint = " (the bytes are swapped: a big-endian file)" if found == layout.MAGIC_BYTES[::-1] else ""
    value = int.from_bytes(found, "little")
    raise FormatError(f"expected the magic word 0xDA1E5AFE, found 0x{value:08X}{hint}", path=path, offset=offset)


def check_sizes(size: int, head: int, path: str, offset: int, what: str) -> None:
    """Raise unless an event's two sizes can be right."""
    if head < layout.HEADER or head % 4:
        raise FormatError(
            f"expected a header of 80 bytes or more in whole words, found {head}", path=path, offset=offset + 8
        )
    if size < head or size % 4:
        raise FormatError(
            f"expected the {what}'s size in whole words and no less than its header's {head} bytes, found {size}",
            path=path,
            offset=offset,
        )


def open(path: str | os.PathLike[str], *, strict: bool = True) -> DateFile:
    """Open a DATE file and check its first header.

    Args:
        path: the file.
        strict: an inconsistency inside a board's words is an error; else it is counted.

    Raises:
        FormatError: no DATE file.
        OSError: the file cannot be read.
    """
    with Window(path, layout.HEADER) as window:
        window.move(0)
        if len(window.data) >= 8:
            check_magic(window.data[4:8], window.path, 4)
        if len(window.data) < layout.HEADER:
            raise FormatError(
                f"the file has {len(window.data)} bytes, a DATE header has {layout.HEADER}", path=window.path, offset=0
            )
        first = np.frombuffer(window.data, "<u4", layout.HEADER // 4)
        check_sizes(int(first[0]), int(first[layout.HEAD_SIZE]), window.path, 0, "event")
        return DateFile(Path(path), window.size, first, strict)
