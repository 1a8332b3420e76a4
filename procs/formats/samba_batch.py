"""A batch of Samba events as columns: one numpy array per quantity, pulses and samples flattened."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

EVENT_INTS = (  # column, dtype
    ("number", np.int32),
    ("seconds", np.int64),
    ("microseconds", np.int32),
    ("stamp", np.int64),
    ("regeneration", np.bool_),
    ("touched_detector", np.int32),
    ("touched_channel", np.int32),
)
EVENT_FLOATS = ("temperature", "dead_time", "delay", "trigger")
PULSE_INTS = (
    ("channel", np.int32),
    ("pulse_number", np.int32),
    ("counter_seconds", np.int64),
    ("counter_microseconds", np.int32),
    ("pulse_stamp", np.int64),
    ("pretrigger", np.int32),
    ("recalculated", np.int32),
    ("reference_word", np.int32),
    ("filter_lengths", np.int32),
    ("lengths", np.int32),
)
PULSE_FLOATS = (
    "ns_per_point",
    "trigger_positive",
    "trigger_negative",
    "base",
    "reference",
    "noise",
    "rise",
    "fall",
    "amplitude",
)


@dataclass(slots=True)
class SambaBatch:
    """Events ``first`` to ``first + len(batch)`` of a file (counted from 0).

    Per event (length n): ``number`` (Numero, i4), ``seconds`` (i8) and ``microseconds`` (i4) of the date, ``stamp``
    (i8, giga * 1e9 + time, in 10 us), ``temperature`` (K), ``dead_time`` (s), ``delay`` (s since the event before),
    ``trigger`` (s since the trigger before) as f8 and NaN where the file does not say, ``trigger_bits`` and
    ``trigger_bits_high`` (u8: bits 0-63 and 64-127), ``regeneration`` (bool), ``touched_detector`` and
    ``touched_channel`` (i4, -1 unknown), ``counts`` (i4: how many pulses).

    Per pulse (length ``counts.sum()``, in file order): ``channel`` (i4, index into the file's channels),
    ``pulse_number`` (Numero, i4), ``counter_seconds``, ``counter_microseconds`` (Compteur.*), ``pulse_stamp`` (i8, 10
    us), ``ns_per_point`` (f8), ``pretrigger`` (i4, points), ``trigger_positive``, ``trigger_negative`` (ADU), ``base``,
    ``reference``, ``noise``, ``amplitude`` (ADU), ``rise``, ``fall`` (ms) as f8 with NaN for unknown,
    ``reference_word`` (i4: index into the file's ``reference_words`` where Reference is a word, else -1),
    ``recalculated`` (i4), ``filter_lengths`` and ``lengths`` (i4: float64 filter values and int16 samples of the pulse;
    0 without a trace).

    Flat: ``filters`` (f8, ``filter_lengths.sum()``) and ``samples`` (i2, ``lengths.sum()``).
    """

    first: int
    number: NDArray[np.int32]
    seconds: NDArray[np.int64]
    microseconds: NDArray[np.int32]
    stamp: NDArray[np.int64]
    temperature: NDArray[np.float64]
    dead_time: NDArray[np.float64]
    delay: NDArray[np.float64]
    trigger: NDArray[np.float64]
    trigger_bits: NDArray[np.uint64]
    trigger_bits_high: NDArray[np.uint64]
    regeneration: NDArray[np.bool_]
    touched_detector: NDArray[np.int32]
    touched_channel: NDArray[np.int32]
    counts: NDArray[np.int32]
    channel: NDArray[np.int32]
    pulse_number: NDArray[np.int32]
    counter_seconds: NDArray[np.int64]
    counter_microseconds: NDArray[np.int32]
    pulse_stamp: NDArray[np.int64]
    pretrigger: NDArray[np.int32]
    recalculated: NDArray[np.int32]
    reference_word: NDArray[np.int32]
    filter_lengths: NDArray[np.int32]
    lengths: NDArray[np.int32]
    ns_per_point: NDArray[np.float64]
    trigger_positive: NDArray[np.float64]
    trigger_negative: NDArray[np.float64]
    base: NDArray[np.float64]
    reference: NDArray[np.float64]
    noise: NDArray[np.float64]
    rise: NDArray[np.float64]
    fall: NDArray[np.float64]
    amplitude: NDArray[np.float64]
    filters: NDArray[np.float64]
    samples: NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.number)

    @property
    def pulses(self) -> int:
        """How many pulses the batch has."""
        return len(self.channel)

    def starts(self) -> NDArray[np.int64]:
        """Where each pulse's samples begin in ``samples``, with the total at the end (length pulses + 1)."""
        return np.concatenate(([0], np.cumsum(self.lengths, dtype=np.int64)))

    def event_of_pulse(self) -> NDArray[np.int64]:
        """For each pulse, the index of its event in the batch."""
        return np.repeat(np.arange(len(self)), self.counts)

    def traces(self) -> Iterator[NDArray[np.int16]]:
        """The samples of one pulse after the other, as views."""
        starts = self.starts()
        for index in range(self.pulses):
            yield self.samples[starts[index] : starts[index + 1]]


@dataclass(slots=True)
class BatchBuilder:
    """Collects parsed events and turns them into a :class:`SambaBatch`. ``order`` is the file's byte order."""

    order: str
    first: int = 0
    event_ints: list[tuple[int, ...]] = field(default_factory=list)
    event_floats: list[tuple[float, ...]] = field(default_factory=list)
    bits: list[int] = field(default_factory=list)
    bits_high: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    pulse_ints: list[tuple[int, ...]] = field(default_factory=list)
    pulse_floats: list[tuple[float, ...]] = field(default_factory=list)
    traces: list[memoryview] = field(default_factory=list)
    filters: list[memoryview] = field(default_factory=list)
    size: int = 0  # bytes of samples and filters held

    def __len__(self) -> int:
        return len(self.counts)

    def build(self) -> SambaBatch:
        """The batch of what was collected."""
        columns: dict[str, Any] = {"first": self.first}
        for rows, names in ((self.event_ints, EVENT_INTS), (self.pulse_ints, PULSE_INTS)):
            table = np.array(rows, dtype=np.int64).reshape(len(rows), len(names))
            for index, (name, kind) in enumerate(names):
                columns[name] = table[:, index].astype(kind)
        for values, floats in ((self.event_floats, EVENT_FLOATS), (self.pulse_floats, PULSE_FLOATS)):
            numbers = np.array(values, dtype=np.float64).reshape(len(values), len(floats))
            for index, name in enumerate(floats):
                columns[name] = numbers[:, index].copy()
        columns["trigger_bits"] = np.array(self.bits, dtype=np.uint64)
        columns["trigger_bits_high"] = np.array(self.bits_high, dtype=np.uint64)
        columns["counts"] = np.array(self.counts, dtype=np.int32)
        columns["samples"] = native(self.traces, self.order + "i2")
        columns["filters"] = native(self.filters, self.order + "f8")
        return SambaBatch(**columns)


def blank_columns(events: int, pulses: int) -> dict[str, NDArray[Any]]:
    """Columns for ``SambaBatch(first, **columns)`` with the values that a reader gives to keys that are missing."""
    columns: dict[str, NDArray[Any]] = {}
    missing = {"touched_detector": -1, "touched_channel": -1, "pulse_number": -1, "reference_word": -1}
    for size, names in ((events, EVENT_INTS), (pulses, PULSE_INTS)):
        for name, kind in names:
            columns[name] = np.full(size, missing.get(name, 0), dtype=kind)
    for size, floats in ((events, EVENT_FLOATS), (pulses, PULSE_FLOATS)):
        for name in floats:
            columns[name] = np.full(size, np.nan)
    columns["trigger_bits"] = np.zeros(events, dtype=np.uint64)
    columns["trigger_bits_high"] = np.zeros(events, dtype=np.uint64)
    columns["counts"] = np.zeros(events, dtype=np.int32)
    columns["samples"] = np.zeros(0, dtype=np.int16)
    columns["filters"] = np.zeros(0)
    return columns


def native(parts: list[memoryview], kind: str) -> NDArray[Any]:
    """Binary blocks one after the other as one writable array in this machine's byte order."""
    joined = np.empty(sum(map(len, parts)), dtype=np.uint8)
    room, end = joined.data, 0
    for part in parts:
        start, end = end, end + len(part)
        room[start:end] = part
    joined = joined.view(kind)
    if joined.dtype.isnative:
        return joined.view(joined.dtype.newbyteorder("="))
    return joined.byteswap(inplace=True).view(joined.dtype.newbyteorder("="))


def concatenate(batches: list[SambaBatch]) -> SambaBatch:
    """Several batches of one file, in order, as one (for tests and small files)."""
    columns: dict[str, Any] = {"first": batches[0].first}
    for column in fields(SambaBatch):
        if column.name != "first":
            columns[column.name] = np.concatenate([getattr(batch, column.name) for batch in batches])
    return SambaBatch(**columns)
