"""The file ``online.yaml``: what is read, what is done with it, and where it is shown.

Every error names the place in the file and the remedy. What a field is for stands in its ``description`` here and
nowhere else: ``docs/online.md`` is made from these models.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
import yaml
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError, field_validator, model_validator

from orchestrator.errors import SettingsError
from orchestrator.online import sockets
from orchestrator.online.words import is_name
from orchestrator.units import Bytes, Model, Name, Seconds


def _endpoint(value: str) -> str:
    if not re.match(r"(tcp://[^\s/]+:([0-9]{1,5}|\*)|ipc://[^\x00-\x1f]+)\Z", value):
        raise ValueError(f"{value!r} is no address: write tcp://HOST:PORT, such as tcp://127.0.0.1:5610")
    port = value.rpartition(":")[2]
    if value.startswith("tcp://") and port.isdigit() and int(port) > 65535:
        raise ValueError(f"{value!r} is no address: a port is 65535 at most")
    return value


def _worker(value: str) -> str:
    if not is_name(value):
        raise ValueError(f"{value[:100]!r} cannot be a worker's name: use up to 100 printable characters")
    return value


Endpoint = Annotated[str, AfterValidator(_endpoint)]


class ModuleEntry(Model):
    """A module and its settings."""

    module: str = Field(description="a class, as 'package.module:Class'")
    settings: dict[str, Any] = Field(default_factory=dict, description="handed to the module as they are")


Maps = tuple[ModuleEntry | tuple[ModuleEntry, ...], ...]


class Refresh(Model):
    """How often a reducer's plots are made anew: whichever comes first, and only if there is something new."""

    spills: int = Field(0, ge=0, description="after so many spills; 0: the time alone decides")
    seconds: Seconds = Field(1.0, gt=0, description="at the latest after this time")


class Reducer(ModuleEntry):
    """A reducer, in a process of its own."""

    name: Name = Field(description="unique; names its process, its log and its saved state")
    refresh: Refresh = Field(default_factory=Refresh, description="how often its plots are made anew")


class Workers(Model):
    """Who runs the map modules."""

    local: int = Field(2, ge=0, le=256, description="worker processes on this machine")
    address: Endpoint = Field(
        "ipc://workers",
        description="where workers report; `ipc://NAME` is for this site's account on this machine alone, "
        "`tcp://HOST:PORT` beyond loopback needs a key",
    )
    key: Path | None = Field(
        None, description="file with the secret (mode 0600) that workers of other machines must have, too"
    )
    remote: tuple[Annotated[str, AfterValidator(_worker)], ...] = Field(
        (), description="names of workers on other machines that must be there before a run may start"
    )
    timeout: Seconds = Field(60.0, gt=0, description="a spill that takes longer is failed and its worker replaced")
    tries: int = Field(3, ge=1, le=20, description="a spill that so many workers have died of is failed")


class StoreSettings(Model):
    """Where the results of the map modules wait for the reducers, and for how long."""

    kind: Literal["couch", "memory"] = Field(
        "couch", description="a database for each run, or the transform's own memory (lost when it ends)"
    )
    prefix: Name = Field("spills", description="the databases' names begin with this")
    inline: Bytes = Field(
        "64 KiB", description="results above this size are files in the site's folder `online`, by reference",
        validate_default=True,
    )  # fmt: skip
    keep: Seconds = Field(7 * 86400.0, ge=0, description="a run's spills are removed so long after its snapshot")
    most: int = Field(20, ge=1, description="and no more than so many finished runs are kept, the oldest go first")


class Broadcast(Model):
    """The way of plots to viewers, in memory."""

    publish: Endpoint = Field("ipc://publish", description="where reducers and the transform send to")
    subscribe: Endpoint = Field(
        "ipc://subscribe",
        description="where web servers listen; for those on other machines `tcp://HOST:PORT` and a key",
    )


class Images(Model):
    """Pictures as files, for those who want files."""

    directory: Path | None = Field(None, description="where they go; without it none are written while a run goes on")
    formats: tuple[Literal["png", "svg", "pdf", "json"], ...] = Field(("png",), description="which files of each plot")
    prefix: str = Field("", pattern=r"^[A-Za-z0-9_.-]{0,40}$", description="in front of each file's name")
    number: bool = Field(False, description="a running number in the name, so that no picture replaces an earlier one")
    every: Seconds = Field(30.0, gt=0, description="not more often than this")


class Reference(Model):
    """What a plot is compared with."""

    plots: str = Field("*", description="pattern of the names of plots")
    file: Path | None = Field(None, description="a ROOT file, such as a run's snapshot")
    run: str = Field("", description="or a run whose snapshot is there")
    name: str = Field("", description="the histogram in the file; empty: the plot's own name")
    test: Literal["ks", "chi2"] = Field("ks", description="Kolmogorov-Smirnov or chi-squared, each as a probability")
    warning: float = Field(0.05, ge=0, le=1, description="a probability below this is a warning")
    bad: float = Field(0.001, ge=0, le=1, description="and below this bad")
    entries: float = Field(100, ge=0, description="no verdict with fewer entries")

    @model_validator(mode="after")
    def _one_source(self) -> Reference:
        if (self.file is None) == (not self.run):
            raise ValueError("a reference is either a file or a run")
        if self.bad > self.warning:
            raise ValueError("`bad` is the lower threshold, `warning` the higher one")
        return self


class Canvas(Model):
    """Plots that are shown together."""

    name: str = Field(min_length=1, max_length=60, description="as people call it")
    plots: tuple[str, ...] = Field(min_length=1, description="patterns of the names of plots, in order")
    group: Literal["shifter", "expert"] = Field("shifter", description="who it is made for")
    help: str = Field("", description="what one should see, and what to do when one does not")


class Online(Model):
    """The whole file."""

    title: str = Field("Online", max_length=80, description="what the pages call it: the experiment's name, say")
    tag: str = Field("", max_length=60, description="goes into every plot's metadata")
    input: ModuleEntry = Field(description="where spills come from")
    map: Maps = Field((), description="what is done with each spill, in order; a list within the list is a group")
    reduce: tuple[Reducer, ...] = Field((), description="what is made of them")
    output: tuple[ModuleEntry, ...] = Field((), description="where plots go besides the pages")
    workers: Workers = Field(default_factory=Workers, description="who runs the map modules")
    store: StoreSettings = Field(default_factory=StoreSettings, description="where results wait for the reducers")
    broadcast: Broadcast = Field(default_factory=Broadcast, description="the way of plots to viewers")
    images: Images = Field(default_factory=Images, description="pictures as files")
    references: tuple[Reference, ...] = Field((), description="the first whose pattern fits a plot is its reference")
    canvases: tuple[Canvas, ...] = Field((), description="sets of plots; without any, one for each reducer")
    end_of_run: Seconds = Field(
        60.0, gt=0, description="a run without trailer ends when so long nothing has come, or with the next run"
    )
    web_port: int = Field(8090, ge=1, le=65535, description="port of the control-room pages")
    web_host: str = Field("127.0.0.1", description="their address; anything but loopback shows them to the network")

    @field_validator("reduce")
    @classmethod
    def _unique(cls, value: tuple[Reducer, ...]) -> tuple[Reducer, ...]:
        names = [one.name for one in value]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two reducers are called {twice[0]!r}: give each a name of its own")
        return value

    def maps(self) -> tuple[ModuleEntry, ...]:
        """The map modules in order, groups opened."""
        return opened(self.map)

    def digest(self, versions: dict[str, str]) -> str:
        """A hash of what a worker does: the map modules, their settings, and the versions of all that runs them."""
        return digest(self.map, versions)


def opened(maps: Maps) -> tuple[ModuleEntry, ...]:
    """The map modules in order, groups opened."""
    found: list[ModuleEntry] = []
    for entry in maps:
        found.extend([entry] if isinstance(entry, ModuleEntry) else entry)
    return tuple(found)


def digest(maps: Maps, versions: dict[str, str]) -> str:
    """A hash of what a worker does: the map modules, their settings, and the versions of all that runs them."""
    said = [[one.module, one.settings] for one in opened(maps)]
    text = orjson.dumps([said, versions], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text).hexdigest()[:16]


def loads_address(text: str) -> str:
    """An address as in the file. Raises SettingsError for what is none."""
    try:
        return _endpoint(text)
    except ValueError as error:
        raise SettingsError(str(error)) from None


def maps_as_json(maps: Maps) -> Any:
    """The map modules as a worker is sent them."""
    return _MAPS.dump_python(maps, mode="json")


def maps_from_json(value: Any) -> Maps:
    """And as it takes them. Raises ValueError."""
    return _MAPS.validate_python(value)


_MAPS: TypeAdapter[Maps] = TypeAdapter(Maps)


def load(path: Path) -> Online:
    """Read ``online.yaml``. Raises SettingsError with the place and the remedy."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SettingsError(f"{path} is not there: write one, or see docs/online.md for an example") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from error
    return _settled(loads(text, str(path)), path.absolute().parent)


def _settled(online: Online, folder: Path) -> Online:
    """Paths are taken from the file's folder, so that every process means the same wherever it was started."""

    def absolute(path: Path | None) -> Path | None:
        return None if path is None else folder / path.expanduser()

    return online.model_copy(
        update={
            "workers": online.workers.model_copy(
                update={
                    "key": absolute(online.workers.key), "address": sockets.settled(online.workers.address, folder)
                }
            ),
            "broadcast": Broadcast(
                publish=sockets.settled(online.broadcast.publish, folder),
                subscribe=sockets.settled(online.broadcast.subscribe, folder),
            ),
            "images": online.images.model_copy(update={"directory": absolute(online.images.directory)}),
            "references": tuple(one.model_copy(update={"file": absolute(one.file)}) for one in online.references),
        }
    )


def loads(text: str, where: str = "online.yaml") -> Online:
    """The same from a text."""
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"{where} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise SettingsError(f"{where} must begin with names such as `input:`")
    try:
        return Online.model_validate(data)
    except ValidationError as error:
        raise SettingsError(f"{where}: {_sentence(error)}") from error


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if not re.match(r"ModuleEntry|tuple", str(part)))
    said = {
        "extra_forbidden": "there is no such name here: correct or remove it",
        "missing": "is missing: add it",
    }.get(str(first["type"]), str(first["msg"]).removeprefix("Value error, "))
    return f"{place or 'the file'}: {said}"
