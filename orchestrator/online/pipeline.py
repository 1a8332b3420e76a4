"""The map modules of a configuration as one: made, born for a run, run over spills, and what they are compared by.

Workers, ``orchestrator online try`` and a step over files use this, so a module behaves the same in all of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import logging
import platform
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy

from orchestrator.errors import SettingsError
from orchestrator.online.configuration import Maps, ModuleEntry, opened
from orchestrator.online.module import FAULTS, Map, Module, RunConfiguration, find, made
from orchestrator.online.packing import packed
from orchestrator.online.spill import Spill
from orchestrator.online.store import Outcome
from orchestrator.version import VERSION

FRAMES = 6  # of a trace, the innermost: where it happened
LONGEST = 4000  # characters of an error that is kept


class ModuleFailed(Exception):
    """A module has raised, or returned what it may not. The cause is its exception; ``module`` its reference."""

    def __init__(self, module: str, error: BaseException) -> None:
        super().__init__(f"{module}: {_sentence(error)}")
        self.module = module
        self.error = error

    def trace(self) -> str:
        """The error's sentence, and the end of its trace, for the spill's record."""
        trace = self.error.__traceback__.tb_next if self.error.__traceback__ else None
        lines = traceback.format_exception(type(self.error), self.error, trace, limit=-FRAMES)
        return f"{_sentence(self.error)}\n{''.join(lines)[-LONGEST:]}"


class Group(Map):
    """Several maps that are one: born in order, each given what the one before it has left, dead in reverse order.

    One that says False ends the group's work on a spill, and one that raises does.
    """

    def __init__(self, members: Sequence[tuple[str, Map]]) -> None:
        super().__init__()
        self._members = list(members)
        self._alive: list[tuple[str, Map]] = []

    def birth(self, configuration: RunConfiguration) -> None:
        """Raises ModuleFailed; those that were born already have died again then."""
        self.death()
        for name, member in self._members:
            try:
                member.birth(configuration)
            except FAULTS as error:
                self.death()
                raise _failed(name, error) from error
            self._alive.append((name, member))

    def process(self, spill: Spill) -> Spill | bool | None:
        """Raises ModuleFailed."""
        for name, member in self._members:
            try:
                found = member.process(spill)
                if found is False:
                    return False
                if isinstance(found, Spill):
                    spill = found
                elif found is not None and found is not True:
                    raise TypeError(f"process returned {found!r:.80}; it may return None, True, False or a spill")
            except FAULTS as error:
                raise _failed(name, error) from error
        return spill

    def death(self) -> None:
        """Of all that live; what they raise goes to the log."""
        while self._alive:
            name, member = self._alive.pop()
            try:
                member.death()
            except FAULTS:
                logging.getLogger(__name__).exception("the end of %s", name)


class Pipeline:
    """All map modules of a configuration.

    Args:
        entries: as in ``map`` of ``online.yaml``; a tuple is a group.
        worker: name of who runs it, for the outcomes.

    Raises:
        SettingsError: a module cannot be loaded, is no Map, or has no such setting.
    """

    def __init__(self, entries: Maps, worker: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self._worker = worker
        self._clock = clock
        self._all = Group([_member(entry) for entry in entries])
        self.classes = {one.module: find(one.module, Map) for one in opened(entries)}

    def birth(self, configuration: RunConfiguration) -> None:
        """Get ready for a run. Raises SettingsError that names the module and the reason."""
        try:
            self._all.birth(configuration)
        except ModuleFailed as failed:
            logging.getLogger(__name__).error("run %s: %s: %s", configuration.run, failed.module, failed.trace())
            raise SettingsError(str(failed)) from failed

    def process(self, spill: Spill) -> Outcome:
        """Run all modules over a spill. Never raises for what a module does: the outcome has its error."""
        begun = self._clock()
        number = spill.number
        outcome = Outcome(number, worker=self._worker)
        if spill.errors:  # the input has found it damaged
            outcome.module, outcome.error = next(iter(spill.errors.items()))
            return self._packed(outcome, spill, begun)
        try:
            found = self._all.process(spill)
            if isinstance(found, Spill):
                spill = found
            outcome.shown = found is not False
            return self._packed(outcome, spill, begun)
        except ModuleFailed as failed:
            outcome.module, outcome.error = failed.module, failed.trace()
            spill.errors[failed.module] = outcome.error
        with contextlib.suppress(Exception):  # what cannot be packed is kept as the input has made it
            return self._packed(outcome, spill, begun)
        outcome.seconds = self._clock() - begun
        return outcome

    def _packed(self, outcome: Outcome, spill: Spill, begun: float) -> Outcome:
        try:
            outcome.packed = packed(spill)
        except Exception as error:
            if not outcome.failed:
                raise ModuleFailed("the spill's data", error) from error
            raise
        outcome.seconds = self._clock() - begun
        return outcome

    def death(self) -> None:
        """After a run's last spill."""
        self._all.death()


def versions(classes: Mapping[str, type[Module]]) -> dict[str, str]:
    """What two machines must have in common to make the same of a spill: a word for each, compared as it is."""
    found = {
        "orchestrator": VERSION,
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "numpy": numpy.__version__,
    }
    return found | {name: f"{kind.version} ({_source(kind)})" for name, kind in classes.items()}


def differing(theirs: Mapping[str, str], ours: Mapping[str, str]) -> str:
    """What differs, as the end of a sentence that begins with who; empty where nothing does."""
    said = [
        f"{name} {theirs.get(name, 'not at all')} instead of {ours.get(name, 'not at all')}"
        for name in sorted({*theirs, *ours})
        if theirs.get(name) != ours.get(name)
    ]
    return f"has {' and '.join(said)}" if said else ""


def _member(entry: ModuleEntry | tuple[ModuleEntry, ...]) -> tuple[str, Map]:
    if isinstance(entry, tuple):
        return "group", Group([_member(one) for one in entry])
    return entry.module, made(entry.module, Map, entry.settings, logging.getLogger(entry.module))


def _failed(name: str, error: BaseException) -> ModuleFailed:
    return error if isinstance(error, ModuleFailed) else ModuleFailed(name, error)


def _sentence(error: BaseException) -> str:
    words = " ".join(str(error).split())
    known = isinstance(error, SettingsError)
    return (words if known and words else f"{type(error).__name__}: {words}".rstrip(": "))[:500]


def _source(kind: type[Module]) -> str:
    """A hash of the file that a class stands in, so that two machines with one version and two codes are told apart."""
    try:
        content = Path(inspect.getfile(kind)).read_bytes()
    except (OSError, TypeError):
        return "no source"
    return hashlib.sha256(content).hexdigest()[:8]
