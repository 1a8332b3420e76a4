"""Results of spills that are too big for a store: a file each, flushed before the reference to it is stored.

A file is named by the spill's number and the hash of its contents, so two different results of one spill never write
over each other, and the same one written twice is there once. A reference names no folder: what a document says cannot
lead to another place. A run's files are removed with its store.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from orchestrator.errors import DataError, TransientError
from orchestrator.online.stores.names import checked_number, checked_run

_NAME = re.compile(r"[0-9]{9}-[0-9a-f]{16}\.spill\Z")


class SpillFiles:
    """The folder ``online/spills`` of a site, with a folder in it for each run. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def write(self, run: str, results: Iterable[tuple[int, bytes]], *, durable: bool = True) -> list[dict[str, Any]]:
        """Write the packed results of spills. Returns a reference for each, in order.

        ``durable``: they are on the disk then, and outlive the machine's end. Raises TransientError where the disk does
        not take them (full, away).
        """
        place = self.folder / checked_run(run)
        try:
            made = not place.exists()
            place.mkdir(parents=True, exist_ok=True)
            found = [_write(place, number, packed, durable) for number, packed in results]
            for folder in ((place, self.folder) if made else (place,)) if durable else ():
                _flush(folder)
        except OSError as error:
            raise TransientError(
                f"a spill of run {run} could not be written into {place}: {error.strerror or error}. Make room there"
            ) from error
        return found

    def read(self, run: str, reference: Any) -> bytes:
        """What a reference names. Raises DataError where it is not there any more, or not what was written."""
        name = reference.get("name") if isinstance(reference, dict) else None
        if not isinstance(name, str) or not _NAME.match(name):
            raise DataError(f"run {run}: {str(reference)[:100]!r} is no reference to a spill's file")
        path = self.folder / checked_run(run) / name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}; its spill is lost") from error
        if len(content) != reference.get("size") or _hash(content) != reference.get("sha256"):
            raise DataError(f"{path} is not what was written ({len(content)} bytes of {reference.get('size')})")
        return content

    def runs(self) -> list[str]:
        """The runs that have files."""
        if not self.folder.exists():
            return []
        found = []
        for one in self.folder.iterdir():
            with contextlib.suppress(Exception):
                found.append(checked_run(one.name))
        return sorted(found)

    def drop(self, run: str) -> None:
        """Remove the files of a run; none there is well too."""
        place = self.folder / checked_run(run)
        if place.exists():
            shutil.rmtree(place, ignore_errors=True)


def _write(place: Path, number: int, packed: bytes, durable: bool) -> dict[str, Any]:
    checksum = _hash(packed)
    name = f"{checked_number(number):09d}-{checksum[:16]}.spill"
    path = place / name
    if not path.exists():
        part = place / f".{name}.{os.getpid()}-{threading.get_ident()}.part"
        try:
            with part.open("wb") as out:
                out.write(packed)
                out.flush()
                if durable:
                    os.fsync(out.fileno())
            part.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink()  # a full disk is not filled with halves
            raise
    return {"name": name, "size": len(packed), "sha256": checksum}


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
