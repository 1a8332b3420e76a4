"""The pages over a database in memory: each of them in HTML and JSON, what is escaped, what errors look like."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import page_double
import page_sample as sample
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.errors import Unauthorised, Unavailable
from orchestrator.web import create_app
from orchestrator.web.headers import HEADERS, host_name
from orchestrator.web.settings_table import HIDDEN

PNG = b"\x89PNG\r\n\x1a\n" + b"x" * 100
PAGES = (
    "/",
    "/runs",
    "/runs?q=ma22",
    "/runs/ma22b001",
    "/files",
    "/files?q=ma22b001",
    "/files?status=good",
    "/files?status=in progress",
    "/files?step=convert&state=ready",
    "/files?daq=daq1",
    "/documents/ma22b001_006",
    "/failed",
    "/failed?step=proc1&error_class=data",
    "/bad",
    "/chain",
    "/api",
)
HOSTILE = (
    "/documents/" + quote(sample.HOSTILE_ID, safe=""),
    "/runs/" + quote(sample.NASTY, safe=""),
    "/files?q=" + quote(sample.NASTY, safe=""),
    "/files?run=" + quote(sample.NASTY, safe=""),
    "/files?daq=" + quote('"><script>alert(2)</script>', safe=""),
)


@pytest.fixture
def database() -> page_double.Double:
    return page_double.Double(sample.chain(), sample.documents(), sample.NOON)


@pytest.fixture
def client(database: page_double.Double, files: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setattr("orchestrator.web.source.CACHE_SECONDS", 0.0)
    monkeypatch.setattr("orchestrator.web.source.AWAY_SECONDS", 0.0)
    monkeypatch.setattr("orchestrator.web.source.REFUSED_SECONDS", 0.0)
    app = create_app(lambda: database, chain=sample.chain(), files_root=files, live=False, title="The <Test>")
    app.state.source._clock = lambda: sample.NOON
    with TestClient(app, base_url="http://localhost", headers={"Accept": "text/html"}) as made:
        yield made


class Elements(HTMLParser):
    """The elements and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def links(self) -> list[str]:
        return [a["href"] or "" for t, a in self.elements if t == "a" and "href" in a]


@pytest.mark.parametrize("path", PAGES + HOSTILE)
def test_every_page_is_whole_and_holds_nothing_that_runs(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text[:2000]
    page = Elements(answer.text)
    for tag, attributes in page.elements:
        assert tag not in ("iframe", "object", "embed", "base", "style"), tag
        assert not [a for a in attributes if a.startswith("on") or a == "style"], attributes
        if tag == "script":
            assert (attributes.get("src") or "").startswith("/static/")
        if tag == "img":
            assert (attributes.get("src") or "").startswith("/plots/")
        for name in ("href", "src", "action"):
            if name in attributes:
                assert (attributes[name] or "")[:1] in ("/", "#"), attributes
                assert not (attributes[name] or "").startswith("//"), attributes
    assert [t for t, _ in page.elements].count("script") == 4
    assert "{{" not in answer.text.replace("{{ 7*7 }}", "")


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
    assert "Attempt 2 not before 2026-01-22 12:01:00 UTC" in text
    assert "Attempts that did not succeed" in text and "line one" in text
    data = client.get("/api/documents/ma22b001_005").json()
    assert data["batch_jobs"][0]["number"] == "4711_3"
    assert data["header"]["Temperature"] == 17.5
    assert data["document"]["_id"] == "ma22b001_005"


def test_ids_go_into_addresses_and_come_back(client: TestClient, database: page_double.Double) -> None:
    for id in (
        sample.HOSTILE_ID,
        "a/b//c",
        "..",
        ".",
        "ü ?#&=+",
        "new\nline",
        "q\"'<>",
        "a/plots/b",
        "http://x",
    ):
        database.documents[id] = sample.document("odd", 1) | {"_id": id}
    links = [a for a in Elements(client.get("/files?run=odd").text).links() if a.startswith("/documents/")]
    assert len(links) == 9
    for link in links:
        id = unquote(urlsplit(link).path.removeprefix("/documents/") or link.split("id=")[1])
        data = client.get(link, headers={"Accept": "application/json"}).json()
        assert data["id"] == id


def test_text_of_a_document_is_text(client: TestClient) -> None:
    text = client.get("/documents/" + quote(sample.HOSTILE_ID, safe="")).text
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in text
    assert "<script>alert" not in text and "<img src=x" not in text and "<svg onload" not in text
    assert "{{ 7*7 }}" in text and "49" not in text.split("7*7")[1][:20]
    answer = client.get("/api/documents/" + quote(sample.HOSTILE_ID, safe=""))
    assert answer.headers["x-content-type-options"] == "nosniff" and answer.content.isascii()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
FIELDS = (
    *("file", "size", "checksum", "run_name", "file_number", "hostname", "header", "batchjob", "retry", "reason"),
    *("registered", "updated", "priority", "proc0", "proc1", "proc2"),
)
RECORD = st.dictionaries(
    st.sampled_from(
        ["state", "started", "seconds", "max_rss", "log", "result", "software", "reason", "number", "host"]
    ),
    JSON | st.sampled_from(["done", "failed", "in progress"]),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.sampled_from(FIELDS), JSON | RECORD),
    st.sampled_from(["good", "failed", "proc 1 in progress", "bad", "", None, 3, ["good"]]),
)
def test_any_document_has_a_page(client: TestClient, database: page_double.Double, body: dict, status: object) -> None:
    database.documents["odd"] = body | {"_id": "odd", "type": "daqdocument", "status": status}
    for name, emit in (("pages/attempts", []), ("pages/files", [([None, None], None)])):
        database.fixed[name] = emit
    for path in ("/documents/odd", "/files"):
        answer = client.get(path)
        assert answer.status_code == 200, answer.text
        assert "<script>" not in answer.text
    assert client.get("/api/documents/odd").json()["document"]["_id"] == "odd"


def test_files_a_document_names_are_shown_only_from_the_folders(
    client: TestClient, database: page_double.Double, files: Path
) -> None:
    hostile = quote(sample.HOSTILE_ID, safe="")
    text = client.get(f"/documents/{hostile}").text
    assert "root:" not in text and text.count("not among the files that this page may show") >= 3
    assert [client.get(f"/plots/{hostile}/proc1/{n}").status_code for n in (0, 1, 2, 3, 99)] == [404] * 5
    assert client.get(f"/logs/{hostile}/proc1").status_code == 404
    (files / "heat map.png").write_bytes(PNG)
    (files / "log.txt").write_text("all <b>well</b>\n")
    database.documents["ma22a000_000"]["proc3"] |= {
        "log": "log.txt",
        "result": {"plots": [{"file": "heat map.png", "title": "Heat"}]},
    }
    picture = client.get("/plots/ma22a000_000/proc3/0")
    assert picture.content == PNG and picture.headers["content-type"] == "image/png"
    log = client.get("/logs/ma22a000_000/proc3")
    assert log.text == "all <b>well</b>\n" and log.headers["content-type"].startswith("text/plain")
    text = client.get("/documents/ma22a000_000").text
    assert 'src="/plots/ma22a000_000/proc3/0"' in text and "all &lt;b&gt;well" in text
    for step in ("_id", "header", "..", "proc9", "status"):
        assert client.get(f"/plots/ma22a000_000/{step}/0").status_code == 404
        assert client.get(f"/logs/ma22a000_000/{step}").status_code == 404


def test_secrets_in_settings_are_not_shown(client: TestClient) -> None:
    assert client.get("/api/chain").json()["steps"][0]["settings"] == {"output": "raw", "password": HIDDEN}
    assert "hunter2" not in client.get("/chain").text


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
        ("/files?at=zzz", 400, "bad query"),
        ("/runs?at=W10", 400, "bad query"),
        ("/files?limit=0", 400, "bad query"),
        ("/files?limit=x", 400, "bad query"),
        ("/files?q=" + "x" * 300, 400, "bad query"),
        ("/files?step=nope&state=ready", 400, "bad query"),
        ("/files?step=proc1&state=odd", 400, "bad query"),
        ("/failed?error_class=data", 400, "bad query"),
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


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_but_reading(client: TestClient, method: str) -> None:
    for path in ("/", "/files", "/documents/ma22a000_000", "/api/overview", "/events", "/healthz"):
        answer = client.request(method, path, headers={"Accept": "application/json"})
        assert answer.status_code == 405 and answer.json()["error"] == "not allowed"


def test_every_answer_carries_the_headers(client: TestClient, database: page_double.Double) -> None:
    for path in (
        "/",
        "/nowhere",
        "/files?limit=0",
        "/api/overview",
        "/healthz",
        "/static/style.css",
        "/api/openapi.json",
    ):
        headers = client.get(path).headers
        assert {name: headers[name] for name in HEADERS} == HEADERS
    assert "unsafe" not in HEADERS["Content-Security-Policy"]
    database.view = None  # type: ignore[assignment]  # a fault of ours
    broken = client.get("/runs", headers={"Accept": "application/json"})
    assert broken.status_code == 500 and broken.json()["error"] == "fault" and "Policy" in str(broken.headers).title()


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "localhost@evil", "", "127.0.0.1.evil", "[::2]", "a b", "[::1"]
)
def test_a_page_under_a_strange_name_is_refused(client: TestClient, host: str) -> None:
    answer = client.get("/", headers={"Host": host})
    assert answer.status_code == 421
    assert answer.json()["error"] == "misdirected"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8420", "127.0.0.1:1", "[::1]:8420", "[::1]"])
def test_the_machines_own_names_are_taken(client: TestClient, host: str) -> None:
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


def test_further_names_can_be_allowed(database: page_double.Double) -> None:
    for names, host, status in (
        (["Status.example"], "status.example:80", 200),
        (["*"], "anything", 200),
        ([], "status.example", 421),
    ):
        app = create_app(lambda: database, live=False, allowed_hosts=names)
        with TestClient(app, base_url="http://localhost") as client:
            assert client.get("/healthz", headers={"Host": host}).status_code == status
    assert host_name("a:1") == "a" and host_name("a/b") is None and host_name("u@a") is None


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
