"""Samba files (Edelweiss, NEWS-G): open one, look at its headers, take its events in batches.

    file = samba.open("ma22a000_003")
    for batch in file.batches(events=500):
        batch.amplitude, batch.samples, ...

What is an error and what is not:

- A length, count, tag or number that cannot be right is a :class:`~orchestrator.errors.FormatError` with the byte
  offset and what was expected there. All complete events before it have been yielded by then.
- A file that ends inside its last event is the same error, or, with ``keep_truncated=True``, the end of the batches,
  and :attr:`SambaFile.truncated` is set.
- A partition without the end-of-run trailer is complete. What is odd but harmless (an unknown block, a key given
  twice, no Byte-order) is listed in :attr:`SambaFile.notes`.

Memory is bounded by a batch plus one event; the file is never read whole.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import FormatError
from procs.formats import names
from procs.formats import samba_text as text
from procs.formats.samba_batch import BatchBuilder, SambaBatch
from procs.formats.samba_events import EVENT_KEYS, LOG_LINE, PULSE_KEYS, EventReader
from procs.formats.samba_header import Channel, Detector, SambaHeader, read_header
from procs.formats.samba_layouts import LINE_KEY
from procs.formats.window import CHUNK, NeedMore, Truncation, Window

BATCH_BYTES = 64 * 1024 * 1024  # a batch ends here too: 500 events with long traces would need gigabytes
HEAD_CHUNK = 256 * 1024  # bytes read at once for the headers alone
CLOCK = re.compile(rb"[0-9]{1,2}[:/][0-9]{2}")
LETTERS = re.compile(rb"[A-Za-z]")
STREAM_POINTS = 65_536  # points of each channel in one block of a stream
MAX_LOG_LINES = 100  # lines kept
TRAILER_BYTES = 4096  # where the text at the end of a stream is looked for


class SambaFile:
    """A Samba file that was opened: its headers, and its events or its stream.

    Attributes:
        header: everything the headers say.
        detectors, channels: in the order of the file.
        run: the keys of the ``* Run`` block, typed (``Condition``, ``Temperature``, ...).
        run_name, file_number, part: from the file's name where it is of the form ``<run>_<NNN>``, else from the
            header; ``part`` is partition, stream or regenerated.
        is_stream: the data are interleaved samples, not events.
        truncated: set by :meth:`batches` and :meth:`stream` if the file ends inside an event.
        end_of_run: the trailer's keys (``reason`` among them) once it was read, else None.
        log_lines: the free lines that the DAQ wrote between the data, as far as they were read.
        reference_words: the words that ``Reference`` has had so far; ``SambaBatch.reference_word`` counts in it.
    """

    def __init__(self, path: Path, header: SambaHeader, size: int, is_stream: bool) -> None:
        self.path = path
        self.header = header
        self.size = size
        self.is_stream = is_stream
        self.chunk = CHUNK  # bytes read at once
        self.detectors: list[Detector] = header.detectors
        self.channels: list[Channel] = header.channels
        self.run: dict[str, Any] = header.run
        self.truncated: Truncation | None = None
        self.end_of_run: dict[str, Any] | None = None
        self.reference_words: list[str] = []
        self.log_lines: list[str] = []
        self.events_read = 0
        name = names.from_samba_name(path)
        said = (header.run.get("Run"), header.general.get("Fichier"), path.stem)
        declared = next(name for name in said if name is not None)
        self.run_name = name.run_name if name else str(declared)
        self.file_number = name.file_number if name else 0
        self.part = "stream" if is_stream else name.part if name else "partition"

    @property
    def notes(self) -> list[str]:
        """What was odd but harmless in the headers and, so far, in the events."""
        return self.header.notes

    def batches(
        self, events: int = 500, *, keep_truncated: bool = False, max_bytes: int = BATCH_BYTES, fast: bool = True
    ) -> Iterator[SambaBatch]:
        """The events in file order, in batches of up to ``events`` events or ``max_bytes`` of samples.

        Args:
            events: events of one batch at most.
            keep_truncated: end quietly before an incomplete last event and set :attr:`truncated`.
            max_bytes: a batch ends with the event that reaches this.
            fast: read blocks by the layouts seen before (same meaning; False is for tests).

        Raises:
            FormatError: after all complete events were yielded.
        """
        if self.is_stream:
            raise FormatError(
                "this file is a stream: it has samples and no events",
                path=str(self.path),
                offset=self.header.data_offset,
            )
        self.truncated, self.end_of_run, self.events_read = None, None, 0
        self.log_lines = []
        if not self.header.channels:
            self.header.note("no channel is configured in the header: channels are named as they come")
        index = {channel.name.encode(): channel.index for channel in self.channels}
        with Window(self.path, self.chunk) as window:
            reader = EventReader(window, self.header, index, fast)
            yield from _Batches(self, window, reader, events, max_bytes, keep_truncated).run()

    def stream(self, points: int = STREAM_POINTS, *, keep_truncated: bool = False) -> Iterator[NDArray[np.int16]]:
        """The samples of a stream file: arrays (up to ``points``, channels), in file order.

        Raises:
            FormatError: not a stream, or its length is no multiple of the number of channels (see ``keep_truncated``).
        """
        if not self.is_stream:
            raise FormatError(
                "this file has events and is no stream", path=str(self.path), offset=self.header.data_offset
            )
        self.truncated = None
        width = len(self.channels)
        with Window(self.path, self.chunk) as window:
            position = window.move(self.header.data_offset, 512)
            position = self._stream_start(window, position)
            begin = window.base + position
            end = self._stream_end(window, begin, 2 * width)
            rest = (end - begin) % (2 * width)
            whole = end - rest
            offset = begin
            while offset < whole:
                size = min(points * 2 * width, whole - offset)
                window.chunk = min(self.chunk, size)
                window.move(offset, size)
                block = np.frombuffer(window.data, self.header.order + "i2", size // 2).astype(np.int16)
                yield block.reshape(-1, width)
                offset += size
            if rest:
                self.truncated = Truncation(whole, f"{rest} bytes are left, {2 * width} are one point of each channel")
                if not keep_truncated:
                    raise FormatError(f"the stream is cut: {self.truncated.reason}", path=str(self.path), offset=whole)

    def _stream_start(self, window: Window, position: int) -> int:
        """Step over a separator or a log line between ``* Donnees`` and the samples."""
        for _ in range(3):
            end = window.data.find(b"\n", position, position + 256)
            line = window.data[position:end] if end >= 0 else b""
            words = LOG_LINE.match(line) and len(line) >= 8 and b" " in line and len(LETTERS.findall(line)) >= 4
            if not text.SEPARATOR.match(line) and not words:
                break
            if words:
                self.log_lines.append(text.decode(line))
            position = end + 1
        return position

    def _stream_end(self, window: Window, begin: int, frame: int) -> int:
        """Where the samples end: at the file's end, or at the text of an end-of-run trailer."""
        tail = max(begin, window.size - TRAILER_BYTES)
        window.move(tail, window.size - tail)
        found = window.data.rfind(b"* Arret ")
        if found < 0:
            return window.size
        words = window.data[found:]
        if not all(LOG_LINE.match(line) for line in words.replace(b"\r", b"\n").split(b"\n") if line):
            return window.size
        start = found
        while start > 0 and (32 <= window.data[start - 1] < 127 or window.data[start - 1] in b"\t\r\n"):
            start -= 1
        # The log line begins where a point of all channels ends: at a clock time, or else as early as can be.
        first = start + -(tail + start - begin) % frame
        places = range(first, found + 1, frame)
        start = next((place for place in places if CLOCK.match(window.data, place)), first)
        self.end_of_run = {"reason": text.decode(words.splitlines()[0][len(b"* Arret ") :]).strip()}
        return tail + min(start, found)


class _Batches:
    """One pass over the events of a file."""

    def __init__(
        self, file: SambaFile, window: Window, reader: EventReader, events: int, max_bytes: int, keep: bool
    ) -> None:
        self.file = file
        self.window = window
        self.reader = reader
        self.events = max(1, events)
        self.max_bytes = max_bytes
        self.keep = keep
        self.out = BatchBuilder(file.header.order)
        self.open_channels = not file.header.channels

    def run(self) -> Iterator[SambaBatch]:
        file, window, reader = self.file, self.window, self.reader
        position = window.move(file.header.data_offset)
        failure: FormatError | None = None
        while True:
            try:
                after = self._one(position)
            except NeedMore as more:
                held = len(window.data) - position
                position = window.advance(position, max(more.size, 2 * held if position == 0 else 0))
                continue
            except EOFError:
                number = file.events_read + len(self.out) + 1
                reason = f"the file ends at byte {window.size}, inside event {number} (counted from 1)"
                file.truncated = Truncation(window.base + position, reason)
                if not self.keep:
                    failure = FormatError(
                        f"the last event is not complete: {reason}", path=window.path, offset=window.base + position
                    )
                break
            except FormatError as error:
                failure = error
                break
            if after is None:
                break
            position = after
            file.reference_words = list(reader.words)
            if len(self.out) >= self.events or self.out.size >= self.max_bytes:
                yield self._flush()
        if len(self.out):
            yield self._flush()
        if failure is not None:
            raise failure

    def _flush(self) -> SambaBatch:
        batch = self.out.build()
        self.file.events_read += len(batch)
        self.out = BatchBuilder(self.file.header.order, first=self.file.events_read)
        return batch

    def _one(self, position: int) -> int | None:
        """Take what stands at ``position``: an event, the trailer, a log line. The index after it; None at the end."""
        window, reader = self.window, self.reader
        position = reader.skip(position)
        if position >= len(window.data) and window.at_end:
            return None
        tag = reader.tag(position)
        if tag == b"Evenement":
            if self.open_channels:
                self._name_channels(position)
            return reader.event(position, self.out)
        line, after = self._line(position)
        if tag == b"Arret":
            return self._trailer(line, after)
        if tag in (b"-", b"Donnees"):
            return after
        key = LINE_KEY.match(line)
        if tag == b"" and LOG_LINE.match(line) and (key is None or key[1] not in EVENT_KEYS | PULSE_KEYS):
            if self.file.end_of_run is None and len(self.file.log_lines) < MAX_LOG_LINES:
                self.file.log_lines.append(text.decode(line))
            return after
        raise reader.error("expected `* Evenement`, the end-of-run trailer or the end of the file", position)

    def _line(self, position: int) -> tuple[bytes, int]:
        """A line between events; the last one of the file may lack its end."""
        try:
            return self.reader.lines.line(position)
        except EOFError:
            line = self.window.data[position:]
            whole = LOG_LINE.match(line) and (self.file.end_of_run is not None or line.startswith(b"* Arret "))
            if not whole and not text.SEPARATOR.match(line):
                raise
            return line, len(self.window.data)

    def _trailer(self, line: bytes, position: int) -> int:
        """``* Arret ...``, a comment, Date.* and a separator; the index after them."""
        ending: dict[str, Any] = {"reason": text.decode(line[1:].strip()[len(b"Arret") :]).strip()}
        start = position
        for _ in range(50):
            start = self.reader.skip(start)
            if start >= len(self.window.data):
                break
            if self.window.data[start : start + 1] == b"*" and self.reader.tag(start) != b"-":
                break
            try:
                words, start = self.reader.lines.line(start)
            except EOFError:
                start = len(self.window.data)
                break
            if text.SEPARATOR.match(words):
                break
            pair = text.split_assignment(text.decode(words))
            if pair is not None and pair[0]:
                ending[pair[0]] = text.typed(pair[1])
        self.file.end_of_run = ending
        return start

    def _name_channels(self, position: int) -> None:
        """Without a channel configuration, take the channels' names from the event's own headers."""
        reader, file = self.reader, self.file
        builder = BatchBuilder(file.header.order)
        while True:
            try:
                reader.event(position, builder)
                return
            except FormatError as error:
                offset = -1 if error.offset is None else error.offset - self.window.base
                if reader.window.data[offset : offset + 6] != b"* Voie" or "no channel" not in str(error):
                    raise
                name, _, _ = reader.block_by_lines(offset, b"Voie", PULSE_KEYS)
                channel = Channel(len(file.channels), text.decode(name))
                file.channels.append(channel)
                reader.names[text.decode(name).encode()] = channel.index


def open(path: str | os.PathLike[str], *, stream: bool | None = None) -> SambaFile:
    """Read the headers of a Samba file.

    Args:
        path: the file.
        stream: whether the data are a stream; by default the headers, the name and the first bytes decide.

    Raises:
        FormatError: no Samba file, or its headers break off; with the byte offset.
        OSError: the file cannot be read.
    """
    with Window(path, HEAD_CHUNK) as window:
        header = read_header(window)
        if stream is None:
            stream = _is_stream(Path(path), header, window)
        if stream and not header.channels:
            _stream_channels(header)
        if stream and not header.channels:
            raise FormatError(
                "a stream needs its channels' names, and the header has none",
                path=window.path,
                offset=header.data_offset,
            )
        return SambaFile(Path(path), header, window.size, stream)


def _is_stream(path: Path, header: SambaHeader, window: Window) -> bool:
    """A stream has samples right after ``* Donnees``: no tag, no comment, no line of text."""
    window.move(header.data_offset, 4096)
    head = window.data[:4096]
    if not head:
        name = names.from_samba_name(path)
        return bool(name and name.part == "stream")
    for line in head.replace(b"\r", b"\n").split(b"\n")[:8]:
        words = line.strip()
        if words.startswith((b"* Evenement", b"* Arret")):
            return False
        if text.SEPARATOR.match(words) or not words:
            continue
        if not LOG_LINE.match(line):
            break
    named = names.from_samba_name(path)
    kind = str(header.general.get("Type.donnees", "")).lower()
    return header.run.get("Trigger.actif") is False or "stream" in kind or bool(named and named.part == "stream")


def _stream_channels(header: SambaHeader) -> None:
    """Name the channels of a stream that has no ``* Voie`` blocks: each detector has those of the Physique list."""
    kinds = header.physics.get("liste")
    if isinstance(kinds, list) and header.detectors:
        for detector in header.detectors:
            for kind in kinds:
                header.channels.append(Channel(len(header.channels), f"{kind} {detector.name}", detector.name))
        header.note("no channel is configured: one per detector and item of the Physique list is assumed")
