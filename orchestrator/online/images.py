"""Image documents: a plot's metadata apart from its bytes; pictures as files, each with a JSON beside it.

The metadata follow ``SCHEMA``. As a document in the database ``<prefix>_images`` the histogram and the picture are its
attachments, ``histogram.json`` and ``picture.png``; as files they are its neighbours of the same name.
"""

from __future__ import annotations

import functools
import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import orjson

from orchestrator.errors import Conflict, DatabaseError, DataError, NotFound
from orchestrator.online.checkpoint import write_safely
from orchestrator.online.configuration import Images
from orchestrator.online.drawing import draw
from orchestrator.online.plot import QUALITIES
from orchestrator.online.presenting import Shown
from orchestrator.online.publication import Header

log = logging.getLogger(__name__)

TYPE = "image"
LOOK = 0.5  # s between two looks at whether a picture is due
KEPT = 256  # pictures that are kept for whoever wants the same one next: some MB
_TIME = {"type": "string", "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\.[0-9]{3}Z$"}
_WHOLE = {"type": "integer", "minimum": 0}

#: What the metadata of an image look like (JSON schema, draft 2020-12).
SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Image document of the online system",
    "type": "object",
    "properties": {
        "type": {"const": TYPE},
        "run": {"type": "string", "minLength": 1, "description": "name of the run"},
        "name": {"type": "string", "minLength": 1, "description": "of the plot, unique in the run"},
        "title": {"type": "string"},
        "description": {"type": "string", "description": "what is shown"},
        "help": {"type": "string", "description": "what one should see, and what to do otherwise"},
        "keywords": {"type": "array", "items": {"type": "string"}},
        "tag": {"type": "string", "description": "from the configuration"},
        "reducer": {"type": "string", "minLength": 1, "description": "who made it"},
        "sequence": {**_WHOLE, "description": "grows with each publication of the plot"},
        "spill": {"anyOf": [_WHOLE, {"type": "null"}], "description": "highest number of a spill in it"},
        "spills": {**_WHOLE, "description": "how many spills are in it"},
        "entries": {"type": "number"},
        "input_time": {"anyOf": [_TIME, {"type": "null"}], "description": "when the newest spill was taken in, UTC"},
        "output_time": {**_TIME, "description": "when the plot was made, UTC"},
        "final": {"type": "boolean", "description": "the run is over and all its spills are in it"},
        "quality": {"enum": list(QUALITIES)},
        "verdict": {"type": "object", "description": "test, probability, thresholds and a sentence"},
        "reference": {"type": "string", "description": "what it was compared with"},
        "style": {"type": "object", "description": "hints for drawing"},
    },
    "required": [
        "type", "run", "name", "title", "description", "keywords", "tag", "reducer", "sequence", "spill", "spills",
        "entries", "input_time", "output_time", "final", "quality", "verdict", "reference", "style", "help",
    ],
    "additionalProperties": False,
}  # fmt: skip


def document(shown: Shown) -> dict[str, Any]:
    """The metadata of a plot's image."""
    found = asdict(shown.header)
    found["keywords"] = list(found["keywords"])
    return {"type": TYPE, **found}


def header(metadata: dict[str, Any]) -> dict[str, Any]:
    """The header of a publication out of an image's metadata."""
    known = {one.name for one in fields(Header)}
    return {name: value for name, value in metadata.items() if name in known}


def picture(shown: Shown, kind: str) -> bytes:
    """The plot drawn as ``png``, ``svg`` or ``pdf``, or its histogram as ``json``."""
    if kind == "json":
        return shown.body
    key = (shown.header.run, shown.header.name, shown.header.sequence, kind)
    found = _drawn.get(key)
    if found is None:
        # Of what was published, not of the histogram, which is filled on while a thread draws.
        found = draw(asdict(shown.header), shown.body, kind=kind)
        _drawn[key] = found
        while len(_drawn) > KEPT:
            _drawn.pop(next(iter(_drawn)), None)
    return found


_drawn: dict[tuple[str, str, int, str], bytes] = {}


class Files:
    """Pictures in a directory, for those who want files.

    ``<directory>/<run>/<prefix><plot>[_<number>].<format>`` with dots for the slashes of the plot's name, and beside
    them ``...json`` with the metadata, written last; the histogram itself is ``...hist.json``. Numbers go on from the
    highest that is there, also after a restart.

    Args:
        settings: ``images`` of the configuration.
        directory: where to, instead of the configured one.
    """

    def __init__(self, settings: Images, directory: Path) -> None:
        self._settings = settings
        self._directory = directory
        self._numbers: dict[Path, int] = {}

    def write(self, shown: Iterable[Shown]) -> list[Path]:
        """Write the pictures of plots; the metadata files that were written. Raises OSError."""
        written = []
        for one in shown:
            folder = self._directory / one.header.run
            stem = self._settings.prefix + one.header.name.replace("/", ".")
            if self._settings.number:
                stem = f"{stem}_{self._next(folder, stem):06d}"
            for kind in self._settings.formats:
                suffix = "hist.json" if kind == "json" else kind
                write_safely(folder / f"{stem}.{suffix}", picture(one, kind))
            write_safely(folder / f"{stem}.json", orjson.dumps(document(one), option=orjson.OPT_INDENT_2))
            written.append(folder / f"{stem}.json")
        return written

    def _next(self, folder: Path, stem: str) -> int:
        key = folder / stem
        if key not in self._numbers:
            pattern = re.compile(re.escape(stem) + r"_([0-9]{6,})\.")
            there = [match for path in folder.glob("*") if (match := pattern.match(path.name))]
            self._numbers[key] = max((int(match[1]) for match in there), default=-1)
        self._numbers[key] += 1
        return self._numbers[key]


class Documents:
    """Images as documents of a database of their own, which outlives the runs' spills.

    Args:
        database: made when it is not there; see ``orchestrator.couch.Database``.
        create: makes it.
    """

    def __init__(self, database: Any, create: Callable[[], None]) -> None:
        self._database = database
        self._create = create

    def write(self, shown: Iterable[Shown]) -> None:
        """Write the image of each plot over its earlier one. Raises DatabaseError."""
        import base64

        for one in shown:
            content = {
                "_id": f"image:{one.header.run}:{one.header.name}", **document(one),
                "_attachments": {
                    "histogram.json": _attachment(base64.b64encode(one.body).decode(), "application/json"),
                    "picture.png": _attachment(base64.b64encode(picture(one, "png")).decode(), "image/png"),
                },
            }  # fmt: skip
            self._put(content)

    def _put(self, content: dict[str, Any]) -> None:
        for _ in range(5):
            try:
                known = self._database.get(content["_id"])
                if int(known.get("sequence") or 0) > content["sequence"]:
                    return  # a newer one is there
                content["_rev"] = known["_rev"]
            except NotFound:
                content.pop("_rev", None)
            try:
                self._database.put(content)
                return
            except NotFound:
                self._create()
            except Conflict:
                continue
        raise Conflict(f"the document {content['_id']} is being changed by others all the time")


def _attachment(data: str, kind: str) -> dict[str, str]:
    return {"content_type": kind, "data": data}


class _Leaving(BaseException):
    """The process ends, and pictures do not hold it up."""


class Gallery:
    """Makes pictures in a thread of its own, so that no reducer waits for drawing.

    Args:
        takers: what writes them (``write(shown)``), each with its period in s: while a run goes on, the newest plots
            are written not more often than that.
        now: s, monotonic.
    """

    def __init__(
        self, takers: Sequence[tuple[Any, float]] = (), now: Callable[[], float] = time.monotonic
    ) -> None:
        self._takers = tuple(takers)
        self._now = now
        self._due = dict.fromkeys(range(len(self._takers)), now())
        self._newest: Sequence[Shown] = ()
        self._last: deque[tuple[Sequence[Shown], Callable[[Iterable[Shown]], None]]] = deque()
        self._lock = threading.Lock()
        self._there = threading.Event()
        self._stop = threading.Event()
        self._until = 0.0
        self._thread: threading.Thread | None = None  # begins with the first work

    def offer(self, shown: Sequence[Shown]) -> None:
        """These are the plots now; those that were offered before and not drawn are forgotten."""
        if self._takers:
            with self._lock:
                self._newest = shown
            self._wake()

    def last(self, shown: Sequence[Shown], then: Callable[[Iterable[Shown]], None]) -> None:
        """These are the last plots of a run: every taker gets them, and then ``then`` is called with them."""
        with self._lock:
            self._newest = ()
            self._last.append((shown, then))
        self._wake()

    def close(self, patience: float = 5.0) -> None:
        """End, with the last plots of runs drawn as far as ``patience`` s allow: after that it ends with a picture."""
        self._until = self._now() + patience
        self._stop.set()
        self._there.set()
        if self._thread is not None:
            # To its end: a thread that is at work in a library when Python ends takes the process down with a signal.
            self._thread.join()

    def _wake(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="pictures", daemon=True)
            self._thread.start()
        self._there.set()

    def _work(self) -> None:
        try:
            self._on()
        except _Leaving:
            log.info("some pictures are not drawn: the last ones of runs are, after the next start")

    def _in_time(self, shown: Sequence[Shown]) -> Iterator[Shown]:
        """The plots, one after the other, while there is time."""
        for one in shown:
            if self._stop.is_set() and self._now() > self._until:
                raise _Leaving
            yield one

    def _on(self) -> None:
        while True:
            self._there.wait(LOOK)
            self._there.clear()
            with self._lock:
                waits = self._last[0] if self._last else None
                shown = self._newest
            if waits is not None:
                for taker, _ in self._takers:
                    _guarded(functools.partial(taker.write, self._in_time(waits[0])))
                _guarded(functools.partial(waits[1], self._in_time(waits[0])))
                with self._lock:
                    self._last.popleft()
                self._there.set()
            elif self._stop.is_set():
                return
            elif shown:
                self._live(shown)

    def _live(self, shown: Sequence[Shown]) -> None:
        for place, (taker, every) in enumerate(self._takers):
            if self._now() >= self._due[place]:
                _guarded(functools.partial(taker.write, self._in_time(shown)))
                self._due[place] = self._now() + every


def _guarded(work: Callable[[], None]) -> None:
    """Pictures that cannot be written are told in the log and hold up nothing."""
    try:
        work()
    except (OSError, DatabaseError, DataError) as error:
        log.error("pictures could not be written: %s", error)
    except Exception:
        log.exception("pictures could not be drawn")
