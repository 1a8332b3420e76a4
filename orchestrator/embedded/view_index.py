"""One index: the views of a design document, kept up to date with the database.

An index belongs to what its views *do*, not to the design document's name: its file is named by a hash of the map
functions, the library, the options and the builtin reduces. So a design document copied to another name, as a
deployment without a gap does, finds its index already built.

Updates run in the thread that asks, one at a time for each index. A batch of changes is mapped in a child process while
the batch before it is written here. Where many changes are to be taken in, processes do the whole of it
(``view_build``), so that the server has its time for others.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from orchestrator.embedded import codec, revisions
from orchestrator.embedded.javascript import DesignFunctions, FunctionError
from orchestrator.embedded.problems import Problem, not_implemented
from orchestrator.embedded.view_file import Emitted, IndexClosed, ViewFile
from orchestrator.embedded.view_reduce import STATEFUL, builtin_name

Json = Any

SUFFIX = ".view.sqlite"
MANY = 20_000  # changes, some seconds of work, from which on a build is given to processes of its own
BATCH = 1000  # changes mapped and committed together: some 50 ms of work, and what a crash costs at most


class ChangedRow(Protocol):
    """A change as the database gives it; a subset of ``database.Row``."""

    @property
    def seq(self) -> int: ...
    @property
    def id(self) -> str: ...
    @property
    def deleted(self) -> bool: ...
    @property
    def leaves(self) -> int:
        """How many revisions nobody has replaced: more than one is a conflict."""
        ...

    def render(self, extra: list[tuple[str, bytes]] | None = None) -> bytes:
        """The winning document as JSON, with further special members."""
        ...

    def revision_tree(self) -> Any:
        """All revisions; asked for only where there is more than one leaf."""
        ...


class Source(Protocol):
    """What an index needs of a database; a subset of ``DatabaseStore``."""

    name: str
    path: Path
    folder: Path
    token: str

    def update_seq(self) -> int:
        """The sequence of the newest change."""
        ...

    def changes_rows(self, since: int, limit: int, *, bodies: bool) -> list[Any]:
        """The newest change of each document after ``since``, by sequence."""
        ...


@dataclass(frozen=True)
class View:
    """One view of a design document: the number of its map function in the index, and its reduce if it has one."""

    name: str
    number: int
    reduce: str | None


class Definition:
    """What a design document's views do.

    Args:
        ddoc: the design document.

    Raises:
        Problem: a language or an option that is not supported, or views that are not views.
    """

    def __init__(self, ddoc: dict[str, Json]) -> None:
        self.id = str(ddoc.get("_id", ""))
        self.design = {key: value for key, value in ddoc.items() if key in ("_id", "language", "views", "options")}
        self.language = ddoc.get("language", "javascript")
        if self.language not in ("javascript", "query"):
            raise not_implemented(f"The query language {self.language!r}")
        views = ddoc.get("views") or {}
        options = ddoc.get("options") or {}
        if not isinstance(views, dict) or not isinstance(options, dict):
            raise Problem(400, "invalid_design_doc", "`views` and `options` must be objects.")
        for option in ("local_seq", "collation"):
            if options.get(option) not in (None, False):
                raise not_implemented(f"The option {option!r} of design documents")
        self.include_design = options.get("include_design") is True
        self.lib: Json = views.get("lib") if self.language == "javascript" else None
        self.maps: list[Json] = []
        self.kinds: list[tuple[str, ...]] = []
        self.views: dict[str, View] = {}
        found = {
            name: view for name, view in views.items() if name != "lib" and isinstance(view, dict) and "map" in view
        }
        # the order of names counts: it is the order of an index's fields
        texts = sorted({json.dumps(view["map"]) for view in found.values()})
        reduces: list[set[str]] = [set() for _ in texts]
        for name, view in found.items():
            number = texts.index(json.dumps(view["map"]))
            reduce = view.get("reduce")
            reduce = reduce if isinstance(reduce, str) and reduce and self.language == "javascript" else None
            builtin = builtin_name(reduce) if reduce else None
            if builtin in STATEFUL:
                reduces[number].add(str(builtin))
            self.views[name] = View(name, number, reduce)
        self.maps = [json.loads(text) for text in texts]
        self.kinds = [tuple(sorted(kinds)) for kinds in reduces]
        described = [self.language, self.include_design, self.lib, self.maps, self.kinds]
        self.signature = hashlib.sha256(json.dumps(described).encode()).hexdigest()[:32]


Mapper = Callable[[list[bytes]], list[Emitted]]
"""Applies the map functions of an index to documents, given as JSON texts."""


@dataclass(frozen=True)
class Build:
    """A large part of an index that is to be built outside the server.

    Attributes:
        database: the database's file.
        name: its name, for messages.
        folder: where its indexes lie.
        token: names the database's incarnation.
        design: the design document, as far as it matters.
        target: the sequence up to which the index is to be complete.
        anew: whether a new file is to be made, or the one that is there is to be brought up to date.
        stopping: says whether nobody wants it any more.
        advance: is told how many more changes have been taken in.
    """

    database: Path
    name: str
    folder: Path
    token: str
    design: dict[str, Json]
    target: int
    anew: bool
    stopping: Callable[[], bool]
    advance: Callable[[int], None]


class Progress:
    """An update under way, as ``_active_tasks`` shows it."""

    def __init__(self, database: str, design: str, done: int, total: int) -> None:
        self.database = database
        self.design = design
        self.done = done
        self.total = total
        self.started = self.updated = int(time.time())

    def advance(self, done: int) -> None:
        """Some more changes are in the index."""
        self.done += done
        self.updated = int(time.time())

    def describe(self, pid: str) -> dict[str, Json]:
        """The entry in ``_active_tasks``."""
        return {
            "node": "nonode@nohost",
            "pid": pid,
            "type": "indexer",
            "database": self.database,
            "design_document": self.design,
            "changes_done": self.done,
            "total_changes": self.total,
            "progress": 100 * self.done // max(self.total, 1),
            "started_on": self.started,
            "updated_on": self.updated,
        }


class ViewIndex:
    """The index of some views over one database.

    Args:
        db: the database.
        definition: what the views do.
        mapper: runs the map functions.
        builder: does large builds, if there is one; returns the new file where it has made one.
        advanced: is told how many changes have been taken in.
    """

    def __init__(
        self,
        db: Source,
        definition: Definition,
        mapper: Mapper,
        builder: Callable[[Build], Path | None] | None = None,
        advanced: Callable[[int], None] | None = None,
    ) -> None:
        self.db = db
        self.definition = definition
        self.progress: Progress | None = None
        self.waiting = 0
        self.stopping = False
        self._mapper = mapper
        self._builder = builder
        self._advanced = advanced
        self._lock = threading.Lock()
        self.file = ViewFile(self.path_of(db, definition), definition.kinds, db.token)
        if self.file.seq > db.update_seq():
            # The database has lost its last moments (a power cut with synchronous=normal): so must the index.
            self.file.close(remove=True)
            self.file = ViewFile(self.path_of(db, definition), definition.kinds, db.token)

    @staticmethod
    def path_of(db: Source, definition: Definition) -> Path:
        """The file of an index, in the folder that the database keeps for them."""
        return db.folder / (definition.signature + SUFFIX)

    def update(self) -> int:
        """Take in all changes up to now; waits for an update under way. Returns the sequence the index is at.

        Raises:
            Problem: a map function cannot be compiled or passed a limit. What is indexed so far stays.
        """
        target = self.db.update_seq()
        self.waiting += 1
        try:
            with self._lock:
                if self.stopping:
                    raise IndexClosed
                if self.file.seq < target:
                    self._build(target)
                return self.file.seq
        except sqlite3.OperationalError as error:
            raise Problem(
                500, "index_error", f"The index of {self.definition.id} in {self.db.name} cannot be written ({error})."
            ) from error
        finally:
            self.waiting -= 1

    @property
    def busy(self) -> bool:
        """Whether an update is under way."""
        return self._lock.locked()

    def close(self, remove: bool = False) -> None:
        """Close the file, or remove it. An update under way ends after its batch."""
        self.stopping = True
        with self._lock:
            self.file.close(remove)

    def _build(self, target: int) -> None:
        self.progress = Progress(self.db.name, self.definition.id, 0, target - self.file.seq)
        try:
            while self._builder is not None and target - self.file.seq >= MANY:
                self._build_outside(self._builder)
            with ThreadPoolExecutor(1, "view-build") as ahead:
                waiting: tuple[list[ChangedRow], Future[list[tuple[str, Emitted | None]]]] | None = None
                for changes in self._changes(self.file.seq, target):
                    following = (changes, ahead.submit(mapped, self.definition, self._mapper, changes))
                    if waiting is not None:
                        self._take_in(*waiting)
                    waiting = following
                if waiting is not None:
                    self._take_in(*waiting)
        finally:
            self.progress = None

    def _build_outside(self, builder: Callable[[Build], Path | None]) -> None:
        """Have all changes up to now taken in by processes."""
        db, target = self.db, self.db.update_seq()
        anew = self.file.seq < target // 2
        design, stopping, advance = self.definition.design, lambda: self.stopping, self._advance
        build = Build(db.path, db.name, db.folder, db.token, design, target, anew, stopping, advance)
        try:
            made = builder(build)
        finally:
            self.file.reload()
        if made is not None:
            self.file.replace(made)

    def _advance(self, done: int) -> None:
        if self.progress is not None:
            self.progress.advance(done)
        if self._advanced is not None:
            self._advanced(done)

    def _changes(self, since: int, target: int) -> Iterator[list[ChangedRow]]:
        """Batches of changes; one that is small is the last."""
        while since < target:
            if self.stopping:
                raise IndexClosed
            changes = self.db.changes_rows(since, BATCH, bodies=True)
            if not changes:
                return
            yield changes
            since = changes[-1].seq

    def _take_in(self, changes: list[ChangedRow], documents: Future[list[tuple[str, Emitted | None]]]) -> None:
        before = self.file.seq
        self.file.apply(documents.result(), changes[-1].seq)
        self._advance(self.file.seq - before)


def mapped(
    definition: Definition, mapper: Mapper, changes: Sequence[ChangedRow]
) -> list[tuple[str, Emitted | None]]:
    """What documents emit, by id; None for those that are deleted or not indexed."""
    indexed = [
        not change.deleted and (definition.include_design or not change.id.startswith("_design/"))
        for change in changes
    ]
    texts = [change.render(_conflicts(change)) for change, wanted in zip(changes, indexed, strict=True) if wanted]
    emitted = iter(mapper(texts) if texts else [])
    return [(change.id, next(emitted) if wanted else None) for change, wanted in zip(changes, indexed, strict=True)]


def _conflicts(change: ChangedRow) -> list[tuple[str, bytes]]:
    """The members by which a map function learns of conflicts; none for nearly all documents."""
    if change.leaves <= 1:
        return []
    found = []
    losers = change.revision_tree().leaves()[1:]
    for name, deleted in (("_conflicts", False), ("_deleted_conflicts", True)):
        revs = [revisions.text(leaf.revision) for leaf in losers if bool(leaf.deleted) is deleted]
        if revs:
            found.append((name, codec.dumps(revs)))
    return found


def script_mapper(functions: DesignFunctions, definition: Definition) -> Mapper:
    """Return the mapper of JavaScript views."""

    def apply(texts: list[bytes]) -> list[Emitted]:
        lines = functions.map_texts(definition.maps, texts, definition.lib)
        return [codec.loads(line) for line in lines]

    return apply


def check_design(ddoc: dict[str, Json], functions: DesignFunctions) -> None:
    """Check the views of a design document before it is stored, as CouchDB does.

    Raises:
        Problem: 400 ``compilation_error`` or ``invalid_design_doc``, naming the view.
    """
    if ddoc.get("language", "javascript") != "javascript" or not isinstance(ddoc.get("views"), dict):
        return
    lib = ddoc["views"].get("lib")
    for name, view in ddoc["views"].items():
        if name == "lib" or not isinstance(view, dict):
            continue
        for part in ("map", "reduce"):
            source = view.get(part)
            if source is None or (isinstance(source, str) and part == "reduce" and source.startswith("_")):
                continue
            if not isinstance(source, str):
                raise Problem(400, "invalid_design_doc", f"`{part}` in {name} must be a string")
            try:
                functions.check([source], lib if part == "map" else None, part)
            except FunctionError as error:
                reason = f"Compilation of the {part} function in the '{name}' view failed: {error.reason}"
                raise Problem(400, "compilation_error", reason) from error
