"""A real database for the page: the embedded server, with the couchapp made from the sample's chain."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.chain import Chain
from orchestrator.couch import Database
from orchestrator.embedded.testing import EmbeddedServer

sys.path.insert(0, str(Path(__file__).parent))  # page_sample, page_double and page_database, which these tests share

_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One server for all tests of the page."""
    with EmbeddedServer(tmp_path_factory.mktemp("db")) as server:
        yield server


@pytest.fixture
def new_database(embedded: EmbeddedServer) -> Callable[[Chain, list[dict[str, Any]]], Database]:
    """Makes a database with a chain's couchapp and some documents in it."""

    def make(chain: Chain, documents: list[dict[str, Any]]) -> Database:
        from page_database import populated

        return populated(embedded, f"page{next(_NUMBERS)}", chain, documents)

    return make


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder that plots and logs may be shown from, beside one they may not."""
    root = tmp_path / "files"
    root.mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    return root


@pytest.fixture
def database() -> Any:
    """The sample in memory."""
    import page_double
    import page_sample as sample

    return page_double.Double(sample.chain(), sample.documents(), sample.NOON)


@pytest.fixture
def client(database: Any, files: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A browser's part: asks for pages, at the sample's noon."""
    import page_sample as sample
    from fastapi.testclient import TestClient

    from orchestrator.web import create_app

    monkeypatch.setattr("orchestrator.web.source.CACHE_SECONDS", 0.0)
    monkeypatch.setattr("orchestrator.web.source.AWAY_SECONDS", 0.0)
    monkeypatch.setattr("orchestrator.web.source.REFUSED_SECONDS", 0.0)
    app = create_app(lambda: database, chain=sample.chain(), files_root=files, live=False, title="The <Test>")
    app.state.source._clock = lambda: sample.NOON
    with TestClient(app, base_url="http://localhost", headers={"Accept": "text/html"}) as made:
        yield made
