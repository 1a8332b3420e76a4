"""A database of the embedded server and its views, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.embedded.store import Store
from orchestrator.embedded.views import Views


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty folder of databases."""
    made = Store(tmp_path / "data")
    yield made
    made.close()


@pytest.fixture
def views(store: Store) -> Iterator[Views]:
    """The views of its databases."""
    made = Views(lambda: store.functions, lambda db, seq: f"{seq}-{db.token}")
    yield made
    made.close()


@pytest.fixture
def db(store: Store) -> Any:
    """An empty database."""
    return store.create("d")
