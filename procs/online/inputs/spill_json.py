"""Spills as JSON documents: one a line, or one over several lines, as MAUS (MICE) and others write them.

What a document is stands in ``maus_event_type`` (``JobHeader``, ``RunHeader``, ``Spill``, ``RunFooter``, ``JobFooter``)
and ``daq_event_type`` (``physics_event``, ``start_of_run``, ``end_of_run``, ...). A document without these that has a
``spill_number`` is a spill. A spill's document is its ``data["spill"]``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, ClassVar

import orjson

from orchestrator.errors import DataError, FormatError
from orchestrator.online.spill import Item, Spill
from procs.online.inputs import whole

LARGEST = 256 << 20  # bytes of one document over several lines; more is one that never ends
LONGEST_TEXT = 2000  # characters of a header's value that is kept: MAUS puts whole configurations into one
_STRUCTURE = re.compile(rb'"(?:[^"\\]|\\.)*+"|[{}\[\]]', re.DOTALL)


def documents(path: str, start: int = 0) -> Iterator[tuple[int, int, int, Any]]:
    """The documents of a file from the byte ``start`` on: (line, byte, byte after it, value).

    The value is a DataError, with the line and byte in its sentence, for what is no document. The next one begins at
    the next line that is one, or, where lines are indented, at one that begins with a brace.
    """
    with open(path, "rb") as file:  # noqa: PTH123 - one file a run, by its path as text
        line_number = 1
        for _ in range(start // (1 << 20)):
            line_number += file.read(1 << 20).count(b"\n")
        line_number += file.read(start - file.tell()).count(b"\n")
        held: list[bytes] = []
        size = depth = 0
        first = (line_number, start)
        place = start
        for line in file:
            here = (line_number, place)
            line_number += 1
            place += len(line)
            if held and line[:1] == b"{" and (_new(held) or _loads(line)):
                yield *first, here[1], _bad(path, first, "it is not complete")
                held, size, depth = [], 0, 0
            if not held:
                if not line.strip():
                    continue
                first = here
                value = _loads(line)
                if value is not None:
                    yield *first, place, value
                    continue
            held.append(line)
            size += len(line)
            depth += _depth(line)
            if depth <= 0 or size > LARGEST:
                text = b"".join(held)
                value = _loads(text) if size <= LARGEST else None
                yield *first, place, _bad(path, first, _why(text)) if value is None else value
                held, size, depth = [], 0, 0
        if held:
            yield *first, place, _bad(path, first, "the file ends inside of it")


def _new(held: list[bytes]) -> bool:
    """Whether a brace at a line's start is another document's: where the one before is not written without indents."""
    return held[0].strip() != b"{" or (len(held) > 1 and held[1][:1] in b" \t")


def _depth(line: bytes) -> int:
    """How many more braces and brackets open than close; a string cannot go over a line's end in JSON."""
    return sum((1 if mark in b"{[" else -1) for mark in _STRUCTURE.findall(line) if len(mark) == 1)


def _loads(text: bytes) -> Any:
    """The value; None for what is no JSON, and for null, which is no document either."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    try:
        # What MAUS writes has NaN and Infinity here and there, and numbers beyond 64 bits.
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _why(text: bytes) -> str:
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        return str(error)
    return "it is too large" if len(text) > LARGEST else "it is null"


def _bad(path: str, first: tuple[int, int], why: str) -> DataError:
    return DataError(f"{path}: the document at line {first[0]} (byte {first[1]}) is no JSON document: {why}")


class SpillJsonInput(whole.WholeFiles):
    """Files of spill documents. A document that cannot be read is told with its line, and the next one is read."""

    version: ClassVar[str] = "1"

    def of_file(self, path: str, place: int) -> Iterator[Item]:
        """The items of one file; ``place`` is a byte."""
        job: dict[str, Any] = {}
        found = 0
        for line, start, stop, value in documents(path, place):
            found += 1
            where = f"{path}, line {line} (byte {start})"
            try:
                if isinstance(value, DataError):
                    raise value
                if not isinstance(value, dict):
                    raise DataError(f"{where}: the document is no object")
                for item in self._items(value, where, job):
                    # A run's start is yielded again after a crash between it and the spill that it came with.
                    self._place = stop if isinstance(item, Spill) or self._alone(value) else start
                    yield item
            except DataError as error:
                self.problem(str(error))
            self._place = stop
        if not found and not place:
            raise FormatError("there is no document in it", path=path)

    @staticmethod
    def _alone(value: dict[str, Any]) -> bool:
        """Whether a document is a mark of a run and no spill."""
        return value.get("maus_event_type") in ("RunHeader", "RunFooter") or value.get("daq_event_type") in (
            "start_of_run", "end_of_run",
        )  # fmt: skip

    def _items(self, value: dict[str, Any], where: str, job: dict[str, Any]) -> Iterator[Item]:
        kind, daq = value.get("maus_event_type"), value.get("daq_event_type")
        if kind == "JobHeader":
            job.update(_short(value))
            return
        if kind == "JobFooter":
            return
        run = self._run(value)
        if kind == "RunFooter" or daq == "end_of_run":
            if run == self._marks.run:
                yield from self._marks.end("trailer", None, _short(value))
            return
        if kind == "RunHeader" or daq == "start_of_run":
            yield from self._marks.begin(run, None, {"job": job, **_short(value)} if job else _short(value))
            return
        if kind not in (None, "Spill") or (kind is None and "spill_number" not in value):
            raise DataError(f"{where}: {str(kind or 'the document')[:40]!r} is neither a spill nor a mark of a run")
        yield from self._marks.begin(run, None, {"job": job} if job else {})
        wanted = value.get("spill_number")
        number = self._marks.number(wanted)
        if wanted != number:
            self.problem(f"{where}: spill {str(wanted)[:20]} of run {run} is taken as spill {number}")
        yield Spill(run, number, None, None, {"spill": value})

    def _run(self, value: dict[str, Any]) -> str:
        found = value.get("run_number")
        if isinstance(found, int | str) and not isinstance(found, bool):
            return str(found)
        return self._marks.run if self._marks.run is not None else "0"


def _short(value: dict[str, Any]) -> dict[str, Any]:
    """A header without what is too long to be carried to each worker."""
    return {
        key: one for key, one in value.items() if not (isinstance(one, str) and len(one) > LONGEST_TEXT)
    }  # fmt: skip
