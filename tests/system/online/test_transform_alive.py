"""The transform and its workers as processes: acknowledged versions, replaced workers, time limits, run changes, keys,
and going on where it was."""

from __future__ import annotations

import json
import re
import signal
import socket
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq

from orchestrator.embedded.testing import EmbeddedServer
from orchestrator.online.stores import open_stores
from orchestrator.settings import Settings

pytestmark = pytest.mark.system


def database(online: Any, server: EmbeddedServer) -> None:
    """Spills go into a real database, so that they are there when the transform has ended."""
    (online.folder / "orchestrator.yaml").write_text(
        f"url: {server.url}\ncredentials: {server.credentials_file}\nembedded: never\n"
    )
    online.online["store"] = {"kind": "couch"}


def stores(online: Any) -> Any:
    """The stores as another process sees them."""
    from orchestrator.online import configuration

    settings = Settings.load(online.folder, {})
    return open_stores(configuration.load(online.folder / "online.yaml").store, settings, {})


def everything(store: Any, count: int) -> dict[int, Any]:
    """All outcomes in a store, by number."""
    found: dict[int, Any] = {}
    for part in store.follow(None, wait=lambda seconds: len(found) >= count):
        found.update({one.number: one for one in part.outcomes})
    assert sorted(found) == list(range(count))
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with EmbeddedServer(tmp_path_factory.mktemp("database")) as running:
        yield running


@pytest.fixture
def kept(online: Any, server: EmbeddedServer, request: pytest.FixtureRequest) -> Any:
    """A site whose spills are in the database, under a prefix of the test's own."""
    database(online, server)
    online.online["store"]["prefix"] = re.sub(r"[^a-z0-9]", "", request.node.name)[:40]
    return online


def test_bad_slow_deadly_and_hidden_spills_are_kept_as_what_they_are(kept: Any) -> None:
    kept.online["input"]["settings"] = {"spills": 40, "runs": 2}
    kept.online["map"] = [
        [{"module": "numbered:Fold", "settings": {"bad": [3], "hidden": [4], "slow": [5], "deadly": [6]}}]
    ]
    kept.online["workers"] |= {"timeout": 1.5, "tries": 2}
    done = kept.call("transform", "--until-end")
    assert done.returncode == 0, done.stderr + kept.logs()
    for run in ("100", "101"):
        store = stores(kept).of(run)
        record = store.record()
        assert (record.state, record.how, record.spills) == ("ended", "trailer", 40)
        assert (record.done, record.failed) == (37, 3)
        assert record.header == {"beam": "mu"}
        found = everything(store, 40)
        assert found[3].error.startswith("ValueError: this spill is bad\n")
        assert 'raise ValueError("this spill is bad")' in found[3].error, "the end of its trace"
        assert found[3].module == "numbered:Fold"
        assert not found[4].shown and not found[4].failed
        assert re.fullmatch(r"the worker local-\d took longer than 1.5 s", found[5].error)
        assert re.fullmatch(r"2 workers died of it, the last one: local-\d was ended by SIGKILL", found[6].error)
        assert store.spill(3).data["x"][0] == 3, "a spill that failed is there to be looked at"
    logs = "".join(path.read_text() for path in (kept.folder / "logs").glob("online-worker-local-*.log"))
    assert re.search(r"numbered.py\", line \d+ in process", logs), "the log says where it hung"


def test_a_transform_that_is_killed_or_stopped_goes_on_where_it_was(kept: Any) -> None:
    kept.online["input"]["settings"] = {"spills": 300}
    kept.online["map"][0]["settings"] = {"nap": 0.02}
    first = kept.begin("transform", "--until-end")
    kept.until(lambda: kept.told().get("done", 0) > 40)
    first.kill()
    first.wait()
    second = kept.begin("transform", "--until-end")
    at_work = ("running", "ending")
    kept.until(lambda: (told := kept.told()).get("pid") == second.pid and told.get("run_state") in at_work)
    before = kept.told()["done"]
    kept.until(lambda: kept.told().get("done", 0) > before + 20)
    second.send_signal(signal.SIGTERM)
    assert second.wait(30) == 0
    record = stores(kept).of("100").record()
    assert record.state == "begun" and record.position > before, "stopped in good order: the place is written down"
    third = kept.begin("transform", "--until-end")
    assert third.wait(60) == 0
    record = stores(kept).of("100").record()
    assert (record.state, record.done, record.failed) == ("ended", 300, 0)


def test_workers_elsewhere_need_the_key_and_are_replaced_like_local_ones(online: Any, tmp_path: Path) -> None:
    if not zmq.has("curve"):
        pytest.skip("needs a ZeroMQ with CURVE, as in pyzmq's wheels")
    host = socket.gethostbyname(socket.gethostname())
    port = online.online["workers"]["address"].rpartition(":")[2]
    key, wrong = tmp_path / "key", tmp_path / "wrong"
    assert online.call("key", str(key)).returncode == 0
    assert online.call("key", str(wrong)).returncode == 0
    online.online["workers"] |= {"address": f"tcp://0.0.0.0:{port}", "local": 0, "remote": ["far-1", "far-2"]}
    refused = online.call("transform")
    assert refused.returncode == 3
    assert f"tcp://0.0.0.0:{port} can be reached from other machines and so needs a key" in refused.stderr
    online.online["workers"]["key"] = str(key)
    online.online["input"]["settings"] = {"spills": 300}
    online.online["map"][0]["settings"] = {"nap": 0.02}
    running = online.begin("transform", "--until-end")
    address = f"tcp://{host}:{port}"
    online.begin("worker", "--connect", address, "--key", str(wrong), "--name", "far-1", "--alone")
    team = online.begin("worker", "--connect", address, "--key", str(key), "--name", "far", "--count", "2")
    online.until(lambda: online.told().get("done", 0) > 20)
    assert online.kill("--alone", "far-1", str(key))
    assert running.wait(60) == 0, online.logs()
    last = online.told()["last"]
    assert (last["done"], last["failed"]) == (300, 0)
    assert team.wait(30) == 0, "it ends with its transform"


def test_a_worker_that_differs_is_named_and_no_run_starts(online: Any, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    source = (online.folder / "numbered.py").read_text()
    (other / "numbered.py").write_text(source.replace("class Fold(Map):", 'class Fold(Map):\n    version = "2"\n'))
    online.online["workers"] |= {"local": 1, "remote": ["lyon-1", "lyon-2"]}
    running = online.begin("transform", "--until-end")
    address = online.online["workers"]["address"]
    words = ["worker", "--connect", address, "--alone", "--name"]
    online.begin(*words, "lyon-1")  # as it should be
    differs = online.begin("worker", "-C", str(other), "--connect", address, "--alone", "--name", "lyon-2")
    assert running.wait(60) == 3
    assert differs.wait(30) == 3
    said = (online.folder / "transform-0.out").read_text()
    assert re.search(
        r"orchestrator: no run may start: the worker lyon-2 has numbered:Fold 2 \(\w+\) instead of 1 \(\w+\)", said
    ), said
    assert "refuses lyon-2: it has numbered:Fold 2" in online.logs()


def test_a_birth_that_fails_holds_the_run_until_it_works(online: Any, tmp_path: Path) -> None:
    wanted = tmp_path / "calibration"
    online.online["map"][0]["settings"] = {"missing": str(wanted)}
    online.online["workers"]["local"] = 1
    running = online.begin("transform", "--until-end")
    reason = f"run 100 cannot start: local-1: numbered:Fold: there is no calibration {wanted}"
    online.until(lambda: online.told().get("waits_for") == reason)
    wanted.write_text("")
    assert running.wait(60) == 0
    assert online.told()["last"]["done"] == 100


def test_a_silent_run_ends_by_time_and_goes_on_if_more_comes(kept: Any) -> None:
    kept.online["input"]["settings"] = {"spills": 20, "last": False}
    kept.online["end_of_run"] = 1.0
    running = kept.begin("transform")
    kept.until(lambda: (kept.told().get("last") or {}).get("how") == "time-out")
    assert stores(kept).of("100").record().how == "time-out"
    running.send_signal(signal.SIGTERM)
    assert running.wait(30) == 0
    kept.online["input"]["settings"] = {"spills": 30}
    assert kept.call("transform", "--until-end").returncode == 0
    record = stores(kept).of("100").record()
    assert (record.how, record.done, record.spills) == ("trailer", 30, 30)


def test_a_worker_ends_with_its_transform_however_that_ends(online: Any) -> None:
    online.online["input"]["settings"] = {"spills": 10, "last": False}
    running = online.begin("transform")
    pids = online.until(lambda: found if len(found := online.pids("worker", "--alone")) == 2 else None)
    online.until(lambda: online.told().get("done", 0) == 10)
    running.kill()
    running.wait()
    online.until(lambda: not [pid for pid in pids if psutil.pid_exists(pid)], 20)


def test_spills_after_a_runs_end_are_in_its_plots_all_the_same(kept: Any) -> None:
    kept.online["input"]["settings"] = {"spills": 20, "last": False}
    kept.online["end_of_run"] = 1.0
    snapshot = kept.folder / "online" / "runs" / "100" / "folded.json"
    kept.start()
    kept.until(lambda: stores(kept).of("100").record().state == "final")
    kept.stop()
    first = json.loads(snapshot.read_text())
    kept.online["input"]["settings"] = {"spills": 30}
    kept.start()
    kept.until(lambda: (record := stores(kept).of("100").record()).state == "final" and record.opened == 2)
    again = json.loads(snapshot.read_text())
    assert (first["counted"], again["counted"], again["shown"]) == (20, 30, 30)
    kept.stop()
