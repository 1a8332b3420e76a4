"""Writing Samba files, for the simulated DAQ and for tests: what the reader models, in the DAQ's own spelling.

What was read can be written again: reading the result gives the same headers and columns. Keys that no value is known
for (NaN, -1) are left out.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from procs.formats import samba_text as text
from procs.formats.samba_batch import SambaBatch
from procs.formats.samba_header import Channel, SambaHeader

GIGA = 1_000_000_000  # time stamps in one giga stamp
SEPARATOR = "* ----------"
RELEASE = "9.35"
EVENT_COMMENTS = {
    "Numero": "Numero de l'evenement",
    "GigaStamp": "Milliards de points a 100 kHz",
    "TimeStamp": "Points a 100 kHz",
    "Temperature": "Platine (K)",
}
PULSE_COMMENTS = {
    "Horloge": "Duree d'un point (ms)",
    "Dimension": "Nombre de points",
    "Base": "ADU",
    "Amplitude": "ADU",
}


def format_value(value: Any) -> str:
    """A value as the DAQ writes it.

    Raises:
        ValueError: a text that a header cannot hold: with a quote or a line end in it.
    """
    if value is None:
        return "indetermine"
    if isinstance(value, bool | np.bool_):
        return "oui" if value else "non"
    if isinstance(value, int | np.integer):
        return str(int(value))
    if isinstance(value, float | np.floating):
        return repr(float(value))
    if isinstance(value, dict):
        return "(" + ", ".join(f"{{ {key} := {format_value(item)} }}" for key, item in value.items()) + ")"
    if isinstance(value, list | tuple):
        return "( " + ", ".join(format_value(item) for item in value) + " )"
    words = str(value)
    if any(letter in words for letter in '"\n\r'):
        raise ValueError(f"a Samba header cannot hold the text {words!r}: it has a quote or a line end")
    plain = text.typed(words) == words and not any(letter in words for letter in ' \t#=,(){}"')
    return words if plain else f'"{words}"'


class SambaWriter:
    """Writes one file, block by block, as the DAQ does.

    Args:
        out: where the bytes go; flushing and closing it is the caller's.
        header: what the headers say; ``order`` is the byte order of the binary blocks.
        newline: the line end; old files have ``\\r\\n``, very old ones ``\\r``.
        encoding: of the text; ``latin-1`` can occur.
        reference_words: the words that ``SambaBatch.reference_word`` counts in.
    """

    def __init__(
        self,
        out: BinaryIO,
        header: SambaHeader,
        *,
        newline: str = "\n",
        encoding: str = "utf-8",
        reference_words: Iterable[str] = (),
    ) -> None:
        self.out = out
        self.header = header
        self.newline = newline
        self.encoding = encoding
        self.reference_words = list(reference_words)

    def _lines(self, lines: Iterable[str]) -> None:
        self.out.write("".join(line + self.newline for line in lines).encode(self.encoding))

    def _block(self, tag: str, keys: dict[str, Any]) -> list[str]:
        lines = [f"* {tag}"] if tag else []
        for key, value in keys.items():
            if isinstance(value, dict) and value:
                items = [f"\t{{ {name} := {format_value(item)} }}" for name, item in value.items()]
                lines += [f"{key} = (", *(item + "," for item in items[:-1]), items[-1], ")"]
            elif key == "Bolo.position" and isinstance(value, int):
                lines.append(f"{key} = 0x{value:x}")
            else:
                lines.append(f"{key} = {format_value(value)}")
        return lines

    def write_header(self, log: str = "") -> None:
        """All headers, to ``* Donnees``; then a log line if one is given."""
        header = self.header
        lines = ["* Archive SAMBA", f"* Version {header.version or RELEASE}", "# ===== Entete generale ====="]
        general = {key: value for key, value in header.general.items() if key not in ("Byte-order", "Release")}
        general["Byte-order"] = "little" if header.order == "<" else "big"
        lines += self._block("", general)
        if header.release:
            lines.append(f"Release = {header.release}")
        lines.append(SEPARATOR)
        for detector in header.detectors:
            lines += [*self._block(f"Detecteur {detector.name}", detector.settings), SEPARATOR]
        if header.physics:
            lines += [*self._block("Physique", header.physics), SEPARATOR]
        self._lines(lines)
        for channel in header.channels:
            self._channel(channel)
        lines = []
        for name, block in header.blocks.items():
            lines += [*self._block(name, block), SEPARATOR]
        lines += [*self._block("Run", header.run), SEPARATOR, "* Donnees"]
        self._lines([*lines, log] if log else lines)

    def _channel(self, channel: Channel) -> None:
        self._lines([*self._block(f'Voie "{channel.name}":', channel.settings), SEPARATOR])
        if channel.filters:
            order = self.header.order
            self._lines(["* Filtre:"])
            self.out.write(struct.pack(order + "i", len(channel.filters)))
            for stage in channel.filters:
                for half in (stage.direct, stage.inverse):
                    self.out.write(struct.pack(order + "i", len(half)) + half.astype(order + "f8").tobytes())

    def write_events(self, batch: SambaBatch, start: int = 0, stop: int | None = None) -> None:
        """Events ``start`` to ``stop`` of a batch, with their pulses and traces."""
        stop = len(batch) if stop is None else min(stop, len(batch))
        pulses = np.concatenate(([0], np.cumsum(batch.counts)))
        samples = batch.starts()
        filters = np.concatenate(([0], np.cumsum(batch.filter_lengths, dtype=np.int64)))
        for event in range(start, stop):
            self._event(batch, event)
            for pulse in range(pulses[event], pulses[event + 1]):
                self._pulse(batch, pulse)
                order = self.header.order
                self.out.write(batch.filters[filters[pulse] : filters[pulse + 1]].astype(order + "f8").tobytes())
                self.out.write(batch.samples[samples[pulse] : samples[pulse + 1]].astype(order + "i2").tobytes())

    def _keys(self, tag: str, keys: dict[str, Any], comments: dict[str, str]) -> None:
        lines = [tag]
        for key, value in keys.items():
            if value is None or (isinstance(value, float) and math.isnan(value)):
                continue
            comment = f"\t# {comments[key]}" if key in comments else ""
            lines.append(f"\t{key} = {format_value(value)}{comment}")
        self._lines([*lines, SEPARATOR])

    def _event(self, batch: SambaBatch, index: int) -> None:
        low, high = int(batch.trigger_bits[index]), int(batch.trigger_bits_high[index])
        dead = float(batch.dead_time[index])
        keys: dict[str, Any] = {
            "Numero": int(batch.number[index]),
            "Regeneration": bool(batch.regeneration[index]),
            "Date.secondes": int(batch.seconds[index]),
            "Date.microsecs": int(batch.microseconds[index]),
            "GigaStamp": int(batch.stamp[index]) // GIGA,
            "TimeStamp": int(batch.stamp[index]) % GIGA,
            **dead_time_keys(dead),
            "Delai": float(batch.delay[index]),
            "Trigger": float(batch.trigger[index]),
            "Temperature": float(batch.temperature[index]),
            "Liste:31-0": low & 0xFFFFFFFF,
            "Liste:63-32": low >> 32,
        }
        if high:
            keys["Liste:95-64"], keys["Liste:127-96"] = high & 0xFFFFFFFF, high >> 32
        if batch.touched_detector[index] != -1:
            keys["Bolo.touche"] = int(batch.touched_detector[index])
        if batch.touched_channel[index] != -1:
            keys["Voie.touchee"] = int(batch.touched_channel[index])
        keys["Voies.nb"] = int(batch.counts[index])
        self._keys(f"* Evenement {int(batch.number[index])}", keys, EVENT_COMMENTS)

    def _pulse(self, batch: SambaBatch, index: int) -> None:
        word = int(batch.reference_word[index])
        reference = self.reference_words[word] if word >= 0 else float(batch.reference[index])
        number = int(batch.pulse_number[index])
        keys: dict[str, Any] = {
            "Numero": number if number != -1 else None,
            "Compteur.secondes": int(batch.counter_seconds[index]),
            "Compteur.microsecs": int(batch.counter_microseconds[index]),
            "GigaStamp": int(batch.pulse_stamp[index]) // GIGA,
            "TimeStamp": int(batch.pulse_stamp[index]) % GIGA,
            "Horloge": clock_ms(float(batch.ns_per_point[index])),
            "Dimension": int(batch.lengths[index]),
            "Trigger.ampl.pos": float(batch.trigger_positive[index]),
            "Trigger.ampl.neg": float(batch.trigger_negative[index]),
            "Pretrigger": int(batch.pretrigger[index]),
            "Base": float(batch.base[index]),
            "Reference": reference,
            "Bruit": float(batch.noise[index]),
            "Montee": float(batch.rise[index]),
            "Descente": float(batch.fall[index]),
            "Amplitude": float(batch.amplitude[index]),
            "Filtre.nb": int(batch.filter_lengths[index]),
            "Filtre.recalcul": int(batch.recalculated[index]),
        }
        name = self.header.channels[int(batch.channel[index])].name
        self._keys(f'* Voie "{name}"', keys, PULSE_COMMENTS)

    def write_end(self, seconds: int, microseconds: int = 0, *, reason: str = "normal", log: str = "") -> None:
        """The end-of-run trailer, in a run's last partition only."""
        lines = [log] if log else []
        lines += [f"* Arret {reason}", "# ===== Fin de run =====", f"Date.secondes = {seconds}"]
        self._lines([*lines, f"Date.microsecs = {microseconds}", SEPARATOR])


def clock_ms(nanoseconds: float) -> float:
    """A point's duration in ms, such that the reader's ``* 1e6`` gives the same nanoseconds again where it can."""
    value = nanoseconds / 1e6
    for candidate in (value, math.nextafter(value, math.inf), math.nextafter(value, -math.inf)):
        if candidate * 1e6 == nanoseconds:
            return candidate
    return value


def dead_time_keys(seconds: float) -> dict[str, int]:
    """The dead time as whole seconds and microseconds, as the DAQ counts it; nothing where it is not known."""
    if not math.isfinite(seconds):
        return {}
    micro = round(seconds * 1e6)
    return {"TempsMort.secondes": micro // 1_000_000, "TempsMort.microsecs": micro % 1_000_000}


def write_file(
    path: Path,
    header: SambaHeader,
    batches: Iterable[SambaBatch],
    *,
    end: tuple[int, str] | None = None,
    newline: str = "\n",
    encoding: str = "utf-8",
    reference_words: Iterable[str] = (),
) -> None:
    """A whole file at once. ``end`` is (unix seconds, reason) of the end-of-run trailer, None without one."""
    with path.open("wb") as out:
        writer = SambaWriter(out, header, newline=newline, encoding=encoding, reference_words=reference_words)
        writer.write_header()
        for batch in batches:
            writer.write_events(batch)
        if end is not None:
            writer.write_end(end[0], reason=end[1])
