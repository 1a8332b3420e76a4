"""What a watcher keeps: files that are ready, files that wait, and the folders it began with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from procs.register.closed import Look


@dataclass(frozen=True, slots=True)
class Found:
    """A file to register.

    ``closed`` is False only for a file to register as ``open``. ``rung``: found by an event, so very likely new.
    ``since``: the monotonic time (s) since which it has been seen unchanged.
    """

    path: str
    look: Look
    closed: bool
    reason: str
    rung: bool
    since: float = 0.0


@dataclass(slots=True)
class Waiting:
    """A file that is not closed yet, or whose turn comes again later. Times are monotonic seconds.

    ``due`` is when it is looked at without any event, ``held_until`` before when it is left alone, ``announced``
    whether it has been handed out as open, ``scan`` the last scan that saw it.
    """

    look: Look
    since: float
    reason: str = ""
    due: float | None = None
    announced: bool = False
    held_until: float = 0.0
    scan: int = 0
    handed: bool = False


@dataclass(slots=True)
class Root:
    """A folder to watch with all that is below it.

    ``settled`` are the fingerprints of files that are dealt with, ``fresh`` those that the running scan has met: at its
    end they take the others' place, so files that are gone are forgotten.
    """

    path: str
    due: float
    polled: bool = False
    walk: Iterator[Found | None] | None = None
    started: float = 0.0
    scans: int = 0
    seconds: float = 0.0
    files: int = 0
    settled: set[int] = field(default_factory=set)
    fresh: set[int] = field(default_factory=set)

    @property
    def prefix(self) -> str:
        """What the path of everything below begins with."""
        return self.path if self.path == "/" else self.path + "/"


def fingerprint(path: str, inode: int, size: int, mtime_ns: int) -> int:
    """64 bits for a file in one state. Two of 100,000 files agree with a chance of 3e-10, anew at each start."""
    return hash((path, inode, size, mtime_ns))


def outermost(directories: list[str]) -> list[str]:
    """The folders as absolute paths, each once, without those inside another one of them."""
    named = {os.path.abspath(os.path.expanduser(name)) for name in directories}  # noqa: PTH100, PTH111
    kept: list[str] = []
    for path in sorted("/" + path.lstrip("/") for path in named):  # POSIX lets a path begin with two
        if path not in kept and not any(path.startswith(other.rstrip("/") + "/") for other in kept):
            kept.append(path)
    return kept
