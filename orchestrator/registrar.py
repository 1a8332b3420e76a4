"""The registrar: every closed raw file gets its document, once.

The file system is the state, the database the record; the registrar keeps nothing of its own. Killed anywhere it begins
again with a scan, and what is there already is found by its id. Files are handled in groups: one lookup and one write a
group. A file that an event announced is written without the lookup, since it is new; a conflict then asks for it.

    registrar = Registrar(database, settings)
    registrar.run(stop)            # the daemon
    registrar.once()               # one look at everything
    register_paths(database, [Path("ma22a000_003")], settings)     # files named by a person
"""

from __future__ import annotations

import logging
import os
import random
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

from orchestrator import faults
from orchestrator.errors import DatabaseError, Unauthorised
from orchestrator.filenames import text_of
from orchestrator.registration import Group, Store, Summary
from procs.register.closed import Look, open_for_writing
from procs.register.document import Maker
from procs.register.found import Found
from procs.register.readers import Formats, default_formats, run_has_ended
from procs.register.settings import RegisterSettings
from procs.register.watch import Watcher

#: First and longest pause after the database did not answer, s. The pause doubles and is drawn at random below it.
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0

#: Longest sleep of the daemon when nothing happens, s. Events, due files and scans end it sooner.
LONGEST_SLEEP: Final = 60.0


class Registrar:
    """Watches the folders of ``settings`` and registers what appears.

    Args:
        database: where the documents go.
        settings: what to register.
        formats: the raw formats that are known; default: those of this package.
        wall: seconds since 1970. ``monotonic``: seconds that never jump.
        draw: a random number from 0 to 1, for the pauses while the database is away.
        maker: makes the documents; default: one of ``settings``.
    """

    def __init__(
        self,
        database: Store,
        settings: RegisterSettings,
        *,
        formats: Formats | None = None,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
        hostname: str | None = None,
        maker: Maker | None = None,
        log: logging.Logger | None = None,
    ) -> None:
        known = default_formats() if formats is None else formats
        self._settings = settings
        self._wall = wall
        self._draw = draw
        self._log = log or logging.getLogger("register")
        made_by = maker or Maker(settings, known, hostname or socket.gethostname())
        self._group = Group(database, made_by, self._log)
        self.watcher = Watcher(
            settings, lambda path: run_has_ended(path, known), monotonic=monotonic, wall=wall, log=self._log
        )

    def step(self, summary: Summary) -> int:
        """Take one group of files and register it; how many files that were.

        Raises:
            Unavailable: the database is away; the files are handed out again.
            Unauthorised: the login is refused; trying again would not help.
        """
        found = self.watcher.take(self._settings.batch)
        if not found:
            return 0
        faults.point("register.found")
        try:
            handled = self._group.register(found, self._wall(), summary)
        except DatabaseError:
            for one in found:
                self.watcher.again(one, 0.0, "the database could not be asked")
            raise
        for done in handled:
            if done.retry is None:
                self.watcher.settle(done.found)
            else:
                self.watcher.again(done.found, done.retry, done.reason)
        return len(found)

    def once(self) -> Summary:
        """Look at every folder once and register every file that is closed.

        Raises:
            Unavailable, Unauthorised, NotFound: the database; what was registered until then stays.
        """
        summary = Summary()
        self.watcher.sweep()
        while self.step(summary) or self.watcher.busy:
            pass
        summary.waiting = self.watcher.waiting_count
        for folder, reason in sorted(self.watcher.problems.items()):
            summary.problem(f"folder {text_of(folder)}: {reason}")
        return summary

    def run(self, stop: threading.Event) -> None:
        """Register files as they are closed, until ``stop`` is set. The database may go away and come back.

        Raises:
            Unauthorised: the login is refused. Any other answer of the database is waited out.
        """
        failures = 0
        self._log.info("watching %s", ", ".join(map(repr, self._settings.directories)) or "nothing")
        while not stop.is_set():
            summary = Summary()
            try:
                taken = self.step(summary)
            except Unauthorised:
                raise
            except DatabaseError as error:
                failures += 1
                pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures, 10)) * (0.5 + self._draw() / 2)
                if failures == 1:
                    self._log.warning("%s; files wait where they are, trying again", error)
                stop.wait(pause)
                continue
            if taken:
                if failures:
                    self._log.info("the database is back after %d attempts", failures)
                failures = 0
                self._log.info("%s", summary)
            elif not self.watcher.busy:
                self.watcher.wait(LONGEST_SLEEP, stop)

    def close(self) -> None:
        """Give the watches back."""
        self.watcher.close()


def register_paths(
    database: Store,
    paths: Iterable[str | os.PathLike[str]],
    settings: RegisterSettings,
    now: float | None = None,
    *,
    formats: Formats | None = None,
    hostname: str | None = None,
    log: logging.Logger | None = None,
) -> Summary:
    """Register files that a person named, and those in folders that a person named, through the same code.

    A person's word counts as the sign that a file is closed, unless a process here has it open for writing; names are
    taken as they are (``include``, ``exclude`` and ``temporary`` hold for what is found in a folder). A file of no
    known format becomes bad rather than being left out silently.

    Raises:
        Unavailable, Unauthorised, NotFound: the database.
    """
    log = log or logging.getLogger("register")
    named = settings.model_copy(update={"unknown_format": "bad"})
    known = default_formats() if formats is None else formats
    time_now = time.time() if now is None else now
    summary = Summary()
    maker = Maker(named, known, hostname or socket.gethostname())
    group = Group(database, maker, log)
    batch: list[Found] = []

    def flush() -> None:
        for handled in group.register(batch, time_now, summary):
            if handled.retry is not None and not handled.trouble:
                summary.waiting += 1
                summary.problem(f"{text_of(handled.found.path)}: {handled.reason}")
        batch.clear()

    folders: list[str] = []
    for given in paths:
        path = os.path.abspath(os.fspath(given))  # noqa: PTH100 - links stay links
        try:
            status = os.stat(path)  # noqa: PTH116 - a link that a person names is followed
        except OSError as error:
            summary.errors += 1
            summary.problem(f"{text_of(path)}: {error.strerror}")
            continue
        if stat.S_ISDIR(status.st_mode):
            folders.append(path)
        elif not stat.S_ISREG(status.st_mode):
            summary.errors += 1
            summary.problem(f"{text_of(path)}: is no regular file")
        elif settings.check_writers and open_for_writing(path):
            summary.waiting += 1
            summary.problem(f"{text_of(path)}: a process has it open for writing; register it when it is closed")
        else:
            real = os.path.realpath(path)
            batch.append(Found(real, Look.of(status), True, "named by a person", False))
        if len(batch) >= settings.batch:
            flush()
    if batch:
        flush()
    if folders:
        # As the daemon does it, once: everything there counts as quiet.
        found_there = settings.model_copy(
            update={
                "directories": folders,
                "closed_by": ["quiet"],
                "quiet": 0.0,
                "events": "never",
                "register_open": False,
            }
        )
        plain_maker = Maker(settings, known, hostname or socket.gethostname())
        registrar = Registrar(database, found_there, formats=known, wall=lambda: time_now, maker=plain_maker, log=log)
        part = registrar.once()
        registrar.close()
        for key, value in vars(part).items():
            setattr(summary, key, getattr(summary, key) + value)
    return summary
