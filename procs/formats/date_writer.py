"""Writing DATE files, for the simulated DAQ and for tests. What was read can be written again, byte for byte."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from procs.formats import date_layout as layout
from procs.formats.date import DateEvent, SubEvent
from procs.formats.date_boards import GLOBAL_HEADER, GLOBAL_TRAILER, MEASUREMENT, TDC_HEADER, TDC_TRAILER, TIME_TAG

Words = NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class EventId:
    """What the headers of an event and of its sub-events have in common."""

    type: int
    run: int
    spill: int = 0
    number: int = 0
    seconds: int = 0
    microseconds: int = 0
    gdc: int = 2

    @property
    def number_word(self) -> int:
        """Word 7: in a spill's events the spill << 20 plus the number in the spill."""
        return (self.spill << 20 | self.number) & 0xFFFFFFFF


def header(event: EventId, ldc: int, payload: int) -> bytes:
    """The 80-byte header of an event or sub-event with ``payload`` bytes after it."""
    words = np.zeros(layout.HEADER // 4, dtype="<u4")
    words[layout.SIZE] = layout.HEADER + payload
    words[layout.MAGIC_WORD] = layout.MAGIC
    words[layout.HEAD_SIZE] = layout.HEADER
    words[layout.VERSION_WORD] = layout.VERSION
    words[layout.TYPE] = event.type
    words[layout.RUN] = event.run
    words[layout.SPILL] = event.spill
    words[layout.NUMBER] = event.number_word
    words[layout.LDC], words[layout.GDC] = ldc, event.gdc
    words[layout.SECONDS], words[layout.MICROSECONDS] = event.seconds, event.microseconds
    return words.tobytes()


def equipment(
    kind: int, number: int, words: Words | Sequence[int] = (), attributes: Sequence[int] = (0, 0, 0), element: int = 0
) -> bytes:
    """An equipment block."""
    payload = np.asarray(words, dtype="<u4").tobytes()
    head = [layout.EQUIPMENT_HEADER + len(payload), kind, number, *attributes, element]
    return np.array(head, dtype="<u4").tobytes() + payload


def super_event(event: EventId, parts: Iterable[tuple[int, Iterable[bytes]]]) -> bytes:
    """An event as a GDC assembles it; ``parts`` are (LDC id, its equipment blocks)."""
    body = b""
    for ldc, blocks in parts:
        payload = b"".join(blocks)
        body += header(event, ldc, len(payload)) + payload
    return header(event, layout.SUPER, len(body)) + body


def write_event(event: DateEvent) -> bytes:
    """An event that was read, as the bytes it was read from."""
    own = event.header[layout.LDC] != layout.SUPER
    parts = [_sub_event(part) for part in event.sub_events]
    return b"".join(parts) if own else event.header.tobytes() + b"".join(parts)


def _sub_event(part: SubEvent) -> bytes:
    blocks = [equipment(b.kind, b.id, b.words, b.attributes, b.element_size) for b in part.blocks]
    return part.header.tobytes() + part.payload + b"".join(blocks)


@dataclass(frozen=True, slots=True)
class Hit:
    """One TDC measurement: chip 0-3, channel 0-31, edge 0 leading or 1 trailing, time in counts of 25 ps."""

    tdc: int
    channel: int
    edge: int
    time: int


def v1290_words(
    geo: int, first_count: int, triggers: Sequence[Sequence[Hit]], time_tags: Sequence[int], bunch: int = 0
) -> Words:
    """The words that a V1290 sends for these triggers: all four chips with header and trailer, a time tag each."""
    words: list[int] = []
    for index, hits in enumerate(triggers):
        count = first_count + index
        one = [GLOBAL_HEADER << 27 | (count & 0x3FFFFF) << 5 | geo]
        for chip in range(4):
            own = [hit for hit in hits if hit.tdc == chip]
            identity = chip << 24 | (count & 0xFFF) << 12
            one.append(TDC_HEADER << 27 | identity | bunch & 0xFFF)
            for hit in own:
                one.append(MEASUREMENT << 27 | hit.edge << 26 | hit.channel << 21 | hit.time & 0x1FFFFF)
            one.append(TDC_TRAILER << 27 | identity | len(own) + 2)
        one.append(TIME_TAG << 27 | time_tags[index] & 0x7FFFFFF)
        words += [*one, GLOBAL_TRAILER << 27 | (len(one) + 1 & 0xFFFF) << 5 | geo]
    return np.array(words, dtype=np.uint32)


def flash_words(kind: int, board: int, samples: NDArray[Any], time_tags: Sequence[int], mask: int = 0xFF) -> Words:
    """The words of a V1724 (``kind`` 120) or V1731 (121) for ``samples`` (triggers, channels in the mask, points).

    Points per channel come in whole words: an even number (V1724), a multiple of four (V1731).
    """
    kept = samples.astype("<u2" if kind == layout.V1724 else "u1")
    words: list[Words] = []
    for index, trace in enumerate(kept):
        body = np.frombuffer(np.ascontiguousarray(trace).tobytes(), "<u4")
        head = [0xA << 28 | 4 + len(body), board << 27 | mask, index + 1 & 0xFFFFFF, time_tags[index] & 0xFFFFFFFF]
        words += [np.array(head, dtype=np.uint32), body]
    return np.concatenate(words) if words else np.zeros(0, dtype=np.uint32)
