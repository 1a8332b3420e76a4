"""The daemons as they are started: a broadcast and reducers on a database, killed, and watched by a subscriber."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uproot

from orchestrator.couch import Credentials, Server
from orchestrator.embedded.testing import EmbeddedServer
from orchestrator.online import rootjson, snapshot
from orchestrator.online.images import SCHEMA
from orchestrator.online.keys import Keys, make
from orchestrator.online.packing import packed
from orchestrator.online.spill import Spill
from orchestrator.online.store import Outcome, RunRecord
from orchestrator.online.stores.couch import CouchStores
from orchestrator.online.stores.files import SpillFiles
from orchestrator.online.subscribing import Message, Subscriber

PATIENCE = 40.0  # s; much more than is needed on a busy machine


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("couch")) as made:
        yield made


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Site:
    """A site's folder with one reducer, its daemons, and a subscriber."""

    def __init__(self, folder: Path, server: EmbeddedServer, prefix: str, **more: Any) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "orchestrator.yaml").write_text(f"url: {server.url}\ncredentials: {server.credentials_file}\n")
        ports = [free_port(), free_port()]
        self.addresses = [f"tcp://127.0.0.1:{port}" for port in ports]
        reducer = {
            "name": "amplitudes", "module": "procs.online.reducers.pulses:PulseAmplitude",
            "settings": {"bins": 10, "low": 0.0, "high": 100.0}, "refresh": {"seconds": 0.05},
        }  # fmt: skip
        content = {
            "input": {"module": "procs.online.inputs.date:DateInput"}, "reduce": [reducer], "tag": "t",
            "broadcast": dict(zip(("publish", "subscribe"), self.addresses, strict=True)), "store": {"prefix": prefix},
        } | more  # fmt: skip
        (folder / "online.yaml").write_text(json.dumps(content))
        login = Server(server.url, Credentials(*server.auth))
        self.images = login.database(f"{prefix}_images")
        self.stores = CouchStores(login, prefix, SpillFiles(folder / "online" / "spills"))
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.heard: list[Message] = []

    def start(self, *words: str, **environ: str) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{words[0]}.log").open("ab")
        command = [sys.executable, "-P", "-m", "orchestrator.cli", "-C", str(self.folder), "online", *words]
        made = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | environ)
        self.running[words[0]] = made
        return made

    def end(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in self.folder.glob("*.log"))

    def newest(self, subscriber: Subscriber, enough: Callable[[Message], bool]) -> Message:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            while self.heard:
                if enough(message := self.heard.pop(0)):
                    return message
            self.heard = subscriber.receive(0.1)  # what comes together with the wanted one is for the next call
        raise AssertionError(f"it did not come:\n{self.logs()}")


@pytest.fixture
def site(tmp_path: Path, server: EmbeddedServer, request: pytest.FixtureRequest) -> Iterator[Site]:
    made = Site(tmp_path / "site", server, f"s{os.getpid()}{free_port()}", **getattr(request, "param", {}))
    with contextlib.closing(contextlib.ExitStack()) as stack:
        stack.callback(made.end)
        yield made


def outcome(run: str, number: int) -> Outcome:
    pulses = {"names": ["x"], "channel": np.zeros(3, np.int32), "amplitude": np.array([5.0, 15.0, 200.0])}
    return Outcome(number, packed(Spill(run, number, taken=time.time(), data={"pulses": pulses})))


def all_of(run: str, entries: int) -> Callable[[Message], bool]:
    return lambda message: (
        message.kind == "plot" and message.run == run and message.header["entries"] == entries
        and message.name == "amplitude/channel/x"
    )  # fmt: skip


def test_live_plots_survive_everything_and_end_in_a_snapshot(site: Site) -> None:
    store = site.stores.of("R1")
    store.save(RunRecord("R1", begun="2026-01-01T00:00:00Z"))
    store.put(outcome("R1", number) for number in range(10))
    site.start("broadcast")
    first = site.start("reduce", "amplitudes", ORCHESTRATOR_FAULT="reducer.published:1")
    with Subscriber(site.addresses[1]) as subscriber:
        assert first.wait(PATIENCE) == -signal.SIGKILL, site.logs()
        second = site.start("reduce", "amplitudes")
        store.put(outcome("R1", number) for number in range(8, 20))
        site.newest(subscriber, all_of("R1", 60))
        second.kill()
        second.wait()
        site.running["broadcast"].kill()
        site.running["broadcast"].wait()
        store.put([Outcome(20, None, error="broken"), outcome("R1", 21)])
        store.save(RunRecord("R1", "ended", spills=22, done=21, failed=1, begun="2026-01-01T00:00:00Z"))
        after = site.stores.of("R2")
        after.save(RunRecord("R2", begun="2026-01-01T01:00:00Z"))
        site.start("reduce", "amplitudes", "--image-directory", str(site.folder / "pictures"))
        site.start("broadcast")
        last = site.newest(subscriber, lambda message: all_of("R1", 63)(message) and message.header["final"])
        said = site.newest(subscriber, lambda message: message.kind == "run" and message.run == "R1")
        assert said.header["state"] == "final"
        after.put([outcome("R2", 0)])
        site.newest(subscriber, all_of("R2", 3))
    record = store.record()
    assert record is not None and record.state == "final" and record.snapshot
    with uproot.open(site.folder / "online" / "runs" / "R1" / snapshot.WHOLE) as file:
        kept = file["amplitude/channel/x"].values(flow=True)
    assert np.array_equal(kept, rootjson.loads(last.body).values(flow=True)) and kept.sum() == 63
    picture = site.folder / "online" / "runs" / "R1" / "plots" / "amplitude" / "channel" / "x.png"
    for _ in range(400):
        if picture.exists():  # drawn last of all
            break
        time.sleep(0.1)
    there = {path.name for path in (site.folder / "pictures" / "R1").iterdir()}
    assert {"amplitude.channel.x.png", "amplitude.channel.x.json"} <= there
    image = site.images.get("image:R1:amplitude/channel/x", attachments=True)
    assert image["final"] and image["spills"] == 21 and image["tag"] == "t"
    assert set(image["_attachments"]) == {"histogram.json", "picture.png"}
    beside = {key: value for key, value in image.items() if not key.startswith("_")}
    assert set(beside) == set(SCHEMA["properties"])
    stopped = site.running["reduce"]
    stopped.send_signal(signal.SIGTERM)
    assert stopped.wait(PATIENCE) == 0, site.logs()


def test_beyond_loopback_only_who_has_the_key_is_heard_and_hears(site: Site) -> None:
    key = site.folder / "key"
    make(key)
    content = json.loads((site.folder / "online.yaml").read_text())
    content["workers"] = {"key": str(key)}
    (site.folder / "online.yaml").write_text(json.dumps(content))
    store = site.stores.of("R3")
    store.save(RunRecord("R3", begun="2026-01-01T00:00:00Z"))
    store.put([outcome("R3", 0)])
    site.start("broadcast")
    site.start("reduce", "amplitudes")
    there = site.addresses[1]
    with Subscriber(there, secure=Keys(key).connecting) as subscriber, Subscriber(there) as other:
        site.newest(subscriber, all_of("R3", 3))
        assert other.receive(1.0) == [] and not other.connected


def test_what_cannot_work_ends_in_one_sentence(site: Site) -> None:
    def said(*words: str) -> tuple[int, str]:
        command = [sys.executable, "-P", "-m", "orchestrator.cli", "-C", str(site.folder), "online", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stderr.strip()

    code, words = said("reduce", "nobody")
    assert code == 3 and "has no reducer 'nobody' (it has: amplitudes)" in words and "\n" not in words
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(site.addresses[0].rpartition(":")[2])))
        taken.listen()
        code, words = said("broadcast")
    assert code == 7 and "is taken by another program" in words and "\n" not in words
