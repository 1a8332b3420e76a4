"""The pages over a database in memory: each of them in HTML and JSON, filters, lists, and what errors look like."""

from __future__ import annotations

import html
from pathlib import Path

import page_double
import page_sample as sample
import pytest
from fastapi.testclient import TestClient
from page_html import PAGES, Elements

from orchestrator.errors import Unauthorised, Unavailable
from orchestrator.web import create_app


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_json_too(client: TestClient, path: str) -> None:
    joined = path + ("&" if "?" in path else "?") + "format=json"
    by_query = client.get(joined)
    by_header = client.get(path, headers={"Accept": "application/json"})
    assert by_query.status_code == by_header.status_code == 200
    assert by_query.json() == by_header.json()
    assert by_query.headers["content-type"] == "application/json"


def test_links_on_the_overview_lead_to_what_was_counted(client: TestClient) -> None:
    data = client.get("/api/overview").json()
    assert data["documents"] == 19
    assert data["kinds"] == {"good": 10, "closed": 3, "in progress": 1, "queued": 1, "failed": 2, "bad": 1, "open": 1}
    for step in data["steps"]:
        assert sum(step["counts"].values()) == step["total"] == 19
        for state, count in step["counts"].items():
            listed = client.get("/api/documents", params={"step": step["key"], "state": state}).json()
            assert len(listed["documents"]) == count, (step["name"], state)
    for link in Elements(client.get("/").text).links():
        if link.startswith("/"):
            assert client.get(link).status_code == 200, link


def test_the_overview_counts_hours_and_ages(client: TestClient) -> None:
    steps = client.get("/api/overview").json()["steps"]
    assert len(steps[0]["hours"]) == 24
    assert sum(h["done"] for h in steps[0]["hours"]) == steps[0]["last_day"] == steps[0]["counts"]["done"]
    assert steps[0]["mean_seconds"] == 2.5
    assert steps[0]["oldest"]["ready"] == sample.iso(sample.NOON - 7200)


def test_pollers_are_alive_or_silent(client: TestClient, database: page_double.Double) -> None:
    for name, at in (("p1", sample.NOON - 5), ("p2", sample.NOON - 500)):
        database.local[f"_local/poller:{name}"] = {
            "_id": f"_local/poller:{name}",
            "id": name,
            "at": sample.iso(at),
            "steps": ["x"],
        }
    found = {p["id"]: p["alive"] for p in client.get("/api/overview").json()["pollers"]}
    assert found == {"p1": True, "p2": False}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"status": "good", "run": "ma22b001"}, {"ma22b001_003", "ma22b001_009"}),
        ({"status": "in progress"}, {"ma22b001_004"}),
        ({"status": "proc 1 queued"}, {"ma22b001_005"}),
        ({"q": "ma22b001_00", "status": "closed"}, {"ma22b001_000", "ma22b001_001", "ma22b001_002"}),
        ({"q": "MA22B001", "step": "proc1", "state": "ready"}, {"ma22b001_003", "ma22b001_009"}),
        ({"run": "ma22b001", "step": "convert", "state": "failed"}, {"ma22b001_006"}),
        ({"daq": "daq1", "status": "failed"}, {"ma22b001_006"}),
        ({"daq": "daq2", "run": "ma22b001", "status": "queued"}, {"ma22b001_005"}),
        ({"state": "failed", "daq": "daq1"}, {"ma22b001_006"}),
        ({"step": "convert", "run": "ma22b001", "status": "bad"}, {"ma22b001_007"}),
        ({"q": "nothing is called so"}, set()),
    ],
)
def test_filters_narrow_together(client: TestClient, query: dict[str, str], expected: set[str]) -> None:
    assert {d["id"] for d in client.get("/api/documents", params=query).json()["documents"]} == expected


@pytest.mark.parametrize(
    "path", ["/api/documents", "/api/runs", "/api/runs/ma22b001", "/api/documents?status=good", "/api/documents?q=ma22"]
)
def test_pages_of_lists_hold_everything_once(client: TestClient, path: str) -> None:
    key, name = ("runs", "run") if path == "/api/runs" else ("documents", "id")
    whole = [d[name] for d in client.get(path, params={"limit": 200}).json()[key]]
    seen: list[str] = []
    at: str | None = ""
    while at is not None:
        data = client.get(path, params={"limit": 2, "at": at}).json()
        seen += [d[name] for d in data[key]]
        at = data["next"]
    if "q=" in path:  # a document is found under each of its words, so two pages may both show it
        seen = list(dict.fromkeys(seen))
    assert seen == whole and len(seen) > 2
    data = client.get(path, params={"limit": 2, "at": client.get(path, params={"limit": 2}).json()["next"]}).json()
    assert [d[name] for d in client.get(path, params={"limit": 2, "at": data["previous"]}).json()[key]] == whole[:2]


def test_lists_never_skip(client: TestClient, database: page_double.Double) -> None:
    for path in PAGES:
        client.get(path)
    assert database.reads
    assert not [p for _, p in database.reads if "skip" in p]
    assert all("limit" in p for _, p in database.reads if p.get("include_docs"))


def test_a_document_says_why_and_shows_all_of_it(client: TestClient) -> None:
    text = client.get("/documents/ma22b001_009").text
    assert "Attempt 2 of proc1 (convert) begins in 60 s; the one before ended with: the disk is full." in text
    assert "Attempts that did not succeed" in text and "line one" in text
    data = client.get("/api/documents/ma22b001_005").json()
    assert data["batch_jobs"][0]["number"] == "4711_3"
    assert data["header"]["Temperature"] == 17.5
    assert data["document"]["_id"] == "ma22b001_005"


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/nowhere", 404, "not found"),
        ("/documents/nobody", 404, "not found"),
        ("/runs/none", 404, "not found"),
        ("/documents/_design/pages", 404, "not found"),
        ("/documents/", 404, "not found"),
        ("/static/../app.py", 404, "not found"),
        ("/static/%2e%2e/app.py", 404, "not found"),
        ("/files?at=zzz", 404, "not found"),
        ("/runs?at=W10", 404, "not found"),
        ("/files?limit=0", 400, "bad query"),
        ("/files?limit=x", 400, "bad query"),
        ("/files?q=" + "x" * 300, 400, "bad query"),
        ("/files?step=nope&state=ready", 404, "not found"),
        ("/files?step=proc1&state=odd", 400, "bad query"),
        ("/plots/ma22a000_000/proc0/x", 400, "bad query"),
    ],
)
def test_all_errors_have_one_shape(client: TestClient, path: str, status: int, error: str) -> None:
    answer = client.get(path, headers={"Accept": "application/json"})
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) == {"status", "error", "reason"} and body["status"] == status and body["error"] == error
    assert len(body["reason"]) > 10
    page = client.get(path)
    assert page.status_code == status
    if not path.startswith(("/static", "/plots")):
        assert "<h1>" in page.text


@pytest.mark.parametrize(
    "error", [Unavailable("the database at x does not answer"), Unauthorised("the login was refused")]
)
def test_the_database_away_is_a_page_that_looks_again(
    client: TestClient, database: page_double.Double, error: Exception
) -> None:
    database.broken = error  # type: ignore[assignment]
    page = client.get("/")
    assert page.status_code == 503 and page.headers["retry-after"] == "5"
    assert str(error) in page.text and '<meta http-equiv="refresh" content="5">' in page.text
    assert "Away since" in page.text and "2026-01-22 12:00:00 UTC" in page.text
    body = client.get("/api/runs").json()
    assert body["reason"] == str(error) and body["since"] == sample.iso(sample.NOON)
    assert client.get("/healthz").status_code == 503
    assert client.get("/chain").status_code == 200  # needs no database
    database.broken = None
    assert client.get("/").status_code == 200
    assert client.get("/healthz").json()["ok"] is True


def test_a_database_that_is_away_is_not_asked_by_everyone(database: page_double.Double) -> None:
    asked = 0

    def factory() -> page_double.Double:
        nonlocal asked
        asked += 1
        raise Unavailable("away")

    with TestClient(create_app(factory, live=False), base_url="http://localhost") as client:
        for _ in range(20):
            assert client.get("/api/overview").status_code == 503
    assert asked <= 3


def test_before_the_couchapp_is_there_the_page_says_what_to_do(
    client: TestClient, database: page_double.Double
) -> None:
    database.pushed = False
    page = client.get("/")
    assert page.status_code == 503 and "orchestrator couchapp push" in page.text
    assert client.get("/api/documents").json()["error"] == "not set up"


def test_an_empty_database_has_pages_too(files: Path) -> None:
    database = page_double.Double(sample.chain(), [], sample.NOON)
    for chain in (sample.chain(), None):
        app = create_app(lambda: database, chain=chain, live=False)
        with TestClient(app, base_url="http://localhost", headers={"Accept": "text/html"}) as client:
            for path in ("/", "/runs", "/files", "/failed", "/bad", "/chain", "/api"):
                assert client.get(path).status_code == 200
            assert "orchestrator register" in client.get("/").text


def test_without_a_chain_the_steps_come_from_the_documents(database: page_double.Double) -> None:
    with TestClient(create_app(lambda: database, live=False), base_url="http://localhost") as client:
        assert [s["name"] for s in client.get("/api/overview").json()["steps"]] == ["proc0", "proc1", "proc2", "proc3"]
        assert client.get("/api/documents/ma22b001_006").json()["steps"][1]["state"] == "failed"


def test_viewers_share_one_read(database: page_double.Double) -> None:
    with TestClient(
        create_app(lambda: database, chain=sample.chain(), live=False), base_url="http://localhost"
    ) as client:
        client.get("/")
        before = len(database.reads)
        for _ in range(10):
            client.get("/")
        assert len(database.reads) == before


def test_what_was_read_before_a_change_is_not_given_after_it(database: page_double.Double) -> None:
    app = create_app(lambda: database, chain=sample.chain(), live=False)
    with TestClient(app, base_url="http://localhost") as client:
        before = client.get("/api/overview").json()["documents"]
        database.documents["new"] = sample.document("new", 1) | {"_id": "new"}
        app.state.source.changed()
        assert client.get("/api/overview").json()["documents"] == before + 1


def test_behind_a_proxy_addresses_carry_its_path(database: page_double.Double) -> None:
    app = create_app(lambda: database, chain=sample.chain(), live=False)
    with TestClient(app, base_url="http://localhost", root_path="/status") as client:
        page = Elements(client.get("/status/files", headers={"Accept": "text/html"}).text)
        assert all(link.startswith(("/status/", "#")) for link in page.links())


def test_the_description_names_every_call_and_needs_no_outside_page(client: TestClient) -> None:
    schema = client.get("/api/openapi.json").json()
    assert {"/api/overview", "/api/runs", "/api/documents", "/api/failed", "/api/bad", "/api/chain"} <= set(
        schema["paths"]
    )
    assert all("get" in body and "post" not in body for body in schema["paths"].values())
    assert "http" not in client.get("/api").text.replace("http-equiv", "").replace("/http", "")
    assert client.get("/docs").status_code == client.get("/redoc").status_code == 404


def test_a_documents_page_says_why_once(client: TestClient, database: page_double.Double) -> None:
    failed = next(d for d in database.documents.values() if d.get("status") == "failed")
    data = client.get(f"/api/documents/{failed['_id']}").json()
    text = client.get(f"/documents/{failed['_id']}").text
    body = text[: text.index('id="raw"')]
    assert data["explanation"]["sentence"] == data["sentence"]
    assert html.unescape(body).count(f"{data['sentence']}</p>") == 1
