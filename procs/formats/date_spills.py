"""Batches of spills of a DATE file as columns: TDC triggers and hits, waveforms, scalers, and what stayed raw."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from procs.formats import date_layout as layout
from procs.formats.date import DateEvent, DateFile, Equipment
from procs.formats.date_boards import TdcBlock, decode_flash, decode_v1290_blocks

COLUMNS: dict[str, type[np.generic]] = {
    "table_offset": np.int64,
    "table_size": np.int64,
    "table_type": np.int32,
    "table_run": np.int64,
    "table_spill": np.int64,
    "table_number": np.int32,
    "table_seconds": np.int64,
    "table_microseconds": np.int32,
    "table_sub_events": np.int32,
    "event": np.int64,
    "offset": np.int64,
    "size": np.int64,
    "type": np.int32,
    "run": np.int64,
    "spill": np.int64,
    "number": np.int32,
    "seconds": np.int64,
    "microseconds": np.int32,
    "triggers": np.int32,
    "hits": np.int32,
    "waveforms": np.int32,
    "tdc_errors": np.int32,
    "trigger_word": np.int64,
    "trigger_event": np.int32,
    "trigger_spill": np.int64,
    "trigger_index": np.int32,
    "trigger_ldc": np.int64,
    "trigger_equipment": np.int64,
    "trigger_board": np.int32,
    "trigger_count": np.int64,
    "trigger_time_tag": np.int64,
    "trigger_words": np.int32,
    "trigger_hits": np.int32,
    "hit_event": np.int32,
    "hit_spill": np.int64,
    "hit_trigger": np.int32,
    "hit_ldc": np.int64,
    "hit_equipment": np.int64,
    "hit_board": np.int32,
    "hit_tdc": np.int32,
    "hit_channel": np.int32,
    "hit_edge": np.int32,
    "hit_time": np.int32,
    "wave_event": np.int32,
    "wave_spill": np.int64,
    "wave_trigger": np.int32,
    "wave_ldc": np.int64,
    "wave_kind": np.int32,
    "wave_equipment": np.int64,
    "wave_board": np.int32,
    "wave_channel": np.int32,
    "wave_counter": np.int32,
    "wave_time_tag": np.int64,
    "lengths": np.int32,
    "scaler_event": np.int32,
    "scaler_spill": np.int64,
    "scaler_equipment": np.int64,
    "scaler_index": np.int32,
    "scaler_value": np.uint32,
    "raw_event": np.int32,
    "raw_spill": np.int64,
    "raw_ldc": np.int64,
    "raw_kind": np.int32,
    "raw_equipment": np.int64,
    "raw_lengths": np.int32,
}


DECODED = (layout.PHYSICS, layout.CALIBRATION)  # types of events whose boards are decoded
PREFIXES = ("table_", "trigger_", "hit_", "wave_", "scaler_", "raw_", "")
PREFIX = {name: next(prefix for prefix in PREFIXES if name.startswith(prefix)) for name in COLUMNS}
PREFIX["trigger_word"] = ""


@dataclass(slots=True)
class SpillBatch:
    """Up to ``chunk`` physics and calibration events, decoded. All columns are numpy arrays.

    ``table_*``: every event of the file read since the batch before (start and end of run and burst among them):
    offset, size (bytes), type, run, spill, number, seconds, microseconds, sub_events.

    Per physics or calibration event (length n): ``event`` (index in the file, from 0), ``offset``, ``size``,
    ``type``, ``run``, ``spill``, ``number``, ``seconds``, ``microseconds``; ``triggers`` (particle triggers: the most
    that any TDC board has, or any flash ADC where there is no TDC), ``hits``, ``waveforms``, ``tdc_errors`` (counts),
    ``trigger_word`` (first word of the trigger receiver, -1 without).

    Per trigger and TDC board: ``trigger_event`` (index in this batch), ``trigger_spill``, ``trigger_index`` (in the
    spill, from 0), ``trigger_ldc``, ``trigger_equipment``, ``trigger_board`` (the address in the global header),
    ``trigger_count`` (the board's event counter), ``trigger_time_tag`` (-1 without), ``trigger_words``,
    ``trigger_hits``.

    Per TDC hit: ``hit_event``, ``hit_spill``, ``hit_trigger``, ``hit_ldc``, ``hit_equipment``, ``hit_board``,
    ``hit_tdc`` (chip 0-3, -1 unknown), ``hit_channel``, ``hit_edge`` (0 leading, 1 trailing), ``hit_time`` (counts of
    25 ps), ``hit_time_ns`` (f8).

    Per waveform: ``wave_event``, ``wave_spill``, ``wave_trigger``, ``wave_ldc``, ``wave_kind`` (120 V1724, 121 V1731),
    ``wave_equipment``, ``wave_board``, ``wave_channel``, ``wave_counter``, ``wave_time_tag``, ``lengths``; ``samples``
    (i2, flat, ``lengths.sum()``).

    Per scaler word: ``scaler_event``, ``scaler_spill``, ``scaler_equipment``, ``scaler_index``, ``scaler_value`` (u4).

    Per block that stayed raw: ``raw_event``, ``raw_spill``, ``raw_ldc``, ``raw_kind``, ``raw_equipment``,
    ``raw_lengths`` (words); ``raw_words`` (u4, flat).
    """

    table_offset: NDArray[np.int64]
    table_size: NDArray[np.int64]
    table_type: NDArray[np.int32]
    table_run: NDArray[np.int64]
    table_spill: NDArray[np.int64]
    table_number: NDArray[np.int32]
    table_seconds: NDArray[np.int64]
    table_microseconds: NDArray[np.int32]
    table_sub_events: NDArray[np.int32]
    event: NDArray[np.int64]
    offset: NDArray[np.int64]
    size: NDArray[np.int64]
    type: NDArray[np.int32]
    run: NDArray[np.int64]
    spill: NDArray[np.int64]
    number: NDArray[np.int32]
    seconds: NDArray[np.int64]
    microseconds: NDArray[np.int32]
    triggers: NDArray[np.int32]
    hits: NDArray[np.int32]
    waveforms: NDArray[np.int32]
    tdc_errors: NDArray[np.int32]
    trigger_word: NDArray[np.int64]
    trigger_event: NDArray[np.int32]
    trigger_spill: NDArray[np.int64]
    trigger_index: NDArray[np.int32]
    trigger_ldc: NDArray[np.int64]
    trigger_equipment: NDArray[np.int64]
    trigger_board: NDArray[np.int32]
    trigger_count: NDArray[np.int64]
    trigger_time_tag: NDArray[np.int64]
    trigger_words: NDArray[np.int32]
    trigger_hits: NDArray[np.int32]
    hit_event: NDArray[np.int32]
    hit_spill: NDArray[np.int64]
    hit_trigger: NDArray[np.int32]
    hit_ldc: NDArray[np.int64]
    hit_equipment: NDArray[np.int64]
    hit_board: NDArray[np.int32]
    hit_tdc: NDArray[np.int32]
    hit_channel: NDArray[np.int32]
    hit_edge: NDArray[np.int32]
    hit_time: NDArray[np.int32]
    wave_event: NDArray[np.int32]
    wave_spill: NDArray[np.int64]
    wave_trigger: NDArray[np.int32]
    wave_ldc: NDArray[np.int64]
    wave_kind: NDArray[np.int32]
    wave_equipment: NDArray[np.int64]
    wave_board: NDArray[np.int32]
    wave_channel: NDArray[np.int32]
    wave_counter: NDArray[np.int32]
    wave_time_tag: NDArray[np.int64]
    lengths: NDArray[np.int32]
    samples: NDArray[np.int16]
    scaler_event: NDArray[np.int32]
    scaler_spill: NDArray[np.int64]
    scaler_equipment: NDArray[np.int64]
    scaler_index: NDArray[np.int32]
    scaler_value: NDArray[np.uint32]
    raw_event: NDArray[np.int32]
    raw_spill: NDArray[np.int64]
    raw_ldc: NDArray[np.int64]
    raw_kind: NDArray[np.int32]
    raw_equipment: NDArray[np.int64]
    raw_lengths: NDArray[np.int32]
    raw_words: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.event)

    @property
    def hit_time_ns(self) -> NDArray[np.float64]:
        """The hits' times in nanoseconds."""
        return self.hit_time.astype(np.float64) * layout.NS_PER_COUNT


class _Columns:
    """Pieces of columns, joined at the end."""

    def __init__(self) -> None:
        self.pieces: dict[str, list[Any]] = {name: [] for name in COLUMNS}
        self.rows: dict[str, list[int]] = {prefix: [] for prefix in PREFIXES}
        self.samples: list[NDArray[np.int16]] = []
        self.raw_words: list[NDArray[np.uint32]] = []
        self.events = 0

    def add(self, prefix: str, rows: int, **values: Any) -> None:
        """``rows`` rows; a value that is one number is repeated. Each column has its values in one of the two ways."""
        self.rows[prefix].append(rows)
        for name, value in values.items():
            self.pieces[prefix + name].append(value)

    def take(self, other: _Columns) -> None:
        """Add all rows of another's."""
        for name, pieces in other.pieces.items():
            if pieces:
                self.pieces[name] += pieces
        for prefix, rows in other.rows.items():
            self.rows[prefix] += rows
        self.samples += other.samples
        self.raw_words += other.raw_words

    def build(self) -> SpillBatch:
        columns: dict[str, Any] = {name: self._column(name, kind) for name, kind in COLUMNS.items()}
        columns["samples"] = np.concatenate(self.samples) if self.samples else np.zeros(0, np.int16)
        columns["raw_words"] = (
            np.concatenate(self.raw_words).astype(np.uint32) if self.raw_words else np.zeros(0, np.uint32)
        )
        return SpillBatch(**columns)

    def _column(self, name: str, kind: type[np.generic]) -> NDArray[Any]:
        pieces = self.pieces[name]
        if not pieces:
            return np.zeros(0, kind)
        if isinstance(pieces[0], int):
            numbers = np.array(pieces, dtype=np.int64).astype(kind)
            rows = self.rows[PREFIX[name]]
            return numbers if len(rows) == sum(rows) else np.repeat(numbers, rows)
        return np.concatenate(pieces, dtype=kind, casting="unsafe")


def batches(file: DateFile, chunk: int, keep_truncated: bool, max_bytes: int | None = None) -> Iterator[SpillBatch]:
    """The batches of :meth:`DateFile.spills`; the last one may have no physics event and only rows of the table."""
    reading = file.events(keep_truncated=keep_truncated)
    while True:
        columns = _Columns()
        events, fault = _next_events(reading, chunk, max_bytes)
        try:
            _fill(file, events, columns)
        except Exception as error:  # of an event that was read before the fault of the reading
            fault = error
        more = bool(events)
        events = []  # the file's bytes are let go before the batch is used
        if columns.events or (more and fault is None):
            yield columns.build()
        if fault is not None:
            raise fault
        if not more:
            return


def _next_events(
    reading: Iterator[DateEvent], chunk: int, max_bytes: int | None
) -> tuple[list[DateEvent], Exception | None]:
    """The events of the next batch, none at the end of the file; and what ended the reading, if anything did."""
    events: list[DateEvent] = []
    decoded = size = 0
    try:
        for event in reading:
            events.append(event)
            if event.type in DECODED:
                decoded += 1
                size += event.size
                if decoded >= max(1, chunk) or (max_bytes is not None and size >= max_bytes):
                    break
    except Exception as error:
        return events, error
    return events, None


def _fill(file: DateFile, events: list[DateEvent], columns: _Columns) -> None:
    """Decode events into columns, as far as they can be decoded."""
    boards = [
        block.words
        for event in events
        if event.type in DECODED
        for block in event.blocks()
        if block.kind == layout.V1290 and len(block.words)
    ]
    decoded = iter(decode_v1290_blocks(boards))
    for event in events:
        columns.add("table_", 1, **_header(event), sub_events=len(event.sub_events))
        if event.type in DECODED:
            _spill(file, event, columns, decoded)


def _header(event: DateEvent) -> dict[str, int]:
    """What an event's own header says, by column."""
    names = ("offset", "size", "type", "run", "spill", "number", "seconds", "microseconds")
    return {name: getattr(event, name) for name in names}


def _spill(file: DateFile, event: DateEvent, columns: _Columns, boards: Iterator[TdcBlock]) -> None:
    """Decode one physics or calibration event, with what its TDC boards' words have been decoded to. Columns get its
    rows only once the whole event is decoded."""
    part = _Columns()
    index = columns.events
    tdc: dict[tuple[int, int], int] = {}
    flash: dict[tuple[int, int, int], int] = {}
    hits = waveforms = errors = 0
    trigger_word = -1
    for block in event.blocks():
        if not len(block.words):
            continue
        where = {"event": index, "spill": event.spill, "equipment": block.id}
        if block.kind == layout.V1290:
            decoded = next(boards)
            _tdc(file, block, decoded, where, part, tdc)
            hits += len(decoded.trigger)
            errors += decoded.error_words
        elif block.kind in (layout.V1724, layout.V1731):
            waveforms += _flash(file, block, where, part, flash)
        elif block.kind == layout.V830:
            size = len(block.words)
            part.add("scaler_", size, index=np.arange(size), value=block.words, **where)
        else:
            if block.kind == layout.TRIGGER_RECEIVER and trigger_word < 0:
                trigger_word = int(block.words[0])
            if block.kind not in layout.EQUIPMENT_NAMES:
                file.undecoded[f"{block.name} {block.id}: no decoder for this type"] += 1
            _keep_raw(block, where, part)
    for counts in (tdc, flash):
        if len(set(counts.values())) > 1:
            found = sorted(set(counts.values()))
            file.problem(f"the boards of a spill have different numbers of triggers: {found}", event.offset)
    columns.add(
        "",
        1,
        event=event.index,
        **_header(event),
        triggers=max(tdc.values(), default=max(flash.values(), default=0)),
        hits=hits,
        waveforms=waveforms,
        tdc_errors=errors,
        trigger_word=trigger_word,
    )
    columns.take(part)
    columns.events += 1


def _keep_raw(block: Equipment, where: dict[str, int], part: _Columns) -> None:
    part.add("raw_", 1, ldc=block.ldc, kind=block.kind, lengths=len(block.words), **where)
    part.raw_words.append(block.words)


def _tdc(
    file: DateFile,
    block: Equipment,
    decoded: TdcBlock,
    where: dict[str, int],
    part: _Columns,
    counts: dict[tuple[int, int], int],
) -> None:
    """One V1290 block."""
    for place, sentence in decoded.problems:
        file.problem(sentence, block.offset + layout.EQUIPMENT_HEADER + 4 * place)
    triggers = len(decoded.geo)
    counts[block.ldc, block.id] = counts.get((block.ldc, block.id), 0) + triggers
    part.add(
        "trigger_",
        triggers,
        index=np.arange(triggers),
        ldc=block.ldc,
        board=decoded.geo,
        count=decoded.event_count,
        time_tag=decoded.time_tag,
        words=decoded.word_count,
        hits=decoded.hit_count,
        **where,
    )
    part.add(
        "hit_",
        len(decoded.trigger),
        trigger=decoded.trigger,
        ldc=block.ldc,
        board=decoded.geo[decoded.trigger],
        tdc=decoded.tdc,
        channel=decoded.channel,
        edge=decoded.edge,
        time=decoded.time,
        **where,
    )


def _flash(
    file: DateFile, block: Equipment, where: dict[str, int], part: _Columns, counts: dict[tuple[int, int, int], int]
) -> int:
    """One flash ADC block; the number of its waveforms."""
    decoded = decode_flash(block.words, block.kind)
    for place, sentence in decoded.problems:
        file.problem(sentence, block.offset + layout.EQUIPMENT_HEADER + 4 * place)
    counts[block.ldc, block.kind, block.id] = decoded.events
    if decoded.reason:
        file.undecoded[f"{block.name} {block.id}: {decoded.reason}"] += 1
        _keep_raw(block, where, part)
        return 0
    size = len(decoded.trigger)
    part.add(
        "wave_",
        size,
        trigger=decoded.trigger,
        ldc=block.ldc,
        kind=block.kind,
        board=decoded.board,
        channel=decoded.channel,
        counter=decoded.counter,
        time_tag=decoded.time_tag,
        **where,
    )
    part.pieces["lengths"].append(decoded.length)
    part.samples.append(decoded.samples)
    return size
