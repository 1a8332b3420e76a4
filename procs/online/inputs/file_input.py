"""What every input of files has: which files, a clock, how it waits, and settings that are looked at before a start."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.errors import SettingsError
from orchestrator.online.module import Input
from procs.online.inputs import files as listing

PERIODS = ("poll", "settle", "quiet")  # settings that are times, s
LONGEST = 1e6  # s of such a time; more is a mistake


class FileInput(Input):
    """The base: a subclass reads the files of ``self._files``.

    Args:
        clock: unix seconds.
        wait: waits so many s.

    Raises:
        SettingsError: a setting cannot be used.
    """

    def __init__(
        self,
        settings: Mapping[str, Any] | None = None,
        log: Any = None,
        *,
        clock: Callable[[], float] = time.time,
        wait: Callable[[float], Any] = time.sleep,
    ) -> None:
        super().__init__(settings, log)
        who = type(self).__name__
        for name in PERIODS:
            if not _is_period(self.settings.get(name, 0.0)):
                given = self.settings[name]
                raise SettingsError(f"{who}: {name} is a time in seconds, from 0 to a million, not {given!r}")
        events = self.settings.get("events", 1)
        if isinstance(events, bool) or not isinstance(events, int) or events < 1:
            raise SettingsError(f"{who}: `events` is how many of them make a batch, 1 or more, not {events!r}")
        self._files = listing.Listing(self.settings, who)
        self._clock, self._wait = clock, wait

    def check(self) -> str:
        """Which files there are. Raises SettingsError where there are none, or no folder for them."""
        return self._files.check(bool(self.settings["grow"]))

    def _idle(self) -> None:
        self._wait(float(self.settings["poll"]))


def _is_period(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= LONGEST
