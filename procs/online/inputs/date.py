"""DATE files as an input: complete ones, or the one that the DAQ is writing and those that follow it.

A spill is handed on as soon as all of it is there, by reference: its file and the bytes in it (``data["raw"]``); only
headers of events are read here. A spill whose events lie in two files of a run comes with its bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from orchestrator.errors import FormatError, SettingsError, TransientError
from orchestrator.online.spill import Item, Spill
from procs.formats import date_layout as layout
from procs.online.inputs import files as listing
from procs.online.inputs.assembling import Piece, Runs
from procs.online.inputs.date_events import EventFile, Head
from procs.online.inputs.file_input import FileInput
from procs.online.inputs.replay import named_run

WHOLE = ("end of burst", "next spill")


class DateInput(FileInput):
    """DATE files, in the order of their names' numbers.

    A file that ends inside of an event, and bytes that are none, are told in the log and in the run's record; the spill
    that they belong to is marked, and reading goes on at the next event.
    """

    version: ClassVar[str] = "1"
    defaults: ClassVar[Mapping[str, Any]] = {
        "files": "",  # a path, a pattern such as /data/daq/*.[0-9][0-9][0-9], or a list of them
        "grow": False,  # the DAQ is still writing: wait for more, and for the next file
        "begin": "newest",  # with grow, where no position is known: `newest` run's files, or `all` that are there
        "whole": "end of burst",  # a spill is whole at its `end of burst` event, or only at the `next spill`
        "poll": 0.1,  # s between two looks at a file that grows
        "settle": 2.0,  # s that a file must not have grown before the next one of the DAQ is taken up
        "quiet": 30.0,  # s without anything new after which a spill without its end is handed on as it is
    }
    settings_help: ClassVar[Mapping[str, str]] = listing.HELP | {
        "whole": "a spill is whole at its `end of burst` event, or only at the `next spill`",
        "quiet": "s without anything new after which a spill without its end is handed on as it is",
    }

    def __init__(self, settings: Mapping[str, Any] | None = None, log: Any = None, **world: Any) -> None:
        super().__init__(settings, log, **world)
        if self.settings["whole"] not in WHOLE:
            raise SettingsError(f"{type(self).__name__}: whole is one of {', '.join(WHOLE)}")
        self._runs = self._fresh()
        self._file: EventFile | None = None
        self._heads: dict[str, int | None] = {}  # a hash of a file's first header: a replaced one has another

    def items(self, position: Any = None) -> Iterator[Item | None]:
        """Spills and the marks of runs; None about ten times a second while there is nothing.

        Raises SettingsError where complete files are to be read and there are none, TransientError where the disk does
        not give what it has: the next one goes on from the last position.
        """
        try:
            start = self._restore(position)
            grows = bool(self.settings["grow"])
            for path in self._files.paths(start[0] if start else None, wait=self._idle if grows else None):
                if path is None:
                    yield None
                    continue
                offset = start[1] if start and start[0] == path else 0
                start = None
                yield from self._one(path, offset, grows)
            for item in self._runs.finish("end of input"):
                yield self._taken(item)
        except OSError as error:
            raise TransientError(f"{error.filename or 'a DATE file'} cannot be read on: {error.strerror}") from error
        finally:
            self._close()

    @property
    def position(self) -> Any:
        """File and byte up to which everything was yielded, and what is known of the run there."""
        path, offset = self._runs.at
        if not path:
            return None
        return {
            "file": path, "offset": offset, "head": self._heads.get(path), "run": self._runs.run,
            "open": self._runs.open, "last": self._runs.last,
        }  # fmt: skip

    # -- one file

    def _one(self, path: str, offset: int, grows: bool) -> Iterator[Item | None]:
        """All of one file, and while it grows what comes to it."""
        self._close()
        try:
            self._file = file = EventFile(path)
        except FormatError as error:
            self._runs.problem(str(error))
            return
        changed = self._clock()
        assembled = False
        name, runs = named_run(path) or "", self._runs
        while True:
            why = ""
            try:
                event = file.event(offset)
            except FormatError as error:
                event, why = None, str(error)
            if event is not None and runs.extends(event, path):
                offset = event.stop
                continue
            if event is not None:
                self._remember(path, event)
                assembled = assembled or event.ldc == layout.SUPER
                for item in self._runs.event(event, path, name):
                    yield self._taken(item)
                offset = event.stop
                continue
            before = file.size
            if file.look() != before:
                changed = self._clock()
                continue
            if grows and (file.replaced() or file.size < offset):
                self._runs.problem(f"{path} was replaced while it was read: the new one is read from its start")
                self._runs = self._fresh()
                yield from self._one(path, 0, grows)
                return
            over = not grows or self._over(path, changed)
            blank = bool(why) and file.blank(offset)
            if blank:
                file.forget()  # it is written without a change of the file's size
            if over or (why and not blank):
                following = self._after_damage(file, offset, why, assembled, over)
                if following is not None:
                    offset = following
                    continue
            if over:
                return
            self._idle()
            yield from self._quiet(changed)
            yield None

    def _after_damage(self, file: EventFile, offset: int, why: str, assembled: bool, over: bool) -> int | None:
        """Where reading goes on behind bytes that are no whole event; None where nothing more is there (yet)."""
        left = file.size - offset
        if not left:
            return None
        found = file.next_event(offset, self._number(), assembled)
        if not why:
            why = f"{file.path}: the event at byte {offset} is not complete, {left} bytes of it are there"
        if found is not None:
            self._runs.damaged(f"{why}; the next event begins at byte {found.offset}")
            return found.offset
        if over:
            self._runs.damaged(f"{why}; nothing that can be read follows")
        return None

    def _quiet(self, changed: float) -> Iterator[Item]:
        """A spill whose end does not come."""
        if self._runs.waiting and self._clock() - changed >= float(self.settings["quiet"]):
            for item in self._runs.flush():
                yield self._taken(item)

    def _over(self, path: str, changed: float) -> bool:
        """Whether a file grows no more: there is a next one, and the run has ended or nothing came for a while."""
        now = self._clock()
        if self._runs.open and now - changed < float(self.settings["settle"]):
            return False
        return self._files.following(path, now) is not None

    # -- where it stands

    def _restore(self, position: Any) -> tuple[str, int] | None:
        """The file and byte to begin at; None for the beginning."""
        self._runs = self._fresh()
        if not isinstance(position, dict):
            return None
        try:
            path, offset = str(position["file"]), int(position["offset"])
            run, opened, last = position["run"], bool(position["open"]), int(position["last"])
        except (KeyError, TypeError, ValueError):
            self.log.warning("the position %r is not one of DATE files: from the beginning", position)
            return None
        if position.get("head") is not None and position["head"] != _head_of(path):
            self.log.warning("%s is not the file that was read before: it is read from its start", path)
            return path, 0
        self._runs.run = None if run is None else str(run)
        self._runs.open, self._runs.last, self._runs.at = opened, last, (path, offset)
        self._heads[path] = position.get("head")
        return path, offset

    def _fresh(self) -> Runs:
        whole = self.settings["whole"] == WHOLE[0]
        return Runs(whole_at_end_of_burst=whole, said=lambda sentence: self.log.error("%s", sentence))

    def _remember(self, path: str, event: Head) -> None:
        if path not in self._heads:
            assert self._file is not None
            self._heads[path] = zlib.crc32(self._file.read(0, layout.HEADER))

    def _number(self) -> int | None:
        run = self._runs.run
        return int(run) if run is not None and run.isdigit() else None

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _taken(self, item: Item) -> Item:
        if isinstance(item, Spill):
            item.taken = self._clock()
            item.data["raw"] = self._raw(item.data["raw"]["pieces"])
        return item

    def _raw(self, pieces: list[Piece]) -> dict[str, Any]:
        if len(pieces) == 1:
            path, start, stop = pieces[0]
            return {"file": path, "offset": start, "size": stop - start}
        parts = []
        for path, start, stop in pieces:
            with Path(path).open("rb") as file:
                file.seek(start)
                parts.append(file.read(stop - start))
        return {"bytes": b"".join(parts)}


def _head_of(path: str) -> int | None:
    """A hash of a file's first header; None where there is none."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(layout.HEADER)
    except OSError:
        return None
    return zlib.crc32(data) if len(data) == layout.HEADER else None
