"""The output modules of online.yaml: they get the plots of each reducer, besides the pages."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from orchestrator.online import rootjson
from orchestrator.online.configuration import ModuleEntry
from orchestrator.online.module import FAULTS, Output, RunConfiguration, made
from orchestrator.online.plot import Plot
from orchestrator.online.presenting import Shown

log = logging.getLogger(__name__)


class Outputs:
    """All output modules, for one reducer, in the thread that makes pictures.

    Args:
        entries: as configured.

    Raises:
        SettingsError: a module or a setting cannot be used.
    """

    def __init__(self, entries: Sequence[ModuleEntry]) -> None:
        self._modules = [made(one.module, Output, one.settings, logging.getLogger(one.module)) for one in entries]
        self._run = ""

    def write(self, shown: Iterable[Shown]) -> None:
        """Hand plots of one run to all modules. One that raises is told in the log; the others get them."""
        given = list(shown)
        if not given:
            return
        self._born(given[0].header.run)
        plots = [_plot(one) for one in given]
        for module in self._modules:
            try:
                module.process(plots, final=given[0].header.final)
            except FAULTS:
                log.exception("the output %s failed with the plots of run %s", type(module).__name__, self._run)
        if given[0].header.final:
            self._dead()

    def _born(self, run: str) -> None:
        if run == self._run:
            return
        self._dead()
        self._run = run
        for module in self._modules:
            try:
                module.birth(RunConfiguration(run))
            except FAULTS:
                log.exception("the output %s cannot be prepared for run %s", type(module).__name__, run)

    def _dead(self) -> None:
        if self._run:
            self._run = ""
            for module in self._modules:
                try:
                    module.death()
                except FAULTS:
                    log.exception("the end of the output %s", type(module).__name__)


def _plot(shown: Shown) -> Plot:
    """The plot as it was published: its histogram is a copy that nobody fills on."""
    header = shown.header
    return Plot(
        header.name, header.title, rootjson.loads(shown.body), header.description, tuple(header.keywords), header.help,
        dict(header.style),
    )  # fmt: skip
