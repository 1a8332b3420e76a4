"""One plot as it is shown: a histogram with all that people want to know beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

#: States of a plot against its reference, the worst last. ``none``: it has no reference.
QUALITIES = ("none", "good", "warning", "bad")


@dataclass
class Plot:
    """A plot of one run.

    ``name`` is unique in the run and made of letters, digits, ``_``, ``-`` and ``.``, parts joined by ``/``
    (``tdc/hits/board_1``). ``histogram`` is a ``hist.Hist`` of one or two axes. ``style`` has what a drawing may
    follow: ``draw`` (a ROOT draw option such as ``colz``), ``logx``, ``logy``, ``logz``. ``help`` tells a shifter what
    one should see, and what to do when one does not. ``comparable`` False: its bins are not the same in every run, as
    those of time, so no reference is meant for it.
    """

    name: str
    title: str
    histogram: Any
    description: str = ""
    keywords: tuple[str, ...] = ()
    help: str = ""
    style: dict[str, Any] = field(default_factory=dict)
    comparable: bool = True
