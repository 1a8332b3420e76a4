"""Recorded runs sent on: message by message to a socket, or written as a file that grows, as a DAQ does either."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from orchestrator.errors import DataError, SettingsError
from orchestrator.online.module import Input
from orchestrator.online.packing import pack
from orchestrator.online.spill import Item, Spill, StartOfRun
from procs.simulation.socket_daq import Sender

BLOCK = 1 << 20  # bytes copied at once
TICK = 0.02  # s that the connection is looked after while nothing is to be sent


def to_socket(items: Iterator[Item | None], sender: Sender) -> dict[str, int]:
    """Send what comes. Returns how many spills each run had, once all is acknowledged.

    Raises Unavailable where it is not, DataError for a raw file that cannot be read.
    """
    sent: dict[str, int] = {}
    for item in items:
        if item is None:
            sender.work(TICK)
        elif isinstance(item, StartOfRun):
            sent.setdefault(item.run, 0)
            sender.start(item.run, item.time, item.header)
        elif isinstance(item, Spill):
            sent[item.run] = sent.get(item.run, 0) + 1
            raw = item.data.get("raw")
            data = pack(item.data) if raw is None else raw_bytes(raw)
            sender.spill(item.run, item.number, data, item.time, packed=raw is None)
            sender.flush()
        else:
            sender.end(item.run, item.time, item.spills, item.trailer)
    sender.finish(600.0)
    return sent


def raw_bytes(raw: dict[str, Any]) -> bytes:
    """A spill's raw bytes, by reference or as they are. Raises DataError."""
    if "bytes" in raw:
        return bytes(raw["bytes"])
    try:
        with Path(raw["file"]).open("rb") as file:
            file.seek(int(raw["offset"]))
            data = file.read(int(raw["size"]))
    except OSError as error:
        raise DataError(f"{raw['file']} cannot be read: {error.strerror}") from error
    if len(data) != int(raw["size"]):
        raise DataError(f"{raw['file']} has become shorter while it was replayed")
    return data


def to_file(items: Iterator[Item | None], source: Input, path_of: Callable[[str], Path]) -> dict[str, int]:
    """Write the files that ``source`` reads once more, byte by byte as they are, item by item: a file for each run.

    Args:
        items: those of ``source``, paced and renamed.
        source: a DATE input; its position says how many bytes an item takes.
        path_of: the new file of a run. It must not be there.

    Raises SettingsError where it is, or where the source has no bytes to copy.
    """
    sent: dict[str, int] = {}
    copy = _Copy()
    try:
        for item in items:
            if item is None:
                continue
            if item.run not in sent:
                sent[item.run] = 0
                copy.begin(path_of(item.run))
            sent[item.run] += isinstance(item, Spill)
            position = source.position
            if not isinstance(position, dict) or "offset" not in position:
                raise SettingsError("only DATE files can be replayed as growing files: use --to socket")
            copy.upto(str(position["file"]), int(position["offset"]))
        copy.rest()
    finally:
        copy.close()
    return sent


class _Copy:
    """Copies one file after the other into one that grows."""

    def __init__(self) -> None:
        self._out: BinaryIO | None = None
        self._path = ""
        self._offset = 0

    def begin(self, path: Path) -> None:
        """Further bytes go into this file."""
        self.close()
        try:
            self._out = path.open("xb")
        except FileExistsError:
            raise SettingsError(f"{path} is there already: give the replay another name with --as") from None
        except OSError as error:
            raise SettingsError(f"{path} cannot be written: {error.strerror}") from error

    def upto(self, path: str, offset: int) -> None:
        """All bytes before this place."""
        if path != self._path:
            self.rest()
            self._path, self._offset = path, 0
        self._copy(offset)

    def rest(self) -> None:
        """What is left of the file that is being copied."""
        if self._path:
            self._copy(None)

    def close(self) -> None:
        """Nothing more goes into the file."""
        if self._out is not None:
            self._out.close()
            self._out = None

    def _copy(self, stop: int | None) -> None:
        assert self._out is not None
        with Path(self._path).open("rb") as source:
            source.seek(self._offset)
            while stop is None or self._offset < stop:
                data = source.read(BLOCK if stop is None else min(BLOCK, stop - self._offset))
                if not data:
                    break
                self._out.write(data)
                self._offset += len(data)
        self._out.flush()
