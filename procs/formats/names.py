"""What the name of a raw file says: run, number, and which kind of part of the run it is.

Samba names: run = year letter (a = 2000), month letter (a-l), two-digit day, DAQ letter (a = 1), three digits, so
``ma22a000`` is 2012-01-22, DAQ 1, run 000; ``<run>_<NNN>`` is a partition, ``<run>_S<nn>`` a stream and
``<run>_R<nn>`` a regenerated file. DATE names: ``<run>.<NNN>``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from pathlib import PurePath

PARTS = {"": "partition", "S": "stream", "R": "regenerated"}
SAMBA_NAME = re.compile(r"(?P<run>[^/\x00]+)_(?P<part>[SR]?)(?P<number>[0-9]{2,9})\Z", re.DOTALL)
DOTTED_NAME = re.compile(r"(?P<run>[^/\x00]+)\.(?P<number>[0-9]{3,9})\Z", re.DOTALL)
RUN_NAME = re.compile(r"(?P<year>[a-z])(?P<month>[a-l])(?P<day>[0-9]{2})(?P<daq>[a-z])(?P<serial>[0-9]{3})\Z")


@dataclass(frozen=True, slots=True)
class FileName:
    """A raw file's name taken apart. ``part`` is partition, stream or regenerated."""

    run_name: str
    file_number: int
    part: str = "partition"


@dataclass(frozen=True, slots=True)
class RunName:
    """A Samba run's name taken apart."""

    day: date
    daq: int
    serial: int


def from_samba_name(path: str | PurePath) -> FileName | None:
    """``ma22a000_003`` -> (ma22a000, 3); None if the name is not of the form ``<run>_<NNN>``.

    A partition's number has three digits or more; a stream's or a regenerated file's two or more.
    """
    match = SAMBA_NAME.match(PurePath(path).name)
    if match is None or (match["part"] == "" and len(match["number"]) < 3):
        return None
    return FileName(match["run"], int(match["number"]), PARTS[match["part"]])


def from_dotted_name(path: str | PurePath) -> FileName | None:
    """``mice_06008.000`` -> (mice_06008, 0); None if the name has another form."""
    match = DOTTED_NAME.match(PurePath(path).name)
    return None if match is None else FileName(match["run"], int(match["number"]))


def parse_run_name(name: str) -> RunName | None:
    """The day, DAQ (from 1) and serial number in a Samba run's name; None if it is not one."""
    match = RUN_NAME.match(name)
    if match is None:
        return None
    try:
        day = date(2000 + ord(match["year"]) - 97, ord(match["month"]) - 96, int(match["day"]))
    except ValueError:  # a day that the month does not have
        return None
    return RunName(day, ord(match["daq"]) - 96, int(match["serial"]))


def make_run_name(day: date, daq: int = 1, serial: int = 0) -> str:
    """The name that the DAQ gives to a run: ``make_run_name(date(2012, 1, 22))`` is ``ma22a000``.

    Raises:
        ValueError: the year, DAQ or serial number is outside of what the form can say.
    """
    if not (2000 <= day.year <= 2025 and 1 <= daq <= 26 and 0 <= serial <= 999):
        raise ValueError(f"no run name for {day}, DAQ {daq}, run {serial}: years are 2000-2025, DAQs 1-26, runs 0-999")
    return f"{chr(97 + day.year - 2000)}{chr(96 + day.month)}{day.day:02d}{chr(96 + daq)}{serial:03d}"
