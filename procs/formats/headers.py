"""Headers as they go into the documents: typed, valid JSON, small."""

from __future__ import annotations

import builtins
import json
import os
import struct
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.errors import FormatError
from procs.formats import date, names, samba
from procs.formats import date_layout as layout
from procs.formats.samba_text import jsonable

MAX_DETAIL = 64 * 1024  # bytes of JSON of the detectors' and channels' settings that a document carries


def iso(seconds: Any, microseconds: Any = 0) -> str | None:
    """A unix time as ISO 8601 in UTC with milliseconds and Z; None for what is no time."""
    if isinstance(seconds, bool) or not isinstance(seconds, int) or not 0 < seconds < 253_402_300_800:  # the year 10000
        return None
    moment = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    milli = microseconds // 1000 if isinstance(microseconds, int) and 0 <= microseconds < 1_000_000 else 0
    return f"{moment}.{milli:03d}Z"


def _first(block: dict[str, Any], *keys: str) -> Any:
    """The value of the first of these keys that the block has."""
    return next((block[key] for key in keys if block.get(key) is not None), None)


def samba_document(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The header of a Samba file. Keys: see the guide to documents; ``samba`` holds the file's own keys."""
    file = samba.open(path)
    header, general, run = file.header, file.header.general, file.run
    notes = list(header.notes)
    channels = [
        {
            "name": channel.name,
            "detector": channel.detector,
            **({"filter_stages": len(channel.filters)} if channel.filters else {}),
            **channel.settings,
        }
        for channel in file.channels
    ]
    detail: dict[str, Any] = {
        "general": general,
        "physics": header.physics,
        "run": run,
        "detectors": [{"name": detector.name, **detector.settings} for detector in file.detectors],
        "channels": channels,
    }
    if header.blocks:
        detail["blocks"] = header.blocks
    checked = jsonable(detail, notes, "samba")
    if len(json.dumps(checked)) > MAX_DETAIL:
        checked = {
            key: checked[key] for key in ("general", "physics", "run") if len(json.dumps(checked[key])) <= MAX_DETAIL
        }
        notes.append("the settings of detectors and channels are too many for a document; they are in the file")
    document: dict[str, Any] = {
        "format": "samba",
        "run_name": file.run_name,
        "file_number": file.file_number,
        "part": file.part,
        "version": header.version,
        "release": header.release or header.version,
        "title": _first(general, "Intitule"),
        "start": iso(run.get("Date.secondes"), run.get("Date.microsecs", 0)),
        "byte_order": "little" if header.order == "<" else "big",
        "sampling_khz": _first(general, "Echantillonnage", "Echantillonage", "Frequence"),
        "run_type": _first(run, "Type"),
        "condition": _first(run, "Condition"),
        "temperature": _first(run, "Temperature"),
        "daq_host": _first(run, "Hote"),
        "detectors": [detector.name for detector in file.detectors],
        "channels": [channel.name for channel in file.channels],
        "samba": checked,
        "notes": notes,
    }
    parsed = names.parse_run_name(file.run_name)
    if parsed is not None:
        document["run_day"] = parsed.day.isoformat()
        document["daq_number"] = parsed.daq
    for key in ("sampling_khz", "temperature"):
        if not isinstance(document[key], int | float):
            document[key] = None
    for key, value in document.items():
        if key not in ("samba", "notes"):
            document[key] = jsonable(value, notes, key)
    return document


def date_document(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The header of a DATE file: what its first event's header says."""
    file = date.open(path)
    first = [int(word) for word in file.first_header]
    return {
        "format": "date",
        "run_name": file.run_name,
        "file_number": file.file_number,
        "part": "partition",
        "run_number": file.run,
        "version": f"0x{first[layout.VERSION_WORD]:08X}",
        "start": iso(first[layout.SECONDS], first[layout.MICROSECONDS]),
        "byte_order": "little",
        "first_event": layout.EVENT_TYPES.get(first[layout.TYPE], f"type {first[layout.TYPE]}"),
        "gdc": first[layout.GDC],
        "notes": [] if first[layout.TYPE] in layout.EVENT_TYPES else [f"unknown event type {first[layout.TYPE]}"],
    }


def root_document(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The header of a ROOT file: the fixed record at its start, big-endian (see ROOT's TFile).

    Raises:
        FormatError: the record cannot be right, or the file is shorter than it says.
    """
    place = Path(path)
    with builtins.open(place, "rb") as file:  # noqa: PTH123
        head = file.read(75)
        size = os.fstat(file.fileno()).st_size
    if len(head) < 64:
        raise FormatError(f"the file has {size} bytes, a ROOT header has 64 or more", path=str(place), offset=len(head))
    (version,) = struct.unpack_from(">i", head, 4)
    large = version >= 1_000_000  # files over 2 GB have 64-bit places
    begin, end = struct.unpack_from(">iq" if large else ">ii", head, 8)
    compression = struct.unpack_from(">i", head, 12 + (8 + 8 + 4 + 4 + 4 + 1 if large else 4 + 4 + 4 + 4 + 4 + 1))[0]
    if not 64 <= begin <= 4096:
        raise FormatError(
            f"expected the first record at byte 64 or somewhat later, found {begin}", path=str(place), offset=8
        )
    if end > size:
        raise FormatError(
            f"the file says that it ends at byte {end}, and it has {size}: was it copied or closed to its end?",
            path=str(place),
            offset=12,
        )
    name = names.from_samba_name(place.stem) if place.suffix == ".root" else None
    whole = version % 1_000_000
    return {
        "format": "root",
        "run_name": name.run_name if name else place.name.removesuffix(".root"),
        "file_number": name.file_number if name else 0,
        "part": name.part if name else "partition",
        "version": f"{whole // 10000}.{whole // 100 % 100:02d}/{whole % 100:02d}",
        "compression": compression,
        "notes": [] if end == size else [f"the file says that it ends at byte {end}, and it has {size}"],
    }
