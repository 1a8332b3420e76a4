"""proc0: copy a raw file to the computing centre's folder, bit for bit, and prove it.

The checksum is computed while the source is read, and again from the copy on the disk; both, and the sizes, must agree
before the copy gets its last name. A copy that is there already and has the same checksum is taken as it is, so the
step can be repeated at any time.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from orchestrator.errors import DataError, SettingsError, TransientError
from orchestrator.filenames import path_of
from orchestrator.step import Work
from procs.options import choice, options
from procs.outputs import atomic_output, checksum, place, storage, storage_fault

CHUNK = 4 * 1024 * 1024  # bytes read at once: large enough for network file systems, small beside any memory limit
PROGRESS_EVERY = 64 * 1024 * 1024  # bytes between two reports of progress

DEFAULTS: dict[str, Any] = {
    "output": "raw",  # folder for the copies; relative to the site's data folder
    "algorithm": "sha256",  # checksum, any name that hashlib knows
    "verify": True,  # read the copy back from the disk and compare
    "overwrite": "refuse",  # what to do with another file of that name: refuse | replace
}


def transfer(document: dict[str, Any], work: Work) -> dict[str, Any]:
    """Copy ``work.input`` to ``<output>/<run>/<name>``.

    Returns:
        ``file``, ``size``, ``checksum`` of the copy; ``source`` (path and checksum), ``reused``, ``verified``.

    Raises:
        DataError: the source differs from what was registered, or another file stands in the copy's place.
        TransientError: the source changed during the copy, the copy reads back differently, or the disk failed.
    """
    chosen = options(work.settings, "transfer", DEFAULTS)
    choice(chosen.overwrite, ("refuse", "replace"), "overwrite", "transfer")
    if chosen.algorithm not in hashlib.algorithms_guaranteed or chosen.algorithm.startswith("shake"):
        raise SettingsError(f"the setting 'algorithm' of the step transfer is {chosen.algorithm!r}: write sha256")
    source = work.input
    with storage(source, "reading"):
        before = source.stat()
    if not source.is_file():
        raise DataError(f"{source} is not a file: nothing to copy. Correct the document's file.")
    target = place(work.output, work.settings, "raw", document, source.name)
    registered = _registered(document, source, before.st_size, chosen.algorithm)
    if _same_file(source, target):
        found = checksum(source, chosen.algorithm)
        if registered not in (None, found):
            raise _changed(source, found, registered)
        return _result(source, target, before.st_size, found, reused=True, verified=True)
    if target.exists():
        reused = _existing(source, target, before.st_size, registered, chosen, work)
        if reused is not None:
            return reused
    with atomic_output(target, work.attempt) as temporary:
        read = _copy(source, temporary, before.st_size, chosen.algorithm, work)
        with storage(source, "reading"):
            after = source.stat()
        if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise TransientError(
                f"{source} changed while it was copied ({before.st_size} -> {after.st_size} bytes): "
                "tried again once it is quiet."
            )
        if registered and read != registered:
            raise _changed(source, read, registered)
        written = temporary.stat().st_size
        if written != before.st_size:
            raise TransientError(f"the copy of {source} has {written} bytes instead of {before.st_size}: tried again.")
        if chosen.verify:
            _drop_cache(temporary)
            copied = checksum(temporary, chosen.algorithm)
            if copied != read:
                raise TransientError(f"the copy of {source} reads back as {copied} instead of {read}: tried again.")
    work.log.info("copied %s to %s (%d bytes, %s)", source, target, before.st_size, read)
    return _result(source, target, before.st_size, read, reused=False, verified=chosen.verify)


def _registered(document: dict[str, Any], source: Path, size: int, algorithm: str) -> str | None:
    """The checksum to expect, if the file is the one that was registered and the algorithm is the same."""
    if not isinstance(document.get("file"), str) or source != path_of(document):
        return None
    known = document.get("size")
    if isinstance(known, int) and not isinstance(known, bool) and known != size:
        raise DataError(
            f"{source} has {size} bytes, but {known} were registered: it was changed after its registration. "
            "Compare it with the DAQ's copy."
        )
    text = document.get("checksum")
    return text.lower() if isinstance(text, str) and text.lower().startswith(f"{algorithm}:") else None


def _changed(source: Path, found: str, registered: str | None) -> DataError:
    return DataError(
        f"{source} has the checksum {found}, but {registered} was registered: the file was changed or damaged "
        "after its registration. Compare it with the DAQ's copy."
    )


def _existing(
    source: Path, target: Path, size: int, registered: str | None, chosen: SimpleNamespace, work: Work
) -> dict[str, Any] | None:
    """The result if ``target`` is already this very file; None if it is to be replaced."""
    if target.is_file() and target.stat().st_size == size:
        expected = checksum(source, chosen.algorithm)
        if registered not in (None, expected):
            raise _changed(source, expected, registered)
        if checksum(target, chosen.algorithm) == expected:
            work.log.info("%s is there already, with the same checksum", target)
            return _result(source, target, size, expected, reused=True, verified=True)
    if chosen.overwrite == "refuse":
        raise DataError(
            f"{target} is there already and is another file than {source}: look at both, then remove one, "
            "or set overwrite: replace."
        )
    work.log.warning("%s is another file than %s and is replaced", target, source)
    return None


def _result(source: Path, target: Path, size: int, total: str, *, reused: bool, verified: bool) -> dict[str, Any]:
    return {
        "file": str(target),
        "size": size,
        "checksum": total,
        "source": {"file": str(source), "checksum": total},
        "reused": reused,
        "verified": verified,
    }


def _copy(source: Path, target: Path, size: int, algorithm: str, work: Work) -> str:
    """Copy in chunks and return the checksum of what was read; errors name the side that failed."""
    digest = hashlib.new(algorithm)
    done = reported = 0
    with storage(source, "reading"):
        reader = source.open("rb")
    with reader, target.open("wb") as writer:
        while True:
            try:
                chunk = reader.read(CHUNK)
            except OSError as error:
                raise storage_fault(error, source, "reading") from error
            if not chunk:
                break
            digest.update(chunk)
            writer.write(chunk)
            done += len(chunk)
            if done > size:  # a file that grows as fast as it is copied must not fill the disk
                raise TransientError(f"{source} grew beyond {size} bytes while it was copied: tried again later.")
            if done - reported >= PROGRESS_EVERY:
                reported = done
                work.progress(done / size, f"{done / 1e6:.0f} of {size / 1e6:.0f} MB")
        writer.flush()
        os.fsync(writer.fileno())
    return f"{algorithm}:{digest.hexdigest()}"


def _drop_cache(path: Path) -> None:
    """Ask the kernel to forget the copy's pages, so that the check reads the disk and not the memory."""
    if hasattr(os, "posix_fadvise"):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)


def _same_file(source: Path, target: Path) -> bool:
    return target.exists() and source.exists() and target.samefile(source)
