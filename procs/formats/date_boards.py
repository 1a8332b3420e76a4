"""Decoding of the boards' words: CAEN V1290 TDC, V1724 and V1731 flash ADC. Pure: words in, columns out.

Nothing here raises: each decoder returns the problems that it met as (word index, sentence), and the file's reader
decides whether they are errors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from procs.formats.date_layout import V1724

Words = NDArray[np.uint32]
Ints = NDArray[np.int64]
Problem = tuple[int, str]

# word >> 27 of a V1290 word.
GLOBAL_HEADER, TDC_HEADER, MEASUREMENT, TDC_TRAILER, TDC_ERROR = 0b01000, 0b00001, 0b00000, 0b00011, 0b00100
TIME_TAG, GLOBAL_TRAILER, FILLER = 0b10001, 0b10000, 0b11000
KNOWN = np.zeros(32, dtype=bool)
KNOWN[[GLOBAL_HEADER, TDC_HEADER, MEASUREMENT, TDC_TRAILER, TDC_ERROR, TIME_TAG, GLOBAL_TRAILER, FILLER]] = True
FLASH_HEADER = 4  # words before a flash ADC's samples
SET_BITS = np.array([bin(mask).count("1") for mask in range(256)])  # channels in a mask of eight
MAX_PROBLEMS = 20  # of one block


@dataclass(slots=True)
class TdcBlock:
    """One V1290 block. Per trigger: ``geo``, ``event_count``, ``time_tag`` (-1 without), ``word_count``, ``hit_count``;
    per measurement, in order: ``trigger`` (index in the block), ``tdc`` (-1 unknown), ``channel``, ``edge`` (0 leading,
    1 trailing), ``time`` (counts of 25 ps). ``error_words``: how many TDC error words."""

    geo: Ints
    event_count: Ints
    time_tag: Ints
    word_count: Ints
    hit_count: Ints
    trigger: Ints
    tdc: Ints
    channel: Ints
    edge: Ints
    time: Ints
    error_words: int
    problems: list[Problem]


def decode_v1290(words: Words) -> TdcBlock:
    """Decode all words of a V1290 block at once.

    Checked: every trigger has a global header and, after its words, a global trailer with the same address and the
    right word count; event counts rise by one; TDC headers and trailers (where the board sends them) pair, agree in
    their event id, and the trailer's word count is right; every word is of a known type and stands inside a trigger.
    """
    values = words.astype(np.int64)
    kinds = values >> 27
    problems: list[Problem] = []
    starts = np.flatnonzero(kinds == GLOBAL_HEADER)
    ends = np.flatnonzero(kinds == GLOBAL_TRAILER)
    trigger = np.cumsum(kinds == GLOBAL_HEADER) - 1

    def add(places: Ints, sentence: str) -> None:
        for place in places[: MAX_PROBLEMS - len(problems)]:
            problems.append((int(place), sentence))

    add(np.flatnonzero(~KNOWN[kinds]), "a V1290 word of an unknown type")
    paired = min(len(starts), len(ends))
    if (
        len(starts) != len(ends)
        or np.any(starts[:paired] > ends[:paired])
        or np.any(ends[: paired - 1] > starts[1:paired])
    ):
        add(np.zeros(1, np.int64), f"{len(starts)} V1290 global headers and {len(ends)} global trailers do not pair")
        starts_ok = False
    else:
        starts_ok = True
        sizes = ends - starts + 1
        add(ends[(values[ends] >> 5 & 0xFFFF) != sizes], "a V1290 global trailer's word count is wrong")
        add(ends[(values[ends] & 0x1F) != (values[starts] & 0x1F)], "a V1290 global trailer has another address")
        inside = np.zeros(len(values) + 1, dtype=np.int64)
        inside[starts] = 1
        inside[ends + 1] -= 1  # headers and trailers alternate here: no place comes twice in either
        outside = np.cumsum(inside)[:-1] == 0
        add(np.flatnonzero(outside & (kinds != FILLER)), "a V1290 word outside of any trigger")
        add(np.flatnonzero(~outside & (kinds == FILLER)), "a V1290 filler word inside a trigger")
    counts = values[starts] >> 5 & 0x3FFFFF
    add(starts[1:][np.diff(counts) & 0x3FFFFF != 1], "a V1290 event count does not follow the one before")
    tdc = _tdc_of_words(values, kinds, trigger, add)
    hits = np.flatnonzero((kinds == MEASUREMENT) & (trigger >= 0))
    measured = values[hits]
    tags = np.full(len(starts), -1, dtype=np.int64)
    tagged = np.flatnonzero((kinds == TIME_TAG) & (trigger >= 0))
    tags[trigger[tagged]] = values[tagged] & 0x7FFFFFF
    add(tagged[1:][np.diff(trigger[tagged]) == 0], "a second V1290 time tag in one trigger")
    return TdcBlock(
        geo=values[starts] & 0x1F,
        event_count=counts,
        time_tag=tags,
        word_count=(ends - starts + 1) if starts_ok else np.full(len(starts), -1, dtype=np.int64),
        hit_count=np.bincount(trigger[hits], minlength=len(starts)).astype(np.int64),
        trigger=trigger[hits],
        tdc=tdc[hits],
        channel=measured >> 21 & 0x1F,
        edge=measured >> 26 & 1,
        time=measured & 0x1FFFFF,
        error_words=int(np.count_nonzero(kinds == TDC_ERROR)),
        problems=problems,
    )


def _tdc_of_words(values: Ints, kinds: Ints, trigger: Ints, add: Callable[[Ints, str], None]) -> Ints:
    """The TDC chip (0-3) that each word belongs to, by the TDC header before it; -1 without."""
    heads = np.flatnonzero(kinds == TDC_HEADER)
    tails = np.flatnonzero(kinds == TDC_TRAILER)
    tdc = np.full(len(values), -1, dtype=np.int64)
    if not len(heads) and not len(tails):
        return tdc
    if len(heads) != len(tails) or np.any(heads > tails) or np.any(tails[:-1] > heads[1:]):
        add(np.zeros(1, np.int64), f"{len(heads)} V1290 TDC headers and {len(tails)} TDC trailers do not pair")
        return tdc
    add(tails[(values[tails] & 0xFFF) != tails - heads + 1], "a V1290 TDC trailer's word count is wrong")
    identity = 0x3FFF000  # chip (bits 25-24) and event id (bits 23-12)
    add(
        tails[(values[tails] & identity) != (values[heads] & identity)],
        "a V1290 TDC trailer has another chip or event id",
    )
    add(tails[trigger[tails] != trigger[heads]], "a V1290 TDC's words run over two triggers")
    inside = np.flatnonzero(kinds == MEASUREMENT)
    owner = np.searchsorted(heads, inside) - 1
    good = (owner >= 0) & (inside < tails[np.maximum(owner, 0)])
    add(inside[~good], "a V1290 measurement outside of any TDC's words")
    tdc[inside[good]] = values[heads[owner[good]]] >> 24 & 3
    return tdc


@dataclass(slots=True)
class FlashBlock:
    """One V1724 or V1731 block: per waveform (trigger and channel) ``trigger`` (index in the block), ``board``,
    ``channel``, ``counter``, ``time_tag``, ``length``; ``samples`` (int16, flat). ``events`` counts the triggers.
    If the block could not be decoded, ``reason`` says why, and there are no waveforms."""

    trigger: Ints
    board: Ints
    channel: Ints
    counter: Ints
    time_tag: Ints
    length: Ints
    samples: NDArray[np.int16]
    events: int
    reason: str = ""
    problems: tuple[Problem, ...] = ()


def _raw(events: int, reason: str, problems: tuple[Problem, ...] = ()) -> FlashBlock:
    none = np.zeros(0, dtype=np.int64)
    return FlashBlock(none, none, none, none, none, none, np.zeros(0, dtype=np.int16), events, reason, problems)


def flash_events(words: Words) -> tuple[list[tuple[int, int]], list[Problem]]:
    """The (start, size) in words of each flash ADC event in a block."""
    places: list[tuple[int, int]] = []
    start = 0
    size = int(words[0]) & 0xFFFFFFF if len(words) else 0
    if size >= FLASH_HEADER and len(words) % size == 0 and np.all(words[::size] == 0xA0000000 | size):
        return [(place, size) for place in range(0, len(words), size)], []  # all of one size, as they mostly are
    while start < len(words):
        first = int(words[start])
        size = first & 0xFFFFFFF
        if first >> 28 != 0xA:
            return places, [(start, "expected a flash ADC event header (top nibble 0xA)")]
        if size < FLASH_HEADER or start + size > len(words):
            return places, [(start, f"a flash ADC event of {size} words in a block that has {len(words) - start} left")]
        places.append((start, size))
        start += size
    return places, []


def decode_flash(words: Words, kind: int) -> FlashBlock:
    """Decode a V1724 (``kind`` 120) or V1731 (121) block where its size words agree with the channel mask.

    A V1724 block whose 16-bit halves have bit 14 or 15 set holds no plain 14-bit samples: it stays raw.
    """
    places, problems = flash_events(words)
    if problems:
        return _raw(len(places), "its events' sizes do not fill the block", tuple(problems))
    if not places:
        return _raw(0, "")
    starts = np.array([place for place, _ in places])
    sizes = np.array([size for _, size in places])
    heads = words[starts[:, None] + np.arange(FLASH_HEADER)].astype(np.int64)
    masks = heads[:, 1] & 0xFF
    channels = SET_BITS[masks]
    data = sizes - FLASH_HEADER
    setup = heads[:, 1] & 0xF80000FF  # board and mask: the same in every event of a block
    problems += [
        (int(starts[index]) + 1, "a flash ADC event has another board number or channel mask than the first")
        for index in np.flatnonzero(setup != setup[0])[:MAX_PROBLEMS]
    ]
    counters = heads[:, 2] & 0xFFFFFF
    problems += [
        (int(starts[index + 1]) + 2, "a flash ADC's event counter does not follow the one before")
        for index in np.flatnonzero((np.diff(counters) & 0xFFFFFF) != 1)[:MAX_PROBLEMS]
    ]
    if np.any((channels == 0) & (data > 0)) or np.any(data % np.maximum(channels, 1)):
        return _raw(
            len(places), "its size words do not agree with the channel masks (zero-length encoding?)", tuple(problems)
        )
    if np.all(sizes == sizes[0]):
        body = words.reshape(-1, sizes[0])[:, FLASH_HEADER:].ravel()
    else:
        body = np.concatenate([words[start + FLASH_HEADER : start + size] for start, size in places])
    if kind == V1724:
        halves = body.astype("<u4", copy=False).view("<u2")
        if np.any(halves & 0xC000):
            return _raw(
                len(places), "its 16-bit halves have bit 14 or 15 set, so they are no 14-bit samples", tuple(problems)
            )
        samples, per_word = halves.astype(np.int16), 2
    else:
        samples, per_word = body.astype("<u4", copy=False).view("u1").astype(np.int16), 4
    trigger = np.repeat(np.arange(len(places)), channels)
    numbers = np.nonzero(masks[:, None] >> np.arange(8) & 1)[1]
    return FlashBlock(
        trigger=trigger,
        board=heads[trigger, 1] >> 27,
        channel=numbers,
        counter=counters[trigger],
        time_tag=heads[trigger, 3],
        length=(data // np.maximum(channels, 1) * per_word)[trigger],
        samples=samples,
        events=len(places),
        problems=tuple(problems),
    )
