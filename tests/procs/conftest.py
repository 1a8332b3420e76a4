"""What the steps' tests share: a Work to hand to a step, and the folder of real files."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.step import Work


@pytest.fixture
def work(tmp_path: Path) -> Callable[..., Work]:
    """Make a Work: ``work(source, **settings)``; outputs go below ``tmp_path/data``."""

    def make(source: Path | str | None, **settings: Any) -> Work:
        scratch = tmp_path / "scratch"
        scratch.mkdir(exist_ok=True)
        (tmp_path / "data").mkdir(exist_ok=True)
        text = None if source is None else str(source)
        return Work(settings, tmp_path / "data", scratch, uuid.uuid4().hex, logging.getLogger("step"), text)

    return make


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A raw file, as the DAQ leaves it."""
    path = tmp_path / "daq" / "ma22a000_003"
    path.parent.mkdir()
    path.write_bytes(os.urandom(200_000))
    return path


@pytest.fixture
def shared_data() -> Path:
    """The folder of real files, which is not part of the repository."""
    default = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("ORCHESTRATOR_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"needs the folder of real files: set ORCHESTRATOR_SHARED_DATA ({folder} is not there)")
    return folder


def leftovers(folder: Path) -> list[str]:
    """Unfinished files below a folder: there must be none."""
    return [str(path) for path in folder.rglob("*.part")]
