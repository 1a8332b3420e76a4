"""The headers at the start of a Samba file: general, detectors, physics, channels with their filters, run.

Blocks begin with ``* Name`` and end with a line ``* ----------``. The order of keys in a block, unknown keys and
unknown blocks do not matter; what is missing or odd but harmless is written in :attr:`SambaHeader.notes`.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import FormatError
from procs.formats import samba_text as text
from procs.formats.window import NeedMore, Window

MAX_HEADER = 64 * 1024 * 1024  # bytes of all headers together; a real one has some 100 kB
MAX_STAGES = 64  # stages of one channel's filter
MAX_NOTES = 50  # notes kept of one header
NAMED_LISTS = ("Bolo.reglages", "Variables")  # lists of `{ name := value }`
MAX_LIST_LINES = 10_000  # lines of one bracketed list


@dataclass(slots=True)
class FilterStage:
    """One stage of a channel's digital filter: its direct and inverse coefficients (float64)."""

    direct: NDArray[np.float64]
    inverse: NDArray[np.float64]


@dataclass(slots=True)
class Detector:
    """A ``* Detecteur`` block: its name and its keys, typed."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Channel:
    """A ``* Voie "..."`` block of the header: the configuration of one channel.

    ``detector`` is the name of the detector that the channel's name ends in, or None.
    """

    index: int
    name: str
    detector: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    filters: list[FilterStage] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """``heat``, ``ionisation``, ``light`` or ``other``, by the first word of the name."""
        first = self.name.lower()
        for kind, starts in (
            ("heat", ("chal", "heat")),
            ("ionisation", ("ionis", "centre", "garde", "col", "vet", "gar")),
            ("light", ("light", "lum")),
        ):
            if first.startswith(starts):
                return kind
        return "other"


@dataclass(slots=True)
class SambaHeader:
    """All headers of a file. ``order`` is ``<`` or ``>``; ``data_offset`` is the byte after ``* Donnees``."""

    version: str = ""
    release: str = ""
    general: dict[str, Any] = field(default_factory=dict)
    physics: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    blocks: dict[str, dict[str, Any]] = field(default_factory=dict)
    detectors: list[Detector] = field(default_factory=list)
    channels: list[Channel] = field(default_factory=list)
    order: str = ">"
    data_offset: int = 0
    cr_only: bool = False
    notes: list[str] = field(default_factory=list)

    def note(self, sentence: str) -> None:
        """Remember something odd but harmless; after :data:`MAX_NOTES` only that there was more."""
        if len(self.notes) < MAX_NOTES:
            self.notes.append(sentence)
        elif len(self.notes) == MAX_NOTES:
            self.notes.append("more of the same is not listed")

    @property
    def release_number(self) -> tuple[int, ...]:
        """The release (or the version, where no release is given) as whole numbers that compare rightly."""
        return text.version_tuple(self.release or self.version)

    @property
    def electrode_settings(self) -> bool:
        """Whether ``Bolo.reglages`` has one set of names per electrode, as releases from 9.19 on have."""
        return self.release_number >= (9, 19)


class Lines:
    """Reads lines out of a window, bounded in length, whatever ends them: LF, CR LF, or CR alone in old files."""

    def __init__(self, window: Window, cr_only: bool = False) -> None:
        self.window = window
        self.cr_only = cr_only

    def line(self, position: int) -> tuple[bytes, int]:
        """The line at ``position`` and the index after its end.

        Raises:
            NeedMore: the window ends inside the line.
            EOFError: the file ends inside the line, or there.
            FormatError: no line end within :data:`samba_text.MAX_LINE` bytes.
        """
        data = self.window.data
        end = data.find(b"\n", position, position + text.MAX_LINE)
        cr = data.find(b"\r", position, end if end >= 0 else position + text.MAX_LINE)
        if cr >= 0 and (end < 0 or cr < end):
            if cr + 1 == len(data) and not self.window.at_end and not self.cr_only:
                raise NeedMore(len(data) - position + text.MAX_LINE)
            pair = not self.cr_only and data[cr + 1 : cr + 2] == b"\n"
            return data[position:cr], cr + (2 if pair else 1)
        if end >= 0:
            return data[position:end], end + 1
        if len(data) - position >= text.MAX_LINE:
            raise FormatError(
                f"expected a line of text, and {text.MAX_LINE} bytes hold no line end",
                path=self.window.path,
                offset=self.window.base + position,
            )
        if self.window.at_end:
            raise EOFError
        raise NeedMore(text.MAX_LINE)


class HeaderReader:
    """Reads the headers from the start of a window to ``* Donnees``."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.header = SambaHeader()
        self.lines = Lines(window)
        self.position = 0
        self._block: dict[str, Any] = self.header.general
        self._last_key = ""
        self._in_channel = False

    def _error(self, message: str, position: int | None = None) -> FormatError:
        place = self.position if position is None else position
        return FormatError(message, path=self.window.path, offset=self.window.base + place)

    def _line(self) -> tuple[bytes, int]:
        """The next line and its offset in the file."""
        if self.window.base + self.position > MAX_HEADER:
            raise self._error(f"the headers run over {MAX_HEADER} bytes without `* Donnees`")
        while True:
            try:
                line, after = self.lines.line(self.position)
                break
            except NeedMore as more:
                self.position = self.window.advance(self.position, more.size)
            except EOFError:
                raise self._error(
                    "the file ends inside its headers: expected `* Donnees`", len(self.window.data)
                ) from None
        offset = self.window.base + self.position
        self.position = after
        return line, offset

    def read(self) -> SambaHeader:
        """Read all headers.

        Raises:
            FormatError: this is no Samba file, or its headers break off.
        """
        header = self.header
        self._start()
        while True:
            raw, offset = self._line()
            line = raw.strip()
            if not line or line.startswith(b"#"):
                continue
            if line.startswith(b"*"):
                if self._tag(line, offset):
                    break
            else:
                self._assignment(line, offset)
        self._finish()
        return header

    def _start(self) -> None:
        self.position = self.window.move(0)
        head = self.window.data[:4096]
        cr, lf = head.find(b"\r"), head.find(b"\n")
        # The first line's end decides; CR alone matters where a separator is followed by binary that begins with LF.
        self.lines.cr_only = self.header.cr_only = cr >= 0 and (lf < 0 or cr + 1 < lf)
        if not looks_like_samba(head):
            raise FormatError("expected `* Archive SAMBA` at the start", path=self.window.path, offset=0)

    def _tag(self, line: bytes, offset: int) -> bool:
        """One line that begins with ``*``; True where the data begin."""
        header = self.header
        if text.SEPARATOR.match(line):
            return False
        words = text.decode(line[1:]).strip()
        name = words.split(maxsplit=1)[0].rstrip(":") if words else ""
        rest = text.unquote(words[len(name) :].strip().removeprefix(":").strip().removesuffix(":"))
        kind = name.lower()
        self._last_key = ""
        if kind in ("archive", "version"):
            if kind == "version":
                header.version = text.strip_comment(rest).strip()
            self._block = header.general
        elif kind == "detecteur":
            header.detectors.append(Detector(text.unquote(text.strip_comment(rest))))
            self._block = header.detectors[-1].settings
        elif kind == "voie":
            channel = Channel(len(header.channels), channel_name(words[len(name) :]))
            if not channel.name:
                raise self._error("expected the channel's name after `* Voie`", offset - self.window.base)
            if any(other.name == channel.name for other in header.channels):
                raise self._error(f"the channel {channel.name!r} is configured twice", offset - self.window.base)
            header.channels.append(channel)
            self._block = channel.settings
        elif kind == "filtre":
            self._filter(offset)
        elif kind == "physique":
            self._block = header.physics
        elif kind == "run":
            self._block = header.run
        elif kind == "donnees":
            header.data_offset = self.window.base + self.position
            return True
        elif kind == "evenement":
            header.note(f"`* Evenement` without `* Donnees` before it, at byte {offset}")
            header.data_offset = offset
            return True
        else:
            header.note(f"unknown block `* {words[:60]}` at byte {offset}")
            self._block = header.blocks.setdefault(words[:200], {})
        return False

    def _assignment(self, line: bytes, offset: int) -> None:
        words = text.decode(line)
        if words[0] in "({" and self._last_key and self._block.get(self._last_key) is None:
            pair: tuple[str, str] | None = (self._last_key, text.strip_comment(words).strip())
        else:
            pair = text.split_assignment(words)
        if pair is None or not pair[0]:
            self.header.note(f"a line without `key = value` at byte {offset}: {words[:60]!r}")
            return
        key, value = pair
        if value[:1] in ("(", "{") and text.is_open(value):
            value = self._list(value, offset)
        self._last_key = key
        if key in self._block and self._block[key] is not None:
            self.header.note(f"`{key[:60]}` is given twice in its block, the second at byte {offset}: that one counts")
        self._block[key] = text.typed(value)
        if key in NAMED_LISTS and self._block[key] == []:
            self._block[key] = {}  # `()`: no names given
        if key == "Bolo.position" and re.fullmatch(r"(0[xX])?[0-9a-fA-F]{1,15}", value):
            self._block[key] = int(value, 16)  # hexadecimal, with or without its 0x
        if key == "Release":
            self.header.release = text.unquote(value)

    def _list(self, value: str, offset: int) -> str:
        """The rest of a bracketed value that goes on over the next lines."""
        parts = [value]
        depth = value.count("(") - value.count(")") + value.count("{") - value.count("}")
        for _ in range(MAX_LIST_LINES):
            raw, _ = self._line()
            line = raw.strip()
            if line.startswith(b"*"):
                break
            part = text.strip_comment(text.decode(line)).strip()
            depth += part.count("(") - part.count(")") + part.count("{") - part.count("}")
            parts.append(part)
            if depth <= 0 and not text.is_open(" ".join(parts)):
                return " ".join(parts)
        raise self._error("expected `)`: a list that begins here is never closed", offset - self.window.base)

    def _filter(self, offset: int) -> None:
        """The binary after ``* Filtre:``: int32 stages; per stage n, n float64 (direct), m, m float64 (inverse)."""
        header = self.header
        if not header.channels:
            raise self._error("`* Filtre:` before any channel", offset - self.window.base)
        order = header.order = self._order()
        try:
            stages, after = self._stages(order)
        except FormatError:
            other = "<" if order == ">" else ">"
            try:
                stages, after = self._stages(other)
            except FormatError:
                stages, after = self._stages(order)  # the error that belongs to the declared order
            header.note(f"the filter at byte {offset} has the other byte order than the header says")
        header.channels[-1].filters = stages
        self.position = after

    def _need(self, position: int, size: int, what: str) -> int:
        """Hold ``size`` bytes from ``position``; the index of the same byte afterwards."""
        window = self.window
        if window.base + position + size > min(window.size, MAX_HEADER):
            raise self._error(f"{what} needs {size} bytes, and the file (or a header's limit) ends before", position)
        if position + size > len(window.data):
            start = self.position
            shift = position - start
            self.position = window.advance(start, shift + size + window.chunk)
            position = self.position + shift
        return position

    def _stages(self, order: str) -> tuple[list[FilterStage], int]:
        here = self._need(self.position, 4, "the number of a filter's stages")
        (count,) = struct.unpack_from(order + "i", self.window.data, here)
        if not 0 <= count <= MAX_STAGES:
            raise self._error(f"expected 0 to {MAX_STAGES} filter stages, found {count}", here)
        here += 4
        stages: list[FilterStage] = []
        for _ in range(count):
            halves: list[NDArray[np.float64]] = []
            for half in ("direct", "inverse"):
                here = self._need(here, 4, f"the number of {half} coefficients")
                (size,) = struct.unpack_from(order + "i", self.window.data, here)
                if size < 0:
                    raise self._error(f"expected a number of {half} coefficients, found {size}", here)
                here = self._need(here + 4, 8 * size, f"{size} {half} coefficients")
                values = np.frombuffer(self.window.data, order + "f8", size, here).astype(np.float64)
                halves.append(values)
                here += 8 * size
            stages.append(FilterStage(*halves))
        here = self._need(here, 1, "the tag after a filter")
        if self.window.data[here : here + 1] not in b"*# \t\r\n":
            raise self._error("expected a tag `*` right after the filter's coefficients", here)
        return stages, here

    def _order(self) -> str:
        value = next((v for k, v in self.header.general.items() if k.lower() == "byte-order"), None)
        if value is None:
            return ">"
        word = str(value).lower()
        if word.startswith("little"):
            return "<"
        if word.startswith("big"):
            return ">"
        raise self._error(f"expected Byte-order little or big, found {value!r}")

    def _finish(self) -> None:
        header = self.header
        if not any(key.lower() == "byte-order" for key in header.general):
            header.note("no Byte-order in the header: big-endian assumed, as on the machines of that time")
        header.order = self._order()
        for key, blocks in (("Bolo.nb", header.detectors), ("Voies.nb", header.channels)):
            declared = header.general.get(key)
            if isinstance(declared, int) and declared != len(blocks):
                header.note(f"{key} says {declared}, and the header has {len(blocks)} such blocks")
        names = sorted((detector.name for detector in header.detectors), key=len, reverse=True)
        for channel in header.channels:
            last = channel.name.rsplit(maxsplit=1)
            channel.detector = next(
                (name for name in names if channel.name == name or channel.name.endswith(" " + name)),
                last[1] if len(last) == 2 and not names else None,
            )


def channel_name(rest: str) -> str:
    """A channel's name in what follows ``* Voie``: quoted or not, with or without a colon and a comment."""
    rest = rest.strip()
    if rest.startswith('"'):
        end = rest.find('"', 1)
        return rest[1:end] if end > 0 else rest[1:].rstrip(":").strip()
    return text.strip_comment(rest).strip().rstrip(":").strip()


def looks_like_samba(head: bytes) -> bool:
    """Whether a file's first bytes hold ``* Archive SAMBA`` as the first line that is no comment and not blank."""
    for line in head.removeprefix(b"\xef\xbb\xbf").replace(b"\r", b"\n").split(b"\n"):
        words = line.split()
        if words and not words[0].startswith(b"#"):
            return b" ".join(words[:3]).lower().startswith(b"* archive samba")
    return False


def read_header(window: Window) -> SambaHeader:
    """The headers of the file under ``window``."""
    return HeaderReader(window).read()
