"""What the pure transform wants done outside: talk to workers, and write down. Carried out by the coordinator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orchestrator.online.dispatch import Task
from orchestrator.online.run import Run
from orchestrator.online.spill import EndOfRun
from orchestrator.online.store import Outcome


@dataclass(frozen=True, slots=True)
class Configure:
    """Send the modules and versions to a worker."""

    worker: bytes


@dataclass(frozen=True, slots=True)
class Refuse:
    """Tell a worker why it is not wanted."""

    worker: bytes
    why: str


@dataclass(frozen=True, slots=True)
class Birth:
    """Tell a worker of a run."""

    worker: bytes
    run: Run


@dataclass(frozen=True, slots=True)
class Death:
    """Tell a worker that a run is over."""

    worker: bytes


@dataclass(frozen=True, slots=True)
class Give:
    """Send a spill to a worker."""

    worker: bytes
    task: Task


@dataclass(frozen=True, slots=True)
class Open:
    """Find out what the store has of a run; answer with ``opened``."""

    run: Run


@dataclass(frozen=True, slots=True)
class Begin:
    """Write down that a run has begun; answer with ``begun``. ``position``: of the input, safe once that is done."""

    run: Run
    position: Any


@dataclass(frozen=True, slots=True)
class Keep:
    """Put an outcome into the run's store; answer with ``stored``."""

    run: Run
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class End:
    """Write down that a run has ended; answer with ``ended``."""

    run: Run
    end: EndOfRun
    position: Any


Command = Configure | Refuse | Birth | Death | Give | Open | Begin | Keep | End
