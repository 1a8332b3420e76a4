"""File system events of Linux, straight from the kernel through the C library.

Why not a package: ``watchfiles`` (tried, 1.3) does not pass on that a file was closed after writing, which is the one
event that registration lives by; it asks a timer instead of sleeping in the kernel; and one file whose name is not
UTF-8 makes every later call fail. What is needed is small: three system calls and a struct.

Events are a doorbell only. They can be lost (the queue overflows) or never come (another machine wrote the file); the
watcher scans as well, and this class says when it must.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
import sys
from dataclasses import dataclass
from typing import Final

# From <sys/inotify.h>; the kernel's interface, the same on every machine.
CLOSE_WRITE: Final = 0x8
MOVED_FROM: Final = 0x40
MOVED_TO: Final = 0x80
CREATE: Final = 0x100
DELETE_SELF: Final = 0x400
MOVE_SELF: Final = 0x800
OVERFLOW: Final = 0x4000
IGNORED: Final = 0x8000
IS_DIRECTORY: Final = 0x40000000
_ONLY_DIRECTORY: Final = 0x01000000
_DONT_FOLLOW: Final = 0x02000000

#: What is asked for. Not IN_MODIFY: a growing file would ring thousands of times and never say anything useful.
_MASK: Final = CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE_SELF | MOVE_SELF | _ONLY_DIRECTORY

_HEAD: Final = struct.Struct("=iIII")  # watch, mask, cookie, length of the name

#: Bytes taken from the kernel in one call: about 2,000 events with names of usual length.
_BUFFER: Final = 1 << 17


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened to ``name`` in ``folder`` (as ``os.fsdecode`` gives them); empty: to the folder itself."""

    folder: str
    name: str
    mask: int

    @property
    def path(self) -> str:
        """The path it happened to."""
        return f"{self.folder.rstrip('/')}/{self.name}" if self.name else self.folder


class Inotify:
    """One inotify instance and the folders it watches.

    Raises:
        OSError: the system has none, or no more of them (``fs.inotify.max_user_instances``).
    """

    def __init__(self) -> None:
        if not sys.platform.startswith("linux"):
            raise OSError(errno.ENOSYS, "this system has no inotify")
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._folders: dict[int, str] = {}
        self._watches: dict[str, int] = {}
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)

    def __len__(self) -> int:
        return len(self._watches)

    def add(self, folder: str, *, follow: bool = False) -> None:
        """Watch ``folder`` (again: harmless, and right where another folder now has that name).

        Raises:
            OSError: it is gone, may not be read, or the limit of watches is reached (ENOSPC:
                ``fs.inotify.max_user_watches``).
        """
        mask = _MASK if follow else _MASK | _DONT_FOLLOW
        watch = self._libc.inotify_add_watch(self._descriptor, os.fsencode(folder), mask)
        if watch < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), folder)
        before = self._watches.get(folder)
        if before is not None and before != watch:
            self._folders.pop(before, None)
        stale = self._folders.get(watch)
        if stale is not None and stale != folder:
            self._watches.pop(stale, None)
        self._folders[watch] = folder
        self._watches[folder] = watch

    def drop(self, folder: str) -> None:
        """Watch neither ``folder`` nor anything below it any longer: it has been moved away or deleted."""
        below = folder + "/"
        for name in [name for name in self._watches if name == folder or name.startswith(below)]:
            watch = self._watches.pop(name)
            self._folders.pop(watch, None)
            self._libc.inotify_rm_watch(self._descriptor, watch)

    def wait(self, timeout: float) -> bool:
        """Sleep in the kernel until there is an event, at most ``timeout`` seconds; whether there is one."""
        return bool(self._poll.poll(max(0.0, timeout) * 1000))

    def read(self) -> tuple[list[Event], bool]:
        """All events that are there, oldest first, and whether some were lost, so that a scan is needed."""
        events: list[Event] = []
        lost = False
        while True:
            try:
                data = os.read(self._descriptor, _BUFFER)
            except BlockingIOError:
                return events, lost
            lost = self._parse(data, events) or lost

    def _parse(self, data: bytes, events: list[Event]) -> bool:
        lost = False
        position = 0
        while position < len(data):
            watch, mask, _, length = _HEAD.unpack_from(data, position)
            position += _HEAD.size
            name = data[position : position + length].rstrip(b"\0")
            position += length
            if mask & OVERFLOW:
                lost = True
                continue
            folder = self._folders.get(watch)
            if mask & IGNORED:
                if folder is not None:
                    del self._folders[watch]
                    if self._watches.get(folder) == watch:
                        del self._watches[folder]
                continue
            if folder is not None:
                events.append(Event(folder, os.fsdecode(name), mask))
        return lost

    def close(self) -> None:
        """Give everything back to the kernel. Closing twice is allowed."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
