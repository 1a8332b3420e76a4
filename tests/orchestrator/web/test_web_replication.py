"""The page of several sites: what the watcher has left, and how old that is; nothing of it is taken as markup."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import page_sample as sample
import pytest
from fastapi.testclient import TestClient
from page_database import populated
from test_web_operations import PASSWORD, log_in

from orchestrator import settling
from orchestrator.couch import Credentials, Server
from orchestrator.documents import iso
from orchestrator.embedded.testing import EmbeddedServer
from orchestrator.pushing import admit
from orchestrator.users import Users
from orchestrator.web import create_app
from orchestrator.web.login import Login
from orchestrator.web.login_sessions import Sessions
from orchestrator.web.operations import Acting

LINK: dict[str, Any] = {
    "remote": "centre", "direction": "push", "source": "http://a/runs", "target": "http://b/runs", "types": [],
    "state": "running", "job": "x+continuous", "behind": 12, "since": "2026-01-22T11:00:00.000Z", "written": 3,
    "refused": 0, "reason": "", "reachable": True,
}  # fmt: skip
CONFLICT: dict[str, Any] = {
    "document": "<script>alert(1)</script>", "type": "daqdocument", "kind": "person", "reason": "<b>two</b> values",
    "versions": [{"rev": "2-a", "status": "good"}, {"rev": "2-b", "status": "bad"}],
}  # fmt: skip


def test_a_site_of_its_own(client: TestClient) -> None:
    assert "Nothing watches over replications here" in client.get("/replication").text
    assert client.get("/api/replication").json()["links"] == []


def test_replications_and_conflicts(client: TestClient, database: Any) -> None:
    links = [LINK, {**LINK, "direction": "pull", "state": "crashing", "behind": None, "reason": "it is away"}]
    database.local["replication"] = {
        "_id": "_local/replication", "at": iso(sample.NOON - 5), "links": links, "conflicts": [CONFLICT],
        "conflicts_count": 1,
    }  # fmt: skip
    page = client.get("/replication").text
    for words in ("push to centre", "pull from centre", "crashing", "it is away", "2-b", "a person must choose"):
        assert words in page
    assert "is silent since" not in page
    assert "<script>alert" not in page
    assert "<b>two" not in page
    data = client.get("/api/replication").json()
    assert data["links"] == links
    assert data["watched"] is True


@pytest.mark.parametrize("at", [sample.NOON - 3600.0, None])
def test_a_watcher_that_is_silent_is_told(client: TestClient, database: Any, at: float | None) -> None:
    database.local["replication"] = {"at": "rubbish" if at is None else iso(at), "links": [LINK], "conflicts": 7}
    assert client.get("/api/replication").json()["watched"] is False
    assert "is silent since" in client.get("/replication").text


def test_versions_are_compared_and_an_admin_chooses_one(embedded: EmbeddedServer, tmp_path: Path) -> None:
    database = populated(embedded, f"versions-{uuid.uuid4().hex}", sample.chain(), [])
    admit(database, sample.chain().sites)
    base = {"_id": "d", "type": "daqdocument", "status": "closed", "file": "/raw/d", "site": "here"}
    evil = "<script>alert('x')</script>"
    settling.bring(database, [{**base, "size": size, "note": evil, "_rev": f"1-{size:032d}"} for size in (1, 2)])
    users = Users(Server(embedded.url, Credentials(*embedded.credentials)))
    names = {role: f"{role}-{uuid.uuid4().hex}" for role in ("operator", "admin")}
    for role, name in names.items():
        users.add(name, PASSWORD, [role])
    login = Login(Sessions(embedded.url, database.name, lambda: 1000.0))
    app = create_app(lambda: database, chain=sample.chain(), live=False, login=login, acting=Acting("here", tmp_path))
    with TestClient(app, base_url="http://localhost") as client:
        html = {"Accept": "text/html", "Origin": "http://localhost"}
        said = client.get("/api/conflicts/d").json()
        assert [one["name"] for one in said["fields"]] == ["size"] and "different values of 'size'" in said["reason"]
        form = {"take": f"1-{1:032d}", "reason": "the disk says so"}
        assert client.post("/conflicts/d", data=form, headers=html).status_code == 401
        for role, status in (("operator", 403), ("admin", 303)):
            client.cookies.clear()
            log_in(client, names[role])
            page = client.get("/conflicts/d", headers=html).text
            assert ("keep this one" in page) == (role == "admin") and evil not in page
            token = page.split('name="token" value="')[1].split('"')[0]
            sent = {**form, "token": token}
            assert client.post("/conflicts/d", data=sent, headers=html, follow_redirects=False).status_code == status
        assert "There is one version" in client.get("/conflicts/d", headers=html).text
        assert client.get("/conflicts/nothing", headers=html).status_code == 404
    assert database.get("d", conflicts=True)["size"] == 1 and settling.count(database) == 0
