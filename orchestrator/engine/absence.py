"""Since when something has been gone, counted only while everybody who may know of it could be asked."""

from __future__ import annotations


class Absence:
    """For grace periods. A witness that could not be asked lets none pass: each begins anew after that.

    Kept in memory only: a daemon that was started anew waits the whole period once more, which harms nothing.
    """

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def since(self, key: str, now: float, *, gone: bool) -> float | None:
        """Since when ``key`` has been gone (s since 1970), by what is known now; None if it is not, or may not be."""
        if not gone:
            self._since.pop(key, None)
            return None
        # a clock that has been put back must not make it wait for hours
        self._since[key] = min(now, self._since.get(key, now))
        return self._since[key]

    def shift(self, by: float) -> None:
        """The clock was set by so many seconds: what has been gone for a minute has been so still."""
        self._since = {key: since + by for key, since in self._since.items()}

    def forget(self, key: str) -> None:
        """Nobody asks any more."""
        self._since.pop(key, None)
