"""The real MICE file through the whole system, by every way in: growing, by a socket, and once more by a replay.

Whoever is killed on the way, every spill is in each histogram once: 6 spills, 882 triggers a board, 7,056 hits.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from orchestrator.couch import Credentials, Server
from orchestrator.embedded.testing import EmbeddedServer
from orchestrator.online.snapshot import read_root
from orchestrator.online.stores.couch import CouchStores
from orchestrator.online.stores.files import SpillFiles
from orchestrator.runtime import Lock

SHARED = Path(os.environ.get("ORCHESTRATOR_SHARED_DATA", Path(__file__).parents[4] / "shared" / "data"))
MICE = SHARED / "mice_06008.000"
pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not MICE.is_file(), reason="needs the folder of real files: set ORCHESTRATOR_SHARED_DATA"),
]
BOUNDARY = 399_408  # bytes of a spill in it
PATIENCE = 120.0  # s; everything takes a few on a machine that has nothing else to do


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Online:
    """A site with an online system of real processes."""

    def __init__(self, folder: Path, server: EmbeddedServer, module: str, **settings: Any) -> None:
        self.folder = folder
        (folder / "daq").mkdir(parents=True)
        site = {"url": server.url, "credentials": str(server.credentials_file), "drain": 3}
        (folder / "orchestrator.yaml").write_text(yaml.safe_dump(site))
        ports = [f"tcp://127.0.0.1:{free_port()}" for _ in range(3)]
        online = {
            "input": {"module": module, "settings": settings},
            "map": [{"module": "procs.online.maps.date:Decode", "settings": {"waveforms": False}}],
            "reduce": [{"name": "tdc", "module": "procs.online.reducers.tdc:TdcHits"}],
            "workers": {"local": 1, "address": ports[0]},
            "broadcast": {"publish": ports[1], "subscribe": ports[2]},
            "store": {"kind": "couch", "prefix": f"t{os.urandom(4).hex()}"},
            "web_port": free_port(),
        }
        (folder / "online.yaml").write_text(yaml.safe_dump(online))
        database = Server(server.url, Credentials(*server.credentials))
        files = SpillFiles(folder / "online" / "spills")
        self.stores = CouchStores(database, online["store"]["prefix"], files)  # type: ignore[index]

    def do(self, *words: str, ok: bool = True) -> str:
        """One command, to its end."""
        done = subprocess.run(self.words(*words), capture_output=True, text=True, timeout=PATIENCE)
        assert not ok or done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def words(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "orchestrator.cli", "-C", str(self.folder), *words]

    @contextmanager
    def few(self) -> Iterator[Callable[[], None]]:
        """Transform and reducer alone, this process being their supervisor; gives what kills and replaces the first."""
        lock = Lock(self.folder / "online")
        lock.take()
        children: dict[str, subprocess.Popen[bytes]] = {}

        def begin(*words: str) -> None:
            children[words[0]] = subprocess.Popen(self.words("online", *words), stderr=subprocess.DEVNULL)

        def kill() -> None:
            children["transform"].kill()
            children["transform"].wait()
            begin("transform")

        try:
            begin("transform")
            begin("reduce", "tdc")
            yield kill
        finally:
            for one in children.values():
                one.terminate()
            for one in children.values():
                one.wait(PATIENCE)
            lock.release()

    def kill_transform(self) -> None:
        """kill -9, and another one takes its place."""
        pid = self._transform()
        os.kill(pid, signal.SIGKILL)
        until(lambda: self._transform() not in (0, pid))

    def _transform(self) -> int:
        children = json.loads((self.folder / "online" / "up.json").read_text())["children"]
        return next(int(one["pid"] or 0) for one in children if one["name"] == "online-transform")

    def state(self, run: str) -> str:
        record = self.stores.of(run).record()
        return record.state if record else ""

    def done(self, run: str) -> int:
        record = self.stores.of(run).record()
        return len(self.stores.of(run).numbers()) if record else 0

    def finished(self, run: str) -> dict[str, np.ndarray]:
        """Wait until the run is final; its histograms, after a look whether they are what the file holds."""
        until(lambda: self.state(run) == "final")
        assert self.stores.of(run).numbers() == dict.fromkeys(range(6), False)
        spills = [self.stores.of(run).spill(number) for number in range(6)]
        assert [spill.data["date"]["spill"].tolist() for spill in spills if spill] == [[n] for n in range(6)]
        found = read_root(self.folder / "online" / "runs" / run / "snapshot.root")
        values = {name: one.values(flow=True) for name, one in found.items()}
        assert values["tdc/hits/LDC_1"].sum() == 7056
        assert values["tdc/triggers/LDC_1"].sum() == 4 * 882
        return values


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.05)


def same(one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> bool:
    return one.keys() == two.keys() and all(np.array_equal(one[name], two[name]) for name in one)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("database")) as found:
        yield found


def test_a_file_that_grows_while_the_transform_is_killed_and_once_more_by_replays(
    tmp_path: Path, server: EmbeddedServer
) -> None:
    pattern = str(tmp_path / "site" / "daq" / "*.[0-9][0-9][0-9]")
    site = Online(tmp_path / "site", server, "procs.online.inputs.date:DateInput", files=pattern, grow=True)
    data = MICE.read_bytes()
    path = site.folder / "daq" / "mice_06008.000"
    site.do("online", "start")
    try:
        with path.open("wb", buffering=0) as out:
            for start in range(0, len(data), 7_777):  # events end in the middle of what is written
                out.write(data[start : start + 7_777])
                if start // 7_777 == 2 * BOUNDARY // 7_777:
                    until(lambda: site.done("6008") >= 1)
                    site.kill_transform()
        first = site.finished("6008")
        os.utime(path, (time.time() - 300, time.time() - 300))  # the DAQ has been quiet
        said = site.do("online", "replay", "6008", "--speed", "0")
        assert "run 6008.replay1: 6 spills done, 0 failed, final" in said
        assert same(first, site.finished("6008.replay1"))
        assert (site.folder / "daq" / "mice_06008.as-6008.replay1.000").read_bytes() == data
        assert "there is a run 6008 already" in site.do("online", "replay", "6008", "--as", "6008", ok=False)
    finally:
        site.do("online", "stop")
    # Nothing runs now: the replay brings a system of its own.
    said = site.do("online", "replay", str(MICE), "--speed", "20", "--as", "again")
    assert "run again: 6 spills done, 0 failed, final" in said
    assert same(first, site.finished("again"))
    # And the system goes on where it was: nothing is read twice.
    assert {one.run for one in site.stores.runs()} == {"6008", "6008.replay1", "again"}


def test_a_daq_at_the_socket_and_the_transform_are_killed_and_two_runs_do_not_mix(
    tmp_path: Path, server: EmbeddedServer
) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    site = Online(tmp_path / "site", server, "procs.online.inputs.socket:SocketInput", address=address)
    options = {"date_runs": 2, "date_first": 6008, "date_source": MICE, "socket": address, "stream": "daq",
               "pace": 0.2}  # fmt: skip
    daq = [word for name, value in options.items() for word in ("--option", f"{name}={value}")]
    words = site.words("simulate", str(site.folder / "daq"), "--runs", "0", *daq)
    with site.few() as kill:
        sender = subprocess.Popen(words)
        until(lambda: site.done("6008") >= 2)
        sender.kill()
        sender.wait()
        sender = subprocess.Popen(words)  # sends the same messages: those that were taken are not taken twice
        until(lambda: site.done("6008") >= 4)
        kill()
        assert sender.wait(PATIENCE) == 0  # all that it sent was acknowledged
        first, second = site.finished("6008"), site.finished("6009")
        assert same(first, second)
        for run in (6008, 6009):
            runs = {int(one.data["date"]["run"][0]) for n in range(6) if (one := site.stores.of(str(run)).spill(n))}
            assert runs == {run}
        said = site.do("online", "replay", str(MICE), "--speed", "0")
        assert "run 6008.replay1: 6 spills fed by socket" in said
        assert same(first, site.finished("6008.replay1"))
