"""Puts a reducer's daemon together from the site's settings and online.yaml."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from orchestrator.errors import SettingsError
from orchestrator.online.configuration import Online
from orchestrator.online.images import Documents, Files, Gallery
from orchestrator.online.keys import keys_for
from orchestrator.online.outputs import Outputs
from orchestrator.online.progress import FILE
from orchestrator.online.publishing import Publisher
from orchestrator.online.reducing import Places, Reducing
from orchestrator.online.references import References
from orchestrator.online.stores import FOLDER, open_stores
from orchestrator.settings import Settings

RUNS_SENT = 2  # the present run and the one before it are sent to a broadcast that was started again
DOCUMENTS = 10  # periods of pictures as files between two times that those in the database are made anew


def reducing(
    settings: Settings, online: Online, name: str, environ: Mapping[str, str], image_directory: Path | None = None
) -> Callable[[threading.Event], None]:
    """What runs the reducer ``name`` until an event is set.

    Raises SettingsError where there is no such reducer, or its module, a reference or the key cannot be used.
    """
    entry = next((one for one in online.reduce if one.name == name), None)
    if entry is None:
        known = ", ".join(one.name for one in online.reduce) or "none"
        raise SettingsError(f"online.yaml has no reducer {name!r} (it has: {known})")
    keys = keys_for(online.workers.key, online.broadcast.publish)
    folder = Path(settings.folder)
    places = Places.of(folder)
    references = References(online.references, folder, places.runs)
    directory = image_directory or online.images.directory
    takers: list[tuple[Any, float]] = []
    if online.output:
        takers.append((Outputs(online.output), entry.refresh.seconds))
    if directory is not None:
        takers.append((Files(online.images, folder / directory), online.images.every))
    if online.store.kind == "couch":
        takers.append((_documents(settings, online, environ), DOCUMENTS * online.images.every))

    def run(stop: threading.Event) -> None:
        secure = keys.connecting if keys else None
        with Publisher(online.broadcast.publish, secure=secure, runs=RUNS_SENT) as publisher:
            Reducing(
                entry, online, open_stores(online.store, settings, environ), publisher, places,
                compare=references.compare, gallery=Gallery(takers), now=time.monotonic,
                clock=time.time, bell=lambda: _run_named(folder / FOLDER / FILE),
            ).run(stop)  # fmt: skip

    return run


def _run_named(path: Path) -> str:
    """The run that the transform's file names; empty where there is none."""
    try:
        found = orjson.loads(path.read_bytes())
    except (OSError, ValueError):
        return ""
    return str(found.get("run") or "") if isinstance(found, dict) else ""


def _documents(settings: Settings, online: Online, environ: Mapping[str, str]) -> Documents:
    from orchestrator.connect import server

    there = server(settings, environ)
    name = f"{online.store.prefix}_images"

    def create() -> None:
        there.create(name)

    return Documents(there.database(name), create)
