"""Why a daemon has ended by itself, kept on the disk of its site: the database could not be told.

A daemon whose login is refused, say, stops rather than have its account locked, and can leave no word in the database.
Here it leaves one beside the spool, where `orchestrator explain` and the page of the same site find it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.capture import safe_file_name
from orchestrator.documents import REASON_LIMIT, iso
from orchestrator.errors import OrchestratorError

#: The folder in a site's spool.
FOLDER = "last-words"


@contextlib.contextmanager
def left(spool: Path, daemon: str, clock: Any) -> Iterator[None]:
    """While a daemon works: the error that ends it is kept as its last words; nothing else is."""
    try:
        yield
    except OrchestratorError as error:
        said = {
            "daemon": daemon, "at": iso(clock()), "host": socket.gethostname(), "pid": os.getpid(),
            "reason": str(error)[:REASON_LIMIT],
        }  # fmt: skip
        with contextlib.suppress(OSError):  # the error itself is what matters
            _keep(spool / FOLDER, daemon, said)
        raise


def _keep(folder: Path, daemon: str, said: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=folder)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(said, file)
    Path(name).rename(folder / f"{safe_file_name(daemon)}.json")


def heard(spool: Path | None) -> tuple[dict[str, Any], ...]:
    """The last words of all daemons of a site that have left any: ``{daemon, at, host, pid, reason}``."""
    if spool is None:
        return ()
    found = []
    for path in sorted((spool / FOLDER).glob("*.json")):
        with contextlib.suppress(OSError, ValueError):
            said = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(said, dict):
                found.append(said)
    return tuple(found)
