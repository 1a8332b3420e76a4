"""What a document holds stays text, what it names stays where it is, and strangers are refused."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import page_double
import page_sample as sample
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from page_html import PAGES, Elements

from orchestrator.settings import Settings
from orchestrator.web import create_app
from orchestrator.web.headers import HEADERS, host_name
from orchestrator.web.settings_table import HIDDEN

PNG = b"\x89PNG\r\n\x1a\n" + b"x" * 100
HOSTILE = (
    "/documents/" + quote(sample.HOSTILE_ID, safe=""),
    "/runs/" + quote(sample.NASTY, safe=""),
    "/files?q=" + quote(sample.NASTY, safe=""),
    "/files?run=" + quote(sample.NASTY, safe=""),
    "/files?daq=" + quote('"><script>alert(2)</script>', safe=""),
)


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
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(10**400), float("inf")])  # 1e400 is read as an infinity
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
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
    raw = client.get("/api/documents/odd").content
    assert json.loads(raw, parse_constant=pytest.fail)["document"]["_id"] == "odd"


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
    "host",
    ["evil.example", "localhost.evil.example", "localhost@evil", "", "127.0.0.1.evil", "0x7f000001", "a b", "[::1"],
)
def test_a_page_under_a_strange_name_is_refused(client: TestClient, host: str) -> None:
    answer = client.get("/", headers={"Host": host})
    assert answer.status_code == 421
    assert answer.json()["error"] == "misdirected"


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8420", "127.0.0.1:1", "[::1]:8420", "[::1]", "192.0.2.7:80", "[2001:db8::1]"]
)
def test_the_machines_own_names_are_taken(client: TestClient, host: str) -> None:
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("text", ["a.example, B.example", "a.example B.example", "[a.example, B.example]"])
def test_the_names_are_a_setting(text: str, tmp_path: Path) -> None:
    settings = Settings.load(tmp_path, {"ORCHESTRATOR_WEB_HOSTS": text})
    assert settings.web_hosts == ["a.example", "B.example"]
    assert Settings.load(tmp_path, {}, {"web_hosts": ["a"]}).web_hosts == ["a"]


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
