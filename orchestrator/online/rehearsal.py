"""Before anything starts: every reducer made, born for a run that is none, and asked for its plots."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.errors import SettingsError
from orchestrator.online.configuration import Online
from orchestrator.online.module import Reduce, RunConfiguration, made, no_fault
from orchestrator.online.plot import Plot

RUN = RunConfiguration("check")  # without a header: a module must be able to do without what a DAQ may not say


@dataclass(frozen=True)
class Rehearsed:
    """A reducer after its birth: the names of its plots (see ``Reduce.names``), and those that are there at once."""

    name: str
    module: Reduce
    names: list[str]
    plots: list[Plot]


def reducers(online: Online) -> list[Rehearsed]:
    """All reducers. Raises SettingsError for the first that cannot begin a run, whatever it raises."""
    found = []
    for entry in online.reduce:
        module = made(entry.module, Reduce, entry.settings)
        with no_fault(f"the reducer {entry.name} ({entry.module}) cannot begin a run whose header is empty"):
            module.birth(RUN)
        with no_fault(f"the reducer {entry.name} ({entry.module}) has no plots to show after its birth"):
            found.append(Rehearsed(entry.name, module, list(module.names()), list(module.plots())))
    return found


def check_names(online: Online) -> None:
    """Refuse two reducers whose plots would have the same names. Raises SettingsError, also as ``reducers``."""
    owners: dict[str, str] = {}
    for one in reducers(online):
        for name in one.names:
            other = owners.setdefault(name, one.name)
            if other != one.name:
                raise SettingsError(
                    f"the reducers {other} and {one.name} both have plots called {name!r}: give one of them the "
                    "setting `prefix`, or leave it out"
                )
        with no_fault(f"the reducer {one.name} cannot end a run"):
            one.module.death()
