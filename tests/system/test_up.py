"""``up`` and ``down`` with real daemons: each killed in turn, a port that is taken, an end in good order."""

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

import psutil
import pytest

from orchestrator.embedded.testing import EmbeddedServer

pytestmark = pytest.mark.system
DAEMONS = ("database", "registrar", "poller", "page")


class Site:
    """A site on ports of its own, driven through the command line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ORCHESTRATOR_")}
        self.environment = {
            **kept, "HOME": str(folder), "ORCHESTRATOR_URL": f"http://127.0.0.1:{free_port()}",
            "ORCHESTRATOR_WEB_PORT": str(free_port()), "ORCHESTRATOR_LEASE": "4", "ORCHESTRATOR_WORKERS": "1",
        }  # fmt: skip

    def __call__(self, *words: str) -> "subprocess.CompletedProcess[str]":
        command = [str(Path(sys.executable).parent / "orchestrator"), "-C", str(self.folder), *words]
        return subprocess.run(
            command, cwd=self.folder.parent, env=self.environment, text=True, capture_output=True, timeout=120
        )

    def children(self) -> dict[str, dict[str, Any]]:
        status = json.loads(self("up", "--status", "--json").stdout)
        return {child["name"]: child for child in status["children"]}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    it = Site(tmp_path / "site")
    it.folder.mkdir()
    assert it("init", "--chain", "noop").returncode == 0
    with (it.folder / "orchestrator.yaml").open("a") as file:
        file.write("register: {quiet: 0.3, closed_by: [quiet], unknown_format: bad}\n")
    try:
        yield it
    finally:
        it("down", "--now")


def wait_for(condition: Callable[[], Any], seconds: float = 30) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError("it did not happen in time")


def test_killing_one_child_restarts_only_it_and_files_go_on(site: Site) -> None:
    up = site("up", "--detach")
    assert up.returncode == 0, up.stdout + up.stderr
    before = site.children()
    assert set(before) == set(DAEMONS)
    for number, name in enumerate(DAEMONS):
        os.kill(before[name]["pid"], signal.SIGKILL)

        def back(name: str = name) -> bool:
            child = site.children()[name]
            return child["state"] == "running" and child["pid"] not in (None, before[name]["pid"])

        wait_for(back)
        after = site.children()
        assert [other for other in DAEMONS if after[other]["restarts"]] == list(DAEMONS[: number + 1])
        untouched = DAEMONS[number + 1 :]
        assert [after[other]["pid"] for other in untouched] == [before[other]["pid"] for other in untouched]
        assert "SIGKILL" in after[name]["ended"]
        (site.folder / "incoming" / f"f_{number:03d}").write_text("* Archive SAMBA\nno more\n")
    wait_for(lambda: json.loads(site("status", "--json").stdout)["documents"] == len(DAEMONS))
    assert site("up", "--status").returncode == 0


def test_a_site_is_up_once_and_goes_down_in_order(site: Site) -> None:
    assert site("up", "--detach").returncode == 0
    again = site("up", "--detach")
    assert (again.returncode, "already up" in again.stderr) == (7, True)
    pids = [child["pid"] for child in site.children().values()]
    assert site("down").returncode == 0
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert (site.folder / "logs" / "up.log").read_text().rstrip().endswith("stopped")
    assert site("up", "--status").returncode == 1
    assert site("down").returncode == 0


def test_kill_minus_nine_of_the_supervisor_and_up_again(site: Site) -> None:
    assert site("up", "--detach").returncode == 0
    status = json.loads(site("up", "--status", "--json").stdout)
    os.kill(status["pid"], signal.SIGKILL)
    up = site("up", "--detach")
    assert up.returncode == 0, up.stdout + up.stderr
    old = {child["pid"] for child in status["children"]}
    assert not [pid for pid in old if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]


@pytest.mark.parametrize("which", ["ORCHESTRATOR_URL", "ORCHESTRATOR_WEB_PORT"])
def test_a_taken_port_is_said_at_once(site: Site, which: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        site.environment[which] = f"http://127.0.0.1:{port}" if which.endswith("URL") else port
        result = site("up")
    assert result.returncode == 7
    assert port in result.stderr and "taken" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_database_elsewhere_that_is_away_is_said_at_once(site: Site) -> None:
    result = site("up", "--set", "embedded=never")
    assert (result.returncode, "cannot be reached" in result.stderr) == (4, True)


def test_a_database_elsewhere_is_used_by_its_url_alone(site: Site, tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "elsewhere") as server:  # stands for a CouchDB that somebody else runs
        site.environment |= {"ORCHESTRATOR_URL": server.url, "ORCHESTRATOR_EMBEDDED": "never"}
        site.environment["ORCHESTRATOR_COUCH_USER"], site.environment["ORCHESTRATOR_COUCH_PASSWORD"] = server.auth
        assert site("up", "--detach").returncode == 0
        assert set(site.children()) == set(DAEMONS) - {"database"}
        assert site("down").returncode == 0


def test_a_daemon_that_can_never_start_ends_up(site: Site) -> None:
    (site.folder / "database").write_text("a file where the embedded database's folder should be")
    result = site("up")
    assert result.returncode == 3
    assert "database" in result.stderr
    assert "Traceback" not in result.stdout + result.stderr


def test_a_wrong_login_is_given_up_and_not_tried_for_ever(site: Site) -> None:
    site.environment["ORCHESTRATOR_COUCH_USER"] = "me"
    site.environment["ORCHESTRATOR_COUCH_PASSWORD"] = "wrong"
    result = site("up", "--detach")
    assert result.returncode == 5
    assert "login refused" in result.stderr


def test_a_module_in_the_current_folder_hides_nothing(site: Site) -> None:
    for folder in (site.folder, site.folder.parent):
        (folder / "json.py").write_text("raise RuntimeError('this is not the json that was meant')")
    (site.folder / "incoming" / "f_000").write_text("* Archive SAMBA\nno more\n")
    assert site("up", "--detach").returncode == 0
    wait_for(lambda: json.loads(site("status", "--json").stdout)["documents"] == 1)
    assert [child["restarts"] for child in site.children().values()] == [0] * len(DAEMONS)


def test_settings_reach_the_daemons(site: Site) -> None:
    assert site("up", "--detach", "--set", "workers=3", "--without", "page").returncode == 0
    assert set(site.children()) == set(DAEMONS) - {"page"}
    assert "workers=3" in psutil.Process(site.children()["poller"]["pid"]).cmdline()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
