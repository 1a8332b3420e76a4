"""Few round trips: what a farm's round costs over a link on which each takes long, through a real sshd."""

from __future__ import annotations

import json
import queue
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import jobfiles
from orchestrator.documents import Report
from orchestrator.engine.farmworld import World
from orchestrator.schedulers import Query, get
from orchestrator.transports.ssh import SshTransport
from orchestrator.transports.testing import Sshd

RESULTS = 200


class SlowLink:
    """A TCP proxy that holds every byte back for ``delay`` s on its way there, and counts how often it turns round."""

    def __init__(self, port: int, delay: float) -> None:
        self.delay = delay
        self.turns = 0
        self._last = ""
        self._target = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            for one in (near, far):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open.append(one)
            for source, target, name in ((near, far, "there"), (far, near, "back")):
                waiting: queue.Queue[tuple[float, bytes]] = queue.Queue()
                threading.Thread(target=self._take, args=(source, waiting, name), daemon=True).start()
                threading.Thread(target=self._give, args=(target, waiting), daemon=True).start()

    def _take(self, source: socket.socket, waiting: queue.Queue[tuple[float, bytes]], name: str) -> None:
        data = b"."
        while data:
            try:
                data = source.recv(1 << 16)
            except OSError:
                data = b""
            if name != self._last:
                self._last = name
                self.turns += name == "there"
            waiting.put((time.monotonic() + self.delay / 2, data))

    def _give(self, target: socket.socket, waiting: queue.Queue[tuple[float, bytes]]) -> None:
        while (item := waiting.get())[1]:
            time.sleep(max(0.0, item[0] - time.monotonic()))
            try:
                target.sendall(item[1])
            except OSError:
                return
        target.close()

    def close(self) -> None:
        for one in (self._server, *self._open):
            one.close()


@pytest.fixture
def link(sshd: Sshd) -> Iterator[SlowLink]:
    made = SlowLink(sshd.port, 0.05)
    yield made
    made.close()


def result(number: int) -> bytes:
    report = Report(f"d{number}", "proc0", f"{number:032x}", 0.0, 1.0, result={"n": number}, log_tail="x" * 1000)
    return json.dumps(jobfiles.result_to_json(report, "node1", "7")).encode()


def test_200_results_take_less_than_ten_round_trips(sshd: Sshd, far: Path, link: SlowLink, tmp_path: Path) -> None:
    known = Path(sshd.settings["known_hosts"]).read_text()
    (tmp_path / "known_hosts").write_text(known.replace(f":{sshd.port} ", f":{link.port} "))
    jobs = [f"orc-job-{number}" for number in range(4)]
    with SshTransport(sshd.access()) as direct:
        for place, job in enumerate(jobs):
            direct.mkdir(jobfiles.folder(str(far), job))
            marker = json.dumps({"number": "7", "host": "node1", "pid": 1, "started": 1.0}).encode()
            direct.write(f"{jobfiles.folder(str(far), job)}/{jobfiles.started_name(1)}", marker)
            for number in range(place, RESULTS, 4):
                path = f"{jobfiles.folder(str(far), job)}/{jobfiles.result_name(f'{number:032x}')}"
                direct.write(path, result(number))
    with SshTransport(sshd.access(port=link.port, known_hosts=str(tmp_path / "known_hosts"))) as transport:
        world = World(get("slurm"), transport, str(far), Query("orc-"))
        transport.list(far)  # connected, as a daemon is
        began, link.turns = time.monotonic(), 0
        files = world.look_at(jobs)
        found = {(job, one): world.result(job, one) for job, had in files.items() if had for one in had.results}
        read = link.turns
        world.forget(found)
        print(
            f"{RESULTS} results: {link.turns} round trips, {time.monotonic() - began:.2f} s at {link.delay * 1000} ms"
        )
        assert len(found) == RESULTS and all(report.attempt == one for (_, one), (report, _) in found.items())
        assert all(had is not None and had.markers[1].host == "node1" for had in files.values())
        assert read <= 8 and link.turns < 10
        assert not list(far.rglob("*.result"))
        link.turns = 0
        world.look_at(jobs)  # nothing new: only the folders are looked at
        assert link.turns <= 3
        world.remove(*jobs)
        assert world.jobs() == []
