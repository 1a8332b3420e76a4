"""Decoding of the boards' words: CAEN V1290 TDC, V1724 and V1731 flash ADC. Pure: words in, columns out.

Nothing here raises: each decoder returns the problems that it met as (word index, sentence), and the file's reader
decides whether they are errors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

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
    return _decode(words, np.zeros(1, dtype=np.int64))


def decode_v1290_blocks(blocks: Sequence[Words]) -> list[TdcBlock]:
    """Decode several V1290 blocks, each as :func:`decode_v1290` does. Blocks of whole triggers are decoded together:
    a block has too few words for numpy to be fast."""
    edges = np.cumsum([0, *map(len, blocks)])
    if len(blocks) < 2 or np.any(edges[1:] == edges[:-1]):
        return [decode_v1290(words) for words in blocks]
    words = np.concatenate(blocks)
    whole = np.all(words[edges[:-1]] >> 27 == GLOBAL_HEADER) and np.all(words[edges[1:] - 1] >> 27 == GLOBAL_TRAILER)
    together = _decode(words, edges[:-1]) if whole else None
    if together is None or together.problems:
        return [decode_v1290(words) for words in blocks]
    kinds = words >> 27
    starts = np.searchsorted(np.flatnonzero(kinds == GLOBAL_HEADER), edges).tolist()
    hits = np.searchsorted(np.flatnonzero(kinds == MEASUREMENT), edges).tolist()
    errors = np.searchsorted(np.flatnonzero(kinds == TDC_ERROR), edges).tolist() if together.error_words else None
    return [
        TdcBlock(
            geo=together.geo[first:after],
            event_count=together.event_count[first:after],
            time_tag=together.time_tag[first:after],
            word_count=together.word_count[first:after],
            hit_count=together.hit_count[first:after],
            trigger=together.trigger[hit:end] - first,
            tdc=together.tdc[hit:end],
            channel=together.channel[hit:end],
            edge=together.edge[hit:end],
            time=together.time[hit:end],
            error_words=errors[index + 1] - errors[index] if errors else 0,
            problems=[],
        )
        for index, ((first, after), (hit, end)) in enumerate(zip(pairwise(starts), pairwise(hits), strict=True))
    ]


def _decode(words: Words, blocks: Ints) -> TdcBlock:
    """The words of blocks that begin at these places: of one block, or of several of whole triggers."""
    kinds = (words >> 27).astype(np.uint8)
    of_kind = np.bincount(kinds, minlength=32)
    problems: list[Problem] = []

    def add(places: Ints, sentence: str) -> None:
        for place in places[: MAX_PROBLEMS - len(problems)]:
            problems.append((int(place), sentence))

    def check(wrong: NDArray[np.bool_], places: Ints, sentence: str) -> None:
        if wrong.any():
            add(places[wrong], sentence)

    starts, ends = _places(kinds, of_kind, GLOBAL_HEADER), _places(kinds, of_kind, GLOBAL_TRAILER)
    first, last = words[starts].astype(np.int64), words[ends].astype(np.int64)
    if np.any(of_kind[~KNOWN]):
        add(np.flatnonzero(~KNOWN[kinds]), "a V1290 word of an unknown type")
    paired = min(len(starts), len(ends))
    starts_ok = (
        len(starts) == len(ends)
        and not np.any(starts[:paired] > ends[:paired])
        and not np.any(ends[: paired - 1] > starts[1:paired])
    )
    if not starts_ok:
        add(np.zeros(1, np.int64), f"{len(starts)} V1290 global headers and {len(ends)} global trailers do not pair")
    else:
        sizes = ends - starts + 1
        check(last >> 5 & 0xFFFF != sizes, ends, "a V1290 global trailer's word count is wrong")
        check(last & 0x1F != first & 0x1F, ends, "a V1290 global trailer has another address")
        if of_kind[FILLER] or len(words) != sizes.sum():
            inside = np.zeros(len(words) + 1, dtype=np.int64)
            inside[starts] = 1
            inside[ends + 1] -= 1  # headers and trailers alternate here: no place comes twice in either
            outside = np.cumsum(inside)[:-1] == 0
            add(np.flatnonzero(outside & (kinds != FILLER)), "a V1290 word outside of any trigger")
            add(np.flatnonzero(~outside & (kinds == FILLER)), "a V1290 filler word inside a trigger")
    counts = first >> 5 & 0x3FFFFF
    odd = np.diff(counts) & 0x3FFFFF != 1
    if len(blocks) > 1:
        odd[np.searchsorted(starts, blocks[1:]) - 1] = False  # each block counts by itself
    check(odd, starts[1:], "a V1290 event count does not follow the one before")
    hits = _places(kinds, of_kind, MEASUREMENT)
    before = np.cumsum(kinds == MEASUREMENT)  # measurements before a word of another kind
    tdc = _tdc_of_hits(words, kinds, of_kind, hits, before, check)
    edges = np.append(before[starts], len(hits))
    hits, tdc = hits[edges[0] :], tdc[edges[0] :]  # what is before the first global header is no trigger's
    hit_count = np.diff(edges)
    measured = words[hits].astype(np.int64)
    tags = np.full(len(starts), -1, dtype=np.int64)
    if of_kind[TIME_TAG]:
        tagged = np.flatnonzero(kinds == TIME_TAG)
        of_tag = np.searchsorted(starts, tagged, "right") - 1
        tagged, of_tag = tagged[of_tag >= 0], of_tag[of_tag >= 0]
        tags[of_tag] = words[tagged] & 0x7FFFFFF
        check(np.diff(of_tag) == 0, tagged[1:], "a second V1290 time tag in one trigger")
    return TdcBlock(
        geo=first & 0x1F,
        event_count=counts,
        time_tag=tags,
        word_count=(ends - starts + 1) if starts_ok else np.full(len(starts), -1, dtype=np.int64),
        hit_count=hit_count,
        trigger=np.repeat(np.arange(len(starts)), hit_count),
        tdc=tdc,
        channel=measured >> 21 & 0x1F,
        edge=measured >> 26 & 1,
        time=measured & 0x1FFFFF,
        error_words=int(of_kind[TDC_ERROR]),
        problems=problems,
    )


def _places(kinds: NDArray[np.uint8], of_kind: Ints, kind: int) -> Ints:
    """Where the words of a kind are, of which so many are there."""
    return np.flatnonzero(kinds == kind) if of_kind[kind] else np.zeros(0, dtype=np.int64)


def _tdc_of_hits(
    words: Words,
    kinds: NDArray[np.uint8],
    of_kind: Ints,
    hits: Ints,
    before: Ints,
    check: Callable[[NDArray[np.bool_], Ints, str], None],
) -> Ints:
    """The TDC chip (0-3) that each measurement belongs to, by the TDC header before it; -1 without."""
    tdc = np.full(len(hits), -1, dtype=np.int64)
    heads, tails = _places(kinds, of_kind, TDC_HEADER), _places(kinds, of_kind, TDC_TRAILER)
    if not len(heads) and not len(tails):
        return tdc
    if len(heads) != len(tails) or np.any(heads > tails) or np.any(tails[:-1] > heads[1:]):
        sentence = f"{len(heads)} V1290 TDC headers and {len(tails)} TDC trailers do not pair"
        check(np.ones(1, dtype=bool), np.zeros(1, np.int64), sentence)
        return tdc
    first, last = words[heads], words[tails]
    check(last & 0xFFF != tails - heads + 1, tails, "a V1290 TDC trailer's word count is wrong")
    identity = 0x3FFF000  # chip (bits 25-24) and event id (bits 23-12)
    check((first ^ last) & identity != 0, tails, "a V1290 TDC trailer has another chip or event id")
    trigger = np.cumsum(kinds == GLOBAL_HEADER)
    check(trigger[heads] != trigger[tails], tails, "a V1290 TDC's words run over two triggers")
    chips = (first >> 24 & 3).astype(np.int64)
    inside = before[tails] - before[heads]
    if inside.sum() == len(hits):
        return np.repeat(chips, inside)
    owner = np.searchsorted(heads, hits) - 1
    good = (owner >= 0) & (hits < tails[np.maximum(owner, 0)])
    check(~good, hits, "a V1290 measurement outside of any TDC's words")
    tdc[good] = chips[owner[good]]
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


def flash_events(words: Words) -> tuple[Ints, Ints, list[Problem]]:
    """Where each flash ADC event of a block begins, how many words it has, and the problem at which that ended."""
    size = int(words[0]) & 0xFFFFFFF if len(words) else 0
    if size >= FLASH_HEADER and len(words) % size == 0 and np.all(words[::size] == 0xA0000000 | size):
        starts = np.arange(0, len(words), size)
        return starts, np.full(len(starts), size), []  # all of one size, as they mostly are
    places: list[tuple[int, int]] = []
    problems: list[Problem] = []
    start = 0
    while start < len(words) and not problems:
        first = int(words[start])
        size = first & 0xFFFFFFF
        if first >> 28 != 0xA:
            problems = [(start, "expected a flash ADC event header (top nibble 0xA)")]
        elif size < FLASH_HEADER or start + size > len(words):
            left = len(words) - start
            problems = [(start, f"a flash ADC event of {size} words in a block that has {left} left")]
        else:
            places.append((start, size))
            start += size
    table = np.array(places, dtype=np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1], problems


def decode_flash(words: Words, kind: int) -> FlashBlock:
    """Decode a V1724 (``kind`` 120) or V1731 (121) block where its size words agree with the channel mask.

    A V1724 block whose 16-bit halves have bit 14 or 15 set holds no plain 14-bit samples: it stays raw.
    """
    starts, sizes, problems = flash_events(words)
    if problems:
        return _raw(len(starts), "its events' sizes do not fill the block", tuple(problems))
    if not len(starts):
        return _raw(0, "")
    heads = words[starts[:, None] + np.arange(FLASH_HEADER)].astype(np.int64)
    masks = heads[:, 1] & 0xFF
    channels = SET_BITS[masks]
    data = sizes - FLASH_HEADER
    setup = heads[:, 1] & 0xF80000FF  # board and mask: the same in every event of a block
    problems += [
        (int(place) + 1, "a flash ADC event has another board number or channel mask than the first")
        for place in starts[setup != setup[0]][:MAX_PROBLEMS]
    ]
    counters = heads[:, 2] & 0xFFFFFF
    problems += [
        (int(place) + 2, "a flash ADC's event counter does not follow the one before")
        for place in starts[1:][(np.diff(counters) & 0xFFFFFF) != 1][:MAX_PROBLEMS]
    ]
    if np.any((channels == 0) & (data > 0)) or np.any(data % np.maximum(channels, 1)):
        return _raw(
            len(starts), "its size words do not agree with the channel masks (zero-length encoding?)", tuple(problems)
        )
    if np.all(sizes == sizes[0]):
        body = words.reshape(-1, sizes[0])[:, FLASH_HEADER:].ravel()
    else:
        events = zip(starts.tolist(), sizes.tolist(), strict=True)
        body = np.concatenate([words[place + FLASH_HEADER : place + size] for place, size in events])
    if kind == V1724:
        if np.bitwise_or.reduce(body, initial=0) & 0xC000C000:
            return _raw(
                len(starts), "its 16-bit halves have bit 14 or 15 set, so they are no 14-bit samples", tuple(problems)
            )
        samples, per_word = body.astype("<u4", copy=False).view("<i2").astype(np.int16, copy=False), 2
    else:
        samples, per_word = body.astype("<u4", copy=False).view("u1").astype(np.int16), 4
    trigger = np.repeat(np.arange(len(starts)), channels)
    numbers = np.nonzero(masks[:, None] >> np.arange(8) & 1)[1]
    return FlashBlock(
        trigger=trigger,
        board=heads[trigger, 1] >> 27,
        channel=numbers,
        counter=counters[trigger],
        time_tag=heads[trigger, 3],
        length=(data // np.maximum(channels, 1) * per_word)[trigger],
        samples=samples,
        events=len(starts),
        problems=tuple(problems),
    )
