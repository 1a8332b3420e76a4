"""Samba files as ROOT trees.

- ``events``: one entry per event: ``run``, ``condition`` (text), ``file_number``, ``number``, ``seconds``,
  ``microseconds``, ``stamp`` (10 us), ``temperature`` (K), ``dead_time`` (s), ``delay`` (s), ``trigger`` (s),
  ``trigger_bits``, ``trigger_bits_high``, ``regeneration``, ``touched_detector``, ``touched_channel``,
  ``first_pulse`` and ``pulses`` (its entries in the next tree).
- ``pulses``: one entry per channel of an event: ``event`` (entry in ``events``), ``channel`` (entry in
  ``channels``), ``trace`` (int16, as long as the DAQ made it, perhaps empty), ``ns_per_point``, ``pretrigger``
  (points), ``stamp``, and the DAQ's own ``base``, ``reference``, ``noise``, ``amplitude``, ``rise``, ``fall``,
  ``trigger_positive``, ``trigger_negative``.
- ``channels``: one entry per channel: ``index``, ``name``, ``detector``, ``kind`` (text), ``pulses``.
- A stream file has ``stream`` instead of events and pulses: one int16 branch per channel, ``channel_0``, ...
- The texts ``header`` (all header values, as JSON) and ``provenance``.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import uproot

from orchestrator.errors import DataError
from orchestrator.step import Work
from procs.baskets import Lists, Trees
from procs.formats import samba
from procs.formats.samba_batch import SambaBatch
from procs.outputs import atomic_output, plain, storage, summing
from procs.recount import recount
from procs.rootio import PROVENANCE, Writer, distinct, opened, provenance, verified

HEADER = "header"  # key of the JSON text with all header values
NOTES_SHOWN = 20  # notes about oddities that a result carries

EVENTS: dict[str, Any] = {
    "run": "string",
    "condition": "string",
    "file_number": "int32",
    "number": "int32",
    "seconds": "int64",
    "microseconds": "int32",
    "stamp": "int64",
    "temperature": "float64",
    "dead_time": "float64",
    "delay": "float64",
    "trigger": "float64",
    "trigger_bits": "uint64",
    "trigger_bits_high": "uint64",
    "regeneration": "bool",
    "touched_detector": "int32",
    "touched_channel": "int32",
    "first_pulse": "int64",
    "pulses": "int32",
}
PULSES: dict[str, Any] = {
    "event": "int64",
    "channel": "int32",
    "ns_per_point": "float64",
    "pretrigger": "int32",
    "stamp": "int64",
    "base": "float64",
    "reference": "float64",
    "noise": "float64",
    "amplitude": "float64",
    "rise": "float64",
    "fall": "float64",
    "trigger_positive": "float64",
    "trigger_negative": "float64",
    "trace": "var * int16",
}
CHANNELS = {"index": "int32", "name": "string", "detector": "string", "kind": "string", "pulses": "int64"}


def header(file: samba.SambaFile) -> dict[str, Any]:
    """All header values of a file, fit for JSON."""
    found = file.header
    return plain(
        {
            "format": "samba",
            "version": found.version,
            "release": found.release,
            "general": found.general,
            "physics": found.physics,
            "run": found.run,
            "blocks": found.blocks,
            "detectors": [{"name": d.name, "settings": d.settings} for d in file.detectors],
            "channels": [
                {"index": c.index, "name": c.name, "detector": c.detector, "kind": c.kind, "settings": c.settings}
                for c in file.channels
            ],
        }
    )


def convert_samba(
    document: dict[str, Any], work: Work, path: Path, target: Path, chosen: SimpleNamespace, squeeze: Any
) -> dict[str, Any]:
    """Write ``target`` from the Samba file ``path``; the counts for the step's result.

    Raises:
        FormatError: the file is corrupt or cut.
        DataError: the output does not read back as it was written.
    """
    with storage(path, "reading"):
        file = samba.open(path)
    run = str(document.get("run_name") or file.run_name)
    condition = str(file.run.get("Condition") or "")
    number = document.get("file_number")
    file_number = number if isinstance(number, int) else file.file_number
    constants = {"run": run, "condition": condition, "file_number": file_number}
    expected: dict[str, int] = {}
    samples = 0

    checksum = ""

    def check(temporary: Path) -> None:
        nonlocal checksum
        with summing(temporary) as sums:
            verified(temporary, expected, recount)
            if expected.get("pulses"):
                with opened(temporary) as written:
                    found = int(written["pulses"]["ntrace"].array(library="np").sum(dtype=np.int64))
                if found != samples:
                    raise DataError(f"{target} was written with {samples} samples but reads back {found}")
        checksum = sums.result()

    with (
        atomic_output(target, work.attempt, check=check) as temporary,
        uproot.recreate(temporary, compression=squeeze) as out,
    ):
        out[PROVENANCE] = provenance("convert", document, work, path, {"format": "samba"})
        per_channel: np.ndarray
        with Trees(out) as trees:
            if file.is_stream:
                points = _stream(file, trees, chosen)
                expected["stream"] = points
                per_channel = np.full(len(file.channels), points, dtype=np.int64)
                numbers = {"points": points, "channels": len(file.channels)}
            else:
                numbers, per_channel, samples = _events(file, trees, constants, chosen, work)
                expected |= {"events": numbers["events"], "pulses": numbers["pulses"]}
            # Last: a file without a channel configuration shows its channels only in its events.
            expected["channels"] = len(file.channels)
            trees.add("channels", CHANNELS).extend(
                {
                    "index": np.arange(len(file.channels), dtype=np.int32),
                    "name": [c.name for c in file.channels],
                    "detector": [c.detector or "" for c in file.channels],
                    "kind": [c.kind for c in file.channels],
                    "pulses": per_channel[: len(file.channels)],
                }
            )
        out[HEADER] = json.dumps(header(file), ensure_ascii=False)
    return {
        "checksum": checksum,
        "counts": {
            **numbers,
            "per_channel": dict(
                zip(distinct(c.name for c in file.channels), map(int, per_channel), strict=False)
            ),
        },
        "entries": expected,
        "truncated": file.truncated and {"offset": file.truncated.offset, "reason": file.truncated.reason},
        "end_of_run": file.end_of_run,
        "notes": file.notes[:NOTES_SHOWN],
    }


def _events(
    file: samba.SambaFile, trees: Trees, constants: dict[str, Any], chosen: SimpleNamespace, work: Work
) -> tuple[dict[str, int], np.ndarray, int]:
    """Write the trees of events and pulses; counts, pulses per channel, and samples in all."""
    events, pulses = trees.add("events", EVENTS), trees.add("pulses", PULSES)
    done = {"events": 0, "pulses": 0, "with_trace": 0}
    samples = 0
    per_channel = np.zeros(max(len(file.channels), 1), dtype=np.int64)
    read = 0
    with Writer() as writer:
        for batch in file.batches(5000, keep_truncated=chosen.keep_truncated, max_bytes=chosen.chunk_bytes):
            writer.extend(
                [
                    (events, _event_columns(batch, constants, done["pulses"])),
                    (pulses, _pulse_columns(batch, done["events"])),
                ]
            )
            seen = np.bincount(batch.channel, minlength=max(len(file.channels), len(per_channel)))
            per_channel = seen + np.pad(per_channel, (0, len(seen) - len(per_channel)))
            done["events"] += len(batch)
            done["pulses"] += batch.pulses
            done["with_trace"] += int(np.count_nonzero(batch.lengths))
            samples += len(batch.samples)
            # Text headers are a small part beside the samples; near enough for a progress display.
            read += batch.samples.nbytes + 1000 * batch.pulses
            work.progress(min(0.99, read / max(file.size, 1)), f"{done['events']} events")
    return {**done, "samples": samples}, per_channel, samples


def _event_columns(batch: SambaBatch, constants: dict[str, Any], pulses_before: int) -> dict[str, Any]:
    count = len(batch)
    columns: dict[str, Any] = {
        name: getattr(batch, name)
        for name in EVENTS
        if hasattr(batch, name) and name != "pulses"
    }
    columns["run"] = [constants["run"]] * count
    columns["condition"] = [constants["condition"]] * count
    columns["file_number"] = np.broadcast_to(np.int64(constants["file_number"]), count)
    columns["first_pulse"] = pulses_before + np.concatenate([[0], np.cumsum(batch.counts[:-1], dtype=np.int64)])
    columns["pulses"] = batch.counts
    return columns


def _pulse_columns(batch: SambaBatch, events_before: int) -> dict[str, Any]:
    columns: dict[str, Any] = {
        name: getattr(batch, name)
        for name in PULSES
        if name not in ("event", "stamp", "trace")
    }
    columns["event"] = events_before + batch.event_of_pulse()
    columns["stamp"] = batch.pulse_stamp
    columns["trace"] = Lists(batch.samples, batch.lengths)
    return columns


def _stream(file: samba.SambaFile, trees: Trees, chosen: SimpleNamespace) -> int:
    """Write a stream's samples, one branch per channel; returns the points of each channel."""
    names = [f"channel_{index}" for index in range(len(file.channels))]
    tree = trees.add("stream", dict.fromkeys(names, "int16"))
    points = 0
    for block in file.stream(
        max(1024, chosen.chunk_bytes // (2 * max(1, len(names)))), keep_truncated=chosen.keep_truncated
    ):
        tree.extend({name: block[:, index] for index, name in enumerate(names)})
        points += len(block)
    return points
