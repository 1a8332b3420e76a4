"""From a site's folder and its ``online.yaml`` to a transform, or a worker, that runs."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson
import zmq

from orchestrator.children import command
from orchestrator.errors import Exit
from orchestrator.online import configuration
from orchestrator.online.coordinator import Coordinator, Outside
from orchestrator.online.crew import Crew
from orchestrator.online.keys import keys_for
from orchestrator.online.module import Input, made
from orchestrator.online.progress import FILE, Progress
from orchestrator.online.publishing import Publisher
from orchestrator.online.stores import FOLDER, serve_stores
from orchestrator.online.stores.retention import Pruning
from orchestrator.settings import Settings

LEFT_ALONE = frozenset({int(Exit.OK), int(Exit.SETTINGS), int(Exit.USAGE)})  # such ends no restart mends


def local_names(online: configuration.Online) -> list[str]:
    """What the workers on this machine are called."""
    return [f"local-{number}" for number in range(1, online.workers.local + 1)]


def made_input(entry: configuration.ModuleEntry) -> Input:
    """The input as configured. Raises SettingsError."""
    return made(entry.module, Input, entry.settings, logging.getLogger(entry.module))


def transform(
    settings: Settings, online: configuration.Online, environ: Mapping[str, str], stopping: Callable[[], bool],
    *, until_end: bool = False, ready: Callable[[str], None] = lambda address: None,
) -> None:  # fmt: skip
    """Run the transform of a site until ``stopping`` says so. ``ready`` is told the address for workers.

    Raises:
        SettingsError: something of the configuration cannot be used, or workers differ.
        Conflict: the workers' port is taken, or a transform of this site runs already.
        DatabaseError: the store refuses us.
        FormatError, DataError: the input cannot be read on.
    """
    keys = keys_for(online.workers.key, online.workers.address)
    broadcast_keys = keys_for(online.workers.key, online.broadcast.publish)
    input_ = made_input(online.input)
    stores, close = serve_stores(online.store, settings, environ)
    folder = settings.folder / FOLDER
    with contextlib.ExitStack() as stack:
        stack.callback(close)
        stack.enter_context(Pruning(stores, online.store.keep, online.store.most))
        context = stack.enter_context(zmq.Context())
        if keys is not None:
            stack.enter_context(keys.door(context))
        publisher = stack.enter_context(
            Publisher(online.broadcast.publish, secure=broadcast_keys.connecting if broadcast_keys else None)
        )

        def publish(kind: str, run: str, header: dict[str, Any]) -> None:
            publisher.publish(kind, run, "", header)

        crew = Crew(local_names(online), lambda name: _local(settings, online, name), settings.logs,
                    log_size=settings.log_size * 1e6)  # fmt: skip
        outside = Outside(online, stores, input_, _about(online.input), publish, keys.listening if keys else None)
        names = [one.name for one in online.reduce]
        progress = Progress(folder / FILE, {"title": online.title, "input": online.input.module}, names)
        coordinator = Coordinator(outside, crew, progress, context, drain=settings.drain, until_end=until_end)
        ready(coordinator.address)
        coordinator.run(stopping)


def _local(settings: Settings, online: configuration.Online, name: str) -> tuple[str, ...]:
    words = ["online", "worker", "--connect", _reachable(online.workers.address), "--name", name, "--alone"]
    if online.workers.key is not None:
        words += ["--key", str(online.workers.key)]
    return command(settings, *words)


def _reachable(address: str) -> str:
    """Where this machine's own workers connect."""
    for everywhere in ("tcp://*:", "tcp://0.0.0.0:"):
        if address.startswith(everywhere):
            return f"tcp://127.0.0.1:{address.removeprefix(everywhere)}"
    return address


def _about(entry: configuration.ModuleEntry) -> str:
    """A hash of an input and its settings."""
    text = orjson.dumps([entry.module, entry.settings], option=orjson.OPT_SORT_KEYS, default=str)
    return hashlib.sha256(text).hexdigest()[:16]


class Team:
    """Workers on this machine for a transform on another one: so many processes, each replaced when it dies.

    One that was refused, or whose transform has ended, is not started again.
    """

    def __init__(self, names: list[str], command: Callable[[str], tuple[str, ...]], logs: Path) -> None:
        self._crew = Crew(names, command, logs)
        self._over: dict[str, int] = {}

    def run(self, stopping: Callable[[float], bool], clock: Callable[[], float]) -> int:
        """Until all have ended for good or ``stopping(seconds)``, which waits so long, says so. The worst exit code."""
        try:
            while not stopping(0.2):
                for ended in self._crew.tick(clock(), {}):
                    if ended.code in LEFT_ALONE:
                        self._over[ended.name] = ended.code
                        self._crew.dismiss(ended.name)
                    logging.getLogger(__name__).info("the worker %s %s", ended.name, ended.how)
                if not self._crew.places:
                    break
        finally:
            end = clock() + 5.0
            while not self._crew.stop() and clock() < end:
                stopping(0.05)
            self._crew.end()
        return max(self._over.values(), default=0)

