"""The server as a process: starting, being refused, ending, and what it does not support."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from orchestrator.embedded import security
from orchestrator.embedded.server import serve
from orchestrator.embedded.testing import EmbeddedServer
from orchestrator.errors import Conflict, SettingsError, Unavailable


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("server")) as made:
        requests.put(made.url + "/abc", auth=made.auth, timeout=10)
        yield made


def test_credentials_are_generated_for_the_owner_alone(server: EmbeddedServer) -> None:
    assert stat.S_IMODE(server.credentials_file.stat().st_mode) == 0o600
    known = json.loads(server.credentials_file.read_text())
    assert len(known["password"]) >= 20
    assert stat.S_IMODE((server.path / "server.json").stat().st_mode) == 0o600


def test_credentials_survive_a_restart(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server:
        first = server.credentials
        server.restart()
        assert server.credentials == first
        assert requests.get(server.url + "/_all_dbs", auth=server.auth, timeout=10).status_code == 200


def test_a_second_server_in_the_same_folder(server: EmbeddedServer) -> None:
    with pytest.raises(Unavailable, match=r"Another server .* has the database folder"):
        EmbeddedServer(server.path).start()


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Conflict, match=f"Port {port} on 127.0.0.1 cannot be used"):
            serve(tmp_path, port=port, credentials_file=tmp_path / "c.json")


def test_only_for_its_own_machine(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="serves its own machine only"):
        serve(tmp_path, host="0.0.0.0", port=0, credentials_file=tmp_path / "c.json")


def test_an_unknown_way_to_synchronise(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="synchronous must be full or normal"):
        serve(tmp_path, port=0, synchronous="off", credentials_file=tmp_path / "c.json")


def test_credentials_that_others_can_read(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text('{"username":"a","password":"b"}')
    path.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        security.make_credentials(path)


@pytest.mark.parametrize("text", ["", "[]", '{"username":"a"}', '{"username":1,"password":"b"}'])
def test_credentials_that_are_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(SettingsError, match="cannot be used"):
        security.make_credentials(path)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot be written"):
        serve(tmp_path / "file" / "data", port=0, credentials_file=tmp_path / "c.json")


UNSUPPORTED = [
    ("PUT", "/a%2F_replicator"), ("DELETE", "/_replicator"), ("GET", "/_node/_local/_config"), ("GET", "/_utils/"),
    ("GET", "/_db_updates"), ("POST", "/abc/_purge"), ("GET", "/abc/_shards"), ("GET", "/abc/_partition/x"),
    ("GET", "/abc/_design/d/_show/x"), ("GET", "/abc/_design/d/_list/x/y"), ("POST", "/abc/_design/d/_update/x"),
    ("GET", "/abc/_design/d/_rewrite/x"), ("GET", "/abc/_design/d/_search/x"), ("PUT", "/xyz?partitioned=true"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), UNSUPPORTED)
def test_what_is_not_supported_is_said(server: EmbeddedServer, method: str, path: str) -> None:
    requests.put(server.url + "/abc/_design/d", json={}, auth=server.auth, timeout=10)
    answer = requests.request(method, server.url + path, json={}, auth=server.auth, timeout=10)
    assert answer.status_code == 501
    said = answer.json()
    assert said["error"] == "not_implemented"
    assert said["reason"].endswith(".")


def test_temporary_views_are_gone(server: EmbeddedServer) -> None:
    answer = requests.post(server.url + "/abc/_temp_view", json={}, auth=server.auth, timeout=10)
    assert answer.status_code == 410


def test_the_vendor_is_named(server: EmbeddedServer) -> None:
    said = requests.get(server.url, timeout=10).json()
    assert "embedded" in said["vendor"]["name"]


def test_it_listens_on_loopback_alone(server: EmbeddedServer) -> None:
    listening = [
        line.split()[1]
        for name in ("tcp", "tcp6")
        if (table := Path(f"/proc/net/{name}")).exists()
        for line in table.read_text().splitlines()[1:]
        if line.split()[3] == "0A"
    ]
    mine = [address for address in listening if int(address.rsplit(":", 1)[1], 16) == server.port]
    assert mine == [f"0100007F:{server.port:04X}"]


def test_sigterm_ends_feeds_with_their_last_line(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server:
        requests.put(server.url + "/abc", auth=server.auth, timeout=10)
        params = {"feed": "continuous", "heartbeat": "1000"}
        feed = requests.get(server.url + "/abc/_changes", params=params, auth=server.auth, stream=True, timeout=10)
        threading.Timer(0.3, server.stop).start()
        lines = [line for line in feed.iter_lines() if line]
        assert "last_seq" in json.loads(lines[-1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_polite_end_is_no_failure(tmp_path: Path, number: signal.Signals) -> None:
    with EmbeddedServer(tmp_path) as server:
        requests.put(server.url + "/abc", auth=server.auth, timeout=10)
        os.kill(server.pid, number)
        server.stop()
        assert server.exit_code == 0
        assert not list(tmp_path.glob("*-wal"))
        said = (tmp_path / "server.log").read_text()
        assert "Traceback" not in said


def test_a_feed_whose_client_has_gone_leaves_nothing_behind(server: EmbeddedServer) -> None:
    def threads_and_files() -> int:
        return len(os.listdir(f"/proc/{server.pid}/fd"))  # noqa: PTH208

    before = threads_and_files()
    params = {"feed": "continuous", "heartbeat": "60000"}
    feeds = [
        requests.get(server.url + "/abc/_changes", params=params, auth=server.auth, stream=True, timeout=10)
        for _ in range(20)
    ]
    assert threads_and_files() >= before + 20
    for feed in feeds:
        feed.close()
    deadline = time.monotonic() + 5
    while threads_and_files() > before + 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_request_that_breaks_off_harms_nobody(server: EmbeddedServer) -> None:
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(b"PUT /abc/broken HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
    assert requests.get(server.url + "/_up", timeout=10).status_code == 200
    assert requests.get(server.url + "/abc/broken", auth=server.auth, timeout=10).status_code == 404


def test_many_connections_at_once(server: EmbeddedServer) -> None:
    failed: list[object] = []

    def work(number: int) -> None:
        session = requests.Session()
        session.auth = server.auth
        for turn in range(10):
            answer = session.put(f"{server.url}/abc/c{number}-{turn}", json={"n": turn}, timeout=20)
            if answer.status_code != 201:
                failed.append(answer.text)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    found = requests.get(server.url + "/abc/_all_docs?startkey=%22c%22&endkey=%22d%22", auth=server.auth, timeout=10)
    assert len(found.json()["rows"]) == 200


def test_a_server_for_tests_outlives_no_test(tmp_path: Path) -> None:
    program = (
        "import os, sys\nfrom orchestrator.embedded.testing import EmbeddedServer\n"
        f"server = EmbeddedServer({str(tmp_path)!r})\nserver.start()\n"
        "print(server.pid, flush=True)\nos.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    pid = int(done.stdout)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_client_names_no_file_of_ours(server: EmbeddedServer) -> None:
    entry = {"blob": "../credentials.json", "digest": "md5-x", "length": 10, "content_type": "text/plain"}
    for document in ({"_attachments": {"a": entry}}, {"_attachments": {"a": {**entry, "stub": True}}}):
        answer = requests.put(server.url + "/abc/thief", json=document, auth=server.auth, timeout=10)
        assert answer.status_code in (400, 412)
        body = {"docs": [{"_id": "thief", **document}]}
        requests.post(server.url + "/abc/_bulk_docs", json=body, auth=server.auth, timeout=10)
        assert requests.get(server.url + "/abc/thief/a", auth=server.auth, timeout=10).status_code == 404


def test_a_type_ends_no_header(server: EmbeddedServer) -> None:
    entry = {"content_type": "text/x\r\nX-Evil: 1", "data": "eA=="}
    requests.put(server.url + "/abc/type", json={"_attachments": {"a": entry}}, auth=server.auth, timeout=10)
    answer = requests.get(server.url + "/abc/type/a", auth=server.auth, timeout=10)
    assert answer.status_code == 200
    assert "X-Evil" not in answer.headers


def test_files_that_cannot_grow_refuse_writes_until_they_can(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server:
        url = server.url + "/abc"
        session = requests.Session()
        session.auth = server.auth
        session.put(url, timeout=10)
        assert session.put(url + "/before", json={}, timeout=10).status_code == 201
        # No file of the server's may grow beyond this: what a full disk does to it, for all it can see.
        limits = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (100_000, limits[1]))
        answers = [session.put(f"{url}/d{number}", json={"text": "x" * 20_000}, timeout=10) for number in range(20)]
        refused = [answer for answer in answers if answer.status_code != 201]
        assert refused
        assert {answer.status_code for answer in refused} <= {500, 507}
        assert all(answer.json()["reason"] for answer in refused)
        blob = session.put(url + "/blob/a", data=b"x" * 300_000, headers={"Content-Type": "x/y"}, timeout=10)
        assert blob.status_code in (500, 507)
        assert session.put(server.url + "/other", timeout=10).status_code in (201, 500, 507)
        assert session.get(url + "/before", timeout=10).status_code == 200
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, limits)
        assert session.put(url + "/after", json={"text": "x" * 20_000}, timeout=10).status_code == 201
        stored = {row["id"] for row in session.get(url + "/_all_docs", timeout=10).json()["rows"]}
        accepted = {answer.json()["id"] for answer in answers if answer.status_code == 201}
        assert stored == accepted | {"before", "after"}
        assert not list(tmp_path.glob("*.attachments/incoming-*"))
