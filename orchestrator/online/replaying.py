"""A recorded run once more: which files it has, what it is called this time, and how it gets into the online system."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import Conflict, DatabaseError, NotFound, OrchestratorError, SettingsError, Unavailable
from orchestrator.online import progress
from orchestrator.online.configuration import ModuleEntry, Online
from orchestrator.online.module import Input, find
from orchestrator.online.reducing import Places
from orchestrator.online.spill import Item, StartOfRun
from orchestrator.online.store import RunRecord, Stores
from orchestrator.online.stores import FOLDER, open_stores
from orchestrator.online.stores.names import checked_run
from orchestrator.settings import Settings
from orchestrator.supervise import Supervisor
from procs.online.inputs import replay
from procs.online.inputs.date import DateInput
from procs.online.inputs.files import Listing, order, run_of
from procs.online.inputs.socket import SocketInput

LOOK = 0.5  # s between two looks whether the run is over
QUIET = 60.0  # s without a change after which the DAQ does not write the newest file any more


@dataclass
class Plan:
    """What is replayed. ``entry``: the input that does it, for a system of its own; ``suffix``: of the new names."""

    files: list[str]
    entry: ModuleEntry
    name: str
    suffix: str
    speed: float

    def source(self) -> Input:
        """The input that reads the files."""
        settings = self.entry.settings
        return replay.source(self.files, settings["module"], settings["settings"])

    def items(self, source: Input, wait: Callable[[float], Any]) -> Iterator[Item | None]:
        """Its items, under their new names, when their time has come."""
        renaming = replay.Renaming(self.name, lambda run: f"{run}.{self.suffix}")
        for item in replay.paced(source.items(None), self.speed, wait=wait):
            yield None if item is None else renaming(item)


def plan(
    what: Iterable[str], online: Online, settings: Settings, environ: Mapping[str, str], *, speed: float, name: str = ""
) -> Plan:
    """What is to be done for these words: files, or runs.

    Raises:
        NotFound: a word is neither.
        Conflict: there is a run of the name that is asked for.
    """
    files = [file for word in what for file in files_of(word, online, settings, environ)]
    module = replay.reader_of(files[0])
    own = dict(online.input.settings) if online.input.module == module else {}
    own = {key: value for key, value in own.items() if key not in ("files", "grow", "begin", "poll", "settle", "quiet")}
    taken = names(online, settings, environ)
    if name and checked_run(name) in taken:
        raise Conflict(f"there is a run {name} already, which a replay would go into: choose another name with --as")
    suffix = f"replay{_number(files, module, own, taken)}"
    entry = {"files": files, "run": name, "suffix": suffix, "speed": speed, "module": module, "settings": own}
    made = ModuleEntry(module="procs.online.inputs.replay:ReplayInput", settings=entry)
    return Plan(files, made, name, suffix, speed)


def files_of(word: str, online: Online, settings: Settings, environ: Mapping[str, str]) -> list[str]:
    """The files that a word means: a path, or a run whose files the input or the run database knows.

    Raises NotFound.
    """
    path = Path(word)
    if path.is_file():
        return [str(path.absolute())]
    if path.is_dir() or any(mark in word for mark in "*?["):
        listing = Listing({"files": f"{word}/*" if path.is_dir() else word, "begin": "all"}, "a replay")
        if found := listing.found():
            return found
        raise NotFound(f"there is no file {word}")
    if found := replay.files_of_run(word, online.input.settings.get("files") or ()):
        return found
    asked = "the run database knows none"
    try:
        if found := _of_database(word, settings, environ):
            return found
    except DatabaseError as error:
        asked = f"the run database could not be asked ({error})"
    raise NotFound(
        f"{word!r} is no file, the input has no files of a run of that name, and {asked}: name the files of the run"
    )


def names(online: Online, settings: Settings, environ: Mapping[str, str]) -> set[str]:
    """The names of all runs that have left something: spills, or a snapshot. Raises DatabaseError."""
    found: set[str] = set()
    try:
        found = {one.run for one in open_stores(online.store, settings, environ).runs()}
    except Unavailable:
        if online.store.kind != "memory":  # that of a transform which does not run has nothing
            raise
    runs = Places.of(Path(settings.folder)).runs
    return found | ({one.name for one in runs.iterdir()} if runs.is_dir() else set())


def target(online: Online, to: str) -> str:
    """How the running system can be fed: ``socket`` or ``file``. Raises SettingsError where it cannot."""
    kind = find(online.input.module, Input)
    possible = ""
    if issubclass(kind, SocketInput):
        possible = "socket"
    elif issubclass(kind, DateInput) and online.input.settings.get("grow"):
        possible = "file"
    if possible and to in ("auto", possible):
        return possible
    wanted = {"socket": "SocketInput", "file": "DateInput with `grow: true`"}.get(to, "SocketInput, or a growing one")
    raise SettingsError(
        f"the online system runs with {online.input.module} as its input, which cannot be fed"
        f"{' so' if possible else ''} (needed is {wanted}): stop it, and the replay brings its own input"
    )


def must_be_idle(folder: Path) -> None:
    """Raises Conflict while a run is on: what is replayed would end it, and the rest of it would come too late."""
    said = progress.read(folder / FOLDER / progress.FILE) or {}
    if said.get("run"):
        raise Conflict(f"run {said['run']} is on, which a replay would end: replay when it is over")


def growing_path(online: Online, now: float) -> Callable[[str], Path]:
    """Where a run's file must be written so that the running input takes it up next.

    Raises Conflict while the DAQ writes, SettingsError where there is no folder for it.
    """
    listing = Listing({**DateInput.defaults, **online.input.settings}, "the input")
    found = listing.found()
    if found and now - Path(found[-1]).stat().st_mtime < QUIET:
        raise Conflict(f"the DAQ writes {found[-1]}: replay when it has been quiet for {QUIET:.0f} s, or to a socket")
    given = online.input.settings.get("files", "")
    pattern = str(given if isinstance(given, str) else next(iter(given), ""))
    folder = Path(found[-1]).parent if found else Path(pattern).parent
    if any(mark in str(folder) for mark in "*?[") or not folder.is_dir():
        raise SettingsError(f"there is no folder for the replayed file: {folder} is none. Make it, and one file in it")
    stem = run_of(found[-1]) if found else "replay"

    def path_of(run: str) -> Path:
        # Named after the newest file, so that it comes next in the order of names.
        return folder / f"{stem}.as-{run}.000"

    return path_of


def wait_for(
    stores: Stores, runs: Iterable[str], reducers: bool, waiting: Callable[[float], bool]
) -> dict[str, RunRecord] | None:
    """The records of runs once they are over; None where ``waiting(seconds)`` says to stop."""
    while True:
        found = over(stores, runs, reducers)
        if found is not None:
            return found
        if waiting(LOOK):
            return None


def over(stores: Stores, runs: Iterable[str], reducers: bool) -> dict[str, RunRecord] | None:
    """The records of these runs if all of them are over: final, or ended where there are no reducers."""
    found: dict[str, RunRecord] = {}
    for run in runs:
        try:
            record = stores.of(run).record()
        except DatabaseError:
            return None
        if record is None or record.state not in (("final",) if reducers else ("ended", "final")):
            return None
        found[run] = record
    return found


class Alone:
    """A system of its own for the time of a replay: everything that online.yaml has, with the recorded files as input.

    The transform runs in this process, the rest as its children.
    """

    def __init__(self, made: Plan, online: Online, settings: Settings, environ: Mapping[str, str]) -> None:
        self._plan, self._settings, self._environ = made, settings, environ
        self._online = online.model_copy(update={"input": made.entry})
        self._next = 0.0
        self._records: dict[str, RunRecord] | None = None
        self._stores = open_stores(online.store, settings, environ)

    def run(self, stopping: Callable[[], bool], runs: list[str], say: Callable[[str], None]) -> dict[str, RunRecord]:
        """Until the runs are over, or ``stopping`` says so. Returns their records, as far as they are over.

        Raises Conflict where the site's system runs, and what the transform raises.
        """
        from orchestrator.online.starting_transform import transform
        from orchestrator.online.system import page_of, specs, take
        from orchestrator.runtime import Lock

        folder = Path(self._settings.folder) / FOLDER
        lock = Lock(folder)
        take(lock, self._settings)
        try:
            children = [
                one for one in specs(self._settings, self._online, lambda: True) if one.name != "online-transform"
            ]
            supervisor = Supervisor(
                children, logs=self._settings.logs, runtime=folder, drain=self._settings.drain,
                about={"folder": str(self._settings.folder), "page": page_of(self._online), "replay": True},
            )  # fmt: skip
            say(f"pages {page_of(self._online)}")

            def ends() -> bool:
                return stopping() or self._over(supervisor, runs)

            try:
                transform(self._settings, self._online, self._environ, ends)
            finally:
                supervisor.stop(time.monotonic())
                while not supervisor.over:
                    supervisor.tick(time.monotonic())
                    time.sleep(0.05)
        finally:
            lock.release()
        return self._records or {}

    def _over(self, supervisor: Supervisor, runs: list[str]) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + LOOK
        supervisor.tick(now)
        for child in supervisor.children:
            if child.state == "given up" and child.spec.name.startswith("online-reduce"):
                raise OrchestratorError(f"{child.spec.name} {child.ended} (see {child.log})")
        self._records = over(self._stores, runs, bool(self._online.reduce))
        return self._records is not None


def runs_in(made: Plan) -> list[str]:
    """The new names of the runs that the files hold, in order. Reads the files through, of DATE the headers alone."""
    renaming = replay.Renaming(made.name, lambda run: f"{run}.{made.suffix}")
    for item in made.source().items(None):
        if item is not None:
            renaming(item)
    return list(renaming.runs.values())


def _number(files: list[str], module: str, settings: Mapping[str, Any], taken: set[str]) -> int:
    """The first number with which all runs get names that none has."""
    runs = {item.run for item in replay.source(files, module, settings).items(None) if isinstance(item, StartOfRun)}
    number = 1
    while any(f"{run}.replay{number}" in taken for run in runs):
        number += 1
    return number


def _of_database(run: str, settings: Settings, environ: Mapping[str, str]) -> list[str]:
    """The files of a run's documents, those that are there, in order. Raises DatabaseError."""
    from orchestrator.connect import run_database
    from orchestrator.filenames import path_of

    documents = run_database(settings, environ).find({"run_name": run}, limit=10_000)
    paths = [path_of(one) for one in documents if one.get("file")]
    return sorted((str(path) for path in paths if path.is_file()), key=order)
