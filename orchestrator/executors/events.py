"""What a pool of workers says of the tasks that it was given: each is in exactly one Report or Returned in the end."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.reports import Report
from orchestrator.runner import Task

#: The class of a report of an attempt that was ended because its claim could not be renewed: no fault of the step's.
LOST = "lost"


@dataclass
class Progressed:
    """A step reported how far it is: ``fraction`` of 1, and words of its own."""

    attempt: str
    fraction: float
    text: str


@dataclass
class Returned:
    """Tasks that were not begun because their worker died: to be handed out again.

    ``unborn`` says why no worker can be made at the moment: then they are better given back.
    """

    tasks: list[Task]
    unborn: str = ""


@dataclass
class BatchDone:
    """Every report of a batch has been handed over: its spool file may go once these attempts are recorded."""

    name: str
    attempts: frozenset[str]


Event = Report | Progressed | Returned | BatchDone
