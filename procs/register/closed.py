"""Has the DAQ finished with this file? The criteria, each of them a question of its own.

A file that is still being written must never be taken: what follows would process half of it. There is no one sign
that every DAQ gives, so the settings list those that count (``RegisterSettings.closed_by``), and any one that is met is
enough:

``marker``     a file with the marker's suffix stands beside it: the DAQ says so.
``trailer``    the file ends with its format's end of run: the DAQ says so in the file.
``partition``  the next partition of the same run is there, so the DAQ has gone on.
``rename``     it has its final name; for a DAQ that writes under a temporary one.
``quiet``      nothing has changed for so long.

For all but the marker the kernel is asked as well whether a process here still has the file open for writing: a trailer
may be followed by a second one (DATE), and the next partition opened before this one is closed.
Time is passed in. Nothing here remembers anything: since when a file has been unchanged is the caller's knowledge.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import stat
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import translate
from typing import Final

from procs.register.settings import RegisterSettings

#: Wait before a file that a process has open for writing is looked at again, s: cheap to ask, and it ends the waiting.
WRITER_RETRY: Final = 1.0


@dataclass(frozen=True, slots=True)
class Look:
    """What one ``lstat`` said of a file. Two equal looks: the file has not changed between them."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Look:
        """From the answer of ``os.stat``."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)

    def same_content(self, other: Look) -> bool:
        """Neither size, nor modification time, nor file differ. (The change time moves with a rename or a chmod.)"""
        return (self.size, self.mtime_ns, self.inode) == (other.size, other.mtime_ns, other.inode)

    @property
    def modified(self) -> float:
        """The later of modification and change time, s since 1970: what ``touch`` and ``cp -p`` cannot set back."""
        return max(self.mtime_ns, self.ctime_ns) / 1e9


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a file is closed, why (for people), and in how many s asking again can help (None: on an event)."""

    closed: bool
    reason: str
    after: float | None = None


class Names:
    """The name rules of the settings, compiled once: what to take, what to leave, what is temporary."""

    def __init__(self, settings: RegisterSettings) -> None:
        self._include = _matcher(settings.include)
        self._exclude = _matcher(settings.exclude)
        self._temporary = _matcher(settings.temporary)
        self._suffix = settings.marker_suffix
        self._marks = "marker" in settings.closed_by
        self._partition = re.compile(settings.partition, re.DOTALL)

    def temporary(self, name: str) -> bool:
        """Whether ``name`` is one that files or folders have only for a while."""
        return self._temporary(name, name)

    def wanted(self, name: str, relative: str) -> bool:
        """Whether a file of this name, at this path relative to its root, is one to register."""
        if self._temporary(name, name) or self.marked(name) is not None:
            return False
        return self._include(name, relative) and not self._exclude(name, relative)

    def marked(self, name: str) -> str | None:
        """The name of the file that the marker called ``name`` speaks of, or None where it is no marker."""
        if self._marks and name.endswith(self._suffix) and len(name) > len(self._suffix):
            return name[: -len(self._suffix)]
        return None

    def partition(self, name: str) -> tuple[str, int] | None:
        """The run and the partition's number as the name gives them, or None."""
        match = self._partition.fullmatch(name)
        if match is None or not (match["number"].isascii() and match["number"].isdigit()):
            return None
        return match["run"], int(match["number"])

    def neighbour(self, name: str, step: int) -> str | None:
        """The name of the partition ``step`` after (or before, if negative) the one called ``name``, or None."""
        found = self.partition(name)
        if found is None or found[1] + step < 0:
            return None
        match = self._partition.fullmatch(name)
        assert match is not None
        begin, end = match.span("number")
        return f"{name[:begin]}{found[1] + step:0{end - begin}d}{name[end:]}"


def _matcher(patterns: list[str]) -> Callable[[str, str], bool]:
    """A function (name, relative path) -> whether any pattern fits. Case matters, as it does to the file system."""
    if patterns == ["*"]:
        return lambda name, relative: True
    names = [p for p in patterns if "/" not in p]
    paths = [p for p in patterns if "/" in p]
    by_name = re.compile("|".join(map(translate, names))) if names else None
    by_path = re.compile("|".join(map(translate, paths))) if paths else None

    def matches(name: str, relative: str) -> bool:
        if by_name is not None and by_name.match(name):
            return True
        return by_path is not None and by_path.match(relative) is not None

    return matches


class ClosedCheck:
    """Decides about one file at a time.

    Args:
        settings: which criteria count.
        ended: whether the file at a path ends with its format's end-of-run trailer.
    """

    def __init__(self, settings: RegisterSettings, ended: Callable[[str], bool], names: Names | None = None) -> None:
        self._settings = settings
        self._ended = ended
        self._names = names or Names(settings)

    def __call__(self, path: str, look: Look, unchanged: float, wall: float) -> Verdict:
        """The verdict on the file at ``path``.

        Args:
            path: absolute path.
            look: what ``lstat`` says now.
            unchanged: seconds for which the caller has seen it so.
            wall: time of day, s since 1970.
        """
        criteria = self._settings.closed_by
        if "marker" in criteria and os.path.lexists(path + self._settings.marker_suffix):
            return Verdict(True, "its marker is there")
        inferred = self._inferred(path, look, unchanged, wall)
        if inferred.closed and self._settings.check_writers and open_for_writing(path):
            return Verdict(False, "a process has it open for writing", WRITER_RETRY)
        return inferred

    def _inferred(self, path: str, look: Look, unchanged: float, wall: float) -> Verdict:
        settings = self._settings
        criteria = settings.closed_by
        if look.size:
            # An empty file is what a file looks like at its birth: for that one, silence alone is a sign.
            if "trailer" in criteria and self._ended(path):
                return Verdict(True, "it ends with the end of its run")
            if "partition" in criteria and self._next_is_there(path):
                return Verdict(True, "the next partition of its run is there")
            if "rename" in criteria:
                return Verdict(True, "it has its final name")
        if "quiet" in criteria or ("rename" in criteria and not look.size):
            if unchanged >= settings.quiet:
                return Verdict(True, f"unchanged for {unchanged:.0f} s")
            age = wall - look.modified
            if age >= max(settings.quiet_old, settings.quiet):
                return Verdict(True, f"untouched for {age:.0f} s by its own times")
            left = settings.quiet - unchanged
            return Verdict(False, f"it changed {max(unchanged, 0):.0f} s ago; closed after {settings.quiet:g} s", left)
        return Verdict(False, f"no sign yet that it is closed ({', '.join(criteria)})")

    def _next_is_there(self, path: str) -> bool:
        folder, _, name = path.rpartition("/")
        following = self._names.neighbour(name, 1)
        return following is not None and os.path.lexists(f"{folder}/{following}")


def open_for_writing(path: str) -> bool | None:
    """Whether a process on this machine has ``path`` open for writing; None where the kernel cannot be asked.

    A read lease (Linux, ``fcntl(2)``) is granted only while nobody has the file open for writing. It is given back at
    once; a writer that opens the file in these microseconds waits for that, and the signal that the kernel sends us
    then is one that is ignored by default. Only the file's owner and root may ask, and only of a local file system.
    """
    if not hasattr(fcntl, "F_SETLEASE"):
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None  # who reads the header next says why
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return False
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(descriptor)
