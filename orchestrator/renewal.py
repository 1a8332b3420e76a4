"""A poller that cannot renew its claims stops its workers before others may take the claims over.

A poller's heartbeat is what others on other machines see of it: when it stands still for a lease they take its claims.
A poller that hangs, is stopped (SIGSTOP), sleeps with its host or is cut off from the database must therefore have
ended its steps by then. It cannot do so itself while it hangs, so a small process beside it does: it is told of every
beat, with the time until which that one holds, and of the workers; when the time has come it kills them.

The time is CLOCK_BOOTTIME, which goes on while a machine sleeps and is never set: no wall clock decides anything.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from orchestrator.lifeline import die_with_parent, orphaned
from orchestrator.lines import line_of, value_of

log = logging.getLogger(__name__)

#: Workers are ended when this part of a lease has gone by without a beat: the rest is for the killing itself, and for
#: what two machines' clocks differ in their rates. A beat comes four times in a lease, so two may fail without harm.
HELD_FOR = 0.75
#: How often the guard looks at the clock (s): after a sleep of the machine no step goes on for longer than this.
LOOK = 0.2


def boottime() -> float:
    """Seconds since the machine was started, its sleep included (on systems without that clock: without it)."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass
class Renewal:
    """How long the claims of this poller are surely its own, and the process that sees to it.

    ``lease`` in s. Nothing is ended unless the poller is ``watched``: where nobody sees it by its heartbeat alone (all
    others are on this machine and see its lock) nobody takes anything over, and steps go on while the database is away.
    ``void`` are the attempts that were let go of.
    """

    poller: str
    lease: float
    watched: bool = False
    until: float = 0.0
    void: frozenset[str] = frozenset()
    _told: tuple[float, frozenset[int]] = (0.0, frozenset())
    _guard: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def renewed(self, began: float) -> None:
        """A beat is written; its request was begun at the boot time ``began``."""
        self.until = began + HELD_FOR * self.lease

    def expired(self) -> bool:
        """Whether others may think that this poller is dead."""
        return self.watched and 0.0 < self.until < boottime()

    @property
    def why(self) -> str:
        """The reason of attempts that were ended for it."""
        return f"its poller {self.poller} could not renew its claims in time and stopped its workers"

    def let_go(self, attempts: Iterable[str]) -> None:
        """No beat for too long: others may take these attempts' claims over, so none of them may go on or begin."""
        self.void, self.until = frozenset(attempts), 0.0
        log.error("no heartbeat was written for most of a lease: %d attempts are let go of", len(self.void))

    def tell(self, workers: Collection[int]) -> None:
        """Let the guard know how things stand, if anything has changed. ``workers`` lead their process groups."""
        now = (self.until if self.watched and workers else 0.0, frozenset(workers))
        if now == self._told or (self._guard is None and not now[0]):
            return
        if self._guard is None or self._guard.poll() is not None:
            self._guard = subprocess.Popen(
                [sys.executable, "-P", "-m", "orchestrator.renewal", str(os.getpid())],
                stdin=subprocess.PIPE, bufsize=0, start_new_session=True,
            )  # fmt: skip
        assert self._guard.stdin is not None
        try:
            self._guard.stdin.write(line_of({"until": now[0], "workers": sorted(now[1])}))
            self._told = now
        except OSError as error:
            log.error("the guard of this poller's claims does not listen (%s); another one is made", error)
            self._end_guard()

    def close(self) -> None:
        """Nothing runs any more."""
        self._end_guard()

    def _end_guard(self) -> None:
        guard, self._guard, self._told = self._guard, None, (0.0, frozenset())
        if guard is not None:
            guard.kill()
            guard.wait()
            assert guard.stdin is not None
            guard.stdin.close()


def guard(descriptor: int) -> None:
    """The guard's loop: reads what the poller tells, and kills its workers once the last beat holds no longer."""
    until, workers = 0.0, list[int]()
    unread = b""
    while True:
        ready, _, _ = select.select([descriptor], [], [], LOOK)
        if ready:
            chunk = os.read(descriptor, 65536)
            if not chunk:
                return  # the poller has ended, and its workers with it
            *lines, unread = (unread + chunk).split(b"\n")
            for line in lines:
                told = value_of(line)
                until, workers = float(told["until"]), [int(pid) for pid in told["workers"]]
        if 0.0 < until < boottime():
            print(f"no heartbeat was written in time: ending {len(workers)} workers", file=sys.stderr, flush=True)
            for pid in workers:
                # Its number is its own: the poller, whose child it is, has not been able to wait for it.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)
            until, workers = 0.0, []


def main(arguments: list[str]) -> int:
    """Entry of the process: ``python -m orchestrator.renewal <parent pid>``."""
    die_with_parent()
    if orphaned(int(arguments[0])):
        return 0
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at a terminal is the poller's to answer
    guard(0)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
