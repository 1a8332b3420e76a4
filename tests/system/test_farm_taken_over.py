"""A farm's daemon that hung (SIGSTOP) until another took its farm over: it notices when it wakes, and does nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator import faults
from orchestrator.embedded.testing import EmbeddedServer
from orchestrator.engine.heartbeat import beats
from orchestrator.errors import Exit
from orchestrator.schedulers.fsched import PROGRAM

from .test_faults import CODE, FARM, Place

pytestmark = pytest.mark.system
COUNT = 4
LEASE = 2  # s
#: Where the first daemon hangs. ORCHESTRATOR_LONG=1 tries them all.
PLACES = ["farm.noted", "farm.recording", "farm.intended", "farm.submitted", "farm.forgotten"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("database")) as made:
        yield made


def daemon(place: Place, spool: str, fault: str = "") -> subprocess.Popen[bytes]:
    """A farm's daemon as on a machine of its own: it shares nothing of the spool."""
    environment = {**os.environ, "PYTHONPATH": f"{place.folder}{os.pathsep}{CODE}"}
    if fault:
        environment[faults.VARIABLE] = fault
    with (place.folder / f"log-{spool}").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "orchestrator.cli", "farm", "--set", f"spool={place.folder / spool}", "--set",
             f"lease={LEASE}"],
            cwd=place.folder, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


def state_of(process: subprocess.Popen[bytes]) -> str:
    return Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def wait(condition: Any, what: str, seconds: float = 40.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:g} s for {what}"
        time.sleep(0.1)


@pytest.mark.parametrize("where", PLACES if os.environ.get("ORCHESTRATOR_LONG") else PLACES[:2])
def test_who_wakes_up_after_its_farm_was_taken_over_does_nothing_more(
    tmp_path: Path, server: EmbeddedServer, where: str
) -> None:
    folder = tmp_path / where
    place = Place(folder, server, FARM.format(folder=folder, code=CODE, python=json.dumps([sys.executable])))
    place.add(COUNT)
    first = daemon(place, "one", f"{where}:1:stop")
    second: subprocess.Popen[bytes] | None = None
    try:
        wait(lambda: state_of(first) == "T", f"the first daemon to hang at {where}")
        time.sleep(LEASE + 0.2)
        second = daemon(place, "two")
        wait(lambda: all(d["status"] == "good" for d in place.documents().values()), "the second to do the work")
        wait(lambda: not list((folder / "far" / "jobs").iterdir()), "the second to clear the spool")
        os.kill(first.pid, signal.SIGCONT)
        assert first.wait(20) == Exit.CONFLICT
        said = (folder / "log-one").read_text()
        assert "taken over by a daemon on" in said and f"process {second.pid}" in said
        [beat] = beats(place.database).values()
        assert beat["pid"] == second.pid, "the heartbeat of the living one stays"
        time.sleep(0.5)
        assert second.poll() is None
        second.terminate()
        assert second.wait(20) == 0
        place.check_farm()
        ran = [tuple(line.split()) for line in (folder / "effects").read_text().splitlines()]
        assert len(ran) == COUNT, "more was done than there was to do"
        for name, document in place.documents().items():
            assert (name, "0", document["proc0"]["attempt"]) in ran
        place.audit()
    finally:
        for process in (first, second):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
        subprocess.run([sys.executable, PROGRAM, "stop"], env={**os.environ, "FSCHED_DIR": str(folder / "queue")})


def test_two_daemons_of_one_farm_end_with_one_of_them(tmp_path: Path, server: EmbeddedServer) -> None:
    folder = tmp_path / "both"
    place = Place(folder, server, FARM.format(folder=folder, code=CODE, python=json.dumps([sys.executable])))
    both = [daemon(place, "one"), daemon(place, "two")]
    try:
        wait(lambda: sum(one.poll() is None for one in both) == 1, "one of them to end")
        [code] = [one.returncode for one in both if one.poll() is not None]
        assert code == Exit.CONFLICT
        place.add(2)
        wait(lambda: all(d["status"] == "good" for d in place.documents().values()), "the other to work")
    finally:
        for process in both:
            process.kill()
            process.wait()
        subprocess.run([sys.executable, PROGRAM, "stop"], env={**os.environ, "FSCHED_DIR": str(folder / "queue")})


def test_a_daemon_that_asks_its_farm_seldom_beats_all_the_same(tmp_path: Path, server: EmbeddedServer) -> None:
    folder = tmp_path / "seldom"
    chain = FARM.format(folder=folder, code=CODE, python=json.dumps([sys.executable]))
    place = Place(folder, server, chain.replace("every: 0.2", "every: 60"))
    seldom = daemon(place, "one")
    try:
        wait(lambda: bool(beats(place.database)), "the first beat")
        [first] = beats(place.database).values()
        wait(lambda: next(iter(beats(place.database).values()))["beat"] > first["beat"] + 2, "more of them", 10 * LEASE)
        seldom.terminate()
        assert seldom.wait(20) == 0
        assert not beats(place.database)
    finally:
        seldom.kill()
        seldom.wait()
