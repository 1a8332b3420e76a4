"""What flows through the online system: spills, and the marks of a run's start and end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

#: Numbers of one run's spills, from 0. What a document's id can be made of, and more than any run has.
MOST_SPILLS = 10**9


@dataclass(slots=True)
class Spill:
    """One spill of one run.

    ``run`` is the run's name as the DAQ has it (``"6008"``). ``number`` identifies the spill in its run: from 0, given
    by the DAQ or counted by the input, the same each time the same data are read. ``time``: when the DAQ took it,
    unix seconds. ``taken``: when the input had it, unix seconds. ``data``: strings to JSON values, bytes, numpy and
    awkward arrays, in dicts and lists as deep as wanted; modules add to it under names of their own. ``errors``: by
    module, what went wrong with it.
    """

    run: str
    number: int
    time: float | None = None
    taken: float | None = None
    data: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StartOfRun:
    """A run begins. ``header``: JSON values that the DAQ says about it; modules get them at their birth."""

    run: str
    time: float | None = None
    header: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EndOfRun:
    """A run has ended. ``how``: ``trailer`` (the DAQ said so), ``next run``, ``time-out`` or ``end of input``.

    ``spills``: how many the DAQ says there were, None where it does not say.
    """

    run: str
    how: str = "trailer"
    time: float | None = None
    spills: int | None = None
    trailer: dict[str, Any] = field(default_factory=dict)


#: What an input hands out, in the order of the DAQ.
Item = Spill | StartOfRun | EndOfRun
