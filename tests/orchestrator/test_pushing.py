"""Making the run database: closed to strangers, the couchapp in it, and what people chose left alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from orchestrator import chain as chains
from orchestrator.couch import Credentials, Server
from orchestrator.embedded.testing import EmbeddedServer
from orchestrator.pushing import admit, push
from orchestrator.settings import Settings

CHAIN = chains.loads("name: t\nsteps: [{name: a, run: 'x:y'}]")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with EmbeddedServer(tmp_path / "database") as running:
        yield Server(running.url, Credentials(*running.credentials))


def test_a_new_run_database_has_its_couchapp_and_a_second_push_writes_nothing(server: Server, tmp_path: Path) -> None:
    settings = Settings.load(tmp_path)
    assert {what for _, what in push(server, settings, CHAIN)} == {"created"}
    assert {what for _, what in push(server, settings, CHAIN)} == {"unchanged"}


def test_a_database_that_was_open_to_all_is_closed(server: Server, tmp_path: Path) -> None:
    server.create("runs")
    database = server.database("runs")
    database.set_security({})
    assert requests.get(f"{server.url}/runs", timeout=10).status_code == 200
    push(server, Settings.load(tmp_path), CHAIN)
    assert requests.get(f"{server.url}/runs", timeout=10).status_code == 401


def test_our_roles_are_let_in_and_what_somebody_chose_is_kept(server: Server) -> None:
    server.create("runs")
    database = server.database("runs")
    chosen = {"admins": {"names": ["eve"], "roles": ["_admin"]}, "members": {"names": ["ann"], "roles": ["crew"]}}
    database.set_security({**chosen, "other": 1})
    assert admit(database, ["here", "lyon"])
    assert database.security() == {
        "admins": {"names": ["eve"], "roles": ["_admin", "admin"]},
        "members": {
            "names": ["ann"],
            "roles": ["crew", "_admin", "admin", "operator", "replicator", "viewer", "site:here", "site:lyon"],
        },
        "other": 1,
    }
    assert not admit(database, ["here", "lyon"]), "a second time there is nothing to change"
