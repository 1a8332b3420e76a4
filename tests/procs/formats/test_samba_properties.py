"""Samba: what is written is read; whatever is damaged ends in a FormatError or in a complete, consistent result."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import FormatError
from procs.formats import samba
from procs.formats.samba_batch import SambaBatch, blank_columns, concatenate
from procs.formats.samba_header import Channel, Detector, FilterStage, SambaHeader
from procs.formats.samba_writer import write_file

FOLDER = tempfile.TemporaryDirectory(prefix="samba-properties-")  # for the examples of hypothesis
PATH = Path(FOLDER.name) / f"ma22a000_{os.getpid():03d}"

plain = st.text("abcXYZ 0123456789.=#,:'-_\u00e9\u00fc/", min_size=1, max_size=12).map(str.strip).filter(bool)
finite = st.floats(allow_nan=False, allow_infinity=False)
value = st.one_of(st.booleans(), st.none(), st.integers(-(10**17), 10**17), finite, st.just(float("-inf")), plain)
key = st.from_regex(r"[A-Z][a-z]{1,6}\.[a-z]{1,6}", fullmatch=True).filter(lambda k: k not in ("Byte-order", "Release"))
keys = st.dictionaries(key, value, max_size=4)
names = st.from_regex(r"(ionis|chaleur)[A-D]? FID80[0-9]", fullmatch=True)
coefficients = st.lists(finite, max_size=3).map(lambda values: np.array(values, dtype=np.float64))


@st.composite
def files(draw: st.DrawFn) -> tuple[SambaHeader, SambaBatch]:
    header = SambaHeader(version="9.35", release="10.0", order=draw(st.sampled_from("<>")))
    header.general = draw(keys)
    header.run = draw(keys)
    header.detectors = [Detector("FID800", {"Bolo.reglages": {"polar-A": draw(finite)}, **draw(keys)})]
    for index, name in enumerate(draw(st.lists(names, min_size=1, max_size=3, unique=True))):
        stages = draw(st.lists(st.builds(FilterStage, coefficients, coefficients), max_size=2))
        header.channels.append(Channel(index, name, None, draw(keys), stages))
    counts = draw(st.lists(st.integers(0, 3), max_size=4))
    pulses = sum(counts)
    columns = blank_columns(len(counts), pulses)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    columns["counts"][:] = counts
    for name in (
        "number",
        "seconds",
        "microseconds",
        "stamp",
        "touched_detector",
        "counter_seconds",
        "pulse_stamp",
        "pretrigger",
    ):
        columns[name] = rng.integers(0, 2**31 - 1, len(columns[name])).astype(columns[name].dtype)
    columns["regeneration"] = rng.random(len(counts)) < 0.5
    columns["trigger_bits"] = rng.integers(0, 2**64, len(counts), dtype=np.uint64)
    columns["trigger_bits_high"] = rng.integers(0, 2, len(counts)).astype(np.uint64)
    columns["dead_time"] = rng.integers(0, 10**9, len(counts)) * 1e-6
    for name in ("temperature", "delay", "base", "noise", "amplitude", "rise", "reference"):
        columns[name] = rng.standard_normal(len(columns[name]))
    columns["channel"] = rng.integers(0, len(header.channels), pulses).astype(np.int32)
    columns["lengths"] = (rng.integers(0, 9, pulses) * rng.integers(0, 2, pulses)).astype(np.int32)
    columns["filter_lengths"] = np.where(columns["lengths"] > 0, rng.integers(0, 3, pulses), 0).astype(np.int32)
    columns["filters"] = rng.standard_normal(int(columns["filter_lengths"].sum()))
    columns["samples"] = rng.integers(-32768, 32768, int(columns["lengths"].sum())).astype(np.int16)
    return header, SambaBatch(0, **columns)


def read(content: bytes | None = None, **options: bool) -> tuple[samba.SambaFile, list[SambaBatch]]:
    if content is not None:
        PATH.write_bytes(content)
    file = samba.open(PATH)
    if file.is_stream:
        list(file.stream(keep_truncated=True))
        return file, []
    return file, list(file.batches(events=2, **options))


@settings(max_examples=60, deadline=None)
@given(files(), st.sampled_from(["\n", "\r\n", "\r"]), st.booleans(), st.booleans())
def test_write_read(made: tuple[SambaHeader, SambaBatch], newline: str, latin: bool, end: bool) -> None:
    header, batch = made
    encoding = "latin-1" if latin else "utf-8"
    write_file(PATH, header, [batch], newline=newline, encoding=encoding, end=(5, "normal") if end else None)
    file, batches = read()
    assert file.header.general == {**header.general, "Byte-order": file.header.general["Byte-order"], "Release": 10.0}
    assert file.run == header.run and file.header.release == "10.0" and file.header.order == header.order
    assert [d.settings for d in file.detectors] == [d.settings for d in header.detectors]
    assert [(c.name, c.settings) for c in file.channels] == [(c.name, c.settings) for c in header.channels]
    for found, expected in zip(file.channels, header.channels, strict=True):
        for one, other in zip(found.filters, expected.filters, strict=True):
            assert np.array_equal(one.direct, other.direct) and np.array_equal(one.inverse, other.inverse)
    assert (file.end_of_run is not None) == end
    if len(batch):
        again = concatenate(batches)
        for column in SambaBatch.__slots__:
            if column == "dead_time":
                assert np.allclose(again.dead_time, batch.dead_time, rtol=1e-12, atol=1e-9)
            else:
                assert np.array_equal(getattr(again, column), getattr(batch, column), equal_nan=column != "first"), (
                    column
                )
    else:
        assert batches == []


def sample() -> tuple[bytes, list[tuple[int, int]]]:
    """A small file, and where its binary payload lies."""
    header = SambaHeader(version="9.35", release="9.35", order="<")
    header.general = {"Intitule": "essai", "Voies.nb": 2, "Bolo.nb": 1}
    header.detectors = [Detector("FID800", {"Bolo.reglages": {"polar-A": 1.5}})]
    stage = FilterStage(np.array([1.0, -0.5]), np.array([2.0]))
    header.channels = [Channel(0, "ionisA FID800", None, {"Voie.gain": 2.5}, [stage]), Channel(1, "chaleur FID800")]
    header.run = {"Run": "ma22a000", "Condition": "bruit de fond"}
    columns = blank_columns(3, 6)
    columns["counts"][:] = 2
    columns["number"] = np.arange(3, dtype=np.int32) + 1
    columns["channel"] = np.array([0, 1] * 3, dtype=np.int32)
    columns["lengths"] = np.array([6, 5, 0, 6, 7, 8], dtype=np.int32)
    columns["filter_lengths"] = np.array([0, 1, 0, 0, 0, 0], dtype=np.int32)
    columns["filters"] = np.array([1.5])
    columns["samples"] = np.arange(32, dtype=np.int16) * 257 - 3000
    columns["amplitude"][:] = 3.25
    batch = SambaBatch(0, **columns)
    write_file(PATH, header, [batch], end=(1327229999, "normal"))
    content = PATH.read_bytes()
    places, start = [], 0
    for trace in batch.traces():
        if len(trace):
            start = content.index(trace.astype("<i2").tobytes(), start)
            places.append((start, start + 2 * len(trace)))
    return content, places


CONTENT, PAYLOAD = sample()
WHOLE = (3, 6, 32)  # events, pulses, samples


def counts(batches: list[SambaBatch]) -> tuple[int, int, int]:
    for batch in batches:
        assert batch.counts.sum() == batch.pulses == len(batch.lengths) and batch.lengths.sum() == len(batch.samples)
        assert batch.filter_lengths.sum() == len(batch.filters) and not np.any(batch.lengths < 0)
        assert batch.pulses == 0 or (batch.channel.min() >= 0 and batch.channel.max() < 2)
    return sum(map(len, batches)), sum(batch.pulses for batch in batches), sum(len(batch.samples) for batch in batches)


def test_one_byte_anywhere() -> None:
    """Every second byte changed in turn: an error with an offset inside the file, or the same numbers of everything."""
    errors = 0
    for place in range(0, len(CONTENT), 2):
        damaged = bytearray(CONTENT)
        damaged[place] ^= (0x01, 0x10, 0x20, 0x80, 0xFF, 0x07)[place // 2 % 6]
        try:
            file, batches = read(bytes(damaged))
        except FormatError as error:
            assert error.offset is not None and 0 <= error.offset <= len(CONTENT), place
            assert not any(start <= place < end for start, end in PAYLOAD), place
            errors += 1
        else:
            assert counts(batches) == WHOLE or file.is_stream, (place, CONTENT[place - 20 : place + 20])
    assert errors > 150


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_damage(data: st.DataObject) -> None:
    """Bytes changed, inserted, taken out, doubled, cut off: a FormatError or a consistent result, nothing else."""
    content = bytearray(CONTENT)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content)))
        kind = data.draw(st.sampled_from(["change", "insert", "delete", "double", "cut"]))
        piece = data.draw(
            st.binary(min_size=1, max_size=6) | st.sampled_from([b"\n", b"* ", b"9", b"* ----\n", b"= ("])
        )
        end = min(len(content), place + data.draw(st.integers(1, 300)))
        if kind == "change":
            content[place : place + len(piece)] = piece
        elif kind == "insert":
            content[place:place] = piece
        elif kind == "delete":
            del content[place:end]
        elif kind == "double":
            content[place:place] = content[place:end]
        else:
            del content[place:]
    for keep in (False, True):
        try:
            file, batches = read(bytes(content), keep_truncated=keep)
        except FormatError as error:
            assert error.offset is None or 0 <= error.offset <= len(content)
            continue
        if len(file.channels) == 2:
            counts(batches)
        assert keep or file.truncated is None or file.is_stream


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(PAYLOAD), st.data())
def test_damage_in_the_payload_keeps_the_counts(place: tuple[int, int], data: st.DataObject) -> None:
    content = bytearray(CONTENT)
    content[place[0] : place[1]] = data.draw(st.binary(min_size=place[1] - place[0], max_size=place[1] - place[0]))
    _, batches = read(bytes(content))
    assert counts(batches) == WHOLE
