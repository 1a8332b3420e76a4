"""A site on an embedded server, and commands run in this process as ``main`` runs them."""

import json
import logging
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import main
from orchestrator.couch import Credentials, Database, Server
from orchestrator.embedded.testing import EmbeddedServer


@dataclass
class Result:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Commands:
    """Runs commands on one site."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capture = capture

    def __call__(self, *words: str) -> Result:
        self._capture.readouterr()
        code = main(["-C", str(self.folder), *words])
        out, err = self._capture.readouterr()
        return Result(int(code), out, err)


@pytest.fixture(autouse=True)
def _left_as_it_was() -> Iterator[None]:
    """Daemons run in this process set up logging and signals for themselves: nothing of it may outlive the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for number, handler in signals.items():
        signal.signal(number, handler)


@pytest.fixture
def orchestrator(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Commands on a folder that is no site yet, with no database."""
    for name in ("URL", "FOLDER", "COUCH_USER", "COUCH_PASSWORD", "WEB_PORT"):
        monkeypatch.delenv(f"ORCHESTRATOR_{name}", raising=False)
    return Commands(tmp_path, capsys)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One embedded server for all tests here; each has a database of its own."""
    with EmbeddedServer(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def site(orchestrator: Commands, server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Commands on a site whose database is there and has the couchapp of the chain noop."""
    monkeypatch.setenv("ORCHESTRATOR_URL", server.url)
    monkeypatch.setenv("ORCHESTRATOR_COUCH_USER", server.credentials.username)
    monkeypatch.setenv("ORCHESTRATOR_COUCH_PASSWORD", server.credentials.password)
    name = "t" + str(abs(hash(orchestrator.folder)))
    assert orchestrator("init", "--chain", "noop", str(orchestrator.folder)).code == 0
    with (orchestrator.folder / "orchestrator.yaml").open("a") as file:
        file.write(f"\ndatabase: {name}\n")
    assert orchestrator("couchapp", "push").code == 0
    return orchestrator


@pytest.fixture
def database(site: Commands, server: EmbeddedServer) -> Database:
    """The site's run database."""
    name = site("settings", "--json").json["settings"]["database"]["value"]
    return Server(server.url, Credentials(*server.auth)).database(name)
