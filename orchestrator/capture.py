"""Everything that one attempt prints, logs or lets a library write, in one file that is kept only if it holds anything.

Standard output and error of the process are led into a file of this process's own; after each attempt the file gets the
attempt's name, or is used again if nothing was written. So silent steps cost no file, and output of C libraries and of
executables lands in the same place, in order.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import shutil
import sys
from pathlib import Path

#: How much of the end of a log goes into the document of a failed attempt, in bytes.
TAIL = 4096
#: A log larger than this (bytes) is cut in its middle when it is kept: a step that prints without end fills no disk.
LOG_LIMIT = 16_000_000
_UNSAFE = re.compile(r"[^A-Za-z0-9._+=-]+")


def safe_file_name(text: str, limit: int = 180) -> str:
    """A file name that anybody's text can be turned into: readable, never a path, different for different texts."""
    clean = _UNSAFE.sub("_", text).lstrip(".") or "_"
    if clean == text and len(clean) <= limit:
        return clean
    mark = hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:10]
    return f"{clean[: limit - 11]}-{mark}"


def output_path(folder: Path, name: str) -> Path:
    """The file that the output of the process ``name`` is in while an attempt runs."""
    return folder / f"{safe_file_name(name)}.out"


def keep_left(path: Path, folder: Path, name: str) -> tuple[str | None, str]:
    """Keep as a log what a dead process left at ``path``: the log's path and its end; (None, "") for nothing."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            end = _end(file.fileno(), size)
        if size == 0:
            path.unlink()
            return None, ""
        return str(_move(path, folder, name)), end
    except FileNotFoundError:
        return None, ""
    except OSError as error:
        return None, f"(the log could not be kept: {error})"


def _end(descriptor: int, size: int) -> str:
    return os.pread(descriptor, TAIL, max(0, size - TAIL)).decode("utf-8", "replace")


def _move(path: Path, folder: Path, name: str) -> Path:
    """Move a log to its place, across file systems too, where it is copied. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"{safe_file_name(name)}.log"
    if path.stat().st_size > LOG_LIMIT:
        _cut_middle(path)
    try:
        path.rename(final)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copyfile(path, final)
        path.unlink()
    return final


def _cut_middle(path: Path) -> None:
    """Leave of a log its first and its last part, and a line that says how much is missing."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(size - LOG_LIMIT // 2)
        end = file.read()
        file.seek(LOG_LIMIT // 2)
        file.write(b"\n(... %d bytes are left out here ...)\n" % (size - LOG_LIMIT // 2 - len(end)))
        file.write(end)
        file.truncate()


class Capture:
    """The output of this process while it runs attempts. ``logger`` is what steps log to."""

    def __init__(self, folder: Path, name: str, *, redirect: bool) -> None:
        """Write into ``folder``; ``redirect`` leads file descriptors 1 and 2 there (in a worker, not at a terminal)."""
        folder.mkdir(parents=True, exist_ok=True)
        self._path = output_path(folder, name)
        self._redirect = redirect
        self._descriptor = -1
        self._open()
        self.logger = logging.Logger("step", logging.INFO)
        handler = logging.StreamHandler(_Descriptor(self))
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self.logger.addHandler(handler)

    def _open(self) -> None:
        new = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o644)
        if self._redirect:
            os.dup2(new, 1)
            os.dup2(new, 2)
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = new

    def _mend(self) -> None:
        """Bring standard output and error back where they belong, whatever the step did to them."""
        for stream, original, descriptor in (("stdout", sys.__stdout__, 1), ("stderr", sys.__stderr__, 2)):
            current = getattr(sys, stream)
            try:
                current.flush()
                if current is original and os.path.sameopenfile(descriptor, self._descriptor):
                    continue
            except (OSError, ValueError, AttributeError):
                pass  # closed, full, or no stream at all
            os.dup2(self._descriptor, descriptor)
            if original is None or original.closed:
                original = os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
                setattr(sys, f"__{stream}__", original)
            setattr(sys, stream, original)

    def write(self, text: str) -> None:
        """Add words of our own."""
        os.write(self._descriptor, text.encode("utf-8", "backslashreplace"))

    def keep(self, folder: Path, name: str, *, tail: bool) -> tuple[str | None, str]:
        """Keep what was written as ``folder/name.log``: its path and, if asked for, its end; (None, "") for nothing."""
        if self._redirect:
            self._mend()
        size = os.fstat(self._descriptor).st_size
        if size == 0:
            return None, ""
        end = _end(self._descriptor, size) if tail else ""
        try:
            final = _move(self._path, folder, name)
            self._open()
        except OSError as error:
            # A full or vanished log disk must not fail the step whose result is safe; the tail says so.
            os.ftruncate(self._descriptor, 0)
            return None, f"(the log could not be kept: {error})\n{end}"
        return str(final), end

    def close(self) -> None:
        """What was written and not kept goes."""
        os.close(self._descriptor)
        self._path.unlink(missing_ok=True)


class _Descriptor:
    """A text stream over whatever file a Capture has open."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture

    def write(self, text: str) -> int:
        self._capture.write(text)
        return len(text)

    def flush(self) -> None:
        """Nothing is buffered."""
