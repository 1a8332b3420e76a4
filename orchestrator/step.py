"""What a step sees of the world, and nothing more: its input, its settings, a place to work, a log, a way to report.

A step is a function ``step(document, work) -> dict``, or a class whose instances are set up once per worker::

    class Analyse:
        def __init__(self, settings: dict, log: logging.Logger) -> None: ...   # birth: expensive set-up
        def process(self, document: dict, work: Work) -> dict: ...
        def close(self) -> None: ...                                           # death

It runs unchanged in a pool on a laptop and in a job on a farm. It is handed a copy of the document and returns a dict;
it never sees the database.
"""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

from orchestrator.errors import DataError, SettingsError

Document = dict[str, Any]
Result = dict[str, Any]

#: Keys of a step's result that describe its output file; they stand in ``procN`` itself, the others in its ``result``.
FILE_KEYS = ("file", "size", "checksum")


class Progress(Protocol):
    """Reports how far a step is: ``fraction`` from 0 to 1, and a few words for people."""

    def __call__(self, fraction: float, text: str = "") -> None: ...


def no_progress(fraction: float, text: str = "") -> None:
    """The reporter for whoever runs a step by hand and does not care."""


@dataclass
class Work:
    """Everything one attempt of a step may use.

    ``output`` is the site's data directory, against which relative paths in ``settings`` are resolved; ``directory`` is
    a scratch directory private to the attempt and removed after it; ``attempt`` is the attempt's id, which every
    temporary output name must carry so that two runs of one step can never write to the same file.
    """

    settings: Mapping[str, Any]
    output: Path
    directory: Path
    attempt: str
    log: logging.Logger
    source: str | None = None
    progress: Progress = field(default=no_progress)

    @property
    def input(self) -> Path:
        """The file to read: that of the nearest earlier step that is done and left one, else the raw file.

        Raises DataError where the document names no file at all.
        """
        if not self.source:
            raise DataError("the document names no file: neither an earlier step nor the document itself has one")
        return Path(self.source)

    def output_path(self, *parts: str) -> Path:
        """A path below the site's data directory (or below ``parts[0]`` where that is absolute)."""
        return self.output.joinpath(*parts)


class StepObject(Protocol):
    """A step with a life of its own in each worker: made once (birth), used many times, closed (death)."""

    def process(self, document: Document, work: Work) -> Result: ...


class _Function:
    """A plain function in the clothes of a StepObject."""

    def __init__(self, function: Callable[[Document, Work], Result]) -> None:
        self._function = function

    def process(self, document: Document, work: Work) -> Result:
        return self._function(document, work)


def find(reference: str) -> Any:
    """The function or class that ``"module:name"`` refers to.

    Raises SettingsError with the remedy: for a reference of another form, a module that cannot be imported, a name that
    the module does not have, or one that cannot be called.
    """
    module_name, colon, name = reference.partition(":")
    if not colon or not module_name or not name:
        raise SettingsError(f"{reference!r} names no step: write it as 'package.module:function'")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise SettingsError(
            f"the step {reference!r} cannot be loaded: {error}. Install what it needs, or correct the module's name"
        ) from error
    target = getattr(module, name, None)
    if target is None:
        from difflib import get_close_matches

        near = get_close_matches(name, [n for n in dir(module) if not n.startswith("_")], n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise SettingsError(f"the module {module_name!r} has no {name!r}{hint}")
    if not callable(target):
        raise SettingsError(f"{reference!r} is not a function or a class")
    return target


def birth(reference: str, settings: Mapping[str, Any], log: logging.Logger) -> StepObject:
    """Load the step ``"module:name"`` and set it up for one worker. Raises SettingsError as ``find`` does."""
    target = find(reference)
    if inspect.isclass(target):
        if not callable(getattr(target, "process", None)):
            raise SettingsError(f"the class {reference!r} has no method process(document, work)")
        return cast(StepObject, cast(Any, target)(dict(settings), log))
    return _Function(target)


def death(step: StepObject) -> None:
    """Close a step that has something to close."""
    close = getattr(step, "close", None)
    if callable(close):
        close()
