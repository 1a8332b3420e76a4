"""What is installed at a farm: versions side by side in its spool, and which of them new jobs use. Pure.

    software/<version>-<digest>/lib/       orchestrator and procs
                               steps/      the site's own modules
                               packages/   what steps need besides, where it was sent along
                               manifest.json
    software/<prefix>current.json          the version that new jobs of one daemon use (`Installed`)

A version's folder appears whole, under its last name, and never changes. Job scripts name it, so a version goes only
when no job in the spool does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

#: Of the record and the manifest; another one is refused.
FORMAT = 1
MANIFEST = "manifest.json"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,99}\Z")


def folder(spool: str) -> str:
    """Where the versions are."""
    return f"{spool}/software"


def record(spool: str, prefix: str) -> str:
    """The file that says which version the jobs whose names begin with ``prefix`` use."""
    return f"{folder(spool)}/{prefix}current.json"


@dataclass(frozen=True)
class Installed:
    """One version: its name, its orchestrator, its folder, how Python is called there, since when (ISO 8601)."""

    name: str
    version: str
    folder: str
    python: tuple[str, ...]
    installed: str
    format: int = FORMAT

    @property
    def path(self) -> tuple[str, ...]:
        """For a job's ``PYTHONPATH``."""
        return (f"{self.folder}/lib", f"{self.folder}/packages")

    @property
    def modules(self) -> tuple[str, ...]:
        """Where a job looks last: nothing of the site's own hides a library."""
        return (f"{self.folder}/steps",)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> Installed:
        """Raises ValueError for what is no such record."""
        if not isinstance(data, Mapping) or data.get("format") != FORMAT:
            raise ValueError("it is no record of an installed version that this orchestrator reads")
        words = data.get("python")
        texts = [data.get(name) for name in ("name", "version", "folder", "installed")]
        if not isinstance(words, list) or not words or not all(isinstance(one, str) for one in [*texts, *words]):
            raise ValueError("it is not whole")
        name, version, place, installed = map(str, texts)
        if not _NAME.match(name) or not place.startswith("/") or not place.endswith(f"/{name}"):
            raise ValueError(f"{name!r} in {place!r} can be no version")
        return cls(name, version, place, tuple(words), installed)
