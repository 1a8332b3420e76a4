"""What the guide to recovery says to do about an error is done here, and then it works."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator import faults
from orchestrator.couch import Credentials, Database, Server
from orchestrator.embedded.testing import EmbeddedServer
from orchestrator.errors import Exit
from orchestrator.users import Users

Commands = Callable[..., Any]  # see conftest.py
STEPS = '''
from orchestrator.errors import DataError

def check(document, work):
    if work.input.read_text() != "good":
        raise DataError(f"{work.input} has no trailer")
    return {"n": 1}
'''
CHAIN = "name: one\nsteps: [{name: check, run: 'onestep:check'}]\n"


@pytest.fixture
def one(site: Any, database: Database) -> Any:
    """A site with one step, which checks its file."""
    (site.folder / "onestep.py").write_text(STEPS)
    (site.folder / "chain.yaml").write_text(CHAIN)
    assert site("couchapp", "push").code == 0
    return site


def put(site: Any, database: Database, name: str, content: str, **changes: Any) -> Path:
    path = Path(site.folder) / name
    path.write_text(content)
    database.put({
        "_id": name, "type": "daqdocument", "run_name": "r", "file_number": 0, "file": str(path), "site": "here",
        "hostname": socket.gethostname(), "registered": "2026-01-22T11:00:00.000Z", "status": "closed", **changes,
    })  # fmt: skip
    return path


def poll(site: Any) -> None:
    done = site("poll", "--until-idle")
    assert done.code == 0, done.err


def test_settings_and_credentials_that_cannot_be_used(site: Any, server: EmbeddedServer, monkeypatch: Any) -> None:
    settings = site.folder / "orchestrator.yaml"
    before = settings.read_text()
    settings.write_text(before + "workers: many\n")
    said = site("status")
    assert said.code == Exit.SETTINGS and "workers" in said.err
    settings.write_text(before + "credentials: login.json\n")
    monkeypatch.delenv("ORCHESTRATOR_COUCH_USER")
    monkeypatch.delenv("ORCHESTRATOR_COUCH_PASSWORD")
    login = site.folder / "login.json"
    login.write_text(server.credentials_file.read_text())
    login.chmod(0o644)
    said = site("status")
    assert said.code == Exit.SETTINGS and "can be read by others" in said.err
    login.chmod(0o600)
    assert site("status").code == 0


def test_a_chain_that_cannot_be_used(site: Any) -> None:
    chain = site.folder / "chain.yaml"
    before = chain.read_text()
    chain.write_text(before + "  - {name: more, run: 'a.b:c', needs: [nothing]}\n")
    said = site("status")
    assert said.code == Exit.SETTINGS and "nothing" in said.err
    chain.write_text(before)
    assert site("chain", "check").code == 0 and site("status").code == 0


def test_a_database_that_does_not_answer(site: Any, tmp_path: Path, monkeypatch: Any) -> None:
    with EmbeddedServer(tmp_path / "own") as own:
        monkeypatch.setenv("ORCHESTRATOR_URL", own.url)
        monkeypatch.setenv("ORCHESTRATOR_COUCH_USER", own.credentials.username)
        monkeypatch.setenv("ORCHESTRATOR_COUCH_PASSWORD", own.credentials.password)
        assert site("couchapp", "push").code == 0
        own.kill()
        said = site("status")
        assert said.code == Exit.UNAVAILABLE and "cannot be reached" in said.err
        own.restart()
        assert site("status").code == 0


def test_what_is_not_there(site: Any, database: Database) -> None:
    database.put({"_id": "there", "type": "note"})
    said = site("show", "thare")
    assert said.code == Exit.NOT_FOUND and "thare" in said.err
    database.delete(database.get("_design/pages"))
    assert site("status").code == Exit.NOT_FOUND
    assert "the design documents" in site("check").out
    assert site("couchapp", "push").code == 0
    assert site("status").code == 0


def test_what_somebody_else_has(site: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = site("web", "--port", str(taken.getsockname()[1]))
    assert said.code == Exit.CONFLICT and "another program does" in said.err


def test_a_login_that_is_refused(site: Any, server: EmbeddedServer, monkeypatch: Any) -> None:
    users = Users(Server(server.url, Credentials(*server.credentials)))
    users.add("somebody", "right", ["admin"])
    try:
        monkeypatch.setenv("ORCHESTRATOR_COUCH_USER", "somebody")
        monkeypatch.setenv("ORCHESTRATOR_COUCH_PASSWORD", "wrong")
        said = site("status")
        assert said.code == Exit.UNAUTHORISED and "login refused" in said.err
        monkeypatch.setenv("ORCHESTRATOR_COUCH_PASSWORD", "right")
        assert site("status").code == 0
    finally:
        users.remove("somebody")  # the server is that of all tests


def test_what_a_documents_state_does_not_allow(one: Any, database: Database) -> None:
    put(one, database, "d0", "good")
    said = one("retry", "d0", "--reason", "why not")
    assert said.code == Exit.FAILED and "only one that is 'failed' can be tried again" in said.err
    assert "check" in one("explain", "d0").out
    poll(one)
    assert database.get("d0")["status"] == "good"


def test_a_corrupt_file_that_a_good_one_replaces(one: Any, database: Database) -> None:
    path = put(one, database, "d0", "cut", status="bad", reason="the header is cut off at byte 3")
    assert "cut off at byte 3" in one("show", "d0").out
    poll(one)
    assert "proc0" not in database.get("d0")
    path.write_text("good")
    assert one("mark-good", "d0", "--reason", "a good copy is there").code == 0
    poll(one)
    assert database.get("d0")["proc0"]["state"] == "done"


def test_a_step_that_failed_and_was_mended(one: Any, database: Database) -> None:
    path = put(one, database, "d0", "no trailer")
    poll(one)
    failed = database.get("d0")
    assert (failed["status"], failed["proc0"]["error_class"]) == ("failed", "data")
    assert "has no trailer" in one("show", "d0").out
    path.write_text("good")
    assert one("retry", "d0", "--reason", "the file is whole now").code == 0
    poll(one)
    assert database.get("d0")["proc0"]["number"] == 2
    assert database.get("d0")["status"] == "good"


def test_what_was_killed_in_the_middle_is_simply_begun_again(
    one: Any, database: Database, monkeypatch: Any
) -> None:
    put(one, database, "d0", "good")

    class Killed(BaseException):
        """As a power cut."""

    def die(name: str) -> None:
        if name == "people.changed":
            raise Killed

    monkeypatch.setattr(faults, "point", die)
    with pytest.raises(Killed):
        one("hold", "d0", "--reason", "wait")
    monkeypatch.setattr(faults, "point", lambda name: None)
    again = one("hold", "d0", "--reason", "wait")
    assert again.code == 0
    assert database.get("d0")["hold"]["reason"] == "wait"
