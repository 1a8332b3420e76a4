"""Files that pages may show: logs and plots, and only those under the folders named when the page was started.

The paths stand in documents, and documents are written by others: nothing here follows one out of its folder, by
``..``, by an absolute path or by a symbolic link.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

#: What a page shows of the end of a log, in bytes: a few screens.
TAIL_BYTES = 16_000
#: What "the whole log" sends at most, in bytes: its end. A log of gigabytes must not end the page's process.
LOG_BYTES = 4_000_000
#: A larger picture is not sent, in bytes: no plot is.
PLOT_BYTES = 20_000_000

_PNG = b"\x89PNG\r\n\x1a\n"
_PLAIN = os.O_NOFOLLOW | os.O_CLOEXEC


class Roots:
    """The folders that files may be shown from. Without folders, none is shown."""

    def __init__(self, *folders: Path | Sequence[Path] | None) -> None:
        named: list[Path] = []
        for folder in folders:
            named += [] if folder is None else [folder] if isinstance(folder, Path) else list(folder)
        self.folders = tuple(named)

    def find(self, name: Any) -> Path | None:
        """The real path of a regular file inside one of the folders; None for everything else."""
        if not isinstance(name, str) or not name or "\0" in name:
            return None
        for folder in self.folders:
            try:
                root = folder.resolve(strict=True)
                path = (root / name).resolve(strict=True)
                if path.is_relative_to(root) and stat.S_ISREG(path.stat().st_mode):
                    return path
            except (OSError, ValueError, RuntimeError):
                continue
        return None

    def tail(self, name: Any, size: int = TAIL_BYTES) -> dict[str, Any] | None:
        """The end of a log as text: ``{"text", "size", "cut"}``; None where it may not or cannot be read."""
        try:
            with self._opened(name) as file:
                whole = os.fstat(file.fileno()).st_size
                file.seek(max(0, whole - size))
                raw = file.read(size)
        except OSError:
            return None
        if whole > size:  # begin with a whole line where there is one
            raw = raw[raw.find(b"\n") + 1 :]
        return {"text": raw.decode("utf-8", "replace"), "size": whole, "cut": whole > size}

    def picture(self, name: Any) -> bytes | None:
        """The bytes of a PNG; None for what is none, or may not be shown."""
        try:
            with self._opened(name) as file:
                if file.read(len(_PNG)) != _PNG or os.fstat(file.fileno()).st_size > PLOT_BYTES:
                    return None
                return _PNG + file.read(PLOT_BYTES)
        except OSError:
            return None

    @contextmanager
    def _opened(self, name: Any) -> Iterator[BinaryIO]:
        """Open for reading, folder by folder from the root down, following no link: one may have been put there since.

        A pipe is not waited for. Raises OSError for what is no regular file inside the folders.
        """
        path = self.find(name)
        if path is None:
            raise FileNotFoundError("nothing that may be shown")
        root = next(f for f in map(Path.resolve, self.folders) if path.is_relative_to(f))
        with ExitStack() as stack:
            folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, folder)
            *between, last = path.relative_to(root).parts
            for part in between:
                folder = os.open(part, os.O_RDONLY | os.O_DIRECTORY | _PLAIN, dir_fd=folder)
                stack.callback(os.close, folder)
            descriptor = os.open(last, os.O_RDONLY | os.O_NONBLOCK | _PLAIN, dir_fd=folder)
            with os.fdopen(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise OSError(f"{path} is no regular file")
                yield file
