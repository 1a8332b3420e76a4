"""The watcher: finds the files below some folders, and hands each out once it is closed.

The file system itself is the state. A scan finds whatever is there; events only make it quick, and may be lost. What is
remembered is a cache: per settled file one 64-bit number, per waiting file what it looked like and since when. Killing
the process loses nothing but a scan's time.

    watcher = Watcher(settings, ended)
    while not stop.is_set():
        for found in watcher.take(500):
            ...                       # put it into the database
            watcher.settle(found)     # or watcher.again(found, seconds)
        watcher.wait(60.0, stop)
"""

from __future__ import annotations

import heapq
import logging
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator
from threading import Event as Stop
from typing import Final

from orchestrator.filenames import text_of
from procs.register import inotify, mounts
from procs.register.closed import ClosedCheck, Look, Names
from procs.register.found import Found, Root, Waiting, fingerprint, outermost
from procs.register.settings import RegisterSettings

#: Most paths that events may leave waiting before they are thrown away for a scan: 10,000 take about 3 MB.
MOST_RUNG: Final = 10_000

#: Entries after which a scan lets events have their turn: about 2 ms of work.
SCAN_SLICE: Final = 500

#: A polled folder is scanned for at most this share of the time, whatever ``poll`` says: a big NFS tree stays usable.
SCAN_SHARE: Final = 0.1

#: Longest sleep before the stop sign is looked at, s.
NAP: Final = 0.2

#: Most folders with problems that are remembered by name (each is logged once).
MOST_PROBLEMS: Final = 1000


class Watcher:
    """Watches ``settings.directories``; see the module for the use.

    Args:
        settings: what to take and when.
        ended: whether the file at a path ends with its format's end of run.
        monotonic: seconds that never jump. ``wall``: seconds since 1970.
        has_events: whether events can be relied on in a folder; replaced in tests.
    """

    def __init__(
        self,
        settings: RegisterSettings,
        ended: Callable[[str], bool],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        has_events: Callable[[str], bool] = mounts.has_events,
        log: logging.Logger | None = None,
    ) -> None:
        self._settings = settings
        self._names = Names(settings)
        self._check = ClosedCheck(settings, ended, self._names)
        self._monotonic = monotonic
        self._wall = wall
        self._has_events = has_events
        self._log = log or logging.getLogger("register")
        self._roots = [Root(path, due=monotonic()) for path in outermost(settings.directories)]
        self._waiting: dict[str, Waiting] = {}
        self._due: list[tuple[float, str]] = []
        self._rung: dict[str, None] = {}
        self._walks: deque[Iterator[Found | None]] = deque()
        self._device_events: dict[int, bool] = {}
        self.problems: dict[str, str] = {}
        self._inotify: inotify.Inotify | None = None
        if settings.events != "never" and self._roots:
            try:
                self._inotify = inotify.Inotify()
            except OSError as error:
                self._log.warning("no file system events (%s): folders are polled", error.strerror)

    # What the registrar calls

    def take(self, limit: int) -> list[Found]:
        """At most ``limit`` files to register now; never sleeps. Events come first, then what is due, then scans."""
        found: list[Found] = []
        self._read_events()
        now = self._monotonic()
        while self._rung and len(found) < limit:
            path = next(iter(self._rung))
            del self._rung[path]
            self._look_at(path, now, found, rung=True)
        while self._due and self._due[0][0] <= now and len(found) < limit:
            _, path = heapq.heappop(self._due)
            waiting = self._waiting.get(path)
            if waiting is not None:
                waiting.due = None
                self._look_at(path, now, found, rung=False)
        while self._walks and len(found) < limit and not self._step(self._walks[0], found, limit):
            self._walks.popleft()
        for root in self._roots:
            if len(found) >= limit:
                break
            if root.walk is None and root.due <= now:
                self._begin(root, now)
            if root.walk is not None and not self._step(root.walk, found, limit):
                self._finish(root)
        return found

    def settle(self, found: Found) -> None:
        """``found`` is dealt with: it is handed out again only when the file changes."""
        if not found.closed:
            waiting = self._waiting.get(found.path)
            if waiting is not None:
                waiting.announced, waiting.handed = True, False
            return
        self._waiting.pop(found.path, None)
        root = self._root_of(found.path)
        if root is not None:
            mark = fingerprint(found.path, found.look.inode, found.look.size, found.look.mtime_ns)
            root.settled.add(mark)
            if root.walk is not None:
                root.fresh.add(mark)

    def again(self, found: Found, after: float, reason: str = "") -> None:
        """``found`` could not be dealt with: hand it out again in ``after`` seconds, or when it changes."""
        now = self._monotonic()
        waiting = self._waiting.setdefault(found.path, Waiting(found.look, found.since))
        root = self._root_of(found.path)
        waiting.scan = root.scans if root else 0
        waiting.handed = False
        waiting.reason = reason or found.reason
        waiting.held_until = now + after
        self._ring_at(found.path, waiting, now + after)

    @property
    def busy(self) -> bool:
        """Whether ``take`` has something to go on with at once."""
        return bool(self._rung or self._walks or any(root.walk is not None for root in self._roots))

    @property
    def waiting(self) -> dict[str, str]:
        """The files that are not closed yet, each with what is waited for."""
        return {path: waiting.reason for path, waiting in self._waiting.items()}

    @property
    def waiting_count(self) -> int:
        """How many files are not closed yet."""
        return len(self._waiting)

    @property
    def watched(self) -> int:
        """How many folders give events."""
        return len(self._inotify) if self._inotify is not None else 0

    def sweep(self) -> None:
        """Let the next ``take`` scan every folder, whatever the time."""
        for root in self._roots:
            root.due = self._monotonic()

    def wait(self, timeout: float, stop: Stop) -> None:
        """Sleep until there may be something to take, ``stop`` is set or ``timeout`` seconds are over."""
        end = self._monotonic() + timeout
        while not stop.is_set() and not self.busy:
            now = self._monotonic()
            left = min([end, *(root.due for root in self._roots), *(due for due, _ in self._due[:1])]) - now
            if left <= 0:
                return
            if self._inotify is None:
                stop.wait(min(left, NAP))
            elif self._inotify.wait(min(left, NAP)):
                return

    def close(self) -> None:
        """Give the watches back. Nothing else needs to be done at the end."""
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None

    # Events

    def _read_events(self) -> None:
        if self._inotify is None:
            return
        events, lost = self._inotify.read()
        for event in events:
            self._hear(event)
        if lost or len(self._rung) > MOST_RUNG or len(self._walks) > MOST_RUNG:
            self._log.info("more events than can be followed one by one: scanning instead")
            self._rung.clear()
            self._walks.clear()
            for root in self._roots:
                root.walk = None
                root.fresh = set()
            self.sweep()

    def _hear(self, event: inotify.Event) -> None:
        assert self._inotify is not None
        root = self._root_of(event.folder)
        if root is None:
            return
        if not event.name:
            if event.folder == root.path:  # the root itself is gone, moved or unmounted; others: their parent tells
                self._inotify.drop(root.path)
                root.due = self._monotonic()
            return
        if event.mask & inotify.IS_DIRECTORY:
            if event.mask & inotify.MOVED_FROM:
                self._inotify.drop(event.path)
            elif event.mask & (inotify.CREATE | inotify.MOVED_TO) and not self._names.temporary(event.name):
                self._walks.append(self._walk(root, event.path))
            return
        if event.mask & inotify.MOVED_FROM:
            return
        marked = self._names.marked(event.name)
        if marked is not None:
            self._ring(root, f"{event.folder}/{marked}", marked)
            return
        if event.mask & inotify.CREATE:
            before = self._names.neighbour(event.name, -1)
            if before is not None and f"{event.folder}/{before}" in self._waiting:
                self._ring(root, f"{event.folder}/{before}", before)
        self._ring(root, event.path, event.name)

    def _ring(self, root: Root, path: str, name: str) -> None:
        if self._names.wanted(name, path[len(root.prefix) :]):
            self._rung[path] = None

    # Looking at one file

    def _look_at(self, path: str, now: float, found: list[Found], *, rung: bool) -> None:
        """Look at the file at ``path`` and add it to ``found`` if it is ready."""
        root = self._root_of(path)
        try:
            status = os.lstat(path)
        except OSError:
            self._waiting.pop(path, None)  # gone, or its folder is away: the next scan sees it if it comes back
            return
        if root is not None and stat.S_ISREG(status.st_mode):
            one = self._examine(root, path, status, now, rung)
            if one is not None:
                found.append(one)

    def _examine(self, root: Root, path: str, status: os.stat_result, now: float | None, rung: bool) -> Found | None:
        mark = fingerprint(path, status.st_ino, status.st_size, status.st_mtime_ns)
        if mark in root.settled:
            if root.walk is not None:
                root.fresh.add(mark)
            self._waiting.pop(path, None)
            return None
        waiting = self._waiting.get(path)
        if waiting is not None and waiting.handed:
            return None
        look = Look.of(status)
        now = self._monotonic() if now is None else now
        if waiting is None or not waiting.look.same_content(look):
            announced = waiting is not None and waiting.announced
            due = waiting.due if waiting is not None else None
            waiting = Waiting(look, now, due=due, announced=announced)
            self._waiting[path] = waiting
        waiting.scan = root.scans
        if now < waiting.held_until:
            return None
        verdict = self._check(path, look, now - waiting.since, self._wall())
        if verdict.closed:
            waiting.handed, waiting.reason = True, verdict.reason
            return Found(path, look, True, verdict.reason, rung, waiting.since)
        waiting.look, waiting.reason = look, verdict.reason
        if verdict.after is not None:
            self._ring_at(path, waiting, now + verdict.after)
        if self._settings.register_open and not waiting.announced:
            waiting.handed = True
            return Found(path, look, False, verdict.reason, rung, waiting.since)
        return None

    def _ring_at(self, path: str, waiting: Waiting, due: float) -> None:
        """Look at ``path`` again at ``due``. An earlier alarm is kept: when it rings, the file is asked anew."""
        if waiting.due is None or due < waiting.due:
            waiting.due = due
            heapq.heappush(self._due, (due, path))

    # Scans

    def _begin(self, root: Root, now: float) -> None:
        root.scans += 1
        root.started = now
        root.files = 0
        root.polled = self._inotify is None
        root.fresh = set()
        root.walk = self._walk(root, root.path)

    def _finish(self, root: Root) -> None:
        now = self._monotonic()
        root.walk = None
        root.settled, root.fresh = root.fresh, set()
        root.seconds = now - root.started
        interval = self._settings.poll if root.polled else self._settings.rescan
        root.due = now + max(interval, root.seconds / SCAN_SHARE)
        for path in [p for p, w in self._waiting.items() if w.scan < root.scans and p.startswith(root.prefix)]:
            if not os.path.lexists(path):
                del self._waiting[path]

    def _step(self, walk: Iterator[Found | None], found: list[Found], limit: int) -> bool:
        """Go on with a scan until its slice is over, or ``found`` is full; whether it has more."""
        for one in walk:
            if one is None:
                return True
            found.append(one)
            if len(found) >= limit:
                return True
        return False

    def _walk(self, root: Root, top: str) -> Iterator[Found | None]:
        """Every file to register below ``top``; None now and then, to let others have their turn."""
        folders = [top]
        count = 0
        while folders:
            folder = folders.pop()
            try:
                self._listen(root, folder)
                with os.scandir(folder) as entries:
                    for entry in entries:
                        count += 1
                        if count % SCAN_SLICE == 0:
                            yield None
                        one = self._entry(root, entry, folders)
                        if one is not None:
                            yield one
            except OSError as error:
                self._trouble(root, folder, error)
            else:
                if self.problems.pop(folder, None) is not None:
                    self._log.info("folder %r can be read again", text_of(folder))

    def _entry(self, root: Root, entry: os.DirEntry[str], folders: list[str]) -> Found | None:
        name, path = entry.name, entry.path
        if entry.is_dir(follow_symlinks=False):
            if not self._names.temporary(name):
                folders.append(path)
            return None
        if not self._names.wanted(name, path[len(root.prefix) :]) or not entry.is_file(follow_symlinks=False):
            return None
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError:
            return None  # renamed or deleted since the folder was read
        root.files += 1
        return self._examine(root, path, status, None, False)

    def _listen(self, root: Root, folder: str) -> None:
        """Watch ``folder`` for events, before it is read, so that nothing falls in between; or have it polled."""
        if self._inotify is None or not self._relied_on(folder):
            self._poll(root)
            return
        try:
            self._inotify.add(folder, follow=folder == root.path)
        except OSError as error:
            self._poll(root)
            if isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError):
                raise
            if "watches" not in self.problems:
                self.problems["watches"] = str(error)
                self._log.warning(
                    "folder %r gives no events (%s): it is polled every %g s; raise fs.inotify.max_user_watches",
                    text_of(folder), error.strerror, self._settings.poll,
                )  # fmt: skip

    def _poll(self, root: Root) -> None:
        root.polled = True
        root.due = min(root.due, self._monotonic() + self._settings.poll)

    def _relied_on(self, folder: str) -> bool:
        if self._settings.events == "always":
            return True
        device = os.stat(folder).st_dev  # noqa: PTH116 - text with surrogates
        if device not in self._device_events:
            self._device_events[device] = self._has_events(folder)
        return self._device_events[device]

    def _trouble(self, root: Root, folder: str, error: OSError) -> None:
        if folder != root.path and isinstance(error, FileNotFoundError | NotADirectoryError):
            self.problems.pop(folder, None)
            return  # deleted while the scan was on its way to it: nothing is wrong
        self._poll(root)
        reason = error.strerror or str(error)
        if self.problems.get(folder) != reason:
            if len(self.problems) < MOST_PROBLEMS:
                self.problems[folder] = reason
            self._log.warning("folder %r cannot be read (%s): trying again", text_of(folder), reason)

    def _root_of(self, path: str) -> Root | None:
        for root in self._roots:
            if path == root.path or path.startswith(root.prefix):
                return root
        return None
