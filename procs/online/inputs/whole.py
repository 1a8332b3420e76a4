"""Inputs that take files when they are complete: one after the other, and those that appear while they run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from orchestrator.errors import DataError, FormatError, TransientError
from orchestrator.online.spill import Item, Spill
from procs.online.inputs import files as listing
from procs.online.inputs.file_input import FileInput
from procs.online.inputs.marks import Marks

ALL = -1  # place behind everything that a file gives


class WholeFiles(FileInput):
    """The base: a subclass gives the items of one file. One that cannot be read is told, and the next is read."""

    defaults: ClassVar[Mapping[str, Any]] = {"files": "", "grow": False, "begin": "newest", "poll": 0.1, "settle": 2.0}
    settings_help: ClassVar[Mapping[str, str]] = listing.HELP | {
        "grow": "wait for further files; each is read when it has not changed for the time `settle`",
        "settle": "s without a change after which a file is complete",
    }

    def __init__(self, settings: Mapping[str, Any] | None = None, log: Any = None, **world: Any) -> None:
        super().__init__(settings, log, **world)
        self._marks = Marks()
        self._path = ""
        self._place = 0  # in the file, in the subclass's own count: everything before it was yielded

    def of_file(self, path: str, place: int) -> Iterator[Item]:
        """The items of one file from ``place`` on; sets ``_place`` before it yields each.

        Raises FormatError or DataError where it can be read no further.
        """
        raise NotImplementedError

    def items(self, position: Any = None) -> Iterator[Item | None]:
        """What is in the files. Raises SettingsError where complete files are to be read and there are none,
        TransientError where the disk does not give what it has."""
        start = self._restore(position)
        grows = bool(self.settings["grow"])
        for path in self._files.paths(start[0] if start else None, wait=self._idle if grows else None):
            if path is None:
                yield None
                continue
            self._path, self._place = path, start[1] if start and start[0] == path else 0
            start = None
            if self._place == ALL:
                continue
            while grows and self._clock() - _changed(path) < float(self.settings["settle"]):
                self._idle()
                yield None
            try:
                for item in self.of_file(path, self._place):
                    if isinstance(item, Spill):
                        item.taken = self._clock()
                    yield item
            except (FormatError, DataError) as error:
                self.problem(str(error))
            except (FileNotFoundError, PermissionError) as error:
                self.problem(f"{path} cannot be read: {error.strerror}")
            except OSError as error:
                raise TransientError(f"{path} cannot be read on: {error.strerror}") from error
            self._place = ALL
        yield from self._marks.end("end of input")

    @property
    def position(self) -> Any:
        """The file, how far it was yielded, and what is known of the run there."""
        return {"file": self._path, "place": self._place, **self._marks.state()} if self._path else None

    def problem(self, sentence: str) -> None:
        """Something that a person should know."""
        self.log.error("%s", sentence)

    def _restore(self, position: Any) -> tuple[str, int] | None:
        self._marks, self._path, self._place = Marks(), "", 0
        marks = Marks.restored(position)
        if marks is None:
            return None
        try:
            self._path, self._place = str(position["file"]), int(position["place"])
        except (KeyError, TypeError, ValueError):
            return None
        self._marks = marks
        return self._path, self._place


def _changed(path: str) -> float:
    try:
        return Path(path).stat().st_mtime
    except OSError:
        return 0.0
