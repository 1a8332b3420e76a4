"""``online start``, ``status`` and ``stop`` with everything that they start, and what dies meanwhile."""

from __future__ import annotations

import json
import os
import re
import stat
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from orchestrator.errors import OrchestratorError
from orchestrator.online import system
from orchestrator.settings import Settings
from orchestrator.up import Signals

pytestmark = pytest.mark.system


def children(online: Any) -> dict[str, dict[str, Any]]:
    found = json.loads((online.folder / "online" / "up.json").read_text())["children"]
    return {one["name"].removeprefix("online-"): one for one in found}


def test_what_dies_is_started_again_it_alone_and_stop_leaves_nothing(online: Any) -> None:
    online.online["input"]["settings"] = {"spills": 50, "last": False}
    del online.online["workers"]["address"], online.online["broadcast"]  # sockets in a folder closed to other accounts
    online.start()
    assert stat.S_IMODE((online.folder / "online" / "sockets").stat().st_mode) == 0o700
    page = f"http://127.0.0.1:{online.online['web_port']}/"
    assert _answers(page)  # at once: a start says that pages are up when they are
    names = {"broadcast", "transform", "reduce-folded", "display"}
    assert set(children(online)) == names
    online.until(lambda: online.told().get("done") == 50)
    again = online.call("start")
    assert again.returncode == 7
    assert "runs already" in again.stderr and "online stop" in again.stderr
    before = children(online)
    assert online.kill("online", "reduce", "folded")
    assert online.kill("online", "display")
    online.until(lambda: all(children(online)[name]["restarts"] == 1 for name in ("reduce-folded", "display")))
    online.until(lambda: all(one["state"] == "running" for one in children(online).values()))
    after = children(online)
    assert {name for name in names if before[name]["pid"] != after[name]["pid"]} == {"reduce-folded", "display"}
    found = online.status()
    assert found["running"] and found["transform"]["read"] == 50 and found["transform"]["pending"] == 0
    assert {one["name"]: one["state"] for one in found["transform"]["workers"]} == {
        "local-1": "ready for spills", "local-2": "ready for spills",
    }  # fmt: skip
    text = online.call("status").stdout
    assert "Run 100: 50 read, 50 done, 0 failed, 0 pending" in text
    assert re.search(r"The broadcast keeps [23] plots and counts of 1 run for .*: 0\.\d\d of 537 MB", text)
    online.until(lambda: _answers(page))
    online.stop()
    online.until(lambda: online.pids() == [], 10)
    assert "does not run" in online.call("status").stdout
    logs = {path.name for path in (online.folder / "logs").glob("*.log")}
    assert {f"online-{name}.log" for name in names} | {"online.log", "online-worker-local-1.log"} <= logs


def _answers(page: str) -> bool:
    try:
        return requests.get(page, timeout=5).status_code == 200
    except requests.RequestException:
        return False


def test_a_start_is_refused_by_a_worker_that_differs_and_nothing_is_left(online: Any, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    source = (online.folder / "numbered.py").read_text()
    (other / "numbered.py").write_text(source.replace("% 97", "% 89"))
    online.online["workers"] |= {"local": 1, "remote": ["lyon"]}
    online.begin("worker", "-C", str(other), "--connect", online.online["workers"]["address"], "--name", "lyon")
    done = online.call("start")
    assert done.returncode == 3
    said = done.stderr.strip().splitlines()[-1]
    assert re.match(
        r"orchestrator: no run may start: the worker lyon has numbered:Fold 1 \(\w+\) instead of 1 \(\w+\) \(see ", said
    ), done.stderr
    online.until(lambda: [pid for pid in online.pids() if pid != os.getpid()] == [])


def test_a_start_is_refused_for_a_worker_that_does_not_report(online: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    online.online["workers"] |= {"local": 1, "remote": ["lyon", "oxford"]}
    online.write()
    monkeypatch.setattr(system, "PATIENCE", 8.0)
    monkeypatch.chdir(online.folder)
    monkeypatch.syspath_prepend(str(online.folder))
    said: list[str] = []
    with Signals() as signals, pytest.raises(OrchestratorError) as error:
        system.System(Settings.load(online.folder, {}), {}).run(signals, said.append)
    assert str(error.value).startswith("after 8 s these workers have not reported: lyon, oxford; start them with")
    end = time.monotonic() + 20
    while [pid for pid in online.pids() if pid != os.getpid()] and time.monotonic() < end:
        time.sleep(0.1)
    assert [pid for pid in online.pids() if pid != os.getpid()] == []
