"""A display with a broadcast behind it, for the tests of this folder."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import online_room


@pytest.fixture
def room(tmp_path: Path) -> Iterator[online_room.Room]:
    with online_room.room(tmp_path) as made:
        yield made
