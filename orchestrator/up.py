"""A whole site, up: lock, leftovers, database, couchapp, daemons, and an orderly end.

``up`` and ``demo`` both run a site through this; they differ in what they show meanwhile.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Collection, Mapping
from types import FrameType, TracebackType
from typing import Any

from orchestrator import children
from orchestrator.chain import Chain
from orchestrator.errors import Conflict, SettingsError
from orchestrator.runtime import FOLDER, Lock, end_leftovers
from orchestrator.settings import Settings
from orchestrator.supervise import Supervisor

TICK = 0.1  # s between two looks at the children; a death is noticed within this


class Signals:
    """Counts Ctrl-C, SIGTERM and SIGHUP while it is entered, and lets the main thread wait for them.

    The handler only counts: the wait is on a pipe that the interpreter writes to, so nothing can deadlock.
    """

    def __init__(self) -> None:
        self.count = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._read)
        os.close(self._write)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.count += 1

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until a signal comes. True if any has come so far."""
        if select.select([self._read], [], [], max(0.0, seconds))[0]:
            os.read(self._read, 4096)
        return self.count > 0


def stop_in_order(supervisor: Supervisor, signals: Signals) -> None:
    """End all children in order; a further signal meanwhile ends everything at once. Returns when nothing runs."""
    before = signals.count
    supervisor.stop(time.monotonic())
    while not supervisor.over:
        supervisor.tick(time.monotonic())
        signals.wait(TICK / 2)
        if signals.count > before:
            before = signals.count
            supervisor.stop(time.monotonic())
    supervisor.tick(time.monotonic())


class Site:
    """A site that is being run by this process: ``start``, then ``tick`` often, then ``finish``."""

    def __init__(
        self,
        settings: Settings,
        chain: Chain,
        environ: Mapping[str, str],
        *,
        without: Collection[str] = (),
    ) -> None:
        self.settings = settings
        self.chain = chain
        self._environ = environ
        self._without = without
        self.runtime = settings.folder / FOLDER
        self._lock = Lock(self.runtime)
        self.leftovers: list[str] = []
        self.embedded = False
        self.supervisor: Supervisor | None = None

    def start(self) -> Supervisor:
        """Take the lock, clean up, and make the supervisor; nothing is running yet when this returns.

        Raises:
            Conflict: the site is up already, or a port is taken.
            SettingsError: a folder cannot be made.
            DatabaseError: a database elsewhere does not answer, or refuses us or the couchapp.
        """
        self._make_folders()
        self._lock.take()
        try:
            self.leftovers = end_leftovers(self.runtime)
            page_wanted = "page" not in self._without
            if page_wanted and not children.port_is_free(self.settings.web_host, self.settings.web_port):
                raise Conflict(
                    f"the page's port {self.settings.web_port} on {self.settings.web_host} is taken by another "
                    "program; set another `web_port`, or end that program"
                )
            self.embedded = "database" not in self._without and children.wants_embedded(self.settings)
            if not self.embedded:
                children.prepare(self.settings, self.chain, self._environ)
            specs = children.specs(
                self.settings, self.chain, self._environ,
                embedded=self.embedded, without=self._without
            )  # fmt: skip
            self.supervisor = Supervisor(
                specs,
                logs=self.settings.logs,
                runtime=self.runtime,
                drain=self.settings.drain,
                log_size=self.settings.log_size * 1e6,
                about={
                    "folder": str(self.settings.folder),
                    "url": self.settings.url,
                    "page": children.page_url(self.settings) if page_wanted else None,
                    "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                },
            )
        except BaseException:
            self._lock.release()
            raise
        return self.supervisor

    def _make_folders(self) -> None:
        for name in ("data", "spool", "logs"):
            path = self.settings.value(name)
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise SettingsError(f"the folder {path} ({name}) cannot be made: {error.strerror}") from None
            if not os.access(path, os.W_OK | os.X_OK):
                raise SettingsError(f"the folder {path} ({name}) cannot be written: give this account write access")
        for path in self.settings.watch:
            if not path.is_dir():
                raise SettingsError(f"the folder {path} (watch) is not there: make it, or correct `watch`")

    def tick(self) -> None:
        """Let the supervisor work."""
        if self.supervisor is not None:
            self.supervisor.tick(time.monotonic())

    def finish(self, signals: Signals) -> None:
        """Stop all in order; a further signal meanwhile ends everything at once. Returns when nothing runs."""
        supervisor = self.supervisor
        if supervisor is None:
            return
        stop_in_order(supervisor, signals)
        self._lock.release()
