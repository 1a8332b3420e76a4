"""The events of a Samba file: text headers and binary blocks, parsed into a :class:`BatchBuilder`.

Binary blocks are taken by their declared length, never as lines. A block's layout (which keys on which lines) hardly
changes from one pulse to the next, so the layouts seen last are kept as compiled patterns: one match reads a whole
block; a block that does not match is read line by line, with the same meaning.
"""

from __future__ import annotations

import re

from orchestrator.errors import FormatError
from procs.formats import samba_plans as plans
from procs.formats import samba_text as text
from procs.formats.samba_batch import BatchBuilder
from procs.formats.samba_header import Lines, SambaHeader, channel_name
from procs.formats.samba_layouts import Layout, make_layout
from procs.formats.samba_values import (
    LIST_KEY,
    BadValue,
    Fields,
    dead_time,
    integer,
    loose,
    number,
    reference,
    stamp,
    touched,
    trigger_bits,
    yes,
)
from procs.formats.window import NeedMore, Window

MAX_BLOCK = 1024 * 1024  # bytes of one block's text; a real one has some 1 kB
MAX_TRACE = 128 * 1024 * 1024  # bytes of one trace with its filter values: more than any digitiser's buffer
MAX_PULSES = 65_536  # channels in one event
MAX_MISSED = 200  # blocks more than events that fit no plan, after which plans are no longer tried
MAX_ODD = 100  # blocks that fit no pattern, after which no more patterns are made
LAYOUTS = 6  # layouts kept: blocks of different kinds of channels differ

EVENT_KEYS = frozenset(
    b"Numero Regeneration Date.secondes Date.microsecs GigaStamp TimeStamp TempsMort.secondes TempsMort.microsecs "
    b"Delai Trigger Temperature T_Bolo Bolo.touche Voie.touchee Voies.nb".split()
)
PULSE_KEYS = frozenset(
    b"Numero Compteur.secondes Compteur.microsecs GigaStamp TimeStamp Horloge Dimension Trigger.ampl.pos "
    b"Trigger.ampl.neg Pretrigger Base Reference Bruit Montee Descente Amplitude Filtre.nb Filtre.recalcul".split()
)
LOG_LINE = re.compile(rb"[\t\x20-\x7e\x80-\xff]{1,4096}\Z")


class EventReader:
    """Parses events of one file inside a :class:`Window`.

    ``fast=False`` reads every block line by line (the tests compare the two).
    """

    def __init__(self, window: Window, header: SambaHeader, names: dict[bytes, int], fast: bool = True) -> None:
        self.window = window
        self.lines = Lines(window, header.cr_only)
        self.names = names
        self.detectors = {detector.name.encode(): index for index, detector in enumerate(header.detectors)}
        self.fast = fast and not header.cr_only
        self.words: dict[str, int] = {}
        self._layouts: dict[bytes, list[Layout]] = {b"Voie": [], b"Evenement": []}
        self._plans: dict[bytes, list[plans.Plan]] = {b"Voie": [], b"Evenement": []}
        self._missed = 0
        self._places: dict[bytes, int] = {}
        self._odd = 0

    def error(self, message: str, position: int) -> FormatError:
        """A FormatError at an index of the window."""
        return FormatError(message, path=self.window.path, offset=self.window.base + position)

    def block(self, position: int, tag: bytes, wanted: frozenset[bytes]) -> tuple[bytes, Fields, int]:
        """The block at ``position``: what its tag names, its values by key, and the index after its separator."""
        if self.fast:
            layouts = self._layouts[tag]
            for layout in layouts:
                match = layout.pattern.match(self.window.data, position)
                if match is not None:
                    if layout is not layouts[0]:
                        layouts.remove(layout)
                        layouts.insert(0, layout)
                    values = match.groups()
                    return values[0], dict(zip(layout.keys, values[1:], strict=True)), match.end()
        return self.block_by_lines(position, tag, wanted)

    def planned(self, position: int, tag: bytes, wanted: frozenset[bytes]) -> tuple[plans.Plan, re.Match[bytes]] | None:
        """The plan that the block at ``position`` fits, with its match; None for a block that is read the general way.

        Such a block may bring a new plan: the general way has been through one of its kind already.
        """
        if not self.fast or self._missed > MAX_MISSED:
            return None
        known = self._plans[tag]
        for plan in known:
            match = plan.pattern.match(self.window.data, position)
            if match is not None:
                if plan is not known[0]:
                    known.remove(plan)
                    known.insert(0, plan)
                return plan, match
        self._missed += 1
        for layout in self._layouts[tag]:
            match = layout.pattern.match(self.window.data, position)
            if match is not None:
                values, make = (
                    (plans.PULSE_VALUES, plans.pulse_plan) if tag == b"Voie" else (plans.EVENT_VALUES, plans.event_plan)
                )
                # The exact one first; where blanks or comments change, the other comes to the front and stays there.
                kinds = [make_layout(match[0], tag, wanted, values, exact) for exact in (True, False)]
                made = [make(strict.pattern, strict.keys) for strict in kinds if strict is not None]
                self._plans[tag] = [*made, *known[: 2 * LAYOUTS - len(made)]]
                break
        return None

    def block_by_lines(self, position: int, tag: bytes, wanted: frozenset[bytes]) -> tuple[bytes, Fields, int]:
        """As :meth:`block`, line by line, remembering where each value stands for a message."""
        line, after = self.lines.line(position)
        rest = line.strip()[1:].strip()[len(tag) :]
        name = channel_name(text.decode(rest)).encode("utf-8") if tag == b"Voie" else rest.strip().rstrip(b":")
        fields: Fields = {}
        places: dict[bytes, int] = {}
        while True:
            if after - position > MAX_BLOCK:
                raise self.error(f"expected the separator `* ---` of a block within {MAX_BLOCK} bytes", position)
            start = after
            line, after = self.lines.line(start)
            stripped = line.strip()
            if not stripped or stripped.startswith(b"#"):
                continue
            if stripped.startswith(b"*"):
                if text.SEPARATOR.match(stripped):
                    break
                raise self.error(f"expected the separator `* ---` of the block `* {text.decode(tag)}`", start)
            pair = text.split_assignment(text.decode(stripped))
            if pair is not None and pair[0]:
                key = pair[0].encode("utf-8")
                fields[key] = pair[1].encode("utf-8")
                places[key] = start + len(line) - len(line.lstrip())
        self._places = places
        if self.fast:
            layout = make_layout(self.window.data[position:after], tag, wanted)
            if layout is None:
                self._odd += 1
                self.fast = self._odd < MAX_ODD
            elif layout not in self._layouts[tag]:
                self._layouts[tag] = [layout, *self._layouts[tag][: LAYOUTS - 1]]
        return name, fields, after

    def bad_value(self, bad: BadValue, position: int, tag: bytes, wanted: frozenset[bytes]) -> FormatError:
        """The error for a value, at the byte of its line."""
        _, fields, _ = self.block_by_lines(position, tag, wanted)
        found = text.decode(fields.get(bad.key, b""))
        key = text.decode(bad.key)
        return self.error(f"{key}: expected {bad.expected}, found {found[:60]!r}", self._places.get(bad.key, position))

    def event(self, position: int, out: BatchBuilder) -> int:
        """Parse the event whose tag is at ``position`` into ``out``; the index after it.

        Nothing is added to ``out`` unless the whole event was there.

        Raises:
            NeedMore: the window ends inside the event.
            EOFError: the file ends inside the event.
            FormatError: the event is not what it says it is.
        """
        start = position
        planned = self.planned(position, b"Evenement", EVENT_KEYS)
        if planned is not None and len(planned[1][1]) < 10:
            self._missed = max(0, self._missed - 1)
            after = planned[1].end()
            try:
                ints, floats, (low, high), declared = plans.event_row(planned[0], planned[1].groups())
            except BadValue as bad:  # in the trigger's bits
                raise self.bad_value(bad, start, b"Evenement", EVENT_KEYS) from None
        else:
            ints, floats, low, high, declared, after = self.event_values(start)
        pulse_ints: list[tuple[int, ...]] = []
        pulse_floats: list[tuple[float, ...]] = []
        binaries: list[tuple[int, int, int]] = []
        position = after
        while declared < 0 or len(pulse_ints) < declared:
            if declared > 0:
                position = self.plain_pulses(position, declared, pulse_ints, pulse_floats, binaries)
                if len(pulse_ints) == declared:
                    break
            position = self.skip(position)
            if self.window.data[position : position + 1] == b"" and declared < 0 and self.window.at_end:
                break
            tag = self.tag(position)
            if tag == b"-":  # one separator more than needed
                _, position = self.lines.line(position)
                continue
            if tag != b"Voie":
                if declared < 0:
                    break
                raise self.error(
                    f"expected `* Voie` number {len(pulse_ints) + 1} of the {declared} that event {ints[0]} declares",
                    position,
                )
            if len(pulse_ints) >= MAX_PULSES:
                raise self.error(f"more than {MAX_PULSES} channels in one event", position)
            position = self.pulse(position, start, pulse_ints, pulse_floats, binaries)
        if declared >= 0 and self.tag_after(position) == b"Voie":
            raise self.error(
                f"event {ints[0]} declares {declared} channels (Voies.nb), and another one follows", position
            )
        view = memoryview(self.window.data)
        for begin, middle, end in binaries:
            if middle > begin:
                out.filters.append(view[begin:middle])
            out.traces.append(view[middle:end])
            out.size += end - begin
        out.event_ints.append(ints)
        out.event_floats.append(floats)
        out.bits.append(low)
        out.bits_high.append(high)
        out.counts.append(len(pulse_ints))
        out.pulse_ints += pulse_ints
        out.pulse_floats += pulse_floats
        return position

    def plain_pulses(
        self,
        position: int,
        most: int,
        ints: list[tuple[int, ...]],
        floats: list[tuple[float, ...]],
        binaries: list[tuple[int, int, int]],
    ) -> int:
        """Parse event channels that follow each other and fit the plan used last, until there are ``most`` or one is
        another, or ends where the window does; the index after them. What :meth:`pulse` does, in less steps."""
        known = self._plans[b"Voie"] if self.fast and self._missed <= MAX_MISSED else None
        if not known:
            return position
        plan, data, names, words = known[0], self.window.data, self.names, self.words
        match_at, size = plan.pattern.match, len(data)
        while len(ints) < most:
            match = match_at(data, position)
            channel = None if match is None else names.get(match[1])
            if match is None or channel is None:
                break
            row, values = plans.pulse_row(plan, match.groups(), channel, words)
            start = end = match.end()
            if row[-1]:
                middle = start + 8 * row[-2]
                end = middle + 2 * row[-1]
                if end >= size:
                    break
                binaries.append((start, middle, end))
            position = end
            ints.append(row)
            floats.append(values)
        return position

    def event_values(self, start: int) -> tuple[tuple[int, ...], tuple[float, ...], int, int, int, int]:
        """An event's header, the general way: its rows, its trigger's bits, how many pulses follow, the index after."""
        name, fields, after = self.block(start, b"Evenement", EVENT_KEYS)
        try:
            tag_number = int(name) if name.isdigit() and len(name) < 10 else -1
            ints = (
                integer(fields, b"Numero", tag_number),
                integer(fields, b"Date.secondes", 0, -(10**12), 10**12),
                integer(fields, b"Date.microsecs", 0),
                stamp(fields),
                yes(fields, b"Regeneration"),
                touched(fields, b"Bolo.touche", self.detectors),
                touched(fields, b"Voie.touchee", self.names),
            )
            temperature = number(fields, b"Temperature" if b"Temperature" in fields else b"T_Bolo")
            floats = (temperature, dead_time(fields), number(fields, b"Delai"), loose(fields, b"Trigger"))
            lists = [key for key in fields if key.startswith(b"Liste:") and LIST_KEY.match(key)]
            low, high = trigger_bits(fields, lists)
            declared = integer(fields, b"Voies.nb", -1, 0, MAX_PULSES)
        except BadValue as bad:
            raise self.bad_value(bad, start, b"Evenement", EVENT_KEYS) from None
        return ints, floats, low, high, declared, after

    def pulse(
        self,
        position: int,
        event_start: int,
        ints: list[tuple[int, ...]],
        floats: list[tuple[float, ...]],
        binaries: list[tuple[int, int, int]],
    ) -> int:
        """Parse one event channel and step over its binary block; the index after it."""
        start = position
        planned = self.planned(start, b"Voie", PULSE_KEYS)
        known = None if planned is None else self.names.get(planned[1][1])
        if planned is not None and known is not None:
            position = planned[1].end()
            row, values = plans.pulse_row(planned[0], planned[1].groups(), known, self.words)
        else:
            row, values, position = self.pulse_values(start)
        points = row[-1]
        if points:
            middle = position + 8 * row[-2]
            end = middle + 2 * points
            if end > len(self.window.data):
                self.beyond(position, end - position, start, event_start)
            if self.window.data[end : end + 1] == b"" and not self.window.at_end:
                raise NeedMore(end + 1 - event_start)
            binaries.append((position, middle, end))
            position = end
        ints.append(row)
        floats.append(values)
        return position

    def pulse_values(self, start: int) -> tuple[tuple[int, ...], tuple[float, ...], int]:
        """An event channel's header, the general way: its rows and the index after it."""
        name, fields, position = self.block(start, b"Voie", PULSE_KEYS)
        channel = self.names.get(name)
        if channel is None:
            channel = self.names.get(text.decode(name).encode("utf-8"))
            if channel is None:
                known = f"{len(self.names)} channels are configured"
                raise self.error(f"no channel {text.decode(name)[:60]!r} in the header ({known})", start)
        try:
            points = integer(fields, b"Dimension", 0, 0)
            filters = integer(fields, b"Filtre.nb", 0, 0)
            level, word = reference(fields)
            row = (
                channel,
                integer(fields, b"Numero", -1),
                integer(fields, b"Compteur.secondes", 0, -(10**18), 10**18),
                integer(fields, b"Compteur.microsecs", 0),
                stamp(fields),
                integer(fields, b"Pretrigger", 0),
                integer(fields, b"Filtre.recalcul", 0),
                self.words.setdefault(word, len(self.words)) if word else -1,
                filters if points else 0,
                points,
            )
            values = (
                number(fields, b"Horloge") * 1e6,
                number(fields, b"Trigger.ampl.pos"),
                number(fields, b"Trigger.ampl.neg"),
                number(fields, b"Base"),
                level,
                number(fields, b"Bruit"),
                number(fields, b"Montee"),
                number(fields, b"Descente"),
                number(fields, b"Amplitude"),
            )
        except BadValue as bad:
            raise self.bad_value(bad, start, b"Voie", PULSE_KEYS) from None
        return row, values, position

    def beyond(self, position: int, size: int, start: int, event_start: int) -> None:
        """A binary block runs past the window: fetch more, or tell a file that was cut from a length that is wrong."""
        window = self.window
        if size > MAX_TRACE:
            raise self.error(f"a trace of {size} bytes is declared here; no digitiser records so much", start)
        if window.base + position + size <= window.size:
            raise NeedMore(position + size + 1 - event_start)
        if not window.at_end:
            raise NeedMore(window.size - window.base - event_start)
        rest = window.data[position:]
        if re.search(rb'\*[ \t]*(?:Evenement[ \t]+[0-9]|Voie[ \t]+"|Arret[ \t])', rest):
            raise self.error(
                f"a trace of {size} bytes is declared here, {len(rest)} are left in the file, and other blocks begin "
                "among them: Dimension or Filtre.nb is wrong",
                start,
            )
        raise EOFError

    def skip(self, position: int) -> int:
        """Step over blank lines and comments; the index of what comes then (the file's end among that)."""
        while True:
            byte = self.window.data[position : position + 1]
            if byte == b"*":
                return position
            if byte == b"":
                if self.window.at_end:
                    return position
                raise NeedMore(len(self.window.data) + 1)
            if byte in b" \t\r\n":
                position += 1
            elif byte == b"#":
                try:
                    _, position = self.lines.line(position)
                except EOFError:
                    return len(self.window.data)
            else:
                return position

    def tag(self, position: int) -> bytes:
        """The word after ``*`` at ``position``: Evenement, Voie, Arret, ``-`` for a separator; empty for no tag."""
        data = self.window.data
        if data.startswith(b"* Voie", position):
            return b"Voie"
        if data[position : position + 1] == b"" and self.window.at_end:
            raise EOFError
        if data[position : position + 1] != b"*":
            return b""
        line, _ = self.lines.line(position)
        words = line[1:].split(maxsplit=1)
        if text.SEPARATOR.match(line):
            return b"-"
        return words[0].rstrip(b":") if words else b""

    def tag_after(self, position: int) -> bytes:
        """As :meth:`tag` for what follows a complete event; empty where the file ends."""
        try:
            return self.tag(self.skip(position))
        except EOFError:
            return b""
