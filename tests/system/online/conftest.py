"""A whole online system for tests: a folder, modules of its own, real processes, real kills."""

from __future__ import annotations

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

import psutil
import pytest
import yaml

MODULES = '''
"""Modules whose results are known beforehand."""
import os
import time

import hist
import numpy as np

from orchestrator.errors import SettingsError
from orchestrator.online.module import Input, Map, Reduce
from orchestrator.online.plot import Plot
from orchestrator.online.spill import EndOfRun, Spill, StartOfRun


class Numbered(Input):
    """Spills of ``runs`` runs, their numbers as content; position: how many items were yielded."""

    defaults = {"spills": 100, "runs": 1, "words": 8, "pause": 0.0, "last": True}

    def __init__(self, settings=None, log=None):
        super().__init__(settings, log)
        self.at = 0

    def items(self, position=None):
        self.at = position or 0
        count = self.settings["spills"]
        while self.at < self.settings["runs"] * (count + 2):
            run, place = divmod(self.at, count + 2)
            self.at += 1
            if self.settings["pause"]:
                time.sleep(self.settings["pause"])
            name = str(100 + run)
            if place == 0:
                yield StartOfRun(name, header={"beam": "mu"})
            elif place == count + 1:
                if self.settings["last"] or run + 1 < self.settings["runs"]:
                    yield EndOfRun(name, spills=count)
            else:
                number = place - 1
                yield Spill(name, number, data={"x": np.arange(number, number + self.settings["words"])})
        while not self.settings["last"]:
            time.sleep(0.05)
            yield None

    @property
    def position(self):
        return self.at


class Fold(Map):
    """Numbers modulo 97; ``bad``, ``slow``, ``hidden``, ``deadly``: numbers of spills that go wrong in that way."""

    defaults = {"bad": [], "slow": [], "hidden": [], "deadly": [], "busy": 0.0, "nap": 0.0, "scale": 1,
                "missing": ""}

    def birth(self, configuration):
        if self.settings["missing"] and not os.path.exists(self.settings["missing"]):
            raise SettingsError(f"there is no calibration {self.settings['missing']}")

    def process(self, spill):
        if spill.number in self.settings["bad"]:
            raise ValueError("this spill is bad")
        if spill.number in self.settings["deadly"]:
            os.kill(os.getpid(), 9)
        if spill.number in self.settings["slow"]:
            time.sleep(3600)
        if spill.number in self.settings["hidden"]:
            return False
        time.sleep(self.settings["nap"])
        end = time.perf_counter() + self.settings["busy"]
        while time.perf_counter() < end:
            pass
        spill.data["folded"] = spill.data["x"] % 97 * self.settings["scale"]


class Folded(Reduce):
    """How often each folded number occurs."""

    defaults = {"plot": "folded"}

    def birth(self, configuration):
        self.held = hist.Hist(hist.axis.Integer(0, 97, label="folded"), storage=hist.storage.Double())

    def process(self, spill):
        self.held.fill(spill.data["folded"])

    def plots(self):
        yield Plot(self.settings["plot"], "Folded numbers", self.held)

    def state(self):
        return {"values": self.held.values(flow=True)}

    def merge(self, state):
        self.held.view(flow=True)[...] += state["values"]
'''


def free_ports(count: int) -> list[int]:
    """So many that nobody listens at just now."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


class OnlineSite:
    """A site's folder with an online.yaml, and the commands on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        (folder / "numbered.py").write_text(MODULES)
        workers, publish, subscribe, web = free_ports(4)
        self.online: dict[str, Any] = {
            "input": {"module": "numbered:Numbered", "settings": {}},
            "map": [{"module": "numbered:Fold", "settings": {}}],
            "reduce": [{"name": "folded", "module": "numbered:Folded", "refresh": {"seconds": 0.2}}],
            "workers": {"local": 2, "address": f"tcp://127.0.0.1:{workers}"},
            "broadcast": {"publish": f"tcp://127.0.0.1:{publish}", "subscribe": f"tcp://127.0.0.1:{subscribe}"},
            "store": {"kind": "memory"},
            "web_port": web,
        }
        self.others: list[subprocess.Popen[bytes]] = []

    def write(self) -> None:
        (self.folder / "online.yaml").write_text(yaml.safe_dump(self.online))

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-P", "-m", "orchestrator.cli", "-C", str(self.folder), "online", *words]

    def call(self, *words: str, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
        self.write()
        return subprocess.run(self.command(*words), capture_output=True, text=True, timeout=timeout)

    def begin(self, *words: str) -> subprocess.Popen[bytes]:
        """A command that goes on; ended with the test."""
        self.write()
        log = (self.folder / f"{words[0]}-{len(self.others)}.out").open("ab")
        process = subprocess.Popen(self.command(*words), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.close()
        self.others.append(process)
        return process

    def start(self) -> None:
        done = self.call("start")
        assert done.returncode == 0, done.stdout + done.stderr + self.logs()

    def stop(self) -> None:
        done = self.call("stop")
        assert done.returncode == 0, done.stdout + done.stderr

    def status(self) -> dict[str, Any]:
        found = json.loads(self.call("status", "--json").stdout)
        assert isinstance(found, dict)
        return found

    def told(self) -> dict[str, Any]:
        """What the transform says of itself."""
        with contextlib.suppress(OSError, ValueError):
            return dict(json.loads((self.folder / "online" / "transform.json").read_text()))
        return {}

    def pids(self, *parts: str) -> list[int]:
        """Processes of this site whose command line has all these words."""
        found = []
        for process in psutil.process_iter(["pid", "cmdline"]):
            words = process.info["cmdline"] or []
            if str(self.folder) in words and all(part in words for part in parts):
                found.append(process.info["pid"])
        return found

    def kill(self, *parts: str) -> bool:
        for pid in self.pids(*parts):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                return True
        return False

    def logs(self) -> str:
        return "\n".join(
            f"== {path.name}\n{path.read_text(errors='replace')[-2000:]}"
            for path in sorted([*(self.folder / "logs").glob("*.log"), *self.folder.glob("*.out")])
        )

    def until(self, what: Callable[[], Any], seconds: float = 60.0) -> Any:
        end = time.monotonic() + seconds
        while not (found := what()):
            assert time.monotonic() < end, f"{self.told()}\n{self.logs()}"
            time.sleep(0.05)
        return found

    def end(self) -> None:
        for process in self.others:
            process.terminate()
        if self.pids("--foreground"):
            self.call("stop")
        for process in self.others:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()


@pytest.fixture
def online(tmp_path: Path) -> Iterator[OnlineSite]:
    site = OnlineSite(tmp_path / "site")
    try:
        yield site
    finally:
        site.end()
