"""People's operations with the account of an operator, bounded by the guard; and with accounts that lack the role."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.couch import Credentials, Database, Server
from orchestrator.embedded.testing import EmbeddedServer
from orchestrator.users import Users, new_password

CHAIN = """
name: two
steps:
- {name: convert, run: "procs.noop:nothing"}
- {name: analyse, run: "procs.noop:nothing"}
"""


def raw(name: str, status: str = "closed", **more: Any) -> dict[str, Any]:
    return {
        "_id": name, "type": "daqdocument", "run_name": "r01", "file_number": 0, "file": f"/daq/{name}", "size": 12,
        "hostname": "daq1", "site": "here", "registered": "2026-01-22T11:00:00.000Z", "status": status, **more,
    }  # fmt: skip


@pytest.fixture
def two(site: Any, database: Database) -> Any:
    """A site whose documents have been through its two steps, but for one that has failed."""
    (site.folder / "chain.yaml").write_text(CHAIN)
    assert site("couchapp", "push").code == 0
    database.bulk([raw("a"), raw("b"), raw("c"), raw("d")])
    assert site("poll", "--until-idle", "--set", "workers=1").code == 0
    failed = {"state": "failed", "number": 1, "reason": "x", "error_class": "data"}
    forced = {"by": "test", "why": "one that failed", "at": "0"}
    document = database.get("d")
    database.put({**document, "status": "failed", "proc1": failed, "forced": forced})
    return site


@pytest.fixture
def as_account(two: Any, server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Commands in the name of an account with these roles."""
    users = Users(Server(server.url, Credentials(*server.credentials)))
    made = []

    def become(name: str, *granted: str) -> None:
        password = new_password()
        users.add(name, password, granted)
        made.append(name)
        monkeypatch.setenv("ORCHESTRATOR_COUCH_USER", name)
        monkeypatch.setenv("ORCHESTRATOR_COUCH_PASSWORD", password)

    yield become
    for name in made:
        users.remove(name)


def test_an_operator_may_do_what_people_do(two: Any, as_account: Any, database: Database) -> None:
    as_account("ann", "operator")
    for words in (
        ("hold", "a"), ("release", "a"), ("mark-bad", "a"), ("mark-good", "a"), ("priority", "a", "--to", "5"),
        ("retry", "d"), ("abandon", "d"), ("retry", "d"), ("reset", "b", "--to", "analyse"),
        ("reset", "c", "--to", "convert"), ("reprocess", "convert", "--run", "r01"),
    ):  # fmt: skip
        done = two(*words, "--reason", "a test")
        assert done.code == 0, (words, done.out, done.err)
    records = two("operations", "--json").json
    assert len(records) == 11 and {one["by"].partition("@")[0] for one in records} == {"ann"}
    assert database.get("b")["operation"]["by"].startswith("ann@")
    assert database.get("a")["status"] == database.get("c")["status"] == "closed"
    refused = two("user", "list")
    assert refused.code == 5, "accounts are not theirs"


@pytest.mark.parametrize("granted", [("viewer",), ("site:here",)])
def test_others_may_not_and_nothing_changes(two: Any, as_account: Any, database: Database, granted: Any) -> None:
    before = database.info()["update_seq"]
    as_account("vic", *granted)
    for words in (("hold", "a"), ("mark-bad", "a"), ("retry", "d"), ("reset", "b", "--to", "convert")):
        done = two(*words, "--reason", "a test")
        said = done.err + done.out
        assert done.code != 0 and ("operator" in said or "read only" in said), (words, said)
    assert database.info()["update_seq"] == before


def test_an_operator_is_no_poller(two: Any, as_account: Any, database: Database) -> None:
    database.put(raw("e"))
    as_account("ann", "operator")
    two("poll", "--until-idle", "--set", "workers=1")
    assert database.get("e")["status"] == "closed"


def test_where_anyone_here_may_act_the_page_signs_with_its_own_account(
    two: Any, server: EmbeddedServer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastapi.testclient import TestClient

    from orchestrator.cli.context import Context
    from orchestrator.cli.daemons import page

    with (two.folder / "orchestrator.yaml").open("a") as file:
        file.write("web_changes: anyone-here\n")
    assert two("user", "setup").code == 0
    for name in ("USER", "PASSWORD"):
        monkeypatch.delenv(f"ORCHESTRATOR_COUCH_{name}")
    site = Context()
    site.folder = two.folder
    app = page(site)
    app.state.hub.start = lambda: None  # nobody watches here
    with TestClient(app, base_url="http://localhost", client=("127.0.0.1", 1)) as browser:
        asked = {"selection": {"documents": ["a"]}, "reason": "a test"}
        done = browser.post("/api/operations/hold", json=asked)
    assert done.status_code == 200 and done.json()["counts"]["changed"] == 1, done.text
    assert database.get("a")["operation"]["by"].startswith(f"{site.settings.database}-here-web@")
    users = Users(Server(server.url, Credentials(*server.credentials)))
    for one in users.all():
        users.remove(one.name)
