"""DATE files: the real one with its known counts, files made by the writer, and every kind of damage."""

from __future__ import annotations

import os
import struct
import tempfile
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import FormatError
from procs.formats import date, date_boards
from procs.formats import date_layout as layout
from procs.formats.date_boards import TdcBlock, decode_flash, decode_v1290, decode_v1290_blocks
from procs.formats.date_spills import SpillBatch
from procs.formats.date_writer import EventId, Hit, equipment, flash_words, super_event, v1290_words, write_event

FOLDER = tempfile.TemporaryDirectory(prefix="date-properties-")  # for the examples of hypothesis
PATH = Path(FOLDER.name) / f"sim_{os.getpid()}.000"


@pytest.fixture
def mice(shared_data: Path) -> Path:
    return shared_data / "mice_06008.000"


def hits_of(index: int) -> list[Hit]:
    return [Hit(0, 0, 0, 1000 + index), Hit(0, 1, 0, 900 + index), Hit(3, 31, 1, 7)]


def blocks(triggers: int, spill: int = 0) -> list[bytes]:
    words = [
        v1290_words(board, spill * triggers, [hits_of(t) for t in range(triggers)], list(range(triggers)))
        for board in (1, 2)
    ]
    waves = np.arange(triggers * 8 * 4).reshape(triggers, 8, 4)
    return [
        equipment(layout.TRIGGER_RECEIVER, 0, [0x20033]),
        equipment(layout.EVENT_BUILDER, 0),
        equipment(layout.V1290, 1, words[0], (0, 0, 0), 4),
        equipment(layout.V1290, 2, words[1], (0, 0, 0), 4),
        equipment(layout.V1724, 5, flash_words(layout.V1724, 5, waves + 8000, list(range(triggers)))),
        equipment(layout.V1731, 9, flash_words(layout.V1731, 9, waves % 256, list(range(triggers)))),
        equipment(layout.V830, 3, [10, 20, 30]),
    ]


def small_file(spills: int = 2, triggers: int = 3) -> list[bytes]:
    """The events of a small file."""
    events = [super_event(EventId(layout.START_OF_RUN, 12, 1), [(1, [])])]
    for spill in range(spills):
        events.append(super_event(EventId(layout.START_OF_BURST, 12, spill, 0, 100 + spill), [(1, blocks(0)[:2])]))
        physics = EventId(layout.PHYSICS, 12, spill, 1, 200 + spill, 5)
        events.append(
            super_event(physics, [(1, blocks(triggers, spill)), (7, [equipment(layout.TRIGGER_RECEIVER, 1, [1])])])
        )
        events.append(super_event(EventId(layout.END_OF_BURST, 12, spill, 1, 300 + spill), [(1, [])]))
    return [*events, super_event(EventId(layout.END_OF_RUN, 12, 1), [(1, [])])]


CONTENT = b"".join(small_file())
WHOLE = {"events": 8, "triggers": 6, "hits": 36, "waveforms": 96, "samples": 384, "scalers": 6, "rows": 12}


def read(
    content: bytes | None = None, *, keep: bool = False, strict: bool = True
) -> tuple[date.DateFile, list[SpillBatch]]:
    if content is not None:
        PATH.write_bytes(content)
    file = date.open(PATH, strict=strict)
    return file, list(file.spills(chunk=2, keep_truncated=keep))


def totals(batches: list[SpillBatch]) -> dict[str, int]:
    for batch in batches:
        assert batch.lengths.sum() == len(batch.samples) and batch.raw_lengths.sum() == len(batch.raw_words)
        assert batch.hits.sum() == len(batch.hit_time) == batch.trigger_hits.sum()
        assert batch.waveforms.sum() == len(batch.lengths)
        assert len(batch.hit_event) == 0 or batch.hit_event.max() < len(batch)
    return {
        "events": sum(len(batch.table_type) for batch in batches),
        "triggers": int(sum(batch.triggers.sum() for batch in batches)),
        "hits": int(sum(batch.hits.sum() for batch in batches)),
        "waveforms": int(sum(batch.waveforms.sum() for batch in batches)),
        "samples": sum(len(batch.samples) for batch in batches),
        "scalers": sum(len(batch.scaler_value) for batch in batches),
        "rows": sum(len(batch.trigger_index) for batch in batches),
    }


def test_the_real_file(mice: Path) -> None:
    file = date.open(mice)
    types = Counter(event.type for event in file.events())
    assert types == {1: 2, 5: 6, 7: 6, 6: 6, 2: 2}
    batches = list(file.spills(chunk=4))
    assert file.run == 6008 and file.run_name == "mice_06008" and file.file_number == 0 and len(batches) == 2
    found = totals(batches)
    assert found["triggers"] == 882 and found["hits"] == 7056 and found["events"] == 22 and found["rows"] == 4 * 882
    hits: Counter[tuple[int, int, int]] = Counter()
    for batch in batches:
        assert batch.triggers.tolist() == [147] * len(batch) and batch.size.tolist() == [398128] * len(batch)
        assert not batch.tdc_errors.any() and np.array_equal(batch.hit_time_ns, batch.hit_time * 0.025)
        hits.update(zip(batch.hit_board.tolist(), batch.hit_channel.tolist(), batch.hit_edge.tolist(), strict=True))
    assert hits == {(board, channel, 0): 882 for board in (1, 2, 3, 4) for channel in (0, 1)}
    assert [spill for batch in batches for spill in batch.spill] == list(range(6))
    assert found["waveforms"] == 8 * 882 and found["samples"] == 8 * 882 * 256  # the V1731
    assert len(file.undecoded) == 9 and all("14-bit" in sentence for sentence in file.undecoded)  # the V1724s
    assert not file.problems and file.truncated is None


def test_the_real_file_is_written_again_byte_for_byte(mice: Path) -> None:
    assert b"".join(write_event(event) for event in date.open(mice).events()) == mice.read_bytes()


def test_the_real_file_cut(mice: Path) -> None:
    content = mice.read_bytes()[:-100_000]
    file, batches = read(content, keep=True)
    assert file.truncated is not None and totals(batches)["triggers"] == 735
    with pytest.raises(FormatError, match="not complete") as caught:
        list(file.spills())
    assert caught.value.offset == file.truncated.offset


def test_what_was_written_is_read() -> None:
    file, batches = read(CONTENT)
    assert totals(batches) == WHOLE and not file.undecoded
    batch = batches[0]
    assert batch.table_type.tolist() == [1, 5, 7, 6, 5, 7] and batches[1].table_type.tolist() == [6, 2]
    assert (
        batch.seconds.tolist() == [200, 201]
        and batch.microseconds.tolist() == [5, 5]
        and batch.number.tolist() == [1, 1]
    )
    assert batch.trigger_word.tolist() == [0x20033] * 2 and batch.trigger_index.tolist() == [0, 1, 2] * 4
    assert batch.trigger_board.tolist() == [1] * 3 + [2] * 3 + [1] * 3 + [2] * 3
    assert batch.trigger_count[6:9].tolist() == [3, 4, 5] and batch.trigger_hits.tolist() == [3] * 12
    assert batch.hit_time[:3].tolist() == [1000, 900, 7] and batch.hit_edge[:3].tolist() == [0, 0, 1]
    assert batch.hit_tdc[:3].tolist() == [0, 0, 3] and batch.hit_channel[:3].tolist() == [0, 1, 31]
    assert batch.wave_kind[:24].tolist() == [120] * 24 and batch.samples[:4].tolist() == [8000, 8001, 8002, 8003]
    assert batch.wave_channel[:9].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 0] and batch.wave_board[24] == 9
    assert batch.samples[96:100].tolist() == [0, 1, 2, 3] and batch.scaler_value.tolist() == [10, 20, 30] * 2
    assert b"".join(write_event(event) for event in file.events()) == CONTENT


def test_an_event_without_a_gdc() -> None:
    event = bytearray(super_event(EventId(layout.PHYSICS, 3), [(1, blocks(2))])[80:])
    file, batches = read(bytes(event))
    assert totals(batches)["hits"] == 12 and next(iter(file.events())).sub_events[0].offset == 0


def test_trailing_and_error_words_are_counted() -> None:
    words = v1290_words(4, 0, [[Hit(0, 2, 1, 55)]], [9]).tolist()
    words.insert(2, 0b00100 << 27 | 5)
    words[4] += 1  # the chip's word count
    words[-1] += 1 << 5
    block = decode_v1290(np.array(words, dtype=np.uint32))
    assert (
        block.error_words == 1
        and block.problems == []
        and block.edge.tolist() == [1]
        and block.time_tag.tolist() == [9]
    )


def test_flash_blocks_that_are_no_plain_samples_stay_raw() -> None:
    encoded = np.array([0xA000000C, 0x070000FF, 1, 5, *(channel << 12 for channel in range(8))], dtype=np.uint32)
    assert "14-bit" in decode_flash(encoded, layout.V1724).reason
    uneven = np.array([0xA0000007, 0x07000003, 1, 5, 1, 2, 3], dtype=np.uint32)
    assert "masks" in decode_flash(uneven, layout.V1731).reason
    good = decode_flash(np.array([0xA0000006, 0x07000005, 1, 5, 0x00020001, 0x00040003], dtype=np.uint32), layout.V1724)
    assert good.channel.tolist() == [0, 2] and good.samples.tolist() == [1, 2, 3, 4] and good.board.tolist() == [0, 0]
    file, batches = read(
        super_event(EventId(layout.PHYSICS, 3), [(1, [equipment(120, 2, encoded), equipment(77, 1, [5])])])
    )
    assert batches[0].raw_words.tolist() == [*encoded.tolist(), 5] and batches[0].raw_kind.tolist() == [120, 77]
    assert sum(file.undecoded.values()) == 2


def patched(offset: int, value: int) -> bytes:
    content = bytearray(CONTENT)
    struct.pack_into("<I", content, offset, value)
    return bytes(content)


FIRST = len(small_file()[0])
SECOND = FIRST + len(small_file()[1])  # the first physics event
BLOCK = SECOND + 160  # its first equipment block
TDC = BLOCK + 32 + 28  # its first TDC block


@pytest.mark.parametrize(
    ("offset", "value", "message", "where"),
    [
        (4, 0xFE5A1EDA, "big-endian", 4),
        (FIRST + 4, 5, "magic", FIRST + 4),
        (FIRST, 76, "expected the event's size", FIRST),
        (FIRST, 81, "expected the event's size", FIRST),
        (FIRST, 0, "expected the event's size", FIRST),
        (FIRST + 8, 0, "expected a header of 80", FIRST + 8),
        (FIRST, 0xFFFFFFFC, "size gone wrong", FIRST),
        (FIRST, 0x00100000, "its size is wrong", FIRST),
        (SECOND + 80, 1 << 20, "runs past its event", SECOND + 80),
        (SECOND + 80, 0, "expected the sub-event's size", SECOND + 80),
        (SECOND + 84, 0, "magic", SECOND + 84),
        (SECOND + 64, 4, "found a sub-event's header|equipment block", None),
        (SECOND + 80 + 16, 8, "another event type", SECOND + 80 + 16),
        (BLOCK, 24, "28 bytes or more", BLOCK),
        (BLOCK, 0, "28 bytes or more", BLOCK),
        (BLOCK, 30, "28 bytes or more", BLOCK),
        (BLOCK, 1 << 30, "runs past its sub-event", BLOCK),
        (TDC + 28, 0, "V1290", None),
        (TDC + 28 + 8, 3 << 27, "V1290", None),
        (TDC + 28 + 8, 0b10000 << 27, "V1290", None),
        (TDC + 28 + 8, 0b11000 << 27, "filler", TDC + 36),
        (TDC + 28 + 8, 0b00010 << 27, "unknown type", TDC + 36),
    ],
)
def test_inconsistencies_have_an_offset(offset: int, value: int, message: str, where: int | None) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        read(patched(offset, value))
    assert caught.value.offset is not None and 0 <= caught.value.offset < len(CONTENT)
    assert where is None or caught.value.offset == where


def test_board_problems_can_be_counted_instead() -> None:
    content = patched(TDC + 28 + 8, 0b11000 << 27)
    file, batches = read(content, strict=False)
    assert file.problems == {"a V1290 filler word inside a trigger": 1} and str(TDC + 36) in file.examples[0]
    assert totals(batches)["hits"] == WHOLE["hits"] - 1


def test_every_cut_keeps_the_complete_events() -> None:
    ends = np.cumsum([len(event) for event in small_file()]).tolist()
    for cut in range(80, len(CONTENT), 4):
        PATH.write_bytes(CONTENT[:cut])
        file = date.open(PATH)
        whole = sum(end <= cut for end in ends)
        assert len(list(file.events(keep_truncated=True))) == whole
        assert (file.truncated is None) == (cut in ends), cut
        if cut not in ends:
            with pytest.raises(FormatError, match="not complete"):
                list(file.events())


@pytest.mark.parametrize("content", [b"", b"\0" * 100, CONTENT[:79], b"\xfe\x5a\x1e\xda" * 40])
def test_no_date_file(content: bytes) -> None:
    with pytest.raises(FormatError):
        read(content)


def test_one_bit_anywhere() -> None:
    """One bit of every third byte changed in turn: an error with an offset, the same numbers, or said so."""
    errors = 0
    kinds = {event.blocks()[i].offset + 4 for event in read(CONTENT)[0].events() if event.type == 7 for i in (4, 5)}
    for place in range(0, len(CONTENT), 3):
        if place in kinds:  # V1724 and V1731 differ in one bit of the type and in nothing else that can be checked
            continue
        content = bytearray(CONTENT)
        content[place] ^= 1 << (place * 5 + place // 8) % 8
        try:
            file, batches = read(bytes(content))
        except FormatError as error:
            assert error.offset is None or 0 <= error.offset <= len(content)
            errors += 1
        else:
            found = totals(batches)
            assert (
                found == WHOLE or file.undecoded or (found["hits"] < WHOLE["hits"] and batches[0].tdc_errors.any())
            ), place
    assert errors > 170


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_damage(data: st.DataObject) -> None:
    content = bytearray(CONTENT)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content)))
        end = min(len(content), place + data.draw(st.integers(1, 200)))
        kind = data.draw(st.sampled_from(["change", "word", "insert", "delete", "double", "cut"]))
        if kind == "change":
            content[place:end] = data.draw(st.binary(min_size=1, max_size=8))
        elif kind == "word" and place + 4 <= len(content):
            struct.pack_into("<I", content, place // 4 * 4, data.draw(st.integers(0, 2**32 - 1)))
        elif kind == "insert":
            content[place:place] = data.draw(st.binary(min_size=1, max_size=8))
        elif kind == "delete":
            del content[place:end]
        elif kind == "double":
            content[place:place] = content[place:end]
        else:
            del content[place:]
    for keep, strict in ((False, True), (True, False)):
        try:
            file, batches = read(bytes(content), keep=keep, strict=strict)
        except FormatError as error:
            assert error.offset is None or 0 <= error.offset <= len(content)
            continue
        totals(batches)
        assert keep or file.truncated is None


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.lists(
            st.builds(Hit, st.integers(0, 3), st.integers(0, 31), st.integers(0, 1), st.integers(0, 2**21 - 1)),
            max_size=5,
        ),
        max_size=5,
    ),
    st.integers(0, 31),
    st.integers(0, 2**22 - 1),
)
def test_tdc_words_round_trip(triggers: list[list[Hit]], geo: int, first: int) -> None:
    block = decode_v1290(v1290_words(geo, first, triggers, [5] * len(triggers)))
    assert block.problems == [] and block.hit_count.tolist() == [len(hits) for hits in triggers]
    expected = [
        (t, h.tdc, h.channel, h.edge, h.time)
        for t, hits in enumerate(triggers)
        for h in sorted(hits, key=lambda h: h.tdc)
    ]
    columns = (block.trigger, block.tdc, block.channel, block.edge, block.time)
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == expected


def test_memory_is_bounded_by_the_chunk(tmp_path: Path) -> None:
    path = tmp_path / "sim_00001.000"
    one = super_event(
        EventId(layout.PHYSICS, 1, 0, 1), [(1, [equipment(layout.TRIGGER_RECEIVER, 0, np.zeros(100_000))])]
    )
    with path.open("wb") as out:
        for _ in range(100):
            out.write(one)
    file = date.open(path)
    file.chunk = 1_000_000
    tracemalloc.start()
    try:
        assert sum(len(batch) for batch in file.spills(chunk=2)) == 100
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 40e6 and peak < 8e6


TRIGGERS = v1290_words(3, 7, [hits_of(0), hits_of(1)], [5, 6])  # 14 words each: header, chips, time tag, trailer


@pytest.mark.parametrize(
    ("place", "change", "sentence"),
    [
        (13, 1 << 5, "global trailer's word count"),
        (13, 1, "global trailer has another address"),
        (14, 1 << 5, "event count does not follow"),
        (4, 1, "TDC trailer's word count"),
        (4, 1 << 12, "another chip or event id"),
        (1, 1 << 24, "another chip or event id"),
    ],
)
def test_tdc_words_that_contradict_each_other(place: int, change: int, sentence: str) -> None:
    words = TRIGGERS.copy()
    assert decode_v1290(words).problems == [] and len(words) == 28
    words[place] ^= change
    problems = decode_v1290(words).problems
    assert problems and all(sentence in text for _, text in problems) and problems[0][0] == place + (place == 1) * 3


def test_a_second_time_tag_and_words_between_triggers() -> None:
    tagged = np.concatenate([TRIGGERS[:13], TRIGGERS[12:13], TRIGGERS[13:]])
    tagged[14] += 1 << 5
    assert decode_v1290(tagged).problems == [(13, "a second V1290 time tag in one trigger")]
    between = np.concatenate([TRIGGERS[:14], TRIGGERS[5:7], TRIGGERS[14:]])
    assert decode_v1290(between).problems[0] == (14, "a V1290 word outside of any trigger")
    assert decode_v1290(np.concatenate([TRIGGERS, [0b11000 << 27]]).astype(np.uint32)).problems == []
    assert decode_v1290(TRIGGERS[:0]).problems == []
    moved = TRIGGERS.copy()
    moved[[10, 11]] = moved[[11, 10]] - [1, 0]  # the last chip's hit after its trailer, whose count says so
    assert decode_v1290(moved).problems == [(11, "a V1290 measurement outside of any TDC's words")]


@pytest.mark.parametrize(
    ("place", "change", "sentence"), [(9, 0x0F, "channel mask"), (9, 1 << 27, "board"), (10, 4, "counter")]
)
def test_flash_events_that_contradict_each_other(place: int, change: int, sentence: str) -> None:
    words = flash_words(layout.V1731, 2, np.arange(32).reshape(2, 4, 4), [1, 2], mask=0x0F)
    assert decode_flash(words, layout.V1731).problems == () and len(words) == 16
    words[place] ^= change
    assert any(sentence in text and at == place for at, text in decode_flash(words, layout.V1731).problems)


@pytest.mark.parametrize(
    ("word", "sentence"), [(0x50000008, "top nibble"), (0xA0000003, "3 words"), (0xA0000FFF, "4095 words")]
)
def test_flash_sizes_that_do_not_fill_the_block(word: int, sentence: str) -> None:
    words = flash_words(layout.V1731, 2, np.arange(32).reshape(1, 8, 4), [1])
    words[0] = word
    block = decode_flash(words, layout.V1731)
    assert block.reason and len(block.samples) == 0 and sentence in block.problems[0][1]


@st.composite
def tdc_blocks(draw: st.DrawFn) -> np.ndarray:
    """The words of a V1290 block, whole or with some words that are others, doubled or missing."""
    count = draw(st.integers(0, 3))
    hits = [[hit for number in range(draw(st.integers(0, 2))) for hit in hits_of(number)] for _ in range(count)]
    words = v1290_words(draw(st.integers(0, 31)), draw(st.integers(0, 2**22 - 1)), hits, [5] * count)
    if draw(st.booleans()):
        words = np.append(words, np.uint32(0b11000 << 27))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        place = draw(st.integers(0, max(0, len(words) - 1)))
        kind = draw(st.sampled_from(["bit", "double", "delete", "error"])) if len(words) else "none"
        if kind == "bit":
            words[place] ^= np.uint32(1 << draw(st.integers(0, 31)))
        elif kind == "double":
            words = np.insert(words, place, words[place])
        elif kind == "delete":
            words = np.delete(words, place)
        elif kind == "error":
            words[place] = 0b00100 << 27
    return words.astype(np.uint32)


@settings(max_examples=200, deadline=None)
@given(st.lists(tdc_blocks(), max_size=4))
def test_blocks_decoded_together_are_what_each_is_alone(blocks: list[np.ndarray]) -> None:
    together = decode_v1290_blocks(blocks)
    assert len(together) == len(blocks)
    for found, words in zip(together, blocks, strict=True):
        alone = decode_v1290(words)
        for name in TdcBlock.__slots__:
            one, other = getattr(found, name), getattr(alone, name)
            assert np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other, name


def test_whole_blocks_are_decoded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = [v1290_words(board, 7, [hits_of(0)] * 3, [5] * 3) for board in range(4)]
    monkeypatch.setattr(date_boards, "decode_v1290", None)
    assert [block.geo.tolist() for block in decode_v1290_blocks(blocks)] == [[board] * 3 for board in range(4)]


def test_a_fault_in_an_event_keeps_the_events_before_it_in_the_same_batch(tmp_path: Path) -> None:
    def spill(number: int, damage: int = 0) -> bytes:
        words = TRIGGERS.copy()
        words[13] ^= damage
        return super_event(EventId(layout.PHYSICS, 1, number, 1), [(1, [equipment(layout.V1290, 0, words)])])

    path = tmp_path / "sim_00001.000"
    path.write_bytes(spill(0) + spill(1) + spill(2, 1 << 5) + spill(3) + b"no event")
    batches = date.open(path).spills(10)
    assert next(batches).spill.tolist() == [0, 1]
    with pytest.raises(FormatError, match="global trailer's word count is wrong") as met:
        next(batches)
    assert met.value.offset is not None and 2 * len(spill(0)) < met.value.offset < 3 * len(spill(0))
    batches = date.open(path, strict=False).spills(10)
    assert next(batches).spill.tolist() == [0, 1, 2, 3]
    with pytest.raises(FormatError, match="expected the magic word"):
        next(batches)
