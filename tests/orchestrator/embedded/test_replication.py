"""Replication between two embedded servers: kills, a link that is cut, logins from a file; and its pure parts."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.embedded.remotes import Remotes
from orchestrator.embedded.replication_job import DENIED_WAIT, LONGEST_WAIT, wait_after
from orchestrator.embedded.replication_log import HISTORY, Session, Stats, common_sequence, updated
from orchestrator.embedded.replication_request import BadReplication, endpoint, parse
from orchestrator.embedded.testing import EmbeddedServer, Link

BINARY = random.Random(3).randbytes(3_000_000)


class Pair:
    """Two servers with a database ``runs`` each."""

    def __init__(self, path: Path) -> None:
        self.here = EmbeddedServer(path / "here")
        self.there = EmbeddedServer(path / "there")
        for server in (self.here, self.there):
            server.start()
            assert ask(server, "PUT", "/runs").status_code == 201

    def end(self, server: EmbeddedServer, url: str = "") -> dict[str, Any]:
        """A server's database as one end."""
        name, password = server.auth
        return {"url": f"{url or server.url}/runs", "auth": {"basic": {"username": name, "password": password}}}


def ask(server: EmbeddedServer, method: str, path: str, **options: Any) -> requests.Response:
    return requests.request(method, server.url + path, auth=server.auth, timeout=60, **options)


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for something that must come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


def count(server: EmbeddedServer) -> int:
    return int(ask(server, "GET", "/runs").json()["doc_count"])


def fill(server: EmbeddedServer, number: int, prefix: str = "d") -> None:
    for start in range(0, number, 1000):
        docs = [{"_id": f"{prefix}{n:06d}", "n": n} for n in range(start, min(number, start + 1000))]
        assert ask(server, "POST", "/runs/_bulk_docs", json={"docs": docs}).status_code == 201


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path)
    yield made
    made.here.stop()
    made.there.stop()


def test_a_document_goes_on_after_kill_9_of_either_server(pair: Pair, tmp_path: Path) -> None:
    remotes = {
        "there": {"url": pair.there.url, "username": pair.there.auth[0], "password": pair.there.auth[1]},
        "self": {"url": pair.here.url, "username": pair.here.auth[0], "password": pair.here.auth[1]},
    }
    path = tmp_path / "here" / "remotes.json"
    path.write_text(json.dumps(remotes))
    path.chmod(0o600)
    document = {"source": pair.here.url + "/runs", "target": pair.there.url + "/runs", "continuous": True}
    fill(pair.here, 6000)
    assert ask(pair.here, "PUT", "/_replicator/out", json=document).status_code == 201
    dice = random.Random(11)
    for turn in range(4):
        time.sleep(dice.uniform(0.05, 0.4))
        victim = pair.here if turn % 2 == 0 else pair.there
        victim.kill()
        victim.restart()
    fill(pair.here, 100, "late")
    until(lambda: count(pair.there) == 6100)
    rows = [ask(s, "GET", "/runs/_all_docs").json()["rows"] for s in (pair.here, pair.there)]
    assert rows[0] == rows[1]
    assert ask(pair.here, "GET", "/_replicator/out").json().keys() == {"_id", "_rev", *document}


def test_a_link_that_is_cut_again_and_again(pair: Pair) -> None:
    fill(pair.here, 3000)
    kind = {"Content-Type": "application/octet-stream"}
    assert ask(pair.here, "PUT", "/runs/large/x.bin", data=BINARY, headers=kind).status_code == 201
    with Link(pair.there.port) as link:
        body = {"source": pair.end(pair.here), "target": pair.end(pair.there, link.url), "continuous": True}
        assert ask(pair.here, "POST", "/_replicate", json=body).status_code == 202
        dice = random.Random(5)
        for _ in range(6):
            time.sleep(dice.uniform(0.02, 0.3))
            link.cut()
            time.sleep(dice.uniform(0.0, 0.3))
            link.mend()
        until(lambda: count(pair.there) == 3001)
    assert ask(pair.there, "GET", "/runs/large/x.bin").content == BINARY


def test_a_link_that_swallows_everything_is_found_out(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator.embedded import replication
    from orchestrator.embedded.peer import PeerError
    from orchestrator.embedded.replication import Progress, Replication

    monkeypatch.setattr(replication, "ROUND", 0.2)
    monkeypatch.setattr(replication, "PATIENCE", 0.5)
    with Link(pair.there.port) as link:
        body = {"source": pair.end(pair.there, link.url), "target": pair.end(pair.here), "continuous": True}
        # Stalled once the first round is over: what follows is never answered.
        run = Replication(parse(body, lambda url: None), "s", Progress(), link.stall, timeout=0.5)
        with pytest.raises(PeerError, match="in time"):
            run.run()
        run.close()


def test_a_wrong_login_is_told_and_tried_seldom(pair: Pair) -> None:
    target = {"url": pair.there.url + "/runs", "auth": {"basic": {"username": "x", "password": "sesame-open"}}}
    body = {"source": pair.end(pair.here), "target": target, "continuous": True}
    assert ask(pair.here, "POST", "/_replicate", json=body).status_code == 202

    def job() -> dict[str, Any]:
        row: dict[str, Any] = ask(pair.here, "GET", "/_scheduler/jobs").json()["jobs"][0]
        return row

    until(lambda: any(event["type"] == "crashed" for event in job()["history"]))
    time.sleep(1.5)
    assert sum(event["type"] == "crashed" for event in job()["history"]) == 1
    assert "unauthorized" in job()["info"]["error"]
    shown = json.dumps(job()) + (pair.here.path / "server.log").read_text()
    assert "sesame-open" not in shown


def test_an_old_peer_without_bulk_get(pair: Pair) -> None:
    fill(pair.here, 20)
    assert ask(pair.here, "PUT", "/runs/a/x.bin", data=b"x" * 10).status_code == 201
    body = {"source": pair.end(pair.here), "target": pair.end(pair.there), "use_bulk_get": False}
    said = ask(pair.here, "POST", "/_replicate", json=body).json()
    assert said["history"][0]["docs_written"] == 21
    assert ask(pair.there, "GET", "/runs/a/x.bin").content == b"x" * 10


def test_an_attachment_that_the_target_has_only_promised(pair: Pair) -> None:
    """The target knows an ancestor by name, but no longer its attachment: it gets the whole."""
    first = ask(pair.here, "PUT", "/runs/a/x.bin", data=b"x" * 10).json()["rev"]
    other = ask(pair.here, "GET", "/runs/a").json()
    ask(pair.there, "POST", "/runs/_bulk_docs", json={"new_edits": False, "docs": [{"_id": "a", "_rev": first}]})
    ask(pair.here, "PUT", "/runs/a", json={**other, "n": 2})
    ask(pair.here, "PUT", f"/runs/a/y.bin?rev={ask(pair.here, 'GET', '/runs/a').json()['_rev']}", data=b"y")
    body = {"source": pair.end(pair.here), "target": pair.end(pair.there)}
    said = ask(pair.here, "POST", "/_replicate", json=body).json()
    assert said["history"][0]["doc_write_failures"] == 0, said
    assert ask(pair.there, "GET", "/runs/a/x.bin").content == b"x" * 10
    assert ask(pair.there, "GET", "/runs/a/y.bin").content == b"y"


def test_only_the_admin_may_ask_for_replications(pair: Pair) -> None:
    user = {"name": "joe", "password": "p", "roles": [], "type": "user"}
    assert ask(pair.here, "PUT", "/_users/org.couchdb.user:joe", json=user).status_code == 201
    for method, path in (("POST", "/_replicate"), ("GET", "/_scheduler/jobs"), ("PUT", "/_replicator/x")):
        found = requests.request(method, pair.here.url + path, auth=("joe", "p"), json={}, timeout=20)
        assert found.status_code in (401, 403), path


def test_the_server_ends_at_once_although_replications_run(pair: Pair) -> None:
    for one, other in ((pair.here, pair.there), (pair.there, pair.here)):
        body = {"source": pair.end(one), "target": pair.end(other), "continuous": True}
        assert ask(pair.here, "POST", "/_replicate", json=body).status_code == 202
    pair.here.stop()
    assert pair.here.exit_code == 0


# Pure parts


@pytest.mark.parametrize(
    ("given_", "header"),
    [
        ("http://u:p%40@h/db", "Basic dTpwQA=="),
        ({"url": "http://u:p@h/db", "auth": {"basic": {"username": "a", "password": "b"}}}, "Basic YTpi"),
        ({"url": "http://h/db", "headers": {"Authorization": "Basic Yzpk"}}, "Basic Yzpk"),
        ({"url": "http://u:p@h/db", "headers": {"authorization": "Basic Yzpk"}}, "Basic dTpw"),
        ("http://h/db/", "Basic ZTpm"),
    ],
)
def test_whose_login_is_used(given_: Any, header: str) -> None:
    made = endpoint(given_, "source", lambda url: ("e", "f") if url == "http://h/db" else None)
    assert made.url == "http://h/db"
    assert {key.lower(): value for key, value in made.headers.items()}["authorization"] == header
    assert "p" not in repr(made).replace("http", "").replace("Endpoint", "").replace("headers", "")


@pytest.mark.parametrize("url", ["http://h", "http://h/", "http://h/db?x", "http:///db", "http://h:x/db", "h/db", 7])
def test_what_is_no_database_s_url(url: Any) -> None:
    with pytest.raises(BadReplication):
        endpoint({"url": url}, "source", lambda _: None)


def test_a_header_cannot_smuggle_another() -> None:
    with pytest.raises(BadReplication, match="line end"):
        endpoint({"url": "http://h/d", "headers": {"X": "a\r\nY: b"}}, "source", lambda _: None)


def test_the_id_follows_what_is_asked_for_not_who_asks() -> None:
    def identity(**change: Any) -> str:
        body = {"source": "http://a/x", "target": "http://b/y", **change}
        return parse(body, lambda _: None).identity("server", str(change.get("code", "")))

    plain = identity()
    assert identity(source="http://u:p@a/x/") == plain
    others = [identity(target="http://b/z"), identity(doc_ids=["a"]), identity(selector={"a": 1}),
              identity(filter="a/b"), identity(filter="a/b", code="f"), identity(winning_revs_only=True)]  # fmt: skip
    assert len({plain, *others}) == 7


seqs = st.integers(1, 9).map(lambda n: f"{n}-x")


@given(st.lists(st.tuples(st.sampled_from("abcd"), seqs), max_size=8), st.lists(st.booleans(), min_size=8, max_size=8))
def test_a_replication_never_begins_behind_what_both_logs_have(sessions: list[Any], arrived: list[bool]) -> None:
    """Some checkpoints reached only one end: what both have recorded last is where to begin."""
    logs: dict[str, dict[str, Any]] = {"source": {}, "target": {}}
    both: Any = 0
    for number, (name, seq) in enumerate(sessions):
        session = Session(f"{name}{number}", 0.0, 0)
        logs["target"] = updated(logs["target"], session, Stats(), seq, 0.0)
        if arrived[number]:
            logs["source"] = updated(logs["source"], session, Stats(), seq, 0.0)
            both = seq
    assert common_sequence(logs["source"], logs["target"]) == both


def test_the_history_does_not_grow_without_end() -> None:
    log: dict[str, Any] = {}
    for number in range(80):
        log = updated(log, Session(str(number), 0.0, 0), Stats(), number, 0.0)
        log = updated(log, Session(str(number), 0.0, 0), Stats(), number + 1, 0.0)
    assert len(log["history"]) == HISTORY
    assert [entry["session_id"] for entry in log["history"][:2]] == ["79", "78"]


@given(st.integers(1, 10_000), st.sampled_from([0, 401, 403, 500]), st.floats(0, 1))
def test_waits_grow_to_a_limit(errors: int, status: int, draw: float) -> None:
    wait = wait_after(errors, status, draw)
    assert 0 < wait <= LONGEST_WAIT * 1.25
    if status in (401, 403):
        assert wait >= DENIED_WAIT * 0.75


def test_a_login_goes_to_its_own_url_only(tmp_path: Path) -> None:
    path = tmp_path / "remotes.json"
    remotes = Remotes(path)
    assert remotes.login("https://h/db") is None
    entries = {
        "server": {"url": "https://h.example/", "username": "u", "password": "p"},
        "database": {"url": "https://h.example/runs", "username": "v", "password": "q"},
    }
    path.write_text(json.dumps(entries))
    path.chmod(0o600)
    assert remotes.login("https://h.example/other") == ("u", "p")
    assert remotes.login("https://H.example:443/runs") == ("v", "q")
    assert remotes.login("https://h.example/runs2") == ("u", "p")
    for url in ("http://h.example/runs", "https://h.example:444/runs", "https://h.example.evil/runs", "https://evil/runs"):
        assert remotes.login(url) is None
    path.chmod(0o644)
    path.write_text(json.dumps(entries) + " ")
    assert remotes.login("https://h.example/runs") is None, "others could read it"
