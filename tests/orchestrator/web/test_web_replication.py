"""The page of several sites: what the watcher has left, and how old that is; nothing of it is taken as markup."""

from __future__ import annotations

from typing import Any

import page_sample as sample
import pytest
from fastapi.testclient import TestClient

from orchestrator.documents import iso

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
