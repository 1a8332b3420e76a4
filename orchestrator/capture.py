"""Everything that one attempt prints, logs or lets a library write, in one file that is kept only if it holds anything.

Standard output and error of the process are led into a file of this process's own; after each attempt the file gets the
attempt's name, or is used again if nothing was written. So silent steps cost no file, and output of C libraries and of
executables lands in the same place, in order.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import sys
from pathlib import Path

#: How much of the end of a log goes into the document of a failed attempt, in bytes.
TAIL = 4096
_UNSAFE = re.compile(r"[^A-Za-z0-9._+=-]+")


def safe_file_name(text: str, limit: int = 180) -> str:
    """A file name that anybody's text can be turned into: readable, never a path, different for different texts."""
    clean = _UNSAFE.sub("_", text).lstrip(".") or "_"
    if clean == text and len(clean) <= limit:
        return clean
    mark = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:10]
    return f"{clean[: limit - 11]}-{mark}"


class Capture:
    """The output of this process while it runs attempts. ``logger`` is what steps log to."""

    def __init__(self, folder: Path, name: str, *, redirect: bool) -> None:
        """Write into ``folder``; ``redirect`` leads file descriptors 1 and 2 there (in a worker, not at a terminal)."""
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{safe_file_name(name)}.out"
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

    def write(self, text: str) -> None:
        os.write(self._descriptor, text.encode("utf-8", "backslashreplace"))

    def keep(self, folder: Path, name: str, *, tail: bool) -> tuple[str | None, str]:
        """Keep what was written as ``folder/name.log``: its path and, if asked for, its end; (None, "") for nothing."""
        if self._redirect:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
        size = os.fstat(self._descriptor).st_size
        if size == 0:
            return None, ""
        end = os.pread(self._descriptor, TAIL, max(0, size - TAIL)).decode("utf-8", "replace") if tail else ""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            final = folder / f"{safe_file_name(name)}.log"
            self._path.rename(final)
            self._open()
        except OSError as error:
            # A full or vanished log disk must not fail the step whose result is safe; the tail says so.
            os.ftruncate(self._descriptor, 0)
            return None, f"(the log could not be kept: {error})\n{end}"
        return str(final), end

    def close(self) -> None:
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
