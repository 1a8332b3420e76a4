"""The same pages over a real database and the real couchapp: what the views say is what the documents say."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import page_sample as sample
import pytest
import requests
import uvicorn
from fastapi.testclient import TestClient
from page_database import connection, populated

from orchestrator.chain import Chain
from orchestrator.couch import Database
from orchestrator.embedded.testing import EmbeddedServer
from orchestrator.errors import Exit, SettingsError
from orchestrator.web import create_app
from orchestrator.web.serve import PortTaken, bind, serve
from orchestrator.web.states import outlines, standings

Make = Callable[[Chain, list[dict[str, Any]]], Database]


@pytest.fixture
def documents() -> list[dict[str, Any]]:
    return sample.documents(time.time())


@pytest.fixture
def database(new_database: Make, documents: list[dict[str, Any]]) -> Database:
    return new_database(sample.chain(), documents)


@pytest.fixture
def client(database: Database, files: Path) -> Iterator[TestClient]:
    app = create_app(lambda: database, chain=sample.chain(), files_root=files, live=False)
    with TestClient(app, base_url="http://localhost", headers={"Accept": "text/html"}) as made:
        yield made


def test_the_view_and_the_page_agree_on_every_state(client: TestClient, documents: list[dict[str, Any]]) -> None:
    steps = outlines(sample.chain())
    expected: dict[tuple[str, str], int] = {}
    for document in documents:
        if document["type"] == "daqdocument":
            for standing in standings(document, steps):
                place = (standing.outline.key, standing.state)
                expected[place] = expected.get(place, 0) + 1
    data = client.get("/api/overview").json()
    found = {(s["key"], state): n for s in data["steps"] for state, n in s["counts"].items() if n}
    assert found == expected
    for (key, state), count in found.items():
        listed = client.get("/api/documents", params={"step": key, "state": state, "limit": 200}).json()["documents"]
        assert len(listed) == count
        assert {s["state"] for d in listed for s in d["steps"] if s["key"] == key} == {state}
    assert sum(h["done"] for h in data["steps"][0]["hours"]) == found["proc0", "done"]
    assert data["recent"][0]["updated"] == max(d["updated"] for d in documents if "updated" in d)


@pytest.mark.parametrize(
    "path", ["/", "/runs", "/runs/ma22b001", "/files", "/files?q=ma22b", "/failed", "/bad", "/documents/ma22b001_009"]
)
def test_pages(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text[-2000:]


def test_pages_of_lists_hold_everything_once(client: TestClient) -> None:
    for path in ("/api/documents", "/api/documents?status=good", "/api/documents?step=proc0&state=done", "/api/runs"):
        key, name = ("runs", "run") if path == "/api/runs" else ("documents", "id")
        whole = [d[name] for d in client.get(path, params={"limit": 200}).json()[key]]
        seen: list[str] = []
        at: str | None = ""
        pages = []
        while at is not None:
            data = client.get(path, params={"limit": 2, "at": at}).json()
            pages.append(data)
            seen += [d[name] for d in data[key]]
            at = data["next"]
        assert seen == whole and len(whole) > 2, path
        back = client.get(path, params={"limit": 2, "at": pages[1]["previous"]}).json()
        assert back[key] == pages[0][key]


def test_a_document_made_to_hurt_is_found_and_shown(client: TestClient) -> None:
    data = client.get("/api/documents", params={"run": sample.NASTY}).json()
    assert [d["id"] for d in data["documents"]] == [sample.HOSTILE_ID]
    assert client.get("/documents/" + quote(sample.HOSTILE_ID, safe="")).status_code == 200
    attempts = client.get("/api/documents/ma22b001_009").json()["steps"][1]["attempts"]
    assert [(a["number"], a["reason"]) for a in attempts] == [(1, "the disk is full")]
    assert client.get("/api/failed").json()["groups"] == [{"step": "proc1", "error_class": "data", "count": 2}]


def test_pollers_heartbeats(client: TestClient, database: Database) -> None:
    database.put_local("poller:node1-1", {"id": "node1-1", "at": sample.iso(time.time()), "steps": ["transfer"]})
    assert [(p["id"], p["alive"]) for p in client.get("/api/overview").json()["pollers"]] == [("node1-1", True)]


def test_without_database_and_without_couchapp_the_page_says_what_to_do(embedded: EmbeddedServer) -> None:
    couch = connection(embedded)
    for name, made in (("missing", False), ("bare", True)):
        if made:
            couch.create(name)
        app = create_app(lambda name=name: couch.database(name), chain=sample.chain(), live=False)
        with TestClient(app, base_url="http://localhost", headers={"Accept": "text/html"}) as client:
            for path in ("/", "/runs", "/files", "/failed"):
                page = client.get(path)
                assert page.status_code == 503 and "orchestrator couchapp push" in page.text, (name, path)
            assert client.get("/chain").status_code == 200


def test_a_wrong_password_is_a_sentence(embedded: EmbeddedServer, new_database: Make) -> None:
    from orchestrator.couch import Credentials, Server

    name = new_database(sample.chain(), []).name
    wrong = Server(embedded.url, Credentials(embedded.credentials.username, "wrong"), timeout=5)
    with TestClient(create_app(lambda: wrong.database(name), live=False), base_url="http://localhost") as client:
        body = client.get("/api/overview").json()
        assert body["status"] == 503 and body["error"] == "unauthorised"
        assert len(body["reason"]) > 20 and embedded.credentials.password not in body["reason"]


def served(app: Any) -> tuple[str, threading.Thread, list[uvicorn.Server]]:
    """The application on a free port, in a thread."""
    listener = bind("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}", thread, [server]


def test_a_change_is_told_to_all_viewers_and_a_restart_of_the_database_is_survived(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server:
        populated(server, "live", sample.chain(), [])
        couch = connection(server)
        app = create_app(lambda: connection(server).database("live"), chain=sample.chain())
        url, thread, servers = served(app)
        try:
            streams = [requests.get(url + "/events", stream=True, timeout=20) for _ in range(3)]
            lines = [s.iter_lines() for s in streams]
            time.sleep(0.5)  # the follower's first request, which says where "now" is
            for n in range(2):
                couch.database("live").put({"_id": f"note{n}", "type": "note"})
                for each in lines:
                    seen = ""
                    while f"note{n}" not in seen and '"many": true' not in seen:
                        seen = next(each).decode()
                if n == 0:
                    server.kill()
                    server.restart()
            assert requests.get(url + "/api/overview", timeout=10).status_code == 200
        finally:
            app.state.hub.close()
            servers[0].should_exit = True
            thread.join(10)
        assert not thread.is_alive()


SERVE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests in the background may ignore it
from orchestrator.web import create_app, serve
serve(create_app(lambda: None, live=False), port=0, ready=lambda url: print(url, flush=True))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 1)])
def test_it_ends_at_once_when_told_to_though_somebody_looks_on(number: int, code: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SERVE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with requests.get(url + "events", stream=True, timeout=10) as stream:
            assert b"retry" in next(stream.iter_lines())
            process.send_signal(number)
            ended = process.wait(8)
    assert ended in (code, -number) if code else ended == 0


def test_a_port_in_use_is_one_sentence() -> None:
    taken = bind("127.0.0.1", 0)
    port = taken.getsockname()[1]
    with pytest.raises(PortTaken, match=f"port {port}: another program does") as caught:
        serve(create_app(lambda: None, live=False), port=port)  # type: ignore[arg-type, return-value]
    assert caught.value.exit_code is Exit.CONFLICT
    taken.close()
    with pytest.raises(SettingsError, match="always works"):
        bind("no.such.host.invalid", 0)
    with pytest.raises(SettingsError):
        bind("203.0.113.7", 0)
