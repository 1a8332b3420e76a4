"""What an output says of its own origin: the note in a ROOT file, the list in a bundle for tape."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

from orchestrator.errors import DataError

ROOT_MAGIC = b"root"
#: A note or a list that is longer (bytes) is none of ours.
LONGEST = 64 * 1024 * 1024


def of_itself(path: Path) -> dict[str, Any] | None:
    """The note that a step left in the file ``path``; None where it has none.

    Raises DataError for a file that cannot be read, or a ROOT file that is damaged.
    """
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if head == ROOT_MAGIC:
        from procs.rootio import PROVENANCE, opened, text

        with opened(path) as root:
            found = text(root, PROVENANCE)
        return found if isinstance(found, dict) else None
    if path.name.endswith(".tar"):
        return _of_bundle(path)
    return None


def _of_bundle(path: Path) -> dict[str, Any] | None:
    from procs.archive import LIST

    try:
        with tarfile.open(path, "r|") as tar:
            first = tar.next()
            if first is None or first.name != LIST or first.size > LONGEST:
                return None
            content = tar.extractfile(first)
            found = json.loads(content.read()) if content else None
    except (tarfile.TarError, OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
