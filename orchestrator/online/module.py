"""What a module sees of the online system: its settings, a log, the run's configuration, and spills.

Four kinds. An *input* makes spills, a *map* works on one spill at a time and remembers nothing, a *reducer* gathers
many into histograms, an *output* takes what reducers made somewhere. Each has a life for every run: ``birth`` before
the run's first spill, ``process`` for each, ``death`` after its last. A module is named in the configuration as
``package.module:Class`` and is a few lines::

    class TriggersPerSpill(Map):
        def process(self, spill):
            spill.data["triggers"] = int(spill.data["tdc"]["trigger_count"].max())
            return spill

A module that raises has failed with this spill: it is kept with its error, and the next one goes on.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar, cast

from orchestrator.errors import OrchestratorError, SettingsError
from orchestrator.online.plot import Plot
from orchestrator.online.spill import Item, Spill

FAULTS = (Exception, SystemExit)  # what a student's class may raise


@dataclass(frozen=True)
class RunConfiguration:
    """What a module is told at its birth: the run's name, what the DAQ says of it, and nothing of the machine."""

    run: str
    header: Mapping[str, Any] = field(default_factory=dict)


class Module:
    """The base of all four. ``settings`` are the module's own, from the configuration; ``defaults`` names all.

    A setting that ``defaults`` does not have is refused when the module is made, before any run.
    """

    #: Changes when the module's results change; compared between machines before a run.
    version: ClassVar[str] = "1"
    #: Every setting with its default.
    defaults: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, settings: Mapping[str, Any] | None = None, log: logging.Logger | None = None) -> None:
        given = dict(settings or {})
        unknown = sorted(set(given) - set(self.defaults))
        if unknown:
            known = ", ".join(sorted(self.defaults)) or "it has none"
            raise SettingsError(f"{type(self).__name__} has no setting {unknown[0]!r} (settings: {known})")
        for name, value in given.items():
            if isinstance(self.defaults[name], bool) and not isinstance(value, bool):
                raise SettingsError(f"{type(self).__name__}: {name} is true or false, not {value!r:.80}")
        self.settings: dict[str, Any] = {**self.defaults, **given}
        self.log = log or logging.getLogger(type(self).__module__)

    def birth(self, configuration: RunConfiguration) -> None:
        """Set up for a run. What is expensive belongs here. Raises SettingsError for what cannot work."""

    def death(self) -> None:
        """Clean up after a run."""


class Input(Module):
    """Makes spills out of a file, a socket, a directory.

    ``items`` yields what it has in the DAQ's order, and None when there is nothing just now, so that whoever reads can
    look after other things (it has then waited a tenth of a second itself); it returns when nothing more can come.
    ``position`` says, in JSON values, how far all that was yielded reaches; after a crash a new one is given the last
    position that is known to be safe and yields from there on, spills with the same numbers as before. Some spills may
    come again: their number tells.
    """

    def check(self) -> str:
        """Before anything is started: what will be read, in a few words. Raises SettingsError, or Conflict for a port
        that is taken, where nothing can be."""
        return ""

    def items(self, position: Any = None) -> Iterator[Item | None]:
        """Raises FormatError or DataError for an input that cannot be read, SettingsError where there is none."""
        raise NotImplementedError

    @property
    def position(self) -> Any:
        """Where to go on after all that was yielded so far; None where it cannot."""
        return None

    def safe(self, position: Any) -> None:
        """Everything up to ``position`` is stored: a DAQ that waits for it may be told."""


class Map(Module):
    """Works on one spill; has no memory, so any worker may have any spill."""

    def process(self, spill: Spill) -> Spill | bool | None:
        """Change the spill in place, or return another. None and True mean: this one. False: leave it out of the
        plots (it still counts as done)."""
        raise NotImplementedError


class Reduce(Module):
    """Gathers spills. Its state can be saved, restored and merged, with the same result as from one that saw all."""

    def process(self, spill: Spill) -> None:
        """Take in one spill; each comes once, in any order."""
        raise NotImplementedError

    def plots(self) -> Iterable[Plot]:
        """What it has to show now."""
        raise NotImplementedError

    def names(self) -> Iterable[str]:
        """Names of its plots, or what they begin with and a ``*``; two reducers may not have the same ones."""
        return [plot.name for plot in self.plots()]

    def expected(self, name: str) -> Any:
        """An empty histogram as the plot ``name`` will have it, for checks of references; None where it cannot say."""
        return None

    def state(self) -> dict[str, Any]:
        """Everything it knows, as JSON values and numpy arrays."""
        raise NotImplementedError

    def merge(self, state: Mapping[str, Any]) -> None:
        """Add what another of the same class knows. A newborn one that merges a state equals the one it came from."""
        raise NotImplementedError


class Output(Module):
    """Takes plots to wherever they are wanted."""

    def process(self, plots: Iterable[Plot], *, final: bool) -> None:
        """``final``: the run has ended and these are its last."""
        raise NotImplementedError


Made = TypeVar("Made", bound=Module)


def find(reference: str, kind: type[Module]) -> type[Module]:
    """The module class that ``"package.module:Class"`` names.

    Raises SettingsError, with the remedy, where there is none or it is of another kind.
    """
    where, colon, name = reference.partition(":")
    if not (where and colon and name) or where.startswith("."):
        raise SettingsError(f"{reference!r} names no module: write it as 'package.module:Class'")
    try:
        found = getattr(importlib.import_module(where), name, None)
    except ImportError as error:
        raise SettingsError(f"the module {reference!r} cannot be loaded: {error}") from error
    except FAULTS as error:
        raise SettingsError(f"the module {reference!r} cannot be loaded: {type(error).__name__}: {error}") from error
    if found is None:
        raise SettingsError(f"{where!r} has no {name!r}: correct the module's name")
    if not (isinstance(found, type) and issubclass(found, kind)):
        raise SettingsError(f"{reference!r} is not a subclass of orchestrator.online.module.{kind.__name__}")
    return found


def made(
    reference: str, kind: type[Made], settings: Mapping[str, Any] | None = None, log: logging.Logger | None = None
) -> Made:
    """A module of the class that ``reference`` names, with its settings. Raises SettingsError, whatever it raises."""
    found = find(reference, kind)
    with no_fault(f"{reference} cannot be made"):
        instance = found(settings, log)
    return cast(Made, instance)


@contextlib.contextmanager
def no_fault(what: str) -> Iterator[None]:
    """Around a call of a module's before anything starts. Raises SettingsError that begins with ``what``."""
    try:
        yield
    except OrchestratorError:
        raise
    except FAULTS as error:
        said = " ".join(str(error).split())[:300]
        raise SettingsError(f"{what}: {type(error).__name__}: {said}") from error
