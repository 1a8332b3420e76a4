"""What is looked at before the online system starts: each check answers with a word, or refuses in one sentence."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.checks import port_is_free
from orchestrator.children import who_answers
from orchestrator.errors import Conflict, DatabaseError, OrchestratorError, SettingsError, Unauthorised, Unavailable
from orchestrator.online import configuration, sockets
from orchestrator.online.configuration import Online
from orchestrator.online.keys import keys_for
from orchestrator.online.module import Output, made, no_fault
from orchestrator.online.pipeline import Pipeline
from orchestrator.online.rehearsal import check_names
from orchestrator.online.stores import FOLDER
from orchestrator.settings import Settings
from orchestrator.units import size

CONFIGURATION = "online.yaml"
DISK = size("500 MB")  # free; with less, logs, snapshots and an embedded database soon come to a halt
OLDEST = 3  # major version of CouchDB: the stores use its views of changes and its limits


@dataclass(frozen=True)
class Checked:
    """A check and its answer; ``error`` where it refuses."""

    name: str
    said: str = ""
    error: OrchestratorError | None = None


class Checks:
    """All checks of a site, in the order in which their remedies make sense.

    Args:
        settings: of the site.
        environ: the environment, for the database's login.
    """

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        self._settings, self._environ = settings, environ
        self.online: Online | None = None

    def all(self) -> Iterator[Checked]:
        """Each check's answer; without a configuration nothing else can be asked."""
        first = self._one("configuration", self._configuration)
        yield first
        if self.online is None:
            return
        online = self.online
        checks: tuple[tuple[str, Callable[[Online], str]], ...] = (
            ("modules", self._modules),
            ("input", self._input),
            ("keys", self._keys),
            ("references", self._references),
            ("ports", self._ports),
            ("database", self._database),
            ("disk", self._disk),
        )
        for name, check in checks:
            yield self._one(name, lambda check=check: check(online))  # type: ignore[misc]

    def must_pass(self) -> Online:
        """The configuration, if all checks pass. Raises the first one's error, a sentence."""
        for one in self.all():
            if one.error is not None:
                raise one.error
        assert self.online is not None
        return self.online

    def _one(self, name: str, check: Callable[[], str]) -> Checked:
        try:
            return Checked(name, check())
        except OrchestratorError as error:
            return Checked(name, error=error)

    def _configuration(self) -> str:
        path = self._settings.folder / CONFIGURATION
        self.online = configuration.load(path)
        if not self.online.reduce:
            return f"{path}, without reducers: nothing will be shown"
        return str(path)

    def _modules(self, online: Online) -> str:
        from orchestrator.online.starting_transform import made_input

        made_input(online.input)
        pipeline = Pipeline(online.map)
        check_names(online)  # makes every reducer
        for output in online.output:
            made(output.module, Output, output.settings)
        count = 1 + len(pipeline.classes) + len(online.reduce) + len(online.output)
        return f"{count} can be loaded and have their settings"

    def _input(self, online: Online) -> str:
        from orchestrator.online.starting_transform import made_input

        source = made_input(online.input)
        with no_fault(f"the input {online.input.module} cannot be used"):
            return source.check() or online.input.module

    def _keys(self, online: Online) -> str:
        keys = keys_for(
            online.workers.key, online.workers.address, online.broadcast.publish, online.broadcast.subscribe
        )
        if keys is not None:
            return f"{online.workers.key}"
        open_ones = [
            address for address in (online.workers.address, online.broadcast.publish) if address.startswith("tcp://")
        ]
        if open_ones:
            return (
                f"none: every account of this machine may join at {open_ones[0]}; leave the address out, or name a "
                "key in `workers.key`, if there are some that you do not trust"
            )
        return "none needed: closed to other accounts"

    def _references(self, online: Online) -> str:
        from orchestrator.online import references

        references.check(online, Path(self._settings.folder))
        return f"{len(online.references)} fit" if online.references else "none"

    def _ports(self, online: Online) -> str:
        addresses = {
            "workers.address": online.workers.address, "broadcast.publish": online.broadcast.publish,
            "broadcast.subscribe": online.broadcast.subscribe,
        }  # fmt: skip
        for name, address in addresses.items():
            sockets.must_be_free(address, name)
        wanted = [(name, *_host_and_port(address)) for name, address in addresses.items()]
        seen: dict[int, str] = {}
        for name, host, port in [*wanted, ("web_port", online.web_host, online.web_port)]:
            if port == 0:
                continue
            if port in seen:
                raise SettingsError(f"{name} and {seen[port]} both want port {port}: give one of them another")
            seen[port] = name
            _must_be_free(name, host, port)
        return ", ".join(str(port) for port in seen)

    def _database(self, online: Online) -> str:
        if online.store.kind == "memory":
            return "not used: spills wait in memory and are gone when the transform ends"
        from orchestrator.connect import server

        url = self._settings.url
        answer = who_answers(url)
        if answer.kind == "nothing":
            raise Unavailable(
                f"no database answers at {url}: start it (`orchestrator up` starts the embedded one), "
                "or set `store: {kind: memory}`"
            )
        if answer.kind == "stranger":
            raise Conflict(f"{answer.text} answers at {url}, and that is no CouchDB: correct `url`")
        there = server(self._settings, self._environ, timeout=10.0)
        version = str(there.info().get("version", "?"))
        major = version.split(".")[0]
        if answer.kind == "couchdb" and major.isdigit() and int(major) < OLDEST:
            raise SettingsError(f"the database at {url} is CouchDB {version}; version {OLDEST} or later is needed")
        probe = f"{online.store.prefix}_check"
        try:
            there.create(probe)
            there.delete(probe)
        except Unavailable:
            raise
        except DatabaseError as error:
            raise Unauthorised(
                f"no database can be made at {url}, and each run needs one of its own: {error}; "
                "give this account the role of a server's administrator, or set `store: {kind: memory}`"
            ) from error
        return f"{url}, version {version}, can be written"

    def _disk(self, online: Online) -> str:
        folders = [self._settings.folder / FOLDER, self._settings.logs]
        if online.images.directory is not None:
            folders.append(online.images.directory)
        least = None
        for folder in folders:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                free = shutil.disk_usage(folder).free
            except OSError as error:
                raise SettingsError(f"the folder {folder} cannot be made: {error.strerror}") from None
            if not os.access(folder, os.W_OK | os.X_OK):
                raise SettingsError(f"the folder {folder} cannot be written: give this account write access")
            if free < DISK:
                raise OrchestratorError(
                    f"only {free / 1e6:.0f} MB are free for {folder}; {DISK / 1e6:.0f} MB are needed: remove something"
                )
            least = free if least is None else min(least, free)
        return f"{(least or 0) / 1e9:.1f} GB free"


def _must_be_free(name: str, host: str, port: int) -> None:
    """Raises Conflict for a port in use, SettingsError for an address where this machine cannot listen."""
    if port_is_free(host, port):
        return
    if not port_is_free(host, 0):
        what = "web_host" if name == "web_port" else name
        raise SettingsError(f"this machine cannot listen at {host!r} ({what}): it must be an address of its own")
    if port < 1024 and os.geteuid() != 0:
        raise SettingsError(f"this account may not listen at port {port} ({name}): choose one above 1023")
    raise Conflict(f"port {port} ({name}) is in use by another program: end that, or choose another port")


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    if not address.startswith("tcp://") or not port.isdigit():
        return "127.0.0.1", 0
    return {"*": "0.0.0.0", "localhost": "127.0.0.1"}.get(host, host.strip("[]")), int(port)
